//! How the walk refuses: only with a row of [`bpfsim_abi::text`], which says what was required.
//! The macros look for it while they compile, so no refusal can be without.

use bpfsim_abi::Errno;
use bpfsim_abi::text::{Row, row};
use bpfsim_isa::Refusal;

use crate::log::verbose;
use crate::verifier::{Stop, Verifier};

/// Linux refuses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Refused {
    pub errno: Errno,
    row: Row,
    /// Where in the log it begins to say why.
    at: usize,
}

impl Refused {
    pub fn new(errno: Errno, row: Row, at: usize) -> Refused {
        Refused { errno, row, at }
    }
    pub fn row(&self) -> Row {
        self.row
    }
    pub fn at(&self) -> usize {
        self.at
    }
}

impl Stop {
    /// The same refusal, which the caller gives another errno.
    pub fn with(self, errno: Errno) -> Stop {
        match self {
            Stop::Refused(refused) => Stop::Refused(Refused { errno, ..refused }),
            other => other,
        }
    }
}

/// Adds a refusal's text to the log.
macro_rules! refusal {
    ($v:expr, $errno:ident, $format:literal $($arg:tt)*) => {{
        const ROW: bpfsim_abi::text::Row =
            bpfsim_abi::text::row($format, bpfsim_abi::Errno::$errno);
        let at = $v.said_from.unwrap_or($v.log.text.len());
        crate::log::verbose!($v, $format $($arg)*);
        let refused = crate::refusal::Refused::new(bpfsim_abi::Errno::$errno, ROW, at);
        crate::verifier::Stop::Refused(refused)
    }};
}

/// Adds a refusal's text to the log, and returns.
macro_rules! reject {
    ($v:expr, $($rest:tt)*) => {
        return Err(crate::refusal::refusal!($v, $($rest)*))
    };
}

/// A refusal of which the log says nothing more; the words are only the row's.
macro_rules! quiet {
    ($v:expr, $errno:ident, $what:literal) => {{
        const ROW: bpfsim_abi::text::Row =
            bpfsim_abi::text::quiet($what, bpfsim_abi::Errno::$errno);
        let at = $v.said_from.unwrap_or($v.log.text.len());
        let refused = crate::refusal::Refused::new(bpfsim_abi::Errno::$errno, ROW, at);
        crate::verifier::Stop::Refused(refused)
    }};
}

/// Adds a line to the log that goes before a refusal, or behind it.
macro_rules! also {
    ($v:expr, $format:literal $($arg:tt)*) => {{
        const _: bpfsim_abi::text::Row = bpfsim_abi::text::also($format);
        $v.said_from.get_or_insert($v.log.text.len());
        crate::log::verbose!($v, $format $($arg)*);
    }};
}
pub(crate) use {also, quiet, refusal, reject};

impl Verifier<'_> {
    /// Refuses with the one line of a table's row.
    pub(crate) fn refuse_row(&mut self, row: Row) -> Stop {
        let at = self.log.text.len();
        verbose!(self, "{}\n", row.text.line());
        Stop::Refused(Refused::new(Errno::EINVAL, row, at))
    }

    /// Refuses an instruction for its form.
    pub(crate) fn refuse_form(&mut self, refusal: Refusal) -> Stop {
        let at = self.log.text.len();
        verbose!(self, "{refusal}\n");
        Stop::Refused(Refused::new(Errno::EINVAL, form(refusal), at))
    }
}

/// The rows of crates/isa's refusals.
const fn form(refusal: Refusal) -> Row {
    macro_rules! rows {
        ($($variant:pat => $text:literal,)*) => {
            match refusal { $($variant => const { row($text, Errno::EINVAL) },)* }
        };
    }
    rows! {
        Refusal::PastEnd => "instruction past the end of the program",
        Refusal::UnknownOpcode(_) => "unknown opcode {opcode}",
        Refusal::Ldx => "BPF_LDX uses reserved fields",
        Refusal::LdImm64Second => "invalid bpf_ld_imm64 insn",
        Refusal::LdImm64Kind => "unrecognized bpf_ld_imm64 insn",
        Refusal::LdImm64 => "BPF_LD_IMM64 uses reserved fields",
        Refusal::LdAbsInd => "BPF_LD_[ABS|IND] uses reserved fields",
        Refusal::Neg => "BPF_NEG uses reserved fields",
        Refusal::End => "BPF_END uses reserved fields",
        Refusal::Mov => "BPF_MOV uses reserved fields",
        Refusal::AddrSpaceCast => "addr_space_cast insn can only convert between address space 1 and 0",
        Refusal::Alu => "BPF_ALU uses reserved fields",
        Refusal::Stx => "BPF_STX uses reserved fields",
        Refusal::St => "BPF_ST uses reserved fields",
        Refusal::AtomicOpcode(_) => "BPF_ATOMIC uses invalid atomic opcode {opcode}",
        Refusal::AtomicSize => "invalid atomic operand size",
        Refusal::Call => "BPF_CALL uses reserved fields",
        Refusal::Ja => "BPF_JA uses reserved fields",
        Refusal::Exit => "BPF_EXIT uses reserved fields",
        Refusal::Jmp => "BPF_JMP/JMP32 uses reserved fields",
        Refusal::MayGoto(_) => "invalid may_goto imm {imm}",
        Refusal::Register(_) => "R{reg} is invalid",
    }
}
