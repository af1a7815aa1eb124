//! What the engine asks of the kernel around it, and how a run stops.

use crate::Activation;
use crate::mem::GuestMem;

/// What a call instruction calls outside of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// A helper, by its number in `enum bpf_func_id`.
    Helper(u32),
    /// A kfunc, by the number that whoever lowered the program gave it.
    Kfunc(u32),
}

/// How a call out goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The call returned this in R0.
    Done(u64),
    /// As `Done`, and the run stops after the call, since something else may be due now.
    Yield(u64),
    /// Not now: the activation stops at the call and makes it again when continued.
    Suspend,
    /// The program ends here, as if its outermost frame had returned this.
    Exit(u64),
    /// First run a function of the program with these arguments; what it returns goes to
    /// [`Host::resume`].
    CallBpf {
        /// Entry, as an instruction index of the same image.
        entry: u32,
        /// R1 to R5.
        args: [u64; 5],
    },
    /// The program goes on as another one (`bpf_tail_call`): its frame becomes that program's
    /// outermost, and the run stops with [`Stop::Switch`]. What the frame would have returned to,
    /// be it in this program, it returns to still.
    TailCall {
        /// What [`Activation::prog`](crate::Activation::prog) shall be.
        prog: u32,
        /// Where that program begins, as an instruction index of its image.
        entry: u32,
    },
    /// All frames are dropped, and a function of the program runs in place of the outermost one
    /// (`bpf_throw` with an exception callback). Without such a callback, see `Exit`.
    Throw {
        /// Entry, as an instruction index of the same image.
        entry: u32,
        /// R1: the cookie that was thrown.
        cookie: u64,
    },
    /// The call cannot be carried out.
    Fault(FaultKind),
}

/// Who makes the next visible operation; see [`Host::turn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nobody yet: the run stops.
    Nobody,
    /// The run itself.
    Same,
    /// Another run of the same image, which stopped earlier.
    Other,
}

/// The run that goes on after [`Turn::Other`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Other {
    /// Its place among those that wait; the run that was goes there.
    pub place: usize,
    /// It stopped before a visible operation, which it makes.
    pub grant: bool,
    /// Instructions that it may execute.
    pub budget: u64,
    /// Who it is, as for [`GuestMem::set_site`](crate::GuestMem::set_site).
    pub ctx: u64,
    /// Its CPU.
    pub cpu: u32,
}

/// The kernel, as a running program sees it.
pub trait Host {
    /// Makes a call to a helper or kfunc, the `insns`th instruction of the activation.
    fn call(&mut self, call: Call, args: &[u64; 5], insns: u64, mem: &mut GuestMem) -> Flow;

    /// A function that [`Flow::CallBpf`] started has returned `r0`; goes on with the call.
    fn resume(&mut self, r0: u64, mem: &mut GuestMem) -> Flow;

    /// True when other contexts can notice this call or be noticed by it, so that an explored
    /// run must stop before it.
    fn is_visible(&self, call: Call, args: &[u64; 5]) -> bool;

    /// [`Mode::Explore`](crate::Mode::Explore): the run comes to a visible operation, as if it had
    /// stopped before it with `stop`, has made a call that yields, or has returned. Says who goes on
    /// without the engine having stopped; after [`Stop::Exit`] that is not the run itself.
    fn turn(&mut self, stop: &Stop, act: &Activation, mem: &GuestMem, other: &mut Other) -> Turn {
        let _ = (stop, act, mem, other);
        Turn::Nobody
    }

    /// Loads from an address outside of guest memory: a context's window. Gives what the register
    /// shall hold, zero-extended, or for fields that are pointers all 64 bits, whatever `size`.
    fn load(&mut self, addr: u64, size: u32, mem: &GuestMem) -> Option<u64>;

    /// Stores to an address outside of guest memory: a context's window.
    fn store(&mut self, addr: u64, size: u32, value: u64, mem: &mut GuestMem) -> Option<()>;

    /// The guest address behind an address outside of guest memory, where there is one: a page of
    /// the program's arena, whose addresses are plain numbers below 4 GiB once
    /// `addr_space_cast` made them pointers. Asked before [`Host::load`] and [`Host::store`].
    fn translate(&mut self, addr: u64, size: u32, write: bool, mem: &mut GuestMem) -> Option<u64> {
        let _ = (addr, size, write, mem);
        None
    }

    /// What an atomic access finds at an address outside of guest memory that
    /// [`Host::translate`] knows nothing behind: a value, to be stored anew by [`Host::store`], or
    /// that the access is skipped and registers stay as they are; `None` where no such access can
    /// be made.
    fn load_atomic(&mut self, addr: u64, size: u32, mem: &GuestMem) -> Option<Option<u64>> {
        let _ = (addr, size, mem);
        None
    }

    /// Upper half of the addresses that user space knows the program's arena by
    /// (`bpf_arena_get_user_vm_start`); what `addr_space_cast` to address space 1 puts there.
    fn arena_user_start(&self) -> u64 {
        0
    }

