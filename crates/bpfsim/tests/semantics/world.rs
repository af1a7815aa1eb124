//! One simulation with fixtures/async_ops.bpf.o in it.

use bpfsim::{Cache, Cpu, Ebpf, Event, Job, Map, ProgramInput, Result, Sim, What};
use bpfsim_testing::async_ops::{Entry, MAPS, ops_bytes, parse_entries};
use std::sync::LazyLock;

pub use bpfsim_testing::async_ops::{Code, FAR, Op};

pub const OBJECT: &[u8] = include_bytes!("../../../../fixtures/async_ops.bpf.o");

/// All cases load the same object.
pub static LOADED: LazyLock<Cache> = LazyLock::new(Cache::default);

/// `-errno`
pub const EPERM: i64 = -1;
pub const EBUSY: i64 = -16;
pub const EINVAL: i64 = -22;
pub const EDEADLK: i64 = -35;
pub const ETIMEDOUT: i64 = -110;
pub const EBADF: i64 = -9;

pub const ARRAY: u8 = 0;
pub const HASH: u8 = 1;
pub const SPARSE: u8 = 2;
pub const RECENT: u8 = 3;

/// Nothing ran.
pub const NONE: [i64; 0] = [];
/// Microseconds.
pub const US: u64 = 1_000;

pub struct World {
    pub sim: Sim,
    pub bpf: Ebpf,
    ops: Vec<Op>,
    scripts: Vec<(usize, Vec<Op>)>,
}

pub fn on(code: Code, map: u8, key: u8) -> Op {
    Op::on(code, map, key)
}

/// A fresh element with an armed timer that calls the callback of script `which`.
pub fn arm(map: u8, key: u8, which: u8, ns: u64) -> Vec<Op> {
    vec![
        on(Code::Update, map, key),
        on(Code::TimerInit, map, key).flags(1),
        on(Code::TimerSetCallback, map, key).which(which),
        on(Code::TimerStart, map, key).arg(ns),
    ]
}

/// The same with a work item, of script 3 + `which`.
pub fn queue(map: u8, key: u8, which: u8) -> Vec<Op> {
    vec![
        on(Code::Update, map, key),
        on(Code::WqInit, map, key),
        on(Code::WqSetCallback, map, key).which(which),
        on(Code::WqStart, map, key),
    ]
}

impl World {
    pub fn new() -> Result<World> {
        let sim = Sim::new()?;
        sim.use_cache(&LOADED);
        let bpf = Ebpf::load(&sim, OBJECT)?;
        Ok(World {
            sim,
            bpf,
            ops: Vec::new(),
            scripts: Vec::new(),
        })
    }

    pub fn map(&self, map: u8) -> Map {
        self.bpf
            .map(MAPS[map as usize])
            .expect("the fixture has it")
    }

    /// What the callbacks of a script execute.
    pub fn script(&mut self, script: usize, ops: &[Op]) -> Result<()> {
        self.scripts.retain(|(s, _)| *s != script);
        self.scripts.push((script, ops.to_vec()));
        self.store()
    }

    fn store(&mut self) -> Result<()> {
        let bytes = ops_bytes(&self.ops, &self.scripts);
        self.bpf.set_global_bytes("ops", &bytes)
    }

    /// Adds operations; gives the context with which `run_ops` executes them.
    pub fn add(&mut self, ops: &[Op]) -> Result<ProgramInput> {
        let (first, count) = (self.ops.len() as u32, ops.len() as u32);
        self.ops.extend(ops);
        assert!(self.ops.len() <= 64, "too many operations in one case");
        self.store()?;
        let range = [first.to_le_bytes(), count.to_le_bytes()].concat();
        Ok(ProgramInput::context(&range))
    }

    /// The test's task executes them in a syscall program.
    pub fn run(&mut self, ops: &[Op]) -> Result<Vec<i64>> {
        let from = self.entries().len();
        let input = self.add(ops)?;
        self.bpf.program_mut("run_ops")?.test_run(input)?;
        Ok(self.answers(from))
    }

    /// ... in a packet program, so that soft interrupts are off.
    pub fn run_tc(&mut self, ops: &[Op]) -> Result<Vec<i64>> {
        let from = self.entries().len();
        self.tc(ops)?;
        let input = ProgramInput::packet(&[0; 64]);
        self.bpf.program_mut("run_ops_tc")?.test_run(input)?;
        Ok(self.answers(from))
    }

    /// Makes the packet program execute them.
    pub fn tc(&mut self, ops: &[Op]) -> Result<()> {
        self.bpf.set_global("tc_first", &(self.ops.len() as u32))?;
        self.bpf.set_global("tc_count", &(ops.len() as u32))?;
        self.add(ops).map(drop)
    }

    /// Another task executes them on a CPU, from when the simulation goes on.
    pub fn spawn(&mut self, cpu: u32, ops: &[Op]) -> Result<Job> {
        let input = self.add(ops)?;
        self.sim
            .spawn_on(Cpu(cpu), self.bpf.program("run_ops")?, input)
    }

    pub fn entries(&self) -> Vec<Entry> {
        let count = self.bpf.global("nr_entries").expect("the fixture has it");
        parse_entries(
            &self
                .bpf
                .global_bytes("entries")
                .expect("the fixture has it"),
            count,
        )
    }

    /// What programs' operations answered, from an entry on.
    pub fn answers(&self, from: usize) -> Vec<i64> {
        let entries = self.entries();
        let of = entries[from.min(entries.len())..].iter();
        of.filter(|e| e.0 == 0).map(|e| e.2).collect()
    }

    /// What operations of a callback's script answered.
    pub fn said(&self, script: u32, code: Code) -> Vec<i64> {
        let is = |e: &&Entry| e.0 == script + 1 && e.1 == code as u32;
        self.entries().iter().filter(is).map(|e| e.2).collect()
    }

    /// Keys that the callbacks of a script were given.
    pub fn ran(&self, script: u32) -> Vec<i64> {
        self.said(script, Code::None)
    }

    pub fn events(&self) -> Vec<Event> {
        self.sim.trace().events().to_vec()
    }

    /// Callbacks that began.
    pub fn starts(&self) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|e| matches!(e.what, What::CallbackStart { .. }));
        events
    }
}
