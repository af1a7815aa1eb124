//! A scheduler comes, with all tasks that there are, and goes.

use super::consts::{EFLAG_INITIALIZED, EXIT_MSG_LEN, deq, kf, ops};
use super::machine::{Act, Cx, Did, Machine, Told};
use super::{
    Custody, Dsq, Entity, FIRST_SLICE, Layout, On, Q, Rq, Scx, ScxExit, ScxExitKind, ScxOp, Stage,
    TaskStage,
};
use crate::ids::{Cpu, MapId, TaskId};
use crate::kernel::Kernel;
use crate::shared::Shared;
use crate::task::{Task, TaskState};
use crate::testrun::Refused;
use bpfsim_abi::Errno;
use std::collections::BTreeMap;

/// A task's weight before anybody changes it: that of nice 0.
const WEIGHT: u32 = 100;
/// `bw_period_us` of a cgroup that nobody has limited.
const PERIOD: u64 = 100_000;
/// Bytes that members are given beside tasks, for each CPU.
const ARGS: u32 = 256;
/// `MAX_ERRNO`
const MAX_ERRNO: i32 = 4095;

/// A task that a test made: its own, those of the kernel and those of user code are of other classes.
pub(super) fn is_scheduled(task: &Shared<Task>) -> bool {
    let gone = matches!(
        task.state,
        TaskState::Exiting | TaskState::Dead | TaskState::Reaped
    );
    task.parent.is_some() && !task.user_code && !gone
}

