//! Loads, stores and atomic accesses, by what the pointer points to (`check_mem_access`).

mod area;
mod context;
mod value;

use bpfsim_isa::{Insn, uapi::*};

use crate::log::type_str;
use crate::refusal::reject;
use crate::reg::{Reg, ty};
use crate::step::size_of;
use crate::verifier::{R, Verifier};

/// `sizeof(struct bpf_flow_keys)`
const FLOW_KEYS_SIZE: i64 = 56;

/// One access to memory.
#[derive(Clone, Copy)]
struct Access {
    /// From where the pointer points to, what was added to it as a constant included.
    off: i32,
    size: i32,
    write: bool,
    /// The register that is stored, or loaded into.
    value: Option<usize>,
    signed: bool,
}

impl Access {
    /// The register that is loaded into.
    fn load(&self) -> Option<usize> {
        self.value.filter(|_| !self.write)
    }
}

impl Verifier<'_> {
    /// `check_load_mem`
    pub(crate) fn check_load(
        &mut self,
        insn: Insn,
        strict: bool,
        signed: bool,
        trust: bool,
        ctx: &str,
    ) -> R {
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        self.read_reg(src)?;
        self.write_reg(dst)?;
        let t = self.reg(src).ty;
        let size = size_of(insn);
        self.check_mem(src, insn.off.into(), size, false, Some(dst), strict, signed)?;
        self.save_ptr_type(t, trust)?;
        self.check_sane(dst, ctx)
    }

    /// `check_store_reg`
    pub(crate) fn check_store(&mut self, insn: Insn, strict: bool) -> R {
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        self.read_reg(src)?;
        self.read_reg(dst)?;
        let t = self.reg(dst).ty;
        let size = size_of(insn);
        self.check_mem(dst, insn.off.into(), size, true, Some(src), strict, false)?;
        self.save_ptr_type(t, false)
    }

    /// `save_aux_ptr_type`
    pub(crate) fn save_ptr_type(&mut self, t: u32, trust: bool) -> R {
        let fussy = |t: u32| {
            matches!(
                ty::base(t),
                ty::CTX
                    | ty::SOCKET
                    | ty::SOCK_COMMON
                    | ty::TCP_SOCK
                    | ty::XDP_SOCK
                    | ty::BTF_ID
                    | ty::ARENA
            )
        };
        let prev = &mut self.aux[self.cur.insn_idx as usize].ptr_type;
        if *prev == ty::NOT_INIT {
            *prev = t;
        } else if t != *prev && (fussy(t) || fussy(*prev)) {
            let mem = |t: u32| matches!(ty::base(t), ty::MEM | ty::BTF_ID);
            if !trust || !mem(t) || !mem(*prev) {
                reject!(
                    self,
                    EINVAL,
                    "same insn cannot be used with different pointers\n"
                );
            }
            let base = match ty::base(t) == ty::MEM || ty::base(*prev) == ty::MEM {
                true => ty::MEM,
                false => ty::BTF_ID,
            };
            *prev = base | (t | *prev) & (ty::UNTRUSTED | ty::RDONLY);
        }
        Ok(())
    }

    fn atomic_type_ok(&mut self, n: usize, what: &str) -> R {
        let t = self.reg(n).ty;
        if t == ty::CTX || ty::is_pkt(t) || t == ty::FLOW_KEYS || ty::is_sk(t) {
            let t = type_str(t);
            reject!(self, EACCES, "BPF_ATOMIC {what} R{n} {t} is not allowed\n");
        }
        Ok(())
    }

    /// `check_atomic`
    pub(crate) fn check_atomic(&mut self, insn: Insn) -> R {
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        match insn.imm {
            BPF_LOAD_ACQ => {
                self.check_load(insn, true, false, false, "atomic_load")?;
                return self.atomic_type_ok(src, "loads from");
            }
            BPF_STORE_REL => {
                self.check_store(insn, true)?;
                return self.atomic_type_ok(dst, "stores into");
            }
            BPF_XCHG | BPF_CMPXCHG => {}
            imm if matches!((imm & !BPF_FETCH) as u32, 0 | 0x50 | 0x40 | 0xa0) => {}
            imm => reject!(
                self,
                EINVAL,
                "BPF_ATOMIC uses invalid atomic opcode {imm:02x}\n"
            ),
        }
        if !matches!(insn.code & 0x18, BPF_W | BPF_DW) {
            reject!(self, EINVAL, "invalid atomic operand size\n");
        }
        self.read_reg(src)?;
        self.read_reg(dst)?;
        if insn.imm == BPF_CMPXCHG {
            self.read_reg(0)?;
        }
        self.atomic_type_ok(dst, "stores into")?;
        let load = match insn.imm {
            BPF_CMPXCHG => Some(0),
            imm if imm & BPF_FETCH != 0 => Some(src),
            _ => None,
        };
        if let Some(n) = load {
            self.write_reg(n)?;
            self.regs_mut()[n] = Reg::UNKNOWN;
        }
        let (off, size) = (i32::from(insn.off), size_of(insn));
        self.check_mem(dst, off, size, false, None, true, false)?;
        if load.is_some() {
            self.check_mem(dst, off, size, false, load, true, false)?;
        }
        if self.reg(dst).ty == ty::ARENA {
            self.save_ptr_type(ty::ARENA, false)?;
        }
        self.check_mem(dst, off, size, true, None, true, false)
    }

    /// `check_mem_access`: `value` is the register that is stored, or loaded into.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn check_mem(
        &mut self,
        n: usize,
        off: i32,
        size: i32,
        write: bool,
        value: Option<usize>,
        strict: bool,
        signed: bool,
    ) -> R {
        let reg = self.reg(n);
        self.check_alignment(&reg, off, size, strict)?;
        let access = Access {
            off: off.wrapping_add(reg.off),
            size,
            write,
            value,
            signed,
        };
        let known = self.check_pointee(n, &reg, access)?;
        let Some(dst) = access.load() else {
            return Ok(());
        };
        let reg = &mut self.regs_mut()[dst];
        if !known {
            *reg = Reg::UNKNOWN;
        }
        if size < 8 && reg.is_scalar() {
            match signed {
                false => reg.truncate(size as u32),
                true => reg.sign_extend64(size as u32),
            }
        }
        Ok(())
    }

    /// What is asked of an access by what the pointer points to. Whether the register that is loaded into
    /// holds what was read already.
    fn check_pointee(&mut self, n: usize, reg: &Reg, access: Access) -> R<bool> {
        let Access {
            off,
            size,
            write,
            value,
            ..
        } = access;
        let t = reg.ty;
        let rdonly = t & ty::RDONLY != 0;
        match reg.base() {
            ty::MAP_KEY if t == ty::MAP_KEY => {
                if write {
                    reject!(self, EACCES, "write to change key R{n} not allowed\n");
                }
                let size_of = reg.map().map_or(0, |m| self.maps[m].key_size);
                self.check_region(n, off, size, size_of, false)?;
            }
            ty::MAP_VALUE if t == ty::MAP_VALUE => return self.check_value(n, reg, access),
            ty::MEM => {
                if ty::maybe_null(t) {
                    return self.no_memory(n, t);
                }
                if write && rdonly {
                    return self.cannot_write(n, t);
                }
                if !(rdonly && t & ty::UNTRUSTED != 0) {
                    self.check_region(n, off, size, reg.mem_size(), false)?;
                }
            }
            ty::CTX if t == ty::CTX => {
                self.check_context(n, access)?;
                return Ok(true);
            }
            ty::STACK if t == ty::STACK => {
                self.check_stack_bounds(n, off, size, write)?;
                match write {
                    true => self.stack_write(n, off, size, value)?,
                    false => self.stack_read(n, off, size, value)?,
                }
                return Ok(true);
            }
            ty::PACKET | ty::PACKET_META if ty::is_pkt(t) => {
                if write && !self.may_access_packet(true) {
                    reject!(self, EACCES, "cannot write into packet\n");
                }
                self.check_packet(n, off, size, false)?;
            }
            ty::FLOW_KEYS if t == ty::FLOW_KEYS => {
                if off < 0 || i64::from(off) + i64::from(size) > FLOW_KEYS_SIZE {
                    reject!(
                        self,
                        EACCES,
                        "invalid access to flow keys off={off} size={size}\n"
                    );
                }
            }
            _ if ty::is_sk(t) => {
                if write {
                    return self.cannot_write(n, t);
                }
                self.check_sock(n, off, size)?;
            }
            ty::TP_BUFFER if t == ty::TP_BUFFER => {
                self.check_buffer(n, "tracepoint", off, size)?;
            }
            ty::BTF_ID if !ty::maybe_null(t) => {
                self.check_btf(n, off, size, write, value)?;
                return Ok(true);
            }
            ty::MAP_PTR if t == ty::MAP_PTR => {
                self.check_map_ptr(n, off, size, write, value)?;
                return Ok(true);
            }
            ty::BUF => {
                if rdonly && write {
                    return self.cannot_write(n, t);
                }
                let what = if rdonly { "rdonly" } else { "rdwr" };
                self.check_buffer(n, what, off, size)?;
            }
            ty::ARENA if t == ty::ARENA => {}
            _ => return self.no_memory(n, t),
        }
        Ok(false)
    }

    pub(crate) fn cannot_write<T>(&mut self, n: usize, t: u32) -> R<T> {
        let t = type_str(t);
        reject!(self, EACCES, "R{n} cannot write into {t}\n")
    }

    fn no_memory<T>(&mut self, n: usize, t: u32) -> R<T> {
        let t = type_str(t);
        reject!(self, EACCES, "R{n} invalid mem access '{t}'\n")
    }
}
