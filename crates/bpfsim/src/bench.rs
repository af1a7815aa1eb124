//! Running a program again and again, for benches.

use crate::{ProgramMut, Result};
use bpfsim_kernel::{KernelSnapshot, ProgramInput, ProgramOutput};

/// A program and what it is run with, to be run again and again: [`ProgramMut::bench`].
///
/// Runs leave their traces in maps, as those on Linux do; every [so many](Bench::FRESH_AFTER) the
/// simulation goes back to as it was when the bench was made, so that a bench does not grow.
///
/// With criterion:
///
/// ```no_run
/// # use bpfsim::{Ebpf, ProgramInput, Sim};
/// # fn iter(mut f: impl FnMut() -> bpfsim::Result<u64>) { f().unwrap(); }
/// # fn main() -> bpfsim::Result<()> {
/// # let object: &[u8] = &[];
/// let sim = Sim::new()?;
/// let mut bpf = Ebpf::load(&sim, object)?;
/// let program = bpf.program_mut("ct_ingress")?;
/// let mut bench = program.bench(ProgramInput::packet(&[0; 64]))?;
/// // c.bench_function("ct_ingress", |b| b.iter(|| bench.run()));
/// iter(|| bench.run());
/// # Ok(())
/// # }
/// ```
pub struct Bench<'a> {
    program: ProgramMut<'a>,
    input: ProgramInput,
    begin: KernelSnapshot,
    runs: u32,
    first: ProgramOutput,
}

impl<'a> Bench<'a> {
    /// Runs after which the simulation is as it was at first.
    pub const FRESH_AFTER: u32 = 4096;

    pub(crate) fn new(mut program: ProgramMut<'a>, input: ProgramInput) -> Result<Bench<'a>> {
        let begin = program.sim().kernel_mut().snapshot();
        let first = program.test_run(input.clone())?;
        let mut bench = Bench {
            program,
            input,
            begin,
            runs: 0,
            first,
        };
        bench.begin_anew();
        Ok(bench)
    }

    /// What the first run gave.
    pub fn first(&self) -> &ProgramOutput {
        &self.first
    }

    /// Runs of the program that one [`Bench::run`] makes: those that its input asks for.
    pub fn runs_at_once(&self) -> u32 {
        self.input.repeat.max(1)
    }

    /// Runs the program once, or as often as the input says, and gives the instructions of the last
    /// run.
    pub fn run(&mut self) -> Result<u64> {
        if self.runs >= Bench::FRESH_AFTER {
            self.begin_anew();
        }
        self.runs += self.runs_at_once();
        Ok(self.program.test_run(self.input.clone())?.insns)
    }

    fn begin_anew(&mut self) {
        self.runs = 0;
        let own = self.program.sim().kernel_mut().restore(&self.begin);
        debug_assert!(own.is_ok(), "the snapshot is of this very kernel");
    }
}
