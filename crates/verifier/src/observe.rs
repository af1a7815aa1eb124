//! What the walk knew, kept for holding runs of the program against it: concrete inside abstract.
//!
//! [`verify_observed`] keeps each state that pruning could use, with the marks that it had in the end:
//! what is live and what had to be exact. Whatever way a run takes, at each instruction of which states
//! are kept one of them [contains](Observed::check) it, or the verifier or the engine is wrong.

use std::fmt;

use hashbrown::HashMap;

use crate::reg::{ADD_CONST, ADD_CONST32, Reg, ty};
use crate::state::{Frame, Slot, State, kind};
use crate::verifier::Verifier;
use crate::{Env, Options, Outcome, ProgramToVerify};

/// States by instruction, and where functions begin.
#[derive(Default)]
pub struct Observed {
    states: HashMap<usize, Vec<State>>,
    /// First instruction of each function, and whether it is verified by itself.
    funcs: Vec<(usize, bool)>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observed({} states)", self.len())
    }
}

/// A running program, where it stands before an instruction.
#[derive(Clone, Debug)]
pub struct Concrete {
    /// The instruction.
    pub insn: usize,
    /// Its frames, the outermost first.
    pub frames: Vec<ConcreteFrame>,
}

/// A frame of a running program.
#[derive(Clone, Debug)]
pub struct ConcreteFrame {
    /// The call that it waits for; `insn` for the innermost.
    pub at: usize,
    /// R0 to R10. Of frames that wait, R6 to R10 alone count.
    pub regs: [u64; 11],
}

/// What pointers are held against.
pub trait Places {
    /// Eight bytes of memory.
    fn read(&self, addr: u64) -> Option<u64>;
    /// What programs know a map by, by its index in [`Env::maps`].
    fn map(&self, map: usize) -> Option<u64>;
    /// Start of the value of a map that an address lies in.
    fn value_around(&self, map: usize, addr: u64) -> Option<u64>;
    /// Start and end of the packet.
    fn packet(&self) -> Option<(u64, u64)>;
    /// The context.
    fn ctx(&self) -> Option<u64>;
}

/// A run that no state contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The instruction that it stands before.
    pub insn: usize,
    /// Why each of its states does not contain the run.
    pub why: Vec<String>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "insn {}: no state of the verifier contains the run",
            self.insn
        )?;
        self.why.iter().try_for_each(|why| write!(f, "\n  {why}"))
    }
}

/// Which states are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One at each place where ways meet, as with `BPF_F_TEST_STATE_FREQ`.
    Joins,
    /// One at each instruction.
    All,
}

/// [`verify`](crate::verify), and what the walk knew. It walks as with `BPF_F_TEST_STATE_FREQ`.
pub fn verify_observed(
    prog: &ProgramToVerify<'_>,
    env: &Env<'_>,
    options: &Options,
    keep: Keep,
) -> (Outcome, Observed) {
    let options = Options {
        test_state_freq: true,
        ..*options
    };
    let mut verifier = Verifier::new(prog, env, &options);
    verifier.observer = Some(Box::new(Observer {
        everywhere: keep == Keep::All,
        observed: Observed::default(),
    }));
    let (outcome, observer) = verifier.run_observed();
    (outcome, observer.map(|o| o.observed).unwrap_or_default())
}

/// What a walk that is observed carries along.
pub(crate) struct Observer {
    pub everywhere: bool,
    observed: Observed,
}

impl Verifier<'_> {
    /// Every instruction becomes one at which states are kept, if that was asked for.
    pub(crate) fn observe_everywhere(&mut self) {
        if self.observer.as_ref().is_some_and(|o| o.everywhere) {
            self.aux.iter_mut().for_each(|aux| aux.prune_point = true);
        }
    }

    /// A state that nothing will change any more.
    pub(crate) fn observe(&mut self, mut state: State) {
        let Some(mut observer) = self.observer.take() else {
            return;
        };
        if !state.frames.is_empty() {
            self.clean_state(&mut state);
            let at = state.insn_idx as usize;
            observer.observed.states.entry(at).or_default().push(state);
        }
        self.observer = Some(observer);
    }

    /// What is left of a walk.
    pub(crate) fn observe_rest(&mut self) {
        if self.observer.is_none() {
            return;
        }
        for state in self.explored.take_all() {
            self.observe(state);
        }
        let funcs = self.subprogs[..self.subprog_cnt].iter().enumerate();
        let funcs = funcs.map(|(i, s)| (s.start, i != 0 && s.global)).collect();
        if let Some(observer) = &mut self.observer {
            observer.observed.funcs = funcs;
        }
    }
}

