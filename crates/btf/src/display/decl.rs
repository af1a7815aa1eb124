//! C declarations (libbpf's `btf_dump`, for one type at a time: what it names is not defined first).

use super::layout::{Layout, Padding};
use crate::btf::Btf;
use crate::error::{BtfErrorKind as E, Result};
use crate::types::{Composite, Enumeration, FuncProto, Type, TypeId};
use crate::walk::MAX_NESTING;

/// Longest text of one type. Function types can be nested so as to need 2^64 bytes.
const MAX_TEXT: usize = 1 << 20;

/// The type's definition: `struct s { ... }`, `enum e { ... }`, `typedef int t`, `struct fwd`; without
/// a semicolon. Types that C does not define are written as [`declaration`] does, without a name.
///
/// # Errors
/// Types that are nested too deeply, or bite their tails; text of more than a megabyte.
pub fn definition(btf: &Btf, id: TypeId) -> Result<String> {
    let mut printer = Printer::new(btf);
    match btf.get(id)? {
        Type::Struct(c) | Type::Union(c) => printer.composite_def(id, c, 0, MAX_NESTING)?,
        Type::Enum(e) | Type::Enum64(e) => printer.enum_def(id, e, 0)?,
        Type::Typedef {
            name: "__gnuc_va_list",
            to: TypeId::VOID,
        } => {
            printer.put("typedef __builtin_va_list __gnuc_va_list")?;
        }
        Type::Typedef { name, to } => {
            printer.put("typedef ")?;
            printer.decl(to, name, 0, MAX_NESTING)?;
        }
        Type::Func { name, proto, .. } => printer.decl(proto, name, 0, MAX_NESTING)?,
        Type::Var { name, ty, .. } => printer.decl(ty, name, 0, MAX_NESTING)?,
        _ => printer.decl(id, "", 0, MAX_NESTING)?,
    }
    Ok(printer.out)
}

/// A declaration of `name` as a value of this type: `int (*name)(void)`; the type's own C name if `name`
/// is empty. Structs, unions and enums without a name are written out.
///
/// # Errors
/// As [`definition`].
pub fn declaration(btf: &Btf, id: TypeId, name: &str) -> Result<String> {
    let mut printer = Printer::new(btf);
    printer.decl(id, name, 0, MAX_NESTING)?;
    Ok(printer.out)
}

struct Printer<'a> {
    btf: &'a Btf,
    out: String,
    layout: Layout<'a>,
}

/// References from a declaration's outermost type to the one that it ends in; taken from the end.
type Chain<'a> = Vec<(TypeId, Type<'a>)>;

impl<'a> Printer<'a> {
    fn new(btf: &'a Btf) -> Self {
        Printer {
            btf,
            out: String::new(),
            layout: Layout::new(btf),
        }
    }

