//! The verifier's own data (`struct bpf_verifier_env`) and its outermost steps (`bpf_check`).

use std::rc::Rc;

use bpfsim_abi::helper::{Caller, Caps, Proto};
use bpfsim_abi::{Errno, Func, ProgType};
use bpfsim_btf::{Btf, TypeId};
use bpfsim_isa::{Insn, uapi::*};
use hashbrown::HashMap;

use crate::explain::trace::{Mark, Trace};
use crate::kfunc::Kfunc;
use crate::liveness::Liveness;
use crate::log::{Log, STATS, verbose};
use crate::prune::{Explored, Scc};
use crate::refusal::{Refused, quiet, refusal, reject};
use crate::reg::{BTF_KERNEL, BTF_PROG, Reg, ty};
use crate::state::{Frame, MAIN, State};
use crate::{
    Env, MapDesc, Options, Outcome, ProgramToVerify, Stats, Verdict, Verified, record::Record,
};

/// Why the walk ends early.
#[derive(Debug, PartialEq)]
pub(crate) enum Stop {
    /// Linux refuses.
    Refused(Refused),
    /// We do not know.
    Unsupported(String),
}

pub(crate) type R<T = ()> = Result<T, Stop>;

/// `BPF_MAX_SUBPROGS`
pub(crate) const MAX_SUBPROGS: usize = 256;
/// `MAX_BPF_STACK`
pub(crate) const MAX_STACK: i32 = 512;
/// `BPF_MAX_VAR_OFF`
pub(crate) const MAX_VAR_OFF: i64 = 1 << 29;

/// `BPF_*` bits of special fields.
#[allow(missing_docs)]
pub(crate) mod field {
    pub const SPIN_LOCK: u32 = 1;
    pub const TIMER: u32 = 2;
    pub const KPTR: u32 = 4 | 8 | 16;
    pub const LIST_HEAD: u32 = 32;
    pub const LIST_NODE: u32 = 64;
    pub const RB_ROOT: u32 = 128;
    pub const RB_NODE: u32 = 256;
    pub const REFCOUNT: u32 = 512;
    pub const WORKQUEUE: u32 = 1024;
    pub const UPTR: u32 = 2048;
    pub const RES_SPIN_LOCK: u32 = 4096;
    pub const TASK_WORK: u32 = 8192;
}

/// What is known of an instruction (`struct bpf_insn_aux_data`).
#[derive(Clone, Copy, Default)]
pub(crate) struct Aux {
    pub ptr_type: u32,
    pub prune_point: bool,
    pub jmp_point: bool,
    pub force_checkpoint: bool,
    pub calls_callback: bool,
    pub is_iter_next: bool,
    pub seen: bool,
    pub fastcall_pattern: bool,
    pub fastcall_spills: u8,
    pub decoded: bool,
    pub live_before: u16,
    pub scc: u32,
    /// The map that a helper takes, plus one.
    pub map: u32,
    /// A kernel variable: type, BTF or size, type id.
    pub var: (u32, u32, u32),
    pub loop_inline: Option<(bool, u32)>,
}

/// What a subprogram takes (`struct bpf_subprog_arg_info`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arg {
    Ctx,
    Anything,
    Dynptr,
    Mem { size: u32, flags: u32 },
    Btf { id: u32, flags: u32 },
    Arena,
}

/// A subprogram (`struct bpf_subprog_info` and `struct bpf_func_info_aux`).
#[derive(Clone, Default)]
pub(crate) struct Subprog {
    pub start: usize,
    pub stack_depth: i32,
    pub postorder_start: usize,
    pub has_tail_call: bool,
    pub has_ld_abs: bool,
    pub changes_pkt: bool,
    pub might_sleep: bool,
    pub is_cb: bool,
    pub is_async_cb: bool,
    pub is_exception_cb: bool,
    pub fastcall_off: i32,
    pub keep_fastcall: bool,
    pub args: Option<Rc<[Arg]>>,
    pub global: bool,
    pub unreliable: bool,
    pub called: bool,
    pub verified: bool,
    pub type_id: TypeId,
}

/// A branch that waits (`struct bpf_verifier_stack_elem`).
pub(crate) struct Elem {
    pub state: State,
    pub insn: i32,
    pub prev: i32,
    pub log_pos: usize,
    pub mark: Option<Box<Mark>>,
}

