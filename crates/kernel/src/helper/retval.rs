//! What the hook of a cgroup's program gives: `bpf_get_retval`, `bpf_set_retval`.

use super::{Helper, row};
use crate::prog::{ProgCtx, ProgMeta};
use crate::state::Cur;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{AttachType, Errno, Func, ProgType};
use bpfsim_vm::Flow;

pub(super) const HELPERS: &[Helper] = &[
    row(Func::GetRetval, false, |st, _, _| {
        Ok(Flow::Done(retval(&st.cur) as i64 as u64))
    }),
    row(Func::SetRetval, false, |st, _, a| {
        let value = a.r[0] as i32;
        st.cur.retval = value;
        if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
            ctx.set(CtxSlot::SockoptRetval, value as u32);
        }
        Ok(Flow::Done(0))
    }),
];

/// Of socket options the context's field is the same.
pub(crate) fn retval(cur: &Cur) -> i32 {
    match &cur.ctx {
        ProgCtx::Fields(ctx) if ctx.rule.layout.field(CtxSlot::SockoptRetval).is_some() => {
            ctx.get(CtxSlot::SockoptRetval) as i32
        }
        _ => cur.retval,
    }
}

/// `bpf_prog_run_array_cg` of one program: a refusal is `-EPERM` unless there is another errno.
#[inline]
pub(crate) fn hook_retval(meta: &ProgMeta, cur: &Cur, return_value: u32) -> i32 {
    use ProgType as P;
    /// `-MAX_ERRNO`
    const LEAST: i32 = -4095;
    let of_cgroup = match meta.prog_type {
        P::CgroupSock | P::CgroupSockAddr | P::CgroupSockopt | P::CgroupSysctl => true,
        P::CgroupDevice => true,
        P::Lsm => meta.attach_type == AttachType::LsmCgroup,
        _ => false,
    };
    if !of_cgroup {
        return 0;
    }
    let left = retval(cur);
    match return_value & 1 == 0 && !(LEAST..0).contains(&left) {
        true => -(Errno::EPERM.0 as i32),
        false => left,
    }
}
