//! The instructions that made a register, or a stack slot, what it was when a program was refused.

use std::collections::BTreeMap;

use bpfsim_isa::{AluOp, CallKind, Flow, Op, Operand, decode};

use super::trace::Trace;
use crate::reg::{Reg, ty};
use crate::verifier::{Verifier, func};

/// What a value was in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Reg(usize),
    /// Bytes of the stack from this offset of the frame pointer.
    Slot(i16),
}

/// A value to be followed backwards: where it was before a step, in a frame so many calls deep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    place: Place,
    before: usize,
    depth: usize,
}

/// Steps, and what each did.
pub(super) struct Why<'a, 'b> {
    pub v: &'a Verifier<'b>,
    pub trace: &'a Trace,
    pub found: BTreeMap<usize, Vec<String>>,
}

/// What happens to a value at a step.
enum Met {
    /// Nothing.
    Nothing,
    /// It came to be.
    Made,
}

/// Most values that are followed.
const MAX_LOOKS: usize = 64;

impl Why<'_, '_> {
    fn op(&self, step: usize) -> Option<Op> {
        let at = self.trace.steps[step].insn;
        decode(&self.v.insns, at).ok().map(|(op, _)| op)
    }

    pub fn say(&mut self, step: usize, what: String) {
        let said = self.found.entry(step).or_default();
        if !said.contains(&what) {
            said.push(what);
        }
    }

    /// Follows what a place held before a step.
    pub fn follow(&mut self, place: Place, before: usize, depth: usize) {
        let mut looks = vec![Look {
            place,
            before,
            depth,
        }];
        let mut next = 0;
        while let Some(&look) = looks.get(next)
            && next < MAX_LOOKS
        {
            next += 1;
            for new in self.look(look) {
                if !looks.contains(&new) {
                    looks.push(new);
                }
            }
        }
    }

    /// Goes back to where a value was made; where its parts were before.
    fn look(&mut self, look: Look) -> Vec<Look> {
        let mut more = Vec::new();
        for step in (0..look.before).rev() {
            let s = self.trace.steps[step];
            if s.depth > look.depth {
                continue;
            }
            let op = self.op(step);
            if s.depth < look.depth {
                self.entered(look, step, op, &mut more);
                return more;
            }
            let Some(op) = op else { continue };
            if let Met::Made = self.meet(look, step, &op, &mut more) {
                return more;
            }
        }
        if let (Place::Reg(1), Some(first)) = (look.place, self.trace.steps.first())
            && first.depth == look.depth
            && let Some(step) = (look.before > 0).then_some(0)
            && self.v.prog.funcs.is_empty()
        {
            self.say(step, "R1 is the program's context at its start".to_owned());
        }
        more
    }

    /// The value came from the caller, through a call of a function or a callback.
    fn entered(&mut self, look: Look, step: usize, op: Option<Op>, more: &mut Vec<Look>) {
        let Place::Reg(reg @ 1..=5) = look.place else {
            return;
        };
        let depth = self.trace.steps[step].depth;
        match op {
            Some(Op::Call(CallKind::Bpf(_))) => {
                self.say(step, format!("R{reg} is passed on by this call"));
                more.push(Look {
                    place: Place::Reg(reg),
                    before: step,
                    depth,
                });
            }
            Some(Op::Call(kind)) => {
                let name = self.callee(kind);
                let held = self.trace.after(step, look.depth, reg);
                let words = held.map_or_else(String::new, |r| format!(": {}", self.v.words(r)));
                self.say(step, format!("{name} calls back with R{reg}{words}"));
            }
            _ => {}
        }
    }

    fn callee(&self, kind: CallKind) -> String {
        match kind {
            CallKind::Helper(id) => u32::try_from(id)
                .ok()
                .and_then(func)
                .map_or_else(|| format!("helper {id}"), |f| f.name().to_owned()),
            CallKind::Kfunc { btf_id, .. } => self.v.kfunc_name(btf_id).to_owned(),
            CallKind::Bpf(_) => "the function".to_owned(),
        }
    }

    fn became(&self, step: usize, depth: usize, reg: usize) -> Option<String> {
        let held = self.trace.after(step, depth, reg)?;
        Some(self.v.words(held))
    }

    /// What one instruction of the value's own frame does to it.
    fn meet(&mut self, look: Look, step: usize, op: &Op, more: &mut Vec<Look>) -> Met {
        match look.place {
            Place::Slot(at) => self.meet_slot(look, at, step, op, more),
            Place::Reg(reg) => self.meet_reg(look, reg, step, op, more),
        }
    }

    fn meet_slot(
        &mut self,
        look: Look,
        at: i16,
        step: usize,
        op: &Op,
        more: &mut Vec<Look>,
    ) -> Met {
        let Op::Store {
            size,
            dst,
            off,
            src,
        } = *op
        else {
            return Met::Nothing;
        };
        let end = i32::from(off) + size.bytes() as i32;
        if dst.number() != 10 || i32::from(at) < i32::from(off) || i32::from(at) >= end {
            return Met::Nothing;
        }
        match src {
            Operand::Reg(src) => {
                let n = src.number();
                self.say(step, format!("R{n} is stored at fp{off:+}"));
                more.push(Look {
                    place: Place::Reg(n.into()),
                    before: step,
                    ..look
                });
            }
            Operand::Imm(imm) => self.say(step, format!("{imm} is stored at fp{off:+}")),
        }
        Met::Made
    }

