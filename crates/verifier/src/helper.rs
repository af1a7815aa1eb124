//! Calls of helpers (`check_helper_call`).

use bpfsim_abi::helper::{Allowed, ArgBase, D_PATH_FUNCS, Of, Proto, ProtoFlags, RetBase};
use bpfsim_abi::{AttachType, Func, MapType, ProgType};
use bpfsim_btf::{Kind, Type, TypeId};
use bpfsim_isa::Insn;

use crate::helper_args::Meta;
use crate::log::{type_str, verbose};
use crate::refusal::{also, quiet, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::subprog::Callback;
use crate::verifier::{R, Verifier, field};

/// `bpf_helper_changes_pkt_data`
pub(crate) fn changes_pkt(func: Func) -> bool {
    func == Func::TailCall
        || bpfsim_abi::helper::all_protos().any(|p| p.func == func && p.is(ProtoFlags::CHANGES_PKT))
}

/// `is_acquire_function`
fn acquires(func: Func, map: Option<MapType>) -> bool {
    match func {
        Func::SkLookupTcp
        | Func::SkLookupUdp
        | Func::SkcLookupTcp
        | Func::RingbufReserve
        | Func::KptrXchg => true,
        Func::MapLookupElem => matches!(map, Some(MapType::Sockmap | MapType::Sockhash)),
        _ => false,
    }
}

/// `is_ptr_cast_function`
fn casts(func: Func) -> bool {
    matches!(
        func,
        Func::TcpSock
            | Func::SkFullsock
            | Func::SkcToTcpSock
            | Func::SkcToTcp6Sock
            | Func::SkcToUdp6Sock
            | Func::SkcToMptcpSock
            | Func::SkcToTcpTimewaitSock
            | Func::SkcToTcpRequestSock
    )
}

impl Verifier<'_> {
    /// Conditions on the program beyond its type: `bpf_func_proto::allowed`.
    fn helper_allowed(&self, proto: &Proto) -> bool {
        let attach = self.prog.attach_type;
        let name = self.attach.name.unwrap_or("");
        match proto.allowed {
            Allowed::Always => true,
            Allowed::DPath => match self.prog_type {
                ProgType::Tracing if attach == AttachType::TraceIter => true,
                ProgType::Lsm => bpfsim_abi::prog::lsm_hook_in(
                    bpfsim_abi::prog::SLEEPABLE_LSM_HOOKS,
                    name.strip_prefix("bpf_lsm_").unwrap_or(name),
                ),
                _ => D_PATH_FUNCS.contains(&name),
            },
            Allowed::SleepableLsmHook => bpfsim_abi::prog::lsm_hook_in(
                bpfsim_abi::prog::SLEEPABLE_LSM_HOOKS,
                name.strip_prefix("bpf_lsm_").unwrap_or(name),
            ),
            Allowed::SkStorageTracing => match attach {
                AttachType::TraceIter | AttachType::TraceRawTp => true,
                AttachType::TraceFentry | AttachType::TraceFexit => {
                    !name.starts_with("bpf_sk_storage")
                }
                _ => false,
            },
        }
    }

    /// `check_helper_call`
    pub(crate) fn check_helper_call(&mut self, insn: Insn) -> R {
        let id = insn.imm;
        let func = u32::try_from(id).ok().and_then(crate::verifier::func);
        let Some(func) = func else {
            reject!(self, EINVAL, "invalid func unknown#{id}\n");
        };
        let name = func.name();
        let Some(proto) = self.helper_proto(id) else {
            reject!(
                self,
                EINVAL,
                "program of this type cannot use helper {name}#{id}\n"
            );
        };
        if !self.prog.gpl_compatible && proto.is(ProtoFlags::GPL_ONLY) {
            reject!(
                self,
                EINVAL,
                "cannot call GPL-restricted function from non-GPL compatible program\n"
            );
        }
        if !self.helper_allowed(proto) {
            reject!(self, EINVAL, "helper call is not allowed in probe\n");
        }
        let sleeps = proto.is(ProtoFlags::MIGHT_SLEEP);
        if sleeps {
            let c = &self.cur;
            if !c.in_sleepable {
                reject!(
                    self,
                    EINVAL,
                    "helper call might sleep in a non-sleepable prog\n"
                );
            }
            let region = [
                (c.active_rcu, "rcu_read_lock"),
                (c.active_preempt != 0, "non-preemptible"),
                (c.active_irq_id != 0, "IRQ-disabled"),
            ];
            for (held, what) in region {
                if held {
                    reject!(
                        self,
                        EINVAL,
                        "sleepable helper {name}#{id} in {what} region\n"
                    );
                }
            }
        }
        let mut meta = Meta {
            func: Some(func),
            pkt_access: proto.is(ProtoFlags::PKT_ACCESS),
            ..Meta::default()
        };
        for i in 0..proto.args.len() {
            self.check_arg(proto, i, &mut meta)?;
        }
        self.record_map(func, &meta)?;
        let (n, size) = meta.raw_access;
        for i in 0..size {
            self.check_mem(n, i, 1, true, None, false, false)?;
        }
        self.release_arg(proto, &meta)?;
        let changes = changes_pkt_cached(proto) | self.special_helper(func, &mut meta)?;
        let arg1 = self.reg(1);
        self.clear_caller_saved();
        self.helper_return(proto, &meta, &arg1)?;
        self.refine_return(proto, &meta)?;
        if let Some(map) = meta.map {
            self.check_compatible(map, func)?;
        }
        if func == Func::GetFuncIp {
            self.check_func_ip(name, id)?;
        }
        if func == Func::TailCall {
            if self.cur.curframe() == 0 {
                return Ok(());
            }
            // What it jumps to may change the packet, and returns to this function's caller.
            let idx = self.insn_idx;
            self.push_stack(idx + 1, idx)?;
            self.clear_packet();
            self.regs_mut()[0] = Reg::UNKNOWN;
            self.live_commit(self.cur.insn_idx as usize);
            self.live_update_all();
            self.leave_func()?;
            self.insn_idx -= 1;
            return Ok(());
        }
        if changes {
            self.clear_packet();
        }
        Ok(())
    }

    /// `record_func_map`, `record_func_key`
    fn record_map(&mut self, func: Func, meta: &Meta) -> R {
        let takes = matches!(
            func,
            Func::TailCall
                | Func::MapLookupElem
                | Func::MapUpdateElem
                | Func::MapDeleteElem
                | Func::MapPushElem
                | Func::MapPopElem
                | Func::MapPeekElem
                | Func::ForEachMapElem
                | Func::RedirectMap
                | Func::MapLookupPercpuElem
        );
        let Some(map) = meta.map.filter(|_| takes) else {
            return Ok(());
        };
        let writes = matches!(
            func,
            Func::MapDeleteElem | Func::MapUpdateElem | Func::MapPushElem | Func::MapPopElem
        );
        if writes && self.maps[map].flags & 1 << 7 != 0 {
            reject!(self, EACCES, "write into map forbidden\n");
        }
        self.aux[self.cur.insn_idx as usize].map = map as u32 + 1;
        if func == Func::TailCall {
            if self.maps[map].map_type != MapType::ProgArray {
                reject!(self, EINVAL, "expected prog array map for tail call");
            }
            let key = self.reg(3);
            if key.is_const(false) && key.var_off.value < u64::from(self.maps[map].max_entries) {
                self.mark_precise(3)?;
            }
        }
        Ok(())
    }

    fn release_arg(&mut self, proto: &Proto, meta: &Meta) -> R {
        let Some(n) = meta.release else {
            return Ok(());
        };
        let func = proto.func;
        let ok = if proto.args[n - 1].base == ArgBase::Dynptr {
            self.unmake_dynptr(n)?;
            true
        } else if func == Func::KptrXchg && meta.ref_obj_id != 0 {
            let rcu = self.in_rcu();
            let id = meta.ref_obj_id;
            let dropped = self.cur.drop_ref(id);
            if dropped {
                self.cur.each_reg(|reg| {
                    if reg.ref_obj_id != id {
                        return;
                    }
                    if rcu && reg.ty & ty::ALLOC != 0 && reg.ty & ty::PERCPU != 0 {
                        reg.ref_obj_id = 0;
                        reg.ty = reg.ty & !ty::ALLOC | ty::RCU;
                    } else {
                        *reg = Reg::UNKNOWN;
                    }
                });
            }
            dropped
        } else if meta.ref_obj_id != 0 {
            self.release_ref(meta.ref_obj_id)?
        } else {
            self.reg(n).is_null()
        };
        if !ok {
            reject!(
                self,
                EINVAL,
                "func {}#{} reference has not been acquired before\n",
                func.name(),
                func.number()
            );
        }
        Ok(())
    }

    /// What single helpers ask beyond their arguments; whether the packet may have moved.
    fn special_helper(&mut self, func: Func, meta: &mut Meta) -> R<bool> {
        match func {
            Func::TailCall => self.check_leaks(false, true, "tail_call")?,
            Func::GetLocalStorage if !self.reg(2).is_null() => {
                reject!(
                    self,
                    EINVAL,
                    "get_local_storage() doesn't support non-zero flags\n"
                );
            }
            Func::ForEachMapElem => self.call_back(meta.subprog, Callback::MapElem)?,
            Func::TimerSetCallback => self.call_back(meta.subprog, Callback::Timer)?,
            Func::FindVma => self.call_back(meta.subprog, Callback::FindVma)?,
            Func::UserRingbufDrain => self.call_back(meta.subprog, Callback::UserRingbuf)?,
            Func::Snprintf => self.check_snprintf()?,
            Func::Loop => {
                self.update_loop_inline(meta.subprog)?;
                self.mark_precise(1)?;
                if u64::from(self.cur.top().callback_depth) < self.reg(1).umax {
                    self.call_back(meta.subprog, Callback::Loop)?;
                } else {
                    self.cur.top_mut().callback_depth = 0;
                    if self.log.level2() {
                        let frame = self.cur.curframe();
                        verbose!(self, "frame{frame} bpf_loop iteration limit reached\n");
                    }
                }
            }
            Func::DynptrFromMem => {
                let t = self.reg(1).ty;
                if t != ty::MAP_VALUE {
                    let t = type_str(t);
                    reject!(
                        self,
                        EACCES,
                        "Unsupported reg type {t} for bpf_dynptr_from_mem data\n"
                    );
                }
            }
            Func::SetRetval => {
                let kernel = self.env.kernel;
                let ret = self
                    .attach
                    .proto
                    .and_then(|p| crate::btf_ctx::func_proto(kernel, p));
                if self.prog_type == ProgType::Lsm
                    && self.prog.attach_type == AttachType::LsmCgroup
                    && ret.is_some_and(|p| p.ret == TypeId::VOID)
                {
                    reject!(
                        self,
                        EINVAL,
                        "BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!\n"
                    );
                }
            }
            Func::DynptrData => {
                let reg = self.reg(1);
                if meta.ref_obj_id != 0 {
                    return self.bug(format_args!("meta.ref_obj_id already set"));
                }
                let Some(d) = self.dynptr_of(&reg) else {
                    return self.bug(format_args!("failed to obtain dynptr id"));
                };
                meta.dynptr_id = d.id;
                meta.ref_obj_id = d.ref_obj_id;
            }
            Func::DynptrWrite => {
                let reg = self.reg(1);
                return match self.dynptr_of(&reg) {
                    Some(d) if d.a != 0 => Ok(matches!(d.a, 3 | 5)),
                    _ => Err(quiet!(self, EFAULT, "bpf_dynptr_write into no dynptr")),
                };
            }
            _ => {}
        }
        Ok(false)
    }

    /// `update_loop_inline_state`
    fn update_loop_inline(&mut self, subprog: u32) -> R {
        let at = self.cur.insn_idx as usize;
        let zero = |v: &mut Self| -> R<bool> {
            let null = v.reg(4).is_null();
            if null {
                v.mark_precise(4)?;
            }
            Ok(null)
        };
        self.aux[at].loop_inline = match self.aux[at].loop_inline {
            None => Some((zero(self)?, subprog)),
            Some((false, s)) => Some((false, s)),
            Some((true, s)) => Some((zero(self)? && s == subprog, s)),
        };
        Ok(())
    }

    /// `check_bpf_snprintf_call`
    fn check_snprintf(&mut self) -> R {
        let (fmt, len) = (self.reg(3), self.reg(5));
        if len.var_off.value % 8 != 0 {
            return Err(quiet!(
                self,
                EINVAL,
                "the data of bpf_snprintf is no multiple of eight bytes"
            ));
        }
        let data = fmt.map().and_then(|m| self.maps[m].frozen.clone());
        let text = data
            .as_ref()
            .and_then(|d| d.get(fmt.fixed_off() as usize..));
        let Some(text) = text else {
            reject!(self, EFAULT, "failed to retrieve map value address\n");
        };
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        if !format_ok(&text[..end], len.var_off.value / 8) {
            reject!(self, EINVAL, "Invalid format string\n");
        }
        Ok(())
    }

    fn helper_return(&mut self, proto: &Proto, meta: &Meta, arg1: &Reg) -> R {
        let func = proto.func;
        let mut flags = proto.ret.flags.bits();
        let mut reg = match proto.ret.base {
            RetBase::Integer => Reg::UNKNOWN,
            RetBase::Void => Reg::NOT_INIT,
            RetBase::MapValue => {
                let Some(map) = meta.map else {
                    return self.bug(format_args!("unexpected null map_ptr"));
                };
                let desc = &self.maps[map];
                let array = matches!(desc.map_type, MapType::Array | MapType::PercpuArray);
                if func == Func::MapLookupElem
                    && array
                    && (0..i64::from(desc.max_entries)).contains(&meta.const_key)
                {
                    flags &= !ty::MAYBE_NULL;
                }
                let mut reg = Reg::pointer(ty::MAP_VALUE | flags);
                (reg.a, reg.b) = (map as u32 + 1, meta.map_uid);
                let locks = field::SPIN_LOCK | field::RES_SPIN_LOCK;
                let record = self.map_records[map].as_ref();
                if flags & ty::MAYBE_NULL == 0 && record.is_some_and(|r| r.has(locks)) {
                    reg.id = self.new_id();
                }
                reg
            }
            RetBase::Socket => Reg::pointer(ty::SOCKET | flags),
            RetBase::SockCommon => Reg::pointer(ty::SOCK_COMMON | flags),
            RetBase::TcpSock => Reg::pointer(ty::TCP_SOCK | flags),
            RetBase::Mem => {
                let mut reg = Reg::pointer(ty::MEM | flags);
                reg.a = meta.mem_size;
                reg
            }
            RetBase::MemOrBtfId => self.percpu_return(meta, flags, arg1)?,
            RetBase::BtfId => {
                let mut reg = Reg::pointer(ty::BTF_ID | flags);
                if let (Func::KptrXchg, Some(f)) = (func, meta.kptr) {
                    (reg.a, reg.b) = f.target;
                    if f.target.0 != BTF_KERNEL {
                        reg.ty |= ty::ALLOC;
                        if f.bit == bpfsim_abi::map::Fields::KPTR_PERCPU.bits() {
                            reg.ty |= ty::PERCPU;
                        }
                    }
                } else {
                    let id = match proto.ret.of {
                        Of::Btf(name) => self.env.kernel.find(name, Kind::Struct),
                        _ => None,
                    };
                    (reg.a, reg.b) = (BTF_KERNEL, id.map_or(0, |id| id.0));
                }
                if reg.b == 0 {
                    reject!(
                        self,
                        EINVAL,
                        "invalid return type 8 of func {}#{}\n",
                        func.name(),
                        func.number()
                    );
                }
                reg
            }
        };
        if ty::maybe_null(reg.ty) {
            reg.id = self.new_id();
        }
        if func == Func::DynptrData {
            reg.b = meta.dynptr_id;
        }
        if casts(func) || func == Func::DynptrData {
            reg.ref_obj_id = meta.ref_obj_id;
        } else if acquires(func, meta.map.map(|m| self.maps[m].map_type)) {
            let id = self.acquire_ref(self.cur.insn_idx);
            reg.id = id;
            reg.ref_obj_id = id;
        }
        self.regs_mut()[0] = reg;
        Ok(())
    }

    fn percpu_return(&mut self, meta: &Meta, flags: u32, arg1: &Reg) -> R<Reg> {
        let (which, id) = meta.ret;
        let resolved = self.btf(which).and_then(|b| b.resolve(TypeId(id)).ok());
        let is_struct = matches!(resolved, Some((_, Type::Struct(_) | Type::Union(_))));
        if !is_struct {
            let size = self.btf(which).and_then(|b| b.size_of(TypeId(id)).ok());
            let Some(size) = size else {
                let name = self.btf_name(which, id).to_owned();
                reject!(
                    self,
                    EINVAL,
                    "unable to resolve the size of type '{name}': -22\n"
                );
            };
            let mut reg = Reg::pointer(ty::MEM | flags);
            reg.a = size;
            return Ok(reg);
        }
        let mut reg = Reg::pointer(match arg1.ty & ty::RCU {
            0 => ty::BTF_ID | flags & !ty::RDONLY,
            _ => ty::BTF_ID | ty::ALLOC | ty::RCU,
        });
        (reg.a, reg.b) = meta.ret;
        Ok(reg)
    }

    /// `do_refine_retval_range`
    fn refine_return(&mut self, proto: &Proto, meta: &Meta) -> R {
        if proto.ret.base != RetBase::Integer || !proto.ret.flags.is_empty() {
            return Ok(());
        }
        let cpus = self.env.cpus.saturating_sub(1);
        let r0 = &mut self.regs_mut()[0];
        match proto.func {
            Func::GetStack
            | Func::GetTaskStack
            | Func::ProbeReadStr
            | Func::ProbeReadKernelStr
            | Func::ProbeReadUserStr => {
                r0.smax = meta.msize_max as i64;
                r0.s32max = meta.msize_max as i32;
                r0.smin = -4095;
                r0.s32min = -4095;
                r0.sync();
            }
            Func::GetSmpProcessorId => {
                (r0.umin, r0.umax) = (0, cpus.into());
                (r0.smin, r0.smax) = (0, cpus.into());
                (r0.u32min, r0.u32max) = (0, cpus);
                (r0.s32min, r0.s32max) = (0, cpus as i32);
                r0.sync();
            }
            _ => {}
        }
        self.check_sane(0, "retval")
    }

    /// `check_map_func_compatibility`
    pub(crate) fn check_compatible(&mut self, map: usize, func: Func) -> R {
        let t = self.maps[map].map_type;
        let attach = self.prog.attach_type;
        if bpfsim_abi::map::compatible(t, func, self.prog_type, attach) {
            return Ok(());
        }
        let sockmap = matches!(t, MapType::Sockmap | MapType::Sockhash);
        if sockmap
            && matches!(func, Func::MapUpdateElem | Func::MapDeleteElem)
            && !bpfsim_abi::map::may_update_sockmap(self.prog_type, attach, func)
        {
            also!(self, "cannot update sockmap in this context\n");
        }
        reject!(
            self,
            EINVAL,
            "cannot pass map_type {} into func {}#{}\n",
            t.number(),
            func.name(),
            func.number()
        );
    }

    fn check_func_ip(&mut self, name: &str, id: i32) -> R {
        match self.prog_type {
            ProgType::Kprobe => Ok(()),
            ProgType::Tracing => match self.prog.attach_type {
                AttachType::TraceFentry | AttachType::TraceFexit | AttachType::ModifyReturn => {
                    Ok(())
                }
                _ => reject!(
                    self,
                    ENOTSUPP,
                    "func {name}#{id} supported only for fentry/fexit/fmod_ret programs\n"
                ),
            },
            t => reject!(
                self,
                ENOTSUPP,
                "func {name}#{id} not supported for program type {}\n",
                t.number()
            ),
        }
    }
}

