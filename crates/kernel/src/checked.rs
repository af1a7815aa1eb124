//! Checked mode and detectors, on the kernel's side: what calls do to memory and to order, and
//! what was found.

use crate::failure::{Detectors, Failure, FailureKind, Party, Warning};
use crate::finding::{Finding, Findings};
use crate::helper;
use crate::ids::{Cpu, CtxId, ProgId};
use crate::kernel::Kernel;
use crate::kfunc;
use crate::race::NO_LANE;
use crate::shared::Shared;
use crate::spot::Spot;
use crate::state::State;
use crate::trace::{AsyncKind, Element};
use bpfsim_abi::helper::{ArgBase, ArgType, Of, Proto, ProtoFlags, TypeFlags};
use bpfsim_abi::{Func, MapType};
use bpfsim_vm::{Access, AccessKind, Call, FaultKind, Flow, GuestMem, Site};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What checked mode and detectors know beside guest memory.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Watch {
    /// Orders are explored, and somebody wants to know of races.
    pub races_on: bool,
    pub findings: Findings,
    /// Callbacks that were armed and did not begin: by value and kind, who armed, and for when.
    arming: Shared<BTreeMap<(u64, AsyncKind), (Site, u64)>>,
}

/// What an execution must give back before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub addr: u64,
    /// The helper or kfunc that gave it.
    pub from: &'static str,
    pub site: Site,
}

/// Gives a lock.
pub(crate) const SPIN_LOCK: &str = "bpf_spin_lock";

impl Held {
    /// It is a `bpf_spin_lock`.
    pub fn is_lock(&self) -> bool {
        self.from == SPIN_LOCK
    }
}

impl Watch {
    pub fn new(detectors: Detectors) -> Watch {
        Watch {
            findings: Findings::new(detectors),
            ..Watch::default()
        }
    }

    /// Who armed a callback that has not begun.
    pub fn armed(&self, kind: AsyncKind, value: u64) -> Option<Site> {
        self.arming.get(&(value, kind)).map(|armed| armed.0)
    }
}

impl State {
    pub fn found(&mut self, kind: FailureKind, by: Site, other: Option<Site>) {
        let at = self.cpus[self.cur.cpu.at()].clock;
        self.watch.findings.other(at, &by, other.as_ref(), kind);
    }

    /// A callback is armed, to be run at `due`.
    pub fn watch_armed(&mut self, mem: &GuestMem, kind: AsyncKind, value: u64, due: u64) {
        self.watch.arming.insert((value, kind), (mem.site(), due));
    }

    /// It begins, or was cancelled, or its element deleted.
    pub fn watch_disarmed(&mut self, kind: AsyncKind, value: u64) {
        if self.watch.arming.contains_key(&(value, kind)) {
            self.watch.arming.remove(&(value, kind));
        }
    }

    /// An update took the place of these elements, or evicted them.
    pub fn watch_dropped(&mut self, mem: &GuestMem, map: crate::ids::MapId, values: &[u64]) {
        if self.watch.arming.is_empty() {
            return;
        }
        for &value in values {
            for kind in [AsyncKind::Timer, AsyncKind::Wq, AsyncKind::TaskWork] {
                let Some((armed, due)) = self.watch.arming.remove(&(value, kind)) else {
                    continue;
                };
                let kind = FailureKind::NeverRan {
                    kind,
                    element: self.element(mem, map, value),
                    due,
                    dropped: true,
                };
                self.found(kind, mem.site(), Some(armed));
            }
        }
    }

    /// The current execution makes this access to shared memory.
    #[inline(always)]
    pub fn watch_access(&mut self, by: &Site, access: Access, orders: bool) {
        if self.watch.races_on && self.cur.lane != NO_LANE {
            let at = self.cpus[self.cur.cpu.at()].clock;
            let lane = self.cur.lane;
            self.watch.findings.access(lane, by, access, orders, at);
        }
    }

    /// What comes before what by this call that succeeded.
    fn order(&mut self, mem: &GuestMem, call: Call, args: &[u64; 5], r0: u64) {
        let lane = self.cur.lane;
        if !self.watch.races_on || lane == NO_LANE {
            return;
        }
        let races = &mut self.watch.findings;
        let Call::Helper(id) = call else {
            // Those of works and task work take their slot's lock.
            let object = crate::turn::object_of(call, args);
            races.acquire(lane, object);
            races.release(lane, object);
            return;
        };
        match Func::from_u32(id) {
            // Taken and given back, they have said so.
            Some(Func::SpinLock | Func::SpinUnlock) => {}
            Some(Func::MapLookupElem | Func::MapUpdateElem | Func::MapDeleteElem) => {
                let Some(object) = self.element_object(mem, args) else {
                    return;
                };
                let races = &mut self.watch.findings;
                if id != Func::MapLookupElem as u32 {
                    races.acquire(lane, object);
                    races.release(lane, object);
                } else if r0 != 0 {
                    races.acquire(lane, object);
                }
            }
            _ if helper::is_visible(id) => {
                races.acquire(lane, args[0]);
                races.release(lane, args[0]);
            }
            _ => {}
        }
    }