    fn meet_reg(
        &mut self,
        look: Look,
        reg: usize,
        step: usize,
        op: &Op,
        more: &mut Vec<Look>,
    ) -> Met {
        if let Flow::Branch(to) = op.flow() {
            self.narrowed(look, reg, step, op, to);
            return Met::Nothing;
        }
        let writes = op.writes().iter().any(|r| usize::from(r.number()) == reg);
        if !writes {
            return Met::Nothing;
        }
        let now = self.became(step, look.depth, reg);
        let is = |words: &Option<String>| match words {
            Some(words) => format!("R{reg} becomes {words}"),
            None => format!("R{reg} gets its value"),
        };
        let from = |place| Look {
            place,
            before: step,
            ..look
        };
        match *op {
            Op::Call(kind) => self.called(look, reg, step, kind, more),
            Op::Alu {
                op: AluOp::Mov,
                src: Operand::Reg(src),
                ..
            } => {
                self.say(step, format!("R{reg} is copied from R{}", src.number()));
                more.push(from(Place::Reg(src.number().into())));
            }
            Op::Alu { op: AluOp::Mov, .. } | Op::LdImm64 { .. } => self.say(step, is(&now)),
            Op::Load { src, off, .. } if src.number() == 10 => {
                self.say(step, format!("R{reg} is loaded from fp{off:+}"));
                more.push(from(Place::Slot(off)));
            }
            Op::Load { src, .. } | Op::LoadAcquire { src, .. } => {
                let n = src.number();
                let base = self.trace.held(step, look.depth, n.into());
                let base = base.map_or_else(|| format!("R{n}"), |b| self.v.words(b));
                let words = now.map_or_else(String::new, |w| format!(": {w}"));
                self.say(step, format!("R{reg} is loaded through {base}{words}"));
            }
            _ => {
                self.say(step, is(&now));
                let read = op.reads();
                more.extend(read.iter().map(|r| from(Place::Reg(r.number().into()))));
            }
        }
        Met::Made
    }

    fn called(
        &mut self,
        look: Look,
        reg: usize,
        step: usize,
        kind: CallKind,
        more: &mut Vec<Look>,
    ) {
        let name = self.callee(kind);
        if reg != 0 {
            let what = format!("the call of {name} leaves nothing in R1 to R5");
            return self.say(step, what);
        }
        if let CallKind::Bpf(_) = kind {
            // From the last step of the function that it calls.
            let inside =
                (step + 1..look.before).take_while(|s| self.trace.steps[*s].depth > look.depth);
            if let Some(last) = inside.last() {
                self.say(step, "R0 is what this function returns".to_owned());
                more.push(Look {
                    place: Place::Reg(0),
                    before: last,
                    depth: look.depth + 1,
                });
                return;
            }
        }
        let words = self.became(step, look.depth, 0);
        self.say(
            step,
            match words {
                Some(words) => format!("{name} returns R0: {words}"),
                None => format!("{name} returns R0"),
            },
        );
    }

    /// A branch that says more of a register.
    fn narrowed(&mut self, look: Look, reg: usize, step: usize, op: &Op, to: i32) {
        let Some(now) = self.trace.after(step, look.depth, reg).copied() else {
            return;
        };
        let held = self.trace.held(step, look.depth, reg);
        if held.is_some_and(|was| same_range(was, &now)) {
            return;
        }
        if let Some(way) = self.way(step, op, to) {
            let words = self.v.words(&now);
            self.say(step, format!("{way}: R{reg} is {words}"));
        }
    }

    /// Which way a branch went.
    fn way(&self, step: usize, op: &Op, to: i32) -> Option<String> {
        let here = self.trace.steps[step].insn;
        let next = match self.trace.steps.get(step + 1) {
            Some(next) => next.insn,
            None => usize::try_from(self.v.insn_idx).ok()?,
        };
        let target = (here as i64 + 1 + i64::from(to)) as usize;
        if target == here + 1 {
            return None;
        }
        let taken = next == target;
        Some(match op {
            Op::Jmp { dst, cond, src, .. } => {
                let src = match src {
                    Operand::Reg(r) => format!("R{}", r.number()),
                    Operand::Imm(imm) => imm.to_string(),
                };
                let holds = if taken { "holds" } else { "does not hold" };
                format!("here `R{} {} {src}` {holds}", dst.number(), cond.text())
            }
            _ => match taken {
                true => "the loop is left here".to_owned(),
                false => "the loop goes on here".to_owned(),
            },
        })
    }

    /// The last branches from one step to another, and which way each went.
    pub fn branches(&mut self, from: usize, to: usize, most: usize) {
        let mut left = most;
        for step in (from..to).rev() {
            let Some(op) = self.op(step) else { continue };
            if let Flow::Branch(off) = op.flow()
                && let Some(way) = self.way(step, &op, off)
            {
                self.say(step, way);
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
    }

    /// The last step at this instruction.
    pub fn last_at(&self, insn: usize) -> Option<usize> {
        self.trace.steps.iter().rposition(|s| s.insn == insn)
    }

    /// The last call of a function whose name one of these is.
    pub fn last_call(&self, names: &[&str]) -> Option<(usize, String)> {
        (0..self.trace.steps.len()).rev().find_map(|step| {
            let Some(Op::Call(kind)) = self.op(step) else {
                return None;
            };
            let name = self.callee(kind);
            names.contains(&name.as_str()).then_some((step, name))
        })
    }

    /// The function that a step calls.
    pub fn call_at(&self, step: usize) -> Option<String> {
        match self.op(step)? {
            Op::Call(kind) => Some(self.callee(kind)),
            _ => None,
        }
    }
}

fn same_range(a: &Reg, b: &Reg) -> bool {
    let range = |r: &Reg| (r.ty, r.off, r.var_off, r.smin, r.smax, r.umin, r.umax);
    let known = |r: &Reg| match ty::is_pkt(r.ty) {
        true => r.range(),
        false => 0,
    };
    range(a) == range(b) && known(a) == known(b)
}
