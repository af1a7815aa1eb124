//! Instructions as Linux's verifier prints them in its log, `print_bpf_insn`:
//! `(b7) r1 = 0`, `(85) call bpf_map_lookup_elem#1`.
//!
//! Linux prints an instruction before it checks it, so this takes raw slots and has a
//! text for every bit pattern.

use std::borrow::Cow;
use std::fmt;

use crate::insn::{Insn, uapi::*};
use crate::parts::{AluOp, AtomicOp, Cond, Imm64, Size};

/// Names that Linux knows and an instruction set does not.
pub trait LinuxNames {
    /// Name of helper `id`, such as `bpf_map_lookup_elem`.
    fn helper(&self, id: i32) -> Option<Cow<'_, str>> {
        let _ = id;
        None
    }

    /// Name of the kernel function of a call (`src` is `BPF_PSEUDO_KFUNC_CALL`).
    fn kfunc(&self, btf_id: i32, off: i16) -> Option<Cow<'_, str>> {
        let _ = (btf_id, off);
        None
    }

    /// Text of a 64-bit immediate in place of its number.
    fn imm64(&self, kind: Imm64) -> Option<Cow<'_, str>> {
        let _ = kind;
        None
    }
}

/// Knows no name: helpers are `unknown`, kernel functions `kernel-function`.
pub struct NoNames;

impl LinuxNames for NoNames {}

/// One instruction, to be displayed as Linux's verifier does.
pub struct LinuxInsn<'a> {
    insn: Insn,
    second: Option<Insn>,
    names: &'a dyn LinuxNames,
}

/// Displays the instruction at slot `at`; `None` past the end.
pub fn linux_insn<'a>(
    slots: &[Insn],
    at: usize,
    names: &'a dyn LinuxNames,
) -> Option<LinuxInsn<'a>> {
    let insn = *slots.get(at)?;
    Some(LinuxInsn {
        insn,
        second: slots.get(at.checked_add(1)?).copied(),
        names,
    })
}

impl fmt::Display for LinuxInsn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.insn.class() {
            BPF_ALU | BPF_ALU64 => self.alu(f),
            BPF_JMP | BPF_JMP32 => self.jmp(f),
            BPF_STX => self.stx(f),
            BPF_ST => self.st(f),
            BPF_LDX => self.ldx(f),
            _ => self.ld(f),
        }
    }
}

