//! `bpf_trace_printk`'s formats (`bpf_bprintf_prepare` and the part of `vsnprintf` it lets in).

use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;
use std::fmt::Write;

/// Longest string that `%s` copies (`MAX_SNPRINTF_STR_SIZE_LEN`... of one argument), in bytes.
const MAX_STR: u64 = 1024;

/// One conversion of a format.
#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    alternate: bool,
    plus: bool,
    space: bool,
    width: usize,
    /// Bytes of the argument.
    size: u32,
}

/// Formats `args` as `format`, a NUL-terminated string, says. `EINVAL` for what Linux refuses:
/// no NUL, bytes that are not printable, unknown conversions, more conversions than arguments.
pub(crate) fn format(mem: &GuestMem, format: &[u8], args: &[u64]) -> Result<String, Errno> {
    let end = format.iter().position(|&b| b == 0).ok_or(Errno::EINVAL)?;
    let mut rest = &format[..end];
    let mut args = args.iter().copied();
    let mut out = String::new();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            if !(byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
                return Err(Errno::EINVAL);
            }
            out.push(byte as char);
            continue;
        }
        if rest.first() == Some(&b'%') {
            out.push('%');
            rest = &rest[1..];
            continue;
        }
        let spec = Spec::parse(&mut rest);
        let (&conversion, after) = rest.split_first().ok_or(Errno::EINVAL)?;
        rest = after;
        let arg = args.next().ok_or(Errno::EINVAL)?;
        convert(mem, &mut out, &spec, conversion, &mut rest, arg)?;
    }
    Ok(out)
}

impl Spec {
    fn parse(rest: &mut &[u8]) -> Spec {
        let mut spec = Spec {
            size: 4,
            ..Spec::default()
        };
        let eat = |rest: &mut &[u8], byte: u8| {
            let hit = rest.first() == Some(&byte);
            if hit {
                *rest = &rest[1..];
            }
            hit
        };
        loop {
            match rest.first() {
                Some(b'0') => spec.zero = true,
                Some(b'-') => spec.left = true,
                Some(b'#') => spec.alternate = true,
                Some(b'+') => spec.plus = true,
                Some(b' ') => spec.space = true,
                _ => break,
            }
            *rest = &rest[1..];
        }
        while let Some(d) = rest.first().filter(|b| b.is_ascii_digit()) {
            spec.width = (spec.width * 10 + (d - b'0') as usize).min(4096);
            *rest = &rest[1..];
        }
        if eat(rest, b'l') {
            spec.size = 8;
            eat(rest, b'l');
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

fn convert(
    mem: &GuestMem,
    out: &mut String,
    spec: &Spec,
    conversion: u8,
    rest: &mut &[u8],
    arg: u64,
) -> Result<(), Errno> {
    let unsigned = if spec.size == 8 {
        arg
    } else {
        arg as u32 as u64
    };
    let hex = if spec.alternate { "0x" } else { "" };
    match conversion {
        b'd' | b'i' if spec.size == 8 => spec.signed(out, arg as i64),
        b'd' | b'i' => spec.signed(out, arg as i32 as i64),
        b'u' => spec.pad(out, &unsigned.to_string(), true),
        b'x' => spec.pad(out, &format!("{hex}{unsigned:x}"), true),
        b'X' => spec.pad(out, &format!("{}{unsigned:X}", hex.to_uppercase()), true),
        b'c' => spec.pad(out, &char::from(arg as u8).to_string(), false),
        b's' => spec.pad(out, &string(mem, arg), false),
        b'p' => pointer(mem, out, spec, rest, arg)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// A string in kernel memory; what cannot be read is empty, as `strncpy_from_kernel_nofault`
/// leaves it.
fn string(mem: &GuestMem, addr: u64) -> String {
    let bytes = (0..MAX_STR).map_while(|i| mem.slice(addr.wrapping_add(i), 1).map(|b| b[0]));
    let bytes: Vec<u8> = bytes.take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `%p` and its extensions.
fn pointer(
    mem: &GuestMem,
    out: &mut String,
    spec: &Spec,
    rest: &mut &[u8],
    arg: u64,
) -> Result<(), Errno> {
    let next = rest.first().copied().unwrap_or(b' ');
    match next {
        b'k' | b'u' if rest.get(1) == Some(&b's') => {
            *rest = &rest[2..];
            let text = if next == b'k' {
                string(mem, arg)
            } else {
                String::new()
            };
            spec.pad(out, &text, false);
        }
        b'i' | b'I' if matches!(rest.get(1), Some(b'4' | b'6')) => {
            let v6 = rest[1] == b'6';
            *rest = &rest[2..];
            let bytes = mem.slice(arg, if v6 { 16 } else { 4 });
            spec.pad(
                out,
                &address(bytes.unwrap_or(&[0; 16][..if v6 { 16 } else { 4 }]), next),
                false,
            );
        }
        b'K' | b'x' | b's' | b'S' | b'B' => {
            *rest = &rest[1..];
            spec.pad(out, &format!("{arg:016x}"), false);
        }
        // Plain %p: Linux prints a hash of the address, which is no fact to reproduce.
        b if !b.is_ascii_alphanumeric() => spec.pad(out, &format!("{arg:016x}"), false),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
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
            ("%#x %08X", &[255, 255], Ok("0xff 000000FF")),
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
        for (f, args, want) in cases {
            let got = format(&mem, &[f.as_bytes(), b"\0"].concat(), args);
            assert_eq!(got.as_deref().map_err(|e| *e), want.map_err(|e| e), "{f}");
        }
        assert_eq!(format(&mem, b"no end", &[]), Err(Errno::EINVAL));
    }
}