impl Cx<'_> {
    fn tell(&self, member: &'static str) -> Told {
        Told {
            member,
            args: [0; 3],
            mask: kf::UNLOCKED,
            task: None,
        }
    }

    /// `ops_sanitize_err`
    fn sanitize(&mut self, member: &str, ret: i32) -> i32 {
        if (-MAX_ERRNO..0).contains(&ret) {
            return ret;
        }
        let text = format!("ops.{member}() returned an invalid errno {ret}");
        self.scx.error(text);
        -i32::from(Errno::EPROTO.0)
    }

    /// The scheduler goes before it came.
    fn give_up(&mut self) {
        self.m.drop_rest();
        let stages = self.scx.tasks.iter();
        let made = stages.filter(|(_, e)| e.stage > TaskStage::None);
        let made: Vec<TaskId> = made.map(|(t, _)| *t).collect();
        self.m.then([Act::Exit, Act::Gone]);
        self.exit_cgroups();
        for task in made.into_iter().rev() {
            self.m.then([Act::ExitTask(task)]);
        }
        self.scx.stage = Stage::Disabling;
    }

    fn exit_cgroups(&mut self) {
        for &cgroup in &self.scx.cgroups {
            self.m.then([Act::CgroupExit(cgroup)]);
        }
    }

    pub(super) fn enabling(&mut self, act: Act) -> Did {
        match act {
            Act::Init => return Did::Calls(self.tell("init")),
            Act::Inited => self.inited(),
            Act::CgroupInit(cgroup) => return self.cgroup_init(cgroup),
            Act::CgroupInited => {
                if self.m.ret != 0 {
                    let ret = self.m.ret;
                    self.scx.cgroups.pop();
                    self.scx.error(format!("ops.cgroup_init() failed ({ret})"));
                    self.give_up();
                }
            }
            Act::CgroupExit(cgroup) => {
                return Did::Calls(Told {
                    args: [cgroup, 0, 0],
                    ..self.tell("cgroup_exit")
                });
            }
            Act::InitTask(task, fork) => return self.init_task(task, fork),
            Act::TaskInited(task, fork) => self.task_inited(task, fork),
            Act::EnableTask(task, fork) => self.enable_task(task, fork),
            Act::TaskEnabled(task) => {
                if let Some(e) = self.scx.tasks.get_mut(&task) {
                    e.stage = TaskStage::Enabled;
                }
            }
            Act::Ready => {
                self.scx.stage = Stage::Enabled;
                for cpu in 0..self.scx.cpus() {
                    self.scx.resched(cpu);
                }
            }
            Act::Bypass => self.bypass(),
            Act::ExitTask(task) => self.exit_task(task),
            Act::TaskExited(task) => {
                self.scx.remove(task);
                if let Some(e) = self.scx.tasks.get_mut(&task) {
                    e.stage = TaskStage::None;
                }
                self.scx.show(self.mem, task);
                self.scx.tasks.remove(&task);
            }
            Act::Exit => return self.exit(),
            _ => self.gone(),
        }
        Did::Over
    }

    fn inited(&mut self) {
        if self.m.ret != 0 {
            let ret = self.sanitize("init", self.m.ret);
            self.scx.error(format!("ops.init() failed ({ret})"));
            return self.give_up();
        }
        self.scx.initialized = true;
        let flags = self.scx.ops.flags;
        // `validate_ops`
        if flags & ops::ENQ_LAST != 0 && !self.scx.ops.has("enqueue") {
            let text = "SCX_OPS_ENQ_LAST requires ops.enqueue() to be implemented";
            self.scx.error(text.to_string());
        } else if flags & ops::BUILTIN_IDLE_PER_NODE != 0 && !self.scx.tracks_idle() {
            let text = "SCX_OPS_BUILTIN_IDLE_PER_NODE requires CPU idle selection enabled";
            self.scx.error(text.to_string());
        }
        if self.scx.exit.is_some() {
            self.give_up();
        }
    }

    /// What `cgroup_init` is told: a cgroup's weight, and that it has as much time as it wants.
    fn cgroup_init(&mut self, cgroup: u64) -> Did {
        let l = &self.scx.layout;
        let at = self.scx.args[self.m.cpu as usize];
        self.mem.write_u32(at + l.cgroup_weight, WEIGHT);
        for (member, value) in [(l.cgroup_period, PERIOD), (l.cgroup_quota, u64::MAX)] {
            member.and_then(|m| self.mem.write_u64(at + m, value));
        }
        self.scx.cgroups.push(cgroup);
        self.m.then([Act::CgroupInited]);
        Did::Calls(Told {
            args: [cgroup, at, 0],
            ..self.tell("cgroup_init")
        })
    }

    fn init_task(&mut self, task: TaskId, fork: bool) -> Did {
        let Some(e) = self.scx.tasks.get(&task) else {
            return Did::Over;
        };
        let l = &self.scx.layout;
        let at = self.scx.args[self.m.cpu as usize];
        let (addr, cgroup) = (e.addr, e.cgroup);
        if let Some(bytes) = self.mem.slice_mut(at + l.init_fork, 1) {
            bytes[0] = u8::from(fork);
        }
        l.init_cgroup.map(|c| self.mem.write_u64(at + c, cgroup));
        let disallow = l.disallow.and_then(|d| self.mem.slice_mut(addr + d, 1));
        if let Some(bytes) = disallow {
            bytes[0] = 0;
        }
        self.m.then([Act::TaskInited(task, fork)]);
        Did::Calls(Told {
            args: [addr, at, 0],
            task: Some(task),
            ..self.tell("init_task")
        })
    }

    fn task_inited(&mut self, task: TaskId, fork: bool) {
        if self.m.ret != 0 {
            let ret = self.sanitize("init_task", self.m.ret);
            if fork {
                // The fork fails.
                self.m.drop_rest();
                self.m.failed = Some(Errno(ret.unsigned_abs() as u16));
                self.scx.tasks.remove(&task);
                return;
            }
            let name = self.scx.name(task).to_string();
            let text = format!("ops.init_task() failed ({ret}) for {name}");
            self.scx.error(text);
            return self.give_up();
        }
        let partial = self.scx.ops.flags & ops::SWITCH_PARTIAL != 0;
        let l = &self.scx.layout;
        let at = self.scx.tasks.get(&task).map_or(0, |e| e.addr);
        let disallow = l.disallow.and_then(|d| self.mem.slice(at + d, 1));
        let disallowed = partial && disallow.is_some_and(|b| b[0] != 0);
        if disallowed && fork {
            let name = self.scx.name(task).to_string();
            let text = format!("ops.init_task() set task->scx.disallow for {name} during fork");
            self.scx.error(text);
        }
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            e.stage = TaskStage::Ready;
            e.reset_runnable_at = true;
            e.allowed = if disallowed { 0 } else { e.allowed };
        }
        if !disallowed {
            self.scx.show(self.mem, task);
        }
    }

    /// `scx_enable_task`, and what comes with the change of class.
    fn enable_task(&mut self, task: TaskId, fork: bool) {
        let Some(e) = self.scx.tasks.get(&task) else {
            return;
        };
        // It is left to the kernel's own scheduler (`disallow`).
        if e.allowed == 0 {
            return;
        }
        let cpu = e.cpu;
        self.scx.set_slice(self.mem, task, FIRST_SLICE);
        self.scx.set_weight(self.mem, task, WEIGHT);
        let mask = self.scx.mask_of(task);
        let cpus = self.about("set_cpumask", task, mask, kf::REST);
        self.m.then([Act::Unlock, Act::IrqsOn]);
        if !fork {
            self.m.then([Act::Tell(cpus)]);
        }
        self.m.then([
            Act::Lock(cpu),
            Act::Tell(self.about("enable", task, 0, kf::REST)),
            Act::TaskEnabled(task),
            Act::Tell(self.about("set_weight", task, WEIGHT.into(), kf::REST)),
        ]);
    }

    /// `scx_bypass`: whoever waits is queued anew, past the scheduler.
    fn bypass(&mut self) {
        self.scx.stage = Stage::Disabling;
        self.scx.bypass = true;
        let waiting = self.scx.tasks.iter().filter(|(_, e)| e.waits);
        let waiting: Vec<(TaskId, u32)> = waiting.map(|(t, e)| (*t, e.cpu)).collect();
        for (task, cpu) in waiting.into_iter().rev() {
            self.m.then([
                Act::Lock(cpu),
                Act::Dequeue(task, deq::SAVE | deq::NOCLOCK),
                Act::Restore(task),
                Act::Unlock,
                Act::IrqsOn,
            ]);
        }
    }

    fn exit_task(&mut self, task: TaskId) {
        let Some(e) = self.scx.tasks.get(&task) else {
            return;
        };
        let (cpu, stage) = (e.cpu, e.stage);
        if stage == TaskStage::None {
            return;
        }
        let at = self.scx.args[self.m.cpu as usize];
        let cancelled = stage == TaskStage::Init;
        let to = at + self.scx.layout.exit_cancelled;
        if let Some(bytes) = self.mem.slice_mut(to, 1) {
            bytes[0] = u8::from(cancelled);
        }
        self.m.then([
            Act::Tell(self.about("exit_task", task, at, kf::REST)),
            Act::TaskExited(task),
            Act::Unlock,
            Act::IrqsOn,
        ]);
        if stage == TaskStage::Enabled {
            let disable = self.about("disable", task, 0, kf::REST);
            self.m.then([Act::Tell(disable)]);
        }
        self.m
            .then([Act::Lock(cpu), Act::Dequeue(task, deq::SAVE | deq::NOCLOCK)]);
    }

    fn exit(&mut self) -> Did {
        let l = &self.scx.layout;
        let at = self.m.info;
        let exit = self.scx.exit.clone().unwrap_or(ScxExit {
            kind: ScxExitKind::Unreg,
            code: 0,
            msg: String::new(),
        });
        let (reason, msg) = (at + l.info_size, at + l.info_size + 64);
        let flags = if self.scx.initialized {
            EFLAG_INITIALIZED
        } else {
            0
        };
        self.mem.write_u32(at + l.info_kind, exit.kind as u32);
        for (member, value) in [
            (l.info_code, exit.code as u64),
            (l.info_flags, flags),
            (l.info_reason, reason),
            (l.info_msg, msg),
        ] {
            member.and_then(|m| self.mem.write_u64(at + m, value));
        }
        for (to, text, most) in [
            (reason, exit.kind.reason(), 64),
            (msg, &exit.msg, EXIT_MSG_LEN),
        ] {
            let n = text.len().min(most - 1);
            if let Some(bytes) = self.mem.slice_mut(to, n as u64 + 1) {
                bytes[..n].copy_from_slice(&text.as_bytes()[..n]);
                bytes[n] = 0;
            }
        }
        Did::Calls(Told {
            args: [at, 0, 0],
            ..self.tell("exit")
        })
    }

    fn gone(&mut self) {
        self.scx.stage = Stage::Disabled;
        self.scx.tasks.clear();
        self.scx.dsqs.clear();
        self.scx.kicks.clear();
        for rq in &mut self.scx.rqs {
            (rq.on, rq.need_resched) = (On::Idle, false);
        }
    }
}

