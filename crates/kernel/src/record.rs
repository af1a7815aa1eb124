//! What a run is recorded with on request: each operation that others can notice, with its
//! instruction; the map values that it changed; how often each instruction ran.
//!
//! A recorded run does the same as any other, one instruction at a time.

use crate::ids::{Cpu, CtxId, MapId, ProgId};
use crate::kernel::Kernel;
use crate::state::State;
use crate::trace::{Element, Level};
use crate::view::View;
use crate::{Next, helper, kfunc};
use bpfsim_vm::{Access, AccessKind, Activation, Call, GuestMem, Image, K, Mode, Stop};
use std::collections::BTreeMap;

/// What is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// [`Moment`]s.
    pub moments: bool,
    /// [`ProgCounts`].
    pub counts: bool,
}

/// Something that happened, with the instruction that did it where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Virtual time in ns.
    pub at: u64,
    /// The CPU.
    pub cpu: Cpu,
    /// The execution.
    pub ctx: CtxId,
    /// What kind of context that was.
    pub level: Level,
    /// The program and its instruction.
    pub insn: Option<(ProgId, u32)>,
    /// What happened.
    pub did: Did,
}

/// What a [`Moment`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// The event at this index of the trace.
    Event(usize),
    /// An access to memory that others see too.
    Access {
        /// How.
        kind: AccessKind,
        /// Guest address.
        addr: u64,
        /// Bytes.
        size: u8,
        /// The element, and where in its value, or nothing for its key; `None` outside of elements.
        element: Option<(Element, Option<u32>)>,
        /// The bytes before, as a little-endian number.
        before: u64,
        /// And after.
        after: u64,
    },
    /// A call to a helper or kfunc that others can notice.
    Call {
        /// Its name.
        name: &'static str,
        /// The map, or element, that it was about.
        element: Option<Element>,
        /// R0; `None` while it waits.
        result: Option<u64>,
    },
    /// A map's value appeared, changed or went.
    Changed {
        /// The element.
        element: Element,
        /// Its bytes before; `None` where it was not there.
        old: Option<Vec<u8>>,
        /// And after.
        new: Option<Vec<u8>>,
    },
}

/// How often the instructions of a program ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgCounts {
    /// Of each instruction, how often it ran.
    pub ran: Vec<u64>,
    /// Of each conditional jump, how often it was taken.
    pub taken: Vec<u64>,
}

/// Elements of one map, and bytes of one value, whose changes are recorded.
const MOST_ELEMENTS: usize = 256;
const MOST_BYTES: u32 = 4096;
/// Moments that are kept; a longer run keeps its first.
const MOST_MOMENTS: usize = 100_000;

type Values = BTreeMap<(MapId, Vec<u8>), Vec<u8>>;

/// The recording of one kernel.
#[derive(Default)]
pub(crate) struct Recorder {
    record: Record,
    moments: Vec<Moment>,
    /// Events of the trace that are among the moments.
    events: usize,
    values: Values,
    counts: Vec<ProgCounts>,
}

impl Recorder {
    /// [`bpfsim_vm::run`], recorded.
    #[allow(clippy::too_many_arguments, reason = "those of the engine, and two")]
    pub fn run(
        &mut self,
        image: &Image,
        act: &mut Activation,
        mem: &mut GuestMem,
        view: &mut View<'_, '_>,
        budget: u64,
        mode: Mode,
        next: Next,
    ) -> Stop {
        if budget == 0 {
            return Stop::Budget;
        }
        let first = act.insns;
        let mut open = match next {
            Next::Access(a) if act.grant => self.begin_access(view, mem, act, a),
            Next::Call { call, .. } if act.grant => self.begin_call(view, mem, act, call),
            _ => None,
        };
        loop {
            let (prog, pc, done) = (act.prog, act.pc, act.insns);
            let stop = bpfsim_vm::run(image, act, mem, view, 1, Mode::Explore);
            if mode == Mode::Plain && matches!(stop, Stop::Access(_) | Stop::Call(_)) {
                open = match stop {
                    Stop::Access(a) => self.begin_access(view, mem, act, a),
                    Stop::Call(call) => self.begin_call(view, mem, act, call),
                    _ => None,
                };
                act.grant = true;
                continue;
            }
            if act.insns != done {
                self.count(image, prog, pc, act.pc);
            }
            let insn = Some((ProgId(prog), pc));
            self.end(open.take(), mem, act, act.insns != done);
            let now = view.base + act.insns;
            self.catch_up(view.st, mem, now, insn);
            match stop {
                Stop::Budget if act.insns - first < budget => {}
                stop => return stop,
            }
        }
    }

