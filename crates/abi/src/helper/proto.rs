//! What a helper takes and gives: `struct bpf_func_proto`.
use super::Func;

bitflags::bitflags! {
    /// Modifiers of a register, argument or return type: `enum bpf_type_flag`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct TypeFlags: u32 {
        /// `PTR_MAYBE_NULL`
        const PTR_MAYBE_NULL = 1 << 8;
        /// `MEM_RDONLY`
        const MEM_RDONLY = 1 << 9;
        /// `MEM_RINGBUF`
        const MEM_RINGBUF = 1 << 10;
        /// `MEM_USER`
        const MEM_USER = 1 << 11;
        /// `MEM_PERCPU`
        const MEM_PERCPU = 1 << 12;
        /// `OBJ_RELEASE`
        const OBJ_RELEASE = 1 << 13;
        /// `PTR_UNTRUSTED`
        const PTR_UNTRUSTED = 1 << 14;
        /// `MEM_UNINIT`
        const MEM_UNINIT = 1 << 15;
        /// `DYNPTR_TYPE_LOCAL`
        const DYNPTR_TYPE_LOCAL = 1 << 16;
        /// `DYNPTR_TYPE_RINGBUF`
        const DYNPTR_TYPE_RINGBUF = 1 << 17;
        /// `MEM_FIXED_SIZE`
        const MEM_FIXED_SIZE = 1 << 18;
        /// `MEM_ALLOC`
        const MEM_ALLOC = 1 << 19;
        /// `PTR_TRUSTED`
        const PTR_TRUSTED = 1 << 20;
        /// `MEM_RCU`
        const MEM_RCU = 1 << 21;
        /// `NON_OWN_REF`
        const NON_OWN_REF = 1 << 22;
        /// `DYNPTR_TYPE_SKB`
        const DYNPTR_TYPE_SKB = 1 << 23;
        /// `DYNPTR_TYPE_XDP`
        const DYNPTR_TYPE_XDP = 1 << 24;
        /// `MEM_ALIGNED`
        const MEM_ALIGNED = 1 << 25;
        /// `MEM_WRITE`
        const MEM_WRITE = 1 << 26;
        /// `DYNPTR_TYPE_SKB_META`
        const DYNPTR_TYPE_SKB_META = 1 << 27;
    }
}

macro_rules! type_enum {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $number:literal, $symbol:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $(#[doc = concat!("`", $symbol, "`")] $variant = $number,)*
        }
        impl $name {
            /// The kernel's symbol.
            #[must_use]
            pub const fn symbol(self) -> &'static str {
                match self { $($name::$variant => $symbol,)* }
            }
        }
    };
}

type_enum! {
    /// The base of an argument type: `enum bpf_arg_type` without its flags.
    ArgBase {
        DontCare = 0, "ARG_DONTCARE";
        ConstMapPtr = 1, "ARG_CONST_MAP_PTR";
        MapKey = 2, "ARG_PTR_TO_MAP_KEY";
        MapValue = 3, "ARG_PTR_TO_MAP_VALUE";
        Mem = 4, "ARG_PTR_TO_MEM";
        Arena = 5, "ARG_PTR_TO_ARENA";
        ConstSize = 6, "ARG_CONST_SIZE";
        ConstSizeOrZero = 7, "ARG_CONST_SIZE_OR_ZERO";
        Ctx = 8, "ARG_PTR_TO_CTX";
        Anything = 9, "ARG_ANYTHING";
        SpinLock = 10, "ARG_PTR_TO_SPIN_LOCK";
        SockCommon = 11, "ARG_PTR_TO_SOCK_COMMON";
        Socket = 12, "ARG_PTR_TO_SOCKET";
        BtfId = 13, "ARG_PTR_TO_BTF_ID";
        RingbufMem = 14, "ARG_PTR_TO_RINGBUF_MEM";
        ConstAllocSizeOrZero = 15, "ARG_CONST_ALLOC_SIZE_OR_ZERO";
        BtfIdSockCommon = 16, "ARG_PTR_TO_BTF_ID_SOCK_COMMON";
        PercpuBtfId = 17, "ARG_PTR_TO_PERCPU_BTF_ID";
        Func = 18, "ARG_PTR_TO_FUNC";
        Stack = 19, "ARG_PTR_TO_STACK";
        ConstStr = 20, "ARG_PTR_TO_CONST_STR";
        Timer = 21, "ARG_PTR_TO_TIMER";
        KptrXchgDest = 22, "ARG_KPTR_XCHG_DEST";
        Dynptr = 23, "ARG_PTR_TO_DYNPTR";
    }
}

