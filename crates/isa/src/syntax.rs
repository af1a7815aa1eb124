//! LLVM's syntax: fills the templates of the table, and reads text by them.

use std::fmt::{self, Write};

use crate::insn::Reg;
use crate::lexer::Cursor;
use crate::parts::{AluOp, AtomicOp, CallKind, Cond, EndKind, Imm64, Operand, Size, Width};
use crate::table::{Fields, Kind, Op, ROWS, Row, Syntax, Val};

/// How to write instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Write the register of a narrow load or store as `w1`, as LLVM does for `-mcpu=v3`
    /// and up and `llvm-objdump` unless told otherwise; else as `r1`.
    pub alu32: bool,
    /// Write what LLVM's text leaves out, so that it assembles to the same bytes: which
    /// kind of call it is (`call pc+0x2`, `call kfunc 0x2, 0x0`, `call helper -0x1`).
    pub exact: bool,
}

impl Style {
    /// As `llvm-objdump -d` writes. Its text of a call does not tell a helper from a
    /// subprogram or a kernel function.
    pub const OBJDUMP: Self = Self {
        alu32: true,
        exact: false,
    };
    /// The same, but nothing left out.
    pub const EXACT: Self = Self {
        alu32: true,
        exact: true,
    };
}

impl Default for Style {
    fn default() -> Self {
        Self::OBJDUMP
    }
}

impl Op {
    /// The instruction as LLVM writes it.
    pub fn display(&self, style: Style) -> impl fmt::Display {
        struct Text(Op, Style);
        impl fmt::Display for Text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&write_op(&self.0, self.1).ok_or(fmt::Error)?)
            }
        }
        Text(*self, style)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.display(Style::EXACT).fmt(f)
    }
}

/// A piece of a template.
enum Piece<'a> {
    Literal(&'a str),
    /// Name, and the kind of writing behind `/` or `:`.
    Field(&'a str, &'a str),
}

fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    template.split_inclusive('}').flat_map(|part| {
        let (literal, field) = match part.split_once('{') {
            Some((literal, field)) => (literal, field.strip_suffix('}')),
            None => (part, None),
        };
        let field = field.map(|field| match field.find(['/', ':']) {
            Some(at) => Piece::Field(&field[..at], &field[at..]),
            None => Piece::Field(field, ""),
        });
        std::iter::once(Piece::Literal(literal)).chain(field)
    })
}

/// The text of `op`. The table's rows cover every value of their fields, which a
/// property test holds; `None` would be a hole in the table.
fn write_op(op: &Op, style: Style) -> Option<String> {
    let fields = op.fields();
    op.row()
        .syntax
        .iter()
        .find_map(|syntax| write_syntax(syntax, &fields, style))
}

fn write_syntax(syntax: &Syntax, fields: &Fields, style: Style) -> Option<String> {
    let unfit = |(name, value): &(&str, Val)| fields.get(name) != Some(*value);
    if syntax.when.iter().any(unfit) {
        return None;
    }
    let mut out = String::new();
    for piece in pieces(syntax.text) {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Field(name, how) => {
                let letter = letter(how, fields, style)?;
                write_field(&mut out, fields.get(name)?, how, letter, style)?;
            }
        }
    }
    Some(out)
}

/// The letter of a register written in this way.
fn letter(how: &str, fields: &Fields, style: Style) -> Option<char> {
    match how {
        "/w" => Some(Width::try_from(fields.get("w")?).ok()?.letter()),
        "/size" => {
            let narrow = fields.get("size") != Some(Val::Size(Size::Dw));
            Some(if narrow && style.alu32 { 'w' } else { 'r' })
        }
        _ => Some('r'),
    }
}

/// Hexadecimal with LLVM's sign in front.
struct Hex(i64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}

/// Hexadecimal with a sign always, and `gap` behind it.
fn write_signed(out: &mut String, value: i64, gap: &str) -> fmt::Result {
    let sign = if value < 0 { '-' } else { '+' };
    write!(out, "{sign}{gap}{:#x}", value.unsigned_abs())
}

