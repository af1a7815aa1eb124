//! The interpreter: one loop over pre-decoded ops.
//!
//! The budget is exact and costs nothing on straight lines. With `limit` the position at which it
//! would be used up were there only straight lines, a jump moves `limit` along; the comparison
//! against it is made only where a jump is taken, something is called or returns. `limit` lies
//! one straight line of the program early; when it is reached, a second compilation of the same
//! source goes on and counts every instruction.

mod access;
mod calls;

use crate::Activation;
use crate::activation::TO_HOST;
use crate::alu::{divided, w32, w64};
use crate::code::{SIGNED, operand_ops};
use crate::cursor::Cursor;
use crate::host::{Access, AccessKind, Call, FaultKind, Flow, Host, Other, Stop, Turn};
use crate::lower::Image;
use crate::mem::{GuestMem, Refused};
use crate::op::{F, Op, sequences};
use crate::shadow::{Checker, near};
use access::{
    arena_user_start, atomic, atomic_window, load_packet, load_window, probe, store_window,
    translate,
};
use calls::{Next, answered, fault, is_visible, push, reached, refused, restore, resume};
use std::hint::cold_path;
use std::mem::ManuallyDrop;

/// How far a run goes before it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To the end of the budget, of the program or to a call that suspends.
    Plain,
    /// Like `Plain`, and stops before each access to shared memory and each visible call.
    Explore,
}

/// Iterations of `may_goto` that one frame has (`BPF_MAX_LOOPS`).
pub(crate) const MAY_GOTO_LIMIT: u32 = 8 << 20;

/// Instructions that one call of [`run`] executes at most, so that positions do not overflow.
const MOST: u64 = 1 << 56;

/// Continues `act`, a run of `image`, for at most `budget` instructions.
///
/// [`Activation::insns`] grows by what was executed. After [`Stop::Exit`] and [`Stop::Fault`]
/// there is nothing left to continue.
#[inline]
pub fn run<H: Host>(
    image: &Image,
    act: &mut Activation,
    mem: &mut GuestMem,
    host: &mut H,
    budget: u64,
    mode: Mode,
) -> Stop {
    run_among(image, act, &mut [], mem, host, budget, mode)
}

/// What a run seldom needs, in one place, so that a run is begun with few arguments.
struct Around<'a, 'r> {
    host: &'r mut dyn Host,
    others: &'r mut [&'a mut Activation],
    /// Why it stopped, where nothing was returned; [`Stop::Budget`] as long as it runs.
    stop: Stop,
}

/// A compilation of [`go`].
type Loop = for<'a, 'r> fn(
    &Image,
    &'a mut Activation,
    &mut GuestMem,
    &mut Around<'a, 'r>,
    i64,
) -> Option<u64>;

/// All of them: checked or not, exploring or not, step by step or not. They are named here so that they are compiled
/// here, once, and not with whoever runs something.
static LOOPS: [[[Loop; 2]; 2]; 2] = [
    [
        [go::<false, false, false>, go::<true, false, false>],
        [go::<false, true, false>, go::<true, true, false>],
    ],
    [
        [go::<false, false, true>, go::<true, false, true>],
        [go::<false, true, true>, go::<true, true, true>],
    ],
];

/// [`run`], where [`Host::turn`] may let one of `others`, of the same image, go on in the place of
/// `act`. What executed last is in the place that was given last, or it is `act` still.
#[inline]
pub fn run_among<'a, H: Host>(
    image: &Image,
    act: &'a mut Activation,
    others: &mut [&'a mut Activation],
    mem: &mut GuestMem,
    host: &mut H,
    budget: u64,
    mode: Mode,
) -> Stop {
    let budget = budget.min(MOST) as i64;
    let step = budget <= image.ops().straight as i64;
    let explore = mode == Mode::Explore;
    let go = LOOPS[usize::from(mem.is_checked())][usize::from(explore)][usize::from(step)];
    let mut around = Around {
        host,
        others,
        stop: Stop::Budget,
    };
    match go(image, act, mem, &mut around, budget) {
        Some(r0) => Stop::Exit(r0),
        None => {
            // What an exit returned is not to wait for what else there might be.
            cold_path();
            around.stop
        }
    }
}

