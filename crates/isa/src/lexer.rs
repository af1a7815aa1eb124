//! Reading of assembler text: words, numbers, expressions.

/// A place in a statement. Copies are places to come back to.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// Parentheses and signs in an expression are read by recursion, to this depth.
const MAX_DEPTH: u32 = 32;

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Byte that was reached.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Byte where the next token starts.
    pub(crate) fn next_position(&mut self) -> usize {
        self.skip_space();
        self.at
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Nothing but space is left.
    pub(crate) fn end(&mut self) -> Option<()> {
        self.skip_space();
        self.rest().is_empty().then_some(())
    }

    /// Takes exactly `prefix`, no matter what is behind it.
    pub(crate) fn prefix(&mut self, prefix: &str) -> Option<()> {
        self.skip_space();
        self.rest()
            .starts_with(prefix)
            .then(|| self.at += prefix.len())
    }

    /// Takes a template's literal. Space may stand between any two of its characters
    /// that are not of one word; a word has to end with the literal, unless it is `open`.
    pub(crate) fn literal(&mut self, literal: &str, open: bool) -> Option<()> {
        let mut left = literal.trim_start();
        while let Some(first) = left.chars().next() {
            let len = if is_word(first) {
                left.find(|c| !is_word(c)).unwrap_or(left.len())
            } else {
                first.len_utf8()
            };
            let (token, behind) = left.split_at(len);
            let mut here = *self;
            here.prefix(token)?;
            let may_go_on = !is_word(first) || open && behind.is_empty() || is_operator(literal);
            if !may_go_on && here.rest().starts_with(is_word) {
                return None;
            }
            *self = here;
            left = behind.trim_start();
        }
        Some(())
    }

    /// A word: letters, digits, `_`, `.`, `$`.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        self.at += len;
        (len > 0).then(|| &rest[..len])
    }

    /// Decimal digits right here.
    pub(crate) fn digits(&mut self) -> Option<u32> {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let value = rest[..len].parse().ok();
        self.at += len;
        value
    }

    /// The name of a symbol: a word that does not start as a number does, or a local
    /// label as in `1f`, `1b`.
    pub(crate) fn symbol(&mut self) -> Option<&'a str> {
        let mut here = *self;
        let word = here.word()?;
        let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_local = digits.len() < word.len() && matches!(digits, "f" | "b");
        let is_name = !word.starts_with(|c: char| c.is_ascii_digit());
        (is_name || is_local).then(|| {
            *self = here;
            word
        })
    }

    /// Whether `+` or `-` comes next.
    pub(crate) fn sign_follows(&mut self) -> Option<()> {
        self.skip_space();
        self.rest().starts_with(['+', '-']).then_some(())
    }

    /// Skips `<...>`, if it comes next.
    pub(crate) fn angle_brackets(&mut self) -> Option<()> {
        if self.prefix("<").is_some() {
            let len = self.rest().find('>')?;
            self.at += len + 1;
        }
        Some(())
    }

    /// A constant expression: numbers, characters, `+ - * ( )`.
    pub(crate) fn expression(&mut self) -> Option<i128> {
        self.sum(MAX_DEPTH)
    }

    fn sum(&mut self, depth: u32) -> Option<i128> {
        let mut value = self.product(depth)?;
        loop {
            if self.prefix("+").is_some() {
                value = value.checked_add(self.product(depth)?)?;
            } else if self.prefix("-").is_some() {
                value = value.checked_sub(self.product(depth)?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self, depth: u32) -> Option<i128> {
        let mut value = self.term(depth)?;
        while self.prefix("*").is_some() {
            value = value.checked_mul(self.term(depth)?)?;
        }
        Some(value)
    }

    fn term(&mut self, depth: u32) -> Option<i128> {
        let depth = depth.checked_sub(1)?;
        if self.prefix("-").is_some() {
            return self.term(depth)?.checked_neg();
        }
        if self.prefix("+").is_some() {
            return self.term(depth);
        }
        if self.prefix("(").is_some() {
            let value = self.sum(depth)?;
            self.prefix(")")?;
            return Some(value);
        }
        if self.prefix("'").is_some() {
            let c = self.rest().chars().next().filter(char::is_ascii)?;
            self.at += 1;
            self.rest().strip_prefix('\'')?;
            self.at += 1;
            return Some(u32::from(c).into());
        }
        let mut here = *self;
        let word = here.word()?;
        let value = number(word)?;
        *self = here;
        Some(value)
    }
}

/// A word that goes on in an operator such as `s>>=`.
fn is_operator(literal: &str) -> bool {
    literal.len() > 1 && literal.starts_with('s') && !literal[1..].starts_with(is_word)
}

/// `12`, `0x1f`, `0b11`, and `017` in octal.
pub(crate) fn number(word: &str) -> Option<i128> {
    let lower = word.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_alphanumeric());
    i128::from_str_radix(digits, radix).ok().filter(|_| plain)
}
