//! `bpf_res_spin_lock`: locks that fail instead of waiting for ever.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, ret};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_res_spin_lock", true, |st, mem, a| {
        lock(st, mem, a, false)
    }),
    row("bpf_res_spin_unlock", true, |st, mem, a| {
        unlock(st, mem, a, false)
    }),
    row("bpf_res_spin_lock_irqsave", true, |st, mem, a| {
        lock(st, mem, a, true)
    }),
    row("bpf_res_spin_unlock_irqrestore", true, |st, mem, a| {
        unlock(st, mem, a, true)
    }),
];

fn lock(st: &mut State, mem: &mut GuestMem, a: &Args, irqsave: bool) -> Arg<Flow> {
    match st.res_spin_lock(mem, a.r[0]) {
        None => a.bad(1),
        Some(None) => Ok(Flow::Suspend),
        Some(Some(result)) => {
            if result.is_ok() {
                st.cur.preempt_off += 1;
                st.cur.irq_off += irqsave as u32;
            }
            done(result)
        }
    }
}

fn unlock(st: &mut State, mem: &mut GuestMem, a: &Args, irqsave: bool) -> Arg<Flow> {
    if st.res_spin_unlock(mem, a.r[0]).is_none() {
        return a.bad(1);
    }
    st.cur.preempt_off = st.cur.preempt_off.saturating_sub(1);
    if irqsave {
        st.irq_on();
    }
    Ok(Flow::Yield(0))
}

fn done(result: Result<(), Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result.map(|()| 0)) as u32 as u64))
}
