//! What the fields of an instruction hold: small tables, one row a value.

use crate::insn::Reg;

/// An enum whose values each have the same columns: the enum, `ALL` and an
/// accessor per column come from the rows.
macro_rules! columns {
    ($(#[$meta:meta])* pub enum $name:ident ( $($(#[$cdoc:meta])* $col:ident: $ty:ty),+ ) {
        $($(#[$vmeta:meta])* $var:ident ( $($val:expr),+ )),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vmeta])* $var),+ }

        impl $name {
            /// Every value, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$var),+];

            #[allow(unused_parens)]
            const fn row(self) -> ($($ty),+) {
                match self { $(Self::$var => ($($val),+)),+ }
            }

            columns!(@cols $name, ($($(#[$cdoc])* $col: $ty),+));
        }
    };
    (@cols $name:ident, ($(#[$d0:meta])* $c0:ident: $t0:ty)) => {
        $(#[$d0])* pub const fn $c0(self) -> $t0 { self.row() }
    };
    (@cols $name:ident, ($(#[$d0:meta])* $c0:ident: $t0:ty, $(#[$d1:meta])* $c1:ident: $t1:ty)) => {
        $(#[$d0])* pub const fn $c0(self) -> $t0 { self.row().0 }
        $(#[$d1])* pub const fn $c1(self) -> $t1 { self.row().1 }
    };
    (@cols $name:ident, ($(#[$d0:meta])* $c0:ident: $t0:ty, $(#[$d1:meta])* $c1:ident: $t1:ty,
                         $(#[$d2:meta])* $c2:ident: $t2:ty)) => {
        $(#[$d0])* pub const fn $c0(self) -> $t0 { self.row().0 }
        $(#[$d1])* pub const fn $c1(self) -> $t1 { self.row().1 }
        $(#[$d2])* pub const fn $c2(self) -> $t2 { self.row().2 }
    };
}

columns! {
    /// How many bits of its registers an operation sees.
    pub enum Width (
        /// Bits.
        bits: u32,
        /// Letter that names a register of this width.
        letter: char
    ) {
        /// The lower half; results are zero-extended. Class `BPF_ALU` or `BPF_JMP32`.
        W32(32, 'w'),
        /// The whole register. Class `BPF_ALU64` or `BPF_JMP`.
        W64(64, 'r'),
    }
}

columns! {
    /// Size of a memory access.
    pub enum Size (
        /// `BPF_SIZE` bits of the code.
        code: u8,
        /// Bytes.
        bytes: u32,
        /// C type, unsigned.
        text: &'static str
    ) {
        /// Byte.
        B(0x10, 1, "u8"),
        /// Half word, 2 bytes.
        H(0x08, 2, "u16"),
        /// Word, 4 bytes.
        W(0x00, 4, "u32"),
        /// Double word, 8 bytes.
        Dw(0x18, 8, "u64"),
    }
}

columns! {
    /// Arithmetic of `dst op= src`.
    pub enum AluOp (
        /// `BPF_OP` bits of the code.
        code: u8,
        /// `off`, which selects the signed kinds.
        off: i16,
        /// The operator between destination and source.
        text: &'static str
    ) {
        /// Addition.
        Add(0x00, 0, "+="),
        /// Subtraction.
        Sub(0x10, 0, "-="),
        /// Multiplication.
        Mul(0x20, 0, "*="),
        /// Unsigned division; by zero gives 0.
        Div(0x30, 0, "/="),
        /// Signed division; by zero gives 0, the least value by -1 itself.
        Sdiv(0x30, 1, "s/="),
        /// Bitwise or.
        Or(0x40, 0, "|="),
        /// Bitwise and.
        And(0x50, 0, "&="),
        /// Left shift.
        Lsh(0x60, 0, "<<="),
        /// Logical right shift.
        Rsh(0x70, 0, ">>="),
        /// Unsigned remainder; by zero leaves the (zero-extended) dividend.
        Mod(0x90, 0, "%="),
        /// Signed remainder; by zero leaves the (zero-extended) dividend, by -1 gives 0.
        Smod(0x90, 1, "s%="),
        /// Bitwise exclusive or.
        Xor(0xa0, 0, "^="),
        /// Copy.
        Mov(0xb0, 0, "="),
        /// Arithmetic right shift.
        Arsh(0xc0, 0, "s>>="),
    }
}

columns! {
    /// Condition of a jump, between destination and source.
    pub enum Cond (
        /// `BPF_OP` bits of the code.
        code: u8,
        /// The operator.
        text: &'static str
    ) {
        /// Equal.
        Eq(0x10, "=="),
        /// Unsigned greater.
        Gt(0x20, ">"),
        /// Unsigned greater or equal.
        Ge(0x30, ">="),
        /// Some bit common to both (`BPF_JSET`).
        Set(0x40, "&"),
        /// Not equal.
        Ne(0x50, "!="),
        /// Signed greater.
        Sgt(0x60, "s>"),
        /// Signed greater or equal.
        Sge(0x70, "s>="),
        /// Unsigned less.
        Lt(0xa0, "<"),
        /// Unsigned less or equal.
        Le(0xb0, "<="),
        /// Signed less.
        Slt(0xc0, "s<"),
        /// Signed less or equal.
        Sle(0xd0, "s<="),
    }
}

columns! {
    /// What an atomic read-modify-write does to memory.
    pub enum AtomicOp (
        /// `imm` without `BPF_FETCH` where that is a choice.
        code: i32,
        /// Operator of `lock *(..) op src`; of exchanges, their name.
        text: &'static str,
        /// Name in `atomic_fetch_<name>`.
        name: &'static str
    ) {
        /// Addition.
        Add(0x00, "+=", "add"),
        /// Bitwise or.
        Or(0x40, "|=", "or"),
        /// Bitwise and.
        And(0x50, "&=", "and"),
        /// Bitwise exclusive or.
        Xor(0xa0, "^=", "xor"),
        /// Exchange with the source register. Always fetches.
        Xchg(0xe1, "xchg", "xchg"),
        /// Compare with r0, exchange with the source register if equal; r0 gets the
        /// old value. Always fetches.
        CmpXchg(0xf1, "cmpxchg", "cmpxchg"),
    }
}

impl AtomicOp {
    /// Whether the old value comes back even where `fetch` is not asked for.
    pub const fn always_fetches(self) -> bool {
        matches!(self, Self::Xchg | Self::CmpXchg)
    }
}

columns! {
    /// Byte order operations.
    pub enum EndKind (
        /// Class, operation and direction bits of the code.
        code: u8,
        /// Name, before the number of bits.
        text: &'static str
    ) {
        /// To or from little endian, `BPF_TO_LE`: on little-endian machines cuts to size.
        Le(0xd4, "le"),
        /// To or from big endian, `BPF_TO_BE`: on little-endian machines swaps.
        Be(0xdc, "be"),
        /// Swaps always (cpu v4).
        Bswap(0xd7, "bswap"),
    }
}

columns! {
    /// Version of the instruction set (`-mcpu=`) that an instruction appeared in.
    pub enum Cpu (
        /// Name as in `-mcpu=`.
        text: &'static str
    ) {
        /// The first.
        V1("v1"),
        /// Adds `<`, `<=`, `s<`, `s<=`.
        V2("v2"),
        /// Adds 32-bit jumps and the atomics beyond `+=`.
        V3("v3"),
        /// Adds signed division, sign extension, bswap, gotol, load-acquire, store-release,
        /// and what appeared along with them: may_goto, addr_space_cast.
        V4("v4"),
    }
}

impl PartialOrd for Cpu {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cpu {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

/// Second operand of arithmetic, jumps and stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// A register (`BPF_X`).
    Reg(Reg),
    /// An immediate, sign-extended to the operation's width (`BPF_K`).
    Imm(i32),
}

/// What a two-slot `BPF_LD | BPF_IMM | BPF_DW` puts into its register, by the
/// pseudo kind in its source register field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Imm64 {
    /// The 64 bits themselves.
    Plain(u64),
    /// A map, by file descriptor (`BPF_PSEUDO_MAP_FD`).
    MapFd(i32),
    /// An address inside an array map's value (`BPF_PSEUDO_MAP_VALUE`).
    MapValue {
        /// File descriptor of the map.
        fd: i32,
        /// Bytes into the value.
        off: u32,
    },
    /// A kernel variable, by BTF (`BPF_PSEUDO_BTF_ID`).
    BtfId {
        /// Type id of the variable.
        btf_id: i32,
        /// File descriptor of a module's BTF, 0 for vmlinux.
        btf_fd: i32,
    },
    /// A subprogram's address, for a callback (`BPF_PSEUDO_FUNC`).
    Func {
        /// Slots from the one after this instruction's first to the subprogram.
        rel: i32,
        /// Second slot's immediate, which Linux does not look at.
        hi: i32,
    },
    /// A map, by index into `fd_array` (`BPF_PSEUDO_MAP_IDX`).
    MapIdx(i32),
    /// An address inside an array map's value (`BPF_PSEUDO_MAP_IDX_VALUE`).
    MapIdxValue {
        /// Index into `fd_array`.
        idx: i32,
        /// Bytes into the value.
        off: u32,
    },
}

/// What a call calls, by the pseudo kind in its source register field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CallKind {
    /// A helper, by its number (`enum bpf_func_id`).
    Helper(i32),
    /// A subprogram, in slots from the one after the call (`BPF_PSEUDO_CALL`).
    Bpf(i32),
    /// A kernel function (`BPF_PSEUDO_KFUNC_CALL`).
    Kfunc {
        /// Type id of the function in vmlinux's BTF or a module's.
        btf_id: i32,
        /// Index of the BTF in `fd_array`, 0 for vmlinux.
        off: i16,
    },
}
