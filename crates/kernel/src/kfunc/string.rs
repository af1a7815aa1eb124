//! Kfuncs on strings in kernel memory.
//!
//! None looks further than 64 KiB: `E2BIG`. An address that is no kernel address is `ERANGE`, one
//! where nothing can be read `EFAULT`, and what is looked for and not there `ENOENT`.

use super::{Kfunc, row};
use crate::helper::memory::is_kernel;
use crate::helper::{Arg, Args, ret};
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// `XATTR_SIZE_MAX`
const MAX: u64 = 65536;

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_strcmp", false, |_, mem, a| {
        done(compare(mem, a, |b| b))
    }),
    row("bpf_strcasecmp", false, |_, mem, a| {
        done(compare(mem, a, |b| b.to_ascii_lowercase()))
    }),
    row("bpf_strnchr", false, |_, mem, a| {
        done(find(&text(mem, a, 1), a.r[1], a.r[2] as u8))
    }),
    row("bpf_strchr", false, |_, mem, a| {
        done(find(&text(mem, a, 1), MAX, a.r[1] as u8))
    }),
    row("bpf_strchrnul", false, |_, mem, a| {
        let c = a.r[1] as u8;
        done(until(&text(mem, a, 1), |b| b == c || b == 0))
    }),
    row("bpf_strrchr", false, |_, mem, a| {
        done(rfind(&text(mem, a, 1), a.r[1] as u8))
    }),
    row("bpf_strlen", false, |_, mem, a| {
        done(until(&text(mem, a, 1), |b| b == 0))
    }),
    row("bpf_strnlen", false, |_, mem, a| {
        done(length(&text(mem, a, 1), a.r[1]))
    }),
    row("bpf_strspn", false, |_, mem, a| done(span(mem, a, true))),
    row("bpf_strcspn", false, |_, mem, a| done(span(mem, a, false))),
    row("bpf_strstr", false, |_, mem, a| {
        done(substring(&text(mem, a, 1), &text(mem, a, 2), MAX))
    }),
    row("bpf_strnstr", false, |_, mem, a| {
        done(substring(&text(mem, a, 1), &text(mem, a, 2), a.r[2]))
    }),
];

/// The functions return `int`.
fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result) as u32 as u64))
}

/// Bytes of kernel memory from an address on.
struct Text<'a> {
    mem: &'a GuestMem,
    at: u64,
}

fn text<'a>(mem: &'a GuestMem, a: &Args, n: u8) -> Text<'a> {
    let at = a.r[n as usize - 1];
    Text { mem, at }
}

impl Text<'_> {
    /// `copy_from_kernel_nofault_allowed`
    fn allowed(&self) -> Result<(), Errno> {
        if is_kernel(self.at) {
            Ok(())
        } else {
            Err(Errno::ERANGE)
        }
    }

    fn byte(&self, i: u64) -> Result<u8, Errno> {
        let byte = self.mem.slice(self.at.wrapping_add(i), 1);
        byte.map(|b| b[0]).ok_or(Errno::EFAULT)
    }
}

fn compare(mem: &GuestMem, a: &Args, fold: fn(u8) -> u8) -> Result<u64, Errno> {
    let (x, y) = (text(mem, a, 1), text(mem, a, 2));
    x.allowed()?;
    y.allowed()?;
    for i in 0..MAX {
        let (p, q) = (fold(x.byte(i)?), fold(y.byte(i)?));
        if p != q {
            return Ok(if p < q { -1i64 as u64 } else { 1 });
        }
        if p == 0 {
            return Ok(0);
        }
    }
    Err(Errno::E2BIG)
}

/// The first byte for which `stop` holds.
fn until(text: &Text<'_>, stop: impl Fn(u8) -> bool) -> Result<u64, Errno> {
    text.allowed()?;
    for i in 0..MAX {
        if stop(text.byte(i)?) {
            return Ok(i);
        }
    }
    Err(Errno::E2BIG)
}

fn find(text: &Text<'_>, count: u64, wanted: u8) -> Result<u64, Errno> {
    text.allowed()?;
    for i in 0..count.min(MAX) {
        match text.byte(i)? {
            byte if byte == wanted => return Ok(i),
            0 => return Err(Errno::ENOENT),
            _ => {}
        }
    }
    Err(if count >= MAX {
        Errno::E2BIG
    } else {
        Errno::ENOENT
    })
}

fn rfind(text: &Text<'_>, wanted: u8) -> Result<u64, Errno> {
    text.allowed()?;
    let mut last = Err(Errno::ENOENT);
    for i in 0..MAX {
        let byte = text.byte(i)?;
        if byte == wanted {
            last = Ok(i);
        }
        if byte == 0 {
            return last;
        }
    }
    Err(Errno::E2BIG)
}

fn length(text: &Text<'_>, count: u64) -> Result<u64, Errno> {
    text.allowed()?;
    for i in 0..count.min(MAX) {
        if text.byte(i)? == 0 {
            return Ok(i);
        }
    }
    if count >= MAX {
        return Err(Errno::E2BIG);
    }
    Ok(count)
}

/// `bpf_strspn`, and without `among` `bpf_strcspn`.
fn span(mem: &GuestMem, a: &Args, among: bool) -> Result<u64, Errno> {
    let (s, set) = (text(mem, a, 1), text(mem, a, 2));
    s.allowed()?;
    set.allowed()?;
    for i in 0..MAX {
        let byte = s.byte(i)?;
        if byte == 0 {
            return Ok(i);
        }
        let at = until(&set, |b| b == byte || b == 0)?;
        if (set.byte(at)? == byte) != among {
            return Ok(i);
        }
    }
    Err(Errno::E2BIG)
}

/// `bpf_strnstr`: within the first `len` bytes.
fn substring(s: &Text<'_>, sub: &Text<'_>, len: u64) -> Result<u64, Errno> {
    s.allowed()?;
    sub.allowed()?;
    for i in 0..MAX {
        let mut j = 0;
        loop {
            if i + j > len || j == MAX {
                break;
            }
            let wanted = sub.byte(j)?;
            if wanted == 0 {
                return Ok(i);
            }
            if i + j == len {
                break;
            }
            let byte = s.byte(i + j)?;
            if byte == 0 {
                return Err(Errno::ENOENT);
            }
            if byte != wanted {
                break;
            }
            j += 1;
        }
        if j == MAX {
            return Err(Errno::E2BIG);
        }
        if i + j >= len {
            return Err(Errno::ENOENT);
        }
    }
    Err(Errno::E2BIG)
}
