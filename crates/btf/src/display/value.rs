//! Values through their types (bpftool's `btf_dumper`).

use std::fmt::Write;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::btf::Btf;
use crate::error::{BtfErrorKind as E, Result};
use crate::raw;
use crate::types::{Array, Composite, Enumeration, Int, Type, TypeId};
use crate::walk::MAX_NESTING;

/// Values in one tree: some, and more for each byte that there is (unions show one several times).
/// Elements of no size can be repeated for ever.
fn limit(bytes: &[u8]) -> u32 {
    let more = bytes.len().saturating_mul(64).min(1 << 22);
    4096 + more as u32
}

/// A value, taken apart. `Serialize` gives bpftool's JSON, `text` its plain output.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `_Bool`.
    Bool(bool),
    /// A signed integer, or an enum's value that has no name.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A bit-field or an integer of odd width: shown in hexadecimal.
    Bits(u128),
    /// A character on its own.
    Char(u8),
    /// An array of characters that holds a string, or the name of an enum's value.
    Str(String),
    /// A pointer.
    Ptr(u64),
    /// A floating-point number (bpftool shows none).
    Float(f64),
    /// An array.
    Array(Vec<Value>),
    /// A struct or union, members in order; unnamed ones have an empty name.
    Object(Vec<(String, Value)>),
    /// `void`.
    Unknown,
}

/// Takes `bytes` apart as a value of this type.
///
/// # Errors
/// Types that cannot be a value, `bytes` shorter than the type, types nested beyond reason.
pub fn value(btf: &Btf, id: TypeId, bytes: &[u8]) -> Result<Value> {
    Reader {
        btf,
        left: limit(bytes),
        limit: limit(bytes),
    }
    .read(id, bytes, 0, MAX_NESTING)
}

struct Reader<'a> {
    btf: &'a Btf,
    left: u32,
    limit: u32,
}

/// The first `size` bytes as a number.
fn number(bytes: &[u8], size: usize) -> Option<u128> {
    let mut word = [0; 16];
    word.get_mut(..size)?.copy_from_slice(bytes.get(..size)?);
    Some(u128::from_le_bytes(word))
}

/// `bits` bits from bit `offset` of the first byte on.
fn bits_at(bytes: &[u8], offset: u32, bits: u32) -> Option<u128> {
    let bytes = bytes.get((offset / 8) as usize..)?;
    let offset = offset % 8;
    let size = (offset + bits).div_ceil(8) as usize;
    // A 128-bit field that starts within a byte loses its top, as in bpftool.
    let all = number(bytes, size.min(16))? >> offset;
    Some(match bits {
        0..128 => all & ((1 << bits) - 1),
        _ => all,
    })
}

/// The low `bits` as a signed number; of none, 0.
fn signed(word: u128, bits: u32) -> i64 {
    let shift = 64 - bits.min(64);
    let top = (word as u64).checked_shl(shift);
    top.map_or(0, |top| top as i64 >> shift)
}

