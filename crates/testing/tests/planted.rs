//! The generator finds bugs: of twenty planted in the verifier's rules, one by one, at least eighteen
//! make it say something else of some random program.
//!
//! A test binary of its own, since a bug is planted for the whole process.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use bpfsim_testing::verdicts::ask::{Answer, Sim};
use bpfsim_testing::verdicts::{Dice, Flat, random};
use bpfsim_verifier::planted::{BUGS, plant};

/// Programs before a bug counts as not found.
const PROGRAMS: usize = 8_000;
/// All of it takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn planted_bugs_are_found() {
    let sim = Sim::new(2).unwrap();
    let mut known: Vec<(Flat, Answer)> = Vec::new();
    let start = Instant::now();
    let mut missed = Vec::new();
    for (bug, what) in BUGS.iter().enumerate() {
        let found = (0..PROGRAMS).find(|seed| {
            if known.len() == *seed {
                plant(None);
                let flat = random(&mut Dice::seeded(*seed as u64)).flat();
                let answer = sim.ask(&flat, 4);
                known.push((flat, answer));
            }
            plant(Some(bug));
            let (flat, answer) = &known[*seed];
            !sim.ask(flat, 4).same(answer)
        });
        match found {
            Some(n) => println!("after {n:4} programs: {what}"),
            None => missed.push(what),
        }
        if start.elapsed() > PATIENCE {
            missed.extend(&BUGS[bug + 1..]);
            break;
        }
    }
    plant(None);
    println!("{} of {} missed: {missed:?}", missed.len(), BUGS.len());
    assert!(missed.len() <= 2, "not found: {missed:?}");
}
