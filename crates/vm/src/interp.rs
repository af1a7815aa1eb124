//! The interpreter: one loop over pre-decoded ops.
//!
//! The budget is exact and costs nothing on straight lines. With `origin` the (virtual) pc at
//! which counting began, `pc - origin` instructions have been executed; a jump moves `origin`
//! along. The comparison against the budget is made only where control goes backwards, is
//! called or returns; when less than a program's length is left, a second compilation of the
//! same source counts every instruction.

use crate::activation::{Frame, MAX_FRAMES};
use crate::alu::{w32, w64};
use crate::code::{Code, FETCH, K, atomic_op, operand_ops};
use crate::host::{Access, AccessKind, Call, Fault, FaultKind, Flow, Host, Stop};
use crate::lower::Image;
use crate::mem::GuestMem;
use crate::{Activation, FRAME_SIZE};
use bpfsim_isa::AtomicOp;

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

/// Continues `act`, a run of `image`, for at most `budget` instructions.
///
/// [`Activation::insns`] grows by what was executed. After [`Stop::Exit`] and [`Stop::Fault`]
/// there is nothing left to continue.
pub fn run<H: Host>(
    image: &Image,
    act: &mut Activation,
    mem: &mut GuestMem,
    host: &mut H,
    budget: u64,
    mode: Mode,
) -> Stop {
    let mut left = i64::try_from(budget).unwrap_or(i64::MAX).min(1 << 60);
    let slack = image.code().len() as i64 + 1;
    if left > slack {
        let before = act.insns;
        let stop = match mode {
            Mode::Plain => Loop { act, mem, host }.run::<false, false>(image.code(), left, slack),
            Mode::Explore => Loop { act, mem, host }.run::<false, true>(image.code(), left, slack),
        };
        if stop != Stop::Budget {
            return stop;
        }
        left -= (act.insns - before) as i64;
    }
    match mode {
        Mode::Plain => Loop { act, mem, host }.run::<true, false>(image.code(), left, 0),
        Mode::Explore => Loop { act, mem, host }.run::<true, true>(image.code(), left, 0),
    }
}

struct Loop<'a, H> {
    act: &'a mut Activation,
    mem: &'a mut GuestMem,
    host: &'a mut H,
}

/// Where a load or store goes.
enum Place {
    Guest(u32),
    Window,
}

