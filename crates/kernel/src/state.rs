//! Everything of a simulation that helpers and kfuncs may touch.

use crate::asynch::{Callback, Handle, Pool, task_work::TaskWork, timer::Timer, wq::Work};
use crate::chance::{Chance, Taken};
use crate::checked::{Held, Watch};
use crate::choose::{Next, Wait};
use crate::helper::Iteration;
use crate::hook::{IterFile, Links};
use crate::ids::{Cpu, CtxId, MapId, ProgId, TaskId, mix};
use crate::inject::Injected;
use crate::ksym::Ksym;
use crate::lock::MapLock;
use crate::map::{CgroupKey, Freed, MAP_OBJECT_SIZE, Map, Op, Waits};
use crate::mapop::{Copying, Freeing, FreeingAll};
use crate::object::Objects;
use crate::prog::{ProgCtx, ProgMeta};
use crate::refs::Refs;
use crate::scx::{Called, Scx};
use crate::shared::{Apart, Few, Shared, Written};
use crate::task::Task;
use crate::touch::Touch;
use crate::trace::{AsyncKind, Element, Event, Level, Name, Trace, What};
use crate::world::World;
use bpfsim_abi::Errno;
use bpfsim_btf::Btf;
use bpfsim_btf::fields::FieldKind;
use bpfsim_vm::{Access, GuestMem};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The kernel's data, but for guest memory and for executions in flight.
///
/// Plain data: a snapshot clones it, but for what is [`Apart`]. Whatever is large is [`Shared`].
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct State {
    pub maps: Apart<Written<Vec<Map>>>,
    pub progs: Shared<Vec<ProgMeta>>,
    /// Some were not verified: these may write to what locks lie in.
    pub unverified: bool,
    pub tasks: Shared<Vec<Shared<Task>>>,
    pub cpus: Few<Vec<CpuState>>,
    pub timers: Shared<Pool<Timer>>,
    pub works: Shared<Pool<Work>>,
    pub task_works: Shared<Pool<TaskWork>>,
    /// Who keeps maps and programs.
    pub refs: Shared<Refs>,
    /// Maps that are pinned by name, by their file in the BPF file system.
    pub pins: Shared<BTreeMap<String, MapId>>,
    /// Locks inside of maps that are held while their holder waits.
    pub map_locks: Few<Vec<MapLock>>,
    /// Tasks whose lists of task work are not empty.
    pub tasks_with_work: u32,
    /// Calls to come that are to fail.
    pub injected: Few<Vec<Injected>>,
    /// Calls that can come out otherwise are choices.
    pub chances_on: bool,
    /// How often they did, and how the step that is being taken does.
    pub taken: Taken,
    pub coming: Chance,
    /// Network devices, sockets and cgroups.
    pub world: Shared<World>,
    /// Programs that are attached to hooks.
    pub links: Shared<Links>,
    /// What others could see half done is done in pieces.
    pub explores: bool,
    /// Programs are loaded that schedule task work.
    pub schedules_task_work: bool,
    /// Hooks are to happen in interrupts on the CPU that executes.
    pub interrupted: bool,
    /// When the last `bpf_spin_lock` was given back.
    pub freed_at: u64,
    /// Someone wants to know what steps touch.
    pub records: bool,
    /// What the current step touched.
    pub touched: Few<Vec<Touch>>,
    pub trace: Apart<Trace>,
    /// The kernel's types.
    pub kernel_btf: Shared<Option<Arc<Btf>>>,
    /// Variables of the kernel that programs use.
    pub ksyms: Shared<Vec<Ksym>>,
    /// What programs wrote to their streams since user space read them, by program and stream.
    pub streams: Shared<BTreeMap<(ProgId, u32), Vec<u8>>>,
    /// Iterators that were opened, and how often some were.
    pub iters: Shared<Vec<IterFile>>,
    pub iter_sessions: u64,
    /// What iterators wrote to their sequence files since user space read them.
    pub seq_out: Few<Vec<u8>>,
    /// What programs allocated.
    pub objects: Shared<Objects>,
    /// Arming order, which breaks ties between equal deadlines.
    pub seq: u64,
    pub seed: Seed,
    /// What checked mode and detectors know.
    pub watch: Watch,
    /// The scheduler (sched_ext), if one was enabled.
    pub scx: Option<Shared<Scx>>,
    /// Who executes now.
    pub cur: Shared<Cur>,
}

