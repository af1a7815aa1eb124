//! One type of a BTF, decoded where it lies: numbers by value, names and lists borrowed from the blob.

use std::fmt;

use crate::btf::Btf;
use crate::list::{List, Record};
use crate::raw::{self, kind};

/// A type's number within its BTF (and that BTF's base); 0 is `void`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl TypeId {
    /// `void`, which needs no entry in the blob.
    pub const VOID: TypeId = TypeId(0);
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.0)
    }
}

/// What a type is: `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Void = kind::VOID,
    Int = kind::INT,
    Ptr = kind::PTR,
    Array = kind::ARRAY,
    Struct = kind::STRUCT,
    Union = kind::UNION,
    Enum = kind::ENUM,
    Fwd = kind::FWD,
    Typedef = kind::TYPEDEF,
    Volatile = kind::VOLATILE,
    Const = kind::CONST,
    Restrict = kind::RESTRICT,
    Func = kind::FUNC,
    FuncProto = kind::FUNC_PROTO,
    Var = kind::VAR,
    Datasec = kind::DATASEC,
    Float = kind::FLOAT,
    DeclTag = kind::DECL_TAG,
    TypeTag = kind::TYPE_TAG,
    Enum64 = kind::ENUM64,
}

const KINDS: [(Kind, &str); 20] = [
    (Kind::Void, "UNKNOWN"),
    (Kind::Int, "INT"),
    (Kind::Ptr, "PTR"),
    (Kind::Array, "ARRAY"),
    (Kind::Struct, "STRUCT"),
    (Kind::Union, "UNION"),
    (Kind::Enum, "ENUM"),
    (Kind::Fwd, "FWD"),
    (Kind::Typedef, "TYPEDEF"),
    (Kind::Volatile, "VOLATILE"),
    (Kind::Const, "CONST"),
    (Kind::Restrict, "RESTRICT"),
    (Kind::Func, "FUNC"),
    (Kind::FuncProto, "FUNC_PROTO"),
    (Kind::Var, "VAR"),
    (Kind::Datasec, "DATASEC"),
    (Kind::Float, "FLOAT"),
    (Kind::DeclTag, "DECL_TAG"),
    (Kind::TypeTag, "TYPE_TAG"),
    (Kind::Enum64, "ENUM64"),
];

