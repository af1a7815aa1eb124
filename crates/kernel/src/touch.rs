//! What a step touched that other executions can touch too: who explores orders learns from it
//! which steps may change places without a difference.
//!
//! Noted only while a chooser wants to know ([`Chooser::records`](crate::Chooser::records)).
//! What a call touches stands in one table, [`CALLS`]; a call that has no row there touches its
//! map, if its first argument is one, and otherwise everything. To that comes what it reaches through
//! pointers (`reach`).

use crate::choose::Next;
use crate::ids::{Cpu, MapId};
use crate::kernel::Kernel;
use crate::kfunc;
use crate::reach;
use crate::run::Run;
use crate::state::{CpuState, State};
use crate::syscall::SysOp;
use crate::view::is_visible;
use bpfsim_abi::Func;
use bpfsim_vm::{Access, AccessKind, Call, GuestMem};

/// Something shared that a step touched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Touch {
    /// Memory: of map values, with the `bpf_spin_lock`s, timers, works and task works in them.
    Memory {
        /// Guest address of the first byte.
        addr: u64,
        /// Bytes.
        size: u32,
        /// Read, written or both.
        kind: AccessKind,
        /// The map that it belongs to: address of its `struct bpf_map`, or 0.
        map: u64,
    },
    /// A map as a whole: which elements it has and where, its free lists and its count.
    Map {
        /// Address of its `struct bpf_map`.
        map: u64,
        /// It was changed.
        write: bool,
    },
    /// What another CPU can do next: its timers, its workqueue, the task work of its tasks.
    Cpu(Cpu),
    /// A CPU began to execute, or has nothing to execute any more, or its clock moved between.
    /// Deadlines that lie ahead are offered only while something executes, and after that as far
    /// as any CPU has come: `ahead` says whether there are any.
    Idle {
        /// Some timer is armed, or a wait has an end.
        ahead: bool,
    },
    /// A deadline came or went: of a timer, of a wait that has an end, of an interrupt.
    Deadline,
    /// A line is printed, after those that were before.
    Printk,
    /// Code of the test that is a task's user space goes on.
    UserSpace,
    /// Anything at all.
    All,
}

/// What a call touches, beside what it reports itself.
enum Effect {
    /// Looks at the map in the argument of this number, from 0.
    Looks(usize),
    /// Changes it.
    Changes(usize),
    /// Changes the ring of the sample that this argument points to.
    Commits(usize),
    /// Locks or unlocks the resilient lock that this argument points to: whether that is free
    /// stands in memory, whether waiting for it would close a circle in what this CPU holds.
    ResLock(usize),
    /// The field of a map value that this argument points to.
    Field(usize, u32),
    /// Prints.
    Prints,
    /// Nothing that others touch.
    Nothing,
}

/// Calls that touch less than a call of which nothing is known.
const CALLS: &[(Func, Effect)] = &[
    (Func::MapLookupElem, Effect::Looks(0)),
    (Func::MapLookupPercpuElem, Effect::Looks(0)),
    (Func::ForEachMapElem, Effect::Looks(0)),
    (Func::TailCall, Effect::Looks(1)),
    (Func::PerfEventOutput, Effect::Changes(1)),
    (Func::RingbufSubmit, Effect::Commits(0)),
    (Func::RingbufDiscard, Effect::Commits(0)),
    (Func::KptrXchg, Effect::Field(0, 8)),
    (Func::SpinLock, Effect::Field(0, 4)),
    (Func::SpinUnlock, Effect::Field(0, 4)),
    (Func::TimerInit, Effect::Field(0, 16)),
    (Func::TimerSetCallback, Effect::Field(0, 16)),
    (Func::TimerStart, Effect::Field(0, 16)),
    (Func::TimerCancel, Effect::Field(0, 16)),
    (Func::TracePrintk, Effect::Prints),
    (Func::TraceVprintk, Effect::Prints),
    (Func::GetPrandomU32, Effect::Nothing),
];

/// The same for kfuncs.
const KFUNCS: &[(&str, Effect)] = &[
    ("bpf_wq_init", Effect::Field(0, 16)),
    ("bpf_wq_set_callback_impl", Effect::Field(0, 16)),
    ("bpf_wq_start", Effect::Field(0, 16)),
    ("bpf_task_work_schedule_signal_impl", Effect::Field(1, 8)),
    ("bpf_task_work_schedule_resume_impl", Effect::Field(1, 8)),
    ("bpf_res_spin_lock", Effect::ResLock(0)),
    ("bpf_res_spin_lock_irqsave", Effect::ResLock(0)),
    ("bpf_res_spin_unlock", Effect::ResLock(0)),
    ("bpf_res_spin_unlock_irqrestore", Effect::ResLock(0)),
];

impl State {
    /// Notes what the current step touches.
    pub fn touch(&mut self, touch: Touch) {
        if self.records {
            self.touched.push(touch);
        }
    }

    /// Notes a change of what a CPU does next, made by another one.
    pub fn touch_cpu(&mut self, cpu: Cpu) {
        if cpu != self.cur.cpu {
            self.touch(Touch::Cpu(cpu));
        }
    }

