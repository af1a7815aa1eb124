//! Shared memory that calls read and write where their arguments point: a map value that a helper
//! copies, prints or fills.
//!
//! Most of it stands in the prototypes: memory with a size. Where these say "anything" (an address
//! that may not be there) or the address lies in memory itself (arguments of a format), a table
//! here says it. A call that reaches shared memory is a visible operation, the ranges are what the
//! step [touched](crate::Touch), and the detectors of races see them.

use crate::checked::{known, proto, touches};
use crate::dynptr::Dynptr;
use crate::helper::Args;
use crate::kfunc;
use crate::state::State;
use bpfsim_abi::Func;
use bpfsim_abi::helper::{ArgBase, ArgType, Proto};
use bpfsim_vm::{Access, AccessKind, Call, GuestMem};
use smallvec::SmallVec;

/// Bytes at an address, read or written.
pub(crate) type Range = (u64, u32, AccessKind);

/// Addresses that prototypes have no size for: arguments, from 0, of the address and of the size.
const ANYTHING: &[(Func, usize, usize)] = &[
    (Func::ProbeRead, 2, 1),
    (Func::ProbeReadStr, 2, 1),
    (Func::ProbeReadKernel, 2, 1),
    (Func::ProbeReadKernelStr, 2, 1),
];

/// Formats: whose arguments may point to texts. The first of those in registers, or the arguments,
/// from 0, that say where they lie and how many bytes they are.
enum Formats {
    From(usize),
    At(usize, usize),
}

const FORMATS: &[(Func, Formats)] = &[
    (Func::TracePrintk, Formats::From(2)),
    (Func::TraceVprintk, Formats::At(2, 3)),
    (Func::Snprintf, Formats::At(3, 4)),
    (Func::SeqPrintf, Formats::At(3, 4)),
];

/// A kfunc, the texts that it is given, by argument, and the memory that it fills, with the argument
/// of its size.
type Row = (&'static str, &'static [usize], Option<(usize, usize)>);

const KFUNCS: &[Row] = &[
    ("bpf_strcmp", &[0, 1], None),
    ("bpf_strcasecmp", &[0, 1], None),
    ("bpf_strnchr", &[0], None),
    ("bpf_strchr", &[0], None),
    ("bpf_strchrnul", &[0], None),
    ("bpf_strrchr", &[0], None),
    ("bpf_strlen", &[0], None),
    ("bpf_strnlen", &[0], None),
    ("bpf_strspn", &[0, 1], None),
    ("bpf_strcspn", &[0, 1], None),
    ("bpf_strstr", &[0, 1], None),
    ("bpf_strnstr", &[0, 1], None),
    ("bpf_copy_from_user_str", &[], Some((0, 1))),
];

/// Calls that read or write what a dynamic pointer points to: the arguments, from 0, of the pointer,
/// of the offset in it and of the size, and whether it is written to.
type Through = (usize, usize, usize, AccessKind);

const READ: AccessKind = AccessKind::Read;
const WRITE: AccessKind = AccessKind::Write;

const DYNPTRS: &[(Func, Through)] = &[
    (Func::DynptrRead, (2, 3, 1, READ)),
    (Func::DynptrWrite, (0, 1, 3, WRITE)),
];

const DYNPTR_KFUNCS: &[(&str, &[Through])] = &[
    ("bpf_dynptr_memset", &[(0, 1, 2, WRITE)]),
    ("bpf_dynptr_copy", &[(0, 1, 4, WRITE), (2, 3, 4, READ)]),
    ("bpf_probe_read_kernel_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_probe_read_kernel_str_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_probe_read_user_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_probe_read_user_str_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_copy_from_user_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_copy_from_user_str_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_copy_from_user_task_dynptr", &[(0, 1, 2, WRITE)]),
    ("bpf_copy_from_user_task_str_dynptr", &[(0, 1, 2, WRITE)]),
];

/// What a call reads and writes through dynamic pointers.
fn through(call: Call) -> &'static [Through] {
    match call {
        Call::Helper(id) => row(DYNPTRS, id, |r| r.0).map_or(&[], |r| std::slice::from_ref(&r.1)),
        Call::Kfunc(index) => {
            let name = kfunc::name(index).unwrap_or("");
            DYNPTR_KFUNCS
                .iter()
                .find(|r| r.0 == name)
                .map_or(&[], |r| r.1)
        }
    }
}

/// True for calls that touch nothing but memory: what dynamic pointers point to, and what their
/// arguments do.
pub(crate) fn is_through_dynptr(call: Call) -> bool {
    !through(call).is_empty()
}

