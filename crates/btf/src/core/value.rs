//! The numbers that a relocation stands for, by the object's types and by the kernel's.

use super::CoreError;
use super::spec::{Accessor, Family, Spec, family};
use crate::ext::CoreReloKind;
use crate::raw;
use crate::types::{Type, TypeId};

/// What a relocation comes to (`struct bpf_core_relo_res`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreResult {
    /// What the compiler put into the instruction.
    pub orig_val: u64,
    /// What has to be there.
    pub new_val: u64,
    /// No candidate has it: the instruction becomes one that the verifier refuses if it is reached.
    pub poison: bool,
    /// Whether the instruction must hold `orig_val` before.
    pub validate: bool,
    /// The access would have to be widened or narrowed where that changes the value: poison a load or
    /// store.
    pub fail_memsz_adjust: bool,
    /// Bytes of the field by the object's types; 0 where that does not matter.
    pub orig_size: u32,
    /// Bytes of the field by the kernel's types.
    pub new_size: u32,
    /// The first candidate that matched: which target (0 is the kernel) and which type.
    pub candidate: Option<(usize, TypeId)>,
}

impl CoreResult {
    /// A type's id in the object's own BTF.
    pub(super) fn local_type_id(id: TypeId) -> CoreResult {
        CoreResult {
            orig_val: u64::from(id.0),
            new_val: u64::from(id.0),
            ..CoreResult::default()
        }
    }
}

/// One side's value.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    val: u64,
    /// Field's bytes and type, where a load's width may follow it.
    size: u32,
    type_id: TypeId,
    validate: bool,
}

/// `bpf_core_calc_relo`. No target means that no candidate matched.
pub(super) fn calculate(
    local: &Spec<'_>,
    target: Option<&Spec<'_>>,
) -> Result<CoreResult, CoreError> {
    let calculate = match family(local.kind) {
        Family::Field => field,
        Family::Type => type_value,
        Family::Enumval => enumval,
    };
    // libbpf calculates the local side first, and gives up on its errors before it poisons.
    let orig = calculate(Some(local))?.unwrap_or_default();
    let mut result = CoreResult {
        orig_val: orig.val,
        orig_size: orig.size,
        validate: orig.validate,
        ..CoreResult::default()
    };
    let Some(new) = calculate_target(local.kind, target, calculate)? else {
        result.poison = true;
        return Ok(result);
    };
    result.new_val = new.val;
    result.new_size = new.size;
    if let (true, Some(target)) = (orig.size != new.size, target) {
        let types = (local.btf.ty(orig.type_id), target.btf.ty(new.type_id));
        // Zero extension keeps pointers and unsigned integers right at any width.
        result.fail_memsz_adjust = match types {
            (Some(Type::Ptr { .. }), Some(Type::Ptr { .. })) => false,
            (Some(Type::Int(a)), Some(Type::Int(b))) => {
                a.encoding == raw::INT_SIGNED || b.encoding == raw::INT_SIGNED
            }
            _ => true,
        };
    }
    Ok(result)
}