    /// Notes an access to shared memory.
    pub fn touch_memory(&mut self, addr: u64, size: u32, kind: AccessKind) {
        if self.records {
            let map = self.map_around(addr).unwrap_or(0);
            self.touched.push(Touch::Memory {
                addr,
                size,
                kind,
                map,
            });
        }
    }

    /// The map that an address belongs to.
    fn map_around(&self, addr: u64) -> Option<u64> {
        let map = self.maps.iter().find(|m| m.owns(addr))?;
        Some(map.addr)
    }

    /// The ring that a sample lies in.
    fn ring_around(&self, sample: u64) -> Option<u64> {
        let mut maps = self.maps.iter();
        let ring = maps.find(|m| m.has_sample(sample));
        ring.map(|m| m.addr)
    }

    /// Notes that a map changes, its elements with it.
    pub fn touch_map(&mut self, map: MapId) {
        let map = self.maps[map.at()].addr;
        self.touch(Touch::Map { map, write: true });
    }

    /// Notes what a call is about to touch.
    pub(crate) fn touch_call(&mut self, mem: &GuestMem, call: Call, args: [u64; 5]) {
        for (addr, size, kind) in reach::ranges(self, Some(mem), call, &args) {
            self.touch_memory(addr, size, kind);
        }
        let effect = match call {
            Call::Helper(id) => CALLS.iter().find(|(f, _)| *f as u32 == id).map(|r| &r.1),
            Call::Kfunc(index) => {
                let name = kfunc::name(index).unwrap_or("");
                KFUNCS.iter().find(|(n, _)| *n == name).map(|r| &r.1)
            }
        };
        match effect {
            Some(Effect::Looks(arg)) => self.touch(Touch::Map {
                map: args[*arg],
                write: false,
            }),
            Some(Effect::Field(arg, size)) => {
                self.touch_memory(args[*arg], *size, AccessKind::Rmw);
            }
            Some(Effect::Changes(arg)) => self.touch(Touch::Map {
                map: args[*arg],
                write: true,
            }),
            Some(Effect::Commits(arg)) => match self.ring_around(args[*arg]) {
                Some(map) => self.touch(Touch::Map { map, write: true }),
                None => self.touch(Touch::All),
            },
            Some(Effect::ResLock(arg)) => {
                self.touch_memory(args[*arg], 4, AccessKind::Rmw);
                if mem.read_u32(args[*arg]) != Some(0) {
                    for lock in self.cpu().res_locks.clone() {
                        self.touch_memory(lock, 4, AccessKind::Read);
                    }
                }
            }
            Some(Effect::Prints) => self.touch(Touch::Printk),
            Some(Effect::Nothing) => {}
            None if reach::is_through_dynptr(call) => {}
            None if is_visible(call) && self.map_at(args[0]).is_some() => self.touch(Touch::Map {
                map: args[0],
                write: true,
            }),
            // It stops only for what it reaches, or for chance.
            None if !is_visible(call) => {}
            None => self.touch(Touch::All),
        }
    }

    /// Notes what a run is about to touch, now that it goes on with `next`.
    pub(crate) fn touch_next(&mut self, mem: &GuestMem, next: Next, args: [u64; 5]) {
        match next {
            Next::Access(Access { addr, size, kind }) => {
                self.touch_memory(addr, size.into(), kind);
            }
            Next::Call { call, .. } => self.touch_call(mem, call, args),
            Next::Start(_) | Next::Syscall { .. } => {}
        }
    }
}

impl Kernel {
    /// Notes what a system call touches: its map, and if it has none, whatever it likes.
    pub(crate) fn touch_syscall(&mut self, op: &SysOp) {
        let touch = match (op, op.map()) {
            (
                SysOp::Sleep(_)
                | SysOp::Pause
                | SysOp::TestRun { .. }
                | SysOp::Fire { .. }
                | SysOp::IterRead { .. }
                | SysOp::Scx(_),
                _,
            ) => return,
            (_, Some(map)) => Touch::Map {
                map: self.st.maps[map.at()].addr,
                write: true,
            },
            (_, None) => Touch::All,
        };
        self.st.touch(touch);
    }

    /// True when a timer is armed on any CPU, a wait has an end, or an interrupt will come.
    fn deadlines(&self) -> bool {
        let armed = |c: &CpuState| c.timers.iter().any(|base| !base.is_empty());
        let ends = |run: &Run| run.cur.wait.is_some_and(|w| w.until().is_some());
        self.st.cpus.iter().any(armed)
            || self.runs.iter().flatten().any(|run| ends(run))
            || self.cpus.iter().any(|c| !c.interrupts.is_empty())
    }

    /// Notes what a step on a CPU that executed nothing before it, if this is its clock, or
    /// executes nothing now means for others.
    pub(crate) fn touch_idle(&mut self, cpu: Cpu, idle_at: Option<u64>) {
        let now = self.idle_at(cpu);
        if self.st.records && now != idle_at {
            let ahead = self.deadlines();
            self.st.touch(Touch::Idle { ahead });
        }
    }

    /// The clock of a CPU that executes nothing.
    pub(crate) fn idle_at(&self, cpu: Cpu) -> Option<u64> {
        let idle = self.cpus[cpu.at()].stack.is_empty();
        idle.then(|| self.st.cpus[cpu.at()].clock)
    }
}
