//! Contexts: what a program's R1 points to, and which of its bytes may be read and written.
//!
//! A context that programs see (`__sk_buff`) is not the kernel's own structure: each access is
//! rewritten to where the value really is. Here a [`CtxLayout`] says which field lies at an
//! offset and which [`CtxSlot`] gives its value, and a [`CtxRule`] says what one kind of program
//! may do with it, as the kernel's `*_is_valid_access` functions do. The rules were measured on
//! 6.18, access by access (`tests/data/ctx.csv`).
mod btf_args;
mod layouts;
mod rules;

pub use btf_args::{
    ITER_TARGETS, IterArg, IterTarget, RAW_TP_ARGS, RawTpArg, args_trusted, iter_target, raw_tp_arg,
};
pub use layouts::*;
pub use rules::{PTR_TO_SOCK_COMMON, PTR_TO_SOCKET, PTR_TO_TCP_SOCK, PTR_TO_XDP_SOCK, RULES};

use crate::{AttachType, ProgType, ProgTypes};

/// A field of a context, or an array of equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtxField {
    /// Whoever emulates the kernel gives the value for this.
    pub slot: CtxSlot,
    /// Its name in C.
    pub name: &'static str,
    /// Where it begins, bytes.
    pub offset: u16,
    /// The width of one element, bytes.
    pub width: u8,
    /// How many elements.
    pub count: u8,
}

impl CtxField {
    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u16 {
        self.offset + self.width as u16 * self.count as u16
    }
}

/// A structure that programs see through a context or socket pointer.
#[derive(Debug)]
pub struct CtxLayout {
    /// Its name in `uapi/linux/bpf.h`.
    pub name: &'static str,
    /// Its size, bytes.
    pub size: u16,
    /// Its fields, by offset.
    pub fields: &'static [CtxField],
}

impl CtxLayout {
    /// The field that holds the byte at this offset.
    #[must_use]
    pub fn field_at(&self, offset: u32) -> Option<&'static CtxField> {
        let after = self
            .fields
            .partition_point(|f| u32::from(f.offset) <= offset);
        let field = self.fields.get(after.checked_sub(1)?)?;
        (offset < u32::from(field.end())).then_some(field)
    }

    /// The field with this slot.
    #[must_use]
    pub fn field(&self, slot: CtxSlot) -> Option<&'static CtxField> {
        self.fields.iter().find(|f| f.slot == slot)
    }
}

/// Which accesses within a field are permitted. `rel` is the access's offset in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// None.
    No,
    /// One whole element.
    Whole,
    /// As `Whole`, or 8 bytes at an offset of the context that 8 divides:
    /// `bpf_ctx_wide_access_ok`.
    WholeWide,
    /// An element, or an aligned half, quarter or eighth of it: `bpf_ctx_narrow_access_ok`.
    Narrow,
    /// As `Narrow`, or 8 bytes at an offset of the context that 8 divides.
    NarrowWide,
    /// At an element's beginning, its width or less.
    Prefix,
    /// An element or an aligned half of it.
    Halves,
    /// The first two bytes or either of them, or all four.
    Port,
}

impl Width {
    /// Whether `size` bytes at `offset` of the context are permitted.
    #[must_use]
    pub fn permits(self, field: &CtxField, offset: u32, size: u32) -> bool {
        let (begin, end, width) = (
            u32::from(field.offset),
            u32::from(field.end()),
            u32::from(field.width),
        );
        let within = size.is_power_of_two()
            && size <= 8
            && offset >= begin
            && offset.checked_add(size).is_some_and(|last| last <= end);
        if !within {
            return false;
        }
        let rel = offset - begin;
        let whole = size == width && rel.is_multiple_of(width);
        let narrow = size <= width && rel.is_multiple_of(size);
        let wide = size == 8 && offset.is_multiple_of(8);
        match self {
            Self::No => false,
            Self::Whole => whole,
            Self::WholeWide => whole || wide,
            Self::Narrow => narrow,
            Self::NarrowWide => narrow || wide,
            Self::Prefix => size <= width && rel.is_multiple_of(width),
            Self::Halves => narrow && size * 2 >= width,
            Self::Port => matches!((rel, size), (0, 1) | (1, 1) | (0, 2) | (0, 4)),
        }
    }
}

/// What a read gives: the register's type after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtxValue {
    /// A number.
    Scalar,
    /// `PTR_TO_PACKET`
    Packet,
    /// `PTR_TO_PACKET_META`
    PacketMeta,
    /// `PTR_TO_PACKET_END`
    PacketEnd,
    /// `PTR_TO_FLOW_KEYS`
    FlowKeys,
    /// `PTR_TO_SOCKET`
    Socket,
    /// `PTR_TO_SOCKET_OR_NULL`
    SocketOrNull,
    /// `PTR_TO_SOCK_COMMON_OR_NULL`
    SockCommonOrNull,
    /// `PTR_TO_TP_BUFFER`
    TpBuffer,
    /// `PTR_TO_BTF_ID | PTR_TRUSTED` of this kernel structure.
    Trusted(&'static str),
}

/// What may be done with one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// The field.
    pub slot: CtxSlot,
    /// Which reads.
    pub read: Width,
    /// Which writes.
    pub write: Width,
    /// What a read gives.
    pub value: CtxValue,
}

