//! When to stop: states that were explored, loops, and what runs back into them
//! (`is_state_visited`).

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::equal::{Exact, IdMap, iter_depths_differ, maybe_looping, states_equal};
use crate::log::verbose;
use crate::precision::forget_precision;
use crate::refusal::reject;
use crate::reg::ITER_ACTIVE;
use crate::state::{State, StateId, kind};
use crate::verifier::{R, Verifier};

/// `MAX_BACKEDGE_ITERS`
const MAX_BACKEDGE_ROUNDS: u32 = 64;

/// A state that was explored (`struct bpf_verifier_state_list`).
#[derive(Default)]
pub(crate) struct Node {
    pub state: State,
    hits: u32,
    misses: u32,
    evicted: bool,
}

/// States that were explored, by instruction and call site.
#[derive(Default)]
pub(crate) struct Explored {
    pub arena: Vec<Node>,
    vacant: Vec<StateId>,
    buckets: Vec<Vec<StateId>>,
    listed: u32,
    evicted: u32,
    ids: IdMap,
}

impl Explored {
    pub fn new(len: usize) -> Explored {
        let mut explored = Explored::default();
        explored.buckets.resize_with(len.max(1), Vec::new);
        explored
    }
    /// All states that are left, listed or not.
    pub fn take_all(&mut self) -> Vec<State> {
        let nodes = std::mem::take(&mut self.arena);
        nodes.into_iter().map(|node| node.state).collect()
    }
    pub fn get_mut(&mut self, id: StateId) -> &mut State {
        &mut self.arena[id as usize].state
    }
    /// Forgets the states of one function that is verified by itself. Linux goes on counting from
    /// where it was.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.vacant.clear();
        self.buckets.iter_mut().for_each(Vec::clear);
    }
    fn insert(&mut self, state: State) -> StateId {
        let node = Node {
            state,
            ..Node::default()
        };
        match self.vacant.pop() {
            Some(id) => {
                self.arena[id as usize] = node;
                id
            }
            None => {
                self.arena.push(node);
                self.arena.len() as StateId - 1
            }
        }
    }
}

/// Call sites that lead to a loop, and its number (`struct bpf_scc_callchain`).
type Chain = (SmallVec<[i32; 8]>, u32);

/// A state that ran back into one that is still being explored.
struct Backedge {
    state: State,
    equal: StateId,
}

/// One visit of a loop (`struct bpf_scc_visit`).
#[derive(Default)]
struct Visit {
    entry: Option<StateId>,
    backedges: Vec<Backedge>,
}

#[derive(Default)]
pub(crate) struct Scc {
    visits: HashMap<Chain, Visit>,
    backedges: u32,
}

impl Scc {
    pub fn clear(&mut self) {
        self.visits.clear();
        self.backedges = 0;
    }
}

fn fmt_chain(chain: &Chain) -> String {
    let sites = chain.0.iter().take_while(|s| **s != 0);
    let sites: String = sites.map(|s| format!("{s},")).collect();
    format!("({sites}{})", chain.1)
}

