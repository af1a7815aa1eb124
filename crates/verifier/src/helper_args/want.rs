//! Which registers an argument takes: their types (`compatible_reg_types`), and what they may be off by.

use bpfsim_abi::helper::ArgBase;
use bpfsim_abi::{Errno, Func};
use bpfsim_btf::Kind;

use crate::helper_args::Meta;
use crate::log::type_str;
use crate::record::RField;
use crate::refusal::reject;
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::verifier::{R, Stop, Verifier};

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
    pub(super) fn of(base: ArgBase) -> Option<Want> {
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
        if want == Want::Mem {
            let name = meta.func.map_or("", |f| f.name());
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
        self.check_object(n, &reg, flags, btf_id, meta)
    }

    /// Whether a pointer to a kernel's type or to an object of the program is one that the argument takes.
    fn check_object(
        &mut self,
        n: usize,
        reg: &Reg,
        flags: u32,
        btf_id: Option<u32>,
        meta: &Meta,
    ) -> R {
        let xchg = meta.func == Some(Func::KptrXchg);
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
                        return self.kptr_arg(&f, reg, n);
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
                    return self.kptr_arg(&f, reg, n);
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
}
