//! What comes out by chance and not by order: random values, allocations that fail, pages that are
//! absent.
//!
//! Usually a random helper draws, an allocation succeeds and user memory is there. With
//! [`Chances`] a call of [`CALLS`] or [`KFUNCS`] is offered once for each way in which it can come
//! out ([`Choice::chance`]), the usual one first. So all of it is in the one list of choices that a
//! search enumerates, a replay string holds and shrinking makes small. A call that fails where
//! Linux allocates asks [`State::fails`] there; one that has no other effect is answered in its
//! place.

use crate::choose::{Choice, Next};
use crate::helper;
use crate::kfunc;
use crate::run::Run;
use crate::state::State;
use crate::syscall::SysOp;
use bpfsim_abi::{Errno, Func, MapType};
use bpfsim_vm::{Call, Flow, GuestMem};
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;

/// How a call comes out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Chance {
    /// As usual.
    #[default]
    Usual,
    /// A random helper gives this.
    Value(u32),
    /// There is no memory, or no room in the ring.
    NoMemory,
    /// A page of user memory is absent, and nothing brings it.
    Fault,
}

impl Chance {
    /// A number for each.
    pub fn word(self) -> u64 {
        match self {
            Chance::Usual => 0,
            Chance::Value(value) => 1 | u64::from(value) << 8,
            Chance::NoMemory => 2,
            Chance::Fault => 3,
        }
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chance::Usual => f.write_str("as usual"),
            Chance::Value(value) => write!(f, "gives {value}"),
            Chance::NoMemory => f.write_str("finds no memory"),
            Chance::Fault => f.write_str("meets an absent page"),
        }
    }
}

/// What joins the order as a choice; nothing by default.
///
/// As text, for the command line and `BPFSIM_CHANCES`: `random`, `failures` and `faults`, with
/// commas, each alone or with its bound (`failures=2`), and `values=0/1/7` for what random helpers
/// give.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Chances {
    /// Most random values of one execution that are other than drawn.
    pub random: u32,
    /// What they are.
    pub values: SmallVec<[u32; 4]>,
    /// Most allocations of one execution that fail.
    pub failures: u32,
    /// Most accesses of one execution to user memory that fault.
    pub faults: u32,
}

/// Random values that programs are likely to treat each in its own way.
const VALUES: [u32; 3] = [0, 1, u32::MAX];
/// What a bare word stands for.
const FEW: u32 = 1;

impl Chances {
    /// Everything is as usual.
    pub fn is_none(&self) -> bool {
        (self.random, self.failures, self.faults) == (0, 0, 0)
    }
}

/// The bounds, for people.
impl fmt::Display for Chances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(u32::to_string).collect();
        let values = values.join("/");
        let parts = [
            (self.random, format!("random values ({values})")),
            (self.failures, "failed allocations".to_string()),
            (self.faults, "faults".to_string()),
        ];
        let asked = parts.iter().filter(|(n, _)| *n > 0);
        for (i, (n, what)) in asked.enumerate() {
            write!(f, "{}at most {n} {what}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A text does not say what may come out by chance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}`: chances are `random`, `failures`, `faults`, alone or with a bound such as `failures=2`, and `values=0/1/7`"
)]
pub struct NoChances(pub String);

impl FromStr for Chances {
    type Err = NoChances;

    fn from_str(text: &str) -> Result<Chances, NoChances> {
        let mut chances = Chances::default();
        let mut values = None;
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let wrong = || NoChances(word.to_string());
            let (name, value) = word
                .split_once('=')
                .map_or((word, None), |(n, v)| (n, Some(v)));
            let bound = || value.map_or(Ok(FEW), |v| v.parse().map_err(|_| wrong()));
            match name {
                "random" => chances.random = bound()?,
                "failures" => chances.failures = bound()?,
                "faults" => chances.faults = bound()?,
                "values" => {
                    let each = value.ok_or_else(wrong)?.split('/').map(str::parse);
                    let each: Result<SmallVec<_>, _> = each.collect();
                    values = Some(each.map_err(|_| wrong())?);
                }
                _ => return Err(wrong()),
            }
        }
        if chances.random == 0 && values.is_some() {
            chances.random = FEW;
        }
        if chances.random > 0 {
            chances.values = values.unwrap_or_else(|| SmallVec::from_slice(&VALUES));
        }
        Ok(chances)
    }
}

/// How often chance had its way in an execution.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    random: u32,
    failures: u32,
    faults: u32,
}

/// What a call can do by chance.
#[derive(Clone, Copy)]
enum Can {
    /// Give another value.
    Draw,
    /// Fail, by giving this and doing nothing else.
    Fail(Answer),
    /// Fail where it allocates, which the map in its first argument must do.
    Update,
    /// Fail where it allocates.
    Allocate,
    /// Fail, and leave an iterator of so many bytes empty; where it looks at so many words or more, if
    /// that decides.
    Iterate(u64, u32),
    /// Fail where it makes an element, if these flags say that it may.
    Create,
    /// Fault, at the address in this argument, from 0: what the first two say is zeroed.
    Read(usize),
    /// Fault, and nothing is changed.
    Write,
    /// Fault; zeroed only if the flags say so.
    ReadText,
}