    /// `LD_ABS` and `LD_IND`: packet bytes at `offset`, in host order; `None` ends the program
    /// with 0, as Linux does when the packet is too short.
    fn load_packet(&mut self, offset: i32, size: u32, mem: &GuestMem) -> Option<u64>;
}

/// What an access does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// A plain or acquiring load.
    Read,
    /// A plain or releasing store.
    Write,
    /// An atomic read-modify-write.
    Rmw,
}

/// One access to guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// Guest address of the first byte.
    pub addr: u64,
    /// Bytes.
    pub size: u8,
    /// Read, write or both.
    pub kind: AccessKind,
}

/// Why a run stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The outermost frame returned this.
    Exit(u64),
    /// The instruction budget is used up.
    Budget,
    /// A call answered [`Flow::Yield`].
    Yield,
    /// [`Mode::Explore`](crate::Mode::Explore): the next instruction is this access to shared
    /// memory. Set [`Activation::grant`](crate::Activation::grant) and run again to make it.
    Access(Access),
    /// [`Mode::Explore`](crate::Mode::Explore): the next instruction is this visible call, with
    /// its arguments in R1 to R5. Grant and run again to make it.
    Call(Call),
    /// A call answered [`Flow::Suspend`].
    Suspend,
    /// The run goes on in another program, [`Activation::prog`](crate::Activation::prog): a tail
    /// call began it, or it ended and returns to the one that made the call. Run again with that
    /// program's image.
    Switch,
    /// The program did what it must not; it cannot be continued.
    Fault(Fault),
}

/// A program fault and the instruction that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("insn {pc}: {kind}")]
pub struct Fault {
    /// Instruction index.
    pub pc: u32,
    /// What happened.
    pub kind: FaultKind,
}

fn out_of_bounds(addr: u64, size: u32, write: bool, start: u64, len: u32) -> String {
    let what = if write { "write" } else { "read" };
    match (len, addr.wrapping_sub(start) as i64) {
        (0, _) => format!("{what} of {size} bytes at {addr:#x}, where nothing is allocated"),
        (_, off) => format!("{what} of {size} bytes at offset {off} of {len} bytes"),
    }
}

/// The ways in which a program can fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// An access where there is no memory.
    #[error("{} of {size} bytes at {addr:#x}, where there is no memory", if *.write { "write" } else { "read" })]
    Address {
        /// The address.
        addr: u64,
        /// Bytes.
        size: u32,
        /// A store or an atomic.
        write: bool,
    },
    /// Checked mode: an access by a pointer to something beside it, or where nothing is.
    #[error("{}", out_of_bounds(*.addr, *.size, *.write, *.start, *.len))]
    OutOfBounds {
        /// The address.
        addr: u64,
        /// Bytes.
        size: u32,
        /// A store or an atomic.
        write: bool,
        /// Where the allocation begins that the pointer is to.
        start: u64,
        /// Its bytes; 0 where the pointer is to nothing.
        len: u32,
    },
    /// Checked mode: a read of stack that this frame has not written.
    #[error("read of {size} bytes of stack at fp{off}, which were never written")]
    Uninitialised {
        /// From the end of the frame.
        off: i32,
        /// Bytes.
        size: u32,
    },
    /// Checked mode: an access to what was freed, and Linux does not let anybody keep.
    #[error("use after free: {} of {size} bytes at {addr:#x}", if *.write { "write" } else { "read" })]
    UseAfterFree {
        /// The address.
        addr: u64,
        /// Bytes.
        size: u32,
        /// A store or an atomic.
        write: bool,
        /// Where it began.
        start: u64,
    },
    /// Checked mode: a write by a pointer to an element that is gone, into the one that has its
    /// memory now.
    #[error("write of {size} bytes at {addr:#x} by a stale pointer, into somebody else's element")]
    StaleWrite {
        /// The address.
        addr: u64,
        /// Bytes.
        size: u32,
        /// Where the element begins.
        start: u64,
    },
    /// More memory touched than a simulation may.
    #[error("out of guest memory: too many pages touched")]
    MemoryLimit,
    /// More than [`MAX_FRAMES`](crate::MAX_FRAMES) frames.
    #[error("more than 8 frames deep")]
    FrameDepth,
    /// Control reached something that is no instruction.
    #[error("no instruction to execute here")]
    BadInsn,
    /// What [`Flow::CallBpf`] started made a tail call, and that program returns to the host.
    #[error("a callback returns from another program, to which it made a tail call")]
    TailCallInCallback,
    /// A helper or kfunc that the kernel around the engine does not have.
    #[error("call to {0:?}, which is not implemented")]
    UnknownCall(Call),
    /// A helper or kfunc was given something that the verifier would have refused.
    #[error("{call:?} was given a bad argument {arg}")]
    BadArgument {
        /// The call.
        call: Call,
        /// Number of the argument, from 1.
        arg: u8,
    },
}
