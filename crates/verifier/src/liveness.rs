//! Which stack slots may still be read, by call chain (`kernel/bpf/liveness.c`).

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::log::verbose;
use crate::planted;
use crate::state::{MAX_FRAMES, State};
use crate::verifier::Verifier;

type Chain = SmallVec<[u32; 8]>;

/// `fmt_callchain`
fn fmt_chain(chain: &Chain) -> String {
    let sites: Vec<String> = chain.iter().map(u32::to_string).collect();
    format!("({})", sites.join(","))
}

/// `bpf_fmt_stack_mask`: slots as offsets from the frame's pointer.
fn fmt_slots(mask: u64) -> String {
    let slots = (0..64).filter(|i| mask & 1 << i != 0);
    let slots: Vec<String> = slots.map(|i| (-8 * (i + 1)).to_string()).collect();
    slots.join(",")
}

/// Slots of one frame, at one instruction (`struct per_frame_masks`).
#[derive(Clone, Copy, Default)]
struct Masks {
    may_read: u64,
    must_write: u64,
    must_write_acc: u64,
    live_before: u64,
}

/// A function, called along one chain of calls (`struct func_instance`).
struct Instance {
    /// Call sites of the frames around it, then where it starts.
    chain: Chain,
    /// Where the functions around it start, and it.
    starts: Chain,
    len: usize,
    updated: bool,
    must_write_dropped: bool,
    frames: [Vec<Masks>; MAX_FRAMES],
    must_write_set: Vec<bool>,
}

impl Instance {
    fn depth(&self) -> usize {
        self.chain.len() - 1
    }
    fn start(&self) -> usize {
        self.starts[self.depth()] as usize
    }
    fn get(&self, frame: usize, insn: usize) -> Masks {
        let at = insn.wrapping_sub(self.start());
        self.frames[frame].get(at).copied().unwrap_or_default()
    }
    fn at(&mut self, frame: usize, insn: usize) -> &mut Masks {
        let at = insn.wrapping_sub(self.start()).min(self.len - 1);
        if self.frames[frame].is_empty() {
            self.frames[frame].resize(self.len, Masks::default());
        }
        &mut self.frames[frame][at]
    }
    fn mark_read(&mut self, frame: usize, insn: usize, mask: u64) {
        let masks = self.at(frame, insn);
        let new = masks.may_read | mask;
        let updated = new != masks.may_read && new | masks.live_before != masks.live_before;
        masks.may_read = new;
        self.updated |= updated;
    }
    /// `commit_stack_write_marks`
    fn commit(&mut self, insn: usize, writes: &[u64; MAX_FRAMES]) {
        let at = insn.wrapping_sub(self.start()).min(self.len - 1);
        let set = self.must_write_set[at];
        for (frame, mask) in writes.iter().enumerate().take(self.chain.len()) {
            let mut mask = *mask;
            if mask == 0 && !set {
                continue;
            }
            let masks = self.at(frame, insn);
            // Linux keeps this in 32 bits.
            let old = u64::from(masks.must_write as u32);
            if set {
                mask &= old;
            }
            if old != mask {
                masks.must_write = mask;
                self.updated = true;
            }
            self.must_write_dropped |= old & !mask != 0;
        }
        self.must_write_set[at] = true;
    }
}

/// `struct bpf_liveness`
#[derive(Default)]
pub(crate) struct Liveness {
    instances: Vec<Instance>,
    by_chain: HashMap<Chain, usize>,
    current: Option<usize>,
    writes: [u64; MAX_FRAMES],
    dirty: bool,
    query: SmallVec<[usize; 8]>,
    query_insn: usize,
}

