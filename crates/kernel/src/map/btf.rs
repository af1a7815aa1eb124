//! What the types of keys and values must be (`map_check_btf`).

use super::MapSpec;
use crate::field::Fields;
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::fields::{Field, parse_fields};
use bpfsim_btf::{Btf, Kind, Member, Type, TypeId};

/// The special fields of a map's values; none where it has no types.
///
/// # Errors
/// `EINVAL` where types and sizes disagree or a type cannot be a key's; `EACCES` for special
/// fields in a map that programs may not write or not read; `EOPNOTSUPP` for fields that this
/// type of map does not have, `ENOTSUPP` for maps that have no types.
pub(super) fn check(spec: &MapSpec) -> Result<Fields, Errno> {
    value_fields(spec).map(|found| Fields::new(&found))
}

/// As [`check`], the fields as BTF has them.
pub(crate) fn value_fields(spec: &MapSpec) -> Result<Vec<Field>, Errno> {
    let Some(types) = spec.btf.as_ref().filter(|t| t.value != TypeId::VOID) else {
        return Ok(Vec::new());
    };
    if spec.map_type == MapType::StructOps {
        return Ok(Vec::new());
    }
    let btf = &types.btf;
    let key = (types.key != TypeId::VOID).then_some(types.key);
    match key {
        Some(key) if btf.size_of(key).ok() != Some(spec.key_size) => return Err(Errno::EINVAL),
        None if !keyless(spec.map_type) => return Err(Errno::EINVAL),
        _ => {}
    }
    if btf.size_of(types.value).ok() != Some(spec.value_size) {
        return Err(Errno::EINVAL);
    }
    // What cannot be parsed is no error here: the values have no fields then.
    let found = parse_fields(btf, types.value).unwrap_or_default();
    check_fields(spec, &found)?;
    if no_types(spec.map_type) {
        return Err(Errno::ENOTSUPP);
    }
    if !key_fits(spec, btf, key, types.value) {
        return Err(Errno::EINVAL);
    }
    Ok(found)
}

/// Types whose `map_check_btf` exists, so that a key without a type comes that far.
fn keyless(map_type: MapType) -> bool {
    !matches!(
        map_type,
        MapType::Hash
            | MapType::LruHash
            | MapType::PercpuHash
            | MapType::LruPercpuHash
            | MapType::Queue
            | MapType::Stack
            | MapType::ProgArray
            | MapType::Ringbuf
            | MapType::UserRingbuf
            | MapType::ReuseportSockarray
    )
}

/// Types of map for which libbpf tells Linux the types of keys and values.
pub(crate) fn has_types(map_type: MapType) -> bool {
    let libbpf = matches!(map_type, MapType::Queue | MapType::Stack | MapType::Arena);
    !libbpf && !no_types(map_type)
}

/// `map_check_no_btf`: types that are not told what they hold.
fn no_types(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::PerfEventArray
            | MapType::CgroupArray
            | MapType::ArrayOfMaps
            | MapType::HashOfMaps
            | MapType::StackTrace
            | MapType::Devmap
            | MapType::DevmapHash
            | MapType::Xskmap
            | MapType::Sockmap
            | MapType::Sockhash
            | MapType::Cpumap
    )
}

fn check_fields(spec: &MapSpec, found: &[Field]) -> Result<(), Errno> {
    if found.is_empty() {
        return Ok(());
    }
    let flags = MapFlags::from_bits_retain(spec.flags);
    if flags.intersects(MapFlags::RDONLY_PROG | MapFlags::WRONLY_PROG) {
        return Err(Errno::EACCES);
    }
    let has = spec.map_type.rule().map_or(0, |r| r.fields.bits());
    if found.iter().any(|f| f.kind.bit() & has == 0) {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}

/// The map type's own `map_check_btf`.
fn key_fits(spec: &MapSpec, btf: &Btf, key: Option<TypeId>, value: TypeId) -> bool {
    let int = |bits: u8| {
        let id = key.and_then(|k| btf.skip_mods_and_typedefs(k).ok());
        matches!(id.and_then(|id| btf.ty(id)), Some(Type::Int(i)) if i.bits == bits && i.offset == 0)
    };
    let kind = |id: TypeId| {
        let id = btf.skip_mods_and_typedefs(id).ok()?;
        btf.ty(id).map(|t| t.kind())
    };
    match spec.map_type {
        MapType::Array | MapType::PercpuArray if key.is_none() => {
            // Global data has no key.
            spec.map_type == MapType::Array
                && spec.max_entries == 1
                && kind(value) == Some(Kind::Datasec)
        }
        MapType::Array
        | MapType::PercpuArray
        | MapType::SkStorage
        | MapType::InodeStorage
        | MapType::TaskStorage
        | MapType::CgrpStorage => int(32),
        MapType::LpmTrie => key.and_then(kind) == Some(Kind::Struct),
        MapType::BloomFilter => key.is_none(),
        MapType::CgroupStorage | MapType::PercpuCgroupStorage => match spec.key_size {
            8 => int(64),
            _ => key.is_some_and(|k| is_cgroup_key(btf, k)),
        },
        _ => true,
    }
}

/// `struct bpf_cgroup_storage_key`: a `u64`, then a `u32`.
fn is_cgroup_key(btf: &Btf, key: TypeId) -> bool {
    let key = btf.skip_mods_and_typedefs(key).ok();
    let Some(Type::Struct(key)) = key.and_then(|id| btf.ty(id)) else {
        return false;
    };
    let wants = [(64, 0), (32, 64)];
    let fits = |(m, (bits, at)): (Member<'_>, (u8, u32))| {
        let ty = btf.skip_mods_and_typedefs(m.ty).ok();
        let int = matches!(ty.and_then(|id| btf.ty(id)), Some(Type::Int(i)) if i.bits == bits);
        int && m.bit_offset == at
    };
    key.members.len() == wants.len() && key.members.iter().zip(wants).all(fits)
}