impl Observed {
    /// Number of states.
    pub fn len(&self) -> usize {
        self.states.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Whether states of an instruction were kept.
    pub fn knows(&self, insn: usize) -> bool {
        self.states.contains_key(&insn)
    }

    /// Holds a run against the states of its instruction.
    ///
    /// # Errors
    /// None contains it.
    pub fn check(&self, run: &Concrete, places: &dyn Places) -> Result<(), Miss> {
        let frames = self.own_frames(&run.frames);
        let mut why = Vec::new();
        for state in self.states.get(&run.insn).map_or(&[][..], Vec::as_slice) {
            if !same_calls(state, frames) {
                continue;
            }
            match contains(state, frames, places) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(reason),
            }
        }
        Err(Miss {
            insn: run.insn,
            why,
        })
    }

    /// The frames from the innermost function that is verified by itself on.
    fn own_frames<'a>(&self, frames: &'a [ConcreteFrame]) -> &'a [ConcreteFrame] {
        let alone = |frame: &ConcreteFrame| {
            let after = self.funcs.partition_point(|(start, _)| *start <= frame.at);
            after.checked_sub(1).is_some_and(|i| self.funcs[i].1)
        };
        &frames[frames.iter().rposition(alone).unwrap_or(0)..]
    }
}

fn same_calls(state: &State, frames: &[ConcreteFrame]) -> bool {
    state.frames.len() == frames.len()
        && (1..frames.len()).all(|i| state.frames[i].callsite == frames[i - 1].at as i32)
}

/// What registers of one id have in common.
#[derive(Default)]
struct Linked(Vec<(u32, u64)>);

impl Linked {
    /// Whether what is known of an id is still one thing.
    fn same(&mut self, id: u32, value: u64) -> bool {
        let known = self.0.iter().find(|(known, _)| *known == id);
        match known {
            Some((_, before)) => *before == value,
            None => {
                self.0.push((id, value));
                true
            }
        }
    }
}

fn contains(state: &State, frames: &[ConcreteFrame], places: &dyn Places) -> Result<(), String> {
    let mut linked = Linked::default();
    for (f, (old, now)) in state.frames.iter().zip(frames).enumerate() {
        let waits = f + 1 < frames.len();
        for r in (0..11).filter(|r| !waits || *r > 5) {
            reg_contains(&old.regs[r], now.regs[r], frames, places, &mut linked)
                .map_err(|why| format!("frame {f} R{r}={:#x}: {why}", now.regs[r]))?;
        }
        stack_contains(old, now.regs[10], frames, places, &mut linked)
            .map_err(|why| format!("frame {f} {why}"))?;
    }
    Ok(())
}

fn stack_contains(
    old: &Frame,
    fp: u64,
    frames: &[ConcreteFrame],
    places: &dyn Places,
    linked: &mut Linked,
) -> Result<(), String> {
    for (i, slot) in old.stack.iter().enumerate() {
        let off = 8 * (i as u64 + 1);
        let read = || places.read(fp.wrapping_sub(off));
        slot_contains(slot, read, frames, places, linked)
            .map_err(|why| format!("fp-{off}: {why}"))?;
    }
    Ok(())
}

fn slot_contains(
    slot: &Slot,
    read: impl Fn() -> Option<u64>,
    frames: &[ConcreteFrame],
    places: &dyn Places,
    linked: &mut Linked,
) -> Result<(), String> {
    let tells = |k: &u8| matches!(*k, kind::SPILL | kind::ZERO);
    if !slot.kinds.iter().any(tells) {
        return Ok(());
    }
    let word = read().ok_or("no stack there")?;
    // Kinds are counted from the slot's last byte.
    for (byte, k) in word.to_be_bytes().iter().zip(slot.kinds) {
        if k == kind::ZERO && *byte != 0 {
            return Err(format!("{word:#x} where there are zeros"));
        }
    }
    if slot.is_spill() {
        let spilled = slot.kinds.iter().filter(|k| **k == kind::SPILL).count() as u32;
        let all = u64::MAX >> (64 - 8 * spilled.clamp(1, 8));
        if slot.reg.is_scalar() && slot.reg.umax > all {
            return low_part(&slot.reg, word & all, all);
        }
        return reg_contains(&slot.reg, word & all, frames, places, linked);
    }
    Ok(())
}