impl Verifier<'_> {
    /// `compute_scc_callchain`
    fn scc_chain(&self, st: &State) -> Option<Chain> {
        let mut sites = SmallVec::new();
        for i in 0..st.frames.len() {
            let insn = st.frame_insn(i);
            let at = usize::try_from(insn).ok()?;
            match self.aux.get(at)?.scc {
                0 => sites.push(insn),
                scc => return Some((sites, scc)),
            }
        }
        None
    }

    fn incomplete(&self, st: &State) -> bool {
        self.scc.backedges_open()
            && self
                .scc_chain(st)
                .and_then(|c| self.scc.visits.get(&c))
                .is_some_and(|v| !v.backedges.is_empty())
    }

    fn update_peak(&mut self) {
        let now = self.explored.listed + self.explored.evicted + self.scc.backedges;
        self.stats.peak_states = self.stats.peak_states.max(now);
    }

    /// `maybe_enter_scc`
    fn enter_scc(&mut self, id: StateId) {
        let Some(chain) = self.scc_chain(&self.explored.arena[id as usize].state) else {
            return;
        };
        if self.log.level2()
            && self
                .scc
                .visits
                .get(&chain)
                .is_none_or(|v| v.entry.is_none())
        {
            verbose!(self, "SCC enter {}\n", fmt_chain(&chain));
        }
        let visit = self.scc.visits.entry(chain).or_default();
        visit.entry = visit.entry.or(Some(id));
    }

    /// `maybe_exit_scc`
    fn exit_scc(&mut self, id: Option<StateId>) -> R {
        let st = match id {
            None => &self.cur,
            Some(id) => &self.explored.arena[id as usize].state,
        };
        let Some(chain) = self.scc_chain(st) else {
            return Ok(());
        };
        let Some(visit) = self.scc.visits.get_mut(&chain) else {
            return self.bug(format_args!(
                "scc exit: no visit info for call chain {}",
                fmt_chain(&chain)
            ));
        };
        if id.is_none() || visit.entry != id {
            return Ok(());
        }
        visit.entry = None;
        let mut backedges = std::mem::take(&mut visit.backedges);
        if self.log.level2() {
            verbose!(self, "SCC exit {}\n", fmt_chain(&chain));
        }
        self.scc.backedges -= backedges.len() as u32;
        self.update_peak();
        self.propagate_backedges(&mut backedges)
    }

    /// `propagate_backedges`
    fn propagate_backedges(&mut self, backedges: &mut Vec<Backedge>) -> R {
        let mut rounds = 0;
        loop {
            if rounds > MAX_BACKEDGE_ROUNDS {
                if self.log.level2() {
                    verbose!(self, "propagate_backedges: too many iterations\n");
                }
                for b in backedges.iter().rev() {
                    self.all_precise(&b.state);
                }
                break;
            }
            rounds += 1;
            let mut changed = false;
            for b in backedges.iter_mut().rev() {
                self.propagate_precision(b.equal, &mut b.state, &mut changed)?;
            }
            if !changed {
                break;
            }
        }
        for b in backedges.drain(..) {
            self.pool.push(b.state);
        }
        Ok(())
    }

    /// `maybe_free_verifier_state`
    fn maybe_free(&mut self, id: StateId) {
        let node = &self.explored.arena[id as usize];
        if !node.evicted || node.state.branches != 0 || self.incomplete(&node.state) {
            return;
        }
        let node = &mut self.explored.arena[id as usize];
        node.evicted = false;
        let state = std::mem::take(&mut node.state);
        match self.observer {
            None => self.pool.push(state),
            Some(_) => self.observe(state),
        }
        self.explored.vacant.push(id);
        self.explored.evicted -= 1;
    }

    /// `update_branch_counts` for the current state.
    pub(crate) fn update_branches(&mut self) -> R {
        self.cur.branches = self.cur.branches.saturating_sub(1);
        if self.cur.branches != 0 {
            return Ok(());
        }
        self.exit_scc(None)?;
        let mut next = self.cur.parent;
        while let Some(id) = next {
            let st = self.explored.get_mut(id);
            st.branches = st.branches.saturating_sub(1);
            if st.branches != 0 {
                break;
            }
            next = st.parent;
            self.exit_scc(Some(id))?;
            self.maybe_free(id);
        }
        Ok(())
    }

    fn bucket(&self, insn: i32) -> usize {
        let key = (insn ^ self.cur.top().callsite) as u32;
        key as usize % self.explored.buckets.len()
    }

    /// `clean_live_states`
    fn clean_live_states(&mut self, insn: i32, bucket: usize) {
        for i in (0..self.explored.buckets[bucket].len()).rev() {
            let id = self.explored.buckets[bucket][i];
            let st = &self.explored.arena[id as usize].state;
            if st.branches != 0
                || st.insn_idx != insn
                || st.cleaned
                || !st.same_callsites(&self.cur)
                || self.incomplete(st)
            {
                continue;
            }
            let mut st = std::mem::take(self.explored.get_mut(id));
            self.clean_state(&mut st);
            *self.explored.get_mut(id) = st;
        }
    }

    /// `clean_verifier_state`: forgets registers and slots that nobody reads.
    pub(crate) fn clean_state(&mut self, st: &mut State) {
        self.live_query(st);
        st.cleaned = true;
        for i in 0..st.frames.len() {
            let insn = usize::try_from(st.frame_insn(i)).unwrap_or(0);
            let live = self.aux.get(insn).map_or(0, |a| a.live_before);
            let slots = self.live_slots(i);
            let frame = &mut st.frames[i];
            for (r, reg) in frame.regs[..10].iter_mut().enumerate() {
                if live & 1 << r == 0 {
                    *reg = crate::reg::Reg::NOT_INIT;
                }
            }
            for (s, slot) in frame.stack.iter_mut().enumerate() {
                if slots & 1 << (s & 63) == 0 {
                    slot.invalidate();
                }
            }
        }
    }

    fn equal(&mut self, id: StateId, exact: Exact) -> bool {
        let explored = &mut self.explored;
        states_equal(
            &explored.arena[id as usize].state,
            &self.cur,
            exact,
            &mut explored.ids,
            self.id_gen,
            &self.aux,
        )
    }

    /// Whether a state that is still being explored covers the current one, which then loops:
    /// `Some(loop)`. `None` where it does not; `add` is what becomes of adding a state.
    fn hits_open(
        &mut self,
        id: StateId,
        insn: i32,
        force: bool,
        add: &mut bool,
    ) -> R<Option<bool>> {
        let at = insn as usize;
        let st = &self.explored.arena[id as usize].state;
        let top = st.top();
        let other_async = top.in_async && top.async_entry_cnt != self.cur.top().async_entry_cnt;
        let aux = self.aux[at];
        if other_async {
        } else if aux.is_iter_next {
            if self.equal(id, Exact::Within) && self.iter_active() {
                return Ok(Some(true));
            }
        } else {
            if crate::cfg::is_may_goto(self.insns[at])
                && self.explored.arena[id as usize].state.may_goto_depth != self.cur.may_goto_depth
                && self.equal(id, Exact::Within)
            {
                return Ok(Some(true));
            }
            if aux.calls_callback {
                if self.equal(id, Exact::Within) {
                    return Ok(Some(false));
                }
            } else {
                self.check_infinite(id, insn)?;
            }
        }
        if !force
            && self.jmps_processed - self.prev_jmps_processed < 20
            && self.insn_processed - self.prev_insn_processed < 100
        {
            *add = false;
        }
        Ok(None)
    }

    /// Whether the iterator that R1 points to is active.
    fn iter_active(&mut self) -> bool {
        let reg = self.reg(1);
        let spi = (-reg.fixed_off() - 1) / 8;
        let slot = usize::try_from(spi)
            .ok()
            .and_then(|s| self.frame_of(&reg).stack.get(s));
        slot.is_some_and(|s| s.kinds[0] == kind::ITER && s.reg.iter_state() == ITER_ACTIVE)
    }

    fn check_infinite(&mut self, id: StateId, insn: i32) -> R {
        let st = &self.explored.arena[id as usize].state;
        if !maybe_looping(st, &self.cur)
            || st.may_goto_depth != self.cur.may_goto_depth
            || st.callback_unroll_depth != self.cur.callback_unroll_depth
            || iter_depths_differ(st, &self.cur)
            || !self.equal(id, Exact::Same)
        {
            return Ok(());
        }
        self.print_line(insn as usize, format_args!("; "));
        let frame = self.cur.curframe();
        let cur = self.fmt_state(&self.cur, frame, true);
        let old = self.fmt_state(&self.explored.arena[id as usize].state, frame, true);
        reject!(
            self,
            EINVAL,
            "infinite loop detected at insn {insn}\ncur state:{}\nold state:{}\n",
            cur.trim_end(),
            old.trim_end()
        );
    }

    /// `is_state_visited`: whether an explored state covers the current one.
    pub(crate) fn is_visited(&mut self, insn: i32) -> R<bool> {
        let at = insn as usize;
        let checkpoint = self.aux[at].force_checkpoint;
        let force = self.opt.test_state_freq || checkpoint || self.cur.jmp_history.len() > 40;
        let mut add = force
            || self.jmps_processed - self.prev_jmps_processed >= 2
                && self.insn_processed - self.prev_insn_processed >= 8;
        let bucket = self.bucket(insn);
        self.clean_live_states(insn, bucket);
        let mut count = 0;
        let mut i = self.explored.buckets[bucket].len();
        while i > 0 {
            i -= 1;
            let id = self.explored.buckets[bucket][i];
            count += 1;
            let st = &self.explored.arena[id as usize].state;
            if st.insn_idx != insn {
                continue;
            }
            let open = st.branches != 0;
            let hit = if open {
                self.hits_open(id, insn, force, &mut add)?
            } else {
                let looping = self.incomplete(st);
                let exact = if looping { Exact::Within } else { Exact::Not };
                self.equal(id, exact).then_some(looping)
            };
            if let Some(looping) = hit {
                self.explored.arena[id as usize].hits += 1;
                self.hit(id, insn, looping)?;
                return Ok(true);
            }
            let node = &mut self.explored.arena[id as usize];
            node.misses += u32::from(add);
            let n = if checkpoint && open { 64 } else { 3 };
            if node.misses > node.hits * n + n {
                node.evicted = true;
                self.explored.buckets[bucket].remove(i);
                self.explored.evicted += 1;
                self.explored.listed -= 1;
                self.maybe_free(id);
            }
        }
        self.stats.max_states_per_insn = self.stats.max_states_per_insn.max(count);
        if add {
            self.add_state(insn, bucket);
        }
        Ok(false)
    }

    /// An explored state covers the current one: it takes over what had to be exact there.
    fn hit(&mut self, id: StateId, insn: i32, looping: bool) -> R {
        if self.aux[self.insn_idx as usize].jmp_point {
            self.push_history(0, 0);
        }
        let mut cur = std::mem::take(&mut self.cur);
        let result = self.propagate_precision(id, &mut cur, &mut false);
        self.cur = cur;
        result?;
        if !looping {
            return Ok(());
        }
        let mut state = self.take_state();
        state.copy_from(&self.cur);
        state.insn_idx = insn;
        let Some(chain) = self.scc_chain(&self.explored.arena[id as usize].state) else {
            return self.bug(format_args!(
                "add backedge: no SCC in verification path, insn_idx {insn}"
            ));
        };
        if self.log.level2() {
            verbose!(self, "SCC backedge {}\n", fmt_chain(&chain));
        }
        let visit = self.scc.visits.entry(chain).or_default();
        visit.backedges.push(Backedge { state, equal: id });
        self.scc.backedges += 1;
        self.update_peak();
        Ok(())
    }

    fn add_state(&mut self, insn: i32, bucket: usize) {
        self.stats.total_states += 1;
        self.explored.listed += 1;
        self.update_peak();
        self.prev_jmps_processed = self.jmps_processed;
        self.prev_insn_processed = self.insn_processed;
        forget_precision(&mut self.cur);
        let mut state = self.take_state();
        state.copy_from(&self.cur);
        state.insn_idx = insn;
        let depth = state.dfs_depth;
        let id = self.explored.insert(state);
        self.enter_scc(id);
        self.cur.parent = Some(id);
        self.cur.first_insn_idx = insn;
        self.cur.dfs_depth = depth + 1;
        self.cur.jmp_history.clear();
        self.explored.buckets[bucket].push(id);
    }
}

impl Scc {
    fn backedges_open(&self) -> bool {
        self.backedges != 0
    }
}

impl Explored {
    /// States listed where this instruction's are, newest first.
    pub fn listed_at(&self, insn: i32, callsite: i32) -> impl Iterator<Item = StateId> + '_ {
        let key = (insn ^ callsite) as u32 as usize % self.buckets.len();
        self.buckets[key].iter().rev().copied()
    }
}
