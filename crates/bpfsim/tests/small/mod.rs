//! Small random programs and what is done with them.

#![allow(dead_code)] // each test has its own use for them

use bpfsim::{
    Arg, Chances, Config, Cpu, Detectors, Ebpf, EbpfLoader, Hook, Job, Level, Preemption,
    ProgramInput, Report, RingBuf, Sim, SysOp, Task, mix,
};
use bpfsim_testing::small_orders::{Scripts, SmallOrders, bytes, small_orders, small_printing};
use bpfsim_testing::small_worlds::{SmallWorld, Target, Theme, UserCall, small_world};
use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

pub const ORDERS_OBJECT: &[u8] = include_bytes!("../../../../fixtures/small_orders.bpf.o");
pub const WORLDS_OBJECT: &[u8] = include_bytes!("../../../../fixtures/small_worlds.bpf.o");

/// A random program.
pub trait Program: Debug + Sync {
    /// Runs it, and gives the state in which it ends.
    fn run(&self, sim: &Sim) -> bpfsim::Result<Vec<u8>>;
    fn config(&self) -> Config;
}

/// The bytes of a map's elements that are not the kernel's own.
fn elements(
    bpf: &Ebpf,
    state: &mut Vec<u8>,
    map: &str,
    keys: u32,
    shown: std::ops::RangeFrom<usize>,
) -> bpfsim::Result<()> {
    let map = bpf.map(map)?;
    for key in 0..keys {
        let element = map.lookup(&key.to_le_bytes())?.unwrap_or_default();
        state.extend(element.get(shown.clone()).unwrap_or_default());
        state.push(0xff);
    }
    Ok(())
}

pub fn finish(sim: &Sim, passes: u64) -> bpfsim::Result<()> {
    sim.run_until_idle()?;
    if passes > 0 {
        sim.run_for(Duration::from_nanos(passes))?;
    }
    Ok(())
}

pub fn script(script: u32) -> ProgramInput {
    ProgramInput::context(&script.to_le_bytes())
}

impl Program for SmallOrders {
    fn run(&self, sim: &Sim) -> bpfsim::Result<Vec<u8>> {
        let loader = EbpfLoader::new().set_global("scripts", bytes(&self.scripts).as_slice());
        let mut bpf = loader.load(sim, ORDERS_OBJECT)?;
        bpf.program_mut("prepare")?
            .test_run(ProgramInput::empty())?;
        for &(cpu, what) in &self.begun {
            sim.spawn_on(Cpu(cpu), bpf.program("run")?, script(what))?;
        }
        finish(sim, self.passes)?;
        let mut state = bpf.global_bytes("words")?;
        state.extend(bpf.global_bytes("out")?);
        elements(&bpf, &mut state, "elements", 8, 8..)?;
        elements(&bpf, &mut state, "table", 2, 0..)?;
        state.extend(sim.printk().concat().bytes());
        let records = RingBuf::<u32>::try_from(bpf.map("records")?)?;
        state.extend(records.records()?.iter().map(|script| *script as u8));
        Ok(state)
    }

    fn config(&self) -> Config {
        Config {
            horizon: self.horizon,
            ..Config::default()
        }
    }
}

/// What system calls answered, in the order in which their tasks learned it.
pub type Log = Rc<RefCell<Vec<u8>>>;

/// A system call, as a task makes it.
fn call(bpf: &Ebpf, call: UserCall) -> bpfsim::Result<SysOp> {
    let (elements, table) = (bpf.map("elements")?, bpf.map("table")?);
    let key = |key: u32| key.to_le_bytes().to_vec();
    Ok(match call {
        UserCall::Run(what) => SysOp::TestRun {
            prog: bpf.program("run")?.prog_id(),
            input: script(what),
        },
        UserCall::Update(target, k) => {
            let (map, size) = match target {
                Target::Elements => (elements.id(), elements.spec().value_size),
                Target::Table => (table.id(), table.spec().value_size),
            };
            SysOp::MapUpdate {
                map,
                key: key(k),
                value: vec![7; size as usize],
                flags: 0,
            }
        }
        UserCall::Delete(k) => SysOp::MapDelete {
            map: table.id(),
            key: key(k),
        },
        UserCall::Lookup(k) => SysOp::MapLookup {
            map: table.id(),
            key: key(k),
        },
        UserCall::Close => SysOp::MapClose(elements.fd()),
        UserCall::Sleep(ns) => SysOp::Sleep(ns),
    })
}

