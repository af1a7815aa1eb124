//! Arguments of helpers (`check_func_arg`), and memory that calls read or fill.

use bpfsim_abi::helper::{ArgBase, ArgType, Of, Proto, TypeFlags};
use bpfsim_abi::{Errno, Func, MapType, ProgType};
use bpfsim_btf::Kind;

use crate::log::type_str;
use crate::precision::Backtrack;
use crate::refusal::{quiet, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::setup::RField;
use crate::special::Spi;
use crate::state::kind;
use crate::verifier::{MAX_VAR_OFF, R, Stop, Verifier, field};

/// What was learnt of a call's arguments (`struct bpf_call_arg_meta`).
#[derive(Default)]
pub(crate) struct Meta {
    pub func: Option<Func>,
    pub pkt_access: bool,
    pub map: Option<usize>,
    pub map_uid: u32,
    pub raw: bool,
    pub raw_access: (usize, i32),
    pub release: Option<usize>,
    pub ref_obj_id: u32,
    pub mem_size: u32,
    pub msize_max: u64,
    pub dynptr_id: u32,
    pub ret: (u32, u32),
    pub subprog: u32,
    pub kptr: Option<RField>,
    pub const_key: i64,
}

/// Which types of register an argument takes: `compatible_reg_types`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Want {
    Mem,
    Scalar,
    Map,
    Ctx,
    Sock,
    SockCommonBtf,
    FullSock,
    BtfId,
    Lock,
    RingbufMem,
    Percpu,
    Func,
    Stack,
    MapValue,
    KptrDest,
    Dynptr,
}

impl Want {
    fn of(base: ArgBase) -> Option<Want> {
        use ArgBase as A;
        Some(match base {
            A::MapKey | A::MapValue | A::Mem => Want::Mem,
            A::ConstSize | A::ConstSizeOrZero | A::ConstAllocSizeOrZero => Want::Scalar,
            A::ConstMapPtr => Want::Map,
            A::Ctx => Want::Ctx,
            A::SockCommon => Want::Sock,
            A::BtfIdSockCommon => Want::SockCommonBtf,
            A::Socket => Want::FullSock,
            A::BtfId => Want::BtfId,
            A::SpinLock => Want::Lock,
            A::RingbufMem => Want::RingbufMem,
            A::PercpuBtfId => Want::Percpu,
            A::Func => Want::Func,
            A::Stack => Want::Stack,
            A::ConstStr | A::Timer => Want::MapValue,
            A::KptrXchgDest => Want::KptrDest,
            A::Dynptr => Want::Dynptr,
            A::DontCare | A::Anything | A::Arena => return None,
        })
    }

    fn types(self) -> &'static [u32] {
        const TRUSTED: u32 = ty::BTF_ID | ty::TRUSTED;
        const PERCPU: u32 = ty::BTF_ID | ty::PERCPU;
        match self {
            Want::Mem => &[
                ty::STACK,
                ty::PACKET,
                ty::PACKET_META,
                ty::MAP_KEY,
                ty::MAP_VALUE,
                ty::MEM,
                ty::MEM | ty::RINGBUF,
                ty::BUF,
                TRUSTED,
            ],
            Want::Scalar => &[ty::SCALAR],
            Want::Map => &[ty::MAP_PTR],
            Want::Ctx => &[ty::CTX],
            Want::Sock => &[ty::SOCK_COMMON, ty::SOCKET, ty::TCP_SOCK, ty::XDP_SOCK],
            Want::SockCommonBtf => &[
                ty::SOCK_COMMON,
                ty::SOCKET,
                ty::TCP_SOCK,
                ty::XDP_SOCK,
                ty::BTF_ID,
                TRUSTED,
            ],
            Want::FullSock => &[ty::SOCKET],
            Want::BtfId => &[ty::BTF_ID, TRUSTED, ty::BTF_ID | ty::RCU],
            Want::Lock | Want::KptrDest => &[ty::MAP_VALUE, ty::BTF_ID | ty::ALLOC],
            Want::RingbufMem => &[ty::MEM | ty::RINGBUF],
            Want::Percpu => &[PERCPU, PERCPU | ty::RCU, PERCPU | ty::TRUSTED],
            Want::Func => &[ty::FUNC],
            Want::Stack => &[ty::STACK],
            Want::MapValue => &[ty::MAP_VALUE],
            Want::Dynptr => &[ty::STACK, ty::DYNPTR],
        }
    }
}

