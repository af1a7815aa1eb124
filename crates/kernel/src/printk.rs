//! `bpf_trace_printk`'s formats (`bpf_bprintf_prepare` and the part of `vsnprintf` it lets in).

use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;
use std::fmt::Write;

/// One conversion of a format.
#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    width: usize,
    /// Bytes of the argument.
    size: u32,
}

/// What tells the name of the function or variable at an address, how far the address is into it,
/// and its size.
pub(crate) type Symbols<'a> = dyn Fn(u64) -> Option<(String, u64, u64)> + 'a;

/// Bytes that all arguments of one text take at most (`MAX_BPRINTF_BIN_ARGS`).
const ARGS_ROOM: usize = 512;

/// `FIELD_WIDTH_MAX`
const FIELD_WIDTH_MAX: usize = (1 << 23) - 1;

/// What formatting needs to know.
struct Printer<'a> {
    mem: &'a GuestMem,
    symbols: &'a Symbols<'a>,
    out: String,
    /// Bytes that arguments have taken, strings copied.
    used: usize,
}

/// Formats `args` as `format`, a NUL-terminated string, says. `EINVAL` for what Linux refuses:
/// no NUL, bytes that are not printable, unknown conversions, more conversions than arguments;
/// `ENOSPC` for more argument bytes than it has room for.
pub(crate) fn format(
    mem: &GuestMem,
    symbols: &Symbols<'_>,
    format: &[u8],
    args: &[u64],
) -> Result<Vec<u8>, Errno> {
    let end = format.iter().position(|&b| b == 0).ok_or(Errno::EINVAL)?;
    let mut rest = &format[..end];
    let mut args = args.iter().copied();
    let mut p = Printer {
        mem,
        symbols,
        out: String::new(),
        used: 0,
    };
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            if !matches!(byte, b' '..=b'~' | 0xa0..) && !is_space(byte) {
                return Err(Errno::EINVAL);
            }
            p.out.push(byte as char);
            continue;
        }
        if rest.first() == Some(&b'%') {
            p.out.push('%');
            rest = &rest[1..];
            continue;
        }
        let arg = args.next().ok_or(Errno::EINVAL)?;
        let mut spec = Spec::parse(&mut rest);
        let (&conversion, after) = rest.split_first().ok_or(Errno::EINVAL)?;
        rest = after;
        p.convert(&mut spec, conversion, &mut rest, arg)?;
    }
    // Each character stands for the byte of its number.
    Ok(p.out.chars().map(|c| c as u8).collect())
}

fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

/// `isspace`
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0xa0)
}

/// What may follow a string or a plain pointer: the end, white space, punctuation.
fn ends(rest: &[u8]) -> bool {
    let end =
        |&b: &u8| is_space(b) || b.is_ascii_punctuation() || matches!(b, 0xa1..=0xbf | 0xd7 | 0xf7);
    rest.first().is_none_or(end)
}

impl Spec {
    fn parse(rest: &mut &[u8]) -> Spec {
        let mut spec = Spec {
            size: 4,
            ..Spec::default()
        };
        loop {
            match rest.first() {
                Some(b'0') => spec.zero = true,
                Some(b'-') => spec.left = true,
                Some(b'+') => spec.plus = true,
                Some(b' ') => spec.space = true,
                _ => break,
            }
            *rest = &rest[1..];
        }
        while let Some(d) = rest.first().filter(|b| b.is_ascii_digit()) {
            spec.width = (spec.width * 10 + (d - b'0') as usize).min(FIELD_WIDTH_MAX);
            *rest = &rest[1..];
        }
        for _ in 0..2 {
            if rest.first() == Some(&b'l') {
                spec.size = 8;
                *rest = &rest[1..];
            }
        }
        spec
    }

    fn pad(&self, out: &mut String, text: &str, numeric: bool) {
        let fill = self.width.saturating_sub(text.chars().count());
        let spaces = |out: &mut String| out.extend(std::iter::repeat_n(' ', fill));
        if self.left {
            out.push_str(text);
            spaces(out);
        } else if self.zero && numeric {
            let sign = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
            let prefix = if text[sign..].starts_with("0x") {
                sign + 2
            } else {
                sign
            };
            out.push_str(&text[..prefix]);
            out.extend(std::iter::repeat_n('0', fill));
            out.push_str(&text[prefix..]);
        } else {
            spaces(out);
            out.push_str(text);
        }
    }