impl LinuxInsn<'_> {
    fn letter(&self) -> char {
        if matches!(self.insn.class(), BPF_ALU | BPF_JMP32) {
            'w'
        } else {
            'r'
        }
    }

    fn mode(&self) -> u8 {
        self.insn.code & 0xe0
    }

    fn size(&self) -> Size {
        let code = self.insn.code & 0x18;
        Size::ALL
            .iter()
            .copied()
            .find(|size| size.code() == code)
            .unwrap_or(Size::Dw)
    }

    /// `*(u32 *)(r1 +4)` without the star.
    fn address(&self, base: u8) -> String {
        format!("({} *)(r{base} {:+})", self.size().text(), self.insn.off)
    }

    fn alu(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, off, imm, .. } = self.insn;
        let (dst, src, r) = (self.insn.dst(), self.insn.src(), self.letter());
        match code & 0xf0 {
            BPF_END => {
                let name = match (self.insn.class(), code & BPF_X) {
                    (BPF_ALU64, _) => "bswap",
                    (_, BPF_TO_BE) => "be",
                    _ => "le",
                };
                return write!(f, "({code:02x}) r{dst} = {name}{imm} r{dst}");
            }
            BPF_NEG => return write!(f, "({code:02x}) {r}{dst} = -{r}{dst}"),
            _ => {}
        }
        if code == BPF_ALU64 | BPF_MOV | BPF_X && off == BPF_ADDR_SPACE_CAST {
            let (to, from) = (imm.cast_unsigned() >> 16, imm & 0xffff);
            return write!(
                f,
                "({code:02x}) r{dst} = addr_space_cast(r{src}, {to}, {from})"
            );
        }
        // Internal to Linux: what a rewrite makes to reach a per-CPU address.
        if code == BPF_ALU64 | BPF_MOV | BPF_X && off == -1 {
            return write!(f, "({code:02x}) r{dst} = &(void __percpu *)(r{src})");
        }
        let rows = || AluOp::ALL.iter().filter(|row| row.code() == code & 0xf0);
        let exact = rows().find(|row| row.off() == off).or(rows().next());
        let op = exact.map_or("(null)", |row| row.text());
        if code & BPF_X == 0 {
            return write!(f, "({code:02x}) {r}{dst} {op} {imm}");
        }
        let cast = match (code & 0xf0, off) {
            (BPF_MOV, 8) => "(s8)",
            (BPF_MOV, 16) => "(s16)",
            (BPF_MOV, 32) => "(s32)",
            _ => "",
        };
        write!(f, "({code:02x}) {r}{dst} {op} {cast}{r}{src}")
    }

    fn stx(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, imm, .. } = self.insn;
        let (dst, src) = (self.insn.dst(), self.insn.src());
        let at = self.address(dst);
        match self.mode() {
            BPF_MEM => return write!(f, "({code:02x}) *{at} = r{src}"),
            BPF_ATOMIC => {}
            _ => return write!(f, "BUG_{code:02x}"),
        }
        let wide = if self.size() == Size::Dw { "64" } else { "" };
        let op = AtomicOp::ALL
            .iter()
            .find(|op| imm & !BPF_FETCH == op.code() & !BPF_FETCH);
        match (imm, op) {
            (BPF_LOAD_ACQ, _) => {
                write!(
                    f,
                    "({code:02x}) r{dst} = load_acquire({})",
                    self.address(src)
                )
            }
            (BPF_STORE_REL, _) => write!(f, "({code:02x}) store_release({at}, r{src})"),
            (BPF_CMPXCHG, _) => write!(
                f,
                "({code:02x}) r0 = atomic{wide}_cmpxchg({at}, r0, r{src})"
            ),
            (BPF_XCHG, _) => write!(f, "({code:02x}) r{src} = atomic{wide}_xchg({at}, r{src})"),
            (_, Some(op)) if !op.always_fetches() => {
                if imm & BPF_FETCH == 0 {
                    return write!(f, "({code:02x}) lock *{at} {} r{src}", op.text());
                }
                let name = op.name();
                write!(
                    f,
                    "({code:02x}) r{src} = atomic{wide}_fetch_{name}({at}, r{src})"
                )
            }
            _ => write!(f, "BUG_{code:02x}"),
        }
    }

    fn st(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, imm, .. } = self.insn;
        match self.mode() {
            BPF_MEM => write!(f, "({code:02x}) *{} = {imm}", self.address(self.insn.dst())),
            // Internal to Linux: a speculation barrier.
            0xc0 => write!(f, "({code:02x}) nospec"),
            _ => write!(f, "BUG_st_{code:02x}"),
        }
    }

    fn ldx(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.insn.code;
        let at = self.address(self.insn.src());
        match self.mode() {
            BPF_MEM => write!(f, "({code:02x}) r{} = *{at}", self.insn.dst()),
            BPF_MEMSX if self.size() == Size::Dw => {
                let at = at.replacen("u64", "(null)", 1);
                write!(f, "({code:02x}) r{} = *{at}", self.insn.dst())
            }
            BPF_MEMSX => {
                let at = at.replacen('u', "s", 1);
                write!(f, "({code:02x}) r{} = *{at}", self.insn.dst())
            }
            _ => write!(f, "BUG_ldx_{code:02x}"),
        }
    }

    fn ld(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, imm, .. } = self.insn;
        let size = self.size().text();
        match self.mode() {
            BPF_ABS => write!(f, "({code:02x}) r0 = *({size} *)skb[{imm}]"),
            BPF_IND => {
                write!(
                    f,
                    "({code:02x}) r0 = *({size} *)skb[r{} + {imm}]",
                    self.insn.src()
                )
            }
            BPF_IMM if self.size() == Size::Dw => {
                let slots = [self.insn, self.second.unwrap_or_default()];
                let named = Imm64::of(slots).and_then(|kind| self.names.imm64(kind));
                let [lo, hi] = slots.map(|slot| u64::from(slot.imm.cast_unsigned()));
                let text = named.unwrap_or_else(|| format!("{:#x}", hi << 32 | lo).into());
                write!(f, "({code:02x}) r{} = {text}", self.insn.dst())
            }
            _ => write!(f, "BUG_ld_{code:02x}"),
        }
    }

    fn jmp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, off, imm, .. } = self.insn;
        let (dst, src, r) = (self.insn.dst(), self.insn.src(), self.letter());
        match code {
            _ if code & 0xf0 == BPF_CALL => return self.call(f),
            0x05 => return write!(f, "({code:02x}) goto pc{off:+}"),
            0x06 => return write!(f, "({code:02x}) gotol pc{imm:+}"),
            0xe5 if src == BPF_MAY_GOTO => return write!(f, "({code:02x}) may_goto pc{off:+}"),
            0x95 => return write!(f, "({code:02x}) exit"),
            _ => {}
        }
        let cond = match Cond::ALL.iter().find(|cond| cond.code() == code & 0xf0) {
            Some(cond) => cond.text(),
            None if code & 0xf0 == BPF_JA => "jmp",
            None if code & 0xf0 == BPF_EXIT => "exit",
            None => "(null)",
        };
        if code & BPF_X != 0 {
            write!(f, "({code:02x}) if {r}{dst} {cond} {r}{src} goto pc{off:+}")
        } else {
            write!(f, "({code:02x}) if {r}{dst} {cond} {imm:#x} goto pc{off:+}")
        }
    }

    fn call(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn { code, off, imm, .. } = self.insn;
        if self.insn.src() == BPF_PSEUDO_CALL {
            return write!(f, "({code:02x}) call pc{imm:+}");
        }
        let name = match self.insn.src() {
            0 => self.names.helper(imm).unwrap_or("unknown".into()),
            BPF_PSEUDO_KFUNC_CALL => self
                .names
                .kfunc(imm, off)
                .unwrap_or("kernel-function".into()),
            _ => "unknown".into(),
        };
        write!(f, "({code:02x}) call {name}#{imm}")
    }
}
