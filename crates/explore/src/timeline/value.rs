//! Keys, values and places in them, as people write them.

use bpfsim_btf::{Btf, Type, TypeId};
use bpfsim_kernel::MapSpec;
use serde_json::Value;

/// Nesting of types that is followed.
const DEPTH: usize = 32;

/// A value of a type, as JSON.
pub fn through_btf(btf: &Btf, ty: TypeId, bytes: &[u8]) -> Value {
    let value = bpfsim_btf::display::value(btf, ty, bytes).ok();
    value
        .and_then(|v| serde_json::to_value(v).ok())
        .unwrap_or(Value::Null)
}

/// The items of an array, more than two equal ones in a row as one with their number.
pub fn parts(items: &[Value], show: fn(&Value) -> String) -> Vec<String> {
    let runs = items.chunk_by(|a, b| a == b);
    let shown = runs.flat_map(|run| match run {
        [item, _, _, ..] => vec![format!("{} x {}", run.len(), show(item))],
        _ => run.iter().map(show).collect(),
    });
    shown.collect()
}

/// A value on one line, as in C initialisers.
pub fn compact(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("{{{}}}", parts(items, compact).join(", ")),
        Value::Object(members) => {
            let parts = members.iter().map(|(k, v)| format!("{k}: {}", compact(v)));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A key on one line, members without their names.
pub fn unnamed(value: &Value) -> String {
    match value {
        Value::Object(members) => unnamed(&Value::Array(members.values().cloned().collect())),
        Value::Array(items) => format!("{{{}}}", parts(items, unnamed).join(", ")),
        other => compact(other),
    }
}

/// Bytes of a key or a value of a map through their type; without one a word as a number, others in hexadecimal.
pub fn typed(spec: &MapSpec, of_key: bool, bytes: &[u8]) -> Value {
    let ty = spec
        .btf
        .as_ref()
        .map(|b| (&b.btf, if of_key { b.key } else { b.value }));
    match (
        ty.filter(|(_, ty)| *ty != TypeId::VOID),
        <[u8; 4]>::try_from(bytes),
    ) {
        (Some((btf, ty)), _) => through_btf(btf, ty, bytes),
        (None, Ok(word)) => Value::from(u32::from_le_bytes(word)),
        (None, Err(_)) => Value::from(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

/// A key of a map, on one line.
pub(crate) fn key_text(spec: &MapSpec, key: &[u8]) -> String {
    unnamed(&typed(spec, true, key))
}

/// True for a section of variables.
pub(crate) fn is_section(spec: &MapSpec) -> bool {
    variables(spec).is_some()
}

/// Name, offset, size and type of each variable of a section; those of functions (`f.x`) too.
fn variables(spec: &MapSpec) -> Option<Vec<(String, u32, u32, TypeId)>> {
    let btf = spec.btf.as_ref()?;
    let Ok((_, Type::Datasec(section))) = btf.btf.resolve(btf.value) else {
        return None;
    };
    let var = |v: bpfsim_btf::VarSecinfo| match btf.btf.get(v.ty) {
        Ok(Type::Var { name, ty, .. }) => Some((name.to_string(), v.offset, v.size, ty)),
        _ => None,
    };
    Some(section.vars.iter().filter_map(var).collect())
}

/// A value on one line, but for its timers and their like, which read as zero.
pub(crate) fn value_text(spec: &MapSpec, bytes: &[u8]) -> String {
    let mut value = typed(spec, false, bytes);
    if let (Value::Object(members), Some(btf)) = (&mut value, &spec.btf)
        && let Ok((_, Type::Struct(s))) = btf.btf.resolve(btf.value)
    {
        let fields = bpfsim_btf::fields::parse_fields(&btf.btf, btf.value).unwrap_or_default();
        for m in s.members.iter() {
            if fields.iter().any(|f| f.offset == m.bit_offset / 8) {
                members.shift_remove(m.name);
            }
        }
    }
    compact(&value)
}

/// The variables of a section that differ: name, before and after.
pub(crate) fn changed_variables(
    spec: &MapSpec,
    old: &[u8],
    new: &[u8],
) -> Vec<(String, String, String)> {
    let mut changed = Vec::new();
    for (name, offset, size, ty) in variables(spec).unwrap_or_default() {
        let range = offset as usize..(offset as usize).saturating_add(size as usize);
        let (Some(a), Some(b)) = (old.get(range.clone()), new.get(range)) else {
            continue;
        };
        if let (true, Some(btf)) = (a != b, &spec.btf) {
            let show = |bytes| compact(&through_btf(&btf.btf, ty, bytes));
            changed.push((name, show(a), show(b)));
        }
    }
    changed
}

/// What lies at an offset of an element's value: `map[key].member`, or the variable's name.
pub(crate) fn place(spec: &MapSpec, key: &[u8], offset: u32, size: u32) -> String {
    if let Some(vars) = variables(spec) {
        let found = vars
            .into_iter()
            .find(|(_, at, len, _)| (*at..at + len).contains(&offset));
        return match (found, &spec.btf) {
            (Some((name, at, _, ty)), Some(btf)) => {
                name + &path(&btf.btf, ty, offset - at, size, 0)
            }
            _ => format!("{}+{offset}", spec.name),
        };
    }
    let base = format!("{}[{}]", spec.name, key_text(spec, key));
    match &spec.btf {
        Some(btf) => base + &path(&btf.btf, btf.value, offset, size, 0),
        None if offset == 0 => base,
        None => format!("{base}+{offset}"),
    }
}

/// Names of members and indices down to what is accessed.
fn path(btf: &Btf, ty: TypeId, offset: u32, size: u32, depth: usize) -> String {
    let rest = || match offset {
        0 => String::new(),
        n => format!("+{n}"),
    };
    if depth > DEPTH {
        return rest();
    }
    match btf.resolve(ty) {
        Ok((_, Type::Struct(s))) => {
            let holds = |m: &bpfsim_btf::Member<'_>| {
                let (at, len) = (m.bit_offset / 8, btf.size_of(m.ty).unwrap_or(0));
                at <= offset && (offset - at) < len
            };
            match s.members.iter().find(holds) {
                // All of it, or more than one member.
                Some(m) if btf.size_of(m.ty).is_ok_and(|len| size <= len) => {
                    let inner = path(btf, m.ty, offset - m.bit_offset / 8, size, depth + 1);
                    match m.name {
                        "" => inner,
                        name => format!(".{name}{inner}"),
                    }
                }
                _ => rest(),
            }
        }
        Ok((_, Type::Array(a))) => match btf.size_of(a.elem).unwrap_or(0) {
            0 => rest(),
            len => {
                let inner = path(btf, a.elem, offset % len, size, depth + 1);
                format!("[{}]{inner}", offset / len)
            }
        },
        _ => rest(),
    }
}