type Calculate = fn(Option<&Spec<'_>>) -> Result<Option<Value>, CoreError>;

fn calculate_target(
    kind: CoreReloKind,
    target: Option<&Spec<'_>>,
    calculate: Calculate,
) -> Result<Option<Value>, CoreError> {
    use CoreReloKind as K;
    match (target, family(kind), kind) {
        (Some(_), _, _) => calculate(target),
        // What is not there has the value 0 where that is an answer.
        (None, Family::Type, _) | (None, _, K::FieldExists | K::EnumvalExists) => {
            Ok(Some(Value::default()))
        }
        (None, _, _) => Ok(None),
    }
}

/// `bpf_core_calc_type_relo`.
fn type_value(spec: Option<&Spec<'_>>) -> Result<Option<Value>, CoreError> {
    let Some(spec) = spec else {
        return Ok(None);
    };
    let (val, validate) = match spec.kind {
        // Ids change when objects are linked.
        CoreReloKind::TypeIdTarget => (u64::from(spec.root.0), false),
        CoreReloKind::TypeSize => (u64::from(spec.btf.size_of(spec.root)?), true),
        _ => (1, true),
    };
    Ok(Some(Value {
        val,
        validate,
        ..Value::default()
    }))
}

/// `bpf_core_calc_enumval_relo`.
fn enumval(spec: Option<&Spec<'_>>) -> Result<Option<Value>, CoreError> {
    let Some((spec, step)) = spec.and_then(|s| Some((s, s.steps.first()?))) else {
        return Ok(None);
    };
    let ty = spec.btf.ty(step.type_id);
    let entry = |e: crate::Enumeration<'_>| e.values.get(step.idx as usize).map(|v| v.value);
    let val = match (spec.kind, ty) {
        (CoreReloKind::EnumvalExists, _) => Some(1),
        // 32-bit values are signed here, whatever the enum says.
        (_, Some(Type::Enum(e))) => entry(e).map(|v| i64::from(v as i32) as u64),
        (_, Some(Type::Enum64(e))) => entry(e).map(|v| v as u64),
        _ => None,
    };
    Ok(val.map(|val| Value {
        val,
        validate: true,
        ..Value::default()
    }))
}

/// `bpf_core_calc_field_relo`.
fn field(spec: Option<&Spec<'_>>) -> Result<Option<Value>, CoreError> {
    let Some((spec, step)) = spec.and_then(|s| Some((s, s.steps.last()?))) else {
        return Ok(None);
    };
    if spec.kind == CoreReloKind::FieldExists {
        return Ok(Some(Value {
            val: 1,
            validate: true,
            ..Value::default()
        }));
    }
    match step.name {
        None => element(spec, step).map(Some),
        Some(_) => member(spec, step).map(Some),
    }
}

/// `a[n]`: only where it is and how large.
fn element(spec: &Spec<'_>, step: &Accessor<'_>) -> Result<Value, CoreError> {
    let mut value = Value {
        validate: true,
        ..Value::default()
    };
    match spec.kind {
        CoreReloKind::FieldByteOffset => {
            value.val = u64::from(spec.bit_offset / 8);
            value.size = innermost_size(spec, step.type_id)?;
            value.type_id = step.type_id;
        }
        CoreReloKind::FieldByteSize => value.val = u64::from(spec.btf.size_of(step.type_id)?),
        kind => return Err(CoreError::ArrayAccess(kind as u32)),
    }
    Ok(value)
}

/// Bytes of the type, or of an array's element: that is what a load reads.
fn innermost_size(spec: &Spec<'_>, id: TypeId) -> Result<u32, CoreError> {
    let mut at = id;
    for _ in 0..crate::MAX_RESOLVE_DEPTH {
        match spec.btf.resolve(at)? {
            (_, Type::Array(array)) => at = array.elem,
            (id, _) => return Ok(spec.btf.size_of(id)?),
        }
    }
    Err(CoreError::TypesTooDeep)
}

/// Where a load for a field starts, how wide it is, and which of its bits count.
struct Window {
    byte_off: u32,
    byte_size: u32,
    bit_size: u32,
}

/// The smallest aligned load that covers the bit-field.
fn bitfield_window(spec: &Spec<'_>, bits: u32, declared: u32) -> Result<Window, CoreError> {
    let bit_off = spec.bit_offset;
    let mut size = declared;
    let end = bit_off.checked_add(bits).ok_or(CoreError::OutOfRange)?;
    loop {
        let byte_off = match size {
            0 => return Err(CoreError::OutOfRange),
            size => bit_off / 8 / size * size,
        };
        if end - byte_off * 8 <= size.saturating_mul(8) {
            return Ok(Window {
                byte_off,
                byte_size: size,
                bit_size: bits,
            });
        }
        if size >= 8 {
            return Err(CoreError::Bitfield(spec.kind as u32));
        }
        size *= 2;
    }
}

fn member(spec: &Spec<'_>, step: &Accessor<'_>) -> Result<Value, CoreError> {
    let member = spec.btf.get(step.type_id)?.composite();
    let member = member.and_then(|c| c.members.get(step.idx as usize));
    let member = member.ok_or(CoreError::OutOfRange)?;
    let (field_id, ty) = spec.btf.resolve(member.ty)?;
    let bitfield = member.bitfield_size != 0;
    let window = match bitfield {
        true => {
            let declared = spec.btf.size_of(field_id)?;
            bitfield_window(spec, u32::from(member.bitfield_size), declared)?
        }
        false => {
            let byte_size = spec.btf.size_of(field_id)?;
            Window {
                byte_off: spec.bit_offset / 8,
                byte_size,
                bit_size: byte_size.wrapping_mul(8),
            }
        }
    };
    let mut value = Value {
        // Compilers differ in how they load a bit-field.
        validate: !bitfield,
        ..Value::default()
    };
    match spec.kind {
        CoreReloKind::FieldByteOffset => {
            value.val = u64::from(window.byte_off);
            if !bitfield {
                value.size = innermost_size(spec, field_id)?;
                value.type_id = field_id;
            }
        }
        CoreReloKind::FieldByteSize => value.val = u64::from(window.byte_size),
        CoreReloKind::FieldSigned => {
            value.validate = true;
            value.val = u64::from(match ty {
                Type::Enum(e) | Type::Enum64(e) => e.signed,
                Type::Int(int) => int.is_signed(),
                _ => false,
            });
        }
        CoreReloKind::FieldLshiftU64 => {
            let end = spec.bit_offset.wrapping_add(window.bit_size);
            let used = end.wrapping_sub(window.byte_off.wrapping_mul(8));
            value.val = u64::from(64u32.wrapping_sub(used));
        }
        CoreReloKind::FieldRshiftU64 => {
            value.validate = true;
            value.val = u64::from(64u32.wrapping_sub(window.bit_size));
        }
        _ => return Err(CoreError::OutOfRange),
    }
    Ok(value)
}
