//! How long a run takes, by the clock of the thread, engines taking turns.

use crate::engines::{ENGINES, Engine, Make, check};
use crate::programs::Program;
use crate::reference::{self, Outcome};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

/// What the engines took for one program.
#[derive(Debug, Clone)]
pub struct Row {
    /// The program.
    pub name: String,
    /// Costs are for a run, not for an instruction.
    pub per_run: bool,
    /// Instructions of one run.
    pub insns: u64,
    /// For each engine, the median over the rounds, in ns.
    pub ns: Vec<f64>,
}

/// Measures all of [`ENGINES`] on one of the twelve programs: `rounds` rounds, in each of which every
/// engine runs for about `share` ns. Taking turns keeps what the machine does meanwhile from falling
/// on one alone.
///
/// # Panics
/// If an engine's result or count is not the reference's.
pub fn measure(program: &Program, rounds: usize, share: f64) -> Row {
    let expected = reference::run(program);
    measure_with(ENGINES, program, expected, rounds, share).unwrap_or_else(|why| panic!("{why}"))
}

/// As [`measure`], these engines alone, of which each must give what is expected.
///
/// # Errors
/// If one does not, or cannot run the program.
pub fn measure_with(
    engines: &[(&str, Make)],
    program: &Program,
    expected: Outcome,
    rounds: usize,
    share: f64,
) -> Result<Row, String> {
    let mut running: Vec<(Box<dyn Engine>, u64, Vec<f64>)> = Vec::new();
    for (name, make) in engines {
        let mut engine = make(program)?;
        // Nothing is to be left over for the next run.
        for _ in 0..3 {
            check(name, program, &mut *engine, expected)?;
        }
        let once = time(&mut *engine, 10).max(5.0);
        let times = (share / once).clamp(1.0, 1e6) as u64;
        running.push((engine, times, Vec::with_capacity(rounds)));
    }
    for _ in 0..rounds {
        for (engine, times, samples) in &mut running {
            samples.push(time(&mut **engine, *times));
        }
    }
    let per = if program.per_run {
        1.0
    } else {
        expected.insns as f64
    };
    Ok(Row {
        name: program.name.clone(),
        per_run: program.per_run,
        insns: expected.insns,
        ns: running
            .into_iter()
            .map(|(_, _, s)| median(s) / per)
            .collect(),
    })
}

/// CPU time of one run, averaged over `times`, in ns.
fn time(engine: &mut dyn Engine, times: u64) -> f64 {
    let start = thread_ns();
    for _ in 0..times {
        black_box(engine.run());
    }
    (thread_ns() - start) / times as f64
}

fn thread_ns() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// The middle of some numbers.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The geometric mean of some ratios.
pub fn geomean(of: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, n) = of
        .into_iter()
        .fold((0.0, 0.0), |(s, n), x: f64| (s + x.ln(), n + 1.0));
    (sum / n).exp()
}
