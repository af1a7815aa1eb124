//! The log's text: registers, states, source lines (`kernel/bpf/log.c`).

use std::fmt::Write;

use bpfsim_isa::{LinuxNames, linux_insn};

use crate::reg::{ADD_CONST, BTF_KERNEL, Reg, ty};
use crate::state::{Frame, State, kind};
use crate::verifier::Verifier;

/// `BPF_LOG_LEVEL1`
pub(crate) const LEVEL1: u32 = 1;
/// `BPF_LOG_LEVEL2`
pub(crate) const LEVEL2: u32 = 2;
/// `BPF_LOG_STATS`
pub(crate) const STATS: u32 = 4;

/// Adds to the log.
macro_rules! verbose {
    ($v:expr, $($arg:tt)*) => {{
        let _ = std::fmt::Write::write_fmt(&mut $v.log.text, format_args!($($arg)*));
    }};
}
pub(crate) use verbose;

#[derive(Default)]
pub(crate) struct Log {
    pub level: u32,
    pub text: String,
    pub prev_line: Option<usize>,
    pub prev_pos: usize,
    pub prev_insn_len: usize,
    pub scratched_regs: u32,
    pub scratched_stack: u64,
}

impl Log {
    /// Whether each instruction is printed.
    pub fn insns(&self) -> bool {
        self.level & (LEVEL1 | LEVEL2) != 0
    }
    pub fn level2(&self) -> bool {
        self.level & LEVEL2 != 0
    }
    pub fn scratch_all(&mut self) {
        self.scratched_regs = !0;
        self.scratched_stack = !0;
    }
    pub fn scratch_slot(&mut self, spi: usize) {
        self.scratched_stack |= 1 << (spi & 63);
    }
}

/// `verbose_unum`
fn unum(out: &mut String, n: u64) {
    let _ = match n <= u64::from(u16::MAX) {
        true => write!(out, "{n}"),
        false => write!(out, "{n:#x}"),
    };
}

/// `verbose_snum`
fn snum(out: &mut String, n: u64) {
    let signed = n as i64;
    let _ = match i16::try_from(signed) {
        Ok(n) => write!(out, "{n}"),
        Err(_) => write!(out, "{n:#x}"),
    };
}

/// `reg_type_str`
pub(crate) fn type_str(t: u32) -> String {
    const NAMES: [&str; 22] = [
        "?",
        "scalar",
        "ctx",
        "map_ptr",
        "map_value",
        "map_key",
        "fp",
        "pkt_meta",
        "pkt",
        "pkt_end",
        "flow_keys",
        "sock",
        "sock_common",
        "tcp_sock",
        "tp_buffer",
        "xdp_sock",
        "ptr_",
        "mem",
        "arena",
        "buf",
        "func",
        "dynptr_ptr",
    ];
    let mut out = String::new();
    for (flag, prefix) in [
        (ty::RDONLY, "rdonly_"),
        (ty::RINGBUF, "ringbuf_"),
        (ty::USER, "user_"),
        (ty::PERCPU, "percpu_"),
        (ty::RCU, "rcu_"),
        (ty::UNTRUSTED, "untrusted_"),
        (ty::TRUSTED, "trusted_"),
    ] {
        if t & flag != 0 {
            out.push_str(prefix);
        }
    }
    out.push_str(NAMES.get(ty::base(t) as usize).unwrap_or(&"?"));
    if t & ty::MAYBE_NULL != 0 {
        out.push_str(match ty::base(t) {
            ty::BTF_ID => "or_null_",
            _ => "_or_null",
        });
    }
    out
}

/// `dynptr_type_str`
pub(crate) fn dynptr_str(kind: u32) -> &'static str {
    match kind {
        1 => "local",
        2 => "ringbuf",
        3 => "skb",
        4 => "xdp",
        5 => "skb_meta",
        _ => "<invalid>",
    }
}

/// `print_scalar_ranges`
fn ranges(out: &mut String, reg: &Reg, sep: &mut &'static str) {
    let narrow = |v: i32| match i16::try_from(v) {
        Ok(v) => i64::from(v) as u64,
        Err(_) => u64::from(v as u32),
    };
    let mut all = [
        ("smin", reg.smin as u64, reg.smin == i64::MIN),
        ("smax", reg.smax as u64, reg.smax == i64::MAX),
        ("umin", reg.umin, reg.umin == 0),
        ("umax", reg.umax, reg.umax == u64::MAX),
        ("smin32", narrow(reg.s32min), reg.s32min == i32::MIN),
        ("smax32", narrow(reg.s32max), reg.s32max == i32::MAX),
        ("umin32", reg.u32min.into(), reg.u32min == 0),
        ("umax32", reg.u32max.into(), reg.u32max == u32::MAX),
    ];
    for i in 0..all.len() {
        let (name, value, omit) = all[i];
        if omit {
            continue;
        }
        let signed = name.starts_with('s');
        let negative = signed && (value as i64) < 0;
        let _ = write!(out, "{sep}{name}=");
        *sep = ",";
        for j in (i + 2..all.len()).step_by(2) {
            let (other, v, omit) = all[j];
            let neg = other.starts_with('s') && (v as i64) < 0;
            if omit || v != value || neg != negative {
                continue;
            }
            all[j].2 = true;
            let _ = write!(out, "{other}=");
        }
        match signed {
            true => snum(out, value),
            false => unum(out, value),
        }
    }
}

