//! Who waits for whom, and whether in a circle.

use crate::choose::{Wait, Waiting};
use crate::failure::{Blocked, Failure, FailureKind};
use crate::ids::CtxId;
use crate::kernel::Kernel;
use crate::lock::LockKind;
use crate::run::{Run, Running};
use crate::scx::Machine;
use crate::shared::Shared;

impl Kernel {
    /// Nothing can go on.
    pub(crate) fn deadlock(&self) -> Failure {
        let first = self.offer.waiting.first();
        let run = first.and_then(|w| self.run_of(w.id));
        let circle = run.and_then(|run| self.circle(run));
        let blocked = circle.unwrap_or_else(|| {
            let waiting = self.offer.waiting.iter();
            waiting.map(|w| self.blocked(*w)).collect()
        });
        self.deadlock_of(blocked)
    }

    /// Fails if a run that has just begun to wait closes a circle: it need not wait for all else
    /// to stop, which it may never do.
    pub(crate) fn check_circle(&self, run: usize) -> Result<(), Failure> {
        match self.circle(run) {
            Some(blocked) => Err(self.deadlock_of(blocked)),
            None => Ok(()),
        }
    }

    fn deadlock_of(&self, blocked: Vec<Blocked>) -> Failure {
        let first = blocked.first();
        Failure {
            at: self.now(),
            who: first.map(|b| (b.waiting.cpu, b.waiting.id)),
            place: first.and_then(|b| b.place.clone()).map(Box::new),
            other: None,
            spot: None,
            kind: FailureKind::Deadlock(blocked),
        }
    }

    fn run_of(&self, ctx: CtxId) -> Option<usize> {
        let is = |r: &Option<Shared<Run>>| r.as_ref().is_some_and(|r| r.cur.id == ctx);
        self.runs.iter().position(is)
    }

    /// The run that holds what another waits for.
    fn holder(&self, wait: &Wait) -> Option<usize> {
        let map_lock = |is: &dyn Fn(LockKind) -> bool, map| {
            let lock = self
                .st
                .map_locks
                .iter()
                .find(|l| l.map == map && is(l.kind));
            lock.and_then(|l| self.run_of(l.by))
        };
        match *wait {
            Wait::TimerCallback(ctx) => self.run_of(ctx),
            Wait::SpinLock(addr) => {
                let holds = |r: &Option<Shared<Run>>| {
                    let held = r.as_ref().map(|r| &r.cur.held);
                    held.is_some_and(|held| held.iter().any(|h| h.is_lock() && h.addr == addr))
                };
                self.runs.iter().position(holds)
            }
            Wait::LruLock(map) => map_lock(&|k| k == LockKind::Lru, map),
            // Given up after a while.
            Wait::BucketLock { .. } | Wait::ResSpinLock { .. } | Wait::Sleep(_) => None,
            Wait::RunQueue(cpu) => self.run_of_scx(|m| m.locked == Some(cpu.0)),
            Wait::Enqueue(task) => self.run_of_scx(|m| m.enqueues == Some(task)),
        }
    }

    /// The run of a member whose operation is such.
    fn run_of_scx(&self, is: impl Fn(&Machine) -> bool) -> Option<usize> {
        let is = |r: &Option<Shared<Run>>| match r.as_ref().map(|r| &r.what) {
            Some(Running::Scx(m)) => is(m),
            _ => false,
        };
        self.runs.iter().position(is)
    }

    /// The run that executes on the CPU of one that is interrupted or has left the CPU.
    fn covered_by(&self, run: usize) -> Option<usize> {
        let cpu = &self.cpus[self.runs[run].as_ref()?.cur.cpu.at()];
        let top = *cpu.stack.last()?;
        let there = cpu.stack.contains(&run) || cpu.parked.iter().any(|p| p.run == Some(run));
        (there && top != run).then_some(top)
    }

    /// The circle that a run waits in.
    fn circle(&self, first: usize) -> Option<Vec<Blocked>> {
        let mut path: Vec<usize> = Vec::new();
        let mut at = first;
        while !path.contains(&at) {
            let run = self.runs[at].as_ref()?;
            let wait = run.cur.wait.filter(|w| self.still_waits(w));
            // What is interrupted, or has no CPU, waits for what executes there.
            let next = match (self.covered_by(at), wait) {
                (Some(top), _) => top,
                (None, Some(wait)) => self.holder(&wait)?,
                (None, None) => return None,
            };
            path.push(at);
            at = next;
        }
        let begins = path.iter().position(|run| *run == at)?;
        let waits = path[begins..].iter().filter_map(|&run| {
            let r = self.runs[run].as_ref()?;
            let wait = r.cur.wait?;
            Some(self.blocked(Waiting {
                id: r.cur.id,
                cpu: r.cur.cpu,
                wait,
            }))
        });
        let blocked: Vec<Blocked> = waits.collect();
        (!blocked.is_empty()).then_some(blocked)
    }

    fn blocked(&self, waiting: Waiting) -> Blocked {
        let run = self.run_of(waiting.id).and_then(|r| self.runs[r].as_ref());
        let program = run.filter(|r| !matches!(r.what, Running::Syscall));
        let holder = self.holder(&waiting.wait);
        let taken = match waiting.wait {
            Wait::SpinLock(addr) => holder.and_then(|h| {
                let held = &self.runs[h].as_ref()?.cur.held;
                let site = held.iter().find(|h| h.addr == addr)?.site;
                self.site_place(site).filter(|_| self.mem.is_checked())
            }),
            _ => None,
        };
        Blocked {
            waiting,
            place: program.map(|r| self.place(r.cur.prog, r.act.pc)),
            taken,
        }
    }

    /// Nothing can go on: fails if something has begun that is not over.
    pub(crate) fn check_stuck(&self) -> Result<(), Failure> {
        let busy = self.cpus.iter().any(|c| !c.stack.is_empty());
        if busy { Err(self.deadlock()) } else { Ok(()) }
    }
}
