//! What is looked at after the walk: how much stack calls take together, and what rewriting would refuse.

use bpfsim_abi::ProgType;
use bpfsim_isa::uapi::*;
use hashbrown::HashMap;

use crate::refusal::reject;
use crate::verifier::{R, Verifier};

/// Whether a subprogram's frame lies on a stack of its own (`enum priv_stack_mode`).
#[derive(Clone, Copy, PartialEq)]
enum PrivateStack {
    Unknown,
    None,
    Adaptive,
}

/// The calls that lead to an instruction.
#[derive(Default)]
struct CallPath {
    /// The subprogram, and which of its instructions is looked at.
    idx: usize,
    at: usize,
    /// Bytes of stack, up to here.
    depth: i32,
    /// Whether a function that does tail calls was come to.
    tail_calls: bool,
    calls: Vec<Call>,
}

/// A call on the way: where it returns to, instruction and subprogram, and how it was entered.
struct Call {
    to: (usize, usize),
    entered: Entry,
}

/// All that decides what is found of a subprogram and of those that it calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    idx: usize,
    depth: i32,
    calls: usize,
    tail_calls: bool,
    /// Whether a caller is a callback, or one for exceptions.
    callback: bool,
    exception: bool,
}

impl CallPath {
    /// Back to the caller, if there is one.
    fn leave(&mut self) -> Option<Entry> {
        let call = self.calls.pop()?;
        (self.at, self.idx) = call.to;
        Some(call.entered)
    }
}

