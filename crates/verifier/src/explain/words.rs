//! What is known of a register, in words.

use crate::reg::{BEYOND_PKT_END, Reg, ty};
use crate::verifier::Verifier;

/// A number's range.
fn number(reg: &Reg) -> String {
    if reg.var_off.is_const() {
        return format!("the number {}", reg.var_off.value as i64);
    }
    if reg.umax != u64::MAX {
        return format!("a number from {} to {}", reg.umin, reg.umax);
    }
    match (reg.smin == i64::MIN, reg.smax == i64::MAX) {
        (false, false) => return format!("a signed number from {} to {}", reg.smin, reg.smax),
        (false, true) => return format!("a signed number of at least {}", reg.smin),
        (true, false) => return format!("a signed number of at most {}", reg.smax),
        (true, true) => {}
    }
    if reg.u32max != u32::MAX {
        let (min, max) = (reg.u32min, reg.u32max);
        return format!("a number whose lower 32 bits are {min} to {max}, the upper unknown");
    }
    match reg.umin {
        0 => "a number of which nothing is known".to_owned(),
        min => format!("a number of at least {min}"),
    }
}

fn bytes(n: u32) -> String {
    match n {
        1 => "1 byte".to_owned(),
        n => format!("{n} bytes"),
    }
}

impl Verifier<'_> {
    /// What a register holds.
    pub(crate) fn words(&self, reg: &Reg) -> String {
        match reg.base() {
            ty::NOT_INIT => "nothing: it was given no value on this way".to_owned(),
            ty::SCALAR => number(reg),
            ty::STACK => self.stack_words(reg),
            _ => {
                let null = match ty::maybe_null(reg.ty) {
                    true => ", or NULL",
                    false => "",
                };
                format!("{}{}{null}", self.pointer_words(reg), moved(reg))
            }
        }
    }

    fn stack_words(&self, reg: &Reg) -> String {
        let frame = match usize::from(reg.frameno) == self.cur.curframe() {
            true => "",
            false => " of a caller",
        };
        match reg.var_off.is_const() {
            true => {
                let off = (reg.var_off.value as i64).wrapping_add(reg.off.into());
                format!("a pointer to the stack{frame} at fp{off:+}")
            }
            false => {
                let off = i64::from(reg.off);
                let (min, max) = (reg.smin.wrapping_add(off), reg.smax.wrapping_add(off));
                format!("a pointer to the stack{frame} somewhere from fp{min:+} to fp{max:+}")
            }
        }
    }

    fn pointer_words(&self, reg: &Reg) -> String {
        let map = reg.map().and_then(|m| self.maps.get(m));
        let named = |what: &str| match map {
            Some(map) if !map.name.is_empty() => format!("{what} map `{}`", map.name),
            _ => format!("{what} map"),
        };
        match reg.base() {
            ty::CTX => "the program's context".to_owned(),
            ty::MAP_PTR => named("the"),
            ty::MAP_VALUE => {
                let size = map.map_or(0, |m| m.value_size);
                format!("{} ({})", named("a pointer to a value of"), bytes(size))
            }
            ty::MAP_KEY => {
                let size = map.map_or(0, |m| m.key_size);
                format!("{} ({})", named("a pointer to a key of"), bytes(size))
            }
            ty::PACKET | ty::PACKET_META => {
                let what = match reg.base() {
                    ty::PACKET => "the packet",
                    _ => "the packet's metadata",
                };
                let known = match reg.range() {
                    0 => "no byte of which is known to be there".to_owned(),
                    BEYOND_PKT_END => "beyond its end".to_owned(),
                    n if n < 0 => "at its end".to_owned(),
                    n => format!("whose first {} are known to be there", bytes(n as u32)),
                };
                format!("a pointer into {what}, {known}")
            }
            ty::PACKET_END => "the packet's end".to_owned(),
            ty::FLOW_KEYS => "a pointer to flow keys".to_owned(),
            ty::SOCKET => "a pointer to a socket".to_owned(),
            ty::SOCK_COMMON => "a pointer to a socket's common part".to_owned(),
            ty::TCP_SOCK => "a pointer to a TCP socket".to_owned(),
            ty::XDP_SOCK => "a pointer to an XDP socket".to_owned(),
            ty::TP_BUFFER => "a tracepoint's buffer".to_owned(),
            ty::BTF_ID => {
                let mut trust = "";
                for (flag, word) in [
                    (ty::TRUSTED, "trusted "),
                    (ty::RCU, "RCU-protected "),
                    (ty::ALLOC, "allocated "),
                    (ty::PERCPU, "per-CPU "),
                    (ty::USER, "user-space "),
                    (ty::UNTRUSTED, "untrusted "),
                ] {
                    if reg.ty & flag != 0 {
                        trust = word;
                    }
                }
                let name = self.btf_name(reg.a, reg.b);
                format!("a {trust}pointer to `struct {name}`")
            }
            ty::MEM => {
                let what = match reg.ty & ty::RDONLY {
                    0 => "",
                    _ => "read-only ",
                };
                format!("a pointer to {} of {what}memory", bytes(reg.mem_size()))
            }
            ty::ARENA => "a pointer into the arena".to_owned(),
            ty::BUF => "a pointer to a buffer".to_owned(),
            ty::FUNC => {
                format!("the function `{}`", self.subprog_name(reg.a as usize))
            }
            ty::DYNPTR => "a pointer to a dynptr".to_owned(),
            _ => crate::log::type_str(reg.ty),
        }
    }
}

/// How far a pointer was moved from where it began.
fn moved(reg: &Reg) -> String {
    let off = i64::from(reg.off);
    if reg.var_off.is_const() {
        return match (reg.var_off.value as i64).wrapping_add(off) {
            0 => String::new(),
            by => format!(", moved by {by}"),
        };
    }
    let var = number(&Reg {
        ty: ty::SCALAR,
        ..*reg
    });
    match off {
        0 => format!(", moved by {var}"),
        off => format!(", moved by {off} and by {var}"),
    }
}
