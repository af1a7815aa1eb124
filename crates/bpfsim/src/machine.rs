//! One machine for one execution of a test after another.

use crate::ebpf::Parts;
use crate::user::Users;
use crate::{Cache, Config, EbpfLoader, Result, Sim};
use bpfsim_kernel::{Chooser, Kernel, KernelSnapshot};
use std::cell::{Cell, RefCell};

/// A machine that begins anew for each execution of a test, instead of being made anew.
///
/// What an execution loads first is read, checked and lowered once: the next one that begins with
/// the same load finds the machine as it was after it.
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
        sim.origin().begin.replace(Some(begin));
        Ok(Machine { sim })
    }

    /// Everything is as it was when the machine was made, but for the seed of random helpers, and
    /// `chooser` decides what comes.
    pub fn begin(&self, seed: u64, chooser: Box<dyn Chooser>) -> &Sim {
        Users::clear(&self.sim);
        self.sim.forget_objects();
        let origin = self.sim.origin();
        origin.seed.set(seed);
        // Whatever comes first says what to go back to.
        origin.pending.set(false);
        self.sim.kernel_mut().set_chooser(chooser);
        origin.pending.set(true);
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
        let sim = self.begin(seed, chooser);
        sim.origin().pending.set(false);
        sim.kernel_mut().again(keep);
        sim.origin().pending.set(true);
        sim
    }
}

/// Where a simulation begins.
#[derive(Default)]
pub(crate) struct Origin {
    begin: RefCell<Option<KernelSnapshot>>,
    /// The simulation is still as the last execution left it.
    pending: Cell<bool>,
    seed: Cell<u64>,
    /// What the last execution began with.
    first: RefCell<Option<FirstLoad>>,
    /// Objects that need not be read and verified again.
    pub cache: RefCell<Cache>,
}

/// A load that was the first thing that an execution did.
struct FirstLoad {
    loader: EbpfLoader,
    bytes: Vec<u8>,
    parts: Parts,
    after: KernelSnapshot,
}

impl Origin {
    /// Goes back to the beginning, unless that is done.
    #[inline]
    pub fn settle(&self, kernel: &RefCell<Kernel>) {
        if self.pending.get() {
            self.go_back(&mut kernel.borrow_mut());
        }
    }

    fn go_back(&self, kernel: &mut Kernel) {
        self.pending.set(false);
        if let Some(begin) = &*self.begin.borrow() {
            self.restore(kernel, begin);
        }
    }

    fn restore(&self, kernel: &mut Kernel, to: &KernelSnapshot) {
        let own = kernel.restore(to);
        debug_assert!(own.is_ok(), "snapshots are of this very kernel");
        kernel.reseed(self.seed.get());
    }

    /// Loads by `load`, unless this execution begins with what another one began with.
    pub fn load(
        &self,
        kernel: &RefCell<Kernel>,
        loader: &EbpfLoader,
        bytes: &[u8],
        load: impl FnOnce(&mut Kernel) -> Result<Parts>,
    ) -> Result<Parts> {
        let kernel = &mut *kernel.borrow_mut();
        if !self.pending.get() {
            return load(kernel);
        }
        if let Some(first) = &*self.first.borrow()
            && first.bytes == bytes
            && first.loader == *loader
        {
            self.pending.set(false);
            self.restore(kernel, &first.after);
            return Ok(first.parts.clone());
        }
        self.go_back(kernel);
        let parts = load(kernel)?;
        self.first.replace(Some(FirstLoad {
            loader: loader.clone(),
            bytes: bytes.to_vec(),
            parts: parts.clone(),
            after: kernel.snapshot(),
        }));
        Ok(parts)
    }
}