/// Runs from `act.pc`. With `STEP`, every instruction is counted; without it the caller makes
/// sure that `budget` is more than the longest straight line, and the rest is left to `STEP`.
/// With `CHECKED`, every access is held against the allocation that its pointer came from.
///
/// What an exit returned is the result, since two registers hold that; why else the run stopped goes to
/// [`Around::stop`].
#[inline(never)]
fn go<'a, const STEP: bool, const EXPLORE: bool, const CHECKED: bool>(
    image: &Image,
    mut act: &'a mut Activation,
    mem: &mut GuestMem,
    around: &mut Around<'a, '_>,
    budget: i64,
) -> Option<u64> {
    const SLOT: isize = size_of::<Op>() as isize;
    let all = image.ops();
    let (ops, slack) = match STEP {
        true => (&all.plain, 0),
        false => (&all.fast, all.straight),
    };
    let Some(mut pc) = Cursor::new(ops, act.pc as usize) else {
        fault(around, act.pc as usize, FaultKind::BadInsn);
        return None;
    };
    // All that it has goes back to the memory, so that there is nothing left to drop.
    let mut ck = ManuallyDrop::new(match CHECKED {
        true => Checker::begin(mem, act),
        false => Checker::none(),
    });
    // While it runs, `act.grant` is here, and `act.insns` is what it would be at `limit`.
    let mut granted = EXPLORE && act.grant;
    let most = budget as isize - slack as isize;
    let mut limit = pc.position() + most * SLOT;
    act.insns = act.insns.wrapping_add(most as u64);

    macro_rules! R {
        ($x:expr) => {
            act.regs[$x as usize]
        };
    }
    // Checked mode ends for now; the program goes on at `$at`.
    macro_rules! put_back {
        ($at:expr) => {
            let at = $at;
            ck.put_back(mem, act, at);
        };
    }
    // Lends the memory to the host, with all that checked mode knows.
    macro_rules! lend {
        (|$m:ident| $to:expr) => {{
            if CHECKED {
                put_back!(pc.index() + 1);
            }
            let $m = &mut *mem;
            let answer = $to;
            if CHECKED {
                ck.take_again(mem, act);
            }
            answer
        }};
    }
    // Holds an access through a register against its allocation.
    macro_rules! check {
        ($how:ident, $size:expr, $reg:expr, $addr:expr) => {
            if CHECKED {
                let at = || pc.index() + 1;
                if let Err(kind) = ck.$how::<{ $size }>($reg as usize, $addr, act, at) {
                    fault!(kind);
                }
            }
        };
    }
    // A register got a value from outside of the program.
    macro_rules! given {
        ($reg:expr) => {
            if CHECKED && near(R!($reg)) {
                let value = R!($reg);
                ck.given($reg as usize, value);
            }
        };
    }
    // Instructions to `limit`.
    macro_rules! left {
        () => {
            (limit - pc.position()) >> SLOT.trailing_zeros()
        };
    }
    macro_rules! insns {
        () => {
            act.insns.wrapping_sub(left!() as u64)
        };
    }
    // Stops where it is: before the current instruction, or after it. The loop says whether the host is
    // to be asked who goes on.
    macro_rules! ask {
        ($why:expr) => {{
            around.stop = $why;
            break true;
        }};
    }
    macro_rules! fault {
        ($kind:expr) => {{
            fault(around, pc.index(), $kind);
            break false;
        }};
    }
    macro_rules! refused {
        ($why:expr, $addr:expr, $size:expr, $write:expr) => {{
            let access = ($addr, $size as u32, $write);
            refused(around, pc.index(), $why, access);
            break false;
        }};
    }
    macro_rules! check_budget {
        () => {
            if !STEP && pc.position() > limit {
                break false;
            }
        };
    }
    macro_rules! jump {
        ($o:expr) => {{
            pc.jump($o.off);
            limit += $o.off as isize;
            check_budget!();
            continue;
        }};
    }
    macro_rules! goto {
        ($to:expr) => {{
            let next = pc.position() + SLOT;
            if !pc.goto($to) {
                fault!(FaultKind::BadInsn);
            }
            limit += pc.position() - next;
            check_budget!();
            continue;
        }};
    }
    // In Explore mode, stops before a visible access unless it was granted.
    macro_rules! gate {
        ($addr:expr, $size:expr, $kind:ident) => {
            gate!(GuestMem::is_shared($addr), $addr, $size, $kind)
        };
        ($shared:expr, $addr:expr, $size:expr, $kind:ident) => {
            if EXPLORE && $shared {
                if !granted {
                    ask!(Stop::Access(Access {
                        addr: $addr,
                        size: $size,
                        kind: AccessKind::$kind,
                    }));
                }
                granted = false;
            }
        };
    }
    // The guest address behind an address outside, if there is one and it may be touched now.
    macro_rules! translated {
        ($addr:expr, $size:expr, $kind:ident) => {{
            let write = !matches!(AccessKind::$kind, AccessKind::Read);
            let to = lend!(|m| translate(around, m, $addr, $size, write));
            if let Some(to) = to {
                gate!(to, $size as u8, $kind);
            }
            to
        }};
    }
    macro_rules! load {
        ($o:expr, $addr:expr, $t:ty, $as:ty) => {{
            const SIZE: usize = size_of::<$t>();
            let addr = $addr;
            match mem.offset(addr) {
                Some(off) => {
                    gate!(GuestMem::is_shared_at(off), addr, SIZE as u8, Read);
                    check!(load, SIZE, $o.s, addr);
                    let value = <$t>::from_le_bytes(mem.get(off)) as $as as u64;
                    if CHECKED && SIZE == 8 && near(value) {
                        ck.loaded($o.d as usize, addr, value);
                    }
                    value
                }
                None => {
                    gate!(addr, SIZE as u8, Read);
                    let to = translated!(addr, SIZE, Read);
                    match lend!(|m| load_window(around, m, addr, SIZE, to)) {
                        // A pointer that C sees 32 bits of fills its register.
                        Some(value) if <$t>::MIN == 0 => {
                            if CHECKED && near(value) {
                                ck.given($o.d as usize, value);
                            }
                            value
                        }
                        Some(value) => value as $t as $as as u64,
                        None => refused!(Refused::Outside, addr, SIZE, false),
                    }
                }
            }
        }};
    }
    // What it reads may be gone: that is what it is for.
    macro_rules! probe {
        ($o:expr) => {{
            let (addr, size) = (R!($o.s).wrapping_add($o.off as u64), $o.imm as u8 & !SIGNED);
            gate!(addr, size, Read);
            let to = match mem.has(addr) {
                true => Some(addr),
                false => translated!(addr, size as usize, Read),
            };
            if CHECKED && mem.has(addr) {
                ck.probed($o.s as usize, addr, size as u64, act, pc.index() + 1);
            }
            R!($o.d) = lend!(|m| probe(around, m, addr, $o.imm as u8, to));
            given!($o.d);
        }};
    }
    // `$s` is the register that is stored, or none.
    macro_rules! store {
        ($o:expr, $addr:expr, $t:ty, $v:expr $(, $s:expr)?) => {{
            const SIZE: usize = size_of::<$t>();
            let (addr, value) = ($addr, $v as $t);
            gate!(addr, SIZE as u8, Write);
            if mem.has(addr) {
                check!(store, SIZE, $o.d, addr);
            }
            $(if CHECKED && SIZE == 8 {
                ck.kept($s as usize, addr, value as u64);
            })?
            if let Err(why) = mem.store(addr, value.to_le_bytes()) {
                if matches!(why, Refused::Full) {
                    refused!(why, addr, SIZE, true)
                }
                let (value, to) = (value as u64, translated!(addr, SIZE, Write));
                let done = lend!(|m| store_window(around, m, addr, SIZE, value, to));
                if done.is_none() {
                    refused!(Refused::Outside, addr, SIZE, true)
                }
            }
        }};
    }
    macro_rules! atomic {
        ($o:expr, $size:expr) => {{
            let addr = R!($o.d).wrapping_add($o.off as u64);
            gate!(addr, $size, Rmw);
            if mem.has(addr) {
                check!(load, $size, $o.d, addr);
                check!(store, $size, $o.d, addr);
            }
            let to = match mem.has(addr) {
                true => Some(addr),
                false => translated!(addr, $size, Rmw),
            };
            let size = $size as u32;
            let done = match to {
                Some(to) => atomic(mem, &mut act.regs, $o, to, size),
                None => lend!(|m| atomic_window(around, m, &mut act.regs, $o, addr, size)),
            };
            if let Err(why) = done {
                refused!(why, to.unwrap_or(addr), size, true)
            }
            given!($o.s);
            given!(0);
        }};
    }
    macro_rules! packet {
        ($o:expr, $size:expr) => {{
            let offset = ($o.imm as i32).wrapping_add($o.off.wrapping_mul(R!($o.s) as i32));
            match lend!(|m| load_packet(around, offset, $size, m)) {
                Some(v) => R!(0) = v,
                None => {
                    pc.next();
                    ask!(Stop::Exit(0))
                }
            }
        }};
    }
    macro_rules! flow {
        ($flow:expr) => {
            match $flow {
                Flow::Done(r0) => {
                    R!(0) = r0;
                    given!(0);
                }
                Flow::Yield(r0) if EXPLORE => {
                    R!(0) = r0;
                    given!(0);
                    pc.next();
                    ask!(Stop::Yield)
                }
                other => {
                    let next = answered(act, &other, pc.index() + 1, around);
                    if CHECKED {
                        reached(&mut ck, act, &other);
                    }
                    match next {
                        Next::On => {}
                        Next::Goto(to) => goto!(to as usize),
                        Next::Before => break false,
                        Next::After => {
                            pc.next();
                            break matches!(around.stop, Stop::Exit(_));
                        }
                    }
                }
            }
        };
    }
    macro_rules! call_out {
        ($call:expr) => {{
            let call = $call;
            if EXPLORE {
                if !granted && is_visible(around, call, act) {
                    ask!(Stop::Call(call));
                }
                granted = false;
            }
            let insns = insns!().wrapping_add(1);
            flow!(lend!(|m| around.host.call(call, act.args_ref(), insns, m)))
        }};
    }
    macro_rules! exit {
        () => {{
            let Some(frame) = act.frames.pop() else {
                pc.next();
                if EXPLORE {
                    ask!(Stop::Exit(R!(0)));
                }
                (act.insns, act.pc) = (insns!(), pc.index() as u32);
                if CHECKED {
                    ck.ended();
                    put_back!(pc.index());
                }
                return Some(R!(0));
            };
            restore(act, &frame);
            if CHECKED {
                ck.popped(act.frames.len());
            }
            if frame.from == u64::from(act.prog) {
                goto!(frame.ret as usize);
            } else if frame.from as u32 != act.prog {
                if frame.from & TO_HOST != 0 {
                    fault!(FaultKind::TailCallInCallback);
                }
                // It returns from what a tail call went to.
                (act.prog, act.pc) = (frame.from as u32, frame.ret);
                pc.next();
                around.stop = Stop::Switch;
                break false;
            } else {
                // Back to the host's call.
                let before = pc.position();
                if !pc.goto((frame.ret as usize).wrapping_sub(1)) {
                    fault!(FaultKind::BadInsn);
                }
                limit += pc.position() - before;
                let r0 = R!(0);
                flow!(lend!(|m| resume(around, r0, m)));
                pc.next();
                check_budget!();
                continue;
            }
        }};
    }
    // What an operand is: the value written last, or that of its register.
    macro_rules! dst {
        (d, $o:expr, $v:expr) => {
            $v
        };
        ($rel:ident, $o:expr, $v:expr) => {
            R!($o.d)
        };
    }
    macro_rules! src {
        (s, $o:expr, $v:expr) => {
            $v
        };
        ($rel:ident, $o:expr, $v:expr) => {
            R!($o.s)
        };
    }
    // Of a division by an immediate the quotient (0) or the rest (1).
    macro_rules! quotient {
        ($w:ident $t:ty, $a:expr, $o:expr, $f:ident $nth:tt) => {
            match $o.off as u32 {
                0 => $w::$f($a as $t, $o.imm as $t) as u64,
                d => divided($a as $t as u64, d, $o.imm as u64).$nth,
            }
        };
    }
    // Shapes of ops: `a`lu and `j`umps of 64 bits, `w` of 32, with `i`mmediate or `r`egister; the
    // others by name. `$v` becomes what they write.
    macro_rules! elem {
        (ar mov $rel:ident, $o:expr, $v:ident) => {
            if CHECKED {
                ck.moved($o.d as usize, $o.s as usize);
            }
            $v = w64::mov(dst!($rel, $o, $v), src!($rel, $o, $v));
            R!($o.d) = $v;
        };
        (ar add $rel:ident, $o:expr, $v:ident) => {
            // Of a number and a pointer, the pointer's.
            if CHECKED && !near(dst!($rel, $o, $v)) {
                ck.moved($o.d as usize, $o.s as usize);
            }
            $v = w64::add(dst!($rel, $o, $v), src!($rel, $o, $v));
            R!($o.d) = $v;
        };
        (ai div $rel:ident, $o:expr, $v:ident) => {
            $v = quotient!(w64 u64, dst!($rel, $o, $v), $o, div 0);
            R!($o.d) = $v;
        };
        (ai rem $rel:ident, $o:expr, $v:ident) => {
            $v = quotient!(w64 u64, dst!($rel, $o, $v), $o, rem 1);
            R!($o.d) = $v;
        };
        (wi div $rel:ident, $o:expr, $v:ident) => {
            $v = quotient!(w32 u32, dst!($rel, $o, $v), $o, div 0);
            R!($o.d) = $v;
        };
        (wi rem $rel:ident, $o:expr, $v:ident) => {
            $v = quotient!(w32 u32, dst!($rel, $o, $v), $o, rem 1);
            R!($o.d) = $v;
        };
        (ai $f:ident $rel:ident, $o:expr, $v:ident) => {
            $v = w64::$f(dst!($rel, $o, $v), $o.imm as u64);
            R!($o.d) = $v;
        };
        (ar $f:ident $rel:ident, $o:expr, $v:ident) => {
            $v = w64::$f(dst!($rel, $o, $v), src!($rel, $o, $v));
            R!($o.d) = $v;
        };
        (wi $f:ident $rel:ident, $o:expr, $v:ident) => {
            $v = w32::$f(dst!($rel, $o, $v) as u32, $o.imm as u32) as u64;
            R!($o.d) = $v;
        };
        (wr $f:ident $rel:ident, $o:expr, $v:ident) => {
            $v = w32::$f(dst!($rel, $o, $v) as u32, src!($rel, $o, $v) as u32) as u64;
            R!($o.d) = $v;
        };
        (ji $f:ident $rel:ident, $o:expr, $v:ident) => {
            if w64::$f(dst!($rel, $o, $v), $o.imm as u64) {
                jump!($o)
            }
        };
        (jr $f:ident $rel:ident, $o:expr, $v:ident) => {
            if w64::$f(dst!($rel, $o, $v), src!($rel, $o, $v)) {
                jump!($o)
            }
        };
        (wji $f:ident $rel:ident, $o:expr, $v:ident) => {
            if w32::$f(dst!($rel, $o, $v) as u32, $o.imm as u32) {
                jump!($o)
            }
        };
        (wjr $f:ident $rel:ident, $o:expr, $v:ident) => {
            if w32::$f(dst!($rel, $o, $v) as u32, src!($rel, $o, $v) as u32) {
                jump!($o)
            }
        };
        (ld $t:ident $rel:ident, $o:expr, $v:ident) => {
            $v = load!($o, src!($rel, $o, $v).wrapping_add($o.off as u64), $t, $t);
            R!($o.d) = $v;
        };
        (sr $t:ident $rel:ident, $o:expr, $v:ident) => {
            store!(
                $o,
                dst!($rel, $o, $v).wrapping_add($o.off as u64),
                $t,
                src!($rel, $o, $v),
                $o.s
            );
        };
        (swap $t:ident $rel:ident, $o:expr, $v:ident) => {
            $v = (dst!($rel, $o, $v) as $t).swap_bytes() as u64;
            R!($o.d) = $v;
        };
        (ldimm, $o:expr, $v:ident) => {
            R!($o.d) = $o.imm as u64;
            given!($o.d);
            pc.next();
            limit += SLOT;
        };
        (ja, $o:expr, $v:ident) => {
            jump!($o)
        };
        (call, $o:expr, $v:ident) => {
            call_out!(Call::Helper($o.imm as u32))
        };
        (bpf, $o:expr, $v:ident) => {{
            if let Err(kind) = push(act, pc.index() + 1, false) {
                fault!(kind)
            }
            if CHECKED {
                ck.pushed(act.frames.len());
            }
            jump!($o)
        }};
        (exit, $o:expr, $v:ident) => {
            exit!()
        };
    }
    macro_rules! one {
        ($o:expr, $($shape:tt)*) => {{
            #[allow(unused, reason = "for the next op, and there is none")]
            let v: u64;
            elem!($($shape)*, $o, v);
        }};
    }
    macro_rules! dispatch {
        (alu { $($af:ident: $a:ident, $b:ident, $c:ident, $d:ident;)* }
         jmp { $($jf:ident: $e:ident, $f:ident, $g:ident, $h:ident;)* }
         others { $($others:tt)* }
         sequences { $($name:ident = [$k0:ident $($shape0:tt)*] $([$k:ident $($shape:tt)*])*;)* }) => {
            loop {
                if STEP && pc.position() >= limit {
                    break false;
                }
                let o = pc.op();
                match o.f {
                    $(F::$a => one!(o, ai $af x),
                      F::$b => one!(o, ar $af x),
                      F::$c => one!(o, wi $af x),
                      F::$d => one!(o, wr $af x),)*
                    $(F::$e => one!(o, ji $jf x),
                      F::$f => one!(o, jr $jf x),
                      F::$g => one!(o, wji $jf x),
                      F::$h => one!(o, wjr $jf x),)*
                    F::Neg64 => R!(o.d) = R!(o.d).wrapping_neg(),
                    F::Neg32 => R!(o.d) = (R!(o.d) as u32).wrapping_neg() as u64,
                    F::Sx8To64 => R!(o.d) = R!(o.s) as i8 as u64,
                    F::Sx16To64 => R!(o.d) = R!(o.s) as i16 as u64,
                    F::Sx32To64 => R!(o.d) = R!(o.s) as i32 as u64,
                    F::Sx8To32 => R!(o.d) = R!(o.s) as i8 as u32 as u64,
                    F::Sx16To32 => R!(o.d) = R!(o.s) as i16 as u32 as u64,
                    F::Zx16 => R!(o.d) = R!(o.d) as u16 as u64,
                    F::Zx32 => R!(o.d) = R!(o.d) as u32 as u64,
                    F::Swap16 => one!(o, swap u16 x),
                    F::Swap32 => one!(o, swap u32 x),
                    F::Swap64 => one!(o, swap u64 x),
                    F::LdImm64 => one!(o, ldimm),
                    F::Ld8 => one!(o, ld u8 x),
                    F::Ld16 => one!(o, ld u16 x),
                    F::Ld32 => one!(o, ld u32 x),
                    F::Ld64 => one!(o, ld u64 x),
                    F::Probe => probe!(o),
                    F::LdS8 => R!(o.d) = load!(o, R!(o.s).wrapping_add(o.off as u64), i8, i64),
                    F::LdS16 => R!(o.d) = load!(o, R!(o.s).wrapping_add(o.off as u64), i16, i64),
                    F::LdS32 => R!(o.d) = load!(o, R!(o.s).wrapping_add(o.off as u64), i32, i64),
                    F::St8I => store!(o, R!(o.d).wrapping_add(o.off as u64), u8, o.imm),
                    F::St16I => store!(o, R!(o.d).wrapping_add(o.off as u64), u16, o.imm),
                    F::St32I => store!(o, R!(o.d).wrapping_add(o.off as u64), u32, o.imm),
                    F::St64I => store!(o, R!(o.d).wrapping_add(o.off as u64), u64, o.imm),
                    F::St8R => one!(o, sr u8 x),
                    F::St16R => one!(o, sr u16 x),
                    F::St32R => one!(o, sr u32 x),
                    F::St64R => one!(o, sr u64 x),
                    F::Atomic32 => atomic!(o, 4),
                    F::Atomic64 => atomic!(o, 8),
                    F::LdPkt8 => packet!(o, 1),
                    F::LdPkt16 => packet!(o, 2),
                    F::LdPkt32 => packet!(o, 4),
                    F::Ja => jump!(o),
                    F::CastKern => R!(o.d) = R!(o.s) as u32 as u64,
                    F::CastUser => {
                        let low = R!(o.s) as u32 as u64;
                        let start = arena_user_start(around) & !(u32::MAX as u64);
                        R!(o.d) = if low == 0 { 0 } else { start | low };
                    }
                    F::MayGoto => {
                        if act.may_goto == 0 {
                            jump!(o)
                        } else {
                            act.may_goto -= 1;
                        }
                    }
                    F::CallHelper => one!(o, call),
                    F::CallKfunc => call_out!(Call::Kfunc(o.imm as u32)),
                    F::CallBpf => one!(o, bpf),
                    F::CallX => {
                        let id = u32::try_from(R!(o.s)).unwrap_or(u32::MAX);
                        call_out!(Call::Helper(id))
                    }
                    F::Exit => one!(o, exit),
                    F::Bad => fault!(FaultKind::BadInsn),
                    $(F::$name => {
                        // Never in plain ops.
                        if STEP {
                            fault!(FaultKind::BadInsn)
                        }
                        #[allow(unused, reason = "what nothing in the sequence uses")]
                        let mut v: u64;
                        elem!($($shape0)*, o, v);
                        $({
                            pc.next();
                            #[allow(unused, reason = "an exit has no operands")]
                            let o = pc.op();
                            elem!($($shape)*, o, v);
                        })*
                    })*
                }
                pc.next();
            }
        };
    }
    let mut other = Other::default();
    #[allow(
        unused_assignments,
        reason = "values that the next op of a sequence does not use"
    )]
    loop {
        let asks = operand_ops!(sequences dispatch);
        // The host may let it go on at once.
        if EXPLORE && asks && ck.is_quiet() {
            let at_limit = act.insns;
            (act.insns, act.pc) = (insns!(), pc.index() as u32);
            match around.host.turn(&around.stop, act, mem, &mut other) {
                Turn::Nobody => act.insns = at_limit,
                Turn::Same => {
                    (act.insns, granted) = (at_limit, !matches!(around.stop, Stop::Yield));
                    around.stop = Stop::Budget;
                    continue;
                }
                Turn::Other => {
                    let Other {
                        place,
                        grant,
                        budget,
                        ctx,
                        cpu,
                    } = other;
                    let Some(other) = around.others.get_mut(place) else {
                        fault(around, pc.index(), FaultKind::BadInsn);
                        break;
                    };
                    let over = matches!(around.stop, Stop::Exit(_));
                    around.stop = Stop::Budget;
                    act.grant = granted;
                    granted = grant;
                    std::mem::swap(&mut act, other);
                    if CHECKED {
                        if over {
                            ck.ended();
                        }
                        ck.exchange(act, ctx, cpu);
                    }
                    let slack = if STEP { 0 } else { image.ops().straight };
                    let most = budget.min(MOST) as isize - slack as isize;
                    act.insns = act.insns.wrapping_add(most as u64);
                    if !pc.goto(act.pc as usize) {
                        fault(around, act.pc as usize, FaultKind::BadInsn);
                        break;
                    }
                    limit = pc.position() + most * SLOT;
                    if !STEP && pc.position() > limit {
                        break;
                    }
                    continue;
                }
            }
        }
        break;
    }
    act.insns = insns!();
    if EXPLORE {
        act.grant = granted;
    }
    if !matches!(around.stop, Stop::Switch) {
        act.pc = pc.index() as u32;
    }
    if !STEP && matches!(around.stop, Stop::Budget) {
        if CHECKED {
            put_back!(pc.index());
        }
        let left = left!();
        return rest::<EXPLORE, CHECKED>(image, act, mem, around, left);
    }
    if CHECKED {
        if matches!(around.stop, Stop::Exit(_)) {
            ck.ended();
        }
        put_back!(pc.index());
    }
    None
}

/// The last instructions of the budget: those after the limit that is `left` away.
#[cold]
#[inline(never)]
fn rest<'a, const EXPLORE: bool, const CHECKED: bool>(
    image: &Image,
    act: &'a mut Activation,
    mem: &mut GuestMem,
    around: &mut Around<'a, '_>,
    left: isize,
) -> Option<u64> {
    let budget = left as i64 + image.ops().straight as i64;
    go::<true, EXPLORE, CHECKED>(image, act, mem, around, budget)
}
