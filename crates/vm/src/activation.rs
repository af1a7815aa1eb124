//! A running program as a plain value.

/// Frames of one program: the main function and seven calls (`MAX_CALL_FRAMES`).
pub const MAX_FRAMES: usize = 8;
/// Stack bytes of one frame (`MAX_BPF_STACK`).
pub const FRAME_SIZE: u64 = 512;
/// Stack bytes of one activation.
pub const STACK_SIZE: u64 = FRAME_SIZE * MAX_FRAMES as u64;

/// What is saved by a call and put back by the return.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Frame {
    /// Instruction to go on at.
    pub ret: u32,
    /// The frame was entered by the host and returns to it ([`Flow::CallBpf`](crate::Flow)).
    pub to_host: bool,
    /// What was left of the caller's `may_goto` budget.
    pub may_goto: u32,
    /// R6 to R9.
    pub saved: [u64; 4],
}

/// Registers, frames and pc of one run of one program.
#[derive(Clone, Debug)]
pub struct Activation {
    /// R0 to R10; the rest is unused, so that a masked index is always in range.
    pub regs: [u64; 16],
    /// Index of the next instruction.
    pub pc: u32,
    /// Lets one visible operation pass in [`Mode::Explore`](crate::Mode::Explore).
    pub grant: bool,
    /// Instructions executed so far.
    pub insns: u64,
    /// Iterations of `may_goto` left to this frame.
    pub(crate) may_goto: u32,
    /// Of the callers, outermost first; nothing is allocated before the first call.
    pub(crate) frames: Vec<Frame>,
}

impl Activation {
    /// An activation about to execute `entry` with `args` in R1 to R5, on the [`STACK_SIZE`]
    /// bytes of stack at guest address `stack`.
    pub fn new(entry: u32, args: [u64; 5], stack: u64) -> Activation {
        let mut regs = [0; 16];
        regs[1..6].copy_from_slice(&args);
        regs[10] = stack + STACK_SIZE;
        Activation {
            regs,
            pc: entry,
            grant: false,
            insns: 0,
            may_goto: crate::interp::MAY_GOTO_LIMIT,
            frames: Vec::new(),
        }
    }

    /// R1 to R5.
    pub fn args(&self) -> [u64; 5] {
        [
            self.regs[1],
            self.regs[2],
            self.regs[3],
            self.regs[4],
            self.regs[5],
        ]
    }
}
