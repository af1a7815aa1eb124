//! A hook that happens: what is attached runs, one program after another.

use super::given::CtxKind;
use super::links::Hooked;
use super::redirect::Sent;
use super::verdict::{FLOW_DISSECTOR_CONTINUE, NF_ACCEPT, SK_PASS, TC_ACT_UNSPEC, XDP_PASS};
use super::{Hook, LinkId};
use crate::failure::Failure;
use crate::ids::{Cpu, CtxId, ProgId, SockId, TaskId};
use crate::kernel::Kernel;
use crate::packet::ETH_HLEN;
use crate::prog::{ProgCtx, ProgramInput, ProgramOutput};
use crate::run::Job;
use crate::shared::Shared;
use crate::syscall::SysOp;
use crate::testrun::Refused;
use crate::trace::Level;
use bpfsim_abi::{AttachType, Errno};
use std::collections::VecDeque;

/// What came of a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// The programs that were to run, in order.
    pub runs: Vec<FiredRun>,
    /// What the kernel goes on with:
    ///
    /// - functions, hooks of security modules, members of structs: what they return to their
    ///   caller;
    /// - `xdp`, `tc`, netfilter, sockets, sockmaps, `sk_lookup`, `flow_dissector`: the verdict,
    ///   without any program `XDP_PASS`, `TC_ACT_UNSPEC`, `NF_ACCEPT`, all of the packet, `SK_PASS`,
    ///   `SK_PASS` and `BPF_FLOW_DISSECTOR_CONTINUE`;
    /// - cgroups: 0 or an errno below 0; of packets that are sent `NET_XMIT_*`;
    /// - routes: `BPF_OK` (0), `BPF_REDIRECT`, `BPF_LWT_REROUTE`, or below 0 the errno that the packet
    ///   is dropped with;
    /// - tracepoints and perf events: 1 if the event is recorded, 0 if not;
    /// - all others: 0.
    pub result: i64,
}

/// A program that a hook was to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredRun {
    /// The program.
    pub prog: ProgId,
    /// Its name.
    pub name: String,
    /// What it gave. None for one that was missed: it, or one like it, executed on this CPU
    /// already (`bpf_prog_active`, `prog->active`).
    pub output: Option<ProgramOutput>,
}

/// A hook that happens.
#[derive(Clone)]
pub(crate) struct Fire {
    pub id: CtxId,
    pub hook: Hook,
    pub level: Level,
    pub input: ProgramInput,
    /// Where the result goes; a system call's goes with it.
    pub(super) job: Option<usize>,
    /// The user code that waits for it.
    pub(super) waiter: Option<TaskId>,
    pub(super) task: TaskId,
    pub(super) made: u32,
    pub(super) rest: VecDeque<Hooked>,
    /// The program that runs, and what it is given.
    pub(super) now: Option<Hooked>,
    pub(super) ctx: Option<(CtxKind, u64, ProgCtx)>,
    /// The function returns this by now.
    pub(super) returns: i64,
    /// The body of the function is not executed.
    pub(super) overridden: bool,
    /// Congestion was notified (`BPF_RET_SET_CN`).
    pub(super) congested: bool,
    /// While a program of it runs it is not preempted.
    pub(super) preempt_off: bool,
    /// The socket that programs of `sk_lookup` chose last.
    pub(super) selected: Option<SockId>,
    /// Those whose return is not wanted: sessions, by their own will, and probes of returns that
    /// were not set, since another result took the function's place before.
    pub(super) no_return: Vec<(LinkId, usize)>,
    /// The word of each session that began.
    pub(super) sessions: Vec<((LinkId, usize), u64)>,
    /// What waits for programs of maps that it was redirected to.
    pub(super) sent: VecDeque<Sent>,
    /// What runs, where that is not what is attached.
    pub(super) instead: Option<Hooked>,
    pub(super) out: Fired,
}

/// A hook that happens in an interrupt.
#[derive(Clone)]
pub(crate) struct Interrupt {
    /// Not before this virtual time, in ns.
    pub at: u64,
    pub fire: Box<Fire>,
}

impl Fire {
    pub(super) fn new(id: CtxId, hook: Hook, input: ProgramInput) -> Fire {
        let level = input.level.unwrap_or(hook.level());
        let result = match hook {
            Hook::Xdp { .. } => XDP_PASS,
            Hook::Tc { .. } => TC_ACT_UNSPEC.into(),
            Hook::Netfilter { .. } => NF_ACCEPT,
            Hook::FlowDissector => FLOW_DISSECTOR_CONTINUE,
            Hook::SkLookup | Hook::SockMap { .. } => SK_PASS.into(),
            Hook::Tracepoint { .. } | Hook::PerfEvent(_) => 1,
            Hook::Sock(_) => input.data.len() as i64,
            _ => 0,
        };
        Fire {
            id,
            level,
            job: None,
            waiter: None,
            task: TaskId(0),
            made: 0,
            rest: VecDeque::new(),
            now: None,
            ctx: None,
            returns: match hook {
                Hook::Cgroup { .. } => input.retval.into(),
                _ => input.returns as i64,
            },
            overridden: false,
            congested: false,
            preempt_off: false,
            selected: None,
            sent: VecDeque::new(),
            instead: None,
            no_return: Vec::new(),
            sessions: Vec::new(),
            out: Fired {
                runs: Vec::new(),
                result,
            },
            hook,
            input,
        }
    }

