//! One 8-byte slot and what its fields mean: `struct bpf_insn` and the numbers
//! of `uapi/linux/bpf.h` and `bpf_common.h`.

use std::fmt;

/// One 8-byte slot of a program, `struct bpf_insn` of a little-endian machine.
///
/// A slot is raw: any bit pattern is one. [`crate::decode`] says which patterns
/// are instructions.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Insn {
    /// Operation: class, and source and operation or size and mode.
    pub code: u8,
    /// Destination register in the low nibble, source register in the high one.
    pub regs: u8,
    /// Signed offset.
    pub off: i16,
    /// Signed immediate.
    pub imm: i32,
}

impl Insn {
    /// Bytes in a slot.
    pub const SIZE: usize = 8;

    /// A slot of these fields. Register numbers are cut to four bits.
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        let regs = (src & 0xf) << 4 | (dst & 0xf);
        Self {
            code,
            regs,
            off,
            imm,
        }
    }

    /// Destination register number, 0 to 15.
    pub const fn dst(self) -> u8 {
        self.regs & 0xf
    }

    /// Source register number, or pseudo kind, 0 to 15.
    pub const fn src(self) -> u8 {
        self.regs >> 4
    }

    /// Replaces the destination register number (low four bits of `dst`).
    pub const fn set_dst(&mut self, dst: u8) {
        self.regs = self.regs & 0xf0 | (dst & 0xf);
    }

    /// Replaces the source register number (low four bits of `src`).
    pub const fn set_src(&mut self, src: u8) {
        self.regs = self.regs & 0x0f | (src & 0xf) << 4;
    }

    /// Instruction class, `BPF_CLASS(code)`.
    pub const fn class(self) -> u8 {
        self.code & 0x07
    }

    /// Whether this slot opens a two-slot `BPF_LD | BPF_IMM | BPF_DW`.
    pub const fn is_ld_imm64(self) -> bool {
        self.code == uapi::BPF_LD | uapi::BPF_IMM | uapi::BPF_DW
    }

    /// The slot in these eight bytes, as a little-endian object file holds it.
    pub const fn from_le_bytes(b: [u8; 8]) -> Self {
        Self {
            code: b[0],
            regs: b[1],
            off: i16::from_le_bytes([b[2], b[3]]),
            imm: i32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }

    /// The eight bytes of this slot in a little-endian object file.
    pub const fn to_le_bytes(self) -> [u8; 8] {
        let off = self.off.to_le_bytes();
        let imm = self.imm.to_le_bytes();
        [
            self.code, self.regs, off[0], off[1], imm[0], imm[1], imm[2], imm[3],
        ]
    }

    /// All slots in `bytes`; `None` where their number is not a multiple of eight.
    pub fn slots_from_le_bytes(bytes: &[u8]) -> Option<Vec<Self>> {
        let (slots, rest) = bytes.as_chunks::<{ Self::SIZE }>();
        rest.is_empty()
            .then(|| slots.iter().map(|b| Self::from_le_bytes(*b)).collect())
    }

    /// The bytes of all `slots`.
    pub fn slots_to_le_bytes(slots: &[Self]) -> Vec<u8> {
        slots.iter().flat_map(|s| s.to_le_bytes()).collect()
    }
}

macro_rules! registers {
    ($($name:ident = $n:literal $doc:literal),* $(,)?) => {
        /// A register that a program may name.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Reg { $(#[doc = $doc] $name = $n),* }

        impl Reg {
            /// All of them, in order.
            pub const ALL: [Self; 11] = [$(Self::$name),*];

            /// Register number `n`, where there is one.
            pub const fn new(n: u8) -> Option<Self> {
                match n { $($n => Some(Self::$name),)* _ => None }
            }
        }
    };
}

registers! {
    R0 = 0 "Return value.",
    R1 = 1 "First argument; the context at entry.",
    R2 = 2 "Second argument.",
    R3 = 3 "Third argument.",
    R4 = 4 "Fourth argument.",
    R5 = 5 "Fifth argument.",
    R6 = 6 "Kept over calls; the skb of `ld_abs` and `ld_ind`.",
    R7 = 7 "Kept over calls.",
    R8 = 8 "Kept over calls.",
    R9 = 9 "Kept over calls.",
    R10 = 10 "Frame pointer, read only.",
}