    /// What publishing an element of a map releases, and finding it acquires. Those of arrays are
    /// always there.
    fn element_object(&self, mem: &GuestMem, args: &[u64; 5]) -> Option<u64> {
        let map = &self.maps[self.map_at(args[0])?.at()];
        if matches!(
            map.spec.map_type,
            MapType::Array | MapType::PercpuArray | MapType::Arena
        ) {
            return None;
        }
        let key = mem.slice(args[1], map.spec.key_size as u64)?;
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        };
        let mixed = key.chunks(8).map(word).fold(map.addr, crate::ids::mix);
        Some(mixed)
    }
}

/// A helper, as the hot path wants to know it.
pub(crate) struct Known {
    pub proto: &'static Proto,
    /// Its arguments, from 0, that may be memory which it reads or writes.
    pub memory: SmallVec<[u8; 5]>,
    /// It may reach memory that others share: [`crate::reach`].
    pub reaches: bool,
    /// It changes which references and packets the program has.
    changes: bool,
    releases: bool,
    acquires: bool,
}

/// What is known of each helper.
pub(crate) fn known(id: u32) -> Option<&'static Known> {
    static HELPERS: OnceLock<Vec<Option<Known>>> = OnceLock::new();
    let helpers = HELPERS.get_or_init(|| {
        let mut helpers: Vec<_> = (0..256).map(|_| None).collect();
        for proto in bpfsim_abi::helper::all_protos() {
            let args = proto.args.iter().take(5);
            let memory: SmallVec<_> = (0..)
                .zip(args.clone())
                .filter(|(_, a)| is_memory(a))
                .map(|(n, _)| n)
                .collect();
            if let Some(row) = helpers.get_mut(proto.func as usize) {
                let releases = { args }.any(|a| a.flags.contains(TypeFlags::OBJ_RELEASE));
                let acquires = ACQUIRE.contains(&proto.func);
                *row = Some(Known {
                    proto,
                    reaches: crate::reach::may_reach(proto),
                    changes: releases || acquires || proto.is(ProtoFlags::CHANGES_PKT),
                    releases,
                    acquires,
                    memory,
                });
            }
        }
        helpers
    });
    helpers.get(id as usize)?.as_ref()
}

/// A prototype of each helper.
pub(crate) fn proto(id: u32) -> Option<&'static Proto> {
    known(id).map(|known| known.proto)
}

/// An argument that [`touches`] may say something of.
fn is_memory(arg: &ArgType) -> bool {
    matches!(
        arg.base,
        ArgBase::MapKey
            | ArgBase::MapValue
            | ArgBase::Mem
            | ArgBase::SpinLock
            | ArgBase::Timer
            | ArgBase::RingbufMem
    )
}

/// What a helper does with the memory that an argument points to: how many bytes, and whether it
/// writes them.
pub(crate) fn touches(st: &State, proto: &Proto, args: &[u64; 5], n: usize) -> Option<(u64, bool)> {
    let arg: &ArgType = &proto.args[n];
    let map = || {
        let at = proto
            .args
            .iter()
            .position(|a| a.base == ArgBase::ConstMapPtr)?;
        Some(&st.maps[st.map_at(args[at])?.at()].spec)
    };
    let write = arg
        .flags
        .intersects(TypeFlags::MEM_UNINIT | TypeFlags::MEM_WRITE);
    let len = match arg.base {
        ArgBase::MapKey => map()?.key_size as u64,
        ArgBase::MapValue => map()?.value_size as u64,
        ArgBase::Mem => match (arg.of, proto.args.get(n + 1).map(|a| a.base)) {
            (Of::Size(size), _) => size as u64,
            (_, Some(ArgBase::ConstSize | ArgBase::ConstSizeOrZero)) => args[n + 1],
            _ => return None,
        },
        ArgBase::SpinLock => return Some((4, true)),
        ArgBase::Timer => return Some((16, true)),
        ArgBase::RingbufMem => return Some((1, true)),
        _ => return None,
    };
    Some((len, write))
}

/// Before a call: what it does with memory must be what the program may do.
pub(crate) fn before(
    st: &mut State,
    mem: &mut GuestMem,
    call: Call,
    args: &[u64; 5],
) -> Result<(), FaultKind> {
    st.watch_reached(mem, call, args);
    let mut check = |st: &mut State, n: usize, (len, write): (u64, bool)| {
        if mem.check_arg(n as u8 + 1, args[n], len, write)? {
            let kind = FailureKind::UnwrittenArgument { arg: n as u8 + 1 };
            st.found(kind, mem.site(), None);
        }
        Ok(())
    };
    match call {
        Call::Helper(id) => {
            let Some(Known { proto, memory, .. }) = known(id) else {
                return Ok(());
            };
            for n in memory.iter().map(|&n| n as usize) {
                if let Some(touched) = touches(st, proto, args, n) {
                    check(st, n, touched)?;
                }
            }
            Ok(())
        }
        Call::Kfunc(k) => match kfunc::name(k) {
            Some(name) if name.starts_with("bpf_wq_") => check(st, 0, (16, true)),
            Some(name) if name.starts_with("bpf_task_work_") => check(st, 1, (8, true)),
            _ => Ok(()),
        },
    }
}