impl Reader<'_> {
    fn read(&mut self, id: TypeId, bytes: &[u8], bit: u32, depth: usize) -> Result<Value> {
        let error = |what| self.btf.error(id, what);
        let deeper = depth.checked_sub(1);
        let depth = deeper.ok_or_else(|| error(E::TooDeep(MAX_NESTING as u32)))?;
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return Err(error(E::TooManyValues(self.limit))),
        };
        let short = |needed: u32| {
            error(E::ValueTooShort {
                needed,
                len: bytes.len(),
            })
        };
        let (_, ty) = self.btf.resolve(id)?;
        Ok(match ty {
            Type::Void => Value::Unknown,
            Type::Int(int) => int_value(int, bytes, bit).ok_or_else(|| short(int.size))?,
            Type::Ptr { .. } => Value::Ptr(number(bytes, 8).ok_or_else(|| short(8))? as u64),
            Type::Float { size, .. } => float_value(size, bytes).ok_or_else(|| short(size))?,
            Type::Enum(e) | Type::Enum64(e) => {
                enum_value(&ty, e, bytes).ok_or_else(|| short(e.size))?
            }
            Type::Array(array) => self.array(array, bytes, depth)?,
            Type::Struct(c) | Type::Union(c) => self.composite(c, bytes, depth)?,
            Type::Var { name, ty, .. } => {
                let value = self.read(ty, bytes, 0, depth)?;
                Value::Object(vec![(name.to_owned(), value)])
            }
            Type::Datasec(d) => {
                let mut vars = Vec::new();
                for var in d.vars {
                    let rest = bytes.get(var.offset as usize..);
                    let rest = rest.ok_or_else(|| short(var.offset))?;
                    vars.push(self.read(var.ty, rest, 0, depth)?);
                }
                Value::Object(vec![(d.name.to_owned(), Value::Array(vars))])
            }
            other => return Err(error(E::NoSize(other.kind()))),
        })
    }

    fn array(&mut self, array: Array, bytes: &[u8], depth: usize) -> Result<Value> {
        if let Some(text) = self.string(&array, bytes)? {
            return Ok(Value::Str(text));
        }
        let size = self.btf.size_of(array.elem)? as usize;
        let mut values = Vec::new();
        for i in 0..array.nelems as usize {
            let rest = i.checked_mul(size).and_then(|at| bytes.get(at..));
            values.push(self.read(array.elem, rest.unwrap_or(&[]), 0, depth)?);
        }
        Ok(Value::Array(values))
    }

    /// `is_str_array`: printable characters up to a NUL. A typedef of `char` does not count.
    fn string(&self, array: &Array, bytes: &[u8]) -> Result<Option<String>> {
        let elem = self.btf.skip_mods(array.elem)?;
        let is_char = match self.btf.get(elem)? {
            Type::Int(int) => {
                int.size == 1 && (int.encoding == raw::INT_CHAR || int.name == "char")
            }
            _ => false,
        };
        let window = &bytes[..bytes.len().min(array.nelems as usize)];
        let end = window.iter().position(|&b| b == 0);
        let Some(text) = end.filter(|_| is_char).map(|end| &window[..end]) else {
            return Ok(None);
        };
        let printable = text.iter().all(|&b| (0x20..0x7f).contains(&b));
        Ok(printable.then(|| text.iter().map(|&b| char::from(b)).collect()))
    }

    fn composite(&mut self, c: Composite<'_>, bytes: &[u8], depth: usize) -> Result<Value> {
        let mut members = Vec::with_capacity(c.members.len());
        for m in c.members {
            let rest = bytes.get((m.bit_offset / 8) as usize..).unwrap_or(&[]);
            let bit = m.bit_offset % 8;
            let value = match m.bitfield_size {
                0 => self.read(m.ty, rest, bit, depth)?,
                bits => {
                    self.left = self.left.saturating_sub(1);
                    let value = bits_at(rest, bit, u32::from(bits));
                    let short = || {
                        let needed = (u32::from(bits) + bit).div_ceil(8);
                        let len = rest.len();
                        self.btf.error(m.ty, E::ValueTooShort { needed, len })
                    };
                    Value::Bits(value.ok_or_else(short)?)
                }
            };
            members.push((m.name.to_owned(), value));
        }
        Ok(Value::Object(members))
    }
}

/// `btf_dumper_int`.
fn int_value(int: Int<'_>, bytes: &[u8], bit: u32) -> Option<Value> {
    let bits = u32::from(int.bits);
    let regular = bit == 0 && int.offset == 0 && matches!(bits, 8 | 16 | 32 | 64);
    // Characters and booleans are read by their first byte, however wide they are said to be.
    let by_encoding = regular || bit == 0 && int.offset == 0 && bits % 8 == 0 && bits != 128;
    Some(match int.encoding {
        raw::INT_CHAR if by_encoding => Value::Char(*bytes.first()?),
        raw::INT_BOOL if by_encoding => Value::Bool(*bytes.first()? != 0),
        raw::INT_SIGNED if regular => Value::Int(signed(number(bytes, bits as usize / 8)?, bits)),
        _ if regular => Value::Uint(number(bytes, bits as usize / 8)? as u64),
        _ => Value::Bits(bits_at(bytes, bit + u32::from(int.offset), bits)?),
    })
}

fn float_value(size: u32, bytes: &[u8]) -> Option<Value> {
    let word = number(bytes, size as usize)?;
    Some(match size {
        4 => Value::Float(f64::from(f32::from_bits(word as u32))),
        8 => Value::Float(f64::from_bits(word as u64)),
        _ => Value::Bits(word),
    })
}

