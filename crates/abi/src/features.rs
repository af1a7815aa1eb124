//! What came to Linux piece by piece and has no table of its own: instructions, flags,
//! struct_ops structures.
use crate::map::MapFlags;
use crate::{AttachType, KernelVersion, ProgType};

/// Something that an old kernel lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: KernelVersion,
}

const fn feature(name: &'static str, since: KernelVersion) -> Feature {
    Feature { name, since }
}

/// Instructions of cpu v4: `movsx`, `ldsx`, `bswap`, `gotol`, signed division.
pub const CPU_V4: Feature = feature("cpu v4", KernelVersion::V6_6);
/// `may_goto`
pub const MAY_GOTO: Feature = feature("may_goto", KernelVersion::V6_9);
/// `addr_space_cast`, which arenas need.
pub const ADDR_SPACE_CAST: Feature = feature("addr_space_cast", KernelVersion::V6_9);
/// `load_acquire` and `store_release`
pub const ACQUIRE_RELEASE: Feature = feature("load_acquire, store_release", KernelVersion::V6_15);
/// `BPF_F_XDP_HAS_FRAGS`
pub const XDP_FRAGS: Feature = feature("BPF_F_XDP_HAS_FRAGS", KernelVersion::V5_18);

/// Map flags that came after 5.15.
pub static MAP_FLAGS: &[(MapFlags, Feature)] = &[
    (MapFlags::LINK, feature("BPF_F_LINK", KernelVersion::V6_4)),
    (
        MapFlags::PATH_FD,
        feature("BPF_F_PATH_FD", KernelVersion::V6_5),
    ),
    (
        MapFlags::VTYPE_BTF_OBJ_FD,
        feature("BPF_F_VTYPE_BTF_OBJ_FD", KernelVersion::V6_9),
    ),
    (
        MapFlags::TOKEN_FD,
        feature("BPF_F_TOKEN_FD", KernelVersion::V6_9),
    ),
    (
        MapFlags::SEGV_ON_FAULT,
        feature("BPF_F_SEGV_ON_FAULT", KernelVersion::V6_9),
    ),
    (
        MapFlags::NO_USER_CONV,
        feature("BPF_F_NO_USER_CONV", KernelVersion::V6_9),
    ),
];

/// Structures of kernel functions that programs can stand for (`struct bpf_struct_ops`).
pub static STRUCT_OPS: &[Feature] = &[
    feature("tcp_congestion_ops", KernelVersion::V5_15),
    feature("bpf_dummy_ops", KernelVersion::V5_16),
    feature("hid_bpf_ops", KernelVersion::V6_11),
    feature("sched_ext_ops", KernelVersion::V6_12),
    feature("Qdisc_ops", KernelVersion::V6_16),
];

/// The first kernel in which programs of this kind may sleep.
#[must_use]
pub const fn sleepable_since(prog_type: ProgType, attach_type: AttachType) -> KernelVersion {
    match (prog_type, attach_type) {
        (ProgType::Tracing, AttachType::TraceIter) => KernelVersion::V5_18,
        (ProgType::Kprobe, _) => KernelVersion::V6_0,
        (ProgType::StructOps, _) => KernelVersion::V6_3,
        _ => KernelVersion::OLDEST,
    }
}
