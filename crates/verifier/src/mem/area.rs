//! How far an access may reach from where a pointer points, whatever lies there: alignment,
//! the bounds of an area of known size, offsets that must be constant, packets, sockets and buffers.

use bpfsim_abi::ctx::{self, CtxRule};
use bpfsim_abi::prog::PacketAccess;

use crate::log::type_str;
use crate::planted;
use crate::refusal::{also, quiet, reject};
use crate::reg::{Reg, ty};
use crate::verifier::{MAX_VAR_OFF, R, Verifier};

impl Verifier<'_> {
    /// `check_ptr_alignment`
    pub(crate) fn check_alignment(&mut self, reg: &Reg, off: i32, size: i32, strict: bool) -> R {
        let mut strict = strict || self.opt.strict_alignment;
        let desc = match reg.ty {
            ty::PACKET | ty::PACKET_META => {
                let at = reg.var_off.add(crate::Tnum::constant(
                    (2 + i64::from(reg.off) + i64::from(off)) as u64,
                ));
                if strict && size != 1 && !at.is_aligned(size as u64) {
                    reject!(
                        self,
                        EACCES,
                        "misaligned packet access off 2+{}+{}+{off} size {size}\n",
                        reg.var_off,
                        reg.off
                    );
                }
                return Ok(());
            }
            ty::FLOW_KEYS => "flow keys ",
            ty::MAP_KEY => "key ",
            ty::MAP_VALUE => "value ",
            ty::CTX => "context ",
            ty::STACK => {
                strict = true;
                "stack "
            }
            ty::SOCKET => "sock ",
            ty::SOCK_COMMON => "sock_common ",
            ty::TCP_SOCK => "tcp_sock ",
            ty::XDP_SOCK => "xdp_sock ",
            ty::ARENA => return Ok(()),
            _ => "",
        };
        if !strict || size == 1 {
            return Ok(());
        }
        let at = reg.var_off.add(crate::Tnum::constant(
            (i64::from(reg.off) + i64::from(off)) as u64,
        ));
        if !at.is_aligned(size as u64) {
            reject!(
                self,
                EACCES,
                "misaligned {desc}access off {}+{}+{off} size {size}\n",
                reg.var_off,
                reg.off
            );
        }
        Ok(())
    }

    /// `__check_mem_access`
    fn check_area(&mut self, n: usize, off: i64, size: i32, area: i64, zero_ok: bool) -> R {
        let off = off as i32;
        let size_ok = size > 0 || size == 0 && zero_ok;
        let area = area + i64::from(planted::is(16) && self.reg(n).ty == ty::MAP_VALUE);
        if off >= 0 && size_ok && i64::from(off) + i64::from(size) <= area {
            return Ok(());
        }
        let reg = self.reg(n);
        match reg.ty {
            ty::MAP_KEY => reject!(
                self,
                EACCES,
                "invalid access to map key, key_size={area} off={off} size={size}\n"
            ),
            ty::MAP_VALUE => reject!(
                self,
                EACCES,
                "invalid access to map value, value_size={area} off={off} size={size}\n"
            ),
            ty::PACKET | ty::PACKET_META | ty::PACKET_END => reject!(
                self,
                EACCES,
                "invalid access to packet, off={off} size={size}, R{n}(id={},off={off},r={area})\n",
                reg.id
            ),
            _ => reject!(
                self,
                EACCES,
                "invalid access to memory, mem_size={area} off={off} size={size}\n"
            ),
        }
    }

    /// `check_mem_region_access`
    pub(crate) fn check_region(
        &mut self,
        n: usize,
        off: i32,
        size: i32,
        area: u32,
        zero_ok: bool,
    ) -> R {
        let reg = self.reg(n);
        let least = reg.smin.wrapping_add(off.into());
        if reg.smin < 0 && (reg.smin == i64::MIN || i32::try_from(least).is_err() || least < 0) {
            reject!(
                self,
                EACCES,
                "R{n} min value is negative, either use unsigned index or do a if (index >=0) check.\n"
            );
        }
        if let Err(e) = self.check_area(n, least, size, area.into(), zero_ok) {
            also!(
                self,
                "R{n} min value is outside of the allowed memory range\n"
            );
            return Err(e);
        }
        if reg.umax >= MAX_VAR_OFF as u64 {
            reject!(
                self,
                EACCES,
                "R{n} unbounded memory access, make sure to bounds check any such access\n"
            );
        }
        let most = (reg.umax as i64).wrapping_add(off.into());
        if let Err(e) = self.check_area(n, most, size, area.into(), zero_ok) {
            also!(
                self,
                "R{n} max value is outside of the allowed memory range\n"
            );
            return Err(e);
        }
        Ok(())
    }

    /// `__check_ptr_off_reg`
    pub(crate) fn check_ptr_off(&mut self, n: usize, fixed_ok: bool) -> R {
        let reg = self.reg(n);
        self.check_ptr_off_reg(&reg, n, fixed_ok)
    }

    pub(crate) fn check_ptr_off_reg(&mut self, reg: &Reg, n: usize, fixed_ok: bool) -> R {
        let t = type_str(reg.ty);
        if reg.off < 0 {
            reject!(
                self,
                EACCES,
                "negative offset {t} ptr R{n} off={} disallowed\n",
                reg.off
            );
        }
        if !fixed_ok && reg.off != 0 {
            reject!(
                self,
                EACCES,
                "dereference of modified {t} ptr R{n} off={} disallowed\n",
                reg.off
            );
        }
        if !reg.var_off.equals(0) {
            reject!(
                self,
                EACCES,
                "variable {t} access var_off={} disallowed\n",
                reg.var_off
            );
        }
        Ok(())
    }

    /// Whether programs of this type may touch the packet: `may_access_direct_pkt_data`.
    pub(crate) fn may_access_packet(&self, write: bool) -> bool {
        match PacketAccess::of(self.prog_type) {
            PacketAccess::None => false,
            PacketAccess::Read => !write,
            PacketAccess::ReadWrite => true,
        }
    }

    /// `check_packet_access`
    pub(crate) fn check_packet(&mut self, n: usize, off: i32, size: i32, zero_ok: bool) -> R {
        let reg = self.reg(n);
        if reg.smin < 0 {
            reject!(
                self,
                EACCES,
                "R{n} min value is negative, either use unsigned index or do a if (index >=0) check.\n"
            );
        }
        let result = match reg.range() < 0 {
            true => Err(quiet!(
                self,
                EINVAL,
                "a packet pointer that is at the packet's end or beyond it"
            )),
            false => self.check_area(n, off.into(), size, reg.range().into(), zero_ok),
        };
        if result.is_err() {
            also!(self, "R{n} offset is outside of the packet\n");
        }
        result
    }

    /// `check_sock_access`
    pub(super) fn check_sock(&mut self, n: usize, off: i32, size: i32) -> R {
        let reg = self.reg(n);
        if reg.smin < 0 {
            reject!(
                self,
                EACCES,
                "R{n} min value is negative, either use unsigned index or do a if (index >=0) check.\n"
            );
        }
        let rule: &CtxRule = match reg.ty {
            ty::SOCK_COMMON => &ctx::PTR_TO_SOCK_COMMON,
            ty::SOCKET => &ctx::PTR_TO_SOCKET,
            ty::TCP_SOCK => &ctx::PTR_TO_TCP_SOCK,
            _ => &ctx::PTR_TO_XDP_SOCK,
        };
        let valid = u32::try_from(off)
            .ok()
            .and_then(|o| rule.check(o, size as u32, false));
        if valid.is_none() {
            let t = type_str(reg.ty);
            reject!(
                self,
                EACCES,
                "R{n} invalid {t} access off={off} size={size}\n"
            );
        }
        Ok(())
    }

    /// `__check_buffer_access`
    pub(crate) fn check_buffer(&mut self, n: usize, what: &str, off: i32, size: i32) -> R {
        let reg = self.reg(n);
        if off < 0 {
            reject!(
                self,
                EACCES,
                "R{n} invalid {what} buffer access: off={off}, size={size}\n"
            );
        }
        if !reg.var_off.equals(0) {
            reject!(
                self,
                EACCES,
                "R{n} invalid variable buffer offset: off={off}, var_off={}\n",
                reg.var_off
            );
        }
        let most = match what {
            "rdonly" => &mut self.buffers.rdonly,
            "rdwr" => &mut self.buffers.rdwr,
            _ => return Ok(()),
        };
        *most = (*most).max((off + size) as u32);
        Ok(())
    }
}
