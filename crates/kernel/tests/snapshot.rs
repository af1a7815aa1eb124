//! Going back to a snapshot and on from there is the same as never having been elsewhere.

use bpfsim_kernel::{
    Chooser, Config, Cpu, Goal, Kernel, KernelSnapshot, Loaded, MapId, Offer, Paused, Policy,
    Prepared, Profile, ProgramInput, Usual, mix,
};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Random choices whose generator can be set back.
struct Draws(Rc<Cell<u64>>);

impl Chooser for Draws {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.0.set(mix(self.0.get(), 1));
        (self.0.get() >> 33) as usize % offer.choices.len()
    }

    fn explores(&self) -> bool {
        true
    }
}

/// One step of what a test does with a kernel.
#[derive(Clone, Copy, Debug)]
enum Do {
    Load,
    /// A test run of this program, to its end.
    Run(usize),
    /// This program on another CPU, side by side with what comes.
    Spawn(usize),
    Advance,
    /// All that is due within a millisecond.
    Pass,
}

struct Machine {
    kernel: Kernel,
    random: Rc<Cell<u64>>,
    object: Vec<u8>,
    loaded: Option<Loaded>,
}

struct Saved {
    kernel: KernelSnapshot,
    random: u64,
    loaded: Option<Loaded>,
}

impl Machine {
    fn new(object: &[u8], seed: u64) -> Machine {
        let random = Rc::new(Cell::new(seed));
        let mut kernel = Kernel::new(Config::default()).expect("a kernel");
        kernel.set_chooser(match seed {
            0 => Box::new(Usual),
            _ => Box::new(Draws(Rc::clone(&random))),
        });
        Machine {
            kernel,
            random,
            object: object.to_vec(),
            loaded: None,
        }
    }

    fn save(&mut self) -> Saved {
        Saved {
            kernel: self.kernel.snapshot(),
            random: self.random.get(),
            loaded: self.loaded.clone(),
        }
    }

    fn restore(&mut self, saved: &Saved) {
        self.kernel.restore(&saved.kernel).expect("its own");
        self.random.set(saved.random);
        self.loaded.clone_from(&saved.loaded);
    }

    fn input(&self, prog: usize) -> ProgramInput {
        let id = self.loaded.as_ref().expect("loaded").programs[prog].1;
        match self.kernel.takes_packet(id) {
            true => ProgramInput::packet(&[0; 64]),
            false => ProgramInput::empty(),
        }
    }

    /// Does it, and says all that a user could see of what it led to.
    fn step(&mut self, step: Do) -> String {
        let answer = match step {
            Do::Load => {
                let object = bpfsim_loader::load(&self.object).expect("an object");
                let profile = Profile::reference().expect("types");
                let prepared = Prepared::new(object, &profile, Policy::default());
                let loaded = prepared.and_then(|p| self.kernel.load(&p));
                self.loaded = loaded.ok();
                String::new()
            }
            Do::Run(prog) => {
                let input = self.input(prog);
                let id = self.loaded.as_ref().expect("loaded").programs[prog].1;
                let job = self.kernel.start_test_run(id, input);
                let ran = self.run(Goal::Job(job));
                format!("{ran} {:?}", self.kernel.take_result(job))
            }
            Do::Spawn(prog) => {
                let input = self.input(prog);
                let id = self.loaded.as_ref().expect("loaded").programs[prog].1;
                format!("{:?}", self.kernel.spawn_on(Cpu(1), id, input))
            }
            Do::Advance => {
                self.kernel.advance(100_000);
                String::new()
            }
            Do::Pass => {
                let until = self.kernel.now() + 1_000_000;
                self.run(Goal::Until(until))
            }
        };
        format!("{step:?}: {answer}\n{}", self.state())
    }

    fn run(&mut self, goal: Goal) -> String {
        loop {
            match self.kernel.run(goal) {
                Ok(Paused::Reached) => return "reached".into(),
                Ok(Paused::User(_)) => {}
                Err(failure) => return failure.to_string(),
            }
        }
    }

    fn state(&mut self) -> String {
        let mut out = format!(
            "{} {:#x}\n{:?}\n",
            self.kernel.now(),
            self.kernel.trace().hash(),
            self.kernel.trace().events(),
        );
        let maps: Vec<MapId> = self.kernel.maps().map(|(id, _)| id).collect();
        for map in maps {
            let mut key = None;
            for _ in 0..100 {
                let Ok(next) = self.kernel.map_next_key(map, key.as_deref()) else {
                    break;
                };
                let value = self.kernel.map_lookup(map, &next);
                out += &format!("{map} {next:?} {value:?}\n");
                key = Some(next);
            }
        }
        out
    }
}

fn objects() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let files = std::fs::read_dir(dir).expect("fixtures");
    let mut files: Vec<_> = files
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|f| f.to_string_lossy().ends_with(".bpf.o"))
        .collect();
    files.sort();
    files
}

/// A script for the object: all programs, with time passing in between.
fn script(object: &[u8], random: &mut u64) -> Option<Vec<Do>> {
    let mut machine = Machine::new(object, 0);
    machine.step(Do::Load);
    let programs = machine.loaded?.programs.len();
    let mut below = |n: usize| {
        *random = mix(*random, 3);
        (*random >> 33) as usize % n
    };
    let mut steps = vec![Do::Load];
    for _ in 0..12 * programs.min(1) {
        steps.push(match below(5) {
            0 | 1 => Do::Run(below(programs)),
            2 => Do::Spawn(below(programs)),
            3 => Do::Advance,
            _ => Do::Pass,
        });
    }
    Some(steps)
}

#[test]
fn to_go_on_from_a_snapshot_is_like_a_fresh_run() {
    let mut random = 7;
    let mut tried = 0;
    for path in objects() {
        let object = std::fs::read(&path).expect("the object");
        for seed in [0, 1, 2, 3] {
            let Some(steps) = script(&object, &mut random) else {
                continue;
            };
            let mut fresh = Machine::new(&object, seed);
            let want: Vec<String> = steps.iter().map(|s| fresh.step(*s)).collect();

            let mut machine = Machine::new(&object, seed);
            // `saved[i]` is what was before step i.
            let mut saved = vec![machine.save()];
            for (i, step) in steps.iter().enumerate() {
                assert_eq!(
                    machine.step(*step),
                    want[i],
                    "{path:?} seed {seed} step {i}"
                );
                saved.push(machine.save());
            }
            for _ in 0..12 {
                random = mix(random, 5);
                let from = (random >> 33) as usize % steps.len();
                let to = (from + 1 + (random >> 50) as usize % 4).min(steps.len());
                machine.restore(&saved[from]);
                for i in from..to {
                    let got = machine.step(steps[i]);
                    assert_eq!(
                        got, want[i],
                        "{path:?} seed {seed}: again from {from} to {i}"
                    );
                    if random & 1 == 0 {
                        saved[i + 1] = machine.save();
                    }
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried} scripts");
}

#[test]
fn a_snapshot_is_of_one_moment_whatever_is_held_beside_it() {
    let object = std::fs::read(&objects()[0]).expect("an object");
    let mut machine = Machine::new(&object, 1);
    let begin = machine.save();
    let first = machine.step(Do::Load);
    let mut other = machine.kernel.snapshot();
    machine.restore(&begin);
    machine.kernel.snapshot_into(&mut other);
    machine.step(Do::Load);
    machine.kernel.restore(&other).expect("its own");
    assert_eq!(machine.step(Do::Load), first);
}