pub(crate) struct Verifier<'a> {
    pub prog: &'a ProgramToVerify<'a>,
    pub env: &'a Env<'a>,
    pub maps: &'a [MapDesc],
    pub opt: &'a Options,
    pub prog_type: ProgType,
    pub insns: Vec<Insn>,
    pub aux: Vec<Aux>,
    /// With one more at the end, that starts where the program ends.
    pub subprogs: Vec<Subprog>,
    pub subprog_cnt: usize,
    pub postorder: Vec<u32>,
    pub exception_cb: usize,
    pub log: Log,
    pub cur: State,
    pub stack: Vec<Elem>,
    pub pool: Vec<State>,
    pub explored: Explored,
    pub scc: Scc,
    pub live: Liveness,
    pub insn_idx: i32,
    pub prev_insn_idx: i32,
    pub has_hist_ent: bool,
    pub insn_processed: u32,
    /// `aux->max_ctx_offset`: how much of the context is accessed, bytes.
    pub max_ctx_offset: u32,
    pub buffers: crate::Buffers,
    /// `prog->enforce_expected_attach_type`
    pub enforce_attach: bool,
    pub prev_insn_processed: u32,
    pub jmps_processed: u32,
    pub prev_jmps_processed: u32,
    pub id_gen: u32,
    pub stats: Stats,
    pub kfuncs: HashMap<u32, Rc<Kfunc>>,
    pub protos: Vec<Option<Option<&'static Proto>>>,
    pub records: HashMap<(u32, u32), Option<Rc<Record>>>,
    pub map_records: Vec<Option<Rc<Record>>>,
    pub attach: crate::attach::Attach<'a>,
    pub arena_map: Option<usize>,
    /// Whether it came as far as the kernel's rewriting.
    pub rewritten: bool,
    /// Where in the log lines begin that go before a refusal of this instruction.
    pub said_from: Option<usize>,
    pub observer: Option<Box<crate::observe::Observer>>,
    /// The way of the walk, where somebody wants it told.
    pub trace: Option<Box<Trace>>,
}

/// The helper with this number.
pub(crate) fn func(number: u32) -> Option<Func> {
    Func::from_u32(number)
}

impl<'a> Verifier<'a> {
    pub fn new(prog: &'a ProgramToVerify<'a>, env: &'a Env<'a>, opt: &'a Options) -> Self {
        let len = prog.insns.len();
        Verifier {
            prog,
            env,
            maps: env.maps,
            opt,
            prog_type: prog.prog_type,
            insns: prog.insns.to_vec(),
            aux: vec![Aux::default(); len],
            subprogs: Vec::new(),
            subprog_cnt: 0,
            postorder: Vec::new(),
            exception_cb: 0,
            log: Log {
                level: opt.log_level,
                scratched_regs: 0,
                ..Log::default()
            },
            cur: State::default(),
            stack: Vec::new(),
            pool: Vec::new(),
            explored: Explored::new(len),
            scc: Scc::default(),
            live: Liveness::default(),
            insn_idx: 0,
            prev_insn_idx: -1,
            has_hist_ent: false,
            insn_processed: 0,
            max_ctx_offset: 0,
            buffers: Default::default(),
            enforce_attach: false,
            prev_insn_processed: 0,
            jmps_processed: 0,
            prev_jmps_processed: 0,
            id_gen: 0,
            stats: Stats::default(),
            kfuncs: HashMap::new(),
            protos: vec![None; Func::ALL.len()],
            records: HashMap::new(),
            map_records: Vec::new(),
            attach: Default::default(),
            arena_map: None,
            rewritten: false,
            said_from: None,
            observer: None,
            trace: None,
        }
    }

    pub fn run(self) -> Outcome {
        self.run_observed().0
    }

