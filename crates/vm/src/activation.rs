//! A running program as a plain value.

/// Frames of one program: the main function and seven calls (`MAX_CALL_FRAMES`).
pub const MAX_FRAMES: usize = 8;
/// Stack bytes of one frame (`MAX_BPF_STACK`).
pub const FRAME_SIZE: u64 = 512;
/// Stack bytes of one activation.
pub const STACK_SIZE: u64 = FRAME_SIZE * MAX_FRAMES as u64;

/// Of [`Frame::from`]: the frame was entered by the host and returns to it
/// ([`Flow::CallBpf`](crate::Flow)).
pub(crate) const TO_HOST: u64 = 1 << 32;

/// What is saved by a call and put back by the return.
///
/// Registers with numbers side by side do not lie so here, nor the other way round: they would be
/// copied two at a time, and a load of what two stores have just written waits for both to reach
/// the cache.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(crate) struct Frame {
    pub r7: u64,
    pub fp: u64,
    /// Instruction to go on at.
    pub ret: u32,
    /// What was left of the caller's `may_goto` budget.
    pub may_goto: u32,
    pub r9: u64,
    /// The caller's program, and [`TO_HOST`] if the host entered the frame.
    pub from: u64,
    pub r6: u64,
    pub r8: u64,
}

/// Registers, frames and pc of one run of one program.
///
/// Registers come first, so that a loop has one address for them and the rest. What is written together
/// does not lie across lines of the cache.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Activation {
    /// R0 to R10; the rest is unused, so that a masked index is always in range.
    pub regs: [u64; 16],
    /// Index of the next instruction.
    pub pc: u32,
    /// The program that executes, by a number of the host's; only tail calls change it.
    pub prog: u32,
    /// Instructions executed so far.
    pub insns: u64,
    /// Guest address of its stack, and where checked mode keeps what it knows of it, if nobody has
    /// moved that since.
    pub(crate) stack: u64,
    pub(crate) shadow: u32,
    /// Iterations of `may_goto` left to this frame.
    pub(crate) may_goto: u32,
    /// Of the callers, outermost first; nothing is allocated before the first call.
    pub(crate) frames: Vec<Frame>,
    /// Lets one visible operation pass in [`Mode::Explore`](crate::Mode::Explore).
    pub grant: bool,
    /// Checked mode has seen it.
    pub(crate) entered: bool,
}

impl Clone for Activation {
    fn clone(&self) -> Activation {
        Activation {
            frames: self.frames.clone(),
            ..*self
        }
    }

    fn clone_from(&mut self, from: &Activation) {
        let mut frames = std::mem::take(&mut self.frames);
        frames.clone_from(&from.frames);
        *self = Activation { frames, ..*from };
    }
}

impl Activation {
    /// An activation about to execute `entry` with `args` in R1 to R5, on the [`STACK_SIZE`]
    /// bytes of stack at guest address `stack`.
    #[inline]
    pub fn new(entry: u32, args: [u64; 5], stack: u64) -> Activation {
        let mut act = Activation::default();
        act.begin(entry, args, stack);
        act
    }

    /// Has it be as a new one, without making all of it anew.
    #[inline]
    pub fn begin(&mut self, entry: u32, args: [u64; 5], stack: u64) {
        let Activation {
            regs,
            pc,
            prog,
            insns,
            stack: own,
            shadow,
            may_goto,
            frames,
            grant,
            entered,
        } = self;
        let ([a, b, c, d, e], fp) = (args, stack.wrapping_add(STACK_SIZE));
        // Nothing writes the others.
        regs[..11].copy_from_slice(&[0, a, b, c, d, e, 0, 0, 0, 0, fp]);
        (*pc, *prog, *insns) = (entry, 0, 0);
        (*grant, *entered) = (false, false);
        (*own, *shadow) = (stack, 0);
        *may_goto = crate::interp::MAY_GOTO_LIMIT;
        frames.clear();
    }

    /// R1 to R5.
    pub fn args(&self) -> [u64; 5] {
        *self.args_ref()
    }

    /// The frames that wait for the innermost, the outermost first: where each goes on, and its R6 to
    /// R10.
    pub fn callers(&self) -> impl Iterator<Item = (u32, [u64; 5])> {
        let frames = self.frames.iter();
        frames.map(|f| (f.ret, [f.r6, f.r7, f.r8, f.r9, f.fp]))
    }

    /// R1 to R5, where they are.
    #[inline(always)]
    pub fn args_ref(&self) -> &[u64; 5] {
        let [_, args @ .., _, _, _, _, _, _, _, _, _, _] = &self.regs;
        args
    }
}