    fn signed(&self, out: &mut String, value: i64) {
        let sign = match (value < 0, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        self.pad(out, &format!("{sign}{}", value.unsigned_abs()), true);
    }
}

impl Printer<'_> {
    fn convert(
        &mut self,
        spec: &mut Spec,
        conversion: u8,
        rest: &mut &[u8],
        arg: u64,
    ) -> Result<(), Errno> {
        let word = spec.size == 8;
        // A length belongs to numbers only.
        if word && matches!(conversion, b'p' | b's' | b'c') {
            return Err(Errno::EINVAL);
        }
        match conversion {
            b's' => return self.string(spec, rest, arg, true),
            b'p' => return self.pointer(spec, rest, arg),
            b'c' => {
                self.take(1)?;
                spec.pad(&mut self.out, &char::from(arg as u8).to_string(), false);
                return Ok(());
            }
            b'd' | b'i' | b'u' | b'x' | b'X' => {}
            _ => return Err(Errno::EINVAL),
        }
        self.take_aligned(spec.size as usize)?;
        let unsigned = if word { arg } else { arg as u32 as u64 };
        let out = &mut self.out;
        match conversion {
            b'd' | b'i' if word => spec.signed(out, arg as i64),
            b'd' | b'i' => spec.signed(out, arg as i32 as i64),
            b'u' => spec.pad(out, &unsigned.to_string(), true),
            b'x' => spec.pad(out, &format!("{unsigned:x}"), true),
            _ => spec.pad(out, &format!("{unsigned:X}"), true),
        }
        Ok(())
    }

    /// Room for an argument of so many bytes.
    fn take(&mut self, len: usize) -> Result<(), Errno> {
        if ARGS_ROOM - self.used < len {
            return Err(Errno::ENOSPC);
        }
        self.used += len;
        Ok(())
    }

    fn take_aligned(&mut self, len: usize) -> Result<(), Errno> {
        self.used = self.used.next_multiple_of(4).min(ARGS_ROOM);
        self.take(len)
    }

    /// A string in the kernel's memory, cut to what room there is; one that cannot be read is
    /// empty. User memory is not looked at.
    fn string(&mut self, spec: &Spec, rest: &[u8], addr: u64, kernel: bool) -> Result<(), Errno> {
        if !ends(rest) {
            return Err(Errno::EINVAL);
        }
        let room = ARGS_ROOM - self.used;
        if room == 0 {
            return Err(Errno::ENOSPC);
        }
        let byte = |i: u64| self.mem.slice(addr.wrapping_add(i), 1).map(|b| b[0]);
        let mut bytes = Vec::new();
        while kernel && bytes.len() < room - 1 {
            match byte(bytes.len() as u64) {
                Some(0) => break,
                Some(byte) => bytes.push(byte),
                None => {
                    bytes.clear();
                    break;
                }
            }
        }
        self.used += bytes.len() + 1;
        spec.pad(&mut self.out, &text_of(&bytes), false);
        Ok(())
    }

