//! One machine for one execution of a test after another.

use crate::setup::Setup;
use crate::user::Users;
use crate::{Cache, Config, Result, Sim};
use bpfsim_kernel::Chooser;

/// A machine that begins anew for each execution of a test, instead of being made anew.
///
/// What an execution begins with - what it loads, the programs that it spawns, its system calls - is
/// done once: the next one that begins with the same finds the machine as it was after that.
///
/// ```
/// use bpfsim::{Config, Machine, Seed};
///
/// let machine = Machine::new(Config::default())?;
/// let hash = |seed| -> bpfsim::Result<u64> {
///     let sim = machine.begin(seed, Seed(seed).chooser());
///     sim.run_until_idle()?;
///     Ok(sim.trace_hash())
/// };
/// assert_eq!(hash(7)?, hash(7)?);
/// # Ok::<(), bpfsim::Error>(())
/// ```
pub struct Machine {
    sim: Sim,
}

impl Machine {
    /// A machine of this configuration.
    pub fn new(config: Config) -> Result<Machine> {
        let sim = Sim::with(config, crate::Seed::USUAL)?;
        let begin = sim.kernel_mut().snapshot();
        sim.setup().replace(Setup::new(begin));
        Ok(Machine { sim })
    }

    /// As [`Sim::use_cache`].
    pub(crate) fn use_cache(&self, cache: &Cache) {
        self.sim.use_cache(cache);
    }

    /// Everything is as it was when the machine was made, but for the seed of random helpers, and
    /// `chooser` decides what comes.
    pub fn begin(&self, seed: u64, chooser: Box<dyn Chooser>) -> &Sim {
        self.sim.at_once().begin_alone();
        self.prepare(seed, chooser)
    }

    fn prepare(&self, seed: u64, chooser: Box<dyn Chooser>) -> &Sim {
        Users::clear(&self.sim);
        self.sim.forget_objects();
        // Whatever comes first says what to go back to.
        let mut kernel = self.sim.at_once();
        kernel.forget_test();
        kernel.set_chooser(chooser);
        drop(kernel);
        self.sim.setup().borrow_mut().begin(seed);
        &self.sim
    }

    /// From here on executions can go back to the choices of the one before: [`Machine::again`].
    pub fn remember(&self) {
        self.sim.kernel_mut().remember();
    }

    /// [`Machine::begin`] for an execution that makes the first `keep` choices of the last one
    /// again. The test runs from its start, but what the simulation did between those choices is
    /// not done again; where code of user space ([`Sim::spawn_user`]) has turns, it is.
    pub fn again(&self, seed: u64, keep: usize, chooser: Box<dyn Chooser>) -> &Sim {
        let sim = self.prepare(seed, chooser);
        sim.at_once().again(keep);
        sim
    }
}