impl Kind {
    /// The kind of this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Kind> {
        KINDS.get(usize::from(number)).map(|&(kind, _)| kind)
    }

    /// The name in the kernel's log and in `bpftool btf dump`.
    pub fn as_str(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The word in libbpf's messages (`btf_kind_str`): lower case.
    pub fn c_word(self) -> &'static str {
        match self {
            Kind::Void => "void",
            Kind::Int => "int",
            Kind::Ptr => "ptr",
            Kind::Array => "array",
            Kind::Struct => "struct",
            Kind::Union => "union",
            Kind::Enum => "enum",
            Kind::Fwd => "fwd",
            Kind::Typedef => "typedef",
            Kind::Volatile => "volatile",
            Kind::Const => "const",
            Kind::Restrict => "restrict",
            Kind::Func => "func",
            Kind::FuncProto => "func_proto",
            Kind::Var => "var",
            Kind::Datasec => "datasec",
            Kind::Float => "float",
            Kind::DeclTag => "decl_tag",
            Kind::TypeTag => "type_tag",
            Kind::Enum64 => "enum64",
        }
    }

    /// `btf_type_is_modifier`: const, volatile, restrict and type tags (typedefs are not).
    pub fn is_modifier(self) -> bool {
        matches!(
            self,
            Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One type. Names are empty where C has none.
#[derive(Clone, Copy, Debug)]
pub enum Type<'a> {
    /// `void` (id 0).
    Void,
    /// An integer, `char`, `_Bool`.
    Int(Int<'a>),
    /// A pointer.
    Ptr {
        /// Pointed to.
        to: TypeId,
    },
    /// An array.
    Array(Array),
    /// A struct.
    Struct(Composite<'a>),
    /// A union; every member lies at bit 0.
    Union(Composite<'a>),
    /// An enum of up to 32-bit values.
    Enum(Enumeration<'a>),
    /// An enum of 64-bit values.
    Enum64(Enumeration<'a>),
    /// A struct or union of which only the name is known.
    Fwd {
        /// Name.
        name: &'a str,
        /// Whether it is a union.
        is_union: bool,
    },
    /// A typedef.
    Typedef {
        /// The new name.
        name: &'a str,
        /// What it stands for.
        to: TypeId,
    },
    /// `volatile`.
    Volatile {
        /// Qualified type.
        to: TypeId,
    },
    /// `const`.
    Const {
        /// Qualified type.
        to: TypeId,
    },
    /// `restrict`.
    Restrict {
        /// Qualified type.
        to: TypeId,
    },
    /// A function.
    Func {
        /// Name.
        name: &'a str,
        /// Its `FuncProto`.
        proto: TypeId,
        /// `BTF_FUNC_*`: 0 static, 1 global, 2 extern.
        linkage: Linkage,
    },
    /// A function's type.
    FuncProto(FuncProto<'a>),
    /// A variable.
    Var {
        /// Name.
        name: &'a str,
        /// Its type.
        ty: TypeId,
        /// `BTF_VAR_*`: 0 static, 1 global, 2 extern.
        linkage: Linkage,
    },
    /// The variables (or extern functions) of an ELF section.
    Datasec(Datasec<'a>),
    /// A floating-point number.
    Float {
        /// Name.
        name: &'a str,
        /// Bytes.
        size: u32,
    },
    /// `__attribute__((btf_decl_tag(name)))`.
    DeclTag {
        /// The tag's text.
        name: &'a str,
        /// The struct, union, function, variable or typedef that carries it.
        ty: TypeId,
        /// Member or argument that carries it; -1 for the type itself.
        component_idx: i32,
        /// 6.15's `kind_flag`: the text is a whole `__attribute__`.
        is_attr: bool,
    },
    /// `__attribute__((btf_type_tag(name)))`.
    TypeTag {
        /// The tag's text.
        name: &'a str,
        /// Tagged type.
        to: TypeId,
        /// 6.15's `kind_flag`: the text is a whole `__attribute__`.
        is_attr: bool,
    },
}

/// `BTF_FUNC_*` and `BTF_VAR_*` linkage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Linkage {
    Static,
    Global,
    Extern,
    /// A number that the format does not define.
    Other(u32),
}

impl Linkage {
    pub(crate) fn from_raw(raw: u32) -> Linkage {
        match raw {
            0 => Linkage::Static,
            1 => Linkage::Global,
            2 => Linkage::Extern,
            n => Linkage::Other(n),
        }
    }

    pub(crate) fn to_raw(self) -> u32 {
        match self {
            Linkage::Static => 0,
            Linkage::Global => 1,
            Linkage::Extern => 2,
            Linkage::Other(n) => n,
        }
    }
}

/// `BTF_KIND_INT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<'a> {
    /// Name, `"unsigned int"`.
    pub name: &'a str,
    /// Bytes that it takes in memory.
    pub size: u32,
    /// Bits that count, from `offset`.
    pub bits: u8,
    /// `BTF_INT_*` flags: 1 signed, 2 char, 4 bool.
    pub encoding: u8,
    /// First bit that counts; 0 but for old bit-field encodings.
    pub offset: u8,
}

impl Int<'_> {
    /// `BTF_INT_SIGNED`.
    pub fn is_signed(&self) -> bool {
        self.encoding & raw::INT_SIGNED != 0
    }

    /// `BTF_INT_CHAR`.
    pub fn is_char(&self) -> bool {
        self.encoding & raw::INT_CHAR != 0
    }

    /// `BTF_INT_BOOL`.
    pub fn is_bool(&self) -> bool {
        self.encoding & raw::INT_BOOL != 0
    }
}

/// `struct btf_array`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// Element type.
    pub elem: TypeId,
    /// Type of the index (an int, by convention).
    pub index: TypeId,
    /// Number of elements; 0 for a flexible array.
    pub nelems: u32,
}

/// A struct or a union.
#[derive(Clone, Copy, Debug)]
pub struct Composite<'a> {
    /// Tag; empty if anonymous.
    pub name: &'a str,
    /// Bytes.
    pub size: u32,
    /// Members in declaration order.
    pub members: List<'a, Member<'a>>,
    /// Whether `bitfield_size` of members comes from the wire (`kind_flag`) or is always 0.
    pub kflag: bool,
}

/// A member of a struct or a union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Name; empty for an anonymous struct or union, or a padding bit-field.
    pub name: &'a str,
    /// Its type.
    pub ty: TypeId,
    /// Bits from the start of the struct.
    pub bit_offset: u32,
    /// Width in bits; 0 for what is no bit-field.
    pub bitfield_size: u8,
}

/// An enum of either width.
#[derive(Clone, Copy, Debug)]
pub struct Enumeration<'a> {
    /// Tag; empty if anonymous.
    pub name: &'a str,
    /// Bytes.
    pub size: u32,
    /// Whether values are signed (`kind_flag`).
    pub signed: bool,
    /// Values in declaration order.
    pub values: List<'a, Enumerator<'a>>,
}

/// One name of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator<'a> {
    /// Name.
    pub name: &'a str,
    /// Value: sign-extended where the enum is signed, else the unsigned value's 64 bits.
    pub value: i64,
}

/// A function's type.
#[derive(Clone, Copy, Debug)]
pub struct FuncProto<'a> {
    /// What it returns.
    pub ret: TypeId,
    /// Parameters; a last one without name and of type 0 stands for `...`.
    pub params: List<'a, Param<'a>>,
}

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Name; may be empty.
    pub name: &'a str,
    /// Its type.
    pub ty: TypeId,
}