impl Program for SmallWorld {
    fn run(&self, sim: &Sim) -> bpfsim::Result<Vec<u8>> {
        let page = |task: Task| {
            for page in [0x10000, 0x11000] {
                sim.write_user(task, page, &[5; 8]);
                if self.page_in > 0 {
                    task.page_out(sim, page, Duration::from_nanos(self.page_in));
                }
            }
        };
        let loader = EbpfLoader::new()
            .set_global("scripts", bytes(&self.scripts).as_slice())
            .set_global("workers", &[500_u32, 501]);
        let mut bpf = loader.load(sim, WORLDS_OBJECT)?;
        let prepared = bpf
            .program_mut("prepare")?
            .test_run(ProgramInput::empty())?;
        bpfsim::ensure_eq!(prepared.return_value, 0);
        if !self.interrupts.is_empty() {
            bpf.program_mut("hooked")?.attach()?;
        }
        if matches!(self.theme, Theme::TaskWork | Theme::Users) {
            for cpu in 0..2 {
                page(sim.task("worker").pid(500 + cpu).on(Cpu(cpu)).user()?);
            }
        }
        let log = Log::default();
        for &(cpu, what) in &self.begun {
            if self.page_in == 0 {
                sim.spawn_on(Cpu(cpu), bpf.program("run")?, script(what))?;
                continue;
            }
            let op = call(&bpf, UserCall::Run(what))?;
            let task = sim.spawn_user(Cpu(cpu), async move |user| {
                user.call(op).await;
                Ok(())
            })?;
            page(task);
        }
        for (i, (cpu, calls)) in self.users.iter().enumerate() {
            let ops = calls.iter().map(|c| call(&bpf, *c));
            let ops: Vec<SysOp> = ops.collect::<bpfsim::Result<_>>()?;
            let log = Rc::clone(&log);
            sim.spawn_user(Cpu(*cpu), async move |user| {
                for op in ops {
                    let answer = match user.call(op).await {
                        bpfsim::SysResult::Output(out) => format!("{i} {}", out.return_value),
                        other => format!("{i} {other:?}"),
                    };
                    log.borrow_mut().extend(answer.bytes());
                }
                Ok(())
            })?;
        }
        for irq in &self.interrupts {
            let hook = Hook::function("security_task_prctl");
            let args = ProgramInput::args([Arg::Value(irq.script.into())]);
            let (after, input) = (
                Duration::from_nanos(irq.after),
                args.at_level(Level::Hardirq),
            );
            sim.fire_after(after, Cpu(irq.cpu), &hook, input)?;
        }
        finish(sim, self.passes)?;
        let mut state = bpf.global_bytes("words")?;
        state.extend(bpf.global_bytes("out")?);
        state.extend(log.borrow().iter());
        if !self
            .users
            .iter()
            .flat_map(|u| &u.1)
            .any(|c| *c == UserCall::Close)
        {
            elements(&bpf, &mut state, "elements", 8, 8..)?;
        }
        elements(&bpf, &mut state, "pairs", 2, 8..)?;
        state.extend(bpf.global_bytes("guarded")?);
        for map in ["table", "sparse", "recent", "counts", "sums"] {
            elements(&bpf, &mut state, map, 2, 0..)?;
        }
        Ok(state)
    }

    fn config(&self) -> Config {
        Config {
            horizon: self.horizon,
            cpus: self.cpus,
            preemption: match self.full {
                true => Preemption::Full,
                false => Preemption::None,
            },
            ..Config::default()
        }
    }
}

/// How many of something, unless the environment says otherwise.
pub fn number(of: &str, usual: u64) -> u64 {
    let asked = std::env::var(of).ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(usual)
}

/// A random program and its machine: some of up to six CPUs, detectors that end a run, little fuel.
pub fn random_program(seed: u64) -> (Box<dyn Program>, Config) {
    let dice = |n: u64, of: u64| mix(seed, n) % of;
    let many = dice(1, 3) == 0;
    let more = (0..dice(2, 6) as u32).map(|cpu| (cpu, cpu % 4));
    let more = more.filter(|_| many);
    // Longer than those of which all orders are enumerated.
    let lengthen = |scripts: &mut Scripts| {
        for (script, at) in (0..4).flat_map(|script| (1..4).map(move |at| (script, at))) {
            let from = scripts[(script + at) % 4][0];
            if scripts[script][at] == (0, 0) && dice(script as u64, 3) > 0 {
                scripts[script][at] = from;
            }
        }
    };
    let orders = |mut program: SmallOrders| {
        lengthen(&mut program.scripts);
        program.begun.extend(more.clone());
        let config = program.config();
        (Box::new(program) as Box<dyn Program>, config)
    };
    let (program, mut config) = match dice(3, 6) {
        0 | 1 => orders(small_orders(seed)),
        2 => orders(small_printing(seed)),
        _ => {
            let mut program = small_world(seed);
            lengthen(&mut program.scripts);
            program.begun.extend(more);
            let config = program.config();
            (Box::new(program) as Box<dyn Program>, config)
        }
    };
    if many {
        config.cpus = 6;
    }
    config.checked = dice(4, 8) > 0;
    if dice(5, 8) == 0 {
        config.fuel = 150 + dice(6, 300);
    }
    let report = |n| [Report::Off, Report::Warn, Report::Warn, Report::Fail][dice(n, 4) as usize];
    config.detectors = Detectors {
        data_race: report(7),
        lost_update: report(8),
        stale: report(9),
        ..Detectors::default()
    };
    (program, config)
}