/// Of a number that was spilled into less than it is wide, the lower part alone is there.
fn low_part(reg: &Reg, value: u64, all: u64) -> Result<(), String> {
    let bits = (value ^ reg.var_off.value) & !reg.var_off.mask & all == 0;
    let half = all != u64::from(u32::MAX) || (reg.u32min..=reg.u32max).contains(&(value as u32));
    match !reg.precise || bits && half {
        true => Ok(()),
        false => Err(format!(
            "{value:#x} is not the lower part of {:?}",
            reg.var_off
        )),
    }
}

/// Whether a number lies where a register's offset or value is known to.
fn in_range(reg: &Reg, value: u64) -> Result<(), String> {
    let (low, ok) = (
        value as u32,
        reg.var_off.contains(crate::Tnum::constant(value)),
    );
    let within = (reg.umin..=reg.umax).contains(&value)
        && (reg.smin..=reg.smax).contains(&(value as i64))
        && (reg.u32min..=reg.u32max).contains(&low)
        && (reg.s32min..=reg.s32max).contains(&(low as i32));
    match ok && within {
        true => Ok(()),
        false => Err(format!(
            "{value:#x} not in u64=[{:#x}, {:#x}] s64=[{:#x}, {:#x}] u32=[{:#x}, {:#x}] s32=[{:#x}, {:#x}] var_off=({:#x}; {:#x})",
            reg.umin,
            reg.umax,
            reg.smin,
            reg.smax,
            reg.u32min,
            reg.u32max,
            reg.s32min,
            reg.s32max,
            reg.var_off.value,
            reg.var_off.mask
        )),
    }
}

fn reg_contains(
    reg: &Reg,
    value: u64,
    frames: &[ConcreteFrame],
    places: &dyn Places,
    linked: &mut Linked,
) -> Result<(), String> {
    if reg.ty == ty::NOT_INIT || reg.is_scalar() && !reg.precise {
        return Ok(());
    }
    if reg.is_scalar() {
        in_range(reg, value)?;
        let base = value.wrapping_sub(if reg.id & ADD_CONST == 0 {
            0
        } else {
            reg.off as i64 as u64
        });
        let one =
            reg.id == 0 || reg.id & ADD_CONST32 != 0 || linked.same(reg.id & !ADD_CONST, base);
        return match one {
            true => Ok(()),
            false => Err(format!("differs from others of id {}", reg.id & !ADD_CONST)),
        };
    }
    let t = crate::log::type_str(reg.ty);
    if value == 0 {
        return match ty::maybe_null(reg.ty) || may_be_zero(reg.ty) {
            true => Ok(()),
            false => Err(format!("NULL for {t}")),
        };
    }
    let start = match reg.base() {
        ty::STACK => frames.get(usize::from(reg.frameno)).map(|f| f.regs[10]),
        ty::CTX => places.ctx(),
        ty::MAP_PTR => reg.map().and_then(|map| places.map(map)),
        ty::MAP_VALUE if reg.map().is_some() => {
            // An address at the very end belongs to the value before it.
            let least = value
                .wrapping_sub(reg.off as i64 as u64)
                .wrapping_sub(reg.smin as u64);
            let map = reg.map().unwrap_or(0);
            let around = |addr| places.value_around(map, addr);
            let known = around(least).or_else(|| around(value));
            Some(known.ok_or_else(|| format!("{t}: no value of the map there"))?)
        }
        ty::PACKET => places.packet().map(|(data, _)| data),
        ty::PACKET_END => places.packet().map(|(_, end)| end),
        _ => return Ok(()),
    };
    let Some(start) = start else {
        return Err(format!("{t}: there is nothing of the kind"));
    };
    let moved = value
        .wrapping_sub(start)
        .wrapping_sub(reg.off as i64 as u64);
    in_range(reg, moved).map_err(|why| format!("{t}: {why}"))?;
    if reg.base() == ty::PACKET {
        let end = places.packet().map_or(0, |(_, end)| end);
        let range = reg.range();
        let reach = value
            .wrapping_sub(reg.off as i64 as u64)
            .wrapping_add(range.max(0) as u64);
        if range > 0 && reach > end {
            return Err(format!("{t}: {range} bytes are not there"));
        }
        if reg.id != 0 && !linked.same(reg.id, moved) {
            return Err(format!("{t}: differs from others of id {}", reg.id));
        }
    }
    Ok(())
}

/// Pointers that programs do not check before they read through them.
fn may_be_zero(t: u32) -> bool {
    t & ty::UNTRUSTED != 0 || matches!(ty::base(t), ty::BTF_ID | ty::ARENA) && t & ty::TRUSTED == 0
}
