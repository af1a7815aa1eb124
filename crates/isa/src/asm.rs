//! Assembler text to slots, and slots to a listing.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write;
use std::str::FromStr;

use crate::codec::{Encoded, decode_any, encode};
use crate::insn::Insn;
use crate::lexer::{Cursor, number};
use crate::syntax::{NoSymbols, ReadError, Style, Symbols, read_op};
use crate::table::Op;

/// Text that does not assemble: where and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: {kind}")]
pub struct AsmError {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What is wrong.
    pub kind: AsmErrorKind,
}

/// What is wrong with a statement.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AsmErrorKind {
    /// Not the text of any instruction.
    #[error("no instruction is written so")]
    Syntax,
    /// A number that its field cannot hold.
    #[error("number out of range")]
    Range,
    /// A symbol that the text does not define.
    #[error("symbol `{0}` is not defined here")]
    UnknownSymbol(String),
    /// A label that stands in two places.
    #[error("label `{0}` is defined twice")]
    DuplicateLabel(String),
    /// A directive that does more than bare slots can hold.
    #[error("directive `{0}` is not supported")]
    UnsupportedDirective(String),
    /// The instruction reads well but has no encoding.
    #[error("{0:?} has no encoding")]
    NoEncoding(Op),
    /// A comment without an end.
    #[error("comment is not closed")]
    OpenComment,
}

/// Assembles one instruction; symbols have no meaning.
impl FromStr for Op {
    type Err = AsmError;

    fn from_str(text: &str) -> Result<Self, AsmError> {
        let op = read_op(text, &NoSymbols).map_err(|error| error.at(1, 0))?;
        match encode(&op) {
            Ok(_) => Ok(op),
            Err(_) => Err(AsmError {
                line: 1,
                column: 1,
                kind: AsmErrorKind::NoEncoding(op),
            }),
        }
    }
}

impl ReadError {
    fn at(self, line: usize, column: usize) -> AsmError {
        let (byte, kind) = match self {
            Self::At(byte) => (byte, AsmErrorKind::Syntax),
            Self::Range(byte) => (byte, AsmErrorKind::Range),
            Self::Symbol(byte, name) => (byte, AsmErrorKind::UnknownSymbol(name)),
        };
        AsmError {
            line,
            column: column + byte + 1,
            kind,
        }
    }
}

/// Directives that say nothing about the slots.
const WITHOUT_EFFECT: &[&str] = &[
    ".text",
    ".globl",
    ".global",
    ".local",
    ".weak",
    ".hidden",
    ".type",
    ".size",
    ".file",
    ".ident",
    ".addrsig",
    ".addrsig_sym",
    ".loc",
    ".cfi_startproc",
    ".cfi_endproc",
    ".cfi_sections",
];

/// Assembles a program in LLVM's syntax: instructions, labels (`name:`, and `1:` for `1f`
/// and `1b`), comments (`#`, `//`, `/* */`), statements separated by `;`, raw slots
/// (`.quad`, `.8byte`).
///
/// Unlike LLVM, refuses numbers that their field cannot hold.
///
/// # Errors
/// The first statement that is none, with its line and column.
pub fn assemble(text: &str) -> Result<Vec<Insn>, AsmError> {
    let text = without_comments(text)?;
    let mut labels = Labels::default();
    let mut out = Vec::new();
    // Statements with symbols, read again once all labels are known.
    let mut later = Vec::new();
    for (line, column, statement) in statements(&text) {
        let fail = |kind| AsmError {
            line,
            column: column + 1,
            kind,
        };
        let (names, body) = split_labels(statement);
        for name in names {
            labels.define(name, out.len()).map_err(fail)?;
        }
        let column = column + (statement.len() - body.len());
        match body.trim() {
            "" => {}
            directive if directive.starts_with('.') => {
                out.extend(data(directive).map_err(fail)?);
            }
            _ => {
                let symbols = AnySymbol::default();
                let slots = read_slots(body, &symbols, line, column)?;
                if symbols.met.get() {
                    later.push((line, column, body, out.len()));
                }
                out.extend_from_slice(&slots);
            }
        }
    }
    for (line, column, body, at) in later {
        let labels = &labels;
        let slots = read_slots(body, &Here { labels, at }, line, column)?;
        out[at..at + slots.len()].copy_from_slice(&slots);
    }
    Ok(out)
}

fn read_slots(
    body: &str,
    symbols: &dyn Symbols,
    line: usize,
    column: usize,
) -> Result<Encoded, AsmError> {
    let op = read_op(body, symbols).map_err(|error| error.at(line, column))?;
    encode(&op).map_err(|_| AsmError {
        line,
        column: column + 1,
        kind: AsmErrorKind::NoEncoding(op),
    })
}

