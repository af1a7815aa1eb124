//! Helpers that ask about the hook that a program runs at.

use super::{Arg, Args, Helper, ret, row};
use crate::kfunc::{self, Kfunc};
use crate::state::{Session, State};
use bpfsim_abi::ctx::PT_REGS_NAMES;
use bpfsim_abi::{AttachType, Errno, Func, ProgType};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::GetAttachCookie, false, |st, _, _| {
        Ok(Flow::Done(st.cur.hook.as_ref().map_or(0, |h| h.cookie)))
    }),
    row(Func::GetFuncIp, false, |st, _, _| {
        Ok(Flow::Done(st.cur.hook.as_ref().map_or(0, |h| h.func_ip)))
    }),
    row(Func::OverrideReturn, false, |st, mem, a| {
        if let Some(hook) = &mut st.cur.hook {
            hook.overrides = Some(a.r[1]);
        }
        // Where `ax` is in `struct pt_regs`.
        let ax = PT_REGS_NAMES.iter().position(|&n| n == "ax").unwrap_or(0);
        let written = mem.write_u64(a.r[0].wrapping_add(8 * ax as u64), a.r[1]);
        written.map_or_else(|| a.bad(1), |()| Ok(Flow::Done(0)))
    }),
    row(Func::GetFuncArgCnt, false, |_, mem, a| {
        nr_args(mem, a).map(Flow::Done)
    }),
    row(Func::GetFuncArg, false, |_, mem, a| {
        let nth = u64::from(a.r[1] as u32);
        let known = nth < nr_args(mem, a)?;
        word(mem, a, if known { Ok(nth) } else { Err(Errno::EINVAL) }, 3)
    }),
    row(Func::GetFuncRet, false, |st, mem, a| {
        let prog = &st.progs[st.cur.prog.at()];
        let kind = (prog.prog_type, prog.attach_type);
        let returns = matches!(
            kind,
            (ProgType::Lsm, _)
                | (
                    ProgType::Tracing,
                    AttachType::TraceFexit | AttachType::ModifyReturn
                )
        );
        let at = nr_args(mem, a)?;
        let at = if returns {
            Ok(at)
        } else {
            Err(Errno::EOPNOTSUPP)
        };
        word(mem, a, at, 2)
    }),
];

/// Kfuncs that ask the same.
pub(crate) const KFUNCS: &[Kfunc] = &[
    kfunc::row("bpf_session_is_return", false, |st, _, _| {
        Ok(Flow::Done(session(st).is_some_and(|s| s.returns).into()))
    }),
    kfunc::row("bpf_session_cookie", false, |st, _, _| {
        Ok(Flow::Done(session(st).map_or(0, |s| s.cookie)))
    }),
];

fn session(st: &State) -> Option<Session> {
    st.cur.hook.as_ref()?.session
}

/// The number of arguments lies before them.
fn nr_args(mem: &GuestMem, a: &Args) -> Arg<u64> {
    let count = mem.read_u64(a.r[0].wrapping_sub(8));
    count.map_or_else(|| a.bad(1), Ok)
}

/// Puts a word of the context where an argument points to.
fn word(mem: &mut GuestMem, a: &Args, nth: Result<u64, Errno>, to: u8) -> Arg<Flow> {
    let at = match nth {
        Ok(nth) => a.r[0].wrapping_add(8 * nth),
        Err(errno) => return Ok(Flow::Done(ret(Err(errno)))),
    };
    let Some(word) = mem.read_u64(at) else {
        return a.bad(1);
    };
    match mem.write_u64(a.r[to as usize - 1], word) {
        Some(()) => Ok(Flow::Done(0)),
        None => a.bad(to),
    }
}

impl State {
    /// Where a function of the kernel is; 0 for one that it has not.
    pub fn function_address(&self, name: &str) -> u64 {
        self.ksym_address(name).unwrap_or(0)
    }
}