    fn put(&mut self, text: &str) -> Result<()> {
        if self.out.len() + text.len() > MAX_TEXT {
            return Err(crate::btf::at(0, E::TextTooLong(MAX_TEXT)));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn line(&mut self, level: usize) -> Result<()> {
        self.put("\n")?;
        (0..level).try_for_each(|_| self.put("\t"))
    }

    /// `btf_dump_emit_type_decl`.
    fn decl(&mut self, id: TypeId, name: &str, level: usize, depth: usize) -> Result<()> {
        let too_deep = E::TooDeep(MAX_NESTING as u32);
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| self.btf.error(id, too_deep))?;
        let mut chain = Vec::new();
        let mut at = id;
        loop {
            let ty = self.btf.get(at)?;
            if chain.len() > 4 * MAX_NESTING {
                return Err(self.btf.error(id, E::ChainTooLong));
            }
            chain.push((at, ty));
            at = match ty {
                Type::Ptr { to }
                | Type::Volatile { to }
                | Type::Const { to }
                | Type::Restrict { to }
                | Type::TypeTag { to, .. } => to,
                Type::FuncProto(proto) => proto.ret,
                Type::Array(array) => array.elem,
                _ => break,
            };
        }
        self.chain(&mut chain, name, level, depth)
    }

    /// `btf_dump_emit_type_chain`.
    fn chain(
        &mut self,
        chain: &mut Chain<'a>,
        name: &str,
        level: usize,
        depth: usize,
    ) -> Result<()> {
        // True for a pointer that a function type in parentheses starts with.
        let mut last_was_ptr = true;
        while let Some((id, ty)) = chain.pop() {
            match ty {
                Type::Ptr { .. } => self.put(if last_was_ptr { "*" } else { " *" })?,
                Type::Volatile { .. } => self.put(" volatile")?,
                Type::Const { .. } => self.put(" const")?,
                Type::Restrict { .. } => self.put(" restrict")?,
                Type::Array(array) => {
                    self.array(chain, name, array.nelems, last_was_ptr, (level, depth))?;
                    return Ok(());
                }
                Type::FuncProto(proto) => {
                    return self.func(chain, name, proto, last_was_ptr, (level, depth));
                }
                _ => {
                    self.modifiers(chain)?;
                    self.base(id, ty, level, depth)?;
                }
            }
            last_was_ptr = matches!(ty, Type::Ptr { .. });
        }
        self.name(name, last_was_ptr)
    }

    /// The type that a declaration starts with.
    fn base(&mut self, id: TypeId, ty: Type<'a>, level: usize, depth: usize) -> Result<()> {
        match ty {
            Type::Void => self.put("void"),
            Type::Int(crate::Int { name, .. })
            | Type::Float { name, .. }
            | Type::Typedef { name, .. } => self.put(name),
            Type::Struct(c) | Type::Union(c) if c.name.is_empty() => {
                self.composite_def(id, c, level, depth)
            }
            Type::Struct(c) => self.tagged("struct", c.name),
            Type::Union(c) => self.tagged("union", c.name),
            Type::Enum(e) | Type::Enum64(e) if e.name.is_empty() => self.enum_def(id, e, level),
            Type::Enum(e) | Type::Enum64(e) => self.tagged("enum", e.name),
            Type::Fwd { name, is_union } => {
                self.tagged(if is_union { "union" } else { "struct" }, name)
            }
            Type::TypeTag { name, is_attr, .. } => {
                self.put(" __attribute__((")?;
                match is_attr {
                    true => self.put(name)?,
                    false => {
                        self.put("btf_type_tag(\"")?;
                        self.put(name)?;
                        self.put("\")")?;
                    }
                }
                self.put("))")
            }
            other => Err(self.btf.error(id, E::NoDeclaration(other.kind()))),
        }
    }

    fn tagged(&mut self, keyword: &str, name: &str) -> Result<()> {
        self.put(keyword)?;
        self.put(if name.is_empty() { "" } else { " " })?;
        self.put(name)
    }

    /// Qualifiers of what comes next are written before it.
    fn modifiers(&mut self, chain: &mut Chain<'a>) -> Result<()> {
        while let Some((_, ty)) = chain.last() {
            let word = match ty {
                Type::Volatile { .. } => "volatile ",
                Type::Const { .. } => "const ",
                Type::Restrict { .. } => "restrict ",
                _ => break,
            };
            self.put(word)?;
            chain.pop();
        }
        Ok(())
    }

    fn name(&mut self, name: &str, last_was_ptr: bool) -> Result<()> {
        if !name.is_empty() && !last_was_ptr {
            self.put(" ")?;
        }
        self.put(name)
    }

    /// gcc repeats an element's qualifiers on the array; they mean nothing there.
    fn drop_modifiers(chain: &mut Chain<'a>) {
        let modifies = |ty: &Type<'_>| ty.kind().is_modifier();
        while chain.last().is_some_and(|(_, ty)| modifies(ty)) {
            chain.pop();
        }
    }

    fn array(
        &mut self,
        chain: &mut Chain<'a>,
        name: &str,
        nelems: u32,
        last_was_ptr: bool,
        (level, depth): (usize, usize),
    ) -> Result<()> {
        Self::drop_modifiers(chain);
        match chain.last() {
            None => self.name(name, last_was_ptr)?,
            Some((_, next)) => {
                let several = matches!(next, Type::Array(_));
                if !name.is_empty() && !last_was_ptr {
                    self.put(" ")?;
                }
                self.put(if several { "" } else { "(" })?;
                self.chain(chain, name, level, depth)?;
                self.put(if several { "" } else { ")" })?;
            }
        }
        self.put(&format!("[{nelems}]"))
    }

    fn func(
        &mut self,
        chain: &mut Chain<'a>,
        name: &str,
        proto: FuncProto<'a>,
        last_was_ptr: bool,
        (level, depth): (usize, usize),
    ) -> Result<()> {
        Self::drop_modifiers(chain);
        match chain.is_empty() {
            true => self.name(name, last_was_ptr)?,
            false => {
                self.put(" (")?;
                self.chain(chain, name, level, depth)?;
                self.put(")")?;
            }
        }
        let count = proto.params.len();
        let first_is_void = proto.params.get(0).is_none_or(|p| p.ty == TypeId::VOID);
        if count <= 1 && first_is_void {
            return self.put("(void)");
        }
        for (i, param) in proto.params.iter().enumerate() {
            self.put(if i == 0 { "(" } else { ", " })?;
            match i + 1 == count && param.ty == TypeId::VOID {
                true => self.put("...")?,
                false => self.decl(param.ty, param.name, level, depth)?,
            }
        }
        self.put(")")
    }

    /// `btf_dump_emit_struct_def`.
    fn composite_def(
        &mut self,
        id: TypeId,
        c: Composite<'a>,
        level: usize,
        depth: usize,
    ) -> Result<()> {
        let is_struct = matches!(self.btf.get(id)?, Type::Struct(_));
        let align = self.layout.align(id);
        let packed = is_struct && self.layout.is_packed(&c);
        self.tagged(if is_struct { "struct" } else { "union" }, c.name)?;
        self.put(" {")?;
        let (mut off, mut after_bitfield) = (0u64, false);
        for m in c.members {
            let bits = u64::from(m.bitfield_size);
            let padding = Padding {
                from: off,
                to: u64::from(m.bit_offset),
                next_align: if packed { 1 } else { self.layout.align(m.ty) },
                in_bitfield: after_bitfield && bits != 0,
            };
            self.pad(padding, level + 1)?;
            self.line(level + 1)?;
            self.decl(m.ty, m.name, level + 1, depth)?;
            off = u64::from(m.bit_offset);
            after_bitfield = bits != 0;
            match bits {
                0 => off += 8 * u64::from(self.btf.size_of(m.ty).unwrap_or(0)),
                _ => {
                    self.put(&format!(": {bits}"))?;
                    off += bits;
                }
            }
            self.put(";")?;
        }
        if is_struct {
            let padding = Padding {
                from: off,
                to: 8 * u64::from(c.size),
                next_align: align,
                in_bitfield: false,
            };
            self.pad(padding, level + 1)?;
        }
        if !c.members.is_empty() || c.size != 0 {
            self.line(level)?;
        }
        self.put(if packed {
            "} __attribute__((packed))"
        } else {
            "}"
        })
    }

    fn pad(&mut self, padding: Padding, level: usize) -> Result<()> {
        for (ty, bits) in padding.fields() {
            self.line(level)?;
            self.put(&format!("{ty}: {bits};"))?;
        }
        Ok(())
    }

    /// `btf_dump_emit_enum_def`.
    fn enum_def(&mut self, id: TypeId, e: Enumeration<'a>, level: usize) -> Result<()> {
        let wide = matches!(self.btf.get(id)?, Type::Enum64(_));
        self.tagged("enum", e.name)?;
        if e.values.is_empty() {
            return Ok(());
        }
        self.put(" {")?;
        for value in e.values {
            let text = match (wide, e.signed) {
                (false, true) => format!("{} = {},", value.name, value.value),
                (false, false) => format!("{} = {},", value.name, value.value as u32),
                (true, true) => format!("{} = {}LL,", value.name, value.value),
                (true, false) => format!("{} = {}ULL,", value.name, value.value as u64),
            };
            self.line(level + 1)?;
            self.put(&text)?;
        }
        self.line(level)?;
        self.put("}")?;
        // Values that need 64 bits say so by themselves.
        let says_so = || wide && e.values.iter().any(|v| v.value as u64 >> 32 != 0);
        match e.size {
            1 => self.put(" __attribute__((mode(byte)))"),
            8 if !says_so() => self.put(" __attribute__((mode(word)))"),
            _ => Ok(()),
        }
    }
}
