//! Reads and writes of the stack (`check_stack_read`, `check_stack_write`).

use bpfsim_isa::uapi::*;

use crate::planted;
use crate::refusal::{refusal, reject};
use crate::reg::{Reg, ty};
use crate::state::{F_STACK, Slot, kind};
use crate::verifier::{MAX_STACK, MAX_VAR_OFF, R, Verifier};

/// Flags of a jump history entry for an access of a slot.
fn access_flags(frameno: usize, spi: usize) -> u32 {
    F_STACK | (spi as u32 & 63) << 3 | frameno as u32
}

impl Verifier<'_> {
    fn frame_no(&self, reg: &Reg) -> usize {
        usize::from(reg.frameno).min(self.cur.frames.len() - 1)
    }

    /// `grow_stack_state`
    fn grow_stack(&mut self, frame: usize, size: i32) {
        let slots = (size.max(0) as usize).div_ceil(8);
        let frame = &mut self.cur.frames[frame];
        if frame.stack.len() >= slots {
            return;
        }
        frame.stack.resize(slots, Slot::default());
        let sub = &mut self.subprogs[frame.subprog as usize];
        sub.stack_depth = sub.stack_depth.max(8 * slots as i32);
    }

    /// `check_stack_access_within_bounds`
    pub(crate) fn check_stack_bounds(&mut self, n: usize, off: i32, size: i32, write: bool) -> R {
        let reg = self.reg(n);
        let what = if write { " write to" } else { " read from" };
        let (min, max) = if reg.var_off.is_const() {
            let min = (reg.var_off.value as i64).wrapping_add(off.into());
            (min, min.wrapping_add(size.into()))
        } else {
            if reg.smax >= MAX_VAR_OFF || reg.smin <= -MAX_VAR_OFF {
                reject!(
                    self,
                    EACCES,
                    "invalid unbounded variable-offset{what} stack R{n}\n"
                );
            }
            let off = i64::from(off);
            (reg.smin + off, reg.smax + off + i64::from(size))
        };
        let errno = if min < -i64::from(MAX_STACK) || min > -1 {
            bpfsim_abi::Errno::EACCES
        } else if max > 0 {
            bpfsim_abi::Errno::EINVAL
        } else if size < 0 {
            bpfsim_abi::Errno::EFAULT
        } else {
            let frame = self.frame_no(&reg);
            self.grow_stack(frame, -min as i32);
            return Ok(());
        };
        let refused = match reg.var_off.is_const() {
            true => refusal!(
                self,
                EACCES,
                "invalid{what} stack R{n} off={off} size={size}\n"
            ),
            false => refusal!(
                self,
                EACCES,
                "invalid variable-offset{what} stack R{n} var_off={} off={off} size={size}\n",
                reg.var_off
            ),
        };
        Err(refused.with(errno))
    }

    /// `check_stack_read`
    pub(crate) fn stack_read(&mut self, n: usize, off: i32, size: i32, dst: Option<usize>) -> R {
        let reg = self.reg(n);
        let Some(dst) = dst else {
            if !reg.var_off.is_const() {
                reject!(
                    self,
                    EACCES,
                    "variable offset stack pointer cannot be passed into helper function; var_off={} off={off} size={size}\n",
                    reg.var_off
                );
            }
            return self.stack_read_fixed(
                &reg,
                off.wrapping_add(reg.var_off.value as i32),
                size,
                None,
            );
        };
        if reg.var_off.is_const() {
            let off = off.wrapping_add(reg.var_off.value as i32);
            return self.stack_read_fixed(&reg, off, size, Some(dst));
        }
        self.check_stack_range(n, off, size, false, false, None)?;
        let (min, max) = (reg.smin as i32 + off, reg.smax as i32 + off);
        let frame = self.frame_no(&reg);
        let new = self.bytes_read(frame, min, max + size);
        self.regs_mut()[dst] = new;
        let sub = self.cur.frames[frame].subprog;
        self.check_fastcall(sub, self.insn_idx as usize, min);
        Ok(())
    }

    /// `mark_reg_stack_read`
    fn bytes_read(&mut self, frame: usize, min: i32, max: i32) -> Reg {
        for i in min..max {
            let slot = (-i - 1) as usize;
            self.log.scratch_slot(slot / 8);
            let kinds = self.cur.frames[frame].stack.get(slot / 8).map(|s| s.kinds);
            if kinds.is_none_or(|k| k[slot % 8] != kind::ZERO) {
                return Reg::UNKNOWN;
            }
        }
        Reg::constant(0)
    }

    fn check_readable(&mut self, slot: &Slot, at: usize, off: i32, size: i32) -> R {
        for i in 0..size {
            let k = slot.kinds[(at - i as usize) % 8];
            if !matches!(k, kind::MISC | kind::ZERO | kind::INVALID | kind::SPILL)
                || k == kind::SPILL && !slot.is_spill()
            {
                reject!(
                    self,
                    EACCES,
                    "invalid read from stack off {off}+{i} size {size}\n"
                );
            }
        }
        Ok(())
    }

    /// `check_stack_read_fixed_off`
    fn stack_read_fixed(&mut self, ptr: &Reg, off: i32, size: i32, dst: Option<usize>) -> R {
        let frame = self.frame_no(ptr);
        let at = (-off - 1) as usize;
        let spi = at / 8;
        let Some(slot) = self.cur.frames[frame].stack.get(spi).copied() else {
            return self.bug(format_args!("stack slot {spi}"));
        };
        self.log.scratch_slot(spi);
        let sub = self.cur.top().subprog;
        self.check_fastcall(sub, self.insn_idx as usize, off);
        self.live_read(frame, self.insn_idx as usize, 1 << spi);
        let history = access_flags(frame, spi);
        if !slot.is_spill() {
            self.check_readable(&slot, at, off, size)?;
            if let Some(dst) = dst {
                let new = self.bytes_read(frame, off, off + size);
                self.regs_mut()[dst] = new;
            }
            return Ok(());
        }
        let reg = slot.reg;
        let spill = slot
            .kinds
            .iter()
            .rev()
            .take_while(|k| **k == kind::SPILL)
            .count() as i32;
        if size == 8 && spill == 8 {
            if let Some(dst) = dst {
                self.regs_mut()[dst] = reg;
            }
            self.push_history(history, 0);
            return Ok(());
        }
        if !reg.is_scalar() {
            self.print_line(self.insn_idx as usize, format_args!("; "));
            reject!(self, EACCES, "invalid size of register fill\n");
        }
        let Some(dst) = dst else {
            return Ok(());
        };
        // `bpf_stack_narrow_access_ok`, little endian.
        if size <= spill && (off % 8 == 0 || planted::is(10)) {
            let mut new = reg;
            if reg.width() > size as u32 * 8 {
                new.id = 0;
            }
            self.regs_mut()[dst] = new;
            self.push_history(history, 0);
            return Ok(());
        }
        self.check_readable(&slot, at, off, size)?;
        let bytes = (0..size as usize).map(|i| slot.kinds[(at - i) % 8]);
        let spills = bytes.clone().all(|k| k == kind::SPILL);
        let zeros = bytes.clone().all(|k| k == kind::ZERO);
        if spills && reg.var_off.equals(0) {
            self.regs_mut()[dst] = Reg::constant(0);
            self.push_history(history, 0);
        } else if zeros {
            self.regs_mut()[dst] = Reg::constant(0);
        } else {
            self.regs_mut()[dst] = Reg::UNKNOWN;
        }
        Ok(())
    }

    /// `check_stack_write`
    pub(crate) fn stack_write(&mut self, n: usize, off: i32, size: i32, value: Option<usize>) -> R {
        let reg = self.reg(n);
        let frame = self.frame_no(&reg);
        match reg.var_off.is_const() {
            true => {
                let off = off.wrapping_add(reg.var_off.value as i32);
                self.stack_write_fixed(frame, off, size, value)
            }
            false => self.stack_write_var(&reg, frame, off, size, value),
        }
    }

    fn stored_imm(&self) -> Option<i32> {
        let insn = self.insns[self.insn_idx as usize];
        (insn.class() == BPF_ST && insn.code & 0xe0 == BPF_MEM).then_some(insn.imm)
    }

    /// `check_stack_write_fixed_off`
    fn stack_write_fixed(&mut self, frame: usize, off: i32, size: i32, value: Option<usize>) -> R {
        let at = (-off - 1) as usize;
        let spi = at / 8;
        let top = self.cur.curframe();
        let aligned = off % 8 == 0;
        self.destroy_dynptr(frame, spi)?;
        if aligned && size == 8 {
            self.live_write(frame, 1 << spi);
        }
        let sub = self.cur.frames[frame].subprog;
        self.check_fastcall(sub, self.insn_idx as usize, off);
        self.log.scratch_slot(spi);
        let reg = value.map(|v| self.reg(v));
        let history = access_flags(frame, spi);
        if let (Some(n), Some(r)) = (value, reg)
            && aligned
            && r.is_scalar()
        {
            let fits = r.width() <= 8 * size as u32 || planted::is(9);
            if fits {
                self.give_id(n);
            }
            let mut r = self.reg(n);
            if !fits {
                r.id = 0;
            }
            self.cur.frames[frame].stack[spi].save(&r, size as usize);
        } else if let (None, true, Some(imm)) = (reg, aligned, self.stored_imm()) {
            let r = Reg::constant(i64::from(imm) as u64);
            self.cur.frames[frame].stack[spi].save(&r, size as usize);
        } else if let Some(r) = reg.filter(|r| ty::spillable(r.ty)) {
            if size != 8 {
                self.print_line(self.insn_idx as usize, format_args!("; "));
                reject!(self, EACCES, "invalid size of register spill\n");
            }
            if frame != top && r.ty == ty::STACK {
                reject!(
                    self,
                    EINVAL,
                    "cannot spill pointers to stack into stack frame of the caller\n"
                );
            }
            self.cur.frames[frame].stack[spi].save(&r, size as usize);
        } else {
            let slot = &mut self.cur.frames[frame].stack[spi];
            slot.reg.ty = ty::NOT_INIT;
            if slot.is_special() && !planted::is(18) {
                slot.scrub();
            }
            let zero = match reg {
                Some(r) => r.is_null(),
                None => self.stored_imm() == Some(0),
            };
            if zero && let Some(n) = value {
                self.mark_precise(n)?;
            }
            let k = if zero { kind::ZERO } else { kind::MISC };
            let slot = &mut self.cur.frames[frame].stack[spi];
            for i in 0..size as usize {
                slot.kinds[(at - i) % 8] = k;
            }
            return Ok(());
        }
        self.push_history(history, 0);
        Ok(())
    }

    /// `check_stack_write_var_off`
    fn stack_write_var(
        &mut self,
        ptr: &Reg,
        frame: usize,
        off: i32,
        size: i32,
        value: Option<usize>,
    ) -> R {
        let (min, max) = (ptr.smin as i32 + off, ptr.smax as i32 + off + size);
        let zero = match value {
            Some(n) => self.reg(n).is_null(),
            None => self.stored_imm() == Some(0),
        };
        let mut zero_used = false;
        for i in min..max {
            self.destroy_dynptr(frame, ((-i - 1) / 8) as usize)?;
        }
        let sub = self.cur.frames[frame].subprog;
        self.check_fastcall(sub, self.insn_idx as usize, min);
        for i in min..max {
            let at = (-i - 1) as usize;
            self.log.scratch_slot(at / 8);
            let Some(slot) = self.cur.frames[frame].stack.get_mut(at / 8) else {
                continue;
            };
            let k = slot.kinds[at % 8];
            if zero && k == kind::SPILL && slot.is_scalar_spill() && slot.reg.var_off.equals(0) {
                zero_used = true;
                continue;
            }
            slot.reg.ty = ty::NOT_INIT;
            if slot.is_special() {
                slot.scrub();
            }
            let stays = zero && slot.kinds[at % 8] == kind::ZERO;
            zero_used |= stays;
            slot.kinds[at % 8] = if stays { kind::ZERO } else { kind::MISC };
        }
        match value {
            Some(n) if zero_used => self.mark_precise(n),
            _ => Ok(()),
        }
    }

    /// `check_stack_range_initialized`. `raw` takes the size of memory that a helper fills.
    pub(crate) fn check_stack_range(
        &mut self,
        n: usize,
        off: i32,
        size: i32,
        zero_ok: bool,
        write: bool,
        raw: Option<&mut (usize, i32)>,
    ) -> R {
        if size == 0 && !zero_ok {
            reject!(self, EACCES, "invalid zero-sized read\n");
        }
        self.check_stack_bounds(n, off, size, write)?;
        let reg = self.reg(n);
        let frame = self.frame_no(&reg);
        let fixed = reg.var_off.is_const();
        let (min, max) = match fixed {
            true => {
                let min = (reg.var_off.value as i32).wrapping_add(off);
                (min, min)
            }
            false => (reg.smin as i32 + off, reg.smax as i32 + off),
        };
        if let Some(raw) = raw.filter(|_| fixed) {
            for i in min..max + size {
                let at = (-i - 1) as usize;
                let slot = self.cur.frames[frame].stack.get(at / 8);
                if slot.is_some_and(|s| s.kinds[at % 8] == kind::DYNPTR) {
                    reject!(
                        self,
                        EACCES,
                        "potential write to dynptr at off={i} disallowed\n"
                    );
                }
            }
            *raw = (n, size);
            return Ok(());
        }
        for i in min..max + size {
            let at = (-i - 1) as usize;
            let (spi, byte) = (at / 8, at % 8);
            let Some(slot) = self.cur.frames[frame].stack.get_mut(spi) else {
                reject!(self, EFAULT, "allocated_stack too small\n");
            };
            let fine = match slot.kinds[byte] {
                kind::MISC => true,
                kind::ZERO | kind::INVALID => {
                    if write {
                        slot.kinds[byte] = kind::MISC;
                    }
                    true
                }
                _ if slot.is_spill() => {
                    if write {
                        slot.reg = Reg::UNKNOWN;
                        slot.scrub();
                    }
                    true
                }
                _ => false,
            };
            if !fine {
                let at = i - min;
                match fixed {
                    true => reject!(
                        self,
                        EACCES,
                        "invalid read from stack R{n} off {min}+{at} size {size}\n"
                    ),
                    false => reject!(
                        self,
                        EACCES,
                        "invalid read from stack R{n} var_off {}+{at} size {size}\n",
                        reg.var_off
                    ),
                }
            }
            self.live_read(frame, self.insn_idx as usize, 1 << spi);
        }
        Ok(())
    }
}
