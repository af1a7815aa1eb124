//! A scheduler comes, with all tasks that there are, and goes.

use super::consts::{EFLAG_INITIALIZED, EXIT_MSG_LEN, deq, kf, ops};
use super::machine::{Act, Cx, Did, Told};
use super::{FIRST_SLICE, On, ScxExit, ScxExitKind, Stage, TaskStage};
use crate::ids::TaskId;
use bpfsim_abi::Errno;

/// A task's weight before anybody changes it: that of nice 0.
const WEIGHT: u32 = 100;

/// `bw_period_us` of a cgroup that nobody has limited.
const PERIOD: u64 = 100_000;

/// `MAX_ERRNO`
const MAX_ERRNO: i32 = 4095;

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