/// What stands in R0.
#[derive(Clone, Copy)]
enum Answer {
    Null,
    Errno(Errno),
}

const NO_MEMORY: Can = Can::Fail(Answer::Errno(Errno::ENOMEM));
/// `bpf_try_make_writable` failed.
const NOT_WRITABLE: Can = Can::Fail(Answer::Errno(Errno::EFAULT));

const CALLS: &[(Func, Can)] = &[
    (Func::GetPrandomU32, Can::Draw),
    (Func::MapUpdateElem, Can::Update),
    (Func::TimerInit, Can::Allocate),
    (Func::RingbufReserve, Can::Fail(Answer::Null)),
    (Func::RingbufOutput, Can::Fail(Answer::Errno(Errno::EAGAIN))),
    (Func::RingbufReserveDynptr, Can::Allocate),
    (Func::PerfEventOutput, Can::Allocate),
    (Func::GetStackid, NO_MEMORY),
    // A packet may be a clone or have pages, wherever it came from.
    (Func::SkbChangeHead, NO_MEMORY),
    (Func::SkbChangeTail, NO_MEMORY),
    (Func::SkbChangeProto, NO_MEMORY),
    (Func::SkbAdjustRoom, NO_MEMORY),
    (Func::SkbPullData, NO_MEMORY),
    (Func::SkbVlanPush, NO_MEMORY),
    (Func::SkbStoreBytes, NOT_WRITABLE),
    (Func::L3CsumReplace, NOT_WRITABLE),
    (Func::L4CsumReplace, NOT_WRITABLE),
    (Func::CloneRedirect, NO_MEMORY),
    (Func::MsgPullData, NO_MEMORY),
    (Func::MsgPushData, NO_MEMORY),
    (Func::TaskStorageGet, Can::Create),
    (Func::SkStorageGet, Can::Create),
    (Func::InodeStorageGet, Can::Create),
    (Func::CgrpStorageGet, Can::Create),
    (Func::ProbeRead, Can::Read(2)),
    (Func::ProbeReadStr, Can::Read(2)),
    (Func::ProbeReadUser, Can::Read(2)),
    (Func::ProbeReadUserStr, Can::Read(2)),
    (Func::CopyFromUser, Can::Read(2)),
    (Func::CopyFromUserTask, Can::Read(2)),
    (Func::ProbeWriteUser, Can::Write),
];

const KFUNCS: &[(&str, Can)] = &[
    ("bpf_wq_init", Can::Allocate),
    ("bpf_task_work_schedule_signal_impl", Can::Allocate),
    ("bpf_task_work_schedule_resume_impl", Can::Allocate),
    ("bpf_obj_new_impl", Can::Fail(Answer::Null)),
    ("bpf_percpu_obj_new_impl", Can::Fail(Answer::Null)),
    ("bpf_cpumask_create", Can::Fail(Answer::Null)),
    ("bpf_arena_alloc_pages", Can::Fail(Answer::Null)),
    // One word is kept in the iterator itself.
    ("bpf_iter_bits_new", Can::Iterate(16, 2)),
    ("bpf_iter_css_task_new", Can::Iterate(8, 0)),
    ("bpf_iter_task_vma_new", Can::Iterate(8, 0)),
    ("bpf_stream_vprintk_impl", NO_MEMORY),
    ("bpf_copy_from_user_str", Can::ReadText),
    ("bpf_probe_read_user_dynptr", Can::Write),
    ("bpf_probe_read_user_str_dynptr", Can::Write),
];

fn of(call: Call) -> Option<Can> {
    match call {
        Call::Helper(id) => CALLS.iter().find(|(f, _)| *f as u32 == id).map(|r| r.1),
        Call::Kfunc(index) => {
            let name = kfunc::name(index)?;
            KFUNCS.iter().find(|(n, _)| *n == name).map(|r| r.1)
        }
    }
}

/// True when a call can come out in more than one way.
pub(crate) fn concerns(call: Call) -> bool {
    of(call).is_some()
}

/// `BPF_LOCAL_STORAGE_GET_F_CREATE`
const CREATE: u64 = 1;
/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;
/// Addresses below are user space's (`TASK_SIZE_MAX`).
const USER_END: u64 = 0x7fff_ffff_f000;

impl State {
    /// True for an allocation that finds no memory.
    pub fn fails(&self) -> bool {
        self.cur.chance == Chance::NoMemory
    }

    /// True for maps that allocate in an update.
    fn allocates(&self, map: u64) -> bool {
        let Some(map) = self.map_at(map) else {
            return false;
        };
        let spec = &self.maps[map.at()].spec;
        match spec.map_type {
            MapType::Hash | MapType::PercpuHash => spec.flags & NO_PREALLOC != 0,
            MapType::LruHash
            | MapType::LruPercpuHash
            | MapType::LpmTrie
            | MapType::TaskStorage
            | MapType::SkStorage
            | MapType::InodeStorage
            | MapType::CgrpStorage => true,
            _ => false,
        }
    }

