//! A program made small while it stays interesting.

use bpfsim_isa::Insn;

use super::{Program, To};

/// The smallest program found for which `interesting` holds, as it does for this one.
pub fn shrink(program: &Program, interesting: &mut dyn FnMut(&Program) -> bool) -> Program {
    let mut best = program.clone();
    loop {
        let before = best.clone();
        drop_flags(&mut best, interesting);
        drop_funcs(&mut best, interesting);
        drop_lines(&mut best, interesting);
        simplify_lines(&mut best, interesting);
        if best == before {
            return best;
        }
    }
}

fn try_it(
    best: &mut Program,
    other: Program,
    interesting: &mut dyn FnMut(&Program) -> bool,
) -> bool {
    let whole = other.funcs.iter().all(|f| !f.is_empty());
    let better = whole && other != *best && interesting(&other);
    if better {
        *best = other;
    }
    better
}

fn drop_flags(best: &mut Program, interesting: &mut dyn FnMut(&Program) -> bool) {
    for bit in 0..8 {
        let mut other = best.clone();
        other.flags &= !(1 << bit);
        try_it(best, other, interesting);
    }
}

/// Functions that nothing goes to any more.
fn drop_funcs(best: &mut Program, interesting: &mut dyn FnMut(&Program) -> bool) {
    for func in (1..best.funcs.len()).rev() {
        let mut other = best.clone();
        other.funcs.remove(func);
        let mut used = false;
        for line in other.funcs.iter_mut().flatten() {
            if let To::Func(to) = &mut line.to {
                used |= *to == func;
                *to -= usize::from(*to > func);
            }
        }
        if !used {
            try_it(best, other, interesting);
        }
    }
}

fn drop_lines(best: &mut Program, interesting: &mut dyn FnMut(&Program) -> bool) {
    for func in 0..best.funcs.len() {
        let mut chunk = best.funcs[func].len() / 2;
        while chunk > 0 {
            let mut at = 0;
            while at < best.funcs[func].len() {
                let end = (at + chunk).min(best.funcs[func].len());
                let other = best.without(func, at..end);
                if !try_it(best, other, interesting) {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
    }
}

fn simplify_lines(best: &mut Program, interesting: &mut dyn FnMut(&Program) -> bool) {
    for func in 0..best.funcs.len() {
        for at in 0..best.funcs[func].len() {
            let line = best.funcs[func][at];
            let mut insns = Vec::new();
            if line.to == To::Nothing && !line.insn.is_ld_imm64() {
                // A constant for whatever it was.
                insns.push(Insn::new(0xb7, line.insn.dst(), 0, 0, 0));
            }
            for imm in [0, 1, line.insn.imm / 2] {
                let mut insn = line.insn;
                insn.imm = imm;
                insns.push(insn);
            }
            for insn in insns {
                if insn.code == line.insn.code
                    && insn.imm.unsigned_abs() >= line.insn.imm.unsigned_abs()
                {
                    continue;
                }
                let mut other = best.clone();
                other.funcs[func][at].insn = insn;
                if try_it(best, other, interesting) {
                    break;
                }
            }
        }
    }
}
