//! The kernel, as the engine sees it.

use crate::chance::{self, Chance};
use crate::checked;
use crate::failure::FailureKind;
use crate::helper::{self, Args};
use crate::inject::{self, Override};
use crate::kfunc;
use crate::lock;
use crate::map::Arena;
use crate::reach;
use crate::state::State;
use crate::turn::{Turns, is_quiet};
use bpfsim_vm::{Activation, Call, Flow, GuestMem, Host, Other, Stop, Turn};

pub(crate) struct View<'a, 's> {
    pub st: &'a mut State,
    /// Calls that the test does itself.
    pub overrides: &'a [(Call, Override)],
    /// What the CPU's clock would have been at the activation's first instruction, had it run
    /// without a break: an instruction takes a nanosecond.
    pub base: u64,
    /// Something was called after which others may do what they could not do before.
    pub loud: bool,
    /// Where the next turn can be decided at once.
    pub turns: Option<Turns<'a, 's>>,
}

/// Half of `GUARD_SZ`: as far as the offset of a load or store goes.
const GUARD: u64 = 1 << 15;

impl View<'_, '_> {
    /// The program's arena, for an address that can lie in it.
    fn arena(&self, addr: u64) -> Option<&Arena> {
        // Linux keeps room around an arena for what an instruction's offset can reach.
        if addr.wrapping_add(GUARD) > u32::MAX as u64 + 2 * GUARD {
            return None;
        }
        let map = self.st.progs[self.st.cur.prog.at()].arena?;
        self.st.maps[map.at()].arena()
    }

    /// Whether bytes of an arena lie in a page that is not there; then that is noted.
    fn misses(&mut self, addr: u64, size: u32, write: bool, mem: &GuestMem) -> bool {
        let Some(gone) = self.arena(addr).and_then(|a| a.missing(addr, size as u64)) else {
            return false;
        };
        if mem.is_checked() {
            let kind = FailureKind::NoPage { addr, size, write };
            self.st.found(kind, mem.site(), gone);
        }
        true
    }

    /// Makes a call that concerns no `bpf_spin_lock`, or may come out in another way than usual.
    #[inline(never)]
    fn call_any(&mut self, call: Call, args: &[u64; 5], mem: &mut GuestMem, changed: bool) -> Flow {
        let chance = self.st.cur.chance != Chance::Usual;
        self.loud |= !is_quiet(call);
        let a = Args { call, r: *args };
        let watched = mem.is_checked() || self.st.watch.races_on;
        if watched && let Err(kind) = checked::before(self.st, mem, call, args) {
            return Flow::Fault(kind);
        }
        let instead = match changed {
            true => inject::instead(self.st, mem, self.overrides, call, args),
            false => None,
        };
        let flow = match (instead, call) {
            (Some(flow), _) => flow,
            (None, Call::Helper(id)) => helper::call(self.st, mem, id, &a),
            (None, Call::Kfunc(index)) => kfunc::call(self.st, mem, index, &a),
        };
        if chance && flow != Flow::Suspend {
            self.st.cur.chance = Chance::Usual;
        }
        if watched {
            checked::after(self.st, mem, call, args, &flow);
        }
        flow
    }
}

/// True when others can notice a call whatever its arguments are.
pub(crate) fn is_visible(call: Call) -> bool {
    match call {
        Call::Helper(id) => helper::is_visible(id),
        Call::Kfunc(index) => kfunc::is_visible(index),
    }
}

impl Host for View<'_, '_> {
    fn call(&mut self, call: Call, args: &[u64; 5], insns: u64, mem: &mut GuestMem) -> Flow {
        self.st.cpu().clock = self.base + insns;
        let chance = self.st.cur.chance != Chance::Usual;
        let changed = chance || !self.st.injected.is_empty() || !self.overrides.is_empty();
        if !changed && let Some(flow) = lock::call(self.st, mem, call, args[0]) {
            return flow;
        }
        self.call_any(call, args, mem, changed)
    }

    fn resume(&mut self, r0: u64, mem: &mut GuestMem) -> Flow {
        helper::resume(self.st, mem, r0)
    }

    fn is_visible(&self, call: Call, args: &[u64; 5]) -> bool {
        is_visible(call)
            || self.st.chances_on && chance::concerns(call)
            || reach::is_shared(self.st, call, args)
    }

    fn turn(&mut self, stop: &Stop, act: &Activation, mem: &GuestMem, other: &mut Other) -> Turn {
        self.take_turn(stop, act, mem, other)
    }

    fn load(&mut self, addr: u64, size: u32, mem: &GuestMem) -> Option<u64> {
        // A page that is not there reads as 0.
        if self.misses(addr, size, false, mem) {
            return Some(0);
        }
        if let Some(arena) = self.arena(addr) {
            // Across two pages.
            let byte = |i: u64| {
                let at = arena.translate(addr.wrapping_add(i), 1)?;
                Some((mem.slice(at, 1)?[0] as u64) << (8 * i))
            };
            return Some((0..size as u64).filter_map(byte).sum());
        }
        let found = self.st.cur.ctx.load(addr, size);
        found.or_else(|| self.st.world.load_sock(addr, size))
    }

    fn store(&mut self, addr: u64, size: u32, value: u64, mem: &mut GuestMem) -> Option<()> {
        if self.misses(addr, size, true, mem) {
            return Some(());
        }
        if let Some(arena) = self.arena(addr) {
            for i in 0..size as u64 {
                let at = arena.translate(addr.wrapping_add(i), 1);
                if let Some(to) = at.and_then(|at| mem.slice_mut(at, 1)) {
                    to[0] = (value >> (8 * i)) as u8;
                }
            }
            return Some(());
        }
        self.st.cur.ctx.store(addr, size, value)
    }

    fn translate(&mut self, addr: u64, size: u32, _: bool, _: &mut GuestMem) -> Option<u64> {
        self.arena(addr)?.translate(addr, size as u64)
    }

    fn load_atomic(&mut self, addr: u64, size: u32, mem: &GuestMem) -> Option<Option<u64>> {
        self.arena(addr)?;
        match self.misses(addr, size, true, mem) {
            true => Some(None),
            false => Some(self.load(addr, size, mem)),
        }
    }

    fn arena_user_start(&self) -> u64 {
        let map = self.st.progs[self.st.cur.prog.at()].arena;
        let arena = map.and_then(|m| self.st.maps[m.at()].arena());
        arena.map_or(0, |arena| arena.user_start)
    }

    fn load_packet(&mut self, offset: i32, size: u32, mem: &GuestMem) -> Option<u64> {
        self.st.cur.ctx.packet()?.load(mem, offset, size)
    }
}
