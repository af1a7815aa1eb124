//! Keys, values and places in them, as people write them.

pub use bpfsim_btf::display::parts;
use bpfsim_btf::{Btf, Type, TypeId};
use bpfsim_kernel::MapSpec;
use serde_json::Value;

/// A value of a type, as JSON.
pub fn through_btf(btf: &Btf, ty: TypeId, bytes: &[u8]) -> Value {
    let value = bpfsim_btf::display::value(btf, ty, bytes).ok();
    value
        .and_then(|v| serde_json::to_value(v).ok())
        .unwrap_or(Value::Null)
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

/// True for a section of variables.
pub(crate) fn is_section(spec: &MapSpec) -> bool {
    spec.variables().is_some()
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
    for (name, offset, size, ty) in spec.variables().unwrap_or_default() {
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