impl Verifier<'_> {
    /// `btf_type_name`
    pub(crate) fn btf_name(&self, which: u32, id: u32) -> &str {
        self.btf(which)
            .map_or("", |b| b.name_of(bpfsim_btf::TypeId(id)))
    }

    /// `print_reg_state`
    fn fmt_reg(&self, out: &mut String, frame: &Frame, reg: &Reg) {
        let t = reg.ty;
        if t == ty::SCALAR && reg.precise {
            out.push('P');
        }
        if t == ty::SCALAR && reg.var_off.is_const() {
            return snum(out, reg.var_off.value);
        }
        out.push_str(&type_str(t));
        if t == ty::ARENA {
            return;
        }
        if t == ty::STACK {
            if frame.frameno != reg.frameno {
                let _ = write!(out, "[{}]", reg.frameno);
            }
            if reg.var_off.is_const() {
                let off = reg.var_off.value.wrapping_add(i64::from(reg.off) as u64);
                return snum(out, off);
            }
        }
        if reg.base() == ty::BTF_ID {
            out.push_str(self.btf_name(reg.a, reg.b));
        }
        out.push('(');
        let mut sep = "";
        let mut attr = |out: &mut String, text: std::fmt::Arguments<'_>| {
            let _ = write!(out, "{sep}{text}");
            sep = ",";
        };
        if reg.id != 0 {
            attr(out, format_args!("id={}", reg.id & !ADD_CONST));
        }
        if reg.id & ADD_CONST != 0 {
            let _ = write!(out, "{:+}", reg.off);
        }
        if reg.ref_obj_id != 0 {
            attr(out, format_args!("ref_obj_id={}", reg.ref_obj_id));
        }
        if ty::is_non_own(t) {
            attr(out, format_args!("non_own_ref"));
        }
        if ty::is_map_ptr(t)
            && let Some(map) = reg.map().and_then(|m| self.maps.get(m))
        {
            // A map within maps is known by a template, which has no name.
            let template = self.maps.iter().any(|m| m.inner == reg.map());
            if !map.name.is_empty() && !template {
                attr(out, format_args!("map={}", map.name));
            }
            attr(
                out,
                format_args!("ks={},vs={}", map.key_size, map.value_size),
            );
        }
        if t != ty::SCALAR && reg.off != 0 {
            attr(out, format_args!("off="));
            snum(out, i64::from(reg.off) as u64);
        }
        if ty::is_pkt(t) {
            attr(out, format_args!("r="));
            unum(out, i64::from(reg.range()) as u64);
        }
        if reg.base() == ty::MEM {
            attr(out, format_args!("sz="));
            unum(out, reg.mem_size().into());
        }
        if t == ty::DYNPTR {
            attr(out, format_args!("type={}", dynptr_str(reg.a)));
        }
        if reg.var_off.is_const() {
            if reg.var_off.value != 0 {
                attr(out, format_args!("imm="));
                snum(out, reg.var_off.value);
            }
        } else {
            ranges(out, reg, &mut sep);
            if !reg.var_off.is_unknown() {
                let _ = write!(out, "{sep}var_off={}", reg.var_off);
            }
        }
        out.push(')');
    }

    /// `print_verifier_state`: one frame, whole or what changed.
    pub(crate) fn fmt_state(&self, state: &State, frameno: usize, all: bool) -> String {
        let mut out = String::new();
        let Some(frame) = state.frames.get(frameno) else {
            return out;
        };
        if frame.frameno != 0 {
            let _ = write!(out, " frame{}:", frame.frameno);
        }
        for (i, reg) in frame.regs.iter().enumerate() {
            if reg.ty == ty::NOT_INIT || !all && self.log.scratched_regs & 1 << i == 0 {
                continue;
            }
            let _ = write!(out, " R{i}=");
            self.fmt_reg(&mut out, frame, reg);
        }
        self.fmt_stack(&mut out, frame, all);
        if state.refs.first().is_some_and(|r| r.id != 0) {
            let ids = state.refs.iter().filter(|r| r.id != 0);
            let ids: Vec<String> = ids.map(|r| r.id.to_string()).collect();
            let _ = write!(out, " refs={}", ids.join(","));
        }
        if frame.in_callback {
            out.push_str(" cb");
        }
        if frame.in_async {
            out.push_str(" async_cb");
        }
        out.push('\n');
        out
    }

    fn fmt_stack(&self, out: &mut String, frame: &Frame, all: bool) {
        let mut i = 0;
        while i < frame.stack.len() {
            let at = i;
            i += 1;
            let slot = &frame.stack[at];
            if !all && self.log.scratched_stack & 1 << (at & 63) == 0 {
                continue;
            }
            let text: String = slot
                .kinds
                .iter()
                .map(|k| char::from(b"?rm0dif"[usize::from(*k).min(6)]))
                .collect();
            if slot.kinds.iter().all(|k| *k == kind::INVALID) {
                continue;
            }
            let off = -8 * (at as i64 + 1);
            match slot.kinds[7] {
                kind::SPILL => {
                    let first = slot.kinds.iter().position(|k| *k == kind::SPILL);
                    let _ = write!(out, " fp{off}={}", &text[..first.unwrap_or(0)]);
                    self.fmt_reg(out, frame, &slot.reg);
                }
                kind::DYNPTR => {
                    i = at + 2;
                    let Some(main) = frame.stack.get(at + 1) else {
                        continue;
                    };
                    let reg = &main.reg;
                    let _ = write!(out, " fp{}=dynptr_{}(", off - 8, dynptr_str(reg.a));
                    let mut sep = "";
                    if reg.id != 0 {
                        let _ = write!(out, "id={}", reg.id);
                        sep = ",";
                    }
                    if reg.ref_obj_id != 0 {
                        let _ = write!(out, "{sep}ref_id={}", reg.ref_obj_id);
                        sep = ",";
                    }
                    // The kernel's union: it is whether this is the first slot.
                    if reg.b != 0 {
                        let _ = write!(out, "{sep}dynptr_id={}", reg.b);
                    }
                    out.push(')');
                }
                kind::ITER => {
                    if slot.reg.ref_obj_id == 0 {
                        continue;
                    }
                    let _ = write!(
                        out,
                        " fp{off}=iter_{}(ref_id={},state={},depth={})",
                        self.iter_name(slot.reg.a),
                        slot.reg.ref_obj_id,
                        match slot.reg.iter_state() {
                            1 => "active",
                            2 => "drained",
                            _ => "<invalid>",
                        },
                        slot.reg.iter_depth()
                    );
                }
                _ => {
                    let _ = write!(out, " fp{off}={text}");
                }
            }
        }
    }

    /// `iter_type_str`
    pub(crate) fn iter_name(&self, btf_id: u32) -> &str {
        let name = self.btf_name(BTF_KERNEL, btf_id);
        name.strip_prefix("bpf_iter_").unwrap_or(name)
    }

    /// `print_verifier_state` of the current state.
    pub(crate) fn print_state(&mut self, frame: usize, all: bool) {
        let text = self.fmt_state(&self.cur, frame, all);
        self.log.text.push_str(&text);
        if !all {
            self.log.scratched_regs = 0;
            self.log.scratched_stack = 0;
        }
    }

    /// `print_insn_state`: behind the instruction just printed.
    pub(crate) fn print_insn_state(&mut self) {
        let log = &mut self.log;
        if log.prev_pos != 0 && log.prev_pos == log.text.len() {
            log.text.pop();
            let pos = log.prev_insn_len;
            let aligned = (pos + 4).max(40).next_multiple_of(8) - pos - 1;
            verbose!(self, "{:>aligned$};", ' ');
        } else {
            verbose!(self, "{}:", self.insn_idx);
        }
        self.print_state(self.cur.curframe(), false);
    }

    /// `verbose_linfo`: the C line of an instruction, where it is another than the last.
    pub(crate) fn print_line(&mut self, insn: usize, prefix: std::fmt::Arguments<'_>) {
        let lines = self.prog.lines;
        let after = lines.partition_point(|l| l.insn <= insn);
        let Some(at) = after.checked_sub(1) else {
            return;
        };
        if self.log.prev_line == Some(at) {
            return;
        }
        let line = &lines[at];
        if let Some(prev) = self.log.prev_line.and_then(|p| lines.get(p))
            && prev.file == line.file
            && prev.line == line.line
        {
            return;
        }
        let file = line.file.rsplit('/').next().unwrap_or("");
        let text = line.text.trim_start();
        verbose!(self, "{prefix}{text} @ {file}:{}\n", line.line);
        self.log.prev_line = Some(at);
    }

    /// `verbose_insn`
    pub(crate) fn print_insn(&mut self, at: usize) {
        struct Names<'a>(&'a bpfsim_btf::Btf);
        impl LinuxNames for Names<'_> {
            fn helper(&self, id: i32) -> Option<std::borrow::Cow<'_, str>> {
                let func = u32::try_from(id).ok().and_then(crate::verifier::func)?;
                Some(func.name().into())
            }
            fn kfunc(&self, btf_id: i32, _off: i16) -> Option<std::borrow::Cow<'_, str>> {
                let id = bpfsim_btf::TypeId(btf_id as u32);
                Some(self.0.name_of(id).into())
            }
        }
        let names = Names(self.env.kernel);
        if let Some(insn) = linux_insn(&self.insns, at, &names) {
            verbose!(self, "{insn}\n");
        }
    }
}