impl Reg {
    /// Number of registers, `MAX_BPF_REG`.
    pub const COUNT: usize = 11;
    /// `BPF_REG_FP`.
    pub const FP: Self = Self::R10;

    /// The number, 0 to 10.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The number, to index tables of [`Reg::COUNT`] with.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.number())
    }
}

/// Constants of `uapi/linux/bpf.h` and `bpf_common.h`, by their own names.
pub mod uapi {
    macro_rules! consts {
        ($(#[doc = $group:literal] $ty:ty: $($name:ident = $value:literal),+;)*) => {
            $(consts!(@group $group, $ty, $($name = $value),+);)*
        };
        (@group $group:literal, $ty:ty, $($name:ident = $value:literal),+) => {
            $(#[doc = $group] pub const $name: $ty = $value;)+
        };
    }

    consts! {
        /// Instruction class, the low three bits of a code.
        u8: BPF_LD = 0x00, BPF_LDX = 0x01, BPF_ST = 0x02, BPF_STX = 0x03,
            BPF_ALU = 0x04, BPF_JMP = 0x05, BPF_JMP32 = 0x06, BPF_ALU64 = 0x07;
        /// Size of a memory access.
        u8: BPF_W = 0x00, BPF_H = 0x08, BPF_B = 0x10, BPF_DW = 0x18;
        /// Mode of a memory access.
        u8: BPF_IMM = 0x00, BPF_ABS = 0x20, BPF_IND = 0x40, BPF_MEM = 0x60,
            BPF_MEMSX = 0x80, BPF_ATOMIC = 0xc0, BPF_XADD = 0xc0;
        /// Operation of class ALU and ALU64.
        u8: BPF_ADD = 0x00, BPF_SUB = 0x10, BPF_MUL = 0x20, BPF_DIV = 0x30, BPF_OR = 0x40,
            BPF_AND = 0x50, BPF_LSH = 0x60, BPF_RSH = 0x70, BPF_NEG = 0x80, BPF_MOD = 0x90,
            BPF_XOR = 0xa0, BPF_MOV = 0xb0, BPF_ARSH = 0xc0, BPF_END = 0xd0;
        /// Operation of class JMP and JMP32.
        u8: BPF_JA = 0x00, BPF_JEQ = 0x10, BPF_JGT = 0x20, BPF_JGE = 0x30, BPF_JSET = 0x40,
            BPF_JNE = 0x50, BPF_JSGT = 0x60, BPF_JSGE = 0x70, BPF_CALL = 0x80, BPF_EXIT = 0x90,
            BPF_JLT = 0xa0, BPF_JLE = 0xb0, BPF_JSLT = 0xc0, BPF_JSLE = 0xd0, BPF_JCOND = 0xe0;
        /// Source operand is the immediate.
        u8: BPF_K = 0x00;
        /// Source operand is a register.
        u8: BPF_X = 0x08;
        /// Direction of a byte swap of class ALU.
        u8: BPF_TO_LE = 0x00, BPF_TO_BE = 0x08;
        /// Operation of an atomic access, in `imm`.
        i32: BPF_FETCH = 0x01, BPF_XCHG = 0xe1, BPF_CMPXCHG = 0xf1,
            BPF_LOAD_ACQ = 0x100, BPF_STORE_REL = 0x110;
        /// Kind of a 64-bit immediate load, in the source register field.
        u8: BPF_PSEUDO_MAP_FD = 1, BPF_PSEUDO_MAP_VALUE = 2, BPF_PSEUDO_BTF_ID = 3,
            BPF_PSEUDO_FUNC = 4, BPF_PSEUDO_MAP_IDX = 5, BPF_PSEUDO_MAP_IDX_VALUE = 6;
        /// Kind of a call, in the source register field.
        u8: BPF_PSEUDO_CALL = 1, BPF_PSEUDO_KFUNC_CALL = 2;
        /// Source register field of `may_goto`.
        u8: BPF_MAY_GOTO = 0;
        /// `off` of a move between address spaces.
        i16: BPF_ADDR_SPACE_CAST = 1;
        /// Most slots of a program that an unprivileged user may load.
        usize: BPF_MAXINSNS = 4096;
        /// Most instructions that the verifier walks, and most slots of a privileged program.
        usize: BPF_COMPLEXITY_LIMIT_INSNS = 1000000;
        /// Bytes of a frame's stack.
        i32: MAX_BPF_STACK = 512;
    }
}