/// Key of `bpf_get_prandom_u32`.
#[derive(Clone, Default)]
pub(crate) struct Seed {
    value: u64,
    /// Somebody asked for it.
    drawn: std::cell::Cell<bool>,
}

impl Seed {
    /// That nobody has asked for.
    pub fn new(value: u64) -> Seed {
        Seed {
            value,
            drawn: Default::default(),
        }
    }

    pub fn get(&self) -> u64 {
        self.drawn.set(true);
        self.value
    }

    /// The value, for what nothing that happens depends on.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// True once what happens depends on it.
    pub fn is_drawn(&self) -> bool {
        self.drawn.get()
    }

    /// Another value from here on.
    pub fn replace(&mut self, value: u64) {
        self.value = value;
    }
}

/// One virtual CPU.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct CpuState {
    /// Virtual time in ns since boot: `CLOCK_MONOTONIC`.
    pub clock: u64,
    /// What few steps change.
    pub rest: Shared<CpuRest>,
}

/// What a virtual CPU has beside its clock.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct CpuRest {
    /// Armed timers of each clock base, by deadline and arming order.
    pub timers: [BTreeSet<(u64, u64, Handle)>; 2],
    /// The queue of the per-CPU system workqueue.
    pub work: VecDeque<Handle>,
    /// Task work whose hop waits for interrupts to be on.
    pub irq_work: VecDeque<Handle>,
    /// The timer whose callback this CPU executes.
    pub running_timer: Option<Handle>,
    /// The `HRTIMER` soft interrupt, while it runs.
    pub softirq: Option<Softirq>,
    /// The soft interrupt ran too long; until then only an idle CPU goes on with it.
    pub ksoftirqd_until: u64,
    /// The CPU that `bpf_cpumask_any_distribute` gave last here.
    pub distributed: u32,
    /// `bpf_res_spin_lock`s that are held here, and last the one that is waited for.
    pub res_locks: Vec<u64>,
}

impl Deref for CpuState {
    type Target = CpuRest;

    #[inline]
    fn deref(&self) -> &CpuRest {
        &self.rest
    }
}

impl DerefMut for CpuState {
    #[inline]
    fn deref_mut(&mut self) -> &mut CpuRest {
        &mut self.rest
    }
}

impl CpuRest {
    /// Nothing is armed or queued.
    pub fn is_free(&self) -> bool {
        self.timers.iter().all(|t| t.is_empty()) && self.work.is_empty() && self.irq_work.is_empty()
    }
}

/// State of a running `HRTIMER` soft interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softirq {
    /// What counts as now in this pass.
    pub now: u64,
    /// Passes begun.
    pub passes: u32,
}

/// An execution, as helpers see it.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Cur {
    pub id: CtxId,
    pub cpu: Cpu,
    pub level: Level,
    pub task: TaskId,
    pub prog: ProgId,
    /// Executions that this one has made.
    pub made: u32,
    /// Random numbers that it has drawn.
    pub drawn: u32,
    /// How the call that it is making comes out.
    pub chance: Chance,
    /// When what it waited for came about.
    pub over: Option<u64>,
    /// What keeps interrupts off: `bpf_spin_lock`s held and `bpf_local_irq_save`s open.
    pub irq_off: u32,
    /// `bpf_preempt_disable`s open.
    pub preempt_off: u32,
    /// Soft interrupts are off.
    pub bh_off: bool,
    /// A helper that stopped half way.
    pub op: Option<Pending>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// The access with which an operation goes on that is done in pieces.
    pub visible: Option<Access>,
    /// A value looked up by an operation that is not over.
    pub value: Few<Vec<u8>>,
    /// What R1 of a program means.
    pub ctx: ProgCtx,
    /// What `bpf_get_local_storage` gave it where it is attached to none, by map.
    pub storage: Few<Vec<(MapId, u64)>>,
    /// What `bpf_cast_to_kern_ctx` gave it, or 0.
    pub kern_ctx: u64,
    /// What `bpf_get_retval` gives.
    pub retval: i32,
    /// What it wrote to its sequence file.
    pub seq: Few<Vec<u8>>,
    /// Helpers in the middle of their callbacks, innermost last.
    pub iterations: Few<Vec<Iteration>>,
    /// Tail calls made.
    pub tail_calls: u32,
    /// References and locks to be given back.
    pub held: Few<smallvec::SmallVec<[Held; 1]>>,
    /// Its lane in the detectors of races.
    pub lane: u16,
    /// Address of the slot that a callback was armed in.
    pub slot: u64,
    /// Of a program that a hook runs, what it is attached to.
    pub hook: Option<Box<AtHook>>,
    /// Guest address of 64 bytes beside its stack: the keys that callbacks of array elements get.
    pub scratch: u64,
}

