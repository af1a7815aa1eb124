//! Snapshots of a whole kernel: to run a test again from where it began, and to go back to a
//! choice.
//!
//! A snapshot is a value. Any number of them can be held and come back to in any order, also from
//! one to another that was taken later. What seldom changes is shared between them and the kernel
//! until it is written to; of guest memory only the pages that differ are copied.
//!
//! The chooser is no part of it: who goes back decides what is chosen from there.

use crate::finding::Event;
use crate::ids::{MapId, ProgId, TaskId, mix};
use crate::kernel::{Kernel, Window};
use crate::log::LogMark;
use crate::map::{Map, MapSpec};
use crate::prog::ProgCode;
use crate::run::{CpuRuns, Run};
use crate::shared::{BringBack, Few, Shared};
use crate::state::State;
use crate::syscall::SysResult;
use crate::testrun::{Buffers, takes_packet};
use crate::trace::TraceMark;
use bpfsim_vm::Moment;
use std::collections::VecDeque;

/// A kernel as it was at one moment.
pub struct KernelSnapshot {
    mem: bpfsim_vm::Snapshot,
    /// Without what is apart.
    st: State,
    maps: Shared<Vec<Shared<Map>>>,
    trace: TraceMark,
    found: LogMark<Event>,
    rest: Rest,
}

/// What a snapshot holds beside guest memory and [`State`].
#[derive(educe::Educe)]
#[educe(Clone)]
struct Rest {
    code: Shared<Vec<ProgCode>>,
    runs: Few<Vec<Option<Shared<Run>>>>,
    free_runs: Few<Vec<usize>>,
    cpus: Vec<Shared<CpuRuns>>,
    stacks: Shared<Vec<u64>>,
    free_stacks: Few<Vec<u32>>,
    results: Shared<Vec<Option<Shared<SysResult>>>>,
    user_turns: Few<VecDeque<TaskId>>,
    callbacks: u64,
    buffers: Buffers,
    window: Window,
}

/// Does the same with each field of a [`Kernel`] that [`Rest`] has too; last those that every execution
/// writes to.
macro_rules! with_rest {
    ($do:ident!($($with:tt)*)) => {
        $do!($($with)*; code, runs, free_runs, stacks, free_stacks, user_turns, callbacks,
            buffers, window; cpus, results)
    };
}

macro_rules! collect {
    ($from:ident; $($field:ident),*; $($written:ident),*) => {
        Rest { $($field: $from.$field.clone(),)* $($written: $from.$written.clone()),* }
    };
}

macro_rules! copy {
    ($from:expr, $to:expr; $($field:ident),*; $($written:ident),*) => {
        $($to.$field.clone_from(&$from.$field);)*
        $($to.$written.clone_from(&$from.$written);)*
    };
}

macro_rules! bring_back {
    ($from:expr, $to:expr; $($field:ident),*; $($written:ident),*) => {
        $($to.$field.clone_from(&$from.$field);)*
        $($to.$written.bring_back(&$from.$written);)*
    };
}

/// The snapshot is of a kernel whose guest memory has another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is of a kernel whose guest memory has another size")]
pub struct ForeignSnapshot;

impl KernelSnapshot {
    /// Random values were drawn until then, by its seed or by one before.
    pub(crate) fn drew(&self) -> bool {
        self.st.seed.is_drawn()
    }

    /// It is good for its memory alone.
    pub(crate) fn let_go(&mut self) {
        self.trace.let_go();
        self.found.let_go();
    }

    /// [`Kernel::map_spec`] then.
    pub fn map_spec(&self, map: MapId) -> &MapSpec {
        &self.maps[map.at()].spec
    }

    /// [`Kernel::takes_packet`] then.
    pub fn takes_packet(&self, prog: ProgId) -> bool {
        takes_packet(&self.st.progs[prog.at()])
    }

    /// Hash of what had happened until then, and of what user space had done.
    pub(crate) fn moment(&self) -> u64 {
        mix(self.trace.hash(), self.rest.window.calls)
    }
}

