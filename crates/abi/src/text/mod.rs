//! What the verifier says when it refuses a program, and what is behind it.
//!
//! A [`Rule`] is one thing that Linux's verifier asks of programs: what is required, and what
//! usually mends a program that breaks it, in words of our own. Its [`Text`]s are the lines that
//! the log then ends with, as patterns: a hole stands in braces, `{reg}`, and its name may be
//! used in the rule's words. The verifier can only refuse through a row ([`row`], [`quiet`]),
//! which is looked for while it compiles.
mod attach;
mod calls;
mod form;
mod kfuncs;
mod memory;
mod objects;
mod regs;

use crate::Errno;
use std::borrow::Cow;

/// One thing that the verifier asks of programs.
#[derive(Debug)]
pub struct Rule {
    /// What is required, as a sentence without its full stop.
    pub required: &'static str,
    /// What usually mends a program, likewise.
    pub fix: &'static str,
    /// What Linux says to a program that breaks it.
    pub texts: &'static [Text],
}

/// A line of the log with which the verifier refuses.
#[derive(Debug)]
pub struct Text {
    /// The line, or lines, without the last one's end; holes in braces, braces doubled.
    pub pattern: &'static str,
    /// What `bpf(2)` returns with it; the first is the usual one. None for lines that only go
    /// before or behind another.
    pub errnos: &'static [Errno],
    /// How it is said.
    pub kind: Kind,
}

/// How a text is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As a refusal.
    Said,
    /// Before or behind another.
    Also,
    /// Not at all: the pattern tells what the matter is.
    Quiet,
    /// As some other row's text, of which this is a case with a rule of its own.
    Case,
}

/// A text, and the rule that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The rule.
    pub rule: &'static Rule,
    /// The text.
    pub text: &'static Text,
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.text.pattern == other.text.pattern
    }
}

/// Every rule, by what it is about.
pub static RULES: &[&[Rule]] = &[
    regs::RULES,
    memory::RULES,
    calls::RULES,
    objects::RULES,
    kfuncs::RULES,
    attach::RULES,
    form::RULES,
];

/// Rules with their texts: `"required", "fix" => { ERRNO "text"; quiet ERRNO "what"; also "text"; case "text"; }`.
macro_rules! rules {
    ($($required:literal, $fix:literal => { $($texts:tt)* })*) => {
        pub(super) static RULES: &[crate::text::Rule] = &[$(crate::text::Rule {
            required: $required,
            fix: $fix,
            texts: crate::text::texts!([] $($texts)*),
        },)*];
    };
}
macro_rules! texts {
    ([$($done:expr,)*]) => { &[$($done,)*] };
    ([$($done:expr,)*] quiet $($errno:ident)|+ $pattern:literal; $($rest:tt)*) => {
        crate::text::texts!([$($done,)* crate::text::Text {
            pattern: $pattern, errnos: &[$(crate::Errno::$errno),+], kind: crate::text::Kind::Quiet,
        },] $($rest)*)
    };
    ([$($done:expr,)*] also $pattern:literal; $($rest:tt)*) => {
        crate::text::texts!([$($done,)* crate::text::Text {
            pattern: $pattern, errnos: &[], kind: crate::text::Kind::Also,
        },] $($rest)*)
    };
    ([$($done:expr,)*] case $pattern:literal; $($rest:tt)*) => {
        crate::text::texts!([$($done,)* crate::text::Text {
            pattern: $pattern, errnos: &[], kind: crate::text::Kind::Case,
        },] $($rest)*)
    };
    ([$($done:expr,)*] $($errno:ident)|+ $pattern:literal; $($rest:tt)*) => {
        crate::text::texts!([$($done,)* crate::text::Text {
            pattern: $pattern, errnos: &[$(crate::Errno::$errno),+], kind: crate::text::Kind::Said,
        },] $($rest)*)
    };
}
pub(crate) use {rules, texts};

/// Every text with its rule.
pub fn rows() -> impl Iterator<Item = Row> {
    let rules = RULES.iter().flat_map(|rules| rules.iter());
    rules.flat_map(|rule| rule.texts.iter().map(move |text| Row { rule, text }))
}

/// The row of a format string, whatever its holes are called. For
/// constants: one that is not there, or not with this errno, does not compile.
///
/// ```
/// use bpfsim_abi::{Errno, text::{Row, row}};
/// const ROW: Row = row("R{n} !read_ok\n", Errno::EACCES);
/// assert_eq!(ROW.text.pattern, "R{reg} !read_ok");
/// ```
///
/// ```compile_fail,E0080
/// use bpfsim_abi::{Errno, text::{Row, row}};
/// const ROW: Row = row("nobody says this\n", Errno::EACCES);
/// ```
#[must_use]
pub const fn row(format: &str, errno: Errno) -> Row {
    search(format, Some(errno), Kind::Said)
}

/// The row of a line that goes before or behind another.
#[must_use]
pub const fn also(format: &str) -> Row {
    search(format, None, Kind::Also)
}

