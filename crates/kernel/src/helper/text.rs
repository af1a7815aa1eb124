//! Helpers on strings: formatting, comparing, parsing.

use super::{Arg, Args, ret};
use crate::btf_text;
use crate::state::State;
use crate::trace::What;
use bpfsim_abi::Errno;
use bpfsim_btf::TypeId;
use bpfsim_vm::{Flow, GuestMem};

/// Arguments that `bpf_snprintf` and its like take at most (`MAX_BPRINTF_VARARGS`).
const MAX_ARGS: u64 = 12;
/// Longest format that is looked at.
const MAX_FORMAT: u64 = 1 << 16;

/// `bpf_trace_printk`
pub(super) fn trace_printk(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let format = a.bytes(mem, 1, a.r[1] as u32 as u64)?;
    let text = st.format(mem, &format, &a.r[2..]);
    Ok(print(st, text))
}

/// `bpf_trace_vprintk`
pub(super) fn trace_vprintk(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let format = a.bytes(mem, 1, a.r[1] as u32 as u64)?;
    let args = match data(mem, a, 3)? {
        Ok(args) => args,
        Err(errno) => return Ok(Flow::Done(ret(Err(errno)))),
    };
    let text = st.format(mem, &format, &args);
    Ok(print(st, text))
}

/// The length without a NUL.
fn print(st: &mut State, text: Result<Vec<u8>, Errno>) -> Flow {
    let result = text.map(|text| {
        let len = text.len() as u64;
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if text.ends_with('\n') {
            text.pop();
        }
        st.event(What::Printk { text });
        len
    });
    Flow::Done(ret(result))
}

/// The words that arguments `n` and `n + 1` point out and count in bytes.
pub(crate) fn data(mem: &GuestMem, a: &Args, n: u8) -> Arg<Result<Vec<u64>, Errno>> {
    let len = a.r[n as usize] as u32 as u64;
    if !len.is_multiple_of(8) || len > MAX_ARGS * 8 || (len > 0 && a.r[n as usize - 1] == 0) {
        return Ok(Err(Errno::EINVAL));
    }
    let bytes = if len == 0 {
        Default::default()
    } else {
        a.bytes(mem, n, len)?
    };
    let word = |c: &[u8]| c.iter().rev().fold(0, |w, &b| w << 8 | b as u64);
    Ok(Ok(bytes.chunks(8).map(word).collect()))
}

/// `bpf_snprintf`: the length that the whole text has, with its NUL.
pub(super) fn snprintf(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let args = match data(mem, a, 4)? {
        Ok(args) => args,
        Err(errno) => return Ok(Flow::Done(ret(Err(errno)))),
    };
    let len = (0..MAX_FORMAT).find(|&i| {
        mem.slice(a.r[2].wrapping_add(i), 1)
            .is_none_or(|b| b[0] == 0)
    });
    let format = a.bytes(mem, 3, len.unwrap_or(0) + 1)?;
    let text = match st.format(mem, &format, &args) {
        Ok(text) => text,
        Err(errno) => return Ok(Flow::Done(ret(Err(errno)))),
    };
    let size = a.r[1] as u32 as usize;
    if size > 0 {
        let Some(to) = mem.slice_mut(a.r[0], size as u64) else {
            return a.bad(1);
        };
        let n = text.len().min(size - 1);
        to[..n].copy_from_slice(&text[..n]);
        to[n] = 0;
    }
    Ok(Flow::Done(text.len() as u64 + 1))
}

/// The text of the value that `struct btf_ptr` of argument `n` names, its size and flags behind it.
pub(crate) fn btf_text(st: &State, mem: &GuestMem, a: &Args, n: u8) -> Arg<Result<String, Errno>> {
    /// `sizeof(struct btf_ptr)`
    const SIZE: u64 = 16;
    let [size, flags] = [a.r[n as usize], a.r[n as usize + 1]];
    if flags & !btf_text::ALL != 0 || size as u32 as u64 != SIZE {
        return Ok(Err(Errno::EINVAL));
    }
    let named = a.r[n as usize - 1];
    let (Some(at), Some(id)) = (mem.read_u64(named), mem.read_u32(named.wrapping_add(8))) else {
        return a.bad(n);
    };
    let Some(btf) = st.kernel_btf.as_deref() else {
        return Ok(Err(Errno::EINVAL));
    };
    if id == 0 {
        return Ok(Err(Errno::EINVAL));
    }
    let id = TypeId(id);
    if btf.ty(id).is_none() {
        return Ok(Err(Errno::ENOENT));
    }
    Ok(btf_text::show(btf, mem, id, at, flags))
}

/// `bpf_snprintf_btf(str, str_size, ptr, btf_ptr_size, flags)`: the length that the whole text has,
/// without its NUL.
pub(super) fn snprintf_btf(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let text = match btf_text(st, mem, a, 3)? {
        Ok(text) => text,
        Err(errno) => return Ok(Flow::Done(ret(Err(errno)))),
    };
    let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let size = a.r[1] as u32 as usize;
    let Some(to) = mem.slice_mut(a.r[0], size as u64) else {
        return a.bad(1);
    };
    if size > 0 {
        let n = bytes.len().min(size - 1);
        to[..n].copy_from_slice(&bytes[..n]);
        to[n] = 0;
    }
    Ok(Flow::Done(bytes.len() as u64))
}

