//! CPUs that have nothing to do, as the built-in tracking knows them, and which of them is chosen.
//! All CPUs share a cache and a node, and each is a core of its own.

use super::Scx;
use super::consts::{WAKE_SYNC, ops};
use crate::ids::TaskId;
use crate::state::CpuState;
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;

/// `cpumask_any_distribute`: the CPU after the one given last on a CPU, around the end.
fn distribute(last: &mut u32, mask: u64) -> Option<u32> {
    let above = u64::MAX.checked_shl(*last + 1).unwrap_or(0);
    let from = match mask & above {
        0 => mask,
        after => after,
    };
    let next = from.trailing_zeros();
    if next >= 64 {
        return None;
    }
    *last = next;
    Some(next)
}

impl Scx {
    /// The kernel itself keeps track of idle CPUs.
    pub fn tracks_idle(&self) -> bool {
        !self.ops.has("update_idle") || self.ops.flags & ops::KEEP_BUILTIN_IDLE != 0
    }

    /// `check_builtin_idle_enabled`
    pub fn check_tracks_idle(&mut self) -> bool {
        let tracks = self.tracks_idle();
        if !tracks {
            self.error("built-in idle tracking is disabled".to_string());
        }
        tracks
    }

    /// `update_builtin_idle`
    pub fn set_idle(&mut self, mem: &mut GuestMem, cpu: u32, idle: bool) {
        match idle {
            true => self.idle |= 1 << cpu,
            false => self.idle &= !(1 << cpu),
        }
        self.show_idle(mem);
    }

    /// `scx_idle_test_and_clear_cpu`
    pub fn claim(&mut self, mem: &mut GuestMem, cpu: u32) -> bool {
        let idle = self.idle & 1 << cpu != 0;
        self.set_idle(mem, cpu, false);
        idle
    }

    /// `scx_pick_idle_cpu`: one that is idle by now is not any more. Every CPU is a core.
    pub fn pick_idle(&mut self, mem: &mut GuestMem, last: &mut u32, allowed: u64) -> Option<u32> {
        let cpu = distribute(last, self.idle & allowed)?;
        self.claim(mem, cpu);
        Some(cpu)
    }

    /// `scx_select_cpu_dfl`
    #[allow(
        clippy::too_many_arguments,
        reason = "what Linux's takes, and whom it is for"
    )]
    pub fn select_dfl(
        &mut self,
        mem: &mut GuestMem,
        here: u32,
        state: &mut CpuState,
        task: TaskId,
        prev: u32,
        wake: u64,
        among: Option<u64>,
    ) -> Result<u32, Errno> {
        let own = self.tasks.get(&task).map_or(0, |e| e.allowed);
        let allowed = among.map_or(own, |m| m & own);
        if allowed == 0 {
            return Err(Errno::EBUSY);
        }
        let prev_allowed = allowed & 1 << prev != 0;
        if wake & WAKE_SYNC != 0 {
            if prev_allowed && self.claim(mem, prev) {
                return Ok(prev);
            }
            let empty = self.nr(super::Q::Local(here)) == 0;
            if empty && self.idle != 0 && allowed & 1 << here != 0 {
                return Ok(here);
            }
        }
        if prev_allowed && self.claim(mem, prev) {
            return Ok(prev);
        }
        let mut last = state.distributed;
        let found = self.pick_idle(mem, &mut last, allowed);
        if found.is_some() {
            state.distributed = last;
        }
        found.ok_or(Errno::EBUSY)
    }

    /// `scx_bpf_pick_any_cpu`
    pub fn pick_any(&mut self, mem: &mut GuestMem, last: &mut u32, allowed: u64) -> Option<u32> {
        let idle = match self.tracks_idle() {
            true => self.pick_idle(mem, last, allowed),
            false => None,
        };
        idle.or_else(|| distribute(last, allowed & self.all()))
    }
}