/// What a program is attached to.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtHook {
    /// What `bpf_get_attach_cookie` gives.
    pub cookie: u64,
    /// The cgroup.
    pub cgroup: Option<CgroupKey>,
    pub session: Option<Session>,
    /// What `bpf_override_return` said last.
    pub overrides: Option<u64>,
    /// It wrote more than its sequence file takes (`seq_has_overflowed`).
    pub seq_overflowed: bool,
    /// Of a member of a scheduler, what it was called for.
    pub scx: Option<Called>,
    /// The function that is the hook, as `bpf_get_func_ip` gives it.
    pub func_ip: u64,
}

/// A program that runs at a function's entry and again at its return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// This is the return.
    pub returns: bool,
    /// Guest address of the word that both see.
    pub cookie: u64,
}

/// An operation that goes on when it is called again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    /// `bpf_timer_cancel`, waiting for the callback; `counted` when it counts as cancelling.
    Cancel { timer: Handle, counted: bool },
    /// A map operation that freed timers whose callbacks still run.
    Free(Freeing),
    /// An update in place.
    Copy(Copying),
    /// A map operation that waits for a lock.
    Lock(Wait),
    /// The last user reference of a map is gone.
    FreeAll(FreeingAll),
    /// `bpf_res_spin_lock`, given up then.
    ResSpinLock(u64),
    /// Sleep until then.
    Sleep(u64),
}

impl Cur {
    /// User space, as CPU 0 sees it.
    pub fn user(task: TaskId) -> Cur {
        Cur {
            id: CtxId::USER,
            cpu: Cpu(0),
            level: Level::Task,
            task,
            prog: ProgId(0),
            made: 0,
            drawn: 0,
            chance: Chance::Usual,
            over: None,
            irq_off: 0,
            preempt_off: 0,
            bh_off: false,
            op: None,
            wait: None,
            visible: None,
            value: Default::default(),
            ctx: ProgCtx::Memory,
            storage: Default::default(),
            kern_ctx: 0,
            retval: 0,
            seq: Default::default(),
            iterations: Default::default(),
            tail_calls: 0,
            held: Default::default(),
            lane: crate::race::NO_LANE,
            slot: 0,
            hook: None,
            scratch: 0,
        }
    }

    /// Other tasks may have its CPU, where tasks can be preempted at all.
    pub fn is_preemptible(&self) -> bool {
        let off = self.bh_off || self.irq_off > 0 || self.preempt_off > 0;
        self.level == Level::Task && !off
    }

    /// The next random number of this execution: the same in all orders.
    pub fn random(&mut self, seed: u64) -> u32 {
        let drawn = self.next_random(seed);
        self.drawn += 1;
        drawn
    }

    /// What [`Cur::random`] will give.
    pub fn next_random(&self, seed: u64) -> u32 {
        (mix(mix(seed, self.id.0), self.drawn as u64 + 1) >> 32) as u32
    }

    /// Identity for the next execution that this one makes.
    pub fn child(&mut self) -> CtxId {
        self.made += 1;
        self.id.child(self.made)
    }
}

impl State {
    pub fn cpu(&mut self) -> &mut CpuState {
        &mut self.cpus[self.cur.cpu.at()]
    }

    /// Virtual time: the furthest that any CPU has come.
    pub fn now(&self) -> u64 {
        self.cpus.iter().map(|c| c.clock).max().unwrap_or(0)
    }

