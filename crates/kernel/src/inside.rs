//! Runs of programs looked at before each instruction: held against what the verifier knew of them
//! (concrete inside abstract), or shown to whoever wants to see.

use crate::ids::{MapId, ProgId};
use crate::kernel::Kernel;
use crate::state::State;
use crate::view::View;
use bpfsim_verifier::{Concrete, ConcreteFrame, Miss, Observed, Places};
use bpfsim_vm::{Activation, GuestMem, Image, Mode, Stop};

/// Instructions that are held; a loop of millions of rounds shows nothing new.
const MOST: u64 = 20_000;

/// What is shown before each instruction of every run.
pub type Look = Box<dyn FnMut(&Image, &Activation, &GuestMem)>;

/// What is done before each instruction.
pub(crate) enum Inside {
    Held(Held),
    Shown(Look),
}

/// What runs of one program are held against.
pub(crate) struct Held {
    prog: ProgId,
    observed: Observed,
    /// The object's maps, by the numbers that the verifier knew them by.
    maps: Vec<Option<MapId>>,
    /// R1 at the program's entry.
    ctx: u64,
    held: u64,
    miss: Option<Miss>,
}

impl Kernel {
    /// From here on each run of the program is held against these states, before each instruction that
    /// they know. `maps` are those that loading the object gave.
    pub fn hold_against(&mut self, prog: ProgId, observed: Observed, maps: &[Option<MapId>]) {
        self.inside = Some(Box::new(Inside::Held(Held {
            prog,
            observed,
            maps: maps.to_vec(),
            ctx: 0,
            held: 0,
            miss: None,
        })));
    }

    /// From here on `look` is shown every run before each of its instructions.
    pub fn show_each(&mut self, look: Look) {
        self.inside = Some(Box::new(Inside::Shown(look)));
    }

    /// How many instructions were held against states, and the first run that no state contained.
    pub fn held_against(&self) -> (u64, Option<&Miss>) {
        match self.inside.as_deref() {
            Some(Inside::Held(held)) => (held.held, held.miss.as_ref()),
            _ => (0, None),
        }
    }
}

impl Inside {
    /// [`bpfsim_vm::run`], an instruction at a time.
    pub fn run(
        &mut self,
        image: &Image,
        act: &mut Activation,
        mem: &mut GuestMem,
        view: &mut View<'_, '_>,
        budget: u64,
        mode: Mode,
    ) -> Stop {
        if budget == 0 {
            return Stop::Budget;
        }
        let first = act.insns;
        loop {
            match self {
                Inside::Held(held) if held.held >= MOST || held.miss.is_some() => {
                    let left = budget - (act.insns - first);
                    return bpfsim_vm::run(image, act, mem, view, left, mode);
                }
                Inside::Held(held) => held.hold(act, mem, view.st),
                Inside::Shown(look) => look(image, act, mem),
            }
            match bpfsim_vm::run(image, act, mem, view, 1, mode) {
                Stop::Budget if act.insns - first < budget => {}
                stop => return stop,
            }
        }
    }
}

impl Held {
    fn hold(&mut self, act: &Activation, mem: &GuestMem, st: &State) {
        let insn = act.pc as usize;
        if act.insns == 0 && insn == 0 {
            self.ctx = act.regs[1];
        }
        if act.prog != self.prog.0 || !self.observed.knows(insn) {
            return;
        }
        let mut frames: Vec<ConcreteFrame> = act
            .callers()
            .map(|(ret, kept)| {
                let mut regs = [0; 11];
                regs[6..].copy_from_slice(&kept);
                let at = ret.wrapping_sub(1) as usize;
                ConcreteFrame { at, regs }
            })
            .collect();
        let mut regs = [0; 11];
        regs.copy_from_slice(&act.regs[..11]);
        frames.push(ConcreteFrame { at: insn, regs });
        let around = Around {
            held: self,
            mem,
            st,
        };
        let run = Concrete { insn, frames };
        let miss = self.observed.check(&run, &around).err();
        self.held += 1;
        self.miss = miss;
    }
}

struct Around<'a> {
    held: &'a Held,
    mem: &'a GuestMem,
    st: &'a State,
}

impl Around<'_> {
    fn find(&self, map: usize) -> Option<&crate::map::Map> {
        let id = (*self.held.maps.get(map)?)?;
        self.st.maps.get(id.at())
    }
}

impl Places for Around<'_> {
    fn read(&self, addr: u64) -> Option<u64> {
        self.mem.read_u64(addr)
    }

    fn map(&self, map: usize) -> Option<u64> {
        Some(self.find(map)?.addr)
    }

    fn value_around(&self, map: usize, addr: u64) -> Option<u64> {
        self.find(map)?.value_around(addr)
    }

    fn packet(&self) -> Option<(u64, u64)> {
        let packet = self.st.cur.ctx.packet()?;
        Some((packet.data, packet.end))
    }

    fn ctx(&self) -> Option<u64> {
        Some(self.held.ctx)
    }
}