    /// [`Verifier::run`], and what was observed.
    pub fn run_observed(mut self) -> (Outcome, Option<Box<crate::observe::Observer>>) {
        let result = self.check();
        self.stats.insns_processed = self.insn_processed;
        let insn = usize::try_from(self.insn_idx).ok();
        let verdict = match result {
            Ok(()) => Verdict::Accept(Verified {
                max_ctx_offset: self.max_ctx_offset,
                buffers: self.buffers,
                enforce_attach: self.enforce_attach,
                ptr_types: self.aux.iter().map(|a| a.ptr_type).collect(),
                seen: self.aux.iter().map(|a| a.seen).collect(),
                stack_depths: self.subprogs[..self.subprog_cnt]
                    .iter()
                    .map(|s| s.stack_depth as u32)
                    .collect(),
            }),
            Err(Stop::Refused(refused)) => {
                let lines = self.log.text.lines().rev();
                let message = lines
                    .map(str::trim)
                    .find(|l| !l.is_empty() && !l.starts_with("; "))
                    .unwrap_or("")
                    .to_owned();
                Verdict::Reject {
                    errno: refused.errno,
                    message,
                    insn,
                    row: refused.row(),
                }
            }
            Err(Stop::Unsupported(what)) => Verdict::Unsupported { what, insn },
        };
        self.rewritten |= matches!(verdict, Verdict::Accept(_));
        self.print_stats();
        let outcome = Outcome {
            verdict,
            stats: self.stats,
            log: self.log.text,
        };
        (outcome, self.observer)
    }

    /// `print_verification_stats`, without the time.
    fn print_stats(&mut self) {
        if self.log.level & STATS != 0 {
            let depths: Vec<String> = match self.rewritten {
                true => self.final_depths(),
                false => {
                    let subs = self.subprogs.iter().take(self.subprog_cnt);
                    subs.map(|s| s.stack_depth.to_string()).collect()
                }
            };
            verbose!(self, "stack depth {}\n", depths.join("+"));
        }
        if self.log.level != 0 {
            let s = self.stats;
            verbose!(
                self,
                "processed {} insns (limit 1000000) max_states_per_insn {} total_states {} peak_states {} mark_read 0\n",
                s.insns_processed,
                s.max_states_per_insn,
                s.total_states,
                s.peak_states
            );
        }
    }

    /// Depths of the stack once the kernel has rewritten what it took: functions that no way reaches
    /// are gone, inlined loops keep three words and `may_goto` two.
    fn final_depths(&self) -> Vec<String> {
        let mut depths = Vec::new();
        for sub in 0..self.subprog_cnt {
            let range = self.subprogs[sub].start..self.subprogs[sub + 1].start;
            let reached = |i: &usize| self.aux[*i].seen;
            if sub != 0 && !range.clone().any(|i| reached(&i)) {
                continue;
            }
            let mut depth = self.subprogs[sub].stack_depth;
            let inlined = |i: usize| matches!(self.aux[i].loop_inline, Some((true, _)));
            if range.clone().filter(reached).any(inlined) {
                depth = (depth + 7) / 8 * 8 + 24;
            }
            let jumps = |i: usize| {
                let to = i as i64 + 1 + i64::from(self.insns[i].off);
                let between = usize::try_from(to).unwrap_or(0).min(self.insns.len());
                crate::cfg::is_may_goto(self.insns[i])
                    && (to <= i as i64 || (i + 1..between).any(|i| self.aux[i].seen))
            };
            if range.filter(reached).any(jumps) {
                depth += 16;
            }
            depths.push(depth.to_string());
        }
        depths
    }

    pub fn check(&mut self) -> R {
        if self.opt.unprivileged {
            return self.unsupported("programs loaded without CAP_BPF and CAP_PERFMON");
        }
        if self.insns.is_empty() || self.insns.len() > BPF_COMPLEXITY_LIMIT_INSNS {
            return Err(quiet!(
                self,
                E2BIG,
                "no instructions, or more than a million"
            ));
        }
        self.setup()?;
        self.check_cfg()?;
        self.compute_postorder();
        self.check_attach()?;
        // What may be called depends on the target.
        self.protos.fill(None);
        self.compute_scc();
        self.compute_live_registers();
        self.mark_fastcall_patterns();
        self.observe_everywhere();
        self.insn_idx = 0;
        self.check_common(0)?;
        self.check_subprog_bodies()?;
        self.apply_fastcall_depths();
        self.check_max_stack_depth()?;
        self.check_after_walk()
    }

    pub fn unsupported<T>(&self, what: impl Into<String>) -> R<T> {
        Err(Stop::Unsupported(what.into()))
    }

    /// `verifier_bug`: what the kernel says of itself.
    pub fn bug<T>(&mut self, what: std::fmt::Arguments<'_>) -> R<T> {
        reject!(self, EFAULT, "verifier bug: {what}\n")
    }

