//! Locks and what keeps interrupts off: SEMANTICS 6.2, 6.3 and 6.17.

use crate::checked::{Held, SPIN_LOCK};
use crate::choose::Wait;
use crate::ids::{Cpu, CtxId, MapId};
use crate::state::{CpuState, Pending, State};
use crate::trace::Level;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Call, FaultKind, Flow, GuestMem};

/// How long a resilient spin lock is waited for, in ns (`RES_DEF_TIMEOUT`).
pub(crate) const TIMEOUT: u64 = 250_000_000;

/// `sizeof(struct bpf_spin_lock)`
const LOCK_SIZE: u64 = 4;

/// A lock inside of a map. Operations are single steps, so one is only ever seen held while its
/// holder waits for a timer's callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MapLock {
    pub map: MapId,
    pub kind: LockKind,
    pub by: CtxId,
    /// Where its holder is.
    pub cpu: Cpu,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockKind {
    /// `struct bucket`'s: resilient.
    Bucket(u32),
    /// The lists of an LRU map: plain.
    Lru,
}

/// Carries out `bpf_spin_lock` and `bpf_spin_unlock`, and no other call. Some programs call little else,
/// so what is checked and watched of calls is here what concerns these.
#[inline(always)]
pub(crate) fn call(st: &mut State, mem: &mut GuestMem, call: Call, addr: u64) -> Option<Flow> {
    let Call::Helper(id) = call else {
        return None;
    };
    let takes = id == Func::SpinLock as u32;
    if !takes && id != Func::SpinUnlock as u32 {
        return None;
    }
    if let Err(kind) = mem.check_arg(1, addr, LOCK_SIZE, true) {
        return Some(Flow::Fault(kind));
    }
    let flow = match takes {
        true => st.spin_lock(mem, addr).map(|taken| match taken {
            true => Flow::Done(0),
            false => Flow::Suspend,
        }),
        false => st.spin_unlock(mem, addr).map(|()| st.comes_after_unlock()),
    };
    let bad = Flow::Fault(FaultKind::BadArgument { call, arg: 1 });
    Some(flow.unwrap_or(bad))
}

impl State {
    /// What an execution that wants a map's lock must wait for first.
    pub fn map_lock_wait(&self, map: MapId, bucket: Option<u32>) -> Option<Wait> {
        let now = self.cpus[self.cur.cpu.at()].clock;
        let held = |l: &&MapLock| {
            l.map == map
                && l.by != self.cur.id
                && match l.kind {
                    LockKind::Bucket(b) => bucket == Some(b),
                    LockKind::Lru => true,
                }
        };
        self.map_locks.iter().find(held).map(|l| match l.kind {
            LockKind::Bucket(bucket) => Wait::BucketLock {
                map,
                bucket,
                until: now.saturating_add(TIMEOUT),
            },
            LockKind::Lru => Wait::LruLock(map),
        })
    }

    /// Whether what the current execution came over holds a bucket's lock
    /// (`check_deadlock_AA`): to wait for it would be for ever.
    pub fn is_over_bucket_lock(&self, map: MapId, bucket: Option<u32>) -> bool {
        self.map_locks.iter().any(|l| {
            let wanted = bucket.is_some_and(|b| l.kind == LockKind::Bucket(b));
            l.map == map && wanted && l.cpu == self.cur.cpu && l.by != self.cur.id
        })
    }

    /// Takes a map's lock for as long as the current execution waits.
    pub fn map_lock(&mut self, map: MapId, kind: LockKind) {
        let (by, cpu) = (self.cur.id, self.cur.cpu);
        self.map_locks.push(MapLock { map, kind, by, cpu });
        self.cur.irq_off += 1;
    }

    pub fn map_unlock(&mut self, map: MapId, kind: LockKind) {
        let lock = MapLock {
            map,
            kind,
            by: self.cur.id,
            cpu: self.cur.cpu,
        };
        if let Some(at) = self.map_locks.iter().position(|l| *l == lock) {
            self.map_locks.swap_remove(at);
            self.irq_on();
        }
    }

