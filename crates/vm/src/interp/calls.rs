//! Calls and returns, and how a run goes on after a call out.

use super::{Around, MAY_GOTO_LIMIT};
use crate::activation::{Frame, MAX_FRAMES, TO_HOST};
use crate::host::{Call, Fault, FaultKind, Flow, Stop};
use crate::mem::{GuestMem, Refused};
use crate::shadow::{Checker, near};
use crate::{Activation, FRAME_SIZE};

/// How a call that was not simply done goes on.
pub(super) enum Next {
    /// After it.
    On,
    /// At another instruction.
    Goto(u32),
    /// Not now; as if it had not begun.
    Before,
    /// Not now; after it.
    After,
}

/// What an answer of the host means for checked mode.
#[cold]
#[inline(never)]
pub(super) fn reached(ck: &mut Checker, act: &Activation, flow: &Flow) {
    let depth = act.frames.len();
    let given: std::ops::Range<usize> = match *flow {
        Flow::Done(_) | Flow::Yield(_) => 0..1,
        Flow::CallBpf { .. } => {
            ck.pushed(depth);
            1..6
        }
        Flow::TailCall { .. } | Flow::Throw { .. } => {
            ck.replaced(depth);
            0..0
        }
        Flow::Suspend | Flow::Exit(_) | Flow::Fault(_) => 0..0,
    };
    for r in given.filter(|&r| near(act.regs[r])) {
        ck.given(r, act.regs[r]);
    }
}

/// The instruction at `pc` faults.
#[cold]
#[inline(never)]
pub(super) fn fault(around: &mut Around<'_, '_>, pc: usize, kind: FaultKind) {
    let pc = pc as u32;
    around.stop = Stop::Fault(Fault { pc, kind });
}

/// Its access - address, bytes, whether it writes - was refused.
#[cold]
#[inline(never)]
pub(super) fn refused(
    around: &mut Around<'_, '_>,
    pc: usize,
    why: Refused,
    (addr, size, write): (u64, u32, bool),
) {
    let kind = match why {
        Refused::Outside => FaultKind::Address { addr, size, write },
        Refused::Full => FaultKind::MemoryLimit,
    };
    fault(around, pc, kind);
}

#[inline(never)]
pub(super) fn is_visible(around: &Around<'_, '_>, call: Call, act: &Activation) -> bool {
    around.host.is_visible(call, act.args_ref())
}

#[inline(never)]
pub(super) fn resume(around: &mut Around<'_, '_>, r0: u64, mem: &mut GuestMem) -> Flow {
    around.host.resume(r0, mem)
}

/// What a call out answered, but for [`Flow::Done`]; `ret` is where the program goes on. Why it
/// does not goes to [`Around::stop`].
#[cold]
#[inline(never)]
pub(super) fn answered(
    act: &mut Activation,
    flow: &Flow,
    ret: usize,
    around: &mut Around<'_, '_>,
) -> Next {
    match *flow {
        Flow::Done(r0) => {
            act.regs[0] = r0;
            return Next::On;
        }
        Flow::Yield(r0) => {
            act.regs[0] = r0;
            around.stop = Stop::Yield;
        }
        Flow::Exit(r0) => around.stop = Stop::Exit(r0),
        Flow::TailCall { prog, entry } => {
            (act.prog, act.pc) = (prog, entry);
            act.may_goto = MAY_GOTO_LIMIT;
            around.stop = Stop::Switch;
        }
        Flow::Throw { entry, cookie } => {
            if let Some(outermost) = act.frames.first() {
                act.regs[10] = outermost.fp;
            }
            act.frames.clear();
            act.may_goto = MAY_GOTO_LIMIT;
            act.regs[1] = cookie;
            return Next::Goto(entry);
        }
        Flow::Suspend => {
            around.stop = Stop::Suspend;
            return Next::Before;
        }
        Flow::Fault(kind) => {
            fault(around, ret.wrapping_sub(1), kind);
            return Next::Before;
        }
        Flow::CallBpf { entry, args } => {
            if let Err(kind) = push(act, ret, true) {
                fault(around, ret.wrapping_sub(1), kind);
                return Next::Before;
            }
            act.regs[1..6].copy_from_slice(&args);
            return Next::Goto(entry);
        }
    }
    Next::After
}

#[inline(always)]
pub(super) fn push(act: &mut Activation, ret: usize, to_host: bool) -> Result<(), FaultKind> {
    let r = &mut act.regs;
    if act.frames.len() + 1 >= MAX_FRAMES {
        return Err(FaultKind::FrameDepth);
    }
    let depth = act.frames.len();
    if depth == act.frames.capacity() {
        act.frames.reserve_exact(MAX_FRAMES - 1 - depth);
    }
    act.frames.push(Frame {
        ret: ret as u32,
        may_goto: act.may_goto,
        from: u64::from(act.prog) | if to_host { TO_HOST } else { 0 },
        r6: r[6],
        r7: r[7],
        r8: r[8],
        r9: r[9],
        fp: r[10],
    });
    act.may_goto = MAY_GOTO_LIMIT;
    r[10] = r[10].wrapping_sub(FRAME_SIZE);
    Ok(())
}

#[inline(always)]
pub(super) fn restore(act: &mut Activation, frame: &Frame) {
    let r = &mut act.regs;
    (r[6], r[7], r[8], r[9], r[10]) = (frame.r6, frame.r7, frame.r8, frame.r9, frame.fp);
    act.may_goto = frame.may_goto;
}
