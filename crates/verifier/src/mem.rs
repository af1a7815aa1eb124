//! Loads, stores and atomic accesses, by what the pointer points to (`check_mem_access`).

use bpfsim_abi::ctx::{self, CtxRule, CtxShape, CtxValue};
use bpfsim_abi::map::Fields;
use bpfsim_abi::prog::PacketAccess;
use bpfsim_abi::{AttachType, MapType, ProgType};
use bpfsim_isa::{Insn, uapi::*};

use crate::log::type_str;
use crate::planted;
use crate::refusal::{also, quiet, refusal, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::setup::RField;
use crate::step::size_of;
use crate::verifier::{MAX_VAR_OFF, R, Verifier, field};

/// `BPF_F_RDONLY_PROG`
const RDONLY_PROG: u32 = 1 << 7;
/// `BPF_F_WRONLY_PROG`
const WRONLY_PROG: u32 = 1 << 8;

/// `sizeof(struct bpf_flow_keys)`
const FLOW_KEYS_SIZE: i64 = 56;

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
    fn check_sock(&mut self, n: usize, off: i32, size: i32) -> R {
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

    /// `check_ctx_access`; what a read gives.
    fn check_ctx(&mut self, off: i32, size: i32, write: bool, signed: bool) -> R<(Reg, bool)> {
        let attach = self.prog.attach_type;
        let mut out = Reg::UNKNOWN;
        let valid = match ctx::shape(self.prog_type, attach) {
            CtxShape::None if self.prog_type == ProgType::Ext => {
                return self.unsupported("extension programs");
            }
            CtxShape::Btf => {
                let fits = off >= 0 && off < ctx::RAW_TP_SIZE as i32 && !write && off % size == 0;
                match fits {
                    false => None,
                    true => match self.btf_ctx(off, size)? {
                        None => None,
                        Some((ty::SCALAR, _, _, retval)) => Some((Reg::UNKNOWN, retval)),
                        Some((t, id, ref_id, _)) => {
                            if ref_id != 0 && !self.cur.refs.iter().any(|r| r.id == ref_id) {
                                reject!(
                                    self,
                                    EACCES,
                                    "invalid bpf_context access off={off}. Reference may already be released\n"
                                );
                            }
                            let mut reg = Reg::pointer(t);
                            let id = self.promote_sock(id);
                            if ty::base(t) == ty::BTF_ID {
                                (reg.a, reg.b, reg.ref_obj_id) = (BTF_KERNEL, id, ref_id);
                            }
                            Some((reg, false))
                        }
                    },
                }
            }
            shape => {
                let access = u32::try_from(off)
                    .ok()
                    .and_then(|o| shape.check(o, size as u32, write));
                let access = access.filter(|a| !signed || a.value == CtxValue::Scalar);
                access.map(|a| {
                    let t = match a.value {
                        CtxValue::Scalar => ty::SCALAR,
                        CtxValue::Packet => ty::PACKET,
                        CtxValue::PacketMeta => ty::PACKET_META,
                        CtxValue::PacketEnd => ty::PACKET_END,
                        CtxValue::FlowKeys => ty::FLOW_KEYS,
                        CtxValue::Socket => ty::SOCKET,
                        CtxValue::SocketOrNull => ty::SOCKET | ty::MAYBE_NULL,
                        CtxValue::SockCommonOrNull => ty::SOCK_COMMON | ty::MAYBE_NULL,
                        CtxValue::TpBuffer => ty::TP_BUFFER,
                        CtxValue::Trusted(name) => {
                            out = Reg::pointer(ty::BTF_ID | ty::TRUSTED);
                            out.a = BTF_KERNEL;
                            out.b = self
                                .env
                                .kernel
                                .find(name, bpfsim_btf::Kind::Struct)
                                .map_or(0, |id| id.0);
                            ty::BTF_ID
                        }
                    };
                    if t != ty::SCALAR && t != ty::BTF_ID {
                        out = Reg::pointer(t);
                    }
                    (out, false)
                })
            }
        };
        match valid {
            Some(found) => {
                let end = u32::try_from(off + size).unwrap_or(0);
                self.max_ctx_offset = self.max_ctx_offset.max(end);
                Ok(found)
            }
            None => {
                let refused = refusal!(
                    self,
                    EACCES,
                    "invalid bpf_context access off={off} size={size}\n"
                );
                self.print_line(self.insn_idx as usize, format_args!("; "));
                Err(refused)
            }
        }
    }

    /// `bpf_tcp_ca_is_valid_access`: congestion control gets TCP sockets.
    fn promote_sock(&self, id: u32) -> u32 {
        let kernel = self.env.kernel;
        let find = |name| kernel.find(name, bpfsim_btf::Kind::Struct).map(|id| id.0);
        if self.prog_type == ProgType::StructOps
            && self.attach.name == Some("tcp_congestion_ops")
            && find("sock") == Some(id)
        {
            return find("tcp_sock").unwrap_or(id);
        }
        id
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
        let off = off.wrapping_add(reg.off);
        let load = value.filter(|_| !write);
        let mut unknown = load;
        let t = reg.ty;
        let rdonly = t & ty::RDONLY != 0;
        let denied = |v: &mut Self| -> R {
            let t = type_str(t);
            reject!(v, EACCES, "R{n} cannot write into {t}\n")
        };
        match reg.base() {
            ty::MAP_KEY if t == ty::MAP_KEY => {
                if write {
                    reject!(self, EACCES, "write to change key R{n} not allowed\n");
                }
                let size_of = reg.map().map_or(0, |m| self.maps[m].key_size);
                self.check_region(n, off, size, size_of, false)?;
            }
            ty::MAP_VALUE if t == ty::MAP_VALUE => {
                self.check_map_caps(n, off, size, write)?;
                self.check_map_value(n, off, size, false, true)?;
                let map = reg.map().unwrap_or(0);
                let at = off.wrapping_add(reg.var_off.value as i32);
                let kptr = match (&self.map_records[map], reg.var_off.is_const()) {
                    (Some(r), true) => r.find(at as u32, field::KPTR | field::UPTR).copied(),
                    _ => None,
                };
                if let Some(f) = kptr {
                    self.check_kptr(value, &f)?;
                    unknown = None;
                } else if let Some(dst) = load
                    && reg.var_off.is_const()
                    && self.maps[map].map_type == MapType::Array
                    && let Some(v) = self.frozen_value(map, at, size, signed)
                {
                    self.regs_mut()[dst] = Reg::constant(v);
                    unknown = None;
                }
            }
            ty::MEM => {
                if ty::maybe_null(t) {
                    let t = type_str(t);
                    reject!(self, EACCES, "R{n} invalid mem access '{t}'\n");
                }
                if write && rdonly {
                    return denied(self);
                }
                if !(rdonly && t & ty::UNTRUSTED != 0) {
                    self.check_region(n, off, size, reg.mem_size(), false)?;
                }
            }
            ty::CTX if t == ty::CTX => {
                self.check_ptr_off(n, false)?;
                let (mut found, retval) = self.check_ctx(off, size, write, signed)?;
                if let Some(dst) = load {
                    if found.is_scalar() {
                        if let (true, Some(range)) = (retval, self.lsm_range()) {
                            found.narrow_s32(range.0, range.1);
                        }
                    } else if ty::maybe_null(found.ty) {
                        found.id = self.new_id();
                    }
                    self.regs_mut()[dst] = found;
                }
                unknown = None;
            }
            ty::STACK if t == ty::STACK => {
                self.check_stack_bounds(n, off, size, write)?;
                match write {
                    true => self.stack_write(n, off, size, value)?,
                    false => self.stack_read(n, off, size, value)?,
                }
                unknown = None;
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
                    return denied(self);
                }
                self.check_sock(n, off, size)?;
            }
            ty::TP_BUFFER if t == ty::TP_BUFFER => {
                self.check_buffer(n, "tracepoint", off, size)?;
            }
            ty::BTF_ID if !ty::maybe_null(t) => {
                self.check_btf(n, off, size, write, value)?;
                unknown = None;
            }
            ty::MAP_PTR if t == ty::MAP_PTR => {
                self.check_map_ptr(n, off, size, write, value)?;
                unknown = None;
            }
            ty::BUF => {
                if rdonly && write {
                    return denied(self);
                }
                let what = if rdonly { "rdonly" } else { "rdwr" };
                self.check_buffer(n, what, off, size)?;
            }
            ty::ARENA if t == ty::ARENA => {}
            _ => {
                let t = type_str(t);
                reject!(self, EACCES, "R{n} invalid mem access '{t}'\n");
            }
        }
        if let Some(dst) = unknown {
            self.regs_mut()[dst] = Reg::UNKNOWN;
        }
        if let Some(dst) = load
            && size < 8
        {
            let reg = &mut self.regs_mut()[dst];
            if reg.is_scalar() {
                match signed {
                    false => reg.truncate(size as u32),
                    true => reg.sign_extend64(size as u32),
                }
            }
        }
        Ok(())
    }

    /// `bpf_lsm_get_retval_range`
    fn lsm_range(&self) -> Option<(i32, i32)> {
        if self.prog_type != ProgType::Lsm || self.prog.attach_type != AttachType::LsmMac {
            return None;
        }
        let name = self.attach.name?;
        let hook = name.strip_prefix("bpf_lsm_").unwrap_or(name);
        let range = bpfsim_abi::prog::return_range(
            self.prog_type,
            self.prog.attach_type,
            Some((hook, false)),
        )?;
        Some((range.0 as i32, range.1 as i32))
    }
}