/// Programs of several objects, begun side by side on some of six CPUs, and what they return and leave.
#[derive(Debug)]
pub struct Mixture {
    seed: u64,
}

/// What can be among them; the detector's take tail calls, throw, end with locks held.
const MIXED: &[(usize, &[&str])] = &[
    (
        0,
        &["unlocked", "locked", "small", "arm", "arm_own", "drawn"],
    ),
    (1, &["inc", "arm_then_inc", "inc_tc", "arm_then_inc_tc"]),
    (2, &["draw", "add", "look", "iterate", "write_pair"]),
    (
        3,
        &["chain", "throw_out", "leave_sample", "leave_lock", "arm_ab"],
    ),
];
const MIXED_OBJECTS: [&[u8]; 4] = [
    include_bytes!("../../../../fixtures/order_models.bpf.o"),
    include_bytes!("../../../../fixtures/counter_race.bpf.o"),
    include_bytes!("../../../../fixtures/chances.bpf.o"),
    include_bytes!("../../../../fixtures/detected.bpf.o"),
];

const HOOKED_OBJECT: &[u8] = include_bytes!("../../../../fixtures/attached.bpf.o");

impl Mixture {
    /// The mixture of a seed.
    pub fn new(seed: u64) -> Mixture {
        Mixture { seed }
    }

    fn dice(&self, n: u64, of: usize) -> usize {
        (mix(self.seed, n) >> 8) as usize % of
    }

    /// A function of a user program is called, on some CPUs, and its probes race.
    fn fire(&self, sim: &Sim, jobs: &mut Vec<Job>) -> bpfsim::Result<Ebpf> {
        const PROBES: [&str; 4] = ["user_entry1", "user_return", "user_many", "user_session"];
        let mut bpf = Ebpf::load_static(sim, HOOKED_OBJECT)?;
        for nth in 0..1 + self.dice(51, 3) as u64 {
            let name = PROBES[self.dice(52 + nth, PROBES.len())];
            bpf.program_mut(name)?.attach()?;
        }
        let main = Hook::user_function("/bin/sh", "main");
        for nth in 0..1 + self.dice(56, 3) as u64 {
            let cpu = Cpu(self.dice(57 + nth, 6) as u32);
            jobs.push(sim.fire_on(cpu, &main, ProgramInput::args([Arg::Value(nth)]))?);
        }
        Ok(bpf)
    }
}

impl Program for Mixture {
    fn run(&self, sim: &Sim) -> bpfsim::Result<Vec<u8>> {
        let mut objects: [Option<Ebpf>; 4] = Default::default();
        let mut jobs = Vec::new();
        let kinds = 1 + self.dice(1, 4);
        for nth in 0..1 + self.dice(2, 6) as u64 {
            // The first ones more often.
            let (object, names) = MIXED[self.dice(10 + nth, kinds)];
            let bpf = match &objects[object] {
                Some(bpf) => bpf,
                None => objects[object].insert(Ebpf::load_static(sim, MIXED_OBJECTS[object])?),
            };
            let name = names[self.dice(20 + nth, names.len())];
            let input = match name.ends_with("_tc") {
                true => ProgramInput::packet(&[0; 64]),
                false => ProgramInput::empty(),
            };
            let cpu = Cpu(self.dice(30 + nth, 6) as u32);
            jobs.push(sim.spawn_on(cpu, bpf.program(name)?, input)?);
        }
        let hooked = match self.dice(50, 4) {
            0 => Some(self.fire(sim, &mut jobs)?),
            _ => None,
        };
        sim.run_until_idle()?;
        if self.dice(3, 2) == 0 {
            sim.run_for(Duration::from_millis(2))?;
        }
        let mut state = Vec::new();
        for job in jobs {
            state.extend(format!("{:?} {:?}", sim.result(job), sim.fired(job)).bytes());
        }
        for bpf in objects.iter().flatten().chain(&hooked) {
            for map in bpf.maps() {
                state.extend(format!("{:?}", map.entries().ok()).bytes());
            }
        }
        Ok(state)
    }

    fn config(&self) -> Config {
        let report = |n| [Report::Off, Report::Warn, Report::Warn, Report::Fail][self.dice(n, 4)];
        Config {
            cpus: 2 + self.dice(4, 5) as u32,
            detectors: Detectors {
                data_race: report(5),
                lost_update: report(6),
                ..Detectors::default()
            },
            checked: self.dice(7, 8) > 0,
            fuel: match self.dice(8, 6) {
                0 => 20 + self.dice(9, 200) as u64,
                _ => 100_000,
            },
            chances: match self.dice(40, 5) {
                0 => Chances {
                    random: self.dice(41, 2) as u32,
                    failures: self.dice(42, 3) as u32,
                    faults: self.dice(43, 2) as u32,
                    ..Chances::default()
                },
                _ => Chances::default(),
            },
            ..Config::default()
        }
    }
}