/// Helpers that give a reference which must be given back.
const ACQUIRE: [Func; 4] = [
    Func::SkLookupTcp,
    Func::SkLookupUdp,
    Func::SkcLookupTcp,
    Func::RingbufReserve,
];

/// After a call that returned.
pub(crate) fn after(st: &mut State, mem: &mut GuestMem, call: Call, args: &[u64; 5], flow: &Flow) {
    let (Flow::Done(r0) | Flow::Yield(r0)) = *flow else {
        return;
    };
    st.order(mem, call, args, r0);
    if !mem.is_checked() {
        return;
    }
    if let Call::Helper(id) = call
        && let Some(helper) = known(id).filter(|known| known.changes)
    {
        let proto = helper.proto;
        if let Some(p) = st
            .cur
            .ctx
            .packet()
            .filter(|_| proto.is(ProtoFlags::CHANGES_PKT))
        {
            mem.expose(p.meta, p.end - p.meta);
        }
        if helper.releases {
            let released = proto
                .args
                .iter()
                .zip(args)
                .filter(|(a, _)| a.flags.contains(TypeFlags::OBJ_RELEASE));
            for (_, addr) in released {
                st.cur.held.retain(|h| h.addr != *addr);
            }
        }
        if r0 != 0 && helper.acquires {
            st.cur.held.push(Held {
                addr: r0,
                from: proto.func.name(),
                site: mem.site(),
            });
        }
    }
}

impl Kernel {
    /// What was found and did not end the run, in the order in which it was found; of each kind
    /// and pair of places the first.
    pub fn warnings(&self) -> Vec<Warning> {
        let told = self.st.watch.findings.told();
        told.iter().map(|f| self.tell(f)).collect()
    }

    /// Takes what checked memory noted in the last steps; fails where a finding is to end the run.
    #[inline]
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        match self.mem.has_stale() || self.st.watch.findings.fatal().is_some() {
            true => self.settle_anew(),
            false => Ok(()),
        }
    }

    #[inline(never)]
    fn settle_anew(&mut self) -> Result<(), Failure> {
        if self.mem.is_checked() {
            for s in self.mem.take_stale() {
                let kind = FailureKind::Stale {
                    addr: s.addr,
                    size: s.size,
                    write: s.write,
                    recycled: s.recycled,
                };
                self.st.found(kind, s.by, Some(s.freed));
            }
        }
        match self.st.watch.findings.fatal() {
            Some(finding) => Err(self.tell(finding)),
            None => Ok(()),
        }
    }

    /// A finding with its places.
    fn tell(&self, (f, kind): &(Finding, FailureKind)) -> Failure {
        Failure {
            kind: kind.clone(),
            at: f.at,
            who: Some((Cpu(f.by.cpu), CtxId(f.by.ctx))),
            place: self.site_place(f.by).map(Box::new),
            other: f.other().map(|o| Box::new(self.party(o))),
            spot: self.spot_of(kind).map(Box::new),
        }
    }

    /// What a finding is about.
    fn spot_of(&self, kind: &FailureKind) -> Option<Spot> {
        match kind {
            FailureKind::LostUpdate(access) | FailureKind::DataRace { access, .. } => {
                self.spot(access.addr, access.size.into())
            }
            FailureKind::NeverRan { element, .. } => Some(self.spot_in(element.clone())),
            _ => None,
        }
    }

    pub(crate) fn party(&self, site: Site) -> Party {
        Party {
            who: (Cpu(site.cpu), CtxId(site.ctx)),
            place: self.site_place(site),
        }
    }

    pub(crate) fn site_place(&self, site: Site) -> Option<crate::failure::Place> {
        let known = (site.prog as usize) < self.code.len();
        known.then(|| self.place(ProgId(site.prog), site.pc))
    }

    /// Ends a simulation in which nothing is due any more.
    ///
    /// # Errors
    /// If a callback's time has come and it has not run.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.settle()?;
        let now = self.now();
        let late = self
            .st
            .watch
            .arming
            .iter()
            .find(|(_, (_, due))| *due <= now);
        let Some((&(value, kind), &(armed, due))) = late else {
            return Ok(());
        };
        let element = self.spot(value, 1).map(|spot| spot.element);
        let spot = element.clone().map(|element| self.spot_in(element));
        Err(Failure {
            kind: FailureKind::NeverRan {
                kind,
                element: element.unwrap_or(Element {
                    map: Default::default(),
                    key: Default::default(),
                }),
                due,
                dropped: false,
            },
            at: now,
            who: None,
            place: None,
            other: Some(Box::new(self.party(armed))),
            spot: spot.map(Box::new),
        })
    }
}

/// An access of a helper to shared memory, in the current execution.
pub(crate) fn write(addr: u64, len: u32) -> Access {
    Access {
        addr,
        size: len.min(u8::MAX as u32) as u8,
        kind: AccessKind::Write,
    }
}