    #[inline(always)]
    pub fn event(&mut self, what: What) {
        let at = self.cpus[self.cur.cpu.at()].clock;
        let (cpu, ctx, level) = (self.cur.cpu, self.cur.id, self.cur.level);
        self.trace.push(Event {
            at,
            cpu,
            ctx,
            level,
            what,
        });
    }

    /// An explored run did what came next for it.
    #[inline]
    pub fn trace_done(&mut self, next: &Next, mem: &GuestMem) {
        if let Next::Access(access) = *next {
            let value = mem.read_u64(access.addr).unwrap_or(0);
            self.trace.access(self.cur.id, access, value);
        }
    }

    /// The map whose `struct bpf_map` is at this guest address.
    pub fn map_at(&self, addr: u64) -> Option<MapId> {
        let first = self.maps.first()?.addr;
        // Map objects are allocated in order but not always side by side.
        let guess = (addr.wrapping_sub(first) / MAP_OBJECT_SIZE) as usize;
        if self.maps.get(guess).is_some_and(|m| m.addr == addr) {
            return Some(MapId(guess as u32));
        }
        self.maps
            .iter()
            .position(|m| m.addr == addr)
            .map(|i| MapId(i as u32))
    }

    pub fn map_op<'a>(&'a mut self, mem: &'a mut GuestMem, map: MapId) -> (&'a mut Map, Op<'a>) {
        (
            &mut self.maps[map.at()],
            Op {
                mem,
                cpu: self.cur.cpu,
                cpus: self.cpus.len() as u32,
                user: false,
                fails: self.cur.chance == Chance::NoMemory,
                freed: Freed::new(),
            },
        )
    }

    pub fn element(&self, mem: &GuestMem, map: MapId, value: u64) -> Element {
        Element {
            map,
            key: self.maps[map.at()].key_of(mem, value),
        }
    }

    pub fn function(&self, callback: Callback) -> Name {
        self.progs[callback.prog.at()]
            .function(callback.entry)
            .clone()
    }

    pub fn armed(&mut self, mem: &GuestMem, kind: AsyncKind, map: MapId, value: u64, due: u64) {
        let element = self.element(mem, map, value);
        self.watch_armed(mem, kind, value, due);
        self.event(What::Armed { kind, element, due });
    }

    pub fn disarmed(&mut self, mem: &GuestMem, kind: AsyncKind, map: MapId, value: u64) {
        let element = self.element(mem, map, value);
        self.watch_disarmed(kind, value);
        self.event(What::Disarmed { kind, element });
    }

    /// `map_update_elem` and the values whose fields are to be freed.
    pub fn map_update(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> (Result<(), Errno>, Waits) {
        let (m, mut op) = self.map_op(mem, map);
        let result = m.update(&mut op, key, value, flags);
        let freed = std::mem::take(&mut op.freed);
        self.watch_dropped(mem, map, &freed);
        (result, self.free_all(mem, map, &freed))
    }

    /// `map_delete_elem`; as [`State::map_update`].
    pub fn map_delete(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
    ) -> (Result<(), Errno>, Waits) {
        let (m, mut op) = self.map_op(mem, map);
        let result = m.delete(&mut op, key);
        let freed = std::mem::take(&mut op.freed);
        (result, self.free_all(mem, map, &freed))
    }

    /// `bpf_obj_free_fields` for the asynchronous fields. Returns a timer whose callback runs on
    /// another CPU, when the caller must wait for it.
    pub fn free_armed(&mut self, mem: &mut GuestMem, map: MapId, value: u64) -> Option<Handle> {
        let fields = &self.maps[map.at()].fields;
        let at = |is: fn(&FieldKind) -> bool| fields.offset(is).map(|o| value + o as u64);
        let timer = at(|k| matches!(k, FieldKind::Timer));
        let wq = at(|k| matches!(k, FieldKind::Workqueue));
        let task_work = at(|k| matches!(k, FieldKind::TaskWork));
        if let Some(addr) = wq {
            self.wq_free(mem, addr);
        }
        if let Some(addr) = task_work {
            self.task_work_free(mem, addr);
        }
        timer.and_then(|addr| self.timer_free(mem, addr))
    }
}