    /// `__bpf_spin_lock_irqsave`: true once it is held.
    #[inline]
    pub fn spin_lock(&mut self, mem: &mut GuestMem, addr: u64) -> Option<bool> {
        let cur = &mut *self.cur;
        Some(match mem.read_u32(addr)? {
            0 => {
                mem.write_u32(addr, 1)?;
                cur.irq_off += 1;
                cur.held.push(Held {
                    addr,
                    from: SPIN_LOCK,
                    site: mem.site(),
                });
                self.watch.findings.acquire(cur.lane, addr);
                true
            }
            _ => {
                cur.wait = Some(Wait::SpinLock(addr));
                false
            }
        })
    }

    /// `__bpf_spin_unlock_irqrestore`
    #[inline]
    pub fn spin_unlock(&mut self, mem: &mut GuestMem, addr: u64) -> Option<()> {
        mem.write_u32(addr, 0)?;
        let cur = &mut *self.cur;
        if let Some(at) = cur.held.iter().rposition(|h| h.addr == addr) {
            cur.held.remove(at);
        }
        if self.watch.races_on {
            self.watch.findings.release(cur.lane, addr);
        }
        self.freed_at = self.cpu().clock;
        self.irq_on();
        Some(())
    }

    /// Interrupts that a lock kept off come straight after it. Where there are none an explored execution goes
    /// on to what it does next, before which all others have their turn.
    #[inline]
    pub fn comes_after_unlock(&mut self) -> Flow {
        match self.explores && !self.interrupted && self.cpu().is_free() {
            true => Flow::Done(0),
            false => Flow::Yield(0),
        }
    }

    /// `res_spin_lock`: none while it is waited for. `EDEADLK` for a lock that this CPU holds, or
    /// whose holder waits for one that this CPU holds; `ETIMEDOUT` after a quarter of a second.
    pub fn res_spin_lock(
        &mut self,
        mem: &mut GuestMem,
        addr: u64,
    ) -> Option<Option<Result<(), Errno>>> {
        let here = self.cur.cpu.at();
        let waited = match self.cur.op.take() {
            Some(Pending::ResSpinLock(until)) => {
                self.cpus[here].res_locks.pop();
                Some(until)
            }
            _ => None,
        };
        if mem.read_u32(addr)? == 0 {
            mem.write_u32(addr, 1)?;
            self.cpus[here].res_locks.push(addr);
            return Some(Some(Ok(())));
        }
        let held = &self.cpus[here].res_locks;
        let crossed = |cpu: &CpuState| {
            let waits = cpu
                .res_locks
                .last()
                .is_some_and(|l| *l != addr && held.contains(l));
            waits && cpu.res_locks.contains(&addr)
        };
        let now = self.cpus[here].clock;
        let until = waited.unwrap_or(now.saturating_add(TIMEOUT));
        if held.contains(&addr) || self.cpus.iter().any(crossed) {
            return Some(Some(Err(Errno::EDEADLK)));
        }
        if now >= until {
            return Some(Some(Err(Errno::ETIMEDOUT)));
        }
        self.cpus[here].res_locks.push(addr);
        self.cur.wait = Some(Wait::ResSpinLock { addr, until });
        self.cur.op = Some(Pending::ResSpinLock(until));
        Some(None)
    }

    /// `res_spin_unlock`
    pub fn res_spin_unlock(&mut self, mem: &mut GuestMem, addr: u64) -> Option<()> {
        mem.write_u32(addr, 0)?;
        let held = &mut self.cpu().res_locks;
        if let Some(at) = held.iter().rposition(|l| *l == addr) {
            held.remove(at);
        }
        Some(())
    }

    /// One reason less to keep interrupts off. With the last one, what waited for them happens:
    /// the hop of task work through irq_work.
    #[inline]
    pub fn irq_on(&mut self) {
        let cur = &mut *self.cur;
        cur.irq_off = cur.irq_off.saturating_sub(1);
        let cpu = cur.cpu;
        let is_on = cur.irq_off == 0 && cur.level < Level::Nmi;
        if is_on && !self.cpus[cpu.at()].irq_work.is_empty() {
            self.do_irq_work(cpu);
        }
    }

    #[cold]
    fn do_irq_work(&mut self, cpu: Cpu) {
        while let Some(work) = self.cpus[cpu.at()].irq_work.pop_front() {
            self.task_work_hop(work);
        }
    }

    /// True while nothing, not even irq_work, can come over the current execution.
    pub fn irqs_off(&self) -> bool {
        self.cur.irq_off > 0 || self.cur.level == Level::Nmi
    }
}
