//! Values of maps: what programs may do to the map, special fields that an access must not touch, kptrs,
//! and constants that a frozen map holds.

use bpfsim_abi::MapType;
use bpfsim_abi::map::Fields;
use bpfsim_isa::uapi::*;

use super::Access;
use crate::record::RField;
use crate::refusal::reject;
use crate::reg::{Reg, ty};
use crate::verifier::{R, Verifier, field};

/// `BPF_F_RDONLY_PROG`
const RDONLY_PROG: u32 = 1 << 7;

/// `BPF_F_WRONLY_PROG`
const WRONLY_PROG: u32 = 1 << 8;

impl Verifier<'_> {
    /// `check_map_access_type`
    pub(crate) fn check_map_caps(&mut self, n: usize, off: i32, size: i32, write: bool) -> R {
        let reg = self.reg(n);
        let Some(map) = reg.map().and_then(|m| self.maps.get(m)) else {
            return self.bug(format_args!("map"));
        };
        let size_of = map.value_size;
        if write && map.flags & RDONLY_PROG != 0 {
            reject!(
                self,
                EACCES,
                "write into map forbidden, value_size={size_of} off={off} size={size}\n"
            );
        }
        if !write && map.flags & WRONLY_PROG != 0 {
            reject!(
                self,
                EACCES,
                "read from map forbidden, value_size={size_of} off={off} size={size}\n"
            );
        }
        Ok(())
    }

    /// `check_map_access`
    pub(crate) fn check_map_value(
        &mut self,
        n: usize,
        off: i32,
        size: i32,
        zero_ok: bool,
        direct: bool,
    ) -> R {
        let reg = self.reg(n);
        let Some(map) = reg.map().filter(|m| *m < self.maps.len()) else {
            return self.bug(format_args!("map"));
        };
        self.check_region(n, off, size, self.maps[map].value_size, zero_ok)?;
        let Some(record) = self.map_records[map].clone() else {
            return Ok(());
        };
        for f in &record.fields {
            let p = i64::from(f.offset);
            let off64 = i64::from(off);
            let overlaps = reg.smin + off64 < p + i64::from(f.size)
                && p < reg.umax as i64 + off64 + i64::from(size);
            if !overlaps {
                continue;
            }
            let name = f.name;
            if f.bit & (field::KPTR | field::UPTR) == 0 {
                reject!(
                    self,
                    EACCES,
                    "{name} cannot be accessed directly by load/store\n"
                );
            }
            if !direct {
                reject!(
                    self,
                    EACCES,
                    "{name} cannot be accessed indirectly by helper\n"
                );
            }
            if !reg.var_off.is_const() {
                reject!(self, EACCES, "{name} access cannot have variable offset\n");
            }
            let at = off64.wrapping_add(reg.var_off.value as i64);
            if p != at {
                reject!(
                    self,
                    EACCES,
                    "{name} access misaligned expected={p} off={}\n",
                    at as u64
                );
            }
            if size != 8 {
                reject!(self, EACCES, "{name} access size must be BPF_DW\n");
            }
        }
        Ok(())
    }

    /// An access to a map's value (`check_mem_access`). Whether what was read is known already.
    pub(super) fn check_value(&mut self, n: usize, reg: &Reg, access: Access) -> R<bool> {
        let Access { off, size, .. } = access;
        self.check_map_caps(n, off, size, access.write)?;
        self.check_map_value(n, off, size, false, true)?;
        if !reg.var_off.is_const() {
            return Ok(false);
        }
        let map = reg.map().unwrap_or(0);
        let at = off.wrapping_add(reg.var_off.value as i32);
        let kptrs = field::KPTR | field::UPTR;
        let record = self.map_records[map].as_ref();
        if let Some(f) = record.and_then(|r| r.find(at as u32, kptrs).copied()) {
            self.check_kptr(access.value, &f)?;
            return Ok(true);
        }
        if let Some(dst) = access.load()
            && self.maps[map].map_type == MapType::Array
            && let Some(v) = self.frozen_value(map, at, size, access.signed)
        {
            self.regs_mut()[dst] = Reg::constant(v);
            return Ok(true);
        }
        Ok(false)
    }

    /// `check_map_kptr_access`
    fn check_kptr(&mut self, value: Option<usize>, f: &RField) -> R {
        let insn = self.insns[self.insn_idx as usize];
        if insn.code & 0xe0 != BPF_MEM {
            reject!(
                self,
                EACCES,
                "kptr in map can only be accessed using BPF_MEM instruction mode\n"
            );
        }
        let refd = f.bit & (Fields::KPTR_REF.bits() | Fields::KPTR_PERCPU.bits()) != 0;
        if insn.class() != BPF_LDX && refd {
            reject!(self, EACCES, "store to referenced kptr disallowed\n");
        }
        if insn.class() != BPF_LDX && f.bit == field::UPTR {
            reject!(self, EACCES, "store to uptr disallowed\n");
        }
        match (insn.class(), value) {
            (BPF_LDX, Some(dst)) if f.bit == field::UPTR => {
                let id = bpfsim_btf::TypeId(f.target.1);
                let size = self.prog.btf.and_then(|b| b.size_of(id).ok()).unwrap_or(0);
                let mut reg = Reg::pointer(ty::MEM | ty::MAYBE_NULL);
                reg.a = size;
                reg.id = self.new_id();
                self.regs_mut()[dst] = reg;
                Ok(())
            }
            (BPF_LDX, Some(dst)) => {
                let flags = self.kptr_flags(f);
                self.load_btf(dst, ty::BTF_ID, f.target, flags)
            }
            (BPF_STX, Some(n)) => {
                let reg = self.reg(n);
                if !reg.is_null() {
                    self.kptr_match(f, &reg, n)
                        .map_err(|e| e.with(bpfsim_abi::Errno::EACCES))?;
                }
                Ok(())
            }
            (BPF_ST, _) => {
                if insn.imm != 0 {
                    reject!(
                        self,
                        EACCES,
                        "BPF_ST imm must be 0 when storing to kptr at off={}\n",
                        f.offset
                    );
                }
                Ok(())
            }
            _ => reject!(
                self,
                EACCES,
                "kptr in map can only be accessed using BPF_LDX/BPF_STX/BPF_ST\n"
            ),
        }
    }

    /// The constant that lies in a frozen, read-only map.
    fn frozen_value(&self, map: usize, off: i32, size: i32, signed: bool) -> Option<u64> {
        let data = self.maps[map].frozen.as_ref()?;
        let off = usize::try_from(off).ok()?;
        let bytes = data.get(off..off + size as usize)?;
        let mut buf = [0u8; 8];
        buf[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(buf);
        let shift = 64 - 8 * size as u32;
        Some(match signed {
            true => ((value << shift) as i64 >> shift) as u64,
            false => value,
        })
    }
}