/// `btf_dumper_enum`, `btf_dumper_enum64`: both compare signed, whatever the enum is.
fn enum_value(ty: &Type<'_>, e: Enumeration<'_>, bytes: &[u8]) -> Option<Value> {
    let size = e.size.min(8);
    let value = signed(number(bytes, size as usize)?, size * 8);
    let same = |v: i64| match ty {
        Type::Enum(_) => i64::from(v as i32) == value,
        _ => v == value,
    };
    let name = e.values.iter().find(|v| same(v.value));
    Some(match name {
        Some(v) => Value::Str(v.name.to_owned()),
        None => Value::Int(value),
    })
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Value::Bool(b) => to.serialize_bool(*b),
            Value::Int(n) => to.serialize_i64(*n),
            Value::Uint(n) | Value::Ptr(n) => to.serialize_u64(*n),
            Value::Float(n) => to.serialize_f64(*n),
            Value::Bits(n) => to.collect_str(&format_args!("{n:#x}")),
            Value::Char(c) => to.serialize_char(char::from(*c)),
            Value::Str(s) => to.serialize_str(s),
            Value::Unknown => to.serialize_str("(unknown)"),
            Value::Array(values) => {
                let mut seq = to.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|v| seq.serialize_element(v))?;
                seq.end()
            }
            Value::Object(members) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl Value {
    /// bpftool's plain output of this value alone.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    /// On one line, as in C initialisers, members without their names: for keys of maps.
    pub fn brief(&self) -> String {
        match self {
            Value::Str(text) => text.clone(),
            Value::Char(c) => char::from(*c).to_string(),
            Value::Ptr(p) => p.to_string(),
            Value::Array(items) => format!("{{{}}}", parts(items, Value::brief).join(", ")),
            Value::Object(members) => {
                let items: Vec<Value> = members.iter().map(|(_, v)| v.clone()).collect();
                Value::Array(items).brief()
            }
            other => other.text(),
        }
    }

    fn write(&self, out: &mut String, depth: usize) {
        // Writing to a string does not fail.
        let _ = match self {
            Value::Bool(b) => write!(out, "{b}"),
            Value::Int(n) => write!(out, "{n}"),
            Value::Uint(n) => write!(out, "{n}"),
            Value::Float(n) => write!(out, "{n}"),
            Value::Bits(n) => write!(out, "{n:#x}"),
            Value::Char(c) if (0x20..0x7f).contains(c) => write!(out, "\"{}\"", char::from(*c)),
            Value::Char(c) => write!(out, "{c:#x}"),
            Value::Ptr(0) => write!(out, "\"(nil)\""),
            Value::Ptr(p) => write!(out, "\"{p:#x}\""),
            Value::Unknown => write!(out, "(unknown)"),
            Value::Str(s) => {
                quote(out, s);
                Ok(())
            }
            Value::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    value.write(out, depth + 1);
                }
                close(out, depth, values.is_empty(), ']');
                Ok(())
            }
            Value::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    line(out, depth + 1);
                    quote(out, name);
                    out.push_str(": ");
                    value.write(out, depth + 1);
                }
                close(out, depth, members.is_empty(), '}');
                Ok(())
            }
        };
    }
}

/// The items of an array, more than two equal ones in a row as one with their number.
pub fn parts<T: PartialEq>(items: &[T], show: fn(&T) -> String) -> Vec<String> {
    let runs = items.chunk_by(|a, b| a == b);
    let shown = runs.flat_map(|run| match run {
        [item, _, _, ..] => vec![format!("{} x {}", run.len(), show(item))],
        _ => run.iter().map(show).collect(),
    });
    shown.collect()
}

/// As `bpftool map dump` writes a map: pairs of a key and a value.
pub fn dump_entries(entries: impl IntoIterator<Item = (Value, Value)>) -> String {
    let pair = |(key, value)| Value::Object(vec![("key".into(), key), ("value".into(), value)]);
    let mut out = Value::Array(entries.into_iter().map(pair).collect()).text();
    out.push('\n');
    out
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    (0..depth).for_each(|_| out.push_str("    "));
}

fn close(out: &mut String, depth: usize, empty: bool, bracket: char) {
    if !empty {
        line(out, depth);
    }
    out.push(bracket);
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' | '"' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::signed;

    #[test]
    fn integers_of_any_width_are_signed() {
        for (word, bits, want) in [
            (1, 0, 0),
            (1, 1, -1),
            (0x80, 8, -128),
            (0x7f, 8, 127),
            (u128::MAX, 64, -1),
        ] {
            assert_eq!(signed(word, bits), want, "{bits} bits of {word:#x}");
        }
    }
}