impl Kernel {
    /// Who joins: all tasks that there are.
    fn scx_entity(&self, task: TaskId) -> Entity {
        let t = &self.st.tasks[task.at()];
        let cgroup = self.st.world.cgroups.get(t.cgroup.at());
        Entity {
            addr: t.addr,
            name: format!("{}[{}]", t.comm, t.pid),
            stage: TaskStage::None,
            cpu: t.cpu.0,
            allowed: u64::MAX >> (64 - self.cpus.len().clamp(1, 64)),
            runnable: false,
            waits: false,
            runnable_at: 0,
            reset_runnable_at: false,
            custody: Custody::None,
            on: None,
            on_priq: false,
            seq: 0,
            direct: None,
            deferred: false,
            exec_start: 0,
            exiting: false,
            selected: t.cpu.0,
            cgroup: cgroup.map_or(0, |c| c.addr),
        }
    }

    /// A scheduler that is not there yet, and what it is made of.
    fn make_scx(&mut self, map: MapId) -> Result<Scx, Refused> {
        let ops = self.read_scx(map)?;
        let layout = Layout::new(&self.layouts).ok_or(Errno::ENOTSUPP)?;
        let cpus = self.cpus.len();
        let all = u64::MAX >> (64 - cpus.clamp(1, 64));
        let mut room = |size: u64| {
            let at = self.st.buffer(&mut self.mem, size as u32);
            let at = at.ok_or(Errno::ENOMEM)?;
            if let Some(bytes) = self.mem.slice_mut(at, size) {
                bytes.fill(0);
            }
            Ok::<u64, Errno>(at)
        };
        let none_mask = room(layout.mask_size)?;
        let (all_mask, idle_mask) = (room(layout.mask_size)?, room(layout.mask_size)?);
        let (mut rqs, mut args) = (Vec::new(), Vec::new());
        for _ in 0..cpus {
            rqs.push(Rq::new(room(layout.rq_size)?));
            args.push(room(ARGS.into())?);
        }
        self.mem.write_u64(all_mask, all);
        let idle_task = |cpu| self.st.tasks[self.swapper(Cpu(cpu)).at()].addr;
        let idle_tasks: Vec<u64> = (0..cpus as u32).map(idle_task).collect();
        let mut doers = Vec::new();
        for cpu in 0..cpus as u32 {
            let made = self.add_task(200_000 + cpu, &format!("scx/{cpu}"), Cpu(cpu), true);
            doers.push(made.map_err(|_| Errno::ENOMEM)?);
        }
        let tasks = self.st.tasks.iter().enumerate();
        let tasks = tasks.filter(|(_, t)| is_scheduled(t));
        let tasks: Vec<TaskId> = tasks.map(|(i, _)| TaskId(i as u32)).collect();
        let tasks: BTreeMap<TaskId, Entity> =
            tasks.into_iter().map(|t| (t, self.scx_entity(t))).collect();
        Ok(Scx {
            map,
            ops,
            stage: Stage::Enabling,
            exit: None,
            initialized: false,
            tasks,
            rqs,
            dsqs: BTreeMap::from([(Q::Global, Dsq::default())]),
            idle: all,
            cgroups: Vec::new(),
            bypass: false,
            counters: Default::default(),
            kicks: Vec::new(),
            paused: BTreeMap::new(),
            layout,
            idle_tasks,
            none_mask,
            all_mask,
            idle_mask,
            args,
            watch_at: self.st.now() + self.read_scx(map)?.timeout / 2,
            doers,
            disables: false,
        })
    }

