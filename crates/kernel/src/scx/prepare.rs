//! What a scheduler is made of, and what each operation is to do: the acts that it begins with.

use super::consts::EXIT_MSG_LEN;
use super::machine::{Act, Machine};
use super::{
    Custody, Dsq, Entity, Kicks, Layout, Q, Rq, Scx, ScxExitKind, ScxOp, Stage, TaskStage,
};
use crate::ids::{Cpu, MapId, TaskId};
use crate::kernel::Kernel;
use crate::shared::Shared;
use crate::task::{Task, TaskState};
use crate::testrun::Refused;
use bpfsim_abi::Errno;
use std::collections::BTreeMap;

/// Bytes that members are given beside tasks, for each CPU.
const ARGS: u32 = 256;

/// A task that a test made: its own, those of the kernel and those of user code are of other classes.
pub(super) fn is_scheduled(task: &Shared<Task>) -> bool {
    let gone = matches!(
        task.state,
        TaskState::Exiting | TaskState::Dead | TaskState::Reaped
    );
    task.parent.is_some() && !task.user_code && !gone
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
            kicks: Kicks::default(),
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
            ScxOp::Enable(map) => self.prepare_enable(m, map)?,
            ScxOp::Disable => self.prepare_disable(m)?,
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

    fn prepare_enable(&mut self, m: &mut Machine, map: MapId) -> Result<(), Refused> {
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
        Ok(())
    }

    fn prepare_disable(&mut self, m: &mut Machine) -> Result<(), Refused> {
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
