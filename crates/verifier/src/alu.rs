//! Arithmetic on registers, pointers among them (`check_alu_op`).

use bpfsim_isa::{Insn, uapi::*};

use crate::arith;
use crate::log::type_str;
use crate::planted;
use crate::refusal::reject;
use crate::reg::{ADD_CONST, ADD_CONST32, ADD_CONST64, Reg, ty};
use crate::verifier::{MAX_VAR_OFF, R, Verifier};

/// What an addition or subtraction of a constant moves a register by, if that is worth remembering.
fn constant_delta(op: u8, by: &Reg, is32: bool) -> Option<i32> {
    if !by.is_const(is32) {
        return None;
    }
    let value = by.const_value(is32);
    let delta = match is32 {
        true => value as i32,
        false => i32::try_from(value as i64).ok()?,
    };
    match op {
        BPF_ADD => Some(delta),
        BPF_SUB => delta.checked_neg(),
        _ => None,
    }
}

impl Verifier<'_> {
    /// `assign_scalar_id_before_mov`
    pub(crate) fn give_id(&mut self, n: usize) {
        let next = self.id_gen + 1;
        let reg = &mut self.regs_mut()[n];
        if !reg.is_scalar() {
            return;
        }
        if reg.id & ADD_CONST != 0 {
            reg.id = 0;
            reg.off = 0;
        }
        if reg.id == 0 && !reg.var_off.is_const() {
            reg.id = next;
            self.id_gen = next;
        }
    }

    /// `check_alu_op`
    pub(crate) fn check_alu(&mut self, insn: Insn) -> R {
        let op = insn.code & 0xf0;
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        let by_reg = insn.code & 8 != 0;
        let is32 = insn.class() == BPF_ALU;
        match op {
            BPF_END | BPF_NEG => {
                self.read_reg(dst)?;
                self.write_reg(dst)?;
                let mut reg = self.reg(dst);
                if op == BPF_NEG && reg.is_scalar() {
                    let src = reg;
                    if !arith::compute(&mut reg, &src, BPF_NEG, is32) {
                        reg = Reg::UNKNOWN;
                    }
                } else if reg.is_scalar() {
                    arith::byte_swap(&mut reg, insn.imm, !is32 || by_reg);
                } else {
                    reg = Reg::UNKNOWN;
                }
                self.regs_mut()[dst] = reg;
            }
            BPF_MOV => {
                if by_reg {
                    if insn.off == BPF_ADDR_SPACE_CAST && !is32 && self.arena_map.is_none() {
                        reject!(
                            self,
                            EINVAL,
                            "addr_space_cast insn can only be used in a program that has an associated arena\n"
                        );
                    }
                    self.read_reg(src)?;
                }
                self.write_reg(dst)?;
                match by_reg {
                    true => self.move_reg(insn, dst, src, is32)?,
                    false => {
                        let value = match is32 {
                            true => insn.imm as u32 as u64,
                            false => i64::from(insn.imm) as u64,
                        };
                        self.regs_mut()[dst] = Reg::constant(value);
                    }
                }
            }
            _ => {
                if by_reg {
                    self.read_reg(src)?;
                }
                self.read_reg(dst)?;
                if matches!(op, BPF_MOD | BPF_DIV) && !by_reg && insn.imm == 0 {
                    reject!(self, EINVAL, "div by zero\n");
                }
                if matches!(op, BPF_LSH | BPF_RSH | BPF_ARSH) && !by_reg {
                    let size = if is32 { 32 } else { 64 };
                    if insn.imm < 0 || insn.imm >= size {
                        reject!(self, EINVAL, "invalid shift {}\n", insn.imm);
                    }
                }
                self.write_reg(dst)?;
                self.arithmetic(insn, op, dst, src, is32)?;
            }
        }
        self.check_sane(dst, "alu")
    }

    fn move_reg(&mut self, insn: Insn, dst: usize, src: usize, is32: bool) -> R {
        let scalar = self.reg(src).is_scalar();
        if !is32 && insn.imm != 0 {
            let mut reg = Reg::UNKNOWN;
            if insn.imm == 1 {
                reg.ty = ty::ARENA;
            }
            self.regs_mut()[dst] = reg;
            return Ok(());
        }
        if !is32 && insn.off == 0 {
            self.give_id(src);
            self.regs_mut()[dst] = self.reg(src);
            return Ok(());
        }
        let mut reg = Reg::UNKNOWN;
        if scalar {
            let fits = match insn.off {
                0 => self.reg(src).width() <= 32,
                bits => self.reg(src).umax < 1 << (bits - 1),
            };
            if fits {
                self.give_id(src);
            }
            reg = self.reg(src);
            if !fits {
                reg.id = 0;
            }
            let size = (insn.off >> 3) as u32;
            match (is32, insn.off) {
                (_, 0) => {}
                (true, _) => reg.sign_extend32(size),
                (false, _) => reg.sign_extend64(size),
            }
        }
        if is32 {
            reg.zext32();
            reg.sync();
        }
        self.regs_mut()[dst] = reg;
        Ok(())
    }

    /// `adjust_reg_min_max_vals`
    fn arithmetic(&mut self, insn: Insn, op: u8, dst: usize, src: usize, is32: bool) -> R {
        let by_reg = insn.code & 8 != 0;
        let d = self.reg(dst);
        if d.ty == ty::ARENA {
            return Ok(());
        }
        let mut s = Reg::constant(i64::from(insn.imm) as u64);
        if by_reg {
            s = self.reg(src);
            if !s.is_scalar() {
                if !d.is_scalar() {
                    if op == BPF_SUB {
                        self.regs_mut()[dst] = Reg::UNKNOWN;
                        return Ok(());
                    }
                    let name = [
                        "+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=",
                        "s>>=", "endian",
                    ];
                    let name = name.get(usize::from(op >> 4)).unwrap_or(&"");
                    reject!(self, EACCES, "R{dst} pointer {name} pointer prohibited\n");
                }
                self.mark_precise(dst)?;
                let (p, o) = (self.reg(src), self.reg(dst));
                return self.pointer_arithmetic(op, dst, is32, &p, &o, true);
            }
            if !d.is_scalar() {
                self.mark_precise(src)?;
                let (p, o) = (self.reg(dst), self.reg(src));
                return self.pointer_arithmetic(op, dst, is32, &p, &o, false);
            }
            if d.precise {
                self.mark_precise(src)?;
            }
        } else if !d.is_scalar() {
            return self.pointer_arithmetic(op, dst, is32, &d, &s, false);
        }
        if matches!(op, BPF_AND | BPF_OR) && s.var_off.is_const() {
            self.fork(dst)?;
        }
        let mut reg = self.reg(dst);
        let fits = !is32 || reg.umax <= u32::MAX.into();
        if !arith::compute(&mut reg, &s, op, is32) {
            reg = Reg::UNKNOWN;
        }
        let delta = match by_reg && src == dst || !fits {
            true => None,
            false => constant_delta(op, &s, is32),
        };
        match delta {
            Some(delta) if reg.id != 0 && reg.id & ADD_CONST == 0 => {
                reg.id |= if is32 { ADD_CONST32 } else { ADD_CONST64 };
                reg.off = delta;
            }
            _ if planted::is(17) => {}
            _ => {
                reg.id = 0;
                reg.off = 0;
            }
        }
        self.regs_mut()[dst] = reg;
        Ok(())
    }

    /// `maybe_fork_scalars`: what is 0 or -1, as an arithmetic shift leaves a sign, is looked at as
    /// either.
    fn fork(&mut self, dst: usize) -> R {
        let reg = self.reg(dst);
        let known = |value: u64| {
            let mut known = reg;
            match reg.smin == -1 && reg.smax == 0 {
                true => known.mark_known(value),
                false => known.set_value32(value as u32),
            }
            known
        };
        let either = (reg.smin, reg.smax) == (-1, 0) || (reg.s32min, reg.s32max) == (-1, 0);
        if either {
            let at = self.push_stack(self.insn_idx, self.insn_idx)?;
            self.stack[at].state.top_mut().regs[dst] = known(0);
            self.regs_mut()[dst] = known(u64::MAX);
        }
        Ok(())
    }

    /// `check_reg_sane_offset`
    fn sane_offset(&mut self, reg: &Reg, t: u32) -> R {
        let val = reg.var_off.value as i64;
        let out = |v: i64| v >= MAX_VAR_OFF || v <= -MAX_VAR_OFF;
        let name = type_str(t);
        if reg.var_off.is_const() && out(val) {
            reject!(
                self,
                EINVAL,
                "math between {name} pointer and {val} is not allowed\n"
            );
        }
        if out(reg.off.into()) {
            reject!(
                self,
                EINVAL,
                "{name} pointer offset {} is not allowed\n",
                reg.off
            );
        }
        if reg.smin == i64::MIN {
            reject!(
                self,
                EINVAL,
                "math between {name} pointer and register with unbounded min value is not allowed\n"
            );
        }
        if out(reg.smin) {
            reject!(
                self,
                EINVAL,
                "value {} makes {name} pointer be out of bounds\n",
                reg.smin
            );
        }
        Ok(())
    }

    /// `adjust_ptr_min_max_vals`
    fn pointer_arithmetic(
        &mut self,
        op: u8,
        dst: usize,
        is32: bool,
        ptr: &Reg,
        off: &Reg,
        dst_is_off: bool,
    ) -> R {
        let known = off.var_off.is_const();
        if known && (off.smin != off.smax || off.umin != off.umax)
            || off.smin > off.smax
            || off.umin > off.umax
        {
            self.regs_mut()[dst] = Reg::UNKNOWN;
            return Ok(());
        }
        if is32 {
            if op == BPF_SUB {
                self.regs_mut()[dst] = Reg::UNKNOWN;
                return Ok(());
            }
            reject!(
                self,
                EACCES,
                "R{dst} 32-bit pointer arithmetic prohibited\n"
            );
        }
        let name = type_str(ptr.ty);
        if ty::maybe_null(ptr.ty) {
            reject!(
                self,
                EACCES,
                "R{dst} pointer arithmetic on {name} prohibited, null-check it first\n"
            );
        }
        if ptr.base() == ty::MEM && ptr.ty & ty::UNTRUSTED != 0 {
            return Ok(());
        }
        let fine = match ptr.base() {
            ty::CTX
            | ty::MAP_VALUE
            | ty::MAP_KEY
            | ty::STACK
            | ty::PACKET_META
            | ty::PACKET
            | ty::TP_BUFFER
            | ty::BTF_ID
            | ty::MEM
            | ty::BUF
            | ty::FUNC
            | ty::DYNPTR => true,
            ty::FLOW_KEYS if known => true,
            ty::FLOW_KEYS | ty::MAP_PTR => known && off.smin == 0 && op == BPF_ADD,
            _ => false,
        };
        if !fine {
            reject!(
                self,
                EACCES,
                "R{dst} pointer arithmetic on {name} prohibited\n"
            );
        }
        // What Linux leaves of the destination as it was: of `scalar += pointer` the frame.
        let before = self.reg(dst);
        self.regs_mut()[dst].ty = ptr.ty;
        self.regs_mut()[dst].id = ptr.id;
        self.sane_offset(off, ptr.ty)?;
        self.sane_offset(ptr, ptr.ty)?;
        let mut reg = Reg {
            ref_obj_id: before.ref_obj_id,
            frameno: before.frameno,
            precise: before.precise,
            ..*ptr
        };
        reg.unbound32();
        match op {
            BPF_ADD | BPF_SUB => {
                if op == BPF_SUB && dst_is_off {
                    reject!(
                        self,
                        EACCES,
                        "R{dst} tried to subtract pointer from scalar\n"
                    );
                }
                if op == BPF_SUB && ptr.ty == ty::STACK {
                    reject!(
                        self,
                        EACCES,
                        "R{dst} subtraction from stack pointer prohibited\n"
                    );
                }
                let delta = if op == BPF_ADD {
                    off.smin
                } else {
                    off.smin.wrapping_neg()
                };
                let fixed = i32::try_from(i64::from(ptr.off).wrapping_add(delta)).ok();
                match fixed.filter(|_| known) {
                    Some(fixed) => reg.off = fixed,
                    None => self.variable_offset(&mut reg, ptr, off, op),
                }
            }
            BPF_AND | BPF_OR | BPF_XOR => {
                let name = bitwise_name(op);
                reject!(
                    self,
                    EACCES,
                    "R{dst} bitwise operator {name} on pointer prohibited\n"
                );
            }
            _ => {
                let name = bitwise_name(op);
                reject!(
                    self,
                    EACCES,
                    "R{dst} pointer arithmetic with {name} operator prohibited\n"
                );
            }
        }
        self.regs_mut()[dst] = reg;
        self.sane_offset(&reg, ptr.ty)?;
        reg.sync();
        self.regs_mut()[dst] = reg;
        Ok(())
    }

    fn variable_offset(&mut self, reg: &mut Reg, ptr: &Reg, off: &Reg, op: u8) {
        let pkt = ty::is_pkt(ptr.ty);
        let signed = |min: Option<i64>, max: Option<i64>| match (min, max) {
            (Some(min), Some(max)) => (min, max),
            _ => (i64::MIN, i64::MAX),
        };
        if op == BPF_ADD {
            (reg.smin, reg.smax) = signed(
                ptr.smin.checked_add(off.smin),
                ptr.smax.checked_add(off.smax),
            );
            (reg.umin, reg.umax) = match (
                ptr.umin.checked_add(off.umin),
                ptr.umax.checked_add(off.umax),
            ) {
                (Some(min), Some(max)) => (min, max),
                _ => (0, u64::MAX),
            };
            reg.var_off = ptr.var_off.add(off.var_off);
            if pkt {
                reg.id = self.new_id();
                reg.a = 0;
            }
            return;
        }
        (reg.smin, reg.smax) = signed(
            ptr.smin.checked_sub(off.smax),
            ptr.smax.checked_sub(off.smin),
        );
        if ptr.umin < off.umax {
            (reg.umin, reg.umax) = (0, u64::MAX);
        } else {
            reg.umin = ptr.umin.wrapping_sub(off.umax);
            reg.umax = ptr.umax.wrapping_sub(off.umin);
        }
        reg.var_off = ptr.var_off.sub(off.var_off);
        if pkt {
            reg.id = self.new_id();
            if off.smin < 0 {
                reg.a = 0;
            }
        }
    }

    /// Whether the register is a trusted pointer: `is_trusted_reg`.
    pub(crate) fn is_trusted(reg: &Reg) -> bool {
        if reg.ref_obj_id != 0 {
            return true;
        }
        let safe = !ty::unsafe_flags(reg.ty);
        let known = matches!(
            reg.base(),
            ty::SOCKET | ty::SOCK_COMMON | ty::TCP_SOCK | ty::MAP_PTR
        );
        safe && (known || reg.ty & ty::TRUST_MASK != 0)
    }
}

fn bitwise_name(op: u8) -> &'static str {
    const NAMES: [&str; 14] = [
        "+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "endian",
    ];
    NAMES.get(usize::from(op >> 4)).unwrap_or(&"")
}