fn row<T>(rows: &'static [T], func: u32, of: impl Fn(&T) -> Func) -> Option<&'static T> {
    rows.iter().find(|r| of(r) as u32 == func)
}

/// True when a call reaches shared memory, or may, which its registers alone do not say.
pub(crate) fn is_shared(st: &State, call: Call, args: &[u64; 5]) -> bool {
    let in_memory = match call {
        Call::Helper(id) => match row(FORMATS, id, |r| r.0) {
            Some((_, Formats::At(_, len))) => args[*len] != 0,
            _ => false,
        },
        Call::Kfunc(_) => false,
    };
    in_memory || !ranges(st, None, call, args).is_empty()
}

/// True when [`ranges`] may find anything that a helper reaches.
pub(crate) fn may_reach(proto: &Proto) -> bool {
    let id = proto.func as u32;
    proto.args.iter().take(5).any(is_plain)
        || row(ANYTHING, id, |r| r.0).is_some()
        || row(FORMATS, id, |r| r.0).is_some()
        || row(DYNPTRS, id, |r| r.0).is_some()
}

/// False for calls of which [`ranges`] finds nothing.
fn reaches(call: Call) -> bool {
    match call {
        Call::Helper(id) => known(id).is_some_and(|known| known.reaches),
        Call::Kfunc(_) => true,
    }
}

/// Memory that is read or written as it is.
fn is_plain(arg: &ArgType) -> bool {
    matches!(arg.base, ArgBase::MapKey | ArgBase::MapValue | ArgBase::Mem)
}

/// What a call reaches of shared memory. What its arguments in memory point to only with `mem`.
pub(crate) fn ranges(
    st: &State,
    mem: Option<&GuestMem>,
    call: Call,
    args: &[u64; 5],
) -> SmallVec<[Range; 2]> {
    let mut all = SmallVec::new();
    if !reaches(call) {
        return all;
    }
    let in_registers = |call| match call {
        Call::Helper(id) => {
            let format = row(FORMATS, id, |r| r.0);
            row(DYNPTRS, id, |r| r.0).is_none() && !matches!(format, Some((_, Formats::At(..))))
        }
        Call::Kfunc(_) => false,
    };
    let any = args.iter().any(|&a| GuestMem::is_shared(a));
    if !any && (mem.is_none() || in_registers(call)) {
        return all;
    }
    let dynptrs = mem.map_or(&[][..], |_| through(call));
    let a = Args { call, r: *args };
    for &(ptr, offset, len, kind) in dynptrs {
        let d = mem.and_then(|mem| Dynptr::read(mem, &a, ptr as u8 + 1).ok().flatten());
        let len = args[len] as u32;
        let at = d.and_then(|d| d.slice(st, args[offset] as u32 as u64, len.into()));
        if let Some(at) = at.filter(|&at| len > 0 && GuestMem::is_shared(at)) {
            all.push((at, len, kind));
        }
    }
    let mut add = |addr: u64, len: u64, kind| {
        if len > 0 && GuestMem::is_shared(addr) {
            all.push((addr, u32::try_from(len).unwrap_or(u32::MAX), kind));
        }
    };
    let kind = |write| match write {
        true => AccessKind::Write,
        false => AccessKind::Read,
    };
    match call {
        Call::Helper(id) => {
            for n in 0..proto(id).map_or(0, |p| p.args.len().min(5)) {
                let Some(proto) = proto(id).filter(|_| GuestMem::is_shared(args[n])) else {
                    continue;
                };
                let touched = touches(st, proto, args, n);
                if let Some((len, write)) = touched.filter(|_| is_plain(&proto.args[n])) {
                    add(args[n], len, kind(write));
                }
            }
            if let Some(&(_, at, len)) = row(ANYTHING, id, |r| r.0) {
                add(args[at], args[len] as u32 as u64, AccessKind::Read);
            }
            match row(FORMATS, id, |r| r.0) {
                Some((_, Formats::From(first))) => {
                    for &word in &args[*first..] {
                        add(word, st.text_len(mem, word), AccessKind::Read);
                    }
                }
                Some((_, Formats::At(at, len))) => {
                    let words = (0..args[*len].min(128) / 8).map(|i| args[*at] + 8 * i);
                    let words = words.filter_map(|at| mem?.read_u64(at));
                    words.for_each(|word| add(word, st.text_len(mem, word), AccessKind::Read));
                }
                None => {}
            }
        }
        Call::Kfunc(index) => {
            let name = kfunc::name(index).unwrap_or("");
            if name.starts_with("bpf_probe_read_kernel_") {
                add(args[3], args[2] as u32 as u64, AccessKind::Read);
            }
            let Some((_, texts, fills)) = KFUNCS.iter().find(|r| r.0 == name) else {
                return all;
            };
            for &n in *texts {
                add(args[n], st.text_len(mem, args[n]), AccessKind::Read);
            }
            if let Some((at, len)) = *fills {
                add(args[at], args[len] as u32 as u64, AccessKind::Write);
            }
        }
    }
    all
}

impl State {
    /// Bytes of a text at this address with its NUL, of those of its map value; without memory
    /// nobody knows.
    fn text_len(&self, mem: Option<&GuestMem>, addr: u64) -> u64 {
        if !GuestMem::is_shared(addr) {
            return 0;
        }
        let end = self.maps.iter().find_map(|map| {
            let size = u64::from(map.spec.value_size);
            map.value_around(addr).map(|value| value + size)
        });
        let room = end.map_or(1, |end| end.saturating_sub(addr).max(1));
        let bytes = mem.and_then(|mem| mem.slice(addr, room)).unwrap_or(&[]);
        let nul = bytes.iter().position(|&b| b == 0);
        nul.map_or(room, |nul| nul as u64 + 1)
    }

    /// The detectors see what a call reaches.
    pub(crate) fn watch_reached(&mut self, mem: &GuestMem, call: Call, args: &[u64; 5]) {
        /// Bytes of one access that they are told of.
        const PIECE: u64 = 128;
        if !self.watch.races_on || !reaches(call) {
            return;
        }
        for (addr, len, kind) in ranges(self, Some(mem), call, args) {
            let end = addr.saturating_add(len.into());
            for at in (addr..end).step_by(PIECE as usize) {
                let size = (end - at).min(PIECE) as u8;
                let access = Access {
                    addr: at,
                    size,
                    kind,
                };
                self.watch_access(&mem.site(), access, false);
            }
        }
    }
}