    /// Puts together what an operation is to do.
    pub(super) fn prepare_scx(&mut self, m: &mut Machine, op: &ScxOp) -> Result<(), Refused> {
        self.check_scx(op)?;
        match *op {
            ScxOp::Enable(map) => {
                self.drop_scx();
                let scx = self.make_scx(map)?;
                for prog in scx.ops.progs() {
                    self.st.refs.get_prog(prog);
                }
                let tasks: Vec<TaskId> = scx.tasks.keys().copied().collect();
                scx.show_idle(&mut self.mem);
                for cpu in 0..scx.cpus() {
                    scx.show_curr(&mut self.mem, cpu, scx.idle_tasks[cpu as usize]);
                }
                m.info = self.exit_info(&scx.layout)?;
                self.st.scx = Some(Shared::new(scx));
                m.then([Act::Ready]);
                for &task in tasks.iter().rev() {
                    m.then([Act::EnableTask(task, false)]);
                }
                for &task in tasks.iter().rev() {
                    m.then([Act::InitTask(task, false)]);
                }
                let cgroups = self.st.world.cgroups.iter().filter(|c| c.online);
                let cgroups: Vec<u64> = cgroups.map(|c| c.addr).collect();
                for &cgroup in cgroups.iter().rev() {
                    m.then([Act::CgroupInit(cgroup)]);
                }
                m.then([Act::Init, Act::Inited]);
            }
            ScxOp::Disable => {
                let Some(scx) = &mut self.st.scx else {
                    return Ok(());
                };
                scx.exits(ScxExitKind::Unreg, 0, String::new());
                scx.disables = true;
                let (layout, scx_cgroups) = (scx.layout.clone(), scx.cgroups.clone());
                let tasks: Vec<TaskId> = scx.tasks.keys().copied().collect();
                m.info = self.exit_info(&layout)?;
                m.then([Act::Exit, Act::Gone]);
                for &cgroup in &scx_cgroups {
                    m.then([Act::CgroupExit(cgroup)]);
                }
                for &task in tasks.iter().rev() {
                    m.then([Act::ExitTask(task)]);
                }
                m.then([Act::Bypass]);
            }
            ScxOp::Wake { task, flags } => {
                let entity = self.scx_entity(task);
                if let Some(scx) = &mut self.st.scx
                    && !scx.tasks.contains_key(&task)
                {
                    scx.tasks.insert(task, entity);
                    m.then([Act::EnableTask(task, true), Act::Wake(task, 4)]);
                    m.then([Act::InitTask(task, true)]);
                    return Ok(());
                }
                m.then([Act::Wake(task, flags | 8)]);
            }
            ScxOp::Schedule => m.then([Act::Lock(m.cpu), Act::Schedule]),
            ScxOp::Tick => m.then([
                Act::Lock(m.cpu),
                Act::Tick,
                Act::Ticked,
                Act::Unlock,
                Act::IrqsOn,
            ]),
            ScxOp::Sleep => m.then([Act::Lock(m.cpu), Act::Block]),
            ScxOp::Yield => m.then([Act::Lock(m.cpu), Act::Yield]),
            ScxOp::Exit(task) => m.then([Act::Leave(task)]),
            ScxOp::SetWeight(task, weight) => m.then([Act::SetWeight(task, weight)]),
            ScxOp::SetCpus(task, mask) => m.then([Act::SetCpus(task, mask)]),
            ScxOp::Take(reason) => {
                if let Some(scx) = &mut self.st.scx {
                    scx.rqs[m.cpu as usize].higher = Some(reason);
                }
                m.then([Act::Lock(m.cpu), Act::Schedule]);
            }
            ScxOp::GiveBack => {
                if let Some(scx) = &mut self.st.scx {
                    scx.rqs[m.cpu as usize].higher = None;
                }
                m.then([Act::Lock(m.cpu), Act::Schedule]);
            }
        }
        Ok(())
    }

