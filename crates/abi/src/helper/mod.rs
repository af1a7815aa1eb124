//! Helper functions: their numbers, their prototypes, and who may call them.
//!
//! As in the kernel, one helper can have several prototypes, and which one applies is decided by
//! the program: [`proto`] follows `bpf_verifier_ops::get_func_proto`.
mod avail;
mod func;
mod proto;
mod protos_core;
mod protos_net;
mod protos_net_sk;
mod protos_trace;
mod sets;

pub use avail::{Caller, Caps, NEWER, ProtoSet, When, func_proto_sets, proto, protos, since};
pub use func::Func;
pub use proto::{
    Allowed, ArgBase, ArgType, D_PATH_FUNCS, Of, Proto, ProtoFlags, RetBase, RetType, TypeFlags,
};

/// Every prototype of the kernel, in no order that matters.
pub fn all_protos() -> impl Iterator<Item = &'static Proto> {
    [
        protos_core::ALL,
        protos_net::ALL,
        protos_net_sk::ALL,
        protos_trace::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The program types that may call a helper under some attach type, target or member.
#[must_use]
pub fn prog_types(func: Func) -> crate::ProgTypes {
    use crate::{AttachType, ProgType};
    let has = |prog_type: ProgType| {
        [None, Some("tcp_congestion_ops"), Some("bpf_iter_tcp")]
            .into_iter()
            .any(|target| {
                [AttachType::LsmMac, AttachType::LsmCgroup]
                    .iter()
                    .any(|attach| {
                        func_proto_sets(prog_type, *attach, target)
                            .iter()
                            .any(|set| set.protos.iter().any(|(proto, _)| proto.func == func))
                    })
            })
    };
    ProgType::ALL.iter().copied().filter(|t| has(*t)).collect()
}