/// The row of a refusal without a text.
#[must_use]
pub const fn quiet(what: &str, errno: Errno) -> Row {
    search(what, Some(errno), Kind::Quiet)
}

const fn search(format: &str, errno: Option<Errno>, kind: Kind) -> Row {
    let mut at = 0;
    while at < RULES.len() {
        let rules = RULES[at];
        let mut i = 0;
        while i < rules.len() {
            let mut t = 0;
            while t < rules[i].texts.len() {
                let text = &rules[i].texts[t];
                if text.kind as u8 == kind as u8
                    && has(text.errnos, errno)
                    && same(text.pattern.as_bytes(), format.as_bytes())
                {
                    return Row {
                        rule: &rules[i],
                        text,
                    };
                }
                t += 1;
            }
            i += 1;
        }
        at += 1;
    }
    panic!("a refusal without a row in bpfsim_abi::text, or with another errno")
}

const fn has(errnos: &[Errno], errno: Option<Errno>) -> bool {
    let Some(errno) = errno else {
        return errnos.is_empty();
    };
    let mut i = 0;
    while i < errnos.len() {
        if errnos[i].0 == errno.0 {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether two format strings differ only in what is between braces, and in a line's end.
const fn same(a: &[u8], b: &[u8]) -> bool {
    let (mut i, mut j) = (0, 0);
    loop {
        let (end_a, end_b) = (ends(a, i), ends(b, j));
        if end_a || end_b {
            return end_a && end_b;
        }
        if a[i] != b[j] {
            return false;
        }
        let hole = a[i] == b'{';
        i += 1;
        j += 1;
        if !hole || i >= a.len() || j >= b.len() {
            continue;
        }
        if a[i] == b'{' && b[j] == b'{' {
            i += 1;
            j += 1;
            continue;
        }
        while i < a.len() && a[i] != b'}' {
            i += 1;
        }
        while j < b.len() && b[j] != b'}' {
            j += 1;
        }
    }
}

const fn ends(text: &[u8], at: usize) -> bool {
    at >= text.len() || at + 1 == text.len() && text[at] == b'\n'
}

/// The row whose text a line of the log is, with what stands in its holes. Of several the one of
/// which most is fixed.
#[must_use]
pub fn find(line: &str) -> Option<(Row, Vec<Hole>)> {
    let fits = rows().filter(|row| row.text.kind != Kind::Quiet);
    let fits = fits.filter_map(|row| Some((row, row.text.holes(line)?)));
    fits.max_by_key(|(row, _)| row.text.line().len())
}

/// What stands in a text's hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The hole's name in the pattern.
    pub name: &'static str,
    /// What stands there.
    pub value: String,
}

impl Text {
    /// What a text without holes says.
    #[must_use]
    pub fn line(&self) -> String {
        parts(self.pattern).iter().map(|p| &*p.0).collect()
    }

    /// What stands in the holes of a line that this text, or one of its lines, is; `None` for
    /// another's.
    #[must_use]
    pub fn holes(&self, line: &str) -> Option<Vec<Hole>> {
        self.pattern.split('\n').find_map(|p| holes(p, line))
    }
}

/// What stands before each hole of a pattern, and the hole's name; last what is behind them, with
/// no name.
fn parts(pattern: &'static str) -> Vec<(Cow<'static, str>, &'static str)> {
    let mut parts = Vec::new();
    let mut fixed = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        fixed.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(brace) {
            fixed.push_str(brace);
            rest = behind;
        } else if let Some(end) = rest.find('}') {
            parts.push((std::mem::take(&mut fixed).into(), &rest[..end]));
            rest = &rest[end + 1..];
        }
    }
    fixed.push_str(rest);
    parts.push((fixed.into(), ""));
    parts
}

fn holes(pattern: &'static str, line: &str) -> Option<Vec<Hole>> {
    let parts = parts(pattern);
    let (tail, heads) = parts.split_last()?;
    let mut rest = line.strip_suffix(&*tail.0)?;
    let Some((first, _)) = heads.first() else {
        return rest.is_empty().then(Vec::new);
    };
    rest = rest.strip_prefix(&**first)?;
    let mut holes = Vec::new();
    for (i, (_, name)) in heads.iter().enumerate() {
        let next = heads.get(i + 1).map_or("", |h| &*h.0);
        let end = match heads.len() == i + 1 {
            true => rest.len(),
            false => rest.find(next)?,
        };
        let value = rest[..end].to_owned();
        holes.push(Hole { name, value });
        rest = &rest[end + next.len()..];
    }
    Some(holes)
}

/// A rule's words with what stands in the holes of the text.
#[must_use]
pub fn fill(words: &str, holes: &[Hole]) -> String {
    let mut out = words.to_owned();
    for hole in holes {
        out = out.replace(&format!("{{{}}}", hole.name), &hole.value);
    }
    out
}
