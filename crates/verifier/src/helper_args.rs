//! Arguments of helpers (`check_func_arg`), and memory that calls read or fill.

mod memory;
mod want;

use bpfsim_abi::helper::{ArgBase, ArgType, Of, Proto, TypeFlags};
use bpfsim_abi::{Func, MapType, ProgType};
use bpfsim_btf::Kind;
pub(crate) use want::Want;

use crate::record::RField;
use crate::refusal::reject;
use crate::reg::{Reg, ty};
use crate::special::Spi;
use crate::verifier::{R, Verifier, field};

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

fn writes(arg: ArgType) -> bool {
    arg.flags.contains(TypeFlags::MEM_WRITE)
}

impl Verifier<'_> {
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
            A::MapKey => self.map_key(n, meta)?,
            A::MapValue => self.map_value(n, arg, reg, meta)?,
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
            A::Mem => self.fixed_mem(n, arg, reg, meta)?,
            A::ConstSize | A::ConstSizeOrZero => {
                let write = i > 0 && writes(proto.args[i - 1]);
                let zero_ok = arg.base == A::ConstSizeOrZero;
                self.check_size_reg(n, write, zero_ok, meta)?;
            }
            A::Dynptr => {
                let insn = self.cur.insn_idx;
                self.process_dynptr(n, insn, arg.flags.bits(), 0)?;
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

    /// A key, as large as the map says that was handed in before it.
    fn map_key(&mut self, n: usize, meta: &mut Meta) -> R {
        let Some(map) = meta.map.map(|m| &self.maps[m]) else {
            return self.bug(format_args!("invalid map_ptr to access map->key"));
        };
        let (size, map_type) = (map.key_size, map.map_type);
        self.check_helper_mem(n, size as i32, false, false, None)?;
        if matches!(map_type, MapType::Array | MapType::PercpuArray) {
            meta.const_key = self.constant_key(n, size)?.unwrap_or(-1);
        }
        Ok(())
    }

    fn map_value(&mut self, n: usize, arg: &ArgType, reg: &Reg, meta: &mut Meta) -> R {
        if reg.is_null() && arg.flags.contains(TypeFlags::PTR_MAYBE_NULL) {
            return Ok(());
        }
        let Some(map) = meta.map.map(|m| &self.maps[m]) else {
            return self.bug(format_args!("invalid map_ptr to access map->value"));
        };
        let size = map.value_size as i32;
        meta.raw = arg.flags.contains(TypeFlags::MEM_UNINIT);
        self.check_helper_mem(n, size, writes(*arg), false, Some(meta))
    }

    /// Memory whose size the prototype names, or else the next argument.
    fn fixed_mem(&mut self, n: usize, arg: &ArgType, reg: &Reg, meta: &mut Meta) -> R {
        meta.raw = arg.flags.contains(TypeFlags::MEM_UNINIT);
        if arg.flags.contains(TypeFlags::MEM_FIXED_SIZE)
            && let Of::Size(size) = arg.of
        {
            self.check_helper_mem(n, size as i32, writes(*arg), false, Some(meta))?;
            if arg.flags.contains(TypeFlags::MEM_ALIGNED) {
                self.check_alignment(reg, 0, size as i32, true)?;
            }
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