impl Verifier<'_> {
    /// `check_max_stack_depth`
    pub(crate) fn check_max_stack_depth(&mut self) -> R {
        let tail_calls = self.subprogs[..self.subprog_cnt]
            .iter()
            .any(|s| s.has_tail_call);
        let private = !tail_calls
            && match self.prog_type {
                ProgType::Kprobe
                | ProgType::Tracepoint
                | ProgType::PerfEvent
                | ProgType::RawTracepoint => true,
                // `bpf_prog_check_recur`: all but iterators, and LSM but for cgroups.
                ProgType::Tracing => self.prog.attach_type != bpfsim_abi::AttachType::TraceIter,
                ProgType::Lsm => self.prog.attach_type != bpfsim_abi::AttachType::LsmCgroup,
                _ => false,
            };
        let mut modes = vec![PrivateStack::Unknown; self.subprog_cnt];
        for i in (0..self.subprog_cnt).rev() {
            if i == 0 || self.subprogs[i].is_async_cb {
                self.max_stack_depth_of(i, i == 0 && private, &mut modes)?;
            }
        }
        Ok(())
    }

    /// `check_max_stack_depth_subprog`
    fn max_stack_depth_of(&mut self, root: usize, private: bool, modes: &mut [PrivateStack]) -> R {
        let mut path = CallPath {
            idx: root,
            at: self.subprogs[root].start,
            ..CallPath::default()
        };
        // Entries that were gone through, and whether tail calls had been come to at their end: ways
        // through calls are far more than calls.
        let mut known: HashMap<Entry, bool> = HashMap::new();
        self.take_stack(&mut path, private, modes)?;
        loop {
            if let Some(callee) = self.next_callee(&mut path)? {
                let entered = self.enter(&mut path, callee)?;
                match known.get(&entered) {
                    Some(tail_calls) => {
                        path.tail_calls = *tail_calls;
                        path.leave();
                    }
                    None => self.take_stack(&mut path, private, modes)?,
                }
                continue;
            }
            let exception = path.calls.last().is_some_and(|c| c.entered.exception);
            if path.tail_calls && exception {
                reject!(self, EINVAL, "cannot tail call within exception cb\n");
            }
            if modes[path.idx] != PrivateStack::Adaptive {
                path.depth -= self.stack_of(path.idx);
            }
            match path.leave() {
                None => return Ok(()),
                Some(entered) => known.insert(entered, path.tail_calls),
            };
        }
    }

    /// Goes on with a subprogram that the one at hand calls.
    fn enter(&mut self, path: &mut CallPath, callee: usize) -> R<Entry> {
        let caller = &self.subprogs[path.idx];
        let before = path.calls.last().map(|c| c.entered);
        path.tail_calls |= self.subprogs[callee].has_tail_call;
        let n = path.calls.len() + 1;
        if n >= 8 {
            reject!(self, E2BIG, "the call stack of {n} frames is too deep !\n");
        }
        let entered = Entry {
            idx: callee,
            depth: path.depth,
            calls: n,
            tail_calls: path.tail_calls,
            callback: caller.is_cb || before.is_some_and(|b| b.callback),
            exception: caller.is_exception_cb || before.is_some_and(|b| b.exception),
        };
        path.calls.push(Call {
            to: (path.at + 1, path.idx),
            entered,
        });
        (path.at, path.idx) = (self.subprogs[callee].start, callee);
        Ok(entered)
    }

    /// What a frame of a subprogram takes (`round_up_stack_depth`).
    fn stack_of(&self, subprog: usize) -> i32 {
        (self.subprogs[subprog].stack_depth + 15) / 16 * 16
    }

    /// Counts the stack of the subprogram that the path has come to.
    fn take_stack(&mut self, path: &mut CallPath, private: bool, modes: &mut [PrivateStack]) -> R {
        let (idx, depth) = (path.idx, path.depth);
        if !private {
            modes[idx] = PrivateStack::None;
        }
        if idx != 0 && self.subprogs[idx].has_tail_call && depth >= 256 {
            reject!(
                self,
                EACCES,
                "tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large\n"
            );
        }
        let own = self.stack_of(idx);
        if private && modes[idx] == PrivateStack::Unknown && own >= 64 {
            modes[idx] = PrivateStack::Adaptive;
        }
        if modes[idx] == PrivateStack::Adaptive {
            if own > 512 {
                reject!(
                    self,
                    EACCES,
                    "stack size of subprog {idx} is {own}. Too large\n"
                );
            }
            return Ok(());
        }
        path.depth += own;
        let depth = path.depth;
        if depth > 512 {
            let n = path.calls.len() + 1;
            reject!(
                self,
                EACCES,
                "combined stack size of {n} calls is {depth}. Too large\n"
            );
        }
        Ok(())
    }

    /// The next subprogram that the one at hand calls, or whose address it takes; none at its end.
    fn next_callee(&mut self, path: &mut CallPath) -> R<Option<usize>> {
        let idx = path.idx;
        while path.at < self.subprogs[idx + 1].start {
            let i = path.at;
            let insn = self.insns[i];
            let called = path.calls.last().is_some_and(|c| c.entered.callback);
            if self.is_throw(i) && (called || self.subprogs[idx].is_cb) {
                reject!(
                    self,
                    EINVAL,
                    "bpf_throw kfunc (insn {i}) cannot be called from callback subprog {idx}\n"
                );
            }
            let call = insn.code == BPF_JMP | BPF_CALL && insn.src() == BPF_PSEUDO_CALL;
            let takes = insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC;
            if call || takes {
                let to = i as i64 + i64::from(insn.imm) + 1;
                let Some(callee) = self.find_subprog(to) else {
                    return self.bug(format_args!("callee not found at insn {to}"));
                };
                let callback = &self.subprogs[callee];
                if call && callback.is_async_cb && callback.is_exception_cb {
                    reject!(self, EINVAL, "insn {i} cannot call exception cb directly");
                }
                if call || !callback.is_async_cb {
                    return Ok(Some(callee));
                }
            }
            path.at += 1;
        }
        Ok(None)
    }

    /// What `do_misc_fixups` and its like still refuse.
    pub(crate) fn check_after_walk(&mut self) -> R {
        for i in 0..self.insns.len() {
            let insn = self.insns[i];
            if !self.aux[i].seen {
                continue;
            }
            if insn.code == BPF_JMP | BPF_CALL
                && insn.src() == BPF_PSEUDO_KFUNC_CALL
                && insn.imm == 0
            {
                reject!(
                    self,
                    EINVAL,
                    "invalid kernel function call not eliminated in verifier pass\n"
                );
            }
        }
        self.check_func_addresses()
    }

    /// A function whose address is taken, but that no way reaches, is gone before its address is
    /// filled in: the address then is that of what comes to lie there (`jit_subprogs`).
    fn check_func_addresses(&mut self) -> R {
        let subs = &self.subprogs[..self.subprog_cnt];
        let places: Vec<usize> = subs.iter().map(|s| self.without_dead(s.start)).collect();
        let kept = (1..subs.len()).filter(|s| self.aux[subs[*s].start].seen);
        let starts: Vec<usize> = kept.map(|s| places[s]).collect();
        // A function for exceptions comes behind all others, where there is none; what was the end is
        // then behind it.
        let throws = (0..self.insns.len()).any(|i| self.aux[i].seen && self.is_throw(i));
        let alone = starts.is_empty() && !(throws && self.exception_cb == 0);
        for i in 0..self.insns.len() {
            let insn = self.insns[i];
            let address = insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC;
            if alone || !address || !self.aux[i].seen {
                continue;
            }
            let to = i as i64 + 1 + i64::from(insn.imm);
            let Some(at) = self.find_subprog(to).map(|s| places[s]) else {
                return self.bug(format_args!("callee not found at insn {to}"));
            };
            if !starts.contains(&at) {
                self.rewritten = true;
                return self.bug(format_args!("No program to jit at insn {at} (subprog < 0)"));
            }
        }
        Ok(())
    }

    /// Where an instruction lies once those that no way reaches are removed, run by run.
    fn without_dead(&self, to: usize) -> usize {
        let (mut to, mut i, mut removed) = (to, 0, 0);
        while i < self.insns.len() {
            let dead = self.aux[i..].iter().take_while(|a| !a.seen).count();
            if dead > 0 && to >= i - removed + dead {
                to -= dead;
            }
            removed += dead;
            i += dead.max(1);
        }
        to
    }
}