    /// `do_check_subprogs`: global functions that somebody calls.
    fn check_subprog_bodies(&mut self) -> R {
        if self.prog.funcs.is_empty() {
            return Ok(());
        }
        if self.exception_cb != 0 {
            self.subprogs[self.exception_cb].called = true;
        }
        loop {
            let mut more = false;
            for i in 1..self.subprog_cnt {
                let sub = &self.subprogs[i];
                if !sub.global || !sub.called || sub.verified {
                    continue;
                }
                self.insn_idx = sub.start as i32;
                self.check_common(i)?;
                if self.log.insns() {
                    let name = self.subprog_name(i).to_owned();
                    verbose!(
                        self,
                        "Func#{i} ('{name}') is safe for any args that match its prototype\n"
                    );
                }
                self.subprogs[i].verified = true;
                more = true;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// `do_check_common`: one function from its entry.
    fn check_common(&mut self, subprog: usize) -> R {
        self.log.prev_line = None;
        let start = self.subprogs[subprog].start as i32;
        self.cur = State {
            frames: vec![Frame::new(MAIN, 0, subprog as u32)],
            branches: 1,
            in_sleepable: self.prog.sleepable,
            first_insn_idx: start,
            last_insn_idx: -1,
            ..State::default()
        };
        self.log.scratch_all();
        if subprog != 0 || self.prog_type == ProgType::Ext {
            self.enter_global(subprog)?;
        } else {
            if !self.prog.funcs.is_empty() {
                let ok = match self.func_args(0) {
                    Ok(args) => *args == [Arg::Ctx],
                    Err(Stop::Refused(_)) => false,
                    Err(other) => return Err(other),
                };
                if !ok {
                    self.subprogs[0].unreliable = true;
                }
            }
            self.cur.frames[0].regs[1] = Reg::pointer(ty::CTX);
        }
        if subprog == 0 && self.prog_type == ProgType::StructOps {
            self.acquire_struct_ops_refs();
        }
        if let Some(trace) = &mut self.trace {
            **trace = Trace::default();
        }
        self.do_check()?;
        if let Some(trace) = &mut self.trace {
            trace.done = true;
        }
        if !self.log.level2() {
            self.log.text.clear();
        }
        self.free_states();
        Ok(())
    }

    /// The registers of a function that is verified by its prototype alone.
    fn enter_global(&mut self, subprog: usize) -> R {
        let name = self.subprog_name(subprog).to_owned();
        verbose!(self, "Validating {name}() func#{subprog}...\n");
        let args = self.func_args(subprog)?;
        if self.subprogs[subprog].is_exception_cb {
            self.cur.frames[0].in_exception = true;
            if *args != [Arg::Anything] {
                reject!(
                    self,
                    EINVAL,
                    "exception cb only supports single integer argument\n"
                );
            }
        }
        for (i, arg) in args.iter().enumerate() {
            let reg = match *arg {
                Arg::Ctx => Reg::pointer(ty::CTX),
                Arg::Anything | Arg::Arena => Reg::UNKNOWN,
                Arg::Dynptr => {
                    self.id_gen += 1;
                    Reg {
                        id: self.id_gen,
                        a: 1,
                        b: 1,
                        ..Reg::pointer(ty::DYNPTR)
                    }
                }
                Arg::Mem { size, flags } => {
                    let mut reg = Reg::pointer(ty::MEM | flags);
                    reg.a = size;
                    if flags & ty::MAYBE_NULL != 0 {
                        self.id_gen += 1;
                        reg.id = self.id_gen;
                    }
                    reg
                }
                Arg::Btf { id, flags } => {
                    self.id_gen += 1;
                    Reg {
                        a: BTF_KERNEL,
                        b: id,
                        id: self.id_gen,
                        ..Reg::pointer(ty::BTF_ID | flags)
                    }
                }
            };
            self.cur.frames[0].regs[i + 1] = reg;
        }
        Ok(())
    }

    pub fn btf(&self, which: u32) -> Option<&'a Btf> {
        match which {
            BTF_KERNEL => Some(self.env.kernel),
            BTF_PROG => self.prog.btf,
            _ => None,
        }
    }

    pub fn subprog_name(&self, subprog: usize) -> &'a str {
        let id = self.subprogs.get(subprog).map(|s| s.type_id);
        match (self.prog.btf, id) {
            (Some(btf), Some(id)) if !self.prog.funcs.is_empty() => btf.name_of(id),
            _ => "",
        }
    }

    /// `find_subprog`
    pub fn find_subprog(&self, start: i64) -> Option<usize> {
        let start = usize::try_from(start).ok()?;
        self.subprogs[..self.subprog_cnt]
            .binary_search_by_key(&start, |s| s.start)
            .ok()
    }

    /// `bpf_find_containing_subprog`
    pub fn containing_subprog(&self, insn: usize) -> usize {
        let subs = &self.subprogs[..self.subprog_cnt];
        subs.partition_point(|s| s.start <= insn).saturating_sub(1)
    }

    /// `get_helper_proto`; `None` where this program may not call it.
    pub fn helper_proto(&mut self, number: i32) -> Option<&'static Proto> {
        let func = func(u32::try_from(number).ok()?)?;
        if self.env.refused_helpers.contains(&func) {
            return None;
        }
        let slot = self.protos.get(number as usize).copied()?;
        if let Some(known) = slot {
            return known;
        }
        let caller = Caller {
            prog_type: self.prog_type,
            attach_type: self.prog.attach_type,
            target: match self.attach.name {
                // Its sockets take and give the same options as TCP's.
                Some("bpf_iter_unix") => Some("bpf_iter_tcp"),
                name => name,
            },
            member: self.attach.member,
            sleepable: self.prog.sleepable,
            caps: Caps::all(),
        };
        let proto = bpfsim_abi::helper::proto(func, &caller);
        self.protos[number as usize] = Some(proto);
        proto
    }