/// What programs of some types may do with a context: an `is_valid_access` of the kernel.
#[derive(Debug)]
pub struct CtxRule {
    /// The kernel's function.
    pub symbol: &'static str,
    /// The structure.
    pub layout: &'static CtxLayout,
    /// Whose context it is; none for what is reached through a socket pointer.
    pub progs: ProgTypes,
    /// With which expected attach types; `None` is any.
    pub attach: Option<&'static [AttachType]>,
    /// The fields that may be touched at all.
    pub fields: &'static [FieldRule],
}

/// A permitted access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtxAccess {
    /// The field touched; `None` in a context that has none ([`CtxShape::Bytes`]).
    pub field: Option<&'static CtxField>,
    /// What a read gives.
    pub value: CtxValue,
}

impl CtxRule {
    /// The access of `size` bytes at `offset`, if it is permitted.
    #[must_use]
    pub fn check(&self, offset: u32, size: u32, write: bool) -> Option<CtxAccess> {
        let field = self.layout.field_at(offset)?;
        let rule = self.fields.iter().find(|r| r.slot == field.slot)?;
        let width = if write { rule.write } else { rule.read };
        let value = rule.value;
        width.permits(field, offset, size).then_some(CtxAccess {
            field: Some(field),
            value,
        })
    }
}

/// The shape of a program's context.
#[derive(Clone, Copy, Debug)]
pub enum CtxShape {
    /// Fields with rules.
    Fields(&'static CtxRule),
    /// Aligned bytes from `begin` to `end`, all alike.
    Bytes {
        /// The first byte that may be touched.
        begin: u32,
        /// The first that may not.
        end: u32,
        /// Whether they may be written.
        writable: bool,
        /// Whether a read of 8 bytes at 0 gives a `PTR_TO_TP_BUFFER` and others there nothing.
        tp_buffer: bool,
    },
    /// Arguments of 8 bytes each whose types the target's BTF prototype says: `btf_ctx_access`.
    Btf,
    /// Programs of this type have none of their own (extensions take their target's).
    None,
}

/// `struct pt_regs` of x86-64, bytes.
pub const PT_REGS_SIZE: u32 = 168;

/// The registers of `struct pt_regs` on x86-64, 8 bytes each, as C names them.
pub const PT_REGS_NAMES: [&str; 21] = [
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di",
    "orig_ax", "ip", "cs", "flags", "sp", "ss",
];

/// `PERF_MAX_TRACE_SIZE`: the end of a tracepoint's context, bytes.
pub const TRACEPOINT_SIZE: u32 = 8192;

/// `MAX_BPF_FUNC_ARGS` arguments: the end of a raw tracepoint's context, bytes.
pub const RAW_TP_SIZE: u32 = 12 * 8;

/// `U16_MAX`: the end of a syscall program's context, bytes.
pub const SYSCALL_CTX_SIZE: u32 = 65535;

/// The context of a program of this type and expected attach type (after
/// [`fixup_attach_type`](crate::prog::fixup_attach_type)).
#[must_use]
pub fn shape(prog_type: ProgType, attach_type: AttachType) -> CtxShape {
    let bytes = |begin, end, writable, tp_buffer| CtxShape::Bytes {
        begin,
        end,
        writable,
        tp_buffer,
    };
    match prog_type {
        ProgType::Unspec | ProgType::Ext => CtxShape::None,
        ProgType::Kprobe => bytes(0, PT_REGS_SIZE, false, false),
        ProgType::Tracepoint => bytes(8, TRACEPOINT_SIZE, false, false),
        ProgType::RawTracepoint => bytes(0, RAW_TP_SIZE, false, false),
        ProgType::RawTracepointWritable => bytes(0, RAW_TP_SIZE, false, true),
        ProgType::Syscall => bytes(0, SYSCALL_CTX_SIZE, true, false),
        ProgType::LircMode2 => bytes(0, 4, false, false),
        ProgType::Tracing | ProgType::Lsm | ProgType::StructOps => CtxShape::Btf,
        _ => RULES
            .iter()
            .find(|rule| {
                rule.progs.contains(prog_type)
                    && rule.attach.is_none_or(|types| types.contains(&attach_type))
            })
            .map_or(CtxShape::None, |rule| CtxShape::Fields(rule)),
    }
}

impl CtxShape {
    /// The access of `size` bytes at `offset`, if it is permitted. A [`CtxShape::Btf`] permits
    /// nothing here: the BTF prototype decides.
    #[must_use]
    pub fn check(&self, offset: u32, size: u32, write: bool) -> Option<CtxAccess> {
        match *self {
            Self::Fields(rule) => rule.check(offset, size, write),
            Self::Bytes {
                begin,
                end,
                writable,
                tp_buffer,
            } => {
                let last = offset.checked_add(size)?;
                let fits = matches!(size, 1 | 2 | 4 | 8)
                    && offset >= begin
                    && last <= end
                    && offset.is_multiple_of(size)
                    && (writable || !write);
                let value = match (tp_buffer && offset == 0, size) {
                    (true, 8) => CtxValue::TpBuffer,
                    (true, _) => return None,
                    (false, _) => CtxValue::Scalar,
                };
                fits.then_some(CtxAccess { field: None, value })
            }
            Self::Btf | Self::None => None,
        }
    }
}