type_enum! {
    /// The base of a return type: `enum bpf_return_type` without its flags.
    RetBase {
        Integer = 0, "RET_INTEGER";
        Void = 1, "RET_VOID";
        MapValue = 2, "RET_PTR_TO_MAP_VALUE";
        Socket = 3, "RET_PTR_TO_SOCKET";
        TcpSock = 4, "RET_PTR_TO_TCP_SOCK";
        SockCommon = 5, "RET_PTR_TO_SOCK_COMMON";
        Mem = 6, "RET_PTR_TO_MEM";
        MemOrBtfId = 7, "RET_PTR_TO_MEM_OR_BTF_ID";
        BtfId = 8, "RET_PTR_TO_BTF_ID";
    }
}

/// What completes a base type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Of {
    /// Nothing, or what the arguments themselves say.
    Nothing,
    /// The kernel structure pointed to: `arg*_btf_id`, `ret_btf_id`.
    Btf(&'static str),
    /// The size of a fixed memory area, bytes: `arg*_size`.
    Size(u32),
}

/// An argument's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgType {
    /// The base type.
    pub base: ArgBase,
    /// Its modifiers.
    pub flags: TypeFlags,
    /// Structure or size that completes it.
    pub of: Of,
}

/// A return type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetType {
    /// The base type.
    pub base: RetBase,
    /// Its modifiers.
    pub flags: TypeFlags,
    /// The structure that completes it.
    pub of: Of,
}

macro_rules! combine {
    ($name:ident, $base:ident) => {
        impl $name {
            pub(super) const fn new(base: $base) -> Self {
                Self {
                    base,
                    flags: TypeFlags::empty(),
                    of: Of::Nothing,
                }
            }
            pub(super) const fn of(self, of: Of) -> Self {
                Self { of, ..self }
            }
            pub(super) const fn with(self, flags: TypeFlags) -> Self {
                Self {
                    flags: self.flags.union(flags),
                    ..self
                }
            }
            /// Whether null may be passed or given back.
            #[must_use]
            pub const fn maybe_null(self) -> bool {
                self.flags.contains(TypeFlags::PTR_MAYBE_NULL)
            }
        }
    };
}
combine!(ArgType, ArgBase);
combine!(RetType, RetBase);

bitflags::bitflags! {
    /// The flags of `struct bpf_func_proto`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct ProtoFlags: u8 {
        /// `gpl_only`: the program's licence must be compatible with the GPL.
        const GPL_ONLY = 1;
        /// `pkt_access`: packet pointers may be passed as memory.
        const PKT_ACCESS = 2;
        /// `might_sleep`: only where sleeping is permitted.
        const MIGHT_SLEEP = 4;
        /// `allow_fastcall`: keeps R1 to R5 where the call is inlined.
        const FASTCALL = 8;
        /// `bpf_helper_changes_pkt_data`: every packet pointer is void after it.
        const CHANGES_PKT = 16;
    }
}

/// A further condition that the kernel asks of the program: `bpf_func_proto::allowed`.
/// Where it does not hold the verifier says "helper call is not allowed in probe" (EINVAL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allowed {
    /// None.
    Always,
    /// `bpf_d_path_allowed`: an iterator, a sleepable LSM hook, or attached to one of [`D_PATH_FUNCS`].
    DPath,
    /// `bpf_ima_inode_hash_allowed`: an LSM hook that may sleep.
    SleepableLsmHook,
    /// `bpf_sk_storage_tracing_allowed`: an iterator or raw tracepoint, or fentry/fexit of a
    /// function whose name does not begin with `bpf_sk_storage`.
    SkStorageTracing,
}

