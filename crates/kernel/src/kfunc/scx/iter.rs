//! Iterators over a dispatch queue, and tasks that are moved while one stands in it.

use super::{allowed, called, done, done32, scheduler};
use crate::choose::Wait;
use crate::helper::{Arg, Args};
use crate::ids::Cpu;
use crate::scx::consts::{dsq, kf};
use crate::scx::{Node, Q, before32};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// The words of a `struct bpf_iter_scx_dsq`.
struct Iter {
    at: u64,
    /// It goes over the queue of this number.
    dsq: u64,
    valid: bool,
    flags: u32,
    /// Tasks that came after this are not seen.
    seq: u32,
    slice: u64,
    vtime: u64,
}

/// `__SCX_DSQ_ITER_HAS_SLICE`, `__SCX_DSQ_ITER_HAS_VTIME`
const HAS_SLICE: u32 = 1 << 30;

const HAS_VTIME: u32 = 1 << 31;

impl Iter {
    fn read(mem: &GuestMem, a: &Args) -> Arg<Iter> {
        let at = a.r[0];
        let word = |i: u64| {
            let word = mem.read_u64(at.wrapping_add(8 * i));
            word.map_or_else(|| a.bad(1), Ok)
        };
        let state = word(2)?;
        Ok(Iter {
            at,
            dsq: word(0)?,
            valid: word(1)? != 0,
            flags: state as u32,
            seq: (state >> 32) as u32,
            slice: word(3)?,
            vtime: word(4)?,
        })
    }

    fn write(&self, mem: &mut GuestMem, a: &Args) -> Arg<()> {
        let state = u64::from(self.seq) << 32 | u64::from(self.flags);
        let words = [
            self.dsq,
            self.valid.into(),
            state,
            self.slice,
            self.vtime,
            0,
        ];
        for (i, word) in words.into_iter().enumerate() {
            let at = self.at.wrapping_add(8 * i as u64);
            mem.write_u64(at, word).map_or_else(|| a.bad(1), Ok)?;
        }
        Ok(())
    }
}

pub(super) fn set_slice(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let mut it = Iter::read(mem, a)?;
    (it.slice, it.flags) = (a.r[1], it.flags | HAS_SLICE);
    it.write(mem, a)?;
    done(0)
}

pub(super) fn set_vtime(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let mut it = Iter::read(mem, a)?;
    (it.vtime, it.flags) = (a.r[1], it.flags | HAS_VTIME);
    it.write(mem, a)?;
    done(0)
}

/// `scx_bpf_dsq_move(it, p, dsq_id, enq_flags)`, and `_vtime`.
pub(super) fn move_(st: &mut State, mem: &mut GuestMem, a: &Args, more: u64) -> Arg<Flow> {
    let task = a.task(st, 2)?;
    let (id, here) = (a.r[2], st.cur.cpu.0);
    let mut it = Iter::read(mem, a)?;
    let unlocked = called(st).is_none_or(|c| c.mask == kf::UNLOCKED);
    if scheduler(st).is_none() || !unlocked && !allowed(st, kf::DISPATCH) {
        return done(0);
    }
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    let cpu = s.tasks.get(&task).map_or(here, |e| e.cpu);
    if unlocked && s.rqs[cpu as usize].locked {
        st.cur.wait = Some(Wait::RunQueue(Cpu(cpu)));
        return Ok(Flow::Suspend);
    }
    let still = s
        .tasks
        .get(&task)
        .is_some_and(|e| it.valid && e.on == Some(Q::User(it.dsq)) && !before32(it.seq, e.seq));
    if still {
        let to = s.dsq_for(here, id, task);
        if it.flags & HAS_VTIME != 0 {
            s.set_vtime(mem, task, it.vtime);
        }
        if it.flags & HAS_SLICE != 0 {
            s.set_slice(mem, task, it.slice);
        }
        s.move_to(mem, task, to, a.r[3] | more);
    }
    it.flags &= !(HAS_SLICE | HAS_VTIME);
    it.write(mem, a)?;
    done(still.into())
}

/// `bpf_iter_scx_dsq_new(it, dsq_id, flags)`
pub(super) fn new(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (at, id, flags) = (a.r[0], a.r[1], a.r[2]);
    let mut it = Iter {
        at,
        dsq: id,
        valid: false,
        flags: flags as u32,
        seq: 0,
        slice: 0,
        vtime: 0,
    };
    let found = match scheduler(st) {
        None => Err(Errno::ENODEV),
        Some(_) if flags & !dsq::ITER_REV != 0 => Err(Errno::EINVAL),
        Some(s) => s.user_dsq(id).map(|q| s.dsq(q).seq).ok_or(Errno::ENOENT),
    };
    if let Ok(seq) = found {
        (it.valid, it.seq) = (true, seq);
    }
    it.write(mem, a)?;
    done32(found.map(|_| 0))
}

/// `bpf_iter_scx_dsq_next(it)`: the next task that was there when it began.
pub(super) fn next(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let it = Iter::read(mem, a)?;
    let Some(s) = scheduler(st).filter(|_| it.valid) else {
        return done(0);
    };
    let Some(q) = s.user_dsq(it.dsq) else {
        return done(0);
    };
    let reverse = u64::from(it.flags) & dsq::ITER_REV != 0;
    let mut nodes = std::mem::take(&mut s.dsq(q).nodes);
    let stands = nodes.iter().position(|n| *n == Node::Cursor(it.at));
    if let Some(i) = stands {
        nodes.remove(i);
    }
    let seen = |n: &Node| match n {
        Node::Task(t) => s.tasks.get(t).is_some_and(|e| !before32(it.seq, e.seq)),
        Node::Cursor(_) => false,
    };
    let found = match reverse {
        false => {
            let from = stands.unwrap_or(0);
            nodes[from..].iter().position(seen).map(|i| from + i)
        }
        true => nodes[..stands.unwrap_or(nodes.len())]
            .iter()
            .rposition(seen),
    };
    let mut addr = 0;
    if let Some(i) = found
        && let Node::Task(task) = nodes[i]
    {
        addr = s.tasks.get(&task).map_or(0, |e| e.addr);
        let at = if reverse { i } else { i + 1 };
        nodes.insert(at, Node::Cursor(it.at));
    }
    s.dsq(q).nodes = nodes;
    done(addr)
}

pub(super) fn destroy(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let it = Iter::read(mem, a)?;
    if let Some(s) = scheduler(st).filter(|_| it.valid)
        && let Some(q) = s.user_dsq(it.dsq)
    {
        s.dsq(q).nodes.retain(|n| *n != Node::Cursor(it.at));
    }
    mem.write_u64(it.at + 8, 0);
    done(0)
}
