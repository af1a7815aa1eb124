//! Calls of subprograms, and callbacks that helpers and kernel functions call.

use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::Kind;
use bpfsim_isa::{Insn, uapi::*};

use crate::helper_args::{Meta, Want};
use crate::log::verbose;
use crate::refusal::{also, quiet, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::state::{Frame, MAIN, MAX_FRAMES, State, StateId};
use crate::verifier::{Arg, R, Stop, Verifier, field};

/// What calls a callback: `set_callee_state_fn`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Callback {
    MapElem,
    Loop,
    Timer,
    FindVma,
    UserRingbuf,
    RbtreeAdd,
    Wq,
    TaskWork,
}

impl Verifier<'_> {
    /// `btf_check_func_arg_match`
    fn match_args(&mut self, subprog: usize) -> R {
        let args = self.func_args(subprog)?;
        for (i, arg) in args.iter().enumerate() {
            let n = i + 1;
            let reg = self.reg(n);
            match *arg {
                Arg::Anything => {
                    if !reg.is_scalar() {
                        reject!(self, EINVAL, "R{n} is not a scalar\n");
                    }
                }
                Arg::Mem { flags, .. } | Arg::Btf { flags, .. } if flags & ty::UNTRUSTED != 0 => {}
                Arg::Ctx => {
                    self.check_arg_off(&reg, n, false, false)?;
                    if reg.ty != ty::CTX {
                        reject!(self, EINVAL, "arg#{i} expects pointer to ctx\n");
                    }
                }
                Arg::Mem { size, flags } => {
                    self.check_arg_off(&reg, n, false, false)?;
                    if let Err(e) = self.check_mem_reg(n, size) {
                        return Err(e.with(Errno::EINVAL));
                    }
                    if flags & ty::MAYBE_NULL == 0 && ty::maybe_null(reg.ty) {
                        reject!(self, EINVAL, "arg#{i} is expected to be non-NULL\n");
                    }
                }
                Arg::Arena => {
                    if reg.ty != ty::ARENA && !reg.is_scalar() {
                        reject!(self, EINVAL, "R{n} is not a pointer to arena or scalar.\n");
                    }
                }
                Arg::Dynptr => {
                    self.check_arg_off(&reg, n, false, true)?;
                    self.process_dynptr(n, -1, ty::RDONLY, 0)?;
                }
                Arg::Btf { id, flags } => {
                    if reg.is_null() && flags & ty::MAYBE_NULL != 0 {
                        continue;
                    }
                    let mut meta = Meta::default();
                    self.check_reg_type(n, Want::BtfId, flags, Some(id), &mut meta)?;
                    self.check_arg_off(&reg, n, false, false)?;
                }
            }
        }
        Ok(())
    }

    /// `btf_check_subprog_call`; the errno of what does not match.
    fn check_subprog_args(&mut self, subprog: usize) -> R<Option<Stop>> {
        if self.prog.funcs.is_empty() || self.subprogs[subprog].unreliable {
            return Ok(Some(quiet!(
                self,
                EINVAL,
                "a function that no BTF describes, or whose BTF calls did not fit before"
            )));
        }
        match self.match_args(subprog) {
            Ok(()) => Ok(None),
            Err(Stop::Refused(refused)) => {
                self.subprogs[subprog].unreliable = true;
                match refused.errno {
                    Errno::EFAULT => Err(Stop::Refused(refused)),
                    _ => Ok(Some(Stop::Refused(refused))),
                }
            }
            Err(other) => Err(other),
        }
    }

    /// `setup_func_entry`
    fn enter_func(&mut self, state: &mut State, subprog: usize, callsite: i32) -> R {
        let n = state.frames.len();
        if n >= MAX_FRAMES {
            reject!(
                self,
                E2BIG,
                "the call stack of {} frames is too deep\n",
                n + 1
            );
        }
        state
            .frames
            .push(Frame::new(callsite, n as u8, subprog as u32));
        self.log.scratch_all();
        Ok(())
    }

    /// `check_func_call`
    pub(crate) fn check_func_call(&mut self, insn: Insn) -> R {
        let to = i64::from(self.insn_idx) + i64::from(insn.imm) + 1;
        let Some(subprog) = self.find_subprog(to) else {
            return self.bug(format_args!(
                "target of func call at insn {to} is not a program"
            ));
        };
        let err = self.check_subprog_args(subprog)?;
        if self.subprogs[subprog].global {
            let name = self.subprog_name(subprog).to_owned();
            if self.cur.active_locks != 0 {
                reject!(
                    self,
                    EINVAL,
                    "global function calls are not allowed while holding a lock,\nuse static function instead\n"
                );
            }
            let atomic = self.cur.active_rcu
                || self.cur.active_preempt != 0
                || self.cur.active_irq_id != 0
                || !self.cur.in_sleepable;
            if self.subprogs[subprog].might_sleep && atomic {
                reject!(
                    self,
                    EINVAL,
                    "global functions that may sleep are not allowed in non-sleepable context,\ni.e., in a RCU/IRQ/preempt-disabled section, or in\na non-sleepable BPF program context\n"
                );
            }
            if let Some(e) = err {
                also!(
                    self,
                    "Caller passes invalid args into func#{subprog} ('{name}')\n"
                );
                return Err(e);
            }
            verbose!(
                self,
                "Func#{subprog} ('{name}') is global and assumed valid.\n"
            );
            if self.subprogs[subprog].changes_pkt {
                self.clear_packet();
            }
            self.subprogs[subprog].called = true;
            self.clear_caller_saved();
            self.regs_mut()[0] = Reg::UNKNOWN;
            return Ok(());
        }
        let args: [Reg; 5] = std::array::from_fn(|i| self.reg(i + 1));
        let callsite = self.insn_idx;
        let mut state = std::mem::take(&mut self.cur);
        let result = self.enter_func(&mut state, subprog, callsite);
        self.cur = state;
        result?;
        let caller = self.cur.curframe() - 1;
        self.regs_mut()[1..6].copy_from_slice(&args);
        self.cur.frames[caller].regs[..6].fill(Reg::NOT_INIT);
        // The call's own marks are of the caller.
        self.live_commit(callsite as usize);
        self.live_reset_chain();
        self.insn_idx = self.subprogs[subprog].start as i32 - 1;
        if self.log.insns() {
            verbose!(self, "caller:\n");
            self.print_state(caller, true);
            verbose!(self, "callee:\n");
            self.print_state(caller + 1, true);
        }
        Ok(())
    }

    /// `prepare_func_exit`
    pub(crate) fn leave_func(&mut self) -> R {
        let callee = self.cur.top();
        let r0 = callee.regs[0];
        let (in_callback, range, callsite) =
            (callee.in_callback, callee.callback_ret, callee.callsite);
        if r0.ty == ty::STACK {
            reject!(self, EINVAL, "cannot return stack pointer to the caller\n");
        }
        let caller = self.cur.curframe() - 1;
        if in_callback {
            if !r0.is_scalar() {
                reject!(self, EACCES, "R0 not a scalar value\n");
            }
            self.mark_precise(0)?;
            let r0 = self.reg(0);
            if r0.smin < range.0.into() || r0.smax > range.1.into() {
                return Err(self.bad_scalar(&r0, range, "At callback return", "R0"));
            }
        } else {
            self.cur.frames[caller].regs[0] = r0;
        }
        self.insn_idx = callsite + i32::from(!in_callback);
        if self.log.insns() {
            verbose!(self, "returning from callee:\n");
            self.print_state(caller + 1, true);
            verbose!(self, "to caller at {}:\n", self.insn_idx);
            self.print_state(caller, true);
        }
        self.cur.frames.pop();
        self.live_reset_chain();
        if in_callback {
            let at = self.insn_idx;
            let mut cur = std::mem::take(&mut self.cur);
            let depth = cur.dfs_depth;
            if let Some(prev) = self.find_entry(&cur, depth, at) {
                self.widen(prev, &mut cur);
            }
            self.cur = cur;
        }
        Ok(())
    }

    /// `find_prev_entry` from an explored state.
    pub(crate) fn find_prev_entry(&mut self, from: Option<StateId>, insn: i32) -> Option<StateId> {
        let from = from?;
        let st = std::mem::take(self.explored.get_mut(from));
        let found = self.find_entry(&st, st.dfs_depth, insn);
        *self.explored.get_mut(from) = st;
        found
    }

    fn find_entry(&self, cur: &State, depth: u32, insn: i32) -> Option<StateId> {
        // Linux looks in the bucket of the current state's call site.
        let callsite = match self.cur.frames.last() {
            Some(f) => f.callsite,
            None => cur.frames.last()?.callsite,
        };
        self.explored.listed_at(insn, callsite).find(|id| {
            let st = &self.explored.arena[*id as usize].state;
            st.insn_idx == insn
                && st.branches != 0
                && st.dfs_depth < depth
                && !st.frames.is_empty()
                && st.same_callsites(cur)
        })
    }

    /// `widen_imprecise_scalars`: forgets numbers that the last round of a loop had otherwise.
    pub(crate) fn widen(&mut self, old: StateId, cur: &mut State) {
        let st = &self.explored.arena[old as usize].state;
        crate::equal::widen(st, cur, self.id_gen);
    }

    /// `push_callback_call`
    pub(crate) fn call_back(&mut self, subprog: u32, what: Callback) -> R {
        let subprog = subprog as usize;
        self.check_subprog_args(subprog)?;
        self.subprogs[subprog].is_cb = true;
        let insn_idx = self.cur.insn_idx;
        let start = self.subprogs[subprog].start as i32;
        if matches!(what, Callback::Timer | Callback::Wq | Callback::TaskWork) {
            self.subprogs[subprog].is_async_cb = true;
            let mut frame = Frame::new(MAIN, 0, subprog as u32);
            self.log.scratch_all();
            frame.async_entry_cnt = self.cur.top().async_entry_cnt + 1;
            self.callback_args(&mut frame, what)?;
            let mut state = State {
                branches: 1,
                in_sleepable: what != Callback::Timer,
                first_insn_idx: 0,
                ..State::default()
            };
            state.frames.push(frame);
            self.push_elem(state, start, insn_idx);
            if self.stack.len() > 8192 {
                let n = self.stack.len();
                reject!(
                    self,
                    EFAULT,
                    "The sequence of {n} jumps is too complex for async cb.\n"
                );
            }
            return Ok(());
        }
        let at = self.push_stack_or(start, insn_idx, Errno::ENOMEM)?;
        let mut state = std::mem::take(&mut self.stack[at].state);
        let result = self.enter_func(&mut state, subprog, insn_idx);
        if result.is_ok()
            && let Some(mut frame) = state.frames.pop()
        {
            let result = self.callback_args(&mut frame, what);
            state.frames.push(frame);
            state.callback_unroll_depth += 1;
            let caller = state.frames.len() - 2;
            state.frames[caller].callback_depth += 1;
            self.stack[at].state = state;
            result?;
        } else {
            return result;
        }
        self.cur.top_mut().callback_depth = 0;
        Ok(())
    }

    /// What a callback gets: the `set_*_callback_state` functions.
    fn callback_args(&mut self, callee: &mut Frame, what: Callback) -> R {
        let caller: [Reg; 6] = std::array::from_fn(|i| self.reg(i));
        callee.callback_ret = (0, 1);
        callee.in_callback = true;
        let map_args = |callee: &mut Frame, map: u32| {
            for (i, t) in [ty::MAP_PTR, ty::MAP_KEY, ty::MAP_VALUE]
                .into_iter()
                .enumerate()
            {
                callee.regs[i + 1] = Reg {
                    a: map,
                    ..Reg::pointer(t)
                };
            }
        };
        match what {
            Callback::MapElem => {
                let map = self.aux[self.cur.insn_idx as usize].map;
                let kind = (map as usize)
                    .checked_sub(1)
                    .and_then(|m| self.maps.get(m))
                    .map(|m| m.map_type);
                let fine = matches!(
                    kind,
                    Some(
                        MapType::Hash
                            | MapType::LruHash
                            | MapType::PercpuHash
                            | MapType::LruPercpuHash
                            | MapType::Array
                            | MapType::PercpuArray
                    )
                );
                if !fine {
                    reject!(self, ENOTSUPP, "callback function not allowed for map\n");
                }
                map_args(callee, caller[1].a);
                callee.regs[1] = caller[1];
                callee.regs[4] = caller[3];
            }
            Callback::Loop => {
                callee.regs[1] = Reg::UNKNOWN;
                callee.regs[2] = caller[3];
            }
            Callback::FindVma => {
                callee.regs[1] = caller[1];
                let vma = self.env.kernel.find("vm_area_struct", Kind::Struct);
                callee.regs[2] = Reg {
                    a: BTF_KERNEL,
                    b: vma.map_or(0, |id| id.0),
                    ..Reg::pointer(ty::BTF_ID)
                };
                callee.regs[3] = caller[4];
            }
            Callback::UserRingbuf => {
                callee.regs[1] = Reg {
                    id: self.new_id(),
                    a: 1,
                    b: 1,
                    ..Reg::pointer(ty::DYNPTR)
                };
                callee.regs[2] = caller[3];
            }
            Callback::RbtreeAdd => {
                let root = caller[1];
                let record = self.reg_record(&root);
                let found = record
                    .as_ref()
                    .and_then(|r| r.find(root.off as u32, field::RB_ROOT).copied());
                let Some(f) = found else {
                    return Err(quiet!(self, EFAULT, "a tree that has no root"));
                };
                for n in 1..=2 {
                    let mut reg = crate::special::graph_node(&f);
                    self.set_non_owning(&mut reg)?;
                    callee.regs[n] = reg;
                }
            }
            Callback::Timer | Callback::Wq => map_args(callee, caller[1].a),
            Callback::TaskWork => map_args(callee, caller[3].a),
        }
        match what {
            Callback::Timer | Callback::Wq => callee.callback_ret = (0, 0),
            Callback::TaskWork => callee.callback_ret = (i32::MIN, i32::MAX),
            _ => return Ok(()),
        }
        callee.in_callback = false;
        callee.in_async = true;
        Ok(())
    }

    /// `in_rbtree_lock_required_cb`
    pub(crate) fn in_rbtree_cb(&self) -> bool {
        let top = self.cur.top();
        if self.cur.curframe() == 0 || !top.in_callback {
            return false;
        }
        let insn = usize::try_from(top.callsite)
            .ok()
            .and_then(|c| self.insns.get(c));
        insn.is_some_and(|i| {
            i.src() == BPF_PSEUDO_KFUNC_CALL && self.kfunc_name(i.imm) == "bpf_rbtree_add_impl"
        })
    }
}
