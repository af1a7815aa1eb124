//! A hook that happens: what is attached runs, one program after another.

use super::given::CtxKind;
use super::links::{Hooked, Stage};
use super::redirect::Sent;
use super::verdict::{FLOW_DISSECTOR_CONTINUE, NF_ACCEPT, SK_PASS, TC_ACT_UNSPEC, XDP_PASS};
use super::{Hook, LinkId, LwtHook};
use crate::failure::Failure;
use crate::helper::lwt;
use crate::ids::{CgroupId, Cpu, CtxId, MapId, ProgId, SockId, TaskId};
use crate::kernel::Kernel;
use crate::packet::ETH_HLEN;
use crate::prog::{Arg, ProgCtx, ProgramInput, ProgramOutput};
use crate::run::{Job, Phase, Run, Running};
use crate::shared::Shared;
use crate::state::{AtHook, Cur, Session};
use crate::syscall::{SysOp, SysResult};
use crate::testrun::{PacketKind, Refused};
use crate::trace::{Level, What};
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_vm::STACK_SIZE;
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
    pub(super) no_return: Vec<LinkId>,
    /// The word of each session that began.
    pub(super) sessions: Vec<(LinkId, u64)>,
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

/// What keeps a program from running while another one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guard {
    None,
    /// `bpf_prog_active` of the CPU.
    Cpu,
    /// `prog->active` of the CPU.
    Prog,
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

    fn guard(&self, hooked: &Hooked) -> Guard {
        match (&self.hook, hooked.stage) {
            (Hook::Function { .. }, Stage::Fentry | Stage::FmodRet | Stage::Fexit) => Guard::Prog,
            (Hook::Function { .. } | Hook::Tracepoint { .. } | Hook::PerfEvent(_), _) => Guard::Cpu,
            (Hook::RawTracepoint(_), _) => Guard::Prog,
            _ => Guard::None,
        }
    }

    /// How deep it holds preemption off while a program of it runs.
    pub fn holds_preemption_off(&self) -> u32 {
        self.preempt_off.into()
    }

    /// What keeps others from running while this does.
    fn guards(&self) -> Option<(Guard, ProgId)> {
        let now = self.now.as_ref()?;
        Some((self.guard(now), now.prog))
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

    /// A hook happens on a CPU: what is attached now runs.
    pub(crate) fn begin_fire(&mut self, cpu: Cpu, mut fire: Box<Fire>) -> Result<(), Failure> {
        self.maybe_grace_period();
        fire.task = self.current_task(cpu);
        let by = self.concerned(&fire);
        fire.rest = match &fire.hook {
            _ if fire.instead.is_some() => fire.instead.take().into_iter().collect(),
            Hook::StructOps { map, member } => self.struct_op(*map, member).into(),
            hook => self.st.links.run_list(&self.st.world, hook, by).into(),
        };
        if matches!(
            fire.hook,
            Hook::Lwt {
                what: LwtHook::Seg6local,
                ..
            }
        ) && lwt::arriving(&fire.input.data[ETH_HLEN as usize..]).is_none()
        {
            fire.rest.clear();
            fire.out.result = -i64::from(Errno::EINVAL.0);
        }
        for hooked in &fire.rest {
            self.st.refs.get_prog(hooked.prog);
        }
        let mut words = Vec::new();
        for arg in &fire.input.args {
            let word = self.arg_value(arg).map_err(|e| self.out_of_memory(e))?;
            words.push(Arg::Value(word));
        }
        let params = self.params(&fire.hook);
        if words.len() < params {
            words.resize(params, Arg::Value(0));
        }
        fire.input.args = words;
        self.next_hooked(cpu, fire)
    }

    /// The program that stands for a member of a struct.
    fn struct_op(&self, map: MapId, member: &str) -> Vec<Hooked> {
        let members = self.struct_ops_members(map).unwrap_or_default();
        let found = members.into_iter().find(|m| m.name == member);
        let prog = found.and_then(|m| m.prog);
        let hooked = prog.map(|prog| Hooked {
            prog,
            stage: Stage::Only,
            cookie: 0,
            cgroup: None,
            link: None,
        });
        hooked.into_iter().collect()
    }

    /// The cgroup that `lsm_cgroup` programs run for: that of the socket that the hook is about,
    /// or else of the task.
    fn concerned(&self, fire: &Fire) -> CgroupId {
        let world = &self.st.world;
        let of_task = self.st.tasks[fire.task.at()].cgroup;
        let first = match fire.input.args.first() {
            Some(Arg::Sock(sock)) => Some(*sock),
            _ => fire.input.sock,
        };
        let sock = first.and_then(|s| world.socks.get(s.at()));
        sock.map_or(of_task, |s| {
            s.spec.cgroup.unwrap_or(crate::world::World::ROOT)
        })
    }

    /// How many arguments a hook's programs get at least.
    fn params(&self, hook: &Hook) -> usize {
        use bpfsim_btf::{Kind, Type};
        let name = match hook {
            Hook::Function { name, offset: 0 } => name.clone(),
            Hook::Lsm(name) => format!("bpf_lsm_{name}"),
            _ => return 0,
        };
        let btf = &self.layouts.btf;
        let proto = btf
            .find(&name, Kind::Func)
            .and_then(|id| match btf.ty(id)? {
                Type::Func { proto, .. } => btf.ty(proto),
                _ => None,
            });
        match proto {
            Some(Type::FuncProto(proto)) => proto.params.len(),
            _ => 0,
        }
    }

    /// Begins the next program of a hook, or ends it.
    fn next_hooked(&mut self, cpu: Cpu, mut fire: Box<Fire>) -> Result<(), Failure> {
        while let Some(hooked) = fire.rest.pop_front() {
            let unwanted = matches!(hooked.stage, Stage::MultiReturn | Stage::Return)
                && hooked.link.is_some_and(|l| fire.no_return.contains(&l));
            if unwanted {
                self.st.refs.put_prog(hooked.prog);
                continue;
            }
            if self.is_missed(cpu, &fire, &hooked) {
                if hooked.stage == Stage::MultiEntry {
                    fire.no_return.extend(hooked.link);
                }
                let name = self.st.progs[hooked.prog.at()].name.to_string();
                fire.out.runs.push(FiredRun {
                    prog: hooked.prog,
                    name,
                    output: None,
                });
                self.st.refs.put_prog(hooked.prog);
                continue;
            }
            return self.push_hooked(cpu, fire, hooked);
        }
        self.drop_fire_ctx(&mut fire);
        for (_, cookie) in std::mem::take(&mut fire.sessions) {
            self.st.obj_drop(&mut self.mem, cookie);
        }
        fire.conclude();
        self.end_fire(cpu, fire)
    }

    /// `bpf_prog_active` and `prog->active`
    fn is_missed(&self, cpu: Cpu, fire: &Fire, hooked: &Hooked) -> bool {
        let guard = fire.guard(hooked);
        let runs = &self.cpus[cpu.at()];
        let parked = runs.parked.iter().filter_map(|p| p.run);
        let here = runs.stack.iter().copied().chain(parked);
        let mut runs = here.filter_map(|i| self.runs[i].as_ref());
        runs.any(|r| match (&r.what, guard) {
            (Running::Hook(other), _) => other.guards().is_some_and(|(theirs, prog)| match guard {
                Guard::None => false,
                Guard::Cpu => theirs == Guard::Cpu,
                Guard::Prog => theirs == Guard::Prog && prog == hooked.prog,
            }),
            // Map operations of user space keep them off (`bpf_disable_instrumentation`).
            (Running::Syscall, Guard::Cpu) => {
                let thread = &self.cpus[cpu.at()].thread;
                let call = thread.syscall.as_ref();
                call.is_some_and(|s| s.op.map().is_some())
            }
            _ => false,
        })
    }

    fn push_hooked(
        &mut self,
        cpu: Cpu,
        mut fire: Box<Fire>,
        hooked: Hooked,
    ) -> Result<(), Failure> {
        let kind = fire.ctx_kind(&hooked);
        let kept = |of: CtxKind| of == kind && kind != CtxKind::Sent;
        if fire.ctx.as_ref().is_none_or(|(of, ..)| !kept(*of)) {
            self.drop_fire_ctx(&mut fire);
            let made = match kind {
                CtxKind::Sent => self.make_sent_ctx(cpu, &mut fire, &hooked),
                _ => self.make_fire_ctx(cpu, &fire, &hooked, kind),
            };
            let (r1, ctx) = made.map_err(|e| self.out_of_memory(e))?;
            fire.ctx = Some((kind, r1, ctx));
        }
        let Some((kind, r1, ctx)) = fire.ctx.take() else {
            return Ok(());
        };
        if kind == CtxKind::Args {
            // Behind the arguments is what the function returns.
            let at = r1 + 8 * fire.input.args.len() as u64;
            let returns = match hooked.stage {
                Stage::Fexit => fire.returns as u64,
                _ => 0,
            };
            self.mem.write_u64(at, returns);
        }
        let mut ctx = ctx;
        if let ProgCtx::Fields(fields) = &mut ctx
            && fields.rule.layout.field(CtxSlot::SockoptRetval).is_some()
        {
            // Of socket options the context says it, and shows what others made of it.
            match fire.made {
                0 => fire.returns = (fields.get(CtxSlot::SockoptRetval) as i32).into(),
                _ => fields.set(CtxSlot::SockoptRetval, fire.returns as u32),
            }
        }
        fire.ctx = Some((kind, r1, ProgCtx::Memory));
        fire.made += 1;
        let session = self.session(&mut fire, &hooked);
        let stack = self.take_stack()?;
        let (prog, level, task) = (hooked.prog, fire.level, fire.task);
        let meta = &self.st.progs[prog.at()];
        let (name, in_task) = (meta.name.clone(), level == Level::Task);
        let off = if in_task {
            holds_off(meta)
        } else {
            Off::Nothing
        };
        fire.preempt_off = off == Off::Preemption;
        let at = AtHook {
            cookie: hooked.cookie,
            cgroup: hooked.cgroup,
            session,
            overrides: None,
            seq_overflowed: false,
            scx: None,
            func_ip: match &fire.hook {
                Hook::Function { name, offset: 0 } => self.st.function_address(name),
                Hook::Lsm(name) => self.st.function_address(&format!("bpf_lsm_{name}")),
                _ => 0,
            },
        };
        let cur = Cur {
            id: fire.id.child(fire.made),
            cpu,
            level,
            prog,
            bh_off: off == Off::BottomHalves,
            preempt_off: fire.holds_preemption_off(),
            retval: fire.returns as i32,
            ctx,
            lane: self.lane(cpu, in_task.then_some(task)),
            hook: Some(Box::new(at)),
            scratch: self.stacks[stack as usize] + STACK_SIZE,
            ..Cur::user(task)
        };
        self.event(&cur, What::ProgramStart { name });
        fire.now = Some(hooked);
        self.push(cpu, cur, 0, [r1, 0, 0, 0, 0], stack, Running::Hook(fire));
        Ok(())
    }

    /// What a program that runs at entry and return is told; the word that both see is made at the
    /// entry.
    fn session(&mut self, fire: &mut Fire, hooked: &Hooked) -> Option<Session> {
        use AttachType::{TraceKprobeSession, TraceUprobeSession};
        let attach = self.st.progs[hooked.prog.at()].attach_type;
        let link = hooked.link?;
        if !matches!(attach, TraceKprobeSession | TraceUprobeSession) {
            return None;
        }
        let returns = matches!(hooked.stage, Stage::MultiReturn | Stage::Return);
        let known = fire.sessions.iter().find(|(of, _)| *of == link);
        let cookie = match known {
            Some((_, cookie)) => *cookie,
            None => {
                let cookie = self.st.buffer(&mut self.mem, 8)?;
                self.mem.write_u64(cookie, 0);
                fire.sessions.push((link, cookie));
                cookie
            }
        };
        Some(Session { returns, cookie })
    }

    /// A program of a hook is over.
    pub(crate) fn hooked_ended(&mut self, cpu: Cpu, run: &mut Run, r0: u32) -> Result<(), Failure> {
        let Running::Hook(fire) = std::mem::replace(&mut run.what, Running::Syscall) else {
            return Ok(());
        };
        let mut fire = fire;
        self.drop_kept(run);
        let retval = crate::helper::retval(&run.cur);
        let overrides = run.cur.hook.take().and_then(|h| h.overrides);
        let mut ctx = std::mem::replace(&mut run.cur.ctx, ProgCtx::Memory);
        self.note_redirect(&mut ctx, r0);
        let (Some(hooked), Some((kind, r1, _))) = (fire.now.clone(), fire.ctx.take()) else {
            return Ok(());
        };
        let meta = &self.st.progs[hooked.prog.at()];
        let (prog_type, name) = (meta.prog_type, meta.name.to_string());
        // What a program left of a segment routing header has to be one.
        let spoilt = match &mut ctx {
            ProgCtx::Fields(f) => f.skb.srh.is_some() && !lwt::has_valid_srh(f, &mut self.mem),
            _ => false,
        };
        let mut output = ProgramOutput {
            return_value: r0,
            insns: run.act.insns,
            ..ProgramOutput::default()
        };
        self.read_ctx(prog_type, &fire.input, r1, &ctx, &mut output);
        let seq = std::mem::take(&mut run.cur.seq);
        if !seq.is_empty() {
            self.st.seq_out.extend_from_slice(&seq);
            output.data_out = seq;
        }
        self.follow_redirect(&mut fire, &hooked, &ctx, &mut output);
        if let ProgCtx::Fields(fields) = &mut ctx {
            fields.redirects.clear();
            if fire.hook == Hook::SkLookup {
                let chosen = fields.selected.filter(|_| r0 == SK_PASS);
                fire.selected = chosen.or(fire.selected);
                fields.selected = fire.selected;
            }
        }
        fire.ctx = Some((kind, r1, ctx));
        self.st.refs.put_prog(hooked.prog);
        let of_cgroup = fire.asks_cgroup(&hooked);
        if of_cgroup {
            fire.returns = retval.into();
        }
        let before = fire.rest.clone();
        fire.returned(&hooked, r0);
        if spoilt {
            fire.out.result = -i64::from(Errno::EINVAL.0);
        }
        if let Some(with) = overrides {
            fire.overridden_by(&hooked, with);
        }
        if of_cgroup {
            output.retval = fire.returns as i32;
        }
        fire.out.runs.push(FiredRun {
            prog: hooked.prog,
            name,
            output: Some(output),
        });
        let mut stays = fire.rest.iter().peekable();
        for was in before {
            let same = |h: &&Hooked| (h.link, h.stage) == (was.link, was.stage);
            if stays.next_if(same).is_none() {
                self.st.refs.put_prog(was.prog);
            }
        }
        self.next_hooked(cpu, fire)
    }

    /// A hook is over.
    fn end_fire(&mut self, cpu: Cpu, fire: Box<Fire>) -> Result<(), Failure> {
        let result = SysResult::Fired(Box::new(fire.out));
        let Some(job) = fire.job else {
            let Some(s) = &mut self.cpus[cpu.at()].thread.syscall else {
                return Ok(());
            };
            (s.out, s.phase) = (Some(Shared::new(result)), Phase::Return);
            return self.let_bottom_halves_in(cpu);
        };
        self.results[job] = Some(Shared::new(result));
        if self.window.job == Some(job) {
            self.st.touch(crate::touch::Touch::All);
        }
        if fire.waiter.is_some() {
            self.st.touch(crate::touch::Touch::UserSpace);
        }
        self.user_turns.extend(fire.waiter);
        if fire.level == Level::Nmi {
            self.hop_after_nmi(cpu);
        }
        Ok(())
    }

    /// What was put off for the end of a non-maskable interrupt: the hop of task work, unless
    /// interrupts were off before it.
    fn hop_after_nmi(&mut self, cpu: Cpu) {
        let top = self.cpus[cpu.at()].stack.last();
        let below = top.and_then(|&i| self.runs[i].as_ref());
        if below.is_some_and(|r| r.cur.irq_off > 0 || r.cur.level == Level::Nmi) {
            return;
        }
        while let Some(work) = self.st.cpus[cpu.at()].irq_work.pop_front() {
            self.st.task_work_hop(work);
        }
    }
}

/// What a hook holds off while a task runs a program of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Off {
    Nothing,
    Preemption,
    BottomHalves,
}

fn holds_off(meta: &crate::prog::ProgMeta) -> Off {
    match meta.prog_type {
        _ if meta.sleepable => Off::Nothing,
        ProgType::Kprobe
        | ProgType::Tracepoint
        | ProgType::RawTracepoint
        | ProgType::RawTracepointWritable
        | ProgType::PerfEvent => Off::Preemption,
        ProgType::Tracing if meta.attach_type == AttachType::TraceRawTp => Off::Preemption,
        prog_type => match PacketKind::of(prog_type) {
            Some(PacketKind::L2 | PacketKind::L3) => Off::BottomHalves,
            _ => Off::Nothing,
        },
    }
}