/// Writes a field; `None` where it cannot be written in this way.
fn write_field(out: &mut String, value: Val, how: &str, letter: char, style: Style) -> Option<()> {
    let written = match (value, how) {
        (Val::I16(v), ":mem") => write_signed(out, v.into(), " "),
        (Val::I32(v), ":extra") if v == 0 || !style.exact => Ok(()),
        (Val::I32(v), ":extra") => {
            out.push(' ');
            write_signed(out, v.into(), " ")
        }
        (Val::I16(v), ":rel") => write_signed(out, v.into(), ""),
        (Val::I32(v), ":rel" | ":rel16") => write_signed(out, v.into(), ""),
        (Val::I16(v), _) => write!(out, "{}", Hex(v.into())),
        (Val::I32(v) | Val::Operand(Operand::Imm(v)), _) => write!(out, "{}", Hex(v.into())),
        (Val::U16(v), _) => write!(out, "{v:#x}"),
        (Val::U8(v), _) => write!(out, "{v}"),
        (Val::Reg(reg) | Val::Operand(Operand::Reg(reg)), _) => {
            write!(out, "{letter}{}", reg.number())
        }
        (Val::AluOp(op), _) => out.write_str(op.text()),
        (Val::Cond(cond), _) => out.write_str(cond.text()),
        (Val::Size(size), _) => out.write_str(size.text()),
        (Val::AtomicOp(op), _) => out.write_str(op.text()),
        (Val::ByteOrder(kind), _) => out.write_str(kind.text()),
        (Val::Imm64(Imm64::Plain(v)), ":plain") => write!(out, "{}", Hex(v.cast_signed())),
        (Val::Imm64(Imm64::Plain(_)), _) | (Val::Imm64(_), ":plain") => return None,
        (Val::Imm64(kind), _) => write_pseudo(out, kind, style),
        (Val::Call(kind), _) => write_call(out, kind, style),
        (Val::Width(_) | Val::Bool(_), _) => return None,
    };
    written.ok()
}

/// `ld_pseudo`'s kind and value: the first immediate, as LLVM, which has no use for the
/// second; in exact style both.
fn write_pseudo(out: &mut String, kind: Imm64, style: Style) -> fmt::Result {
    let (src, lo, hi) = kind.parts();
    let hi = if style.exact { hi } else { 0 };
    let value = u64::from(hi.cast_unsigned()) << 32 | u64::from(lo.cast_unsigned());
    write!(out, "{src:#x}, {value:#x}")
}

fn write_call(out: &mut String, kind: CallKind, style: Style) -> fmt::Result {
    match kind {
        CallKind::Bpf(rel) if style.exact => {
            out.write_str("pc")?;
            write_signed(out, rel.into(), "")
        }
        CallKind::Kfunc { btf_id, off } if style.exact => {
            write!(out, "kfunc {}, {}", Hex(btf_id.into()), Hex(off.into()))
        }
        CallKind::Helper(id) if style.exact && id < 0 => write!(out, "helper {}", Hex(id.into())),
        CallKind::Helper(imm) | CallKind::Bpf(imm) | CallKind::Kfunc { btf_id: imm, .. } => {
            write!(out, "{}", Hex(imm.into()))
        }
    }
}

/// Where a symbol is.
pub(crate) trait Symbols {
    /// Slots from the one after the present instruction to `name`.
    fn distance(&self, name: &str) -> Option<i64>;
}

/// Knows no symbol.
pub(crate) struct NoSymbols;

impl Symbols for NoSymbols {
    fn distance(&self, _: &str) -> Option<i64> {
        None
    }
}

/// Why a statement is no instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ReadError {
    /// No template goes on from this byte.
    At(usize),
    /// A number that its field cannot hold.
    Range(usize),
    /// A symbol that is nowhere in the text.
    Symbol(usize, String),
}

/// Reads one instruction, all of `text`.
pub(crate) fn read_op(text: &str, symbols: &dyn Symbols) -> Result<Op, ReadError> {
    let start = text.len() - text.trim_start().len();
    let mut reader = Reader {
        cursor: Cursor::new(text),
        symbols,
        fault: None,
        reached: start,
    };
    for row in ROWS {
        for syntax in row.syntax {
            reader.cursor = Cursor::new(text);
            if let Some(op) = reader.read_syntax(row, syntax) {
                return Ok(op);
            }
        }
    }
    let behind = &text[reader.reached..];
    let space = behind.len() - behind.trim_start().len();
    Err(reader
        .fault
        .unwrap_or(ReadError::At(reader.reached + space)))
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    symbols: &'a dyn Symbols,
    /// A reason that says more than "unexpected".
    fault: Option<ReadError>,
    /// End of the furthest piece of any template that was found.
    reached: usize,
}