impl Verifier<'_> {
    /// `check_reg_type`
    pub(crate) fn check_reg_type(
        &mut self,
        n: usize,
        want: Want,
        flags: u32,
        btf_id: Option<u32>,
        meta: &mut Meta,
    ) -> R {
        let reg = self.reg(n);
        let mut t = reg.ty;
        t &= !(flags & (ty::RDONLY | ty::MAYBE_NULL));
        if want == Want::Mem {
            t &= !ty::DYN_MASK;
        }
        let xchg = meta.func == Some(Func::KptrXchg);
        if xchg && ty::is_alloc(t) && n == 2 {
            t &= !(ty::ALLOC | ty::PERCPU);
        }
        let types = want.types();
        if !types.contains(&t) {
            let names: Vec<String> = types.iter().map(|t| type_str(*t)).collect();
            reject!(
                self,
                EACCES,
                "R{n} type={} expected={}\n",
                type_str(reg.ty),
                names.join(", ")
            );
        }
        if reg.base() != ty::BTF_ID {
            return Ok(());
        }
        let name = meta.func.map_or("", |f| f.name());
        if want == Want::Mem {
            if flags & ty::RDONLY == 0 {
                reject!(
                    self,
                    EACCES,
                    "{name}() may write into memory pointed by R{n} type={}\n",
                    type_str(reg.ty)
                );
            }
            return Ok(());
        }
        let release = flags & ty::RELEASE != 0;
        match reg.ty & !ty::BASE {
            f if f & !(ty::TRUSTED | ty::RCU | ty::MAYBE_NULL) == 0
                && f & (ty::TRUSTED | ty::RCU) != ty::TRUSTED | ty::RCU =>
            {
                if ty::maybe_null(reg.ty) && (flags & ty::MAYBE_NULL == 0 || release) {
                    reject!(
                        self,
                        EACCES,
                        "Possibly NULL pointer passed to helper arg{n}\n"
                    );
                }
                if xchg {
                    if let Some(f) = meta.kptr {
                        return self.kptr_arg(&f, &reg, n);
                    }
                    return Ok(());
                }
                let sock = self.env.kernel.find("sock_common", Kind::Struct);
                let need = btf_id.or(sock.map(|i| i.0)).unwrap_or(0);
                let strict = release && meta.func != Some(Func::SkRelease);
                if !self.ids_match((reg.a, reg.b), reg.off, (BTF_KERNEL, need), strict)? {
                    let (is, want) = (
                        self.btf_name(reg.a, reg.b).to_owned(),
                        self.btf_name(BTF_KERNEL, need).to_owned(),
                    );
                    reject!(
                        self,
                        EACCES,
                        "R{n} is of type {is} but {want} is expected\n"
                    );
                }
                Ok(())
            }
            f if f & ty::ALLOC != 0 && f & !(ty::ALLOC | ty::PERCPU) == 0 => {
                if xchg
                    && n == 2
                    && let Some(f) = meta.kptr
                {
                    return self.kptr_arg(&f, &reg, n);
                }
                Ok(())
            }
            f if f & ty::PERCPU != 0 && f & !(ty::PERCPU | ty::RCU | ty::TRUSTED) == 0 => Ok(()),
            _ => self.bug(format_args!(
                "invalid PTR_TO_BTF_ID register for type match"
            )),
        }
    }

    fn kptr_arg(&mut self, f: &RField, reg: &Reg, n: usize) -> R {
        match self.kptr_match(f, reg, n) {
            Err(refused @ Stop::Refused(_)) => Err(refused.with(Errno::EACCES)),
            other => other,
        }
    }

    /// `check_func_arg_reg_off`
    pub(crate) fn check_arg_off(&mut self, reg: &Reg, n: usize, release: bool, dynptr: bool) -> R {
        if release {
            if dynptr && reg.ty == ty::STACK {
                return Ok(());
            }
            if reg.off != 0 {
                reject!(
                    self,
                    EINVAL,
                    "R{n} must have zero offset when passed to release func or trusted arg to kfunc\n"
                );
            }
            return self.check_ptr_off_reg(reg, n, false);
        }
        let flags = reg.ty & !ty::BASE;
        let free = match reg.base() {
            ty::STACK
            | ty::PACKET
            | ty::PACKET_META
            | ty::MAP_KEY
            | ty::MAP_VALUE
            | ty::ARENA
            | ty::SCALAR => flags == 0,
            ty::MEM => matches!(flags, 0 | ty::RDONLY | ty::RINGBUF),
            ty::BUF => matches!(flags, 0 | ty::RDONLY),
            _ => false,
        };
        if free {
            return Ok(());
        }
        const OWN: u32 = ty::ALLOC | ty::NON_OWN;
        const OWN_RCU: u32 = OWN | ty::RCU;
        let fixed = reg.base() == ty::BTF_ID
            && matches!(flags, 0 | ty::ALLOC | ty::TRUSTED | ty::RCU | OWN | OWN_RCU);
        self.check_ptr_off_reg(reg, n, fixed)
    }

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
        let denied = |v: &mut Self| -> R {
            let t = type_str(t);
            reject!(v, EACCES, "R{n} cannot write into {t}\n")
        };
        match reg.base() {
            ty::PACKET | ty::PACKET_META => self.check_packet(n, reg.off, size, zero_ok),
            ty::MAP_KEY => {
                if write {
                    return denied(self);
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
                    return denied(self);
                }
                self.check_region(n, reg.off, size, reg.mem_size(), zero_ok)
            }
            ty::BUF => {
                let rdonly = t & ty::RDONLY != 0;
                if rdonly && write {
                    return denied(self);
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
    fn constant_key(&mut self, n: usize, size: u32) -> R<Option<i64>> {
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

    /// `check_func_arg`
    pub(crate) fn check_arg(&mut self, proto: &Proto, i: usize, meta: &mut Meta) -> R {
        use ArgBase as A;
        let n = i + 1;
        let mut arg: ArgType = proto.args[i];
        if arg.base == A::DontCare {
            return Ok(());
        }
        self.read_reg(n)?;
        let reg = self.reg(n);
        if arg.base == A::Anything {
            return Ok(());
        }
        if ty::is_pkt(reg.ty) && !self.may_pass_packet(meta) {
            reject!(self, EACCES, "helper access to the packet is not allowed\n");
        }
        if arg.base == A::MapValue {
            match meta.map.map(|m| self.maps[m].map_type) {
                Some(MapType::Sockmap | MapType::Sockhash) => {
                    if !arg.flags.is_empty() {
                        reject!(self, EINVAL, "invalid arg_type for sockmap/sockhash\n");
                    }
                    arg.base = A::BtfIdSockCommon;
                }
                Some(MapType::BloomFilter) if meta.func == Some(Func::MapPeekElem) => {
                    arg.flags = TypeFlags::empty();
                }
                _ => {}
            }
        }
        let flags = arg.flags.bits();
        let release = flags & ty::RELEASE != 0;
        let dynptr = arg.base == A::Dynptr;
        if !(reg.is_null() && flags & ty::MAYBE_NULL != 0) {
            let Some(want) = Want::of(arg.base) else {
                return self.bug(format_args!("unsupported arg type"));
            };
            let btf_id = match arg.of {
                Of::Btf(name) => self.env.kernel.find(name, Kind::Struct).map(|id| id.0),
                _ => None,
            };
            self.check_reg_type(n, want, flags, btf_id, meta)?;
            self.check_arg_off(&reg, n, release, dynptr)?;
        }
        if release {
            self.check_release(n, &reg, dynptr, meta)?;
        }
        if reg.ref_obj_id != 0 && arg.base != A::KptrXchgDest {
            if meta.ref_obj_id != 0 {
                reject!(
                    self,
                    EACCES,
                    "more than one arg with ref_obj_id R{n} {} {}",
                    reg.ref_obj_id,
                    meta.ref_obj_id
                );
            }
            meta.ref_obj_id = reg.ref_obj_id;
        }
        self.check_arg_value(proto, i, &arg, &reg, meta)
    }

    fn may_pass_packet(&self, meta: &Meta) -> bool {
        self.may_access_packet(false)
            && (meta.pkt_access || self.prog_type == ProgType::CgroupSockopt)
    }

    fn check_release(&mut self, n: usize, reg: &Reg, dynptr: bool, meta: &mut Meta) -> R {
        if dynptr {
            if reg.ty != ty::STACK {
                reject!(self, EINVAL, "cannot release unowned const bpf_dynptr\n");
            }
            let held = match self.object_at(reg, "dynptr", 2) {
                Spi::At(spi) => self.frame_of(reg).stack[spi].reg.ref_obj_id != 0,
                _ => false,
            };
            if !held {
                reject!(self, EINVAL, "arg {n} is an unacquired reference\n");
            }
        } else if reg.ref_obj_id == 0 && !reg.is_null() {
            reject!(
                self,
                EINVAL,
                "R{n} must be referenced when passed to release function\n"
            );
        }
        meta.release = Some(n);
        Ok(())
    }

    fn check_arg_value(
        &mut self,
        proto: &Proto,
        i: usize,
        arg: &ArgType,
        reg: &Reg,
        meta: &mut Meta,
    ) -> R {
        use ArgBase as A;
        let n = i + 1;
        let flags = arg.flags;
        let writes = |a: ArgType| a.flags.contains(TypeFlags::MEM_WRITE);
        let map = meta.map.map(|m| &self.maps[m]);
        match arg.base {
            A::ConstMapPtr => {
                if meta.map.is_some() && (meta.map != reg.map() || meta.map_uid != reg.b) {
                    reject!(
                        self,
                        EINVAL,
                        "timer pointer in R1 map_uid={} doesn't match map pointer in R2 map_uid={}\n",
                        meta.map_uid,
                        reg.b
                    );
                }
                meta.map = reg.map();
                meta.map_uid = reg.b;
            }
            A::MapKey => {
                let Some(map) = map else {
                    return self.bug(format_args!("invalid map_ptr to access map->key"));
                };
                let size = map.key_size;
                self.check_helper_mem(n, size as i32, false, false, None)?;
                if matches!(map.map_type, MapType::Array | MapType::PercpuArray) {
                    meta.const_key = self.constant_key(n, size)?.unwrap_or(-1);
                }
            }
            A::MapValue => {
                if reg.is_null() && flags.contains(TypeFlags::PTR_MAYBE_NULL) {
                    return Ok(());
                }
                let Some(map) = map else {
                    return self.bug(format_args!("invalid map_ptr to access map->value"));
                };
                meta.raw = flags.contains(TypeFlags::MEM_UNINIT);
                let size = map.value_size as i32;
                self.check_helper_mem(n, size, writes(*arg), false, Some(meta))?;
            }
            A::PercpuBtfId => {
                if reg.b == 0 {
                    reject!(self, EACCES, "Helper has invalid btf_id in R{n}\n");
                }
                meta.ret = (reg.a, reg.b);
            }
            A::SpinLock => {
                if self.in_rbtree_cb() {
                    reject!(self, EACCES, "can't spin_{{lock,unlock}} in rbtree cb\n");
                }
                self.process_lock(n, proto.func == Func::SpinLock, false, false)?;
            }
            A::Timer => {
                self.check_map_field(n, field::TIMER, "bpf_timer")?;
                meta.map_uid = reg.b;
                meta.map = reg.map();
            }
            A::Func => meta.subprog = reg.a,
            A::Mem => {
                meta.raw = flags.contains(TypeFlags::MEM_UNINIT);
                if flags.contains(TypeFlags::MEM_FIXED_SIZE)
                    && let Of::Size(size) = arg.of
                {
                    self.check_helper_mem(n, size as i32, writes(*arg), false, Some(meta))?;
                    if flags.contains(TypeFlags::MEM_ALIGNED) {
                        self.check_alignment(reg, 0, size as i32, true)?;
                    }
                }
            }
            A::ConstSize | A::ConstSizeOrZero => {
                let write = i > 0 && writes(proto.args[i - 1]);
                let zero_ok = arg.base == A::ConstSizeOrZero;
                self.check_size_reg(n, write, zero_ok, meta)?;
            }
            A::Dynptr => {
                let insn = self.cur.insn_idx;
                self.process_dynptr(n, insn, flags.bits(), 0)?;
            }
            A::ConstAllocSizeOrZero => {
                if !reg.var_off.is_const() {
                    reject!(self, EACCES, "R{n} is not a known constant'\n");
                }
                meta.mem_size = reg.var_off.value as u32;
                self.mark_precise(n)?;
            }
            A::ConstStr => self.check_const_str(n)?,
            A::KptrXchgDest => self.check_kptr_dest(n, reg, meta)?,
            _ => {}
        }
        Ok(())
    }

    /// `process_kptr_func`
    fn check_kptr_dest(&mut self, n: usize, reg: &Reg, meta: &mut Meta) -> R {
        if !ty::is_alloc_obj(reg.ty) {
            let Some(map) = reg.map().filter(|m| *m < self.maps.len()) else {
                return self.bug(format_args!("map"));
            };
            if !self.maps[map].has_btf {
                reject!(
                    self,
                    EINVAL,
                    "map '{}' has to have BTF in order to use bpf_kptr_xchg\n",
                    self.maps[map].name
                );
            }
            meta.map = Some(map);
        }
        if !reg.var_off.is_const() {
            reject!(
                self,
                EINVAL,
                "R{n} doesn't have constant offset. kptr has to be at the constant offset\n"
            );
        }
        let record = self.reg_record(reg).filter(|r| r.has(field::KPTR));
        let Some(record) = record else {
            reject!(self, EINVAL, "R{n} has no valid kptr\n");
        };
        let off = reg.fixed_off();
        let Some(f) = record.find(off as u32, field::KPTR).copied() else {
            reject!(self, EACCES, "off={off} doesn't point to kptr\n");
        };
        if f.bit == bpfsim_abi::map::Fields::KPTR_UNREF.bits() {
            reject!(self, EACCES, "off={off} kptr isn't referenced kptr\n");
        }
        meta.kptr = Some(f);
        Ok(())
    }
}