    /// Room for a `struct scx_exit_info` and its strings.
    fn exit_info(&mut self, layout: &Layout) -> Result<u64, Errno> {
        let size = layout.info_size + 64 + EXIT_MSG_LEN as u64;
        let at = self.st.buffer(&mut self.mem, size as u32);
        let at = at.ok_or(Errno::ENOMEM)?;
        if let Some(bytes) = self.mem.slice_mut(at, size) {
            bytes.fill(0);
        }
        Ok(at)
    }

    /// What an earlier scheduler left.
    fn drop_scx(&mut self) {
        let Some(scx) = self.st.scx.take() else {
            return;
        };
        for prog in scx.ops.progs() {
            self.st.refs.put_prog(prog);
        }
        let kept = scx.rqs.iter().map(|r| r.addr);
        for at in kept.chain(scx.args.iter().copied()) {
            self.st.obj_drop(&mut self.mem, at);
        }
        for at in [scx.none_mask, scx.all_mask, scx.idle_mask] {
            self.st.obj_drop(&mut self.mem, at);
        }
    }

    /// What the programs of a scheduler's members cannot be.
    pub(super) fn check_scx_ops(&self, map: MapId) -> Result<(), Refused> {
        match self.struct_ops_attached(map)? {
            true => Ok(()),
            false => Err(Errno::ENOENT.into()),
        }
    }
}
