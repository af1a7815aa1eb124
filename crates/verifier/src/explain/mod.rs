//! Refusals told to people: what was required, what was found, the instructions that made it so,
//! and what usually mends it. As data ([`Explanation`]) and as text ([`Explanation::render`]).
//!
//! The walk is made once more with its way recorded ([`trace`]); from its end the values that the
//! refusal is about are followed backwards ([`why`]).

mod render;
pub(crate) mod trace;
mod why;
mod words;

use bpfsim_abi::helper::{Caller, proto};
use bpfsim_abi::text::{Hole, Kind, fill, find};
use bpfsim_abi::{Func, ProgType, kfunc};
use bpfsim_isa::{CallKind, Op, decode, uapi::*};
use serde::{Deserialize, Serialize};

use crate::refusal::Refused;
use crate::state::reftype;
use crate::verifier::{Stop, Verifier};
use crate::{Env, Options, ProgramToVerify};
use trace::Trace;
use why::{Place as Value, Why};

/// Most causes that an explanation names: the first ones and the last ones of more.
const MAX_CAUSES: usize = 10;

/// Why a program is refused, or why that cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Symbol of what `BPF_PROG_LOAD` answers, such as `EACCES`; empty where this verifier cannot
    /// tell.
    pub errno: String,
    /// What the log says, line by line; where Linux says nothing, what the matter is.
    pub said: Vec<String>,
    /// Which of these lines says most.
    pub title: String,
    /// The instruction at hand, where there is one.
    pub insn: Option<usize>,
    /// Its text.
    pub asm: String,
    /// Its C line.
    pub place: Option<Place>,
    /// What is required.
    pub required: String,
    /// What was found instead.
    pub found: Vec<String>,
    /// What made it so, in the order in which it happens.
    pub because: Vec<Cause>,
    /// What usually mends it.
    pub fix: String,
}

/// A place in C.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Path of the file, as the compiler was given it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1; 0 if unknown.
    pub column: u32,
    /// The line's text.
    pub text: String,
}

/// An instruction that had a part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its index.
    pub insn: usize,
    /// Its text.
    pub asm: String,
    /// Its C line.
    pub place: Option<Place>,
    /// What it did.
    pub what: String,
}

/// Why a program is refused, or cannot be judged; `None` for one that Linux takes.
pub fn explain(
    prog: &ProgramToVerify<'_>,
    env: &Env<'_>,
    options: &Options,
) -> Option<Explanation> {
    let quiet = Options {
        log_level: 0,
        ..*options
    };
    let mut v = Verifier::new(prog, env, &quiet);
    v.trace = Some(Box::default());
    let stop = v.check().err()?;
    Some(match stop {
        Stop::Refused(refused) => v.explain_refusal(&refused),
        Stop::Unsupported(what) => v.explain_unsupported(what),
    })
}

