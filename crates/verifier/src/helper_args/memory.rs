//! Memory that calls read or fill: its size in the prototype, in the next register, or up to a string's end.

use bpfsim_abi::{MapType, ProgType};

use crate::helper_args::Meta;
use crate::log::type_str;
use crate::precision::Backtrack;
use crate::refusal::{quiet, reject};
use crate::reg::ty;
use crate::state::kind;
use crate::verifier::{MAX_VAR_OFF, R, Verifier};

impl Verifier<'_> {
    /// `check_helper_mem_access`
    pub(crate) fn check_helper_mem(
        &mut self,
        n: usize,
        size: i32,
        write: bool,
        zero_ok: bool,
        meta: Option<&mut Meta>,
    ) -> R {
        let reg = self.reg(n);
        let t = reg.ty;
        match reg.base() {
            ty::PACKET | ty::PACKET_META => self.check_packet(n, reg.off, size, zero_ok),
            ty::MAP_KEY => {
                if write {
                    return self.cannot_write(n, t);
                }
                let area = reg.map().map_or(0, |m| self.maps[m].key_size);
                self.check_region(n, reg.off, size, area, false)
            }
            ty::MAP_VALUE => {
                self.check_map_caps(n, reg.off, size, write)?;
                self.check_map_value(n, reg.off, size, zero_ok, false)
            }
            ty::MEM => {
                if t & ty::RDONLY != 0 && write {
                    return self.cannot_write(n, t);
                }
                self.check_region(n, reg.off, size, reg.mem_size(), zero_ok)
            }
            ty::BUF => {
                let rdonly = t & ty::RDONLY != 0;
                if rdonly && write {
                    return self.cannot_write(n, t);
                }
                let what = if rdonly { "rdonly" } else { "rdwr" };
                self.check_buffer(n, what, reg.off, size)
            }
            ty::STACK => {
                let raw = meta.filter(|m| m.raw).map(|m| &mut m.raw_access);
                self.check_stack_range(n, reg.off, size, zero_ok, write, raw)
            }
            ty::BTF_ID => self.check_btf(n, reg.off, size, false, None),
            ty::CTX if self.prog_type == ProgType::Syscall => {
                if size == 0 {
                    return match zero_ok {
                        true => Ok(()),
                        false => Err(quiet!(self, EACCES, "a context of no bytes as memory")),
                    };
                }
                self.check_mem(n, size - 1, 1, write, None, false, false)
            }
            _ => {
                if zero_ok && size == 0 && reg.is_null() {
                    return Ok(());
                }
                reject!(self, EACCES, "R{n} type={} expected=fp\n", type_str(t));
            }
        }
    }

    /// `check_mem_size_reg`: `n` is the size's register, the memory's is the one before.
    pub(crate) fn check_size_reg(
        &mut self,
        n: usize,
        write: bool,
        zero_ok: bool,
        meta: &mut Meta,
    ) -> R {
        let reg = self.reg(n);
        meta.msize_max = reg.umax;
        if reg.smin < 0 {
            reject!(
                self,
                EACCES,
                "R{n} min value is negative, either use unsigned or 'var &= const'\n"
            );
        }
        if reg.umin == 0 && !zero_ok {
            reject!(
                self,
                EACCES,
                "R{n} invalid zero-sized read: u64=[{},{}]\n",
                reg.umin as i64,
                reg.umax as i64
            );
        }
        if reg.umax >= MAX_VAR_OFF as u64 {
            reject!(
                self,
                EACCES,
                "R{n} unbounded memory access, use 'var &= const' or 'if (var < const)'\n"
            );
        }
        let meta = Some(meta).filter(|_| reg.var_off.is_const());
        self.check_helper_mem(n - 1, reg.umax as i32, write, zero_ok, meta)?;
        self.mark_precise(n)
    }

    /// `check_mem_reg`
    pub(crate) fn check_mem_reg(&mut self, n: usize, size: u32) -> R {
        let saved = self.reg(n);
        if saved.is_null() {
            return Ok(());
        }
        if ty::maybe_null(saved.ty) {
            let mut reg = saved;
            self.mark_not_null(&mut reg);
            self.regs_mut()[n] = reg;
        }
        let size = size as i32;
        let mut result = self.check_helper_mem(n, size, false, true, None);
        if result.is_ok() {
            result = self.check_helper_mem(n, size, true, true, None);
        }
        if ty::maybe_null(saved.ty) {
            self.regs_mut()[n] = saved;
        }
        result
    }

    /// `check_reg_const_str`
    pub(crate) fn check_const_str(&mut self, n: usize) -> R {
        let reg = self.reg(n);
        let Some(map) = reg.map().filter(|_| reg.ty == ty::MAP_VALUE) else {
            return Err(quiet!(
                self,
                EINVAL,
                "a constant string that is in no map's value"
            ));
        };
        let Some(data) = self.maps[map].frozen.clone() else {
            reject!(self, EACCES, "R{n} does not point to a readonly map'\n");
        };
        if !reg.var_off.is_const() {
            reject!(self, EACCES, "R{n} is not a constant address'\n");
        }
        if self.maps[map].map_type != MapType::Array {
            reject!(
                self,
                EACCES,
                "no direct value access support for this map type\n"
            );
        }
        let size = (self.maps[map].value_size as i32).wrapping_sub(reg.off);
        self.check_map_value(n, reg.off, size, false, false)?;
        let at = reg.fixed_off() as usize;
        if !data.get(at..).is_some_and(|d| d.contains(&0)) {
            reject!(self, EINVAL, "string is not zero-terminated\n");
        }
        Ok(())
    }

    /// `get_constant_map_key`
    pub(super) fn constant_key(&mut self, n: usize, size: u32) -> R<Option<i64>> {
        let key = self.reg(n);
        if key.ty != ty::STACK || !key.var_off.is_const() {
            return Ok(None);
        }
        let at = (-key.fixed_off() - 1) as usize;
        let frame = usize::from(key.frameno);
        let Some(slot) = self.cur.frames[frame].stack.get(at / 8).copied() else {
            return Ok(None);
        };
        let off = at % 8;
        let run = |k: u8| {
            let bytes = slot.kinds[..=off].iter().rev();
            bytes.take_while(|b| **b == k).count() as u32
        };
        if run(kind::ZERO) >= size {
            return Ok(Some(0));
        }
        if !slot.is_scalar_spill() || run(kind::SPILL) != size || !slot.reg.var_off.is_const() {
            return Ok(None);
        }
        let mut bt = Backtrack::default();
        bt.set_slot(frame, at / 8);
        let mut cur = std::mem::take(&mut self.cur);
        let result = self.mark_precise_batch(&mut cur, bt, &mut false);
        self.cur = cur;
        result?;
        Ok(Some(slot.reg.var_off.value as i64))
    }
}