    /// `%p` and its extensions.
    fn pointer(&mut self, spec: &mut Spec, rest: &mut &[u8], arg: u64) -> Result<(), Errno> {
        let next = rest.first().copied().unwrap_or(0);
        let second = rest.get(1).copied();
        match next {
            // Linux prints a hash of the address, which is no fact to reproduce.
            _ if ends(rest) => self.address(spec, arg),
            b'k' | b'u' if second == Some(b's') => {
                *rest = &rest[2..];
                self.string(spec, rest, arg, next == b'k')
            }
            b'K' | b'x' => {
                *rest = &rest[1..];
                self.address(spec, arg)
            }
            b's' | b'S' | b'B' => {
                *rest = &rest[1..];
                self.take_aligned(8)?;
                let text = self.symbol(next, arg);
                spec.pad(&mut self.out, &text, false);
                Ok(())
            }
            b'i' | b'I' if matches!(second, Some(b'4' | b'6')) => {
                let v6 = second == Some(b'6');
                *rest = &rest[2..];
                let zero = [0; 16];
                let len = if v6 { 16 } else { 4 };
                let bytes = self.mem.slice(arg, len).unwrap_or(&zero[..len as usize]);
                let text = address(bytes, next);
                self.take(text.len() + 1)?;
                // The text is made first, and printed as it is.
                self.out.push_str(&text);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn address(&mut self, spec: &Spec, addr: u64) -> Result<(), Errno> {
        self.take_aligned(8)?;
        match spec.width {
            0 => self.out.push_str(&format!("{addr:016x}")),
            _ => spec.pad(&mut self.out, &format!("{addr:x}"), true),
        }
        Ok(())
    }

    /// `%ps`, `%pS` and `%pB`.
    fn symbol(&self, kind: u8, addr: u64) -> String {
        let before = (kind == b'B') as u64;
        match (self.symbols)(addr.wrapping_sub(before)) {
            Some((name, ..)) if kind == b's' => name,
            Some((name, off, size)) => format!("{name}+{:#x}/{size:#x}", off + before),
            None => format!("{addr:#x}"),
        }
    }
}

/// `%pi4` and `%pI4`, `%pi6` and `%pI6`.
fn address(bytes: &[u8], case: u8) -> String {
    let mut text = String::new();
    let v6 = bytes.len() == 16;
    for (i, pair) in bytes.chunks(if v6 { 2 } else { 1 }).enumerate() {
        let _ = match (v6, case) {
            (true, b'I') => write!(
                text,
                "{}{:02x}{:02x}",
                if i > 0 { ":" } else { "" },
                pair[0],
                pair[1]
            ),
            (true, _) => write!(text, "{:02x}{:02x}", pair[0], pair[1]),
            (false, b'I') => write!(text, "{}{}", if i > 0 { "." } else { "" }, pair[0]),
            (false, _) => write!(text, "{}{:03}", if i > 0 { "." } else { "" }, pair[0]),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfsim_vm::Area;

    #[test]
    fn formats_are_linux_s() {
        let mut mem = GuestMem::new().unwrap();
        let at = mem.alloc(Area::Shared, 64, 8).unwrap();
        mem.slice_mut(at, 16)
            .unwrap()
            .copy_from_slice(b"\x0a\x00\x00\x07ab\0\0\0\0\0\0\0\0\0\0");
        let cases: &[(&str, &[u64], Result<&str, Errno>)] = &[
            ("plain\n", &[], Ok("plain\n")),
            ("%d %u %i", &[u64::MAX, u64::MAX, 7], Ok("-1 4294967295 7")),
            (
                "%lld %llu",
                &[u64::MAX, u64::MAX],
                Ok("-1 18446744073709551615"),
            ),
            ("%ld|%lx", &[5, 255], Ok("5|ff")),
            (
                "%5d|%-5d|%05d",
                &[42, 42, u64::MAX],
                Ok("   42|42   |-0001"),
            ),
            ("%x %08X", &[255, 255], Ok("ff 000000FF")),
            ("%#x", &[255], Err(Errno::EINVAL)),
            ("%sx", &[at + 4], Err(Errno::EINVAL)),
            ("%s.", &[at + 4], Ok("ab.")),
            ("%lp", &[at], Err(Errno::EINVAL)),
            ("%pq", &[at], Err(Errno::EINVAL)),
            ("%px", &[0x1234], Ok("0000000000001234")),
            ("%pks|%pus|", &[at + 4, at + 4], Ok("ab||")),
            (
                "%ps %pS %pB",
                &[0x105, 0x105, 0x105],
                Ok("f f+0x5/0x10 f+0x5/0x10"),
            ),
            ("%pS", &[0x200], Ok("0x200")),
            (
                "%s|%5s|%-4s|",
                &[at + 4, at + 4, at + 4],
                Ok("ab|   ab|ab  |"),
            ),
            ("%s|", &[0], Ok("|")),
            ("%pI4 %pi4", &[at, at], Ok("10.0.0.7 010.000.000.007")),
            ("%c%c", &[b'o' as u64, b'k' as u64], Ok("ok")),
            ("100%%", &[], Ok("100%")),
            ("%d %d", &[1], Err(Errno::EINVAL)),
            ("%q", &[1], Err(Errno::EINVAL)),
            ("%", &[1], Err(Errno::EINVAL)),
            ("\x01", &[], Err(Errno::EINVAL)),
        ];
        let symbols = |addr: u64| {
            let off = addr.checked_sub(0x100).filter(|&off| off < 16)?;
            Some(("f".to_string(), off, 16))
        };
        for (f, args, want) in cases {
            let got = format(&mem, &symbols, &[f.as_bytes(), b"\0"].concat(), args);
            assert_eq!(got, want.map(|t| t.as_bytes().to_vec()), "{f}");
        }
        assert_eq!(format(&mem, &symbols, b"no end", &[]), Err(Errno::EINVAL));
    }
}