    pub fn regs(&self) -> &[Reg; 11] {
        &self.cur.top().regs
    }

    pub fn regs_mut(&mut self) -> &mut [Reg; 11] {
        &mut self.cur.top_mut().regs
    }

    pub fn reg(&self, regno: usize) -> Reg {
        self.cur.top().regs[regno]
    }

    pub fn new_id(&mut self) -> u32 {
        self.id_gen += 1;
        self.id_gen
    }

    /// The frame that a stack pointer points into.
    pub fn frame_of(&mut self, reg: &Reg) -> &mut Frame {
        let at = usize::from(reg.frameno).min(self.cur.frames.len() - 1);
        &mut self.cur.frames[at]
    }

    /// A state to copy into, used before if possible.
    pub fn take_state(&mut self) -> State {
        self.pool.pop().unwrap_or_default()
    }

    /// `push_stack`: another way, to be walked later. Gives its place on the stack.
    pub fn push_stack(&mut self, insn: i32, prev: i32) -> R<usize> {
        self.push_stack_or(insn, prev, Errno::EFAULT)
    }

    /// The same where Linux has another errno for a stack that is full: callbacks, iterators and
    /// `may_goto` say `ENOMEM`.
    pub fn push_stack_or(&mut self, insn: i32, prev: i32, full: Errno) -> R<usize> {
        let mut state = self.take_state();
        state.copy_from(&self.cur);
        self.push_elem(state, insn, prev);
        if self.stack.len() > 8192 {
            let n = self.stack.len();
            let refused = refusal!(self, EFAULT, "The sequence of {n} jumps is too complex.\n");
            return Err(refused.with(full));
        }
        if let Some(parent) = self.cur.parent {
            self.explored.get_mut(parent).branches += 1;
        }
        Ok(self.stack.len() - 1)
    }

    pub fn push_elem(&mut self, state: State, insn: i32, prev: i32) {
        self.stack.push(Elem {
            state,
            insn,
            prev,
            log_pos: self.log.text.len(),
            mark: self.trace.as_ref().map(|t| Box::new(t.mark())),
        });
    }

    /// `free_states`
    fn free_states(&mut self) {
        self.observe_rest();
        self.stack.clear();
        self.explored.clear();
        self.scc.clear();
    }

    /// `verbose_invalid_scalar`
    pub fn bad_scalar(&mut self, reg: &Reg, range: (i32, i32), ctx: &str, name: &str) -> Stop {
        let mut known = String::new();
        if reg.smin > i64::MIN {
            known += &format!(" smin={}", reg.smin);
        }
        if reg.smax < i64::MAX {
            known += &format!(" smax={}", reg.smax);
        }
        if known.is_empty() {
            known += " unknown scalar value";
        }
        let (min, max) = range;
        refusal!(
            self,
            EINVAL,
            "{ctx} the register {name} has{known} should have been in [{min}, {max}]\n"
        )
    }
}
