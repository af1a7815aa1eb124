//! Random sequences of calls on timers, works and task works, on Linux and on bpfsim.
//!
//! What Linux answered to the first of them is recorded in fixtures/async_sequences.json. Where a
//! kernel answers, more are asked of it: as many of each kind as the variable `ASYNC_SEQUENCES`
//! says.

use bpfsim::{Cache, Config, Ebpf, Error, ProgramInput, Seed, Sim, micros};
use bpfsim_testing::async_ops::{
    Kind, MAPS, Machine, Op, Outcome, RECORDED, Recorded, Sequence, Step, VALUE_SIZE, ops_bytes,
    parse_entries, run_all,
};
use bpfsim_testing::linux::sequences::LinuxMachine;
use bpfsim_testing::linux::{or_skip, stay_on_cpu};
use std::path::PathBuf;
use std::sync::LazyLock;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name)
}

struct SimMachine {
    sim: Sim,
    bpf: Ebpf,
    scripts: Vec<(usize, Vec<Op>)>,
    fds: Vec<Option<bpfsim::MapFd>>,
}

impl SimMachine {
    fn new(object: &[u8]) -> Result<SimMachine, Error> {
        static LOADED: LazyLock<Cache> = LazyLock::new(Cache::default);
        // Random programs write through stale values: what Linux does then is asked, not forgiven.
        let sim = Sim::with(
            Config {
                checked: false,
                ..Config::default()
            },
            Seed::USUAL,
        )?;
        sim.use_cache(&LOADED);
        let bpf = Ebpf::load(&sim, object)?;
        let fds = MAPS.iter().map(|m| Ok(Some(bpf.map(m)?.fd())));
        Ok(SimMachine {
            fds: fds.collect::<Result<_, Error>>()?,
            sim,
            bpf,
            scripts: Vec::new(),
        })
    }

    fn perform(&mut self, step: &Step) -> Result<(), Error> {
        let map = |m: u8| self.bpf.map(MAPS[m as usize]);
        let key = |k: u8| u32::from(k).to_le_bytes();
        match step {
            Step::Run { tc, ops } => {
                let count = ops.len() as u32;
                self.bpf
                    .set_global_bytes("ops", &ops_bytes(ops, &self.scripts))?;
                self.bpf.set_global("tc_count", &count)?;
                let ctx = [0u32.to_le_bytes(), count.to_le_bytes()].concat();
                let (name, input) = match tc {
                    true => ("run_ops_tc", ProgramInput::packet(&[0; 64])),
                    false => ("run_ops", ProgramInput::context(&ctx)),
                };
                self.bpf.program_mut(name)?.test_run(input).map(drop)
            }
            Step::Update {
                map: m,
                key: k,
                flags,
            } => map(*m)?.update(&key(*k), &[0; VALUE_SIZE], *flags),
            Step::Delete { map: m, key: k } => map(*m)?.delete(&key(*k)),
            Step::LookupDelete { map: m, key: k } => map(*m)?.lookup_and_delete(&key(*k)).map(drop),
            Step::Close { map: m } => {
                let fd = self.fds[*m as usize].take();
                map(*m)?.close_fd(fd.expect("the sequence closes what is open"))
            }
            Step::Open { map: m } => {
                let fd = map(*m)?.open()?;
                self.fds[*m as usize] = Some(fd);
                Ok(())
            }
        }
    }
}

impl Machine for SimMachine {
    type Error = Error;

    fn scripts(&mut self, scripts: &[(usize, Vec<Op>)]) -> Result<(), Error> {
        self.scripts = scripts.to_vec();
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, Error> {
        self.bpf.set_global("nr_entries", &0u32)?;
        self.bpf.set_global("flags", &[0u32; 8])?;
        let errno = match self.perform(step) {
            Ok(()) => 0,
            Err(Error::Map { errno, .. }) => errno.0,
            Err(other) => return Err(other),
        };
        self.sim.run_for(micros(100))?;
        let count = self.bpf.global("nr_entries")?;
        let entries = parse_entries(&self.bpf.global_bytes("entries")?, count);
        Ok(Outcome { errno, entries })
    }
}

/// The first difference between what two machines say of a sequence.
fn difference(sequence: &Sequence, linux: &[Outcome], sim: &[Outcome]) -> Option<String> {
    let at = (0..linux.len()).find(|&i| linux.get(i) != sim.get(i))?;
    Some(format!(
        "step {at}: {:?}\n scripts {:?}\n   Linux {:?}\n  bpfsim {:?}\n  before: {:?}",
        sequence.steps[at],
        sequence.scripts,
        linux[at],
        sim.get(at),
        &sequence.steps[..at],
    ))
}

/// Runs the first sequences of a kind on bpfsim and holds them against what Linux answered.
fn compare(kind: Kind, linux: &[Vec<Outcome>]) {
    let object = std::fs::read(fixture("async_ops.bpf.o")).unwrap();
    let count = linux.len() as u64;
    let ours = run_all(kind, count, || SimMachine::new(&object)).unwrap();
    let wrong = (0..count).filter_map(|number| {
        let (linux, ours) = (&linux[number as usize], &ours[number as usize]);
        let text = difference(&Sequence::random(kind, number), linux, ours)?;
        Some(format!("{kind:?} {number}, {text}"))
    });
    let wrong: Vec<String> = wrong.collect();
    let (n, first) = (wrong.len(), &wrong[..wrong.len().min(3)]);
    assert!(
        wrong.is_empty(),
        "{n} of {count} unlike Linux:\n{}",
        first.join("\n\n")
    );
}

#[test]
fn as_recorded() {
    let text = std::fs::read_to_string(fixture("async_sequences.json")).unwrap();
    let recorded: Recorded = serde_json::from_str(&text).unwrap();
    assert_eq!(recorded.len(), Kind::ALL.len());
    for (kind, answers) in recorded {
        assert_eq!(answers.len() as u64, RECORDED);
        compare(kind, &answers);
    }
}

/// As many as the variable asks for; 25 of each kind where nobody asks.
fn wanted() -> u64 {
    let asked = std::env::var("ASYNC_SEQUENCES").ok();
    asked.map_or(25, |n| n.parse().expect("ASYNC_SEQUENCES is a number"))
}

#[test]
fn as_the_running_kernel() {
    let Some(linux) = or_skip("as_the_running_kernel") else {
        return;
    };
    assert!(stay_on_cpu(0));
    for kind in Kind::ALL {
        let bytes = std::fs::read(fixture("async_ops.bpf.o")).unwrap();
        compare(
            kind,
            &LinuxMachine::run_all(&linux, &bytes, kind, wanted()).unwrap(),
        );
    }
}
