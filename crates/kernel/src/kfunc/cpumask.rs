//! `struct bpf_cpumask`: a mask in guest memory, as an object with references.
//!
//! A simulation has 64 CPUs at most, so that the first word of a mask is all that counts.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, ret};
use crate::object::ObjectKind;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_cpumask_create", false, create),
    row("bpf_cpumask_acquire", true, |st, _, a| {
        st.obj_acquire(a.r[0]).map_or_else(|| a.bad(1), value)
    }),
    row("bpf_cpumask_release", true, |st, mem, a| {
        let gone = st.obj_drop(mem, a.r[0]);
        gone.map_or_else(|| a.bad(1), |()| value(0))
    }),
    row("bpf_cpumask_first", true, |st, mem, a| {
        let m = mask(st, mem, a, 1)?;
        value(first(st, m))
    }),
    row("bpf_cpumask_first_zero", true, |st, mem, a| {
        let m = mask(st, mem, a, 1)?;
        value(first(st, !m & all(st)))
    }),
    row("bpf_cpumask_first_and", true, |st, mem, a| {
        let m = mask(st, mem, a, 1)? & mask(st, mem, a, 2)?;
        value(first(st, m))
    }),
    row("bpf_cpumask_set_cpu", true, |st, mem, a| {
        change(st, mem, a, |m, bit| m | bit)
    }),
    row("bpf_cpumask_clear_cpu", true, |st, mem, a| {
        change(st, mem, a, |m, bit| m & !bit)
    }),
    row("bpf_cpumask_test_cpu", true, |st, mem, a| {
        value((mask(st, mem, a, 2)? & bit(st, a) != 0) as u64)
    }),
    row("bpf_cpumask_test_and_set_cpu", true, |st, mem, a| {
        change(st, mem, a, |m, bit| m | bit)
    }),
    row("bpf_cpumask_test_and_clear_cpu", true, |st, mem, a| {
        change(st, mem, a, |m, bit| m & !bit)
    }),
    row("bpf_cpumask_setall", true, |st, mem, a| {
        set(mem, a, all(st))?;
        value(0)
    }),
    row("bpf_cpumask_clear", true, |_, mem, a| {
        set(mem, a, 0)?;
        value(0)
    }),
    row("bpf_cpumask_and", true, |st, mem, a| {
        let m = mask(st, mem, a, 2)? & mask(st, mem, a, 3)?;
        set(mem, a, m)?;
        value((m != 0) as u64)
    }),
    row("bpf_cpumask_or", true, |st, mem, a| {
        let m = mask(st, mem, a, 2)? | mask(st, mem, a, 3)?;
        set(mem, a, m)?;
        value(0)
    }),
    row("bpf_cpumask_xor", true, |st, mem, a| {
        let m = mask(st, mem, a, 2)? ^ mask(st, mem, a, 3)?;
        set(mem, a, m)?;
        value(0)
    }),
    row("bpf_cpumask_equal", true, |st, mem, a| {
        value((mask(st, mem, a, 1)? == mask(st, mem, a, 2)?) as u64)
    }),
    row("bpf_cpumask_intersects", true, |st, mem, a| {
        value((mask(st, mem, a, 1)? & mask(st, mem, a, 2)? != 0) as u64)
    }),
    row("bpf_cpumask_subset", true, |st, mem, a| {
        value((mask(st, mem, a, 1)? & !mask(st, mem, a, 2)? == 0) as u64)
    }),
    row("bpf_cpumask_empty", true, |st, mem, a| {
        value((mask(st, mem, a, 1)? == 0) as u64)
    }),
    row("bpf_cpumask_full", true, |st, mem, a| {
        value((mask(st, mem, a, 1)? == all(st)) as u64)
    }),
    row("bpf_cpumask_copy", true, |st, mem, a| {
        let m = mask(st, mem, a, 2)?;
        set(mem, a, m)?;
        value(0)
    }),
    row("bpf_cpumask_any_distribute", true, |st, mem, a| {
        let m = mask(st, mem, a, 1)?;
        value(distribute(st, m))
    }),
    row("bpf_cpumask_any_and_distribute", true, |st, mem, a| {
        let m = mask(st, mem, a, 1)? & mask(st, mem, a, 2)?;
        value(distribute(st, m))
    }),
    row("bpf_cpumask_weight", true, |st, mem, a| {
        value(mask(st, mem, a, 1)?.count_ones() as u64)
    }),
    row("bpf_cpumask_populate", true, |_, mem, a| {
        if a.r[2] < 8 {
            return value(ret(Err(Errno::EACCES)) as u32 as u64);
        }
        let Some(word) = mem.read_u64(a.r[1]) else {
            return a.bad(2);
        };
        set(mem, a, word)?;
        value(0)
    }),
];

fn value(value: u64) -> Arg<Flow> {
    Ok(Flow::Done(value))
}

/// CPUs that there are (`nr_cpu_ids`), as a mask.
fn all(st: &State) -> u64 {
    u64::MAX >> (64 - st.cpus.len().clamp(1, 64))
}

/// The mask that argument `n` points to, of CPUs that there are.
fn mask(st: &State, mem: &GuestMem, a: &Args, n: u8) -> Arg<u64> {
    let word = mem.read_u64(a.r[n as usize - 1]);
    word.map_or_else(|| a.bad(n), |w| Ok(w & all(st)))
}

/// Writes the mask that the first argument points to.
fn set(mem: &mut GuestMem, a: &Args, mask: u64) -> Arg<()> {
    mem.write_u64(a.r[0], mask).map_or_else(|| a.bad(1), Ok)
}

/// The first CPU of a mask, or `nr_cpu_ids`.
fn first(st: &State, mask: u64) -> u64 {
    (mask.trailing_zeros() as u64).min(st.cpus.len() as u64)
}

/// The CPU that the first argument names, as a mask; 0 for one that there is not.
fn bit(st: &State, a: &Args) -> u64 {
    let cpu = a.r[0] as u32;
    if (cpu as usize) < st.cpus.len() {
        1 << cpu
    } else {
        0
    }
}

/// Changes the bit of a CPU in the mask that argument 2 points to; tells whether it was set.
fn change(st: &mut State, mem: &mut GuestMem, a: &Args, to: fn(u64, u64) -> u64) -> Arg<Flow> {
    let bit = bit(st, a);
    let Some(old) = mem.read_u64(a.r[1]) else {
        return a.bad(2);
    };
    mem.write_u64(a.r[1], to(old, bit));
    value((old & bit != 0) as u64)
}

/// `cpumask_any_distribute`: the CPU after the one given last on this CPU, around the end.
fn distribute(st: &mut State, mask: u64) -> u64 {
    let cpus = st.cpus.len() as u64;
    let last = st.cpu().distributed;
    let above = u64::MAX.checked_shl(last + 1).unwrap_or(0);
    let next = match mask & above {
        0 => first(st, mask),
        after => first(st, after),
    };
    if next < cpus {
        st.cpu().distributed = next as u32;
    }
    next
}

/// `bpf_cpumask_create`: an empty one.
fn create(st: &mut State, mem: &mut GuestMem, _: &Args) -> Arg<Flow> {
    let size = st.objects.cpumask_size;
    let kind = ObjectKind::Cpumask;
    let made = st.objects.alloc(mem, st.cur.cpu, kind, size, 1);
    if let Some(bytes) = made.and_then(|at| mem.slice_mut(at, size as u64)) {
        bytes.fill(0);
    }
    value(made.unwrap_or(0))
}
