//! From TOML values to the bytes of a BTF type.

use super::{Problem, failed, wrong};
use bpfsim::{Ebpf, Map};
use bpfsim_btf::{Btf, Composite, Type, TypeId};
use std::ops::Range;
use toml::{Spanned, Value};

/// Nesting of types that is followed.
const DEPTH: usize = 32;

/// A map's key.
pub fn key(map: &Map, value: &Spanned<Value>) -> Result<Vec<u8>, Problem> {
    let spec = map.spec();
    let ty = spec.btf.as_ref().map(|b| (&*b.btf, b.key));
    bytes(ty, spec.key_size as usize, value)
}

/// A map's value.
pub fn value(map: &Map, value: &Spanned<Value>) -> Result<Vec<u8>, Problem> {
    let spec = map.spec();
    let ty = spec.btf.as_ref().map(|b| (&*b.btf, b.value));
    bytes(ty, spec.value_size as usize, value)
}

/// True for a variable that has its value since before the load.
pub fn is_constant(bpf: &Ebpf, name: &str) -> bool {
    bpf.is_constant(name).unwrap_or(false)
}

/// Sets a global variable.
pub fn set_global(bpf: &mut Ebpf, name: &str, value: &Spanned<Value>) -> Result<(), Problem> {
    let (btf, ty, size) = bpf.global_type(name).map_err(failed(value.span()))?;
    let bytes = bytes(Some((&btf, ty)), size, value)?;
    bpf.set_global_bytes(name, &bytes)
        .map_err(failed(value.span()))
}

/// The bytes of a value of a type; without one, of an integer.
pub fn bytes(
    ty: Option<(&Btf, TypeId)>,
    size: usize,
    value: &Spanned<Value>,
) -> Result<Vec<u8>, Problem> {
    let mut out = vec![0; size];
    let span = value.span();
    match (ty.filter(|(_, ty)| *ty != TypeId::VOID), value.get_ref()) {
        (Some((btf, ty)), value) => Fill { btf, span }.fill(ty, value, &mut out, 0)?,
        (None, Value::Integer(n)) if size <= 8 => out.copy_from_slice(&n.to_le_bytes()[..size]),
        _ => return wrong(span, format!("{size} bytes without a type")),
    }
    Ok(out)
}

struct Fill<'a> {
    btf: &'a Btf,
    span: Range<usize>,
}

impl Fill<'_> {
    fn no<T>(&self, message: String) -> Result<T, Problem> {
        wrong(self.span.clone(), message)
    }

    fn fill(&self, ty: TypeId, value: &Value, out: &mut [u8], depth: usize) -> Result<(), Problem> {
        let resolved = self.btf.resolve(ty).map(|(_, t)| t);
        let Ok(resolved) = resolved else {
            return self.no(format!("type {ty} of the object is broken"));
        };
        if depth > DEPTH {
            return self.no("types nest too deep".to_string());
        }
        match (resolved, value) {
            (Type::Int(int), Value::Boolean(b)) if int.is_bool() => self.int(i128::from(*b), out),
            (
                Type::Int(_) | Type::Ptr { .. } | Type::Enum(_) | Type::Enum64(_),
                Value::Integer(n),
            ) => self.int(i128::from(*n), out),
            (Type::Enum(e) | Type::Enum64(e), Value::String(name)) => {
                match e.values.iter().find(|v| v.name == name) {
                    Some(v) => self.int(i128::from(v.value), out),
                    None => self.no(format!("enum {} has no {name}", e.name)),
                }
            }
            (Type::Array(_), Value::String(text)) => {
                if text.len() > out.len() {
                    return self.no(format!("{} bytes of text in {}", text.len(), out.len()));
                }
                out[..text.len()].copy_from_slice(text.as_bytes());
                Ok(())
            }
            (Type::Array(array), Value::Array(items)) => {
                let size = out.len().checked_div(array.nelems as usize).unwrap_or(0);
                if items.len() > array.nelems as usize || size == 0 {
                    return self.no(format!(
                        "{} items in an array of {}",
                        items.len(),
                        array.nelems
                    ));
                }
                let mut elements = out.chunks_mut(size);
                items
                    .iter()
                    .zip(&mut elements)
                    .try_for_each(|(item, to)| self.fill(array.elem, item, to, depth + 1))
            }
            (Type::Struct(s) | Type::Union(s), Value::Table(members)) => members
                .iter()
                .try_for_each(|(name, v)| self.member(&s, name, v, out, depth)),
            (t, v) => self.no(format!("a {} where the type is {}", v.type_str(), kind(&t))),
        }
    }

    fn int(&self, n: i128, out: &mut [u8]) -> Result<(), Problem> {
        let bits = out.len() as u32 * 8;
        if out.len() > 8 || n < -(1 << (bits - 1)) || n >= 1 << bits {
            return self.no(format!("{n} does not fit {} bytes", out.len()));
        }
        out.copy_from_slice(&n.to_le_bytes()[..out.len()]);
        Ok(())
    }

    /// Fills a member, also one of an anonymous struct or union inside.
    fn member(
        &self,
        s: &Composite<'_>,
        name: &str,
        value: &Value,
        out: &mut [u8],
        depth: usize,
    ) -> Result<(), Problem> {
        for m in s.members.iter() {
            let at = m.bit_offset as usize / 8;
            let size = self.btf.size_of(m.ty).unwrap_or(0) as usize;
            let inner = self.btf.resolve(m.ty).map(|(_, t)| t);
            if m.name == name {
                if m.bitfield_size != 0 {
                    return self.no(format!("{name} is a bit field: not supported in scenarios"));
                }
                let Some(to) = out.get_mut(at..at + size) else {
                    return self.no(format!("{name} lies outside of its struct"));
                };
                return self.fill(m.ty, value, to, depth + 1);
            }
            if let (true, Ok(Type::Struct(inner) | Type::Union(inner))) = (m.name.is_empty(), inner)
                && depth < DEPTH
                && has(self.btf, &inner, name, depth)
                && let Some(to) = out.get_mut(at..at + size)
            {
                return self.member(&inner, name, value, to, depth + 1);
            }
        }
        self.no(format!(
            "{} has no member {name}",
            if s.name.is_empty() {
                "the struct"
            } else {
                s.name
            }
        ))
    }
}

fn has(btf: &Btf, s: &Composite<'_>, name: &str, depth: usize) -> bool {
    s.members.iter().any(|m| {
        m.name == name
            || m.name.is_empty()
                && depth < DEPTH
                && match btf.resolve(m.ty) {
                    Ok((_, Type::Struct(inner) | Type::Union(inner))) => {
                        has(btf, &inner, name, depth + 1)
                    }
                    _ => false,
                }
    })
}

fn kind(ty: &Type<'_>) -> &'static str {
    match ty {
        Type::Int(_) => "an integer",
        Type::Ptr { .. } => "a pointer",
        Type::Array(_) => "an array",
        Type::Struct(_) => "a struct",
        Type::Union(_) => "a union",
        Type::Enum(_) | Type::Enum64(_) => "an enum",
        _ => "of another kind",
    }
}
