//! What the verifier judges, row by row of the ABI's tables: what is not `Done` here it answers with
//! [`Verdict::Unsupported`](crate::Verdict::Unsupported).

use bpfsim_abi::Status::{Done, No, Partial};
use bpfsim_abi::kfunc::{Filter, Kfunc};
use bpfsim_abi::{Func, MapType, ProgType, Status, helper};
use bpfsim_btf::{Btf, Kind};

/// Whether calls of a helper are judged: those that have a prototype.
#[must_use]
pub fn helper(func: Func) -> Status {
    match helper::all_protos().any(|p| p.func == func) {
        true => Done,
        false => No,
    }
}

/// Whether calls of a kfunc are judged: those that the kernel itself has, not a module of it.
#[must_use]
pub fn kfunc(kernel: &Btf, kfunc: &Kfunc) -> Status {
    match kernel.find(kfunc.name, Kind::Func) {
        None => No,
        Some(_) if kfunc.filter == Filter::DeviceBound => {
            Partial("refused, as Linux does of programs that are bound to no device")
        }
        Some(_) => Done,
    }
}

/// Whether maps of a type are judged: all are.
#[must_use]
pub fn map_type(map_type: MapType) -> Status {
    match map_type {
        MapType::Unspec => No,
        _ => Done,
    }
}

/// Whether programs of a type are judged.
#[must_use]
pub fn prog_type(prog_type: ProgType) -> Status {
    match prog_type {
        ProgType::Unspec | ProgType::Ext => No,
        ProgType::Tracing => Partial("what attaches to other programs is not judged"),
        ProgType::StructOps => Partial(
            "of operations other than tcp_congestion_ops, writes to kernel structures are not judged",
        ),
        _ => Done,
    }
}
