//! Values as the kernel's own types print them: `bpf_snprintf_btf`, `bpf_seq_printf_btf`
//! (`btf_type_show` and what it calls).

use bpfsim_abi::Errno;
use bpfsim_btf::{Array, Btf, Composite, Enumeration, Int, Member, Type, TypeId};
use bpfsim_vm::GuestMem;
use std::fmt::Write;

/// `BTF_F_*`
const COMPACT: u64 = 1;
const NONAME: u64 = 2;
const PTR_RAW: u64 = 4;
const ZERO: u64 = 8;
/// `BTF_F_ALL`
pub(crate) const ALL: u64 = COMPACT | NONAME | PTR_RAW | ZERO;

/// Names are cut to what `show->state.name` has room for.
const NAME: usize = 79;
/// Typedefs, pointers and arrays that a name is made of (`BTF_SHOW_MAX_ITER`).
const MOST_SUFFIXES: usize = 10;
/// Spaces that there are to indent with.
const MOST_INDENT: usize = 32;
/// Values that one text is made of here, and how deep they lie in one another: types can be larger than
/// anything that is printed.
const MOST_VALUES: u32 = 1 << 20;
const MOST_DEPTH: usize = 64;

/// What is being printed: `struct btf_show`.
struct Show<'a> {
    btf: &'a Btf,
    mem: &'a GuestMem,
    flags: u64,
    out: String,
    /// What the last value that could not be read failed with.
    status: Option<Errno>,
    depth: usize,
    /// While it is looked for something to print, one more than the depth of the aggregate.
    depth_check: usize,
    depth_to_show: usize,
    member: Option<Member<'a>>,
    array_member: bool,
    /// Of an array of characters, and that its NUL has come.
    chars: bool,
    terminated: bool,
    left: u32,
}

/// The text of a value, or what reading it fails with.
pub(crate) fn show(
    btf: &Btf,
    mem: &GuestMem,
    id: TypeId,
    at: u64,
    flags: u64,
) -> Result<String, Errno> {
    let mut show = Show {
        btf,
        mem,
        flags,
        out: String::new(),
        status: None,
        depth: 0,
        depth_check: 0,
        depth_to_show: 0,
        member: None,
        array_member: false,
        chars: false,
        terminated: false,
        left: MOST_VALUES,
    };
    show.value(id, at);
    match show.status {
        Some(errno) => Err(errno),
        None => Ok(show.out),
    }
}

impl<'a> Show<'a> {
    fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    fn print(&mut self, text: &str) {
        if self.depth_check == 0 {
            self.out.push_str(text);
        }
    }