impl Verifier<'_> {
    fn chain_of(&self, state: &State, frame: usize) -> (Chain, Chain) {
        let mut chain = Chain::new();
        let mut starts = Chain::new();
        for i in 0..=frame {
            let start = self.subprogs[state.frames[i].subprog as usize].start as u32;
            starts.push(start);
            chain.push(match i < frame {
                true => state.frames[i + 1].callsite as u32,
                false => start,
            });
        }
        (chain, starts)
    }

    fn instance(&mut self, chain: Chain, starts: Chain) -> usize {
        if let Some(found) = self.live.by_chain.get(&chain) {
            return *found;
        }
        let start = starts.last().copied().unwrap_or(0) as usize;
        let sub = self.containing_subprog(start);
        let len = (self.subprogs[sub + 1].start - start).max(1);
        let id = self.live.instances.len();
        self.live.by_chain.insert(chain.clone(), id);
        self.live.instances.push(Instance {
            chain,
            starts,
            len,
            updated: false,
            must_write_dropped: false,
            frames: Default::default(),
            must_write_set: vec![false; len],
        });
        id
    }

    fn current_instance(&mut self) -> usize {
        if let Some(id) = self.live.current {
            return id;
        }
        let (chain, starts) = self.chain_of(&self.cur, self.cur.curframe());
        let id = self.instance(chain, starts);
        self.live.current = Some(id);
        id
    }

    /// The current state has another chain of calls from here.
    pub(crate) fn live_reset_chain(&mut self) {
        self.live.current = None;
    }

    /// `bpf_mark_stack_read`
    pub(crate) fn live_read(&mut self, frame: usize, insn: usize, mask: u64) {
        let id = self.current_instance();
        if planted::is(19) && frame != self.cur.curframe() {
            return;
        }
        self.live.instances[id].mark_read(frame, insn, mask);
    }

    /// `bpf_mark_stack_write`
    pub(crate) fn live_write(&mut self, frame: usize, mask: u64) {
        self.live.writes[frame] |= mask;
        self.live.dirty = true;
    }

    /// `bpf_reset_stack_write_marks`
    pub(crate) fn live_begin(&mut self) {
        self.current_instance();
        if self.live.dirty {
            self.live.writes = [0; MAX_FRAMES];
            self.live.dirty = false;
        }
    }

    /// `bpf_commit_stack_write_marks`
    pub(crate) fn live_commit(&mut self, insn: usize) {
        if let Some(id) = self.live.current {
            let writes = self.live.writes;
            self.live.instances[id].commit(insn, &writes);
        }
    }

    /// `update_insn`
    fn live_update_insn(&mut self, id: usize, frame: usize, insn: usize) -> bool {
        let succ = self.successors(insn);
        if succ.is_empty() {
            return false;
        }
        let instance = &mut self.live.instances[id];
        let mut after = 0;
        let mut acc = u64::MAX;
        for s in succ {
            let masks = instance.get(frame, s);
            after |= masks.live_before;
            acc &= masks.must_write_acc;
        }
        let start = instance.start();
        let masks = instance.at(frame, insn);
        acc |= masks.must_write;
        let before = after & !masks.must_write | masks.may_read;
        let old = std::mem::replace(
            masks,
            Masks {
                live_before: before,
                must_write_acc: acc,
                ..*masks
            },
        );
        let told = old.may_read | old.must_write != 0
            || insn == start
            || self.aux.get(insn).is_some_and(|a| a.prune_point);
        if told && self.log.level2() {
            self.log_masks(id, frame, insn, "live", old.live_before, before);
            self.log_masks(id, frame, insn, "written", old.must_write_acc, acc);
        }
        before != old.live_before || acc != old.must_write_acc
    }

    /// `log_mask_change`: slots that came and went.
    fn log_masks(&mut self, id: usize, frame: usize, insn: usize, what: &str, old: u64, new: u64) {
        if old == new {
            return;
        }
        let chain = fmt_chain(&self.live.instances[id].chain);
        verbose!(self, "{chain} frame {frame} insn {insn} ");
        if new & !old != 0 {
            verbose!(self, "+{what} {} ", fmt_slots(new & !old));
        }
        if old & !new != 0 {
            verbose!(self, "-{what} {}", fmt_slots(old & !new));
        }
        verbose!(self, "\n");
    }

    /// `update_instance`
    fn live_update(&mut self, id: usize) {
        let instance = &mut self.live.instances[id];
        if instance.must_write_dropped {
            for masks in instance.frames.iter_mut().flatten() {
                masks.must_write_acc = 0;
            }
        }
        let start = instance.start();
        let depth = instance.depth();
        let sub = self.containing_subprog(start);
        let range = self.subprogs[sub].postorder_start..self.subprogs[sub + 1].postorder_start;
        let mut rounds = 0;
        loop {
            let mut changed = false;
            rounds += 1;
            for frame in 0..=depth {
                if self.live.instances[id].frames[frame].is_empty() {
                    continue;
                }
                for i in range.clone() {
                    let insn = self.postorder[i] as usize;
                    changed |= self.live_update_insn(id, frame, insn);
                }
            }
            if !changed {
                break;
            }
        }
        if self.log.level2() {
            let chain = fmt_chain(&self.live.instances[id].chain);
            verbose!(
                self,
                "{chain} live stack update done in {rounds} iterations\n"
            );
        }
        if depth > 0 {
            self.live_to_caller(id);
        }
    }

    /// `propagate_to_outer_instance`
    fn live_to_caller(&mut self, id: usize) {
        let instance = &self.live.instances[id];
        let depth = instance.depth();
        let start = instance.start();
        let callsite = instance.chain[depth - 1] as usize;
        let starts: Chain = instance.starts[..depth].into();
        let mut chain: Chain = instance.chain[..depth].into();
        chain[depth - 1] = starts[depth - 1];
        let outer = self.instance(chain, starts);
        let mut writes = [0; MAX_FRAMES];
        for (frame, write) in writes.iter_mut().enumerate().take(depth) {
            if self.live.instances[id].frames[frame].is_empty() {
                continue;
            }
            let masks = self.live.instances[id].get(frame, start);
            *write = masks.must_write_acc;
            self.live.instances[outer].mark_read(frame, callsite, masks.live_before);
        }
        self.live.instances[outer].commit(callsite, &writes);
        self.live.writes = writes;
        self.live.dirty = true;
    }

    /// `bpf_update_live_stack`
    pub(crate) fn live_update_all(&mut self) {
        self.live.current = None;
        for frame in (0..self.cur.frames.len()).rev() {
            let (chain, starts) = self.chain_of(&self.cur, frame);
            let id = self.instance(chain, starts);
            if self.live.instances[id].updated {
                self.live_update(id);
                self.live.instances[id].updated = false;
                self.live.instances[id].must_write_dropped = false;
            }
        }
    }

    /// `bpf_live_stack_query_init`
    pub(crate) fn live_query(&mut self, state: &State) {
        self.live.query.clear();
        for frame in 0..state.frames.len() {
            let (chain, starts) = self.chain_of(state, frame);
            let id = self.instance(chain, starts);
            self.live.query.push(id);
        }
        self.live.query_insn = usize::try_from(state.insn_idx).unwrap_or(0);
    }

    /// `bpf_stack_slot_alive`, for every slot of a frame.
    pub(crate) fn live_slots(&self, frame: usize) -> u64 {
        let query = &self.live.query;
        let Some(last) = query.len().checked_sub(1) else {
            return 0;
        };
        let instances = &self.live.instances;
        let top = &instances[query[last]];
        let mut alive = top.get(frame, self.live.query_insn).live_before;
        for i in frame..last {
            let callsite = top.chain[i] as usize;
            let at = match self.aux.get(callsite).is_some_and(|a| a.calls_callback) {
                true => callsite,
                false => callsite + 1,
            };
            alive |= instances[query[i]].get(frame, at).live_before;
        }
        alive
    }
}