    fn count(&mut self, image: &Image, prog: u32, pc: u32, next: u32) {
        if !self.record.counts {
            return;
        }
        let (prog, pc) = (prog as usize, pc as usize);
        if self.counts.len() <= prog {
            self.counts.resize_with(prog + 1, ProgCounts::default);
        }
        let counts = &mut self.counts[prog];
        if counts.ran.is_empty() {
            counts.ran = vec![0; image.code().len()];
            counts.taken = counts.ran.clone();
        }
        if let (Some(ran), Some(taken)) = (counts.ran.get_mut(pc), counts.taken.get_mut(pc)) {
            *ran += 1;
            *taken += u64::from(next as usize != pc + 1);
        }
    }

    fn push(&mut self, st: &State, at: u64, insn: Option<(ProgId, u32)>, did: Did) -> usize {
        let (cpu, ctx, level) = (st.cur.cpu, st.cur.id, st.cur.level);
        if self.moments.len() < MOST_MOMENTS {
            self.moments.push(Moment {
                at,
                cpu,
                ctx,
                level,
                insn,
                did,
            });
        }
        self.moments.len() - 1
    }

    fn begin_access(
        &mut self,
        view: &View<'_, '_>,
        mem: &GuestMem,
        act: &Activation,
        access: Access,
    ) -> Option<usize> {
        let Access { addr, size, kind } = access;
        let did = Did::Access {
            kind,
            addr,
            size,
            element: element_around(view.st, mem, addr)
                .map(|(e, at)| (e, Some(at)))
                .or_else(|| key_around(view.st, mem, addr).map(|e| (e, None))),
            before: number(mem, addr, size),
            after: 0,
        };
        self.begin(view, act, did)
    }

    fn begin_call(
        &mut self,
        view: &View<'_, '_>,
        mem: &GuestMem,
        act: &Activation,
        call: Call,
    ) -> Option<usize> {
        let name = match call {
            Call::Helper(id) => helper::name(id),
            Call::Kfunc(index) => kfunc::name(index),
        };
        let args = act.args();
        let slot = || args.iter().find_map(|&a| element_around(view.st, mem, a));
        let element = match view.st.map_at(args[0]) {
            Some(map) => {
                let size = view.st.maps[map.at()].spec.key_size as u64;
                let key = mem.slice(args[1], size).unwrap_or(&[]).to_vec();
                Some(Element {
                    map,
                    key: key.into(),
                })
            }
            None => slot().map(|(element, _)| element),
        };
        let did = Did::Call {
            name: name.unwrap_or("?"),
            element,
            result: None,
        };
        // One that waited goes on.
        let mine = |m: &Moment| m.ctx == view.st.cur.id && matches!(m.did, Did::Call { .. });
        if let Some(last) = self.moments.iter().rposition(mine)
            && matches!(self.moments[last].did, Did::Call { result: None, .. })
        {
            return Some(last);
        }
        self.begin(view, act, did)
    }

    fn begin(&mut self, view: &View<'_, '_>, act: &Activation, did: Did) -> Option<usize> {
        let insn = Some((ProgId(act.prog), act.pc));
        let now = view.base + act.insns;
        (self.record.moments && self.moments.len() < MOST_MOMENTS)
            .then(|| self.push(view.st, now, insn, did))
    }

    fn end(&mut self, open: Option<usize>, mem: &GuestMem, act: &Activation, done: bool) {
        match open.map(|i| &mut self.moments[i].did) {
            Some(Did::Access {
                addr, size, after, ..
            }) => *after = number(mem, *addr, *size),
            Some(Did::Call { result, .. }) if done => *result = Some(act.regs[0]),
            _ => {}
        }
    }

    /// Takes in what is new in the trace and in the maps.
    pub fn catch_up(&mut self, st: &State, mem: &GuestMem, at: u64, insn: Option<(ProgId, u32)>) {
        if !self.record.moments {
            return;
        }
        let events = st.trace.events();
        for (i, event) in events.iter().enumerate().skip(self.events) {
            let index = self.push(st, event.at, insn, Did::Event(i));
            if let Some(moment) = self.moments.get_mut(index) {
                (moment.cpu, moment.ctx, moment.level) = (event.cpu, event.ctx, event.level);
            }
        }
        self.events = events.len();
        let new = values(st, mem);
        if new == self.values {
            return;
        }
        let old = std::mem::replace(&mut self.values, new.clone());
        let keys = old
            .keys()
            .chain(new.keys().filter(|k| !old.contains_key(*k)));
        for key in keys.filter(|&k| old.get(k) != new.get(k)) {
            let did = Did::Changed {
                element: Element {
                    map: key.0,
                    key: key.1.clone().into(),
                },
                old: old.get(key).cloned(),
                new: new.get(key).cloned(),
            };
            self.push(st, at, insn, did);
        }
    }
}