fn changes_pkt_cached(proto: &Proto) -> bool {
    proto.is(ProtoFlags::CHANGES_PKT)
}

/// `bpf_bprintf_prepare` without arguments: whether the format is one it takes.
fn format_ok(fmt: &[u8], args: u64) -> bool {
    let mut used = 0;
    let mut i = 0;
    let at = |i: usize| fmt.get(i).copied().unwrap_or(0);
    while i < fmt.len() {
        let c = fmt[i];
        if !(c.is_ascii_graphic() || c == b' ' || c.is_ascii_whitespace() || c == 0x0b) {
            return false;
        }
        if c != b'%' {
            i += 1;
            continue;
        }
        if at(i + 1) == b'%' {
            i += 2;
            continue;
        }
        if used >= args {
            return false;
        }
        i += 1;
        while matches!(at(i), b'0' | b'+' | b'-' | b' ') {
            i += 1;
        }
        if matches!(at(i), b'1'..=b'9') {
            while at(i).is_ascii_digit() {
                i += 1;
            }
        }
        let blank = |c: u8| c == 0 || c.is_ascii_whitespace() || c.is_ascii_punctuation();
        if at(i) == b'p' {
            i += 1;
            let c = at(i);
            if matches!(c, b'k' | b'u') && at(i + 1) == b's' {
                i += 2;
            } else if blank(c) || matches!(c, b'K' | b'x' | b's' | b'S' | b'B') {
                i += usize::from(!blank(c));
            } else if matches!(c, b'i' | b'I') && matches!(at(i + 1), b'4' | b'6') {
                i += 2;
            } else {
                return false;
            }
            used += 1;
            continue;
        }
        if matches!(at(i), b's' | b'c') {
            i += 1;
            used += 1;
            continue;
        }
        while at(i) == b'l' {
            i += 1;
        }
        if !matches!(at(i), b'i' | b'd' | b'u' | b'x' | b'X') {
            return false;
        }
        i += 1;
        used += 1;
    }
    true
}
