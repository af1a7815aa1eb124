//! The walk, one instruction at a time (`do_check`), exits and loads of constants.

use bpfsim_abi::{AttachType, Func, MapType, ProgType};
use bpfsim_isa::{Insn, Refusal, decode, uapi::*};

use crate::log::verbose;
use crate::refusal::{also, refusal, reject};
use crate::reg::{Reg, ty};
use crate::verifier::{R, Verifier};

/// What an instruction leads to.
#[derive(PartialEq)]
enum Next {
    Insn,
    Exit,
}

impl Verifier<'_> {
    /// `do_check`
    pub(crate) fn do_check(&mut self) -> R {
        let mut print_state = false;
        let mut prev = -1;
        loop {
            self.has_hist_ent = false;
            self.said_from = None;
            self.prev_insn_idx = prev;
            let idx = self.insn_idx;
            let count = self.insns.len();
            if idx < 0 || idx as usize >= count {
                reject!(self, EFAULT, "invalid insn idx {idx} insn_cnt {count}\n");
            }
            let at = idx as usize;
            self.insn_processed += 1;
            if self.insn_processed as usize > BPF_COMPLEXITY_LIMIT_INSNS {
                let n = self.insn_processed;
                reject!(
                    self,
                    E2BIG,
                    "BPF program is too large. Processed {n} insn\n"
                );
            }
            self.cur.last_insn_idx = prev;
            self.cur.insn_idx = idx;
            let mut done = false;
            if self.aux[at].prune_point && self.is_visited(idx)? {
                if self.log.insns() {
                    match print_state {
                        true => verbose!(self, "\nfrom {prev} to {idx}: safe\n"),
                        false => verbose!(self, "{idx}: safe\n"),
                    }
                }
                done = true;
            }
            if !done {
                if self.aux[at].jmp_point {
                    self.push_history(0, 0);
                }
                if self.log.insns() {
                    self.print_before(at, prev, &mut print_state);
                }
                self.aux[at].seen = true;
                prev = idx;
                if let Some(trace) = &mut self.trace {
                    trace.begin(at, &self.cur);
                }
                self.live_begin();
                let next = self.check_insn(at, &mut print_state);
                self.live_commit(at);
                done = next? == Next::Exit;
            }
            if done {
                self.log.scratch_all();
                self.update_branches()?;
                self.live_update_all();
                let Some(elem) = self.stack.pop() else {
                    return Ok(());
                };
                if !self.log.level2() {
                    self.log.text.truncate(elem.log_pos);
                }
                if let (Some(trace), Some(mark)) = (&mut self.trace, &elem.mark) {
                    trace.back(mark);
                }
                let old = std::mem::replace(&mut self.cur, elem.state);
                self.pool.push(old);
                self.insn_idx = elem.insn;
                prev = elem.prev;
                print_state = true;
            }
        }
    }

    fn print_before(&mut self, at: usize, prev: i32, print_state: &mut bool) {
        if self.log.level2() && *print_state {
            verbose!(self, "\nfrom {prev} to {at}:");
            self.print_state(self.cur.curframe(), true);
            *print_state = false;
        }
        if self.log.scratched_regs != 0 || self.log.scratched_stack != 0 {
            self.print_insn_state();
        }
        self.print_line(at, format_args!("; "));
        let start = self.log.text.len();
        verbose!(self, "{at}: ");
        self.print_insn(at);
        self.log.prev_insn_len = self.log.text.len() - start;
        self.log.prev_pos = self.log.text.len();
    }

    fn check_reserved(&mut self, at: usize) -> R {
        if let Err(e) = decode(&self.insns, at)
            && !matches!(e.refusal, Refusal::AtomicOpcode(_) | Refusal::AtomicSize)
        {
            let insn = self.insns[at];
            let jump = matches!(insn.class(), BPF_JMP | BPF_JMP32);
            if jump && !matches!(insn.code & 0xf0, BPF_JA | BPF_CALL | BPF_EXIT | BPF_JCOND) {
                // What is compared is looked at first.
                self.read_reg(insn.dst().into())?;
            }
            return Err(self.refuse_form(e.refusal));
        }
        Ok(())
    }

    /// `do_check_insn`
    fn check_insn(&mut self, at: usize, print_state: &mut bool) -> R<Next> {
        let insn = self.insns[at];
        if !self.aux[at].decoded {
            self.check_reserved(at)?;
            self.aux[at].decoded = true;
        }
        let mode = insn.code & 0xe0;
        match insn.class() {
            BPF_ALU | BPF_ALU64 => self.check_alu(insn)?,
            BPF_LDX => self.check_load(insn, false, mode == BPF_MEMSX, true, "ldx")?,
            BPF_STX if mode == BPF_ATOMIC => self.check_atomic(insn)?,
            BPF_STX => self.check_store(insn, false)?,
            BPF_ST => {
                let dst = insn.dst().into();
                self.read_reg(dst)?;
                let t = self.reg(dst).ty;
                self.check_mem(
                    dst,
                    insn.off.into(),
                    size_of(insn),
                    true,
                    None,
                    false,
                    false,
                )?;
                self.save_ptr_type(t, false)?;
            }
            BPF_JMP | BPF_JMP32 => {
                self.jmps_processed += 1;
                match insn.code & 0xf0 {
                    BPF_CALL => {
                        if self.check_call(insn)? {
                            return self.check_exit(print_state, true);
                        }
                        self.log.scratched_regs |= 1;
                    }
                    BPF_JA => {
                        self.insn_idx += self.jump_off(at) as i32 + 1;
                        return Ok(Next::Insn);
                    }
                    BPF_EXIT => return self.check_exit(print_state, false),
                    _ => self.check_cond_jump(insn)?,
                }
            }
            _ if matches!(mode, BPF_ABS | BPF_IND) => self.check_ld_abs(insn)?,
            _ => {
                self.check_ld_imm(at, insn)?;
                self.insn_idx += 1;
                if let Some(aux) = self.aux.get_mut(at + 1) {
                    aux.seen = true;
                }
            }
        }
        self.insn_idx += 1;
        Ok(Next::Insn)
    }

    /// A call; whether it throws.
    fn check_call(&mut self, insn: Insn) -> R<bool> {
        if self.cur.active_locks != 0 {
            let refused = match insn.src() {
                0 => insn.imm != Func::SpinUnlock.number() as i32,
                BPF_PSEUDO_KFUNC_CALL => {
                    insn.off != 0 || !crate::kfunc::allowed_locked(self.kfunc_name(insn.imm))
                }
                _ => false,
            };
            if refused {
                reject!(
                    self,
                    EINVAL,
                    "function calls are not allowed while holding a lock\n"
                );
            }
        }
        match insn.src() {
            BPF_PSEUDO_CALL => self.check_func_call(insn)?,
            BPF_PSEUDO_KFUNC_CALL => {
                self.check_kfunc_call(insn)?;
                return Ok(self.is_throw(self.cur.insn_idx as usize));
            }
            _ => self.check_helper_call(insn)?,
        }
        Ok(false)
    }

    /// `process_bpf_exit_full`
    fn check_exit(&mut self, print_state: &mut bool, throws: bool) -> R<Next> {
        let main = self.cur.curframe() == 0;
        let what = match throws {
            true => "bpf_throw",
            false => "BPF_EXIT instruction in main prog",
        };
        self.check_leaks(throws, throws || main, what)?;
        if throws {
            self.cur.top_mut().in_exception = true;
            return Ok(Next::Exit);
        }
        if !main {
            self.live_commit(self.cur.insn_idx as usize);
            self.live_update_all();
            self.leave_func()?;
            *print_state = true;
            return Ok(Next::Insn);
        }
        self.check_return(0, "R0")?;
        Ok(Next::Exit)
    }

    /// `check_reference_leak`
    fn check_ref_leak(&mut self, throws: bool) -> R {
        let frame = self.cur.top();
        if !throws && frame.frameno > 0 {
            return Ok(());
        }
        let returned = match self.prog_type {
            ProgType::StructOps if !throws => frame.regs[0].ref_obj_id,
            _ => 0,
        };
        let lost = |r: &&crate::state::Ref| {
            r.kind == crate::state::reftype::PTR && (returned == 0 || r.id != returned)
        };
        let leaks: Vec<_> = self.cur.refs.iter().filter(lost).copied().collect();
        let mut first = None;
        for r in &leaks {
            let refused = refusal!(
                self,
                EINVAL,
                "Unreleased reference id={} alloc_insn={}\n",
                r.id,
                r.insn
            );
            first.get_or_insert(refused);
        }
        first.map_or(Ok(()), Err)
    }

    /// The struct that the target returns a pointer to.
    fn attach_ret_struct(&self) -> Option<u32> {
        let kernel = self.env.kernel;
        let proto = crate::btf_ctx::func_proto(kernel, self.attach.proto?)?;
        crate::btf_ctx::pointee(kernel, proto.ret).map(|(id, _)| id.0)
    }

    /// `check_resource_leak`
    pub(crate) fn check_leaks(&mut self, throws: bool, locks: bool, what: &str) -> R {
        if locks && self.cur.active_locks != 0 {
            reject!(
                self,
                EINVAL,
                "{what} cannot be used inside bpf_spin_lock-ed region\n"
            );
        }
        if let Err(e) = self.check_ref_leak(throws) {
            also!(self, "{what} would lead to reference leak\n");
            return Err(e);
        }
        if locks {
            let c = &self.cur;
            let region = [
                (c.active_irq_id != 0, "bpf_local_irq_save"),
                (c.active_rcu, "bpf_rcu_read_lock"),
                (c.active_preempt != 0, "bpf_preempt_disable"),
            ];
            for (held, name) in region {
                if held {
                    reject!(
                        self,
                        EINVAL,
                        "{what} cannot be used inside {name}-ed region\n"
                    );
                }
            }
        }
        Ok(())
    }

    /// `check_reg_arg(SRC_OP)`
    pub(crate) fn read_reg(&mut self, n: usize) -> R {
        if n > 10 {
            reject!(self, EINVAL, "R{n} is invalid\n");
        }
        self.log.scratched_regs |= 1 << n;
        if self.regs()[n].ty == ty::NOT_INIT {
            reject!(self, EACCES, "R{n} !read_ok\n");
        }
        Ok(())
    }

    /// `check_reg_arg(DST_OP_NO_MARK)`
    pub(crate) fn write_reg(&mut self, n: usize) -> R {
        if n > 10 {
            reject!(self, EINVAL, "R{n} is invalid\n");
        }
        self.log.scratched_regs |= 1 << n;
        if n == 10 {
            reject!(self, EACCES, "frame pointer is read only\n");
        }
        Ok(())
    }

    /// `reg_bounds_sanity_check`
    pub(crate) fn check_sane(&mut self, n: usize, ctx: &str) -> R {
        let reg = self.reg(n);
        if let Some(bad) = self.sane(&reg, ctx)? {
            self.regs_mut()[n] = bad;
        }
        Ok(())
    }

    /// What a register with bounds that contradict themselves becomes.
    pub(crate) fn sane(&mut self, reg: &Reg, ctx: &str) -> R<Option<Reg>> {
        if !self.opt.test_reg_invariants {
            // Linux says so in the log, and goes on with no bounds.
            if reg.insane().is_none() {
                return Ok(None);
            }
        }
        let Some(what) = reg.insane() else {
            return Ok(None);
        };
        let refused = refusal!(
            self,
            EFAULT,
            "verifier bug: REG INVARIANTS VIOLATION ({ctx}): {what} u64=[{:#x}, {:#x}] s64=[{:#x}, {:#x}] u32=[{:#x}, {:#x}] s32=[{:#x}, {:#x}] var_off=({:#x}, {:#x})\n",
            reg.umin,
            reg.umax,
            reg.smin,
            reg.smax,
            reg.u32min,
            reg.u32max,
            reg.s32min,
            reg.s32max,
            reg.var_off.value,
            reg.var_off.mask
        );
        if self.opt.test_reg_invariants {
            return Err(refused);
        }
        let mut reg = *reg;
        reg.unbound();
        Ok(Some(reg))
    }

    /// `check_return_code`
    pub(crate) fn check_return(&mut self, n: usize, name: &str) -> R {
        let first = &self.cur.frames[0];
        let (sub, in_exc, in_async, cb_range) = (
            first.subprog != 0,
            first.in_exception,
            first.in_async,
            first.callback_ret,
        );
        let kernel = self.env.kernel;
        let ret = self
            .attach
            .proto
            .and_then(|p| crate::btf_ctx::func_proto(kernel, p))
            .map(|p| p.ret);
        let void = ret.is_none_or(|r| r.0 == 0);
        let attach_type = self.prog.attach_type;
        let mut ptr_ret = None;
        if !sub || in_exc {
            match self.prog_type {
                ProgType::Lsm if attach_type != AttachType::LsmCgroup && void => return Ok(()),
                ProgType::StructOps => {
                    if void {
                        return Ok(());
                    }
                    if !in_exc {
                        ptr_ret = self.attach_ret_struct();
                        let reg = self.reg(n);
                        if ptr_ret.is_some()
                            && reg.base() == ty::BTF_ID
                            && ptr_ret == Some(reg.b)
                            && reg.ref_obj_id != 0
                        {
                            return self.check_ptr_off(n, false);
                        }
                    }
                }
                _ => {}
            }
        }
        self.read_reg(n)?;
        let mut ctx = "At program exit";
        let mut is32 = false;
        let range = if in_async {
            ctx = "At async callback return";
            (i64::from(cb_range.0), i64::from(cb_range.1))
        } else if sub && !in_exc {
            let reg = self.reg(n);
            if !reg.is_scalar() {
                let t = crate::log::type_str(reg.ty);
                reject!(
                    self,
                    EINVAL,
                    "At subprogram exit the register R{n} is not a scalar value ({t})\n"
                );
            }
            return Ok(());
        } else {
            let hook = self
                .attach
                .name
                .map(|h| (h.strip_prefix("bpf_lsm_").unwrap_or(h), void));
            let range = match self.prog_type {
                ProgType::StructOps if ptr_ret.is_some() => Some((0, 0)),
                ProgType::StructOps => None,
                t => bpfsim_abi::prog::return_range(t, attach_type, hook),
            };
            is32 = self.prog_type == ProgType::Lsm && attach_type != AttachType::LsmCgroup;
            match range {
                Some(range) => range,
                None => return Ok(()),
            }
        };
        let reg = self.reg(n);
        if !reg.is_scalar() {
            let t = crate::log::type_str(reg.ty);
            reject!(
                self,
                EINVAL,
                "{ctx} the register R{n} is not a known value ({t})\n"
            );
        }
        self.mark_precise(n)?;
        let (min, max) = match is32 {
            true => (reg.s32min.into(), reg.s32max.into()),
            false => (reg.smin, reg.smax),
        };
        if min < range.0 || max > range.1 {
            let refused = self.bad_scalar(&reg, (range.0 as i32, range.1 as i32), ctx, name);
            if !sub
                && self.prog_type == ProgType::Lsm
                && attach_type == AttachType::LsmCgroup
                && void
            {
                also!(
                    self,
                    "Note, BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!\n"
                );
            }
            return Err(refused);
        }
        // Congestion is told by packets that are sent only.
        let congestion = crate::tnum::Tnum::range(2, 3);
        if self.prog_type == ProgType::CgroupSkb
            && attach_type == AttachType::CgroupInetEgress
            && congestion.contains(reg.var_off)
        {
            self.enforce_attach = true;
        }
        Ok(())
    }

    /// `check_ld_imm`
    fn check_ld_imm(&mut self, at: usize, insn: Insn) -> R {
        let dst = usize::from(insn.dst());
        self.write_reg(dst)?;
        let second = self.insns.get(at + 1).map_or(0, |i| i.imm);
        let mut reg = Reg::constant(0);
        match insn.src() {
            0 => {
                reg = Reg::constant((second as u32 as u64) << 32 | insn.imm as u32 as u64);
            }
            BPF_PSEUDO_BTF_ID => (reg.ty, reg.a, reg.b) = self.aux[at].var,
            BPF_PSEUDO_FUNC => {
                let Some(sub) = self.find_subprog(at as i64 + i64::from(insn.imm) + 1) else {
                    return self.bug(format_args!("pseudo func"));
                };
                if self.prog.funcs.is_empty() {
                    reject!(self, EINVAL, "missing btf func_info\n");
                }
                if self.subprogs[sub].global {
                    reject!(self, EINVAL, "callback function not static\n");
                }
                reg.ty = ty::FUNC;
                reg.a = sub as u32;
            }
            src => {
                reg.a = insn.imm as u32 + 1;
                let map = self.maps.get(insn.imm as usize);
                if matches!(src, BPF_PSEUDO_MAP_VALUE | BPF_PSEUDO_MAP_IDX_VALUE) {
                    if map.is_some_and(|m| m.map_type == MapType::Arena) {
                        reg = Reg::UNKNOWN;
                    } else {
                        reg.ty = ty::MAP_VALUE;
                        reg.off = second;
                    }
                } else {
                    reg.ty = ty::MAP_PTR;
                }
            }
        }
        self.regs_mut()[dst] = reg;
        Ok(())
    }

    /// `check_ld_abs`
    fn check_ld_abs(&mut self, insn: Insn) -> R {
        let allowed = matches!(
            self.prog_type,
            ProgType::SocketFilter | ProgType::SchedCls | ProgType::SchedAct
        );
        if !allowed {
            reject!(
                self,
                EINVAL,
                "BPF_LD_[ABS|IND] instructions not allowed for this program type\n"
            );
        }
        self.read_reg(6)?;
        self.check_leaks(false, true, "BPF_LD_[ABS|IND]")?;
        if self.reg(6).ty != ty::CTX {
            reject!(
                self,
                EINVAL,
                "at the time of BPF_LD_ABS|IND R6 != pointer to skb\n"
            );
        }
        if insn.code & 0xe0 == BPF_IND {
            self.read_reg(insn.src().into())?;
        }
        self.check_ptr_off(6, false)?;
        self.clear_caller_saved();
        self.regs_mut()[0] = Reg::UNKNOWN;
        if self.cur.curframe() > 0 {
            self.may_leave(Reg::constant(0))?;
        }
        Ok(())
    }

    /// What may end its function: it goes on in one way, and leaves with this in R0 in another.
    pub(crate) fn may_leave(&mut self, r0: Reg) -> R {
        let idx = self.insn_idx;
        self.log.scratched_regs |= 1;
        self.push_stack(idx + 1, idx)?;
        self.regs_mut()[0] = r0;
        self.live_commit(self.cur.insn_idx as usize);
        self.live_update_all();
        self.leave_func()?;
        self.insn_idx -= 1;
        Ok(())
    }

    /// R0 to R5 hold nothing after a call.
    pub(crate) fn clear_caller_saved(&mut self) {
        self.log.scratched_regs |= 0x3f;
        self.regs_mut()[..6].fill(Reg::NOT_INIT);
    }
}

/// Bytes that a load or store moves.
pub(crate) fn size_of(insn: Insn) -> i32 {
    match insn.code & 0x18 {
        BPF_W => 4,
        BPF_H => 2,
        BPF_B => 1,
        _ => 8,
    }
}