/// `btf_allowlist_d_path`: the functions whose fentry and fexit programs may call `bpf_d_path`.
pub const D_PATH_FUNCS: &[&str] = &[
    "security_file_permission",
    "security_inode_getattr",
    "security_file_open",
    "security_path_truncate",
    "vfs_truncate",
    "vfs_fallocate",
    "dentry_open",
    "vfs_getattr",
    "filp_close",
];

/// A prototype: `struct bpf_func_proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proto {
    /// The kernel's symbol, such as `bpf_map_lookup_elem_proto`.
    pub symbol: &'static str,
    /// The helper that it is a prototype of.
    pub func: Func,
    /// What it gives back.
    pub ret: RetType,
    /// What it takes in R1 to R5; as many as it has.
    pub args: &'static [ArgType],
    /// Its flags.
    pub flags: ProtoFlags,
    /// A further condition on the program.
    pub allowed: Allowed,
}

impl RetType {
    /// Whether what it gives back is a pointer.
    #[must_use]
    pub fn is_pointer(&self) -> bool {
        !matches!(self.base, RetBase::Integer | RetBase::Void)
    }
}

impl Proto {
    /// Whether it has this flag.
    #[must_use]
    pub const fn is(&self, flag: ProtoFlags) -> bool {
        self.flags.contains(flag)
    }
}

macro_rules! display_type {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            /// As the kernel's tables have it: `ARG_PTR_TO_MEM | MEM_RDONLY`.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.base.symbol())?;
                match self.of {
                    Of::Nothing => {}
                    Of::Btf(name) => write!(f, "({name})")?,
                    Of::Size(size) => write!(f, "({size})")?,
                }
                self.flags
                    .iter_names()
                    .try_for_each(|(name, _)| write!(f, " | {name}"))
            }
        }
    };
}
display_type!(ArgType);
display_type!(RetType);

impl std::fmt::Display for Proto {
    /// `RET_INTEGER (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let args: Vec<String> = self.args.iter().map(ToString::to_string).collect();
        write!(f, "{} ({})", self.ret, args.join(", "))
    }
}

/// The kernel's names of argument and return types, flags included, for the tables.
pub(super) mod names {
    use super::{ArgBase, ArgType, RetBase, RetType, TypeFlags};

    macro_rules! args { ($($name:ident = $base:ident $(| $flag:ident)*;)*) => {
        $(pub const $name: ArgType = ArgType::new(ArgBase::$base)$(.with(TypeFlags::$flag))*;)*
    } }
    args! {
        ARG_CONST_MAP_PTR = ConstMapPtr;
        ARG_PTR_TO_MAP_KEY = MapKey;
        ARG_PTR_TO_MAP_VALUE = MapValue;
        ARG_PTR_TO_MAP_VALUE_OR_NULL = MapValue | PTR_MAYBE_NULL;
        ARG_PTR_TO_MEM = Mem;
        ARG_PTR_TO_MEM_OR_NULL = Mem | PTR_MAYBE_NULL;
        ARG_PTR_TO_UNINIT_MEM = Mem | MEM_UNINIT | MEM_WRITE;
        ARG_PTR_TO_FIXED_SIZE_MEM = Mem | MEM_FIXED_SIZE;
        ARG_CONST_SIZE = ConstSize;
        ARG_CONST_SIZE_OR_ZERO = ConstSizeOrZero;
        ARG_CONST_ALLOC_SIZE_OR_ZERO = ConstAllocSizeOrZero;
        ARG_PTR_TO_CTX = Ctx;
        ARG_PTR_TO_CTX_OR_NULL = Ctx | PTR_MAYBE_NULL;
        ARG_ANYTHING = Anything;
        ARG_PTR_TO_SPIN_LOCK = SpinLock;
        ARG_PTR_TO_SOCK_COMMON = SockCommon;
        ARG_PTR_TO_SOCKET_OR_NULL = Socket | PTR_MAYBE_NULL;
        ARG_PTR_TO_BTF_ID = BtfId;
        ARG_PTR_TO_BTF_ID_OR_NULL = BtfId | PTR_MAYBE_NULL;
        ARG_PTR_TO_RINGBUF_MEM = RingbufMem;
        ARG_PTR_TO_BTF_ID_SOCK_COMMON = BtfIdSockCommon;
        ARG_PTR_TO_PERCPU_BTF_ID = PercpuBtfId;
        ARG_PTR_TO_FUNC = Func;
        ARG_PTR_TO_STACK_OR_NULL = Stack | PTR_MAYBE_NULL;
        ARG_PTR_TO_CONST_STR = ConstStr;
        ARG_PTR_TO_TIMER = Timer;
        ARG_KPTR_XCHG_DEST = KptrXchgDest;
        ARG_PTR_TO_DYNPTR = Dynptr;
    }

