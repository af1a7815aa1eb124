//! The programs of a hook that happens run one after another: which are missed, what each is given, what
//! becomes of what it returns.

use super::fire::{Fire, FiredRun};
use super::given::CtxKind;
use super::links::{Hooked, Stage};
use super::stage::is_session;
use super::verdict::SK_PASS;
use super::{Hook, LwtHook};
use crate::failure::Failure;
use crate::helper::lwt;
use crate::ids::{CgroupId, Cpu, MapId, ProgId};
use crate::kernel::Kernel;
use crate::ksym::user_address;
use crate::packet::ETH_HLEN;
use crate::prog::{Arg, ProgCtx, ProgramOutput};
use crate::run::{Phase, Run, Running};
use crate::shared::Shared;
use crate::state::{AtHook, Cur, Session};
use crate::syscall::SysResult;
use crate::testrun::PacketKind;
use crate::trace::{Level, What};
use bpfsim_abi::ctx::{CtxSlot, PT_REGS_NAMES};
use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_vm::STACK_SIZE;
use std::collections::VecDeque;

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
    fn guard(&self, hooked: &Hooked) -> Guard {
        match (&self.hook, hooked.stage) {
            (Hook::Function { .. }, Stage::Fentry | Stage::FmodRet | Stage::Fexit) => Guard::Prog,
            (Hook::Function { .. } | Hook::Tracepoint { .. } | Hook::PerfEvent(_), _) => Guard::Cpu,
            (Hook::RawTracepoint(_), _) => Guard::Prog,
            _ => Guard::None,
        }
    }

    /// What keeps others from running while this does.
    fn guards(&self) -> Option<(Guard, ProgId)> {
        let now = self.now.as_ref()?;
        Some((self.guard(now), now.prog))
    }
}

impl Kernel {
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
        let process = self.st.tasks[fire.task.at()].tgid;
        fire.rest.retain(|h| self.st.links.runs_in(h, process));
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
        let (r1, ctx) = self.ctx_of_hooked(cpu, &mut fire, &hooked)?;
        fire.made += 1;
        let session = self.session(&mut fire, &hooked);
        let stack = self.take_stack()?;
        let (prog, level, task) = (hooked.prog, fire.level, fire.task);
        let meta = &self.st.progs[prog.at()];
        let (name, in_task) = (meta.name.clone(), level == Level::Task);
        let off = if in_task {
            holds_off(meta, &fire.hook)
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
            func_ip: self.func_ip(&fire),
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

    /// What `bpf_get_func_ip` gives at a hook. Of user programs this is where the probe is, which registers that
    /// the test has given tell.
    fn func_ip(&self, fire: &Fire) -> u64 {
        let ip = PT_REGS_NAMES.iter().position(|&n| n == "ip").unwrap_or(0);
        let given = fire.input.ctx.chunks_exact(8).nth(ip);
        let given = given.and_then(|ip| Some(u64::from_le_bytes(ip.try_into().ok()?)));
        let user = |binary: &str, name: &str, offset| match given {
            Some(ip) if ip != 0 => ip,
            _ => user_address(binary, name).wrapping_add(offset),
        };
        match &fire.hook {
            Hook::Function { name, offset: 0 } => self.st.function_address(name),
            Hook::Lsm(name) => self.st.function_address(&format!("bpf_lsm_{name}")),
            Hook::UserFunction {
                binary,
                name,
                offset,
            } => user(binary, name, *offset),
            Hook::Usdt {
                binary,
                provider,
                name,
            } => user(binary, &format!("{provider}:{name}"), 0),
            _ => 0,
        }
    }

    /// What a program is given: as the one before it left it, or made anew. R1, and what is to be known of it.
    fn ctx_of_hooked(
        &mut self,
        cpu: Cpu,
        fire: &mut Fire,
        hooked: &Hooked,
    ) -> Result<(u64, ProgCtx), Failure> {
        let kind = fire.ctx_kind(hooked);
        let kept = |of: CtxKind| of == kind && kind != CtxKind::Sent;
        if fire.ctx.as_ref().is_none_or(|(of, ..)| !kept(*of)) {
            self.drop_fire_ctx(fire);
        }
        let made = match (fire.ctx.take(), kind) {
            (Some((_, r1, ctx)), _) => Ok((r1, ctx)),
            (None, CtxKind::Sent) => self.make_sent_ctx(cpu, fire, hooked),
            (None, _) => self.make_fire_ctx(cpu, fire, hooked, kind),
        };
        let (r1, mut ctx) = made.map_err(|e| self.out_of_memory(e))?;
        if kind == CtxKind::Args {
            // Behind the arguments is what the function returns.
            let at = r1 + 8 * fire.input.args.len() as u64;
            let returns = match hooked.stage {
                Stage::Fexit => fire.returns as u64,
                _ => 0,
            };
            self.mem.write_u64(at, returns);
        }
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
        Ok((r1, ctx))
    }

    /// What a program that runs at entry and return is told; the word that both see is made at the
    /// entry.
    fn session(&mut self, fire: &mut Fire, hooked: &Hooked) -> Option<Session> {
        let attach = self.st.progs[hooked.prog.at()].attach_type;
        let link = hooked.link?;
        if !is_session(attach) {
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
        let Running::Hook(mut fire) = std::mem::replace(&mut run.what, Running::Syscall) else {
            return Ok(());
        };
        self.drop_kept(run);
        let retval = crate::helper::retval(&run.cur);
        let overrides = run.cur.hook.take().and_then(|h| h.overrides);
        let mut ctx = std::mem::replace(&mut run.cur.ctx, ProgCtx::Memory);
        if let ProgCtx::Fields(fields) = &mut ctx {
            self.note_redirect(fields, r0);
        }
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
        let seq = std::mem::take(&mut *run.cur.seq);
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
        self.put_left_out(before, &fire.rest);
        self.next_hooked(cpu, fire)
    }

    /// Gives back the programs that were to run and now are not.
    fn put_left_out(&mut self, before: VecDeque<Hooked>, rest: &VecDeque<Hooked>) {
        let mut stays = rest.iter().peekable();
        for was in before {
            let same = |h: &&Hooked| (h.link, h.stage) == (was.link, was.stage);
            if stays.next_if(same).is_none() {
                self.st.refs.put_prog(was.prog);
            }
        }
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

fn holds_off(meta: &crate::prog::ProgMeta, hook: &Hook) -> Off {
    match meta.prog_type {
        _ if meta.sleepable => Off::Nothing,
        // A task that came to a breakpoint can be preempted (`uprobe_notify_resume`).
        _ if matches!(hook, Hook::UserFunction { .. } | Hook::Usdt { .. }) => Off::Nothing,
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