/// Replaces comments by spaces, so that places stay.
fn without_comments(text: &str) -> Result<String, AsmError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['#', '/', '\'']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2).ok_or_else(|| {
                let line = 1 + out.matches('\n').count();
                let column = 1 + out.len() - out.rfind('\n').map_or(0, |nl| nl + 1);
                AsmError {
                    line,
                    column,
                    kind: AsmErrorKind::OpenComment,
                }
            })?
        } else if rest.starts_with('#') || rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            // A character literal may hold what looks like a comment.
            let len = if rest.as_bytes().get(2) == Some(&b'\'') {
                3
            } else {
                1
            };
            out.push_str(&rest[..len]);
            rest = &rest[len..];
            continue;
        };
        let (comment, behind) = rest.split_at(len);
        out.extend(comment.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Line number, column (from 0) and text of each statement.
fn statements(text: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        let mut column = 0;
        line.split(';').map(move |statement| {
            let here = column;
            column += statement.len() + 1;
            (index + 1, here, statement)
        })
    })
}

/// The labels in front of a statement, and the statement.
fn split_labels(mut statement: &str) -> (Vec<&str>, &str) {
    let mut names = Vec::new();
    loop {
        let mut cursor = Cursor::new(statement);
        match cursor.word() {
            Some(name) if cursor.prefix(":").is_some() => {
                names.push(name);
                statement = &statement[cursor.position()..];
            }
            _ => return (names, statement),
        }
    }
}

/// The slots that a directive puts down.
fn data(directive: &str) -> Result<Vec<Insn>, AsmErrorKind> {
    let (name, arguments) = directive
        .split_once(char::is_whitespace)
        .unwrap_or((directive, ""));
    if WITHOUT_EFFECT.contains(&name) {
        return Ok(Vec::new());
    }
    if !matches!(name, ".quad" | ".8byte") {
        return Err(AsmErrorKind::UnsupportedDirective(name.into()));
    }
    let values = arguments.split(',').map(|value| {
        let value = number(value.trim()).ok_or(AsmErrorKind::Syntax)?;
        let bits = u64::try_from(value).map_err(|_| AsmErrorKind::Range)?;
        Ok(Insn::from_le_bytes(bits.to_le_bytes()))
    });
    values.collect()
}

/// Slots of labels, by name; of numbered ones every place, in order.
#[derive(Default)]
struct Labels<'a> {
    named: HashMap<&'a str, usize>,
    numbered: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Labels<'a> {
    fn define(&mut self, name: &'a str, slot: usize) -> Result<(), AsmErrorKind> {
        if name.bytes().all(|b| b.is_ascii_digit()) {
            self.numbered.entry(name).or_default().push(slot);
            return Ok(());
        }
        match self.named.insert(name, slot) {
            None => Ok(()),
            Some(_) => Err(AsmErrorKind::DuplicateLabel(name.into())),
        }
    }

    fn slot(&self, name: &str, at: usize) -> Option<usize> {
        if let Some(slot) = self.named.get(name) {
            return Some(*slot);
        }
        let (number, direction) = name.split_at_checked(name.len().checked_sub(1)?)?;
        let places = self.numbered.get(number)?;
        let behind = places.partition_point(|slot| *slot <= at);
        match direction {
            "f" => places.get(behind).copied(),
            _ => places.get(behind.checked_sub(1)?).copied(),
        }
    }
}

/// Labels as seen from the instruction at a slot.
struct Here<'a> {
    labels: &'a Labels<'a>,
    at: usize,
}

impl Symbols for Here<'_> {
    fn distance(&self, name: &str) -> Option<i64> {
        let slot = i64::try_from(self.labels.slot(name, self.at)?).ok()?;
        Some(slot - i64::try_from(self.at).ok()? - 1)
    }
}

/// Takes every symbol for one that is near, to find out how long statements are.
#[derive(Default)]
struct AnySymbol {
    /// Whether there was one.
    met: Cell<bool>,
}

impl Symbols for AnySymbol {
    fn distance(&self, _: &str) -> Option<i64> {
        self.met.set(true);
        Some(0)
    }
}

/// One line of a disassembly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Index of the first slot.
    pub at: usize,
    /// Slots that it takes.
    pub len: usize,
    /// The instruction; `None` where the slot is none.
    pub op: Option<Op>,
    /// Its text.
    pub text: String,
}

/// Disassembles `slots`. A slot that is no instruction is a line `<unknown>`, or in
/// exact style the directive that puts it back.
pub fn disassemble(slots: &[Insn], style: Style) -> impl Iterator<Item = Line> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        let slot = slots.get(at)?;
        let (op, len) = match decode_any(slots, at) {
            Ok((op, len)) => (Some(op), len),
            Err(_) => (None, 1),
        };
        // What a decoder need not look at, text cannot carry.
        let op = op.filter(|op| {
            !style.exact || encode(op).is_ok_and(|enc| enc[..] == slots[at..at + len])
        });
        let len = if op.is_some() { len } else { 1 };
        next = at + len;
        let text = match op {
            Some(op) => op.display(style).to_string(),
            None if style.exact => {
                format!(".8byte {:#018x}", u64::from_le_bytes(slot.to_le_bytes()))
            }
            None => "<unknown>".into(),
        };
        Some(Line { at, len, op, text })
    })
}

/// Text of `slots` that [`assemble`] turns back into the same slots.
pub fn to_assembly(slots: &[Insn]) -> String {
    let mut out = String::new();
    for line in disassemble(slots, Style::EXACT) {
        let _ = writeln!(out, "{}", line.text);
    }
    out
}