    macro_rules! rets { ($($name:ident = $base:ident $(| $flag:ident)*;)*) => {
        $(pub const $name: RetType = RetType::new(RetBase::$base)$(.with(TypeFlags::$flag))*;)*
    } }
    rets! {
        RET_INTEGER = Integer;
        RET_VOID = Void;
        RET_PTR_TO_MAP_VALUE = MapValue;
        RET_PTR_TO_MAP_VALUE_OR_NULL = MapValue | PTR_MAYBE_NULL;
        RET_PTR_TO_SOCKET_OR_NULL = Socket | PTR_MAYBE_NULL;
        RET_PTR_TO_TCP_SOCK_OR_NULL = TcpSock | PTR_MAYBE_NULL;
        RET_PTR_TO_SOCK_COMMON_OR_NULL = SockCommon | PTR_MAYBE_NULL;
        RET_PTR_TO_RINGBUF_MEM_OR_NULL = Mem | PTR_MAYBE_NULL | MEM_RINGBUF;
        RET_PTR_TO_DYNPTR_MEM_OR_NULL = Mem | PTR_MAYBE_NULL;
        RET_PTR_TO_MEM_OR_BTF_ID = MemOrBtfId;
        RET_PTR_TO_BTF_ID = BtfId;
        RET_PTR_TO_BTF_ID_OR_NULL = BtfId | PTR_MAYBE_NULL;
        RET_PTR_TO_BTF_ID_TRUSTED = BtfId | PTR_TRUSTED;
    }
}

/// One row per prototype: `symbol: Func => RETURN, (ARGUMENTS), FLAGS;`, an argument being
/// `BASE(what completes it) | FLAG | FLAG`.
macro_rules! protos {
    ($($symbol:ident : $func:ident => $ret:ident $(($ret_of:expr))? $(| $ret_flag:ident)*,
       ($($arg:ident $(($of:expr))? $(| $flag:ident)*),*)
       $(, $pflag:ident)* $(if $allowed:ident)? ;)*) => {
        $(pub(super) static $symbol: $crate::helper::Proto = $crate::helper::Proto {
            symbol: stringify!($symbol),
            func: $crate::helper::Func::$func,
            ret: $crate::helper::proto::names::$ret$(.of($ret_of))?
                $(.with($crate::helper::TypeFlags::$ret_flag))*,
            args: &[$($crate::helper::proto::names::$arg$(.of($of))?
                $(.with($crate::helper::TypeFlags::$flag))*),*],
            flags: $crate::helper::ProtoFlags::empty()
                $(.union($crate::helper::ProtoFlags::$pflag))*,
            allowed: protos!(@allowed $($allowed)?),
        };)*
        pub(super) const ALL: &[&$crate::helper::Proto] = &[$(&$symbol),*];
    };
    (@allowed) => { $crate::helper::Allowed::Always };
    (@allowed $allowed:ident) => { $crate::helper::Allowed::$allowed };
}
pub(super) use protos;