/// The element that an address lies in, and where in its value.
fn element_around(st: &State, mem: &GuestMem, addr: u64) -> Option<(Element, u32)> {
    let maps = (0..st.maps.len()).map(|i| MapId(i as u32));
    maps.into_iter().find_map(|map| {
        let value = st.maps[map.at()].value_around(addr)?;
        Some((st.element(mem, map, value), (addr - value) as u32))
    })
}

/// The element whose key an address lies in.
fn key_around(st: &State, mem: &GuestMem, addr: u64) -> Option<Element> {
    let maps = (0..st.maps.len()).map(|i| MapId(i as u32));
    maps.into_iter().find_map(|id| {
        let map = &st.maps[id.at()];
        let holds = |&value: &u64| {
            let key = map.key_addr(value);
            key.is_some_and(|key| addr.wrapping_sub(key) < map.spec.key_size as u64)
        };
        let few = map.len() as usize <= MOST_ELEMENTS;
        let value = few.then(|| map.values().into_iter().find(holds))??;
        Some(st.element(mem, id, value))
    })
}

fn number(mem: &GuestMem, addr: u64, size: u8) -> u64 {
    let mut word = [0; 8];
    let bytes = mem.slice(addr, size.min(8) as u64).unwrap_or(&[]);
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The values of all maps that are not too large.
fn values(st: &State, mem: &GuestMem) -> Values {
    let mut all = Values::new();
    for (i, map) in st.maps.iter().enumerate() {
        let size = map.spec.value_size;
        if size > MOST_BYTES || map.len() as usize > MOST_ELEMENTS {
            continue;
        }
        for value in map.values() {
            let key = (MapId(i as u32), map.key_of(mem, value));
            let bytes = mem.slice(value, size as u64).unwrap_or(&[]);
            all.entry((key.0, key.1.to_vec()))
                .or_insert_with(|| bytes.to_vec());
        }
    }
    all
}

impl Kernel {
    /// From here on runs are recorded; what was recorded is dropped.
    pub fn record(&mut self, record: Record) {
        self.recorder = (record != Record::default()).then(|| {
            Box::new(Recorder {
                record,
                events: self.st.trace.events().len(),
                values: values(&self.st, &self.mem),
                ..Recorder::default()
            })
        });
    }

    /// What happened since [`Kernel::record`], in order.
    pub fn moments(&self) -> &[Moment] {
        self.recorder.as_ref().map_or(&[], |r| &r.moments)
    }

    /// How often instructions ran since [`Kernel::record`], by program.
    pub fn counts(&self) -> &[ProgCounts] {
        self.recorder.as_ref().map_or(&[], |r| &r.counts)
    }

    /// What is new belongs to what executes now, and to no instruction.
    pub(crate) fn record_rest(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let at = self.st.cpus[self.st.cur.cpu.at()].clock;
            recorder.catch_up(&self.st, &self.mem, at, None);
        }
    }

    /// What maps hold now counts as unchanged: they were loaded with it.
    pub fn record_loaded(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.values = values(&self.st, &self.mem);
            recorder.events = self.st.trace.events().len();
        }
    }

    /// The conditional jumps among a program's instructions, and its C lines.
    pub fn prog_lines(&self, prog: ProgId) -> Option<ProgLines<'_>> {
        let code = self.code.get(prog.at())?;
        Some(ProgLines {
            name: &self.st.progs[prog.at()].name,
            funcs: &self.st.progs[prog.at()].funcs,
            lines: &code.lines,
            image: &code.image,
        })
    }
}

/// A program's instructions and where they came from.
pub struct ProgLines<'a> {
    /// Its name.
    pub name: &'a str,
    /// Entry and name of each function, by entry.
    pub funcs: &'a [(u32, crate::trace::Name)],
    /// C lines.
    pub lines: &'a bpfsim_loader::Lines,
    image: &'a Image,
}

impl ProgLines<'_> {
    /// Slots of instructions.
    pub fn len(&self) -> usize {
        self.image.code().len().saturating_sub(1)
    }

    /// True for a program of no instructions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for an instruction, false for the second slot of a wide one.
    pub fn is_insn(&self, at: usize) -> bool {
        self.image.code().get(at).is_some_and(|c| c.k != K::Bad)
    }

    /// What conditional jumps compare with, where that is a constant.
    pub fn constants(&self) -> impl Iterator<Item = i64> {
        let jumps = self.image.code().iter().filter(|c| c.is_branch());
        jumps.map(|c| c.imm).filter(|imm| *imm != 0)
    }

    /// True for a conditional jump.
    pub fn is_branch(&self, at: usize) -> bool {
        self.image.code().get(at).is_some_and(|c| c.is_branch())
    }
}