    fn indent(&self) -> &'static str {
        const SPACES: &str = "                                ";
        let n = if self.is(COMPACT) { 0 } else { self.depth };
        &SPACES[..n.min(MOST_INDENT)]
    }

    fn newline(&self) -> &'static str {
        if self.is(COMPACT) { "" } else { "\n" }
    }

    /// `btf_show_delim`: the bar that it has for unions never comes, since the type is forgotten by then.
    fn delim(&self) -> &'static str {
        if self.depth == 0 { "" } else { "," }
    }

    /// `btf_show_obj_safe`: the bytes of a value, if they can be read.
    fn read(&mut self, at: u64, len: u32) -> Option<&'a [u8]> {
        let bytes = self.mem.slice(at, len.into());
        self.status = match bytes {
            Some(_) => None,
            None if crate::helper::memory::is_kernel(at) => Some(Errno::EFAULT),
            None => Some(Errno::ERANGE),
        };
        bytes
    }

    /// `btf_type_ops(t)->show`
    fn value(&mut self, id: TypeId, at: u64) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || self.depth > MOST_DEPTH {
            self.status = Some(Errno::E2BIG);
            return;
        }
        // A variable stands for its type.
        let var = match self.btf.ty(id) {
            Some(Type::Var { ty, .. }) => ty,
            _ => id,
        };
        let Ok((_, ty)) = self.btf.resolve(var) else {
            self.status = Some(Errno::EINVAL);
            return;
        };
        match ty {
            Type::Int(int) => self.int(id, &int, at),
            Type::Ptr { .. } => self.pointer(id, at),
            Type::Enum(e) | Type::Enum64(e) => self.enumeration(id, &e, at),
            Type::Array(array) => {
                self.aggregate(|show| show.array(id, &array, at));
            }
            Type::Struct(c) | Type::Union(c) => {
                self.aggregate(|show| show.members(id, &c, at));
            }
            other => {
                let kind = self.kind(&other);
                self.print(&format!("<unsupported kind:{kind}>"));
            }
        }
    }

    /// `BTF_KIND_*` of what is not shown.
    fn kind(&self, ty: &Type<'_>) -> u32 {
        match ty {
            Type::Fwd { .. } => 7,
            Type::Func { .. } => 12,
            Type::FuncProto(_) => 13,
            Type::Datasec(_) => 15,
            Type::Float { .. } => 16,
            Type::DeclTag { .. } => 17,
            _ => 0,
        }
    }

    /// An array, struct or union within another is printed if something in it is: it is walked twice.
    fn aggregate(&mut self, walk: impl Fn(&mut Show<'a>)) {
        if self.depth > 0 && !self.is(ZERO) {
            if self.depth_check == 0 {
                self.depth_check = self.depth + 1;
                self.depth_to_show = 0;
            }
            let member = self.member;
            walk(self);
            self.member = member;
            if self.depth_check != self.depth + 1 {
                return;
            }
            self.depth_check = 0;
            if self.depth_to_show <= self.depth {
                return;
            }
        }
        walk(self);
    }

    fn start(&mut self, id: TypeId, at: u64) -> bool {
        let size = self.btf.size_of(id).unwrap_or(0);
        // Of a large one Linux reads as much as it has room for, and the rest when it comes to it.
        if self.read(at, size.min(32)).is_none() {
            return false;
        }
        let text = [self.indent(), &self.name(id), self.newline()].concat();
        self.print(&text);
        self.depth += 1;
        true
    }

    fn end(&mut self, suffix: &str) {
        self.depth -= 1;
        let text = [self.indent(), suffix, self.delim(), self.newline()].concat();
        self.print(&text);
    }

    /// `__btf_struct_show`
    fn members(&mut self, id: TypeId, c: &Composite<'a>, at: u64) {
        if !self.start(id, at) {
            return;
        }
        for member in c.members {
            self.member = Some(member);
            let at = at.wrapping_add(u64::from(member.bit_offset / 8));
            match member.bitfield_size {
                0 => self.value(member.ty, at),
                bits => self.bits(member.ty, at, member.bit_offset % 8, bits.into()),
            }
            self.member = None;
            if self.left == 0 {
                break;
            }
        }
        self.end("}");
    }

    /// `__btf_array_show`
    fn array(&mut self, id: TypeId, array: &Array, at: u64) {
        let elem = self.btf.resolve(array.elem).map(|(_, ty)| ty);
        let size = self.btf.size_of(array.elem).unwrap_or(0);
        let chars = matches!(elem, Ok(Type::Int(int)) if int.size == 1 || int.is_char());
        // What it is an array of says whether characters are looked for, as long as it is walked.
        (self.chars, self.terminated) = (chars, false);
        if !self.start(id, at) {
            return;
        }
        for i in 0..u64::from(array.nelems) {
            (self.array_member, self.member) = (true, None);
            self.value(array.elem, at.wrapping_add(i * u64::from(size)));
            self.array_member = false;
            if self.terminated || self.left == 0 {
                break;
            }
        }
        (self.chars, self.terminated) = (false, false);
        self.end("]");
    }

    /// A value that is not 0, or is to be printed all the same (`btf_show_type_value`).
    fn leaf(&mut self, id: TypeId, text: &str, zero: bool) {
        if zero && !self.is(ZERO) && self.depth != 0 {
            return;
        }
        let parts = [
            self.indent(),
            &self.name(id),
            text,
            self.delim(),
            self.newline(),
        ];
        let line = parts.concat();
        self.print(&line);
        self.depth_to_show = self.depth_to_show.max(self.depth);
    }

    fn int(&mut self, id: TypeId, int: &Int<'_>, at: u64) {
        if int.offset != 0
            || !int.bits.is_multiple_of(8)
            || !matches!(int.bits, 8 | 16 | 32 | 64 | 128)
        {
            return self.bits(id, at, int.offset.into(), int.bits.into());
        }
        let Some(bytes) = self.read(at, (int.bits / 8).into()) else {
            return;
        };
        if int.bits == 128 {
            return self.wide(id, wide(bytes));
        }
        let value = wide(bytes) as u64;
        if int.bits == 8 && self.chars {
            let byte = value as u8;
            if self.terminated {
                return;
            }
            if byte == 0 {
                self.terminated = true;
                return;
            }
            if matches!(byte, b' '..=b'~' | 0xa0..) {
                let text = format!("'{}'", char::from(byte));
                return self.leaf(id, &text, false);
            }
        }
        let shift = 64 - u32::from(int.bits);
        let text = match int.is_signed() {
            true => (((value << shift) as i64) >> shift).to_string(),
            false => value.to_string(),
        };
        self.leaf(id, &text, value == 0);
    }

    /// `btf_bitfield_show`
    fn bits(&mut self, id: TypeId, at: u64, offset: u32, bits: u32) {
        let len = (offset + bits).div_ceil(8);
        let Some(bytes) = self.read(at, len.min(16)) else {
            return;
        };
        let mask = u128::MAX.checked_shr(128 - bits.min(128)).unwrap_or(0);
        self.wide(id, wide(bytes) >> offset & mask);
    }

    /// `btf_int128_show`
    fn wide(&mut self, id: TypeId, value: u128) {
        let mut text = String::from("0x");
        let (upper, lower) = ((value >> 64) as u64, value as u64);
        let _ = match upper {
            0 => write!(text, "{lower:x}"),
            _ => write!(text, "{upper:x}{lower:016x}"),
        };
        self.leaf(id, &text, value == 0);
    }

    /// Linux prints a hash of the address unless the flags ask for it; here it is always the address.
    fn pointer(&mut self, id: TypeId, at: u64) {
        if let Some(bytes) = self.read(at, 8) {
            let addr = wide(bytes) as u64;
            self.leaf(id, &format!("0x{addr:016x}"), addr == 0);
        }
    }

    fn enumeration(&mut self, id: TypeId, e: &Enumeration<'_>, at: u64) {
        let size = if e.size == 8 { 8 } else { 4 };
        let Some(bytes) = self.read(at, size) else {
            return;
        };
        let raw = wide(bytes) as u64;
        let (signed, unsigned) = match size {
            8 => (raw as i64, raw),
            _ => (raw as i32 as i64, raw as u32 as u64),
        };
        let same = |value: i64| {
            if size == 8 {
                value == signed
            } else {
                value as i32 as i64 == signed
            }
        };
        let found = e.values.into_iter().find(|v| same(v.value));
        match found {
            // A name is no zero.
            Some(v) => self.leaf(id, v.name, false),
            None if e.signed => self.leaf(id, &signed.to_string(), raw == 0),
            None => self.leaf(id, &unsigned.to_string(), raw == 0),
        }
    }

    /// `btf_show_name`: what stands before a value, `.member = (struct name *)` or so, and what opens it.
    fn name(&self, id: TypeId) -> String {
        if self.array_member {
            return String::new();
        }
        let mut at = self.member.map_or(id, |m| m.ty);
        let mut name = None;
        let (mut pointers, mut arrays, mut typedef) = (0, 0, false);
        let mut parens = "";
        let mut steps = 0;
        loop {
            let next = match self.btf.ty(at) {
                Some(Type::Typedef { name: n, to }) => {
                    name.get_or_insert(n);
                    typedef = true;
                    to
                }
                Some(Type::Array(array)) => {
                    arrays += 1;
                    parens = "[";
                    array.elem
                }
                Some(Type::Ptr { to }) => {
                    pointers += 1;
                    to
                }
                _ => TypeId::VOID,
            };
            if next == TypeId::VOID {
                break;
            }
            at = self.btf.skip_mods(next).unwrap_or(TypeId::VOID);
            steps += 1;
            if steps == MOST_SUFFIXES {
                return String::new();
            }
        }
        let ty = self.btf.ty(at);
        let mut prefix = match ty {
            Some(Type::Struct(_)) => "struct",
            Some(Type::Union(_)) => "union",
            Some(Type::Enum(_) | Type::Enum64(_)) => "enum",
            _ => "",
        };
        if matches!(ty, Some(Type::Struct(_) | Type::Union(_))) && arrays == 0 {
            parens = "{";
        }
        if pointers > 0 {
            parens = "";
        }
        if typedef {
            prefix = "";
        }
        let name = name.unwrap_or_else(|| self.btf.name_of(at));
        let mut text = String::new();
        if self.is(NONAME) {
            text.push_str(parens);
        } else {
            if let Some(m) = self.member.filter(|m| !m.name.is_empty()) {
                let _ = write!(text, ".{} = ", m.name);
            }
            let space = if prefix.is_empty() || name.is_empty() {
                ""
            } else {
                " "
            };
            let stars = "*".repeat(pointers);
            let before = if pointers > 0 { " " } else { "" };
            let brackets = "[]".repeat(arrays);
            let _ = write!(
                text,
                "({prefix}{space}{name}{before}{stars}{brackets}){parens}"
            );
        }
        text.truncate(text.floor_char_boundary(NAME));
        text
    }
}

/// Up to 16 bytes as a number.
fn wide(bytes: &[u8]) -> u128 {
    let bytes = bytes.iter().take(16).rev();
    bytes.fold(0, |word, &b| word << 8 | u128::from(b))
}