    /// How deep it holds preemption off while a program of it runs.
    pub fn holds_preemption_off(&self) -> u32 {
        self.preempt_off.into()
    }
}

impl Kernel {
    /// Makes a hook happen on a CPU: in an interrupt if that is where Linux comes to it (or where
    /// the input says so), otherwise in a new task, on CPU 0 in the test's own. It begins when the
    /// simulation goes on, an interrupt not before `at`, a virtual time in ns.
    pub fn fire(
        &mut self,
        cpu: Cpu,
        hook: Hook,
        input: ProgramInput,
        at: u64,
    ) -> Result<Job, bpfsim_vm::MemError> {
        let cpu = self.clamp(cpu);
        let in_task = input.level.unwrap_or(hook.level()) == Level::Task;
        let task = match (in_task, cpu) {
            (true, Cpu(0)) | (false, _) => self.main_task(),
            (true, _) => self.new_task(cpu)?,
        };
        Ok(match in_task {
            true => self.enqueue(task, SysOp::Fire { hook, input }),
            false => self.raise(task, cpu, hook, input, at, false),
        })
    }

    /// [`Kernel::fire`] by the user code of a task, which has its next turn when it is over.
    pub(crate) fn fire_by(&mut self, task: TaskId, hook: Hook, input: ProgramInput) -> Job {
        let cpu = self.st.tasks[task.at()].cpu;
        self.raise(task, cpu, hook, input, 0, true)
    }

    /// An interrupt is to come to a CPU.
    fn raise(
        &mut self,
        by: TaskId,
        cpu: Cpu,
        hook: Hook,
        input: ProgramInput,
        at: u64,
        waits: bool,
    ) -> Job {
        self.note_call(&(cpu, &hook, &input, at));
        self.results.push(None);
        let job = self.results.len() - 1;
        let t = &mut self.st.tasks[by.at()];
        t.made += 1;
        let id = t.id.child(t.made);
        if let Err(refused) = self.check_fire(&hook, &input) {
            self.results[job] = Some(Shared::new(refused.into()));
            if waits {
                self.user_turns.push_back(by);
            }
            return Job(job);
        }
        let mut fire = Box::new(Fire::new(id, hook, input));
        fire.job = Some(job);
        fire.waiter = waits.then_some(by);
        let at = at.max(self.st.now());
        self.cpus[cpu.at()]
            .interrupts
            .push_back(Interrupt { at, fire });
        Job(job)
    }

    /// What is refused before anything runs.
    pub(crate) fn check_fire(&self, hook: &Hook, input: &ProgramInput) -> Result<(), Refused> {
        /// A page less what lies before and behind a packet.
        const MOST: usize = 4096 - 256 - 320;
        let world = &self.st.world;
        let packet = match hook {
            Hook::Xdp { ifindex } | Hook::Tc { ifindex, .. } => {
                if world.netdev(*ifindex).is_none() {
                    return Err(Errno::ENODEV.into());
                }
                true
            }
            Hook::Cgroup { cgroup, what } => {
                let cgroup = world.cgroups.get(cgroup.at());
                if !cgroup.is_some_and(|c| c.online) {
                    return Err(Errno::ENODEV.into());
                }
                matches!(
                    what,
                    AttachType::CgroupInetIngress | AttachType::CgroupInetEgress
                )
            }
            Hook::Sock(sock) => {
                if !world.socks.get(sock.at()).is_some_and(|s| s.open) {
                    return Err(Errno::ENOTCONN.into());
                }
                true
            }
            Hook::FlowDissector | Hook::Netfilter { .. } | Hook::Lwt { .. } => true,
            Hook::StructOps { map, member } => {
                if !self.struct_ops_attached(*map)? {
                    return Err(Errno::ENOENT.into());
                }
                let members = self.struct_ops_members(*map)?;
                if members.iter().all(|m| m.name != *member) {
                    return Err(Errno::EINVAL.into());
                }
                false
            }
            _ => false,
        };
        let sock = input.sock.is_none_or(|s| s.at() < world.socks.len());
        let fits = (ETH_HLEN as usize..=MOST).contains(&input.data.len());
        match sock && (fits || !packet) && input.data.len() <= 1 << 16 && input.args.len() <= 24 {
            true => Ok(()),
            false => Err(Errno::EINVAL.into()),
        }
    }

    /// The system call of a task comes to a hook.
    pub(crate) fn fire_in_syscall(
        &mut self,
        cpu: Cpu,
        id: CtxId,
        hook: Hook,
        input: ProgramInput,
    ) -> Result<(), Failure> {
        self.begin_fire(cpu, Box::new(Fire::new(id, hook, input)))
    }
}