impl Verifier<'_> {
    fn place(&self, insn: usize) -> Option<Place> {
        let after = self.prog.lines.partition_point(|l| l.insn <= insn);
        let line = self.prog.lines.get(after.checked_sub(1)?)?;
        Some(Place {
            file: line.file.to_owned(),
            line: line.line,
            column: line.column,
            text: line.text.to_owned(),
        })
    }

    fn asm(&self, insn: usize) -> String {
        match decode(&self.insns, insn) {
            Ok((Op::Call(CallKind::Helper(id)), _)) => {
                let name = u32::try_from(id).ok().and_then(Func::from_u32);
                name.map_or_else(|| format!("call {id}"), |f| format!("call {}", f.name()))
            }
            Ok((Op::Call(CallKind::Kfunc { btf_id, .. }), _)) => {
                format!("call {}", self.kfunc_name(btf_id))
            }
            Ok((op, _)) => op.to_string(),
            Err(_) => String::new(),
        }
    }

    fn explain_unsupported(&self, what: String) -> Explanation {
        let insn = self.refused_at(&[]);
        Explanation {
            errno: String::new(),
            title: what.clone(),
            said: vec![what],
            insn,
            asm: insn.map_or_else(String::new, |i| self.asm(i)),
            place: insn.and_then(|i| self.place(i)),
            required: "what a program does is within what this verifier can judge".to_owned(),
            found: Vec::new(),
            because: Vec::new(),
            fix: "nothing is wrong with the program: whether Linux takes it is unknown; it can be run without a verdict, with the engine's own checks".to_owned(),
        }
    }

    fn explain_refusal(&self, refused: &Refused) -> Explanation {
        let mut row = refused.row();
        let mut said: Vec<String> = self.log.text[refused.at().min(self.log.text.len())..]
            .lines()
            .map(str::trim_end)
            .filter(|l| !l.is_empty() && !l.starts_with("; "))
            .map(str::to_owned)
            .collect();
        if row.text.kind == Kind::Quiet {
            said.push(row.text.pattern.to_owned());
        }
        for (case, _) in said.iter().filter_map(|line| find(line)) {
            if case.text.kind == Kind::Case {
                row = case;
            }
        }
        // Of what the row's own text says, and of what goes before and behind it.
        let mut holes: Vec<Hole> = said
            .iter()
            .find_map(|line| row.text.holes(line))
            .unwrap_or_default();
        for line in &said {
            for hole in find(line).map(|(_, holes)| holes).unwrap_or_default() {
                if !holes.iter().any(|h| h.name == hole.name) {
                    holes.push(hole);
                }
            }
        }
        let trace = self.trace.as_deref();
        let empty = Trace::default();
        let mut why = Why {
            v: self,
            trace: trace.unwrap_or(&empty),
            found: Default::default(),
        };
        let insn = self.refused_at(&holes);
        let mut found = Vec::new();
        self.tell_values(&mut why, &holes, &mut found);
        self.tell_held(&mut why, &holes, row.rule.required, &mut found);
        self.tell_loop(&mut why, row.text.pattern, insn);
        let mut because = self.causes(&why);
        because.extend(self.tell_stack(row.text.pattern, &holes));
        let mut fix = fill(row.rule.fix, &holes);
        self.tell_available(&said, &holes, &mut found, &mut fix);
        // What follows the first line of a text of several goes into detail.
        let lines = row.text.pattern.contains('\n');
        let title = if lines { said.first() } else { said.last() };
        Explanation {
            title: title.cloned().unwrap_or_default(),
            errno: refused.errno.name().unwrap_or("?").to_owned(),
            said,
            insn,
            asm: insn.map_or_else(String::new, |i| self.asm(i)),
            place: insn.and_then(|i| self.place(i)),
            required: fill(row.rule.required, &holes),
            found,
            because,
            fix,
        }
    }

    /// The instruction that a refusal is about: the one that its text names, or the one at hand.
    fn refused_at(&self, holes: &[Hole]) -> Option<usize> {
        let named = number(holes, "insn").filter(|i| *i < self.insns.len());
        let walking = |t: &Trace| !t.steps.is_empty() && !t.done;
        let walked = self.trace.as_deref().is_some_and(walking);
        let func = number(holes, "func").and_then(|f| self.subprogs.get(f));
        named
            .or_else(|| func.map(|f| f.start))
            .or_else(|| usize::try_from(self.insn_idx).ok().filter(|_| walked))
            .filter(|i| *i < self.insns.len())
    }

    fn causes(&self, why: &Why<'_, '_>) -> Vec<Cause> {
        let steps = why.found.iter().map(|(step, said)| {
            let insn = why.trace.steps[*step].insn;
            Cause {
                insn,
                asm: self.asm(insn),
                place: self.place(insn),
                what: said.join("; "),
            }
        });
        let mut all: Vec<Cause> = Vec::new();
        for cause in steps {
            // Rounds of a loop say the same.
            if !all.contains(&cause) {
                all.push(cause);
            }
        }
        if all.len() > MAX_CAUSES {
            all.drain(MAX_CAUSES / 2..all.len() - MAX_CAUSES / 2);
        }
        all
    }

    /// The registers that the refusal is about.
    fn subjects(&self, holes: &[Hole]) -> Vec<usize> {
        let reg = holes.iter().find(|h| h.name == "reg");
        let digits = reg.map(|h| h.value.trim_start_matches('R').to_owned());
        let named = digits.and_then(|d| d.parse::<usize>().ok());
        // `arg#0` is R1.
        let arg = || number(holes, "arg").map(|a| a + 1);
        if let Some(n) = named.or_else(arg).filter(|n| *n <= 10) {
            return vec![n];
        }
        let here = usize::try_from(self.insn_idx).ok();
        let Some((op, _)) = here.and_then(|i| decode(&self.insns, i).ok()) else {
            return Vec::new();
        };
        match op {
            Op::Load { src, .. } | Op::LoadAcquire { src, .. } => vec![src.number().into()],
            Op::Store { dst, .. } | Op::StoreRelease { dst, .. } | Op::Atomic { dst, .. } => {
                vec![dst.number().into()]
            }
            Op::Alu { .. } => op.reads().iter().map(|r| r.number().into()).collect(),
            _ => Vec::new(),
        }
    }

    fn tell_values(&self, why: &mut Why<'_, '_>, holes: &[Hole], found: &mut Vec<String>) {
        let Some(last) = why.trace.steps.last() else {
            return;
        };
        if usize::try_from(self.insn_idx) != Ok(last.insn) {
            return;
        }
        let (depth, at) = (last.depth, why.trace.steps.len() - 1);
        let Some((_, regs)) = why.trace.before.as_ref() else {
            return;
        };
        for n in self.subjects(holes) {
            found.push(format!("R{n} is {}", self.words(&regs[n])));
            why.follow(Value::Reg(n), at, depth);
        }
        let (Some(off), Some(byte)) = (signed(holes, "off"), number(holes, "byte")) else {
            return;
        };
        let at_byte = off + byte as i64;
        found.push(format!(
            "the byte at fp{at_byte:+} was not written on this way"
        ));
    }

    /// References, locks and sections that the program is in.
    fn tell_held(
        &self,
        why: &mut Why<'_, '_>,
        holes: &[Hole],
        required: &str,
        found: &mut Vec<String>,
    ) {
        let end = why.trace.steps.len();
        let held = |why: &mut Why<'_, '_>, insn: usize, what: &str| {
            let Some(step) = why.last_at(insn) else {
                return;
            };
            let by = why.call_at(step);
            let by = by.map_or_else(String::new, |by| format!(" by {by}"));
            why.say(step, format!("{what}{by}"));
            why.branches(step + 1, end, 3);
        };
        if let Some(insn) = number(holes, "alloc_insn") {
            found.push("a reference that nobody gave back".to_owned());
            return held(why, insn, "the reference is acquired");
        }
        let about =
            |word: &str| required.contains(word) || holes.iter().any(|h| h.value.contains(word));
        if about("lock") {
            let locks = self.cur.refs.iter();
            let locks = locks.filter(|r| r.kind & reftype::LOCK_MASK != 0);
            let locks: Vec<_> = locks.map(|r| r.insn).collect();
            for insn in locks {
                if let Ok(insn) = usize::try_from(insn) {
                    found.push("a lock that is held".to_owned());
                    held(why, insn, "the lock is taken");
                }
            }
        }
        let sections: [(bool, &str, &[&str]); 3] = [
            (
                self.cur.active_rcu,
                "an RCU section",
                &["bpf_rcu_read_lock"],
            ),
            (
                self.cur.active_preempt != 0,
                "a section without preemption",
                &["bpf_preempt_disable"],
            ),
            (
                self.cur.active_irq_id != 0,
                "a section without interrupts",
                &["bpf_local_irq_save", "bpf_res_spin_lock_irqsave"],
            ),
        ];
        if !(about("section") || about("sleep")) {
            return;
        }
        for (_, what, names) in sections.into_iter().filter(|s| s.0) {
            if let Some((step, _)) = why.last_call(names) {
                found.push(format!("{what} that was not left"));
                let insn = why.trace.steps[step].insn;
                held(why, insn, &format!("{what} is entered"));
            }
        }
    }

    /// The round of a loop that changes nothing.
    fn tell_loop(&self, why: &mut Why<'_, '_>, pattern: &str, insn: Option<usize>) {
        let Some(insn) = insn.filter(|_| pattern.starts_with("infinite loop")) else {
            return;
        };
        if let Some(step) = why.last_at(insn) {
            let end = why.trace.steps.len();
            why.say(step, "a round of the loop begins here".to_owned());
            why.branches(step, end, 6);
            if end > step + 1 {
                why.say(
                    end - 1,
                    "and comes back with every register and stack slot as it was".to_owned(),
                );
            }
        }
    }

    /// The calls whose frames are open at once.
    fn tell_stack(&self, pattern: &str, holes: &[Hole]) -> Vec<Cause> {
        let Some(depth) = number(holes, "depth").filter(|_| pattern.contains("combined stack"))
        else {
            return Vec::new();
        };
        let mut chain = Vec::new();
        if !self.deepest(0, 0, depth as i32, &mut chain) {
            return Vec::new();
        }
        let cause = |(i, (insn, sub)): (usize, &(usize, usize))| {
            let size = self.subprogs[*sub].stack_depth;
            let name = self.subprog_name(*sub);
            let name = match name {
                "" => format!("function {sub}"),
                name => format!("`{name}`"),
            };
            Cause {
                insn: *insn,
                asm: self.asm(*insn),
                place: self.place(*insn),
                what: match i {
                    0 => format!("{name} takes {size} bytes of stack"),
                    _ => format!("calls {name}, which takes {size} more"),
                },
            }
        };
        chain.iter().enumerate().map(cause).collect()
    }

    /// Finds the calls by which the stack comes to this depth: where, and whom.
    fn deepest(&self, sub: usize, so_far: i32, want: i32, chain: &mut Vec<(usize, usize)>) -> bool {
        if chain.is_empty() {
            chain.push((self.subprogs[sub].start, sub));
        }
        let depth = so_far + (self.subprogs[sub].stack_depth + 15) / 16 * 16;
        if depth == want {
            return true;
        }
        if chain.len() > crate::state::MAX_FRAMES {
            return false;
        }
        let Some(end) = self.subprogs.get(sub + 1).map(|s| s.start) else {
            return false;
        };
        for i in self.subprogs[sub].start..end {
            let insn = self.insns[i];
            let call = insn.code == BPF_JMP | BPF_CALL && insn.src() == BPF_PSEUDO_CALL;
            let takes = insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC;
            if !call && !takes {
                continue;
            }
            let Some(callee) = self.find_subprog(i as i64 + 1 + i64::from(insn.imm)) else {
                continue;
            };
            chain.push((i, callee));
            if self.deepest(callee, depth, want, chain) {
                return true;
            }
            chain.pop();
        }
        false
    }

    /// Who may call what this program may not.
    fn tell_available(
        &self,
        said: &[String],
        holes: &[Hole],
        found: &mut Vec<String>,
        fix: &mut String,
    ) {
        let named = |name: &str| holes.iter().find(|h| h.name == name);
        let unavailable = |line: &String| {
            line.contains("of this type cannot use helper")
                || line.starts_with("calling kernel function")
                || line.contains("not supported for program type")
        };
        if !said.iter().any(unavailable) {
            return;
        }
        found.push(format!("the program's type is {}", self.prog_type.name()));
        let allowed = |t: &ProgType| {
            let attach =
                bpfsim_abi::prog::fixup_attach_type(*t, bpfsim_abi::AttachType::CgroupInetIngress);
            if let Some(kfunc) = named("kfunc") {
                return kfunc::get(&kfunc.value).is_some_and(|k| k.reaches(*t));
            }
            let func = named("helper").and_then(|h| Func::from_name(&h.value));
            func.is_some_and(|f| proto(f, &Caller::new(*t, attach)).is_some())
        };
        let types = ProgType::ALL.iter().filter(|t| allowed(t));
        let types: Vec<&str> = types.map(|t| t.name()).collect();
        if !types.is_empty() && types.len() < 20 {
            *fix += &format!("; programs of these types may: {}", types.join(", "));
        }
    }
}

/// What stands in a hole, as a number.
fn number(holes: &[Hole], name: &str) -> Option<usize> {
    let hole = holes.iter().find(|h| h.name == name)?;
    hole.value.parse().ok()
}

fn signed(holes: &[Hole], name: &str) -> Option<i64> {
    let hole = holes.iter().find(|h| h.name == name)?;
    hole.value.parse().ok()
}