impl<H: Host> Loop<'_, H> {
    #[inline(always)]
    fn place(&self, addr: u64) -> Place {
        match self.mem.offset(addr) {
            Some(off) => Place::Guest(off),
            None => Place::Window,
        }
    }

    #[inline(always)]
    fn load<const N: usize>(&mut self, addr: u64) -> Result<[u8; N], FaultKind> {
        match self.place(addr) {
            Place::Guest(off) => Ok(self.mem.get(off)),
            Place::Window => self.load_window(addr),
        }
    }

    #[cold]
    fn load_window<const N: usize>(&mut self, addr: u64) -> Result<[u8; N], FaultKind> {
        let fault = FaultKind::Address {
            addr,
            size: N as u32,
            write: false,
        };
        let value = self.host.load(addr, N as u32, self.mem).ok_or(fault)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&value.to_le_bytes()[..N]);
        Ok(bytes)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, addr: u64, bytes: [u8; N]) -> Result<(), FaultKind> {
        match self.place(addr) {
            Place::Guest(off) => match self.mem.put(off, bytes) {
                true => Ok(()),
                false => Err(FaultKind::MemoryLimit),
            },
            Place::Window => self.store_window(addr, bytes),
        }
    }

    #[cold]
    fn store_window<const N: usize>(&mut self, addr: u64, bytes: [u8; N]) -> Result<(), FaultKind> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes);
        let fault = FaultKind::Address {
            addr,
            size: N as u32,
            write: true,
        };
        self.host
            .store(addr, N as u32, u64::from_le_bytes(wide), self.mem)
            .ok_or(fault)
    }

    #[inline(never)]
    fn atomic(&mut self, o: Code, size: u32) -> Result<(), FaultKind> {
        let addr = self.act.regs[o.d as usize & 15].wrapping_add(o.off as u64);
        let bad = FaultKind::Address {
            addr,
            size,
            write: true,
        };
        let Place::Guest(_) = self.place(addr) else {
            return Err(bad);
        };
        let old = match size {
            4 => u32::from_le_bytes(self.load(addr)?) as u64,
            _ => u64::from_le_bytes(self.load(addr)?),
        };
        let fetch = o.t & FETCH != 0;
        let cut = |v: u64| if size == 4 { v as u32 as u64 } else { v };
        let src = self.act.regs[o.s as usize & 15];
        let op = atomic_op(o.t);
        let new = match op {
            AtomicOp::Add => old.wrapping_add(src),
            AtomicOp::Or => old | src,
            AtomicOp::And => old & src,
            AtomicOp::Xor => old ^ src,
            AtomicOp::Xchg => src,
            AtomicOp::CmpXchg if old == cut(self.act.regs[0]) => src,
            AtomicOp::CmpXchg => old,
        };
        match size {
            4 => self.store(addr, (new as u32).to_le_bytes())?,
            _ => self.store(addr, new.to_le_bytes())?,
        }
        match op {
            AtomicOp::CmpXchg => self.act.regs[0] = old,
            _ if fetch => self.act.regs[o.s as usize & 15] = old,
            _ => {}
        }
        Ok(())
    }

    /// Runs from `act.pc`. With `STEP`, every instruction is counted; without it the caller
    /// makes sure that `budget > slack`, more than the longest way without a check.
    #[inline(never)]
    fn run<const STEP: bool, const EXPLORE: bool>(
        mut self,
        code: &[Code],
        budget: i64,
        slack: i64,
    ) -> Stop {
        let mut pc = self.act.pc as usize;
        let mut origin = pc as i64;
        macro_rules! R {
            ($x:expr) => {
                self.act.regs[$x as usize & 15]
            };
        }
        macro_rules! stop {
            ($why:expr) => {{
                self.act.pc = pc as u32;
                self.act.insns = self.act.insns.wrapping_add((pc as i64 - origin) as u64);
                return $why;
            }};
        }
        // Stops as if the current instruction had not begun.
        macro_rules! stop_before {
            ($why:expr) => {{
                pc -= 1;
                stop!($why)
            }};
        }
        macro_rules! fault {
            ($kind:expr) => {
                stop_before!(Stop::Fault(Fault {
                    pc: pc as u32,
                    kind: $kind
                }))
            };
        }
        macro_rules! check_budget {
            () => {
                if !STEP && pc as i64 - origin + slack > budget {
                    stop!(Stop::Budget)
                }
            };
        }
        macro_rules! jump {
            ($o:expr) => {{
                let d = $o.off as i64;
                pc = pc.wrapping_add(d as usize);
                origin += d;
                if d < 0 {
                    check_budget!();
                }
            }};
        }
        macro_rules! goto {
            ($to:expr) => {{
                let to = $to as usize;
                origin += to as i64 - pc as i64;
                pc = to;
                check_budget!();
            }};
        }
        // In Explore mode, stops before a visible access unless it was granted.
        macro_rules! gate {
            ($addr:expr, $size:expr, $kind:ident) => {
                if EXPLORE && GuestMem::is_shared($addr) {
                    if !self.act.grant {
                        let access = Access {
                            addr: $addr,
                            size: $size,
                            kind: AccessKind::$kind,
                        };
                        stop_before!(Stop::Access(access));
                    }
                    self.act.grant = false;
                }
            };
        }
        macro_rules! ld {
            ($o:expr, $t:ty, $as:ty) => {{
                let addr = R!($o.s).wrapping_add($o.off as u64);
                gate!(addr, size_of::<$t>() as u8, Read);
                match self.load(addr) {
                    Ok(b) => R!($o.d) = <$t>::from_le_bytes(b) as $as as u64,
                    Err(kind) => fault!(kind),
                }
            }};
        }
        macro_rules! st {
            ($o:expr, $t:ty, $v:expr) => {{
                let addr = R!($o.d).wrapping_add($o.off as u64);
                gate!(addr, size_of::<$t>() as u8, Write);
                if let Err(kind) = self.store(addr, ($v as $t).to_le_bytes()) {
                    fault!(kind)
                }
            }};
        }
        macro_rules! atomic {
            ($o:expr, $size:expr) => {{
                gate!(R!($o.d).wrapping_add($o.off as u64), $size, Rmw);
                if let Err(kind) = self.atomic($o, $size as u32) {
                    fault!(kind)
                }
            }};
        }
        macro_rules! packet {
            ($o:expr, $size:expr) => {{
                let offset = ($o.imm as i32).wrapping_add($o.off.wrapping_mul(R!($o.s) as i32));
                match self.host.load_packet(offset, $size, self.mem) {
                    Some(v) => R!(0) = v,
                    None => stop!(Stop::Exit(0)),
                }
            }};
        }
        // What a call out answered; `$ret` is where the program goes on.
        macro_rules! flow {
            ($flow:expr, $ret:expr) => {
                match $flow {
                    Flow::Done(r0) => R!(0) = r0,
                    Flow::Yield(r0) => {
                        R!(0) = r0;
                        stop!(Stop::Yield)
                    }
                    Flow::Suspend => stop_before!(Stop::Suspend),
                    Flow::Exit(r0) => stop!(Stop::Exit(r0)),
                    Flow::Fault(kind) => fault!(kind),
                    Flow::CallBpf { entry, args } => {
                        if let Err(kind) = self.push($ret as u32, true) {
                            fault!(kind)
                        }
                        self.act.regs[1..6].copy_from_slice(&args);
                        goto!(entry);
                    }
                }
            };
        }
        macro_rules! call_out {
            ($call:expr) => {{
                let (call, args) = ($call, self.act.args());
                if EXPLORE {
                    if !self.act.grant && self.host.is_visible(call, &args) {
                        stop_before!(Stop::Call(call));
                    }
                    self.act.grant = false;
                }
                let insns = self.act.insns.wrapping_add((pc as i64 - origin) as u64);
                flow!(self.host.call(call, args, insns, self.mem), pc)
            }};
        }
        macro_rules! dispatch {
            (alu { $($af:ident: $a:ident, $b:ident, $c:ident, $d:ident;)* }
             jmp { $($jf:ident: $e:ident, $f:ident, $g:ident, $h:ident;)* }) => {
                loop {
                    if STEP && pc as i64 - origin >= budget {
                        stop!(Stop::Budget);
                    }
                    // Images end in `Bad` and their jumps stay inside (see `Image::new`); were
                    // that ever untrue, this says so rather than reads past the end.
                    let Some(&o) = code.get(pc) else {
                        stop!(Stop::Fault(Fault { pc: pc as u32, kind: FaultKind::BadInsn }))
                    };
                    pc += 1;
                    match o.k {
                        $(K::$a => R!(o.d) = w64::$af(R!(o.d), o.imm as u64),
                          K::$b => R!(o.d) = w64::$af(R!(o.d), R!(o.s)),
                          K::$c => R!(o.d) = w32::$af(R!(o.d) as u32, o.imm as u32) as u64,
                          K::$d => R!(o.d) = w32::$af(R!(o.d) as u32, R!(o.s) as u32) as u64,)*
                        $(K::$e => if w64::$jf(R!(o.d), o.imm as u64) { jump!(o) },
                          K::$f => if w64::$jf(R!(o.d), R!(o.s)) { jump!(o) },
                          K::$g => if w32::$jf(R!(o.d) as u32, o.imm as u32) { jump!(o) },
                          K::$h => if w32::$jf(R!(o.d) as u32, R!(o.s) as u32) { jump!(o) },)*
                        K::Neg64 => R!(o.d) = R!(o.d).wrapping_neg(),
                        K::Neg32 => R!(o.d) = (R!(o.d) as u32).wrapping_neg() as u64,
                        K::Sx8To64 => R!(o.d) = R!(o.s) as i8 as u64,
                        K::Sx16To64 => R!(o.d) = R!(o.s) as i16 as u64,
                        K::Sx32To64 => R!(o.d) = R!(o.s) as i32 as u64,
                        K::Sx8To32 => R!(o.d) = R!(o.s) as i8 as u32 as u64,
                        K::Sx16To32 => R!(o.d) = R!(o.s) as i16 as u32 as u64,
                        K::Zx16 => R!(o.d) = R!(o.d) as u16 as u64,
                        K::Zx32 => R!(o.d) = R!(o.d) as u32 as u64,
                        K::Swap16 => R!(o.d) = (R!(o.d) as u16).swap_bytes() as u64,
                        K::Swap32 => R!(o.d) = (R!(o.d) as u32).swap_bytes() as u64,
                        K::Swap64 => R!(o.d) = R!(o.d).swap_bytes(),
                        K::LdImm64 => {
                            R!(o.d) = o.imm as u64;
                            pc += 1;
                            origin += 1;
                        }
                        K::Ld8 => ld!(o, u8, u8),
                        K::Ld16 => ld!(o, u16, u16),
                        K::Ld32 => ld!(o, u32, u32),
                        K::Ld64 => ld!(o, u64, u64),
                        K::LdS8 => ld!(o, i8, i64),
                        K::LdS16 => ld!(o, i16, i64),
                        K::LdS32 => ld!(o, i32, i64),
                        K::St8I => st!(o, u8, o.imm),
                        K::St16I => st!(o, u16, o.imm),
                        K::St32I => st!(o, u32, o.imm),
                        K::St64I => st!(o, u64, o.imm),
                        K::St8R => st!(o, u8, R!(o.s)),
                        K::St16R => st!(o, u16, R!(o.s)),
                        K::St32R => st!(o, u32, R!(o.s)),
                        K::St64R => st!(o, u64, R!(o.s)),
                        K::Atomic32 => atomic!(o, 4),
                        K::Atomic64 => atomic!(o, 8),
                        K::LdPkt8 => packet!(o, 1),
                        K::LdPkt16 => packet!(o, 2),
                        K::LdPkt32 => packet!(o, 4),
                        K::Ja => jump!(o),
                        K::MayGoto => {
                            if self.act.may_goto == 0 {
                                jump!(o)
                            } else {
                                self.act.may_goto -= 1;
                            }
                        }
                        K::CallHelper => call_out!(Call::Helper(o.imm as u32)),
                        K::CallKfunc => call_out!(Call::Kfunc(o.imm as u32)),
                        K::CallBpf => {
                            if let Err(kind) = self.push(pc as u32, false) {
                                fault!(kind)
                            }
                            goto!(pc as i64 + o.off as i64);
                        }
                        K::Exit => {
                            let Some(frame) = self.pop() else { stop!(Stop::Exit(R!(0))) };
                            if frame.to_host {
                                let r0 = R!(0);
                                let ret = frame.ret as usize;
                                origin += ret as i64 - pc as i64;
                                pc = ret;
                                flow!(self.host.resume(r0, self.mem), ret);
                                check_budget!();
                            } else {
                                goto!(frame.ret);
                            }
                        }
                        K::Bad => fault!(FaultKind::BadInsn),
                    }
                }
            };
        }
        operand_ops!(dispatch)
    }

    fn push(&mut self, ret: u32, to_host: bool) -> Result<(), FaultKind> {
        let act = &mut *self.act;
        if act.depth + 1 >= MAX_FRAMES {
            return Err(FaultKind::FrameDepth);
        }
        act.frames[act.depth] = Frame {
            ret,
            to_host,
            may_goto: act.may_goto,
            saved: [act.regs[6], act.regs[7], act.regs[8], act.regs[9]],
        };
        act.may_goto = MAY_GOTO_LIMIT;
        act.depth += 1;
        act.regs[10] = act.regs[10].wrapping_sub(FRAME_SIZE);
        Ok(())
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<Frame> {
        let act = &mut *self.act;
        act.depth = act.depth.checked_sub(1)?;
        let frame = act.frames[act.depth & (MAX_FRAMES - 1)];
        act.regs[6..10].copy_from_slice(&frame.saved);
        act.regs[10] = act.regs[10].wrapping_add(FRAME_SIZE);
        act.may_goto = frame.may_goto;
        Some(frame)
    }
}