/// An ELF section's variables.
#[derive(Clone, Copy, Debug)]
pub struct Datasec<'a> {
    /// Name of the section.
    pub name: &'a str,
    /// Bytes; 0 in what clang emits, filled in by the loader.
    pub size: u32,
    /// Its variables.
    pub vars: List<'a, VarSecinfo>,
}

/// `struct btf_var_secinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarSecinfo {
    /// The `Var` (or, for externs, the `Func`).
    pub ty: TypeId,
    /// Bytes from the start of the section; 0 in what clang emits.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

impl<'a> Record<'a> for Member<'a> {
    fn read(btf: &'a Btf, [name, ty, offset]: [u32; 3], flag: bool, _: bool) -> Self {
        let (bit_offset, bitfield_size) = match flag {
            true => (offset & 0x00ff_ffff, (offset >> 24) as u8),
            false => (offset, 0),
        };
        Member {
            name: btf.str_at(name),
            ty: TypeId(ty),
            bit_offset,
            bitfield_size,
        }
    }
}

impl<'a> Record<'a> for Enumerator<'a> {
    fn read(btf: &'a Btf, [name, lo, hi]: [u32; 3], signed: bool, wide: bool) -> Self {
        let value = match (wide, signed) {
            (true, _) => (u64::from(hi) << 32 | u64::from(lo)) as i64,
            (false, true) => i64::from(lo as i32),
            (false, false) => i64::from(lo),
        };
        Enumerator {
            name: btf.str_at(name),
            value,
        }
    }
}

impl<'a> Record<'a> for Param<'a> {
    fn read(btf: &'a Btf, [name, ty, _]: [u32; 3], _: bool, _: bool) -> Self {
        Param {
            name: btf.str_at(name),
            ty: TypeId(ty),
        }
    }
}

impl<'a> Record<'a> for VarSecinfo {
    fn read(_: &'a Btf, [ty, offset, size]: [u32; 3], _: bool, _: bool) -> Self {
        VarSecinfo {
            ty: TypeId(ty),
            offset,
            size,
        }
    }
}

impl<'a> Type<'a> {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Type::Void => Kind::Void,
            Type::Int(_) => Kind::Int,
            Type::Ptr { .. } => Kind::Ptr,
            Type::Array(_) => Kind::Array,
            Type::Struct(_) => Kind::Struct,
            Type::Union(_) => Kind::Union,
            Type::Enum(_) => Kind::Enum,
            Type::Enum64(_) => Kind::Enum64,
            Type::Fwd { .. } => Kind::Fwd,
            Type::Typedef { .. } => Kind::Typedef,
            Type::Volatile { .. } => Kind::Volatile,
            Type::Const { .. } => Kind::Const,
            Type::Restrict { .. } => Kind::Restrict,
            Type::Func { .. } => Kind::Func,
            Type::FuncProto(_) => Kind::FuncProto,
            Type::Var { .. } => Kind::Var,
            Type::Datasec(_) => Kind::Datasec,
            Type::Float { .. } => Kind::Float,
            Type::DeclTag { .. } => Kind::DeclTag,
            Type::TypeTag { .. } => Kind::TypeTag,
        }
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &'a str {
        match *self {
            Type::Int(Int { name, .. })
            | Type::Struct(Composite { name, .. })
            | Type::Union(Composite { name, .. })
            | Type::Enum(Enumeration { name, .. })
            | Type::Enum64(Enumeration { name, .. })
            | Type::Fwd { name, .. }
            | Type::Typedef { name, .. }
            | Type::Func { name, .. }
            | Type::Var { name, .. }
            | Type::Datasec(Datasec { name, .. })
            | Type::Float { name, .. }
            | Type::DeclTag { name, .. }
            | Type::TypeTag { name, .. } => name,
            _ => "",
        }
    }

    /// The struct or union in it.
    pub fn composite(&self) -> Option<Composite<'a>> {
        match *self {
            Type::Struct(c) | Type::Union(c) => Some(c),
            _ => None,
        }
    }

    /// The enum of either width in it.
    pub fn enumeration(&self) -> Option<Enumeration<'a>> {
        match *self {
            Type::Enum(e) | Type::Enum64(e) => Some(e),
            _ => None,
        }
    }

    /// The one type that a pointer, modifier, typedef, function, variable or tag refers to.
    pub fn refers_to(&self) -> Option<TypeId> {
        match *self {
            Type::Ptr { to }
            | Type::Typedef { to, .. }
            | Type::Volatile { to }
            | Type::Const { to }
            | Type::Restrict { to }
            | Type::TypeTag { to, .. } => Some(to),
            Type::Func { proto, .. } => Some(proto),
            Type::Var { ty, .. } | Type::DeclTag { ty, .. } => Some(ty),
            _ => None,
        }
    }
}