impl Reader<'_> {
    fn read_syntax(&mut self, row: &Row, syntax: &Syntax) -> Option<Op> {
        let mut fields = Fields::default();
        for (name, value) in syntax.when {
            fields.set(name, *value).then_some(())?;
        }
        let mut narrow = false;
        let mut pieces = pieces(syntax.text).peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Literal(text) => {
                    let open = !text.ends_with(' ') && pieces.peek().is_some();
                    self.cursor.literal(text, open)?;
                }
                Piece::Field(name, how) => {
                    let (name, kind) = *row.fields.iter().find(|(n, _)| *n == name)?;
                    let (value, letter) = self.read_field(kind, how)?;
                    fields.set(name, value).then_some(())?;
                    match (letter, how) {
                        (None, _) => {}
                        (Some(w), "/w") => fields.set("w", w.into()).then_some(())?,
                        (Some(w), "/size") => narrow |= w == Width::W32,
                        (Some(w), _) => (w == Width::W64).then_some(())?,
                    }
                }
            }
            self.reached = self.reached.max(self.cursor.position());
        }
        self.cursor.end()?;
        if narrow && fields.get("size") == Some(Val::Size(Size::Dw)) {
            return None;
        }
        (row.build)(&fields)
    }

    /// A field's value and, of a register, the width that its letter stands for.
    fn read_field(&mut self, kind: Kind, how: &str) -> Option<(Val, Option<Width>)> {
        let value = match kind {
            Kind::Reg => {
                let (width, reg) = self.register()?;
                return Some((reg.into(), Some(width)));
            }
            Kind::Operand => {
                let before = self.cursor;
                if let Some((width, reg)) = self.register() {
                    return Some((Operand::Reg(reg).into(), Some(width)));
                }
                self.cursor = before;
                Operand::Imm(self.imm32()?).into()
            }
            Kind::AluOp => self.longest(AluOp::ALL, AluOp::text)?.into(),
            Kind::Cond => self.longest(Cond::ALL, Cond::text)?.into(),
            Kind::Size => self.longest(Size::ALL, Size::text)?.into(),
            Kind::AtomicOp => {
                let (ops, _exchanges) = AtomicOp::ALL.split_at(4);
                self.longest(ops, AtomicOp::text)?.into()
            }
            Kind::ByteOrder => {
                let mut kinds = EndKind::ALL.iter();
                (*kinds.find(|kind| self.cursor.prefix(kind.text()).is_some())?).into()
            }
            Kind::U8 => u8::try_from(self.cursor.digits()?).ok()?.into(),
            Kind::U16 => self.number::<u16>()?.into(),
            Kind::I16 if how == ":rel" => self.target::<i16>()?.into(),
            Kind::I32 if how == ":rel16" => i32::from(self.target::<i16>()?).into(),
            Kind::I32 if how == ":rel" => self.target::<i32>()?.into(),
            Kind::I16 => self.offset::<i16>()?.into(),
            Kind::I32 if how == ":extra" => match self.cursor.sign_follows() {
                Some(()) => self.offset::<i32>()?.into(),
                None => 0_i32.into(),
            },
            Kind::I32 => self.imm32()?.into(),
            Kind::Imm64 if how == ":plain" => self.plain()?.into(),
            Kind::Imm64 => self.pseudo()?.into(),
            Kind::Call => self.call()?.into(),
            Kind::Width | Kind::Bool => return None,
        };
        Some((value, None))
    }

    fn register(&mut self) -> Option<(Width, Reg)> {
        let word = self.cursor.word()?;
        let width = match word.as_bytes().first()? {
            b'r' | b'R' => Width::W64,
            b'w' | b'W' => Width::W32,
            _ => return None,
        };
        let digits = &word[1..];
        let plain = digits == "0" || !digits.starts_with('0');
        let number = digits
            .parse()
            .ok()
            .filter(|_| plain && !digits.starts_with('+'))?;
        Some((width, Reg::new(number)?))
    }

    /// The value whose text, the longest that there is, comes next.
    fn longest<T: Copy>(&mut self, all: &[T], text: fn(T) -> &'static str) -> Option<T> {
        let before = self.cursor;
        let mut best: Option<(T, Cursor<'_>)> = None;
        for value in all {
            self.cursor = before;
            let longer = best.is_none_or(|(b, _)| text(*value).len() > text(b).len());
            if longer && self.cursor.literal(text(*value), false).is_some() {
                best = Some((*value, self.cursor));
            }
        }
        let (value, after) = best?;
        self.cursor = after;
        Some(value)
    }

    /// A number that fits `T`; one that does not is remembered as the fault.
    fn number<T: TryFrom<i128>>(&mut self) -> Option<T> {
        let at = self.cursor.next_position();
        let value = self.cursor.expression()?;
        self.fit(at, value)
    }

    fn fit<T: TryFrom<i128>>(&mut self, at: usize, value: i128) -> Option<T> {
        let fits = T::try_from(value).ok();
        if fits.is_none() {
            self.fault.get_or_insert(ReadError::Range(at));
        }
        fits
    }

    /// 32 bits, signed or not.
    fn imm32(&mut self) -> Option<i32> {
        let at = self.cursor.next_position();
        let value = self.cursor.expression()?;
        match u32::try_from(value) {
            Ok(unsigned) => Some(unsigned.cast_signed()),
            Err(_) => self.fit(at, value),
        }
    }

    /// An offset behind a base register: its sign is not optional.
    fn offset<T: TryFrom<i128>>(&mut self) -> Option<T> {
        self.cursor.sign_follows()?;
        self.number()
    }

    /// A jump's distance: a number or a symbol; behind it, what objdump adds in `<>`.
    fn target<T: TryFrom<i128>>(&mut self) -> Option<T> {
        let at = self.cursor.next_position();
        let distance = match self.cursor.symbol() {
            Some(name) => self.symbol(at, name)?,
            None => self.cursor.expression()?,
        };
        self.cursor.angle_brackets()?;
        self.fit(at, distance)
    }

    fn symbol(&mut self, at: usize, name: &str) -> Option<i128> {
        let distance = self.symbols.distance(name);
        if distance.is_none() {
            self.fault.get_or_insert(ReadError::Symbol(at, name.into()));
        }
        distance.map(i128::from)
    }

    /// A 64-bit number, signed or not.
    fn plain(&mut self) -> Option<Imm64> {
        let at = self.cursor.next_position();
        // The address of a symbol takes a relocation, which bare slots have no room for.
        if let Some(name) = self.cursor.symbol() {
            if self.cursor.literal(" ll", false).is_some() && Self::is_no_register(name) {
                self.fault.get_or_insert(ReadError::Symbol(at, name.into()));
            }
            return None;
        }
        let value = self.cursor.expression()?;
        let bits = self.bits64(at, value)?;
        Some(Imm64::Plain(bits))
    }

    fn is_no_register(name: &str) -> bool {
        !name.starts_with(['r', 'R', 'w', 'W']) || name[1..].parse::<u8>().is_err()
    }

    fn pseudo(&mut self) -> Option<Imm64> {
        let at = self.cursor.next_position();
        let src: u8 = self.number()?;
        self.cursor.literal(", ", false)?;
        let value_at = self.cursor.next_position();
        let value = self.cursor.expression()?;
        // A negative value that 32 bits hold is that of the first slot alone.
        let (lo, hi) = match i32::try_from(value) {
            Ok(lo) => (lo, 0),
            Err(_) => {
                let bits = self.bits64(value_at, value)?;
                (bits as u32 as i32, (bits >> 32) as i32)
            }
        };
        let kind = (src != 0).then(|| Imm64::from_parts(src, lo, hi)).flatten();
        if kind.is_none_or(|kind| kind.parts() != (src, lo, hi)) {
            self.fault.get_or_insert(ReadError::Range(at));
            return None;
        }
        kind
    }

    /// 64 bits, signed or not.
    fn bits64(&mut self, at: usize, value: i128) -> Option<u64> {
        match u64::try_from(value) {
            Ok(bits) => Some(bits),
            Err(_) => Some(self.fit::<i64>(at, value)?.cast_unsigned()),
        }
    }

    fn call(&mut self) -> Option<CallKind> {
        let before = self.cursor;
        let Some(name) = self.cursor.symbol() else {
            let imm = self.imm32()?;
            // No helper has such a number; compilers leave it where a relocation will
            // put a subprogram.
            let no_helper = imm < 0;
            return Some(if no_helper {
                CallKind::Bpf(imm)
            } else {
                CallKind::Helper(imm)
            });
        };
        match name {
            "pc" if self.cursor.sign_follows().is_some() => Some(CallKind::Bpf(self.number()?)),
            "helper" => self.imm32().map(CallKind::Helper),
            "kfunc" => {
                let btf_id = self.imm32()?;
                self.cursor.literal(", ", false)?;
                Some(CallKind::Kfunc {
                    btf_id,
                    off: self.number()?,
                })
            }
            _ => {
                self.cursor = before;
                self.target().map(CallKind::Bpf)
            }
        }
    }
}
