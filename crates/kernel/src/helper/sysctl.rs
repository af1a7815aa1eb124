//! Helpers on the kernel's parameters (`/proc/sys`), for programs of cgroups that watch over them.

use super::packet::done;
use super::{Arg, Args, Helper, row};
use crate::packet::FieldsCtx;
use crate::prog::{ProgCtx, Sysctl};
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::SysctlGetName, false, get_name),
    row(Func::SysctlGetCurrentValue, false, |st, mem, a| {
        value(st, mem, a, |s| Some(s.current.clone()))
    }),
    row(Func::SysctlGetNewValue, false, |st, mem, a| {
        value(st, mem, a, |s| s.new.clone())
    }),
    row(Func::SysctlSetNewValue, false, set_new_value),
];

/// The parameter that the program is asked about. Without one of a test's, it has no name and no
/// value.
fn subject(st: &State) -> Sysctl {
    let ProgCtx::Fields(ctx) = &st.cur.ctx else {
        return Sysctl::default();
    };
    ctx.sysctl.clone().unwrap_or_default()
}

fn fields<'a>(st: &'a mut State, a: &Args) -> Arg<&'a mut FieldsCtx> {
    match &mut st.cur.ctx {
        ProgCtx::Fields(ctx) => Ok(ctx),
        _ => a.bad(1),
    }
}

/// `bpf_sysctl_get_name(ctx, buf, buf_len, flags)`: `E2BIG` for what is cut.
fn get_name(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const F_BASE_NAME: u64 = 1;
    let name = subject(st).name;
    let name = match a.r[3] & F_BASE_NAME {
        0 => name.as_str(),
        _ => name.rsplit('/').next().unwrap_or(""),
    };
    let Some(to) = mem.slice_mut(a.r[1], a.r[2] as u32 as u64) else {
        return a.bad(2);
    };
    let Some(room) = to.len().checked_sub(1) else {
        return done(Err(Errno::E2BIG));
    };
    let cut = name.len().min(room);
    to[..cut].copy_from_slice(&name.as_bytes()[..cut]);
    to[cut] = 0;
    match cut < name.len() {
        true => done(Err(Errno::E2BIG)),
        false => done(Ok(cut as u64)),
    }
}

/// `copy_sysctl_value`: `EINVAL` without a value, `E2BIG` for one that is cut.
fn value(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    of: fn(&Sysctl) -> Option<Vec<u8>>,
) -> Arg<Flow> {
    let value = of(&subject(st)).filter(|v| !v.is_empty());
    let Some(to) = mem.slice_mut(a.r[1], a.r[2] as u32 as u64) else {
        return a.bad(2);
    };
    let Some(last) = to.len().checked_sub(1) else {
        return done(Err(Errno::E2BIG));
    };
    to.fill(0);
    let Some(value) = value else {
        return done(Err(Errno::EINVAL));
    };
    let cut = value.len().min(to.len());
    to[..cut].copy_from_slice(&value[..cut]);
    if to.len() > value.len() {
        return done(Ok(value.len() as u64));
    }
    to[last] = 0;
    done(Err(Errno::E2BIG))
}

/// `bpf_sysctl_set_new_value(ctx, buf, buf_len)`
fn set_new_value(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `PAGE_SIZE - 1`
    const MOST: u64 = 4095;
    let len = a.r[2] as u32 as u64;
    let written = subject(st).new.is_some_and(|new| !new.is_empty());
    if !written || len == 0 {
        return done(Err(Errno::EINVAL));
    }
    if len > MOST {
        return done(Err(Errno::E2BIG));
    }
    let value = a.bytes(mem, 2, len)?.into_vec();
    let ctx = fields(st, a)?;
    if let Some(sysctl) = &mut ctx.sysctl {
        sysctl.new = Some(value);
    }
    done(Ok(0))
}