    /// The unusual ways in which a run can go on.
    pub(crate) fn chances(&self, chances: &Chances, run: &Run) -> SmallVec<[Chance; 4]> {
        let mut ways = SmallVec::new();
        let Next::Call { call, .. } = run.next else {
            return ways;
        };
        if run.cur.op.is_some() {
            return ways;
        }
        let args = run.act.args();
        let taken = &self.taken;
        let (fails, faults) = (
            taken.failures < chances.failures,
            taken.faults < chances.faults,
        );
        match of(call) {
            Some(Can::Draw) if taken.random < chances.random => {
                let drawn = run.cur.next_random(self.seed.get());
                let values = chances.values.iter().filter(|v| **v != drawn);
                ways.extend(values.map(|v| Chance::Value(*v)));
            }
            Some(Can::Fail(_) | Can::Allocate) if fails => ways.push(Chance::NoMemory),
            Some(Can::Iterate(_, words)) if fails && args[2] as u32 >= words => {
                ways.push(Chance::NoMemory)
            }
            Some(Can::Update) if fails && self.allocates(args[0]) => ways.push(Chance::NoMemory),
            Some(Can::Create) if fails && args[3] & CREATE != 0 => ways.push(Chance::NoMemory),
            Some(Can::Read(at)) if faults && args[1] as u32 > 0 && args[at] < USER_END => {
                ways.push(Chance::Fault)
            }
            Some(Can::Write | Can::ReadText) if faults => ways.push(Chance::Fault),
            _ => {}
        }
        ways
    }

    /// The unusual way in which a system call can come out.
    pub(crate) fn chance_of_syscall(&self, chances: &Chances, op: &SysOp) -> Option<Chance> {
        let updates = match op {
            SysOp::MapUpdate { map, .. } => self.allocates(self.maps[map.at()].addr),
            _ => false,
        };
        (updates && self.taken.failures < chances.failures).then_some(Chance::NoMemory)
    }

    /// This is how the current execution goes on.
    pub(crate) fn take_chance(&mut self, chance: Chance, next: Next) {
        self.cur.chance = chance;
        match chance {
            Chance::Usual => return,
            Chance::Value(_) => self.taken.random += 1,
            Chance::NoMemory => self.taken.failures += 1,
            Chance::Fault => self.taken.faults += 1,
        }
        let name = match next {
            Next::Call {
                call: Call::Helper(id),
                ..
            } => helper::name(id),
            Next::Call {
                call: Call::Kfunc(index),
                ..
            } => kfunc::name(index),
            _ => Some("BPF_MAP_UPDATE_ELEM"),
        };
        let call = name.unwrap_or("?");
        self.event(crate::trace::What::Chance { call, chance });
    }
}

/// What chance answers in place of a call.
pub(crate) fn instead(st: &State, mem: &mut GuestMem, call: Call, args: &[u64; 5]) -> Option<Flow> {
    let efault = helper::ret(Err(Errno::EFAULT));
    let r0 = match (st.cur.chance, of(call)?) {
        (Chance::Value(value), Can::Draw) => value.into(),
        (Chance::NoMemory, Can::Fail(Answer::Null)) => 0,
        (Chance::NoMemory, Can::Fail(Answer::Errno(errno))) => helper::ret(Err(errno)),
        (Chance::NoMemory, Can::Iterate(size, _)) => {
            mem.slice_mut(args[0], size)?.fill(0);
            helper::ret(Err(Errno::ENOMEM))
        }
        (Chance::Fault, Can::Read(_)) => {
            // `bpf_copy_from_user` and its like clear what they could not fill.
            mem.slice_mut(args[0], args[1] as u32 as u64)?.fill(0);
            efault
        }
        (Chance::Fault, Can::ReadText) => {
            /// `BPF_F_PAD_ZEROS`
            const PAD_ZEROS: u64 = 1;
            if args[3] & PAD_ZEROS != 0 {
                mem.slice_mut(args[0], args[1] as u32 as u64)?.fill(0);
            }
            efault
        }
        (Chance::Fault, Can::Write) => efault,
        _ => return None,
    };
    Some(Flow::Done(r0))
}

impl Choice {
    /// True for the same going on, coming out otherwise.
    pub fn is_chance_of(&self, other: &Choice) -> bool {
        (self.id, self.cpu, self.next) == (other.id, other.cpu, other.next)
            && self.chance != Chance::Usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_written_as_text() {
        let parsed = |text: &str| text.parse::<Chances>();
        let all = parsed("random, failures=2,faults").unwrap();
        assert_eq!((all.random, all.failures, all.faults), (1, 2, 1));
        assert_eq!(all.values[..], VALUES);
        let bounds = "at most 1 random values (0/1/4294967295), at most 2 failed allocations, \
                      at most 1 faults";
        assert_eq!(all.to_string(), bounds);
        assert_eq!(parsed("values=7/9").unwrap().random, 1);
        assert!(parsed("").unwrap().is_none());
        for wrong in ["luck", "failures=", "failures=-1", "values", "values=a"] {
            assert_eq!(parsed(wrong), Err(NoChances(wrong.to_string())));
        }
    }
}