/// `bpf_strncmp`
pub(super) fn strncmp(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    for i in 0..a.r[1] as u32 as u64 {
        let byte = |at: u64| mem.slice(at.wrapping_add(i), 1).map(|b| b[0]);
        let Some(x) = byte(a.r[0]) else {
            return a.bad(1);
        };
        let Some(y) = byte(a.r[2]) else {
            return a.bad(3);
        };
        match x.cmp(&y) {
            std::cmp::Ordering::Less => return Ok(Flow::Done(-1i64 as u64)),
            std::cmp::Ordering::Greater => return Ok(Flow::Done(1)),
            std::cmp::Ordering::Equal if x == 0 => break,
            std::cmp::Ordering::Equal => {}
        }
    }
    Ok(Flow::Done(0))
}

/// `bpf_strtol`
pub(super) fn strtol(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let text = a.bytes(mem, 1, a.r[1])?;
    store(
        mem,
        a,
        parse(&text, a.r[2]).and_then(|(value, negative, used)| {
            let value = match negative {
                true if value <= 1 << 63 => (value as i64).wrapping_neg(),
                false if value < 1 << 63 => value as i64,
                _ => return Err(Errno::ERANGE),
            };
            Ok((value as u64, used))
        }),
    )
}

/// `bpf_strtoul`
pub(super) fn strtoul(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let text = a.bytes(mem, 1, a.r[1])?;
    store(
        mem,
        a,
        parse(&text, a.r[2]).and_then(|(value, negative, used)| {
            if negative {
                Err(Errno::EINVAL)
            } else {
                Ok((value, used))
            }
        }),
    )
}

fn store(mem: &mut GuestMem, a: &Args, parsed: Result<(u64, u64), Errno>) -> Arg<Flow> {
    match parsed {
        Err(errno) => Ok(Flow::Done(ret(Err(errno)))),
        Ok((value, used)) => match mem.write_u64(a.r[3], value) {
            Some(()) => Ok(Flow::Done(used)),
            None => a.bad(4),
        },
    }
}

/// Magnitude, sign and bytes consumed of a number after white space (`__bpf_strtoull`).
fn parse(text: &[u8], flags: u64) -> Result<(u64, bool, u64), Errno> {
    /// Bytes of a number that are looked at.
    const LONGEST: usize = 63;
    let mut base = flags & 0x1f;
    if !matches!(base, 0 | 8 | 10 | 16) || flags & !0x1f != 0 {
        return Err(Errno::EINVAL);
    }
    let space = text
        .iter()
        .take_while(|b| matches!(b, b' ' | 0x09..=0x0d | 0xa0))
        .count();
    let negative = text.get(space) == Some(&b'-');
    let start = space + negative as usize;
    let digits = &text[start.min(text.len())..];
    let digits = &digits[..digits.len().min(LONGEST)];
    if digits.is_empty() {
        return Err(Errno::EINVAL);
    }
    let x = digits.len() > 1 && digits[0] == b'0' && digits[1].eq_ignore_ascii_case(&b'x');
    if base == 0 {
        let hex = x && digits.get(2).is_some_and(u8::is_ascii_hexdigit);
        base = if hex {
            16
        } else if digits[0] == b'0' {
            8
        } else {
            10
        };
    }
    let prefix = if base == 16 && x { 2 } else { 0 };
    let mut value = 0u64;
    let mut len = 0;
    for &byte in &digits[prefix..] {
        let Some(digit) = (byte as char).to_digit(base as u32) else {
            break;
        };
        let next = value
            .checked_mul(base)
            .and_then(|v| v.checked_add(digit as u64));
        value = next.ok_or(Errno::ERANGE)?;
        len += 1;
    }
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    Ok((value, negative, (start + prefix + len) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_as_linux_does() {
        for (text, base, want) in [
            ("42", 0, Ok((42, false, 2))),
            ("  -17x", 10, Ok((17, true, 5))),
            ("0x1Fg", 0, Ok((31, false, 4))),
            ("0x1f", 16, Ok((31, false, 4))),
            ("0777", 0, Ok((511, false, 4))),
            ("0x", 0, Ok((0, false, 1))),
            ("18446744073709551615", 10, Ok((u64::MAX, false, 20))),
            ("18446744073709551616", 10, Err(Errno::ERANGE)),
            ("", 10, Err(Errno::EINVAL)),
            ("-", 10, Err(Errno::EINVAL)),
            ("z", 10, Err(Errno::EINVAL)),
            ("1", 7, Err(Errno::EINVAL)),
            ("1", 42, Err(Errno::EINVAL)),
        ] {
            assert_eq!(parse(text.as_bytes(), base), want, "{text} in base {base}");
        }
    }
}