impl Kernel {
    /// Remembers everything as it is now, but for the chooser.
    pub fn snapshot(&mut self) -> KernelSnapshot {
        self.snapshot_of(Moment::Beginning)
    }

    /// [`Kernel::snapshot`] of a moment of this kind.
    pub(crate) fn snapshot_of(&mut self, moment: Moment) -> KernelSnapshot {
        let (mut trace, mut found) = (TraceMark::default(), LogMark::default());
        if moment == Moment::Beside {
            trace = self.st.trace.mark_beside();
            found = self.st.watch.findings.mark_beside();
        } else {
            self.st.trace.mark_in(&mut trace);
            self.st.watch.findings.mark_in(&mut found);
        }
        KernelSnapshot {
            mem: self.mem.snapshot_of(moment),
            maps: self.keep_maps().clone(),
            trace,
            found,
            st: self.st.clone(),
            rest: with_rest!(collect!(self)),
        }
    }

    /// A snapshot on the way, in the place and the memory of an older one.
    pub fn snapshot_into(&mut self, old: &mut KernelSnapshot) {
        self.mem.snapshot_into(&mut old.mem);
        old.maps.clone_from(self.keep_maps());
        self.st.trace.mark_in(&mut old.trace);
        self.st.watch.findings.mark_in(&mut old.found);
        old.st.clone_from(&self.st);
        with_rest!(copy!(self, old.rest));
    }

    /// Makes everything as it was when the snapshot was taken; the chooser stays as it is.
    pub fn restore(&mut self, snapshot: &KernelSnapshot) -> Result<(), ForeignSnapshot> {
        self.restore_large_parts(snapshot)?;
        self.st.clone_from(&snapshot.st);
        self.spare_results();
        with_rest!(bring_back!(snapshot.rest, self));
        self.config.seed = self.st.seed.value();
        Ok(())
    }

    /// Memory, maps, trace and findings as they were.
    fn restore_large_parts(&mut self, snapshot: &KernelSnapshot) -> Result<(), ForeignSnapshot> {
        if !self.mem.restore(&snapshot.mem) {
            return Err(ForeignSnapshot);
        }
        self.restore_maps(&snapshot.maps);
        self.st.trace.restore(&snapshot.trace);
        self.st.watch.findings.restore(&snapshot.found);
        (self.offer.again, self.offer.known) = (false, false);
        Ok(())
    }

    /// The maps as they are now, of which only those are copied that were changed.
    fn keep_maps(&mut self) -> &Shared<Vec<Shared<Map>>> {
        if !self.st.maps.is_written() {
            return &self.kept_maps;
        }
        let maps = self.st.maps.look_through();
        if self.kept_maps.len() > maps.len() {
            self.kept_maps.truncate(maps.len());
        }
        for (i, map) in maps.iter_mut().enumerate() {
            if i < self.kept_maps.len() && !map.dirty {
                continue;
            }
            map.dirty = false;
            match self.kept_maps.get_mut(i) {
                Some(kept) => kept.copy(map),
                None => self.kept_maps.push(Shared::new(map.clone())),
            }
        }
        &self.kept_maps
    }

    fn restore_maps(&mut self, to: &Shared<Vec<Shared<Map>>>) {
        let same = self.kept_maps.is(to);
        if same && !self.st.maps.is_written() {
            return;
        }
        let maps = self.st.maps.look_through();
        maps.truncate(to.len());
        for (i, kept) in to.iter().enumerate() {
            match maps.get_mut(i) {
                Some(map) => {
                    let was = || self.kept_maps.get(i);
                    let kept_it = same || was().is_some_and(|was| was.is(kept));
                    if map.dirty || !kept_it {
                        map.clone_from(kept);
                    }
                }
                None => maps.push((**kept).clone()),
            }
        }
        self.kept_maps.clone_from(to);
    }

    /// The seed of random helpers from here on; see [`Config::seed`](crate::Config::seed).
    pub fn reseed(&mut self, seed: u64) {
        self.config.seed = seed;
        self.st.seed.replace(seed);
    }
}
