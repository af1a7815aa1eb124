//! What executions of a test begin with, done once.
//!
//! A test loads an object, fills its maps and spawns programs before anything is a matter of order,
//! in every execution the same. The first execution remembers the machine after each of these steps;
//! a later one that makes the same steps is told what came of them, and the machine is set back only
//! when something else is done: to as it was after the last step that was the same.

use crate::EbpfLoader;
use crate::ebpf::Loading;
use bpfsim_kernel::{
    Beginnings, Cpu, Job, Kernel, KernelSnapshot, ProgId, ProgramInput, SysOp, SysResult,
};
use std::rc::Rc;

/// The bytes of an object.
#[derive(Clone, Copy)]
pub(crate) enum Bytes<'a> {
    Any(&'a [u8]),
    /// They never change.
    Static(&'static [u8]),
}

/// Bytes that were loaded.
enum KnownBytes {
    Copy(Vec<u8>),
    Static(&'static [u8]),
}

impl<'a> Bytes<'a> {
    pub fn get(self) -> &'a [u8] {
        match self {
            Bytes::Any(bytes) => bytes,
            Bytes::Static(bytes) => bytes,
        }
    }

    fn known(self) -> KnownBytes {
        match self {
            Bytes::Any(bytes) => KnownBytes::Copy(bytes.to_vec()),
            Bytes::Static(bytes) => KnownBytes::Static(bytes),
        }
    }

    fn are(self, known: &KnownBytes) -> bool {
        match (self, known) {
            // What never changes is the same where it is the same.
            (Bytes::Static(a), KnownBytes::Static(b)) if std::ptr::eq(a, *b) => true,
            (bytes, KnownBytes::Static(known)) => bytes.get() == *known,
            (bytes, KnownBytes::Copy(known)) => bytes.get() == known,
        }
    }
}

/// A step that tests begin with.
pub(crate) enum Step<'a> {
    Load(&'a EbpfLoader, Bytes<'a>),
    Spawn(Cpu, ProgId, &'a ProgramInput),
    Syscall(&'a SysOp),
}

/// What came of one.
#[derive(Clone)]
pub(crate) enum Came {
    Loaded(Rc<Loading>),
    Spawned(Job),
    Returned(SysResult),
}

/// A step as it was made.
enum Made {
    Load(Box<EbpfLoader>, KnownBytes),
    Spawn(Cpu, ProgId, ProgramInput),
    Syscall(SysOp),
}

struct Known {
    made: Made,
    came: Came,
    after: KernelSnapshot,
    /// How the simulation went on from there.
    beginnings: Beginnings,
}

/// Steps that are remembered at most.
const MOST: usize = 32;

/// Where executions begin.
#[derive(Default)]
pub(crate) struct Setup {
    begin: Option<KernelSnapshot>,
    known: Vec<Known>,
    /// Steps that this execution has made.
    made: usize,
    /// The machine is as the last execution left it, and is to be as after these steps.
    pending: bool,
    /// This execution has done nothing but such steps.
    fresh: bool,
    seed: u64,
}

impl Step<'_> {
    fn is(&self, made: &Made) -> bool {
        match (self, made) {
            (Step::Load(loader, bytes), Made::Load(l, b)) => bytes.are(b) && **l == **loader,
            (Step::Spawn(cpu, prog, input), Made::Spawn(c, p, i)) => {
                (cpu, prog) == (c, p) && input.is_like(i)
            }
            (Step::Syscall(op), Made::Syscall(o)) => *op == o,
            _ => false,
        }
    }

    fn made(&self) -> Made {
        match *self {
            Step::Load(loader, bytes) => Made::Load(Box::new(loader.clone()), bytes.known()),
            Step::Spawn(cpu, prog, input) => Made::Spawn(cpu, prog, input.clone()),
            Step::Syscall(op) => Made::Syscall(op.clone()),
        }
    }
}

impl Setup {
    /// Of executions that begin in this state.
    pub fn new(begin: KernelSnapshot) -> Setup {
        Setup {
            begin: Some(begin),
            ..Setup::default()
        }
    }

    /// An execution begins.
    pub fn begin(&mut self, seed: u64) {
        (self.seed, self.made) = (seed, 0);
        (self.pending, self.fresh) = (true, true);
    }

    /// What comes is no step that is remembered. True when the machine is not yet what it is taken
    /// for: then [`Setup::settle`] it.
    #[inline]
    pub fn leave(&mut self) -> bool {
        self.fresh = false;
        self.pending
    }

    /// Makes the machine what it is taken for.
    #[inline]
    pub fn settle(&mut self, kernel: &mut Kernel) {
        if self.leave() {
            self.go_back(kernel);
        }
    }

    /// What the machine is taken for and is not yet, and the seed. It is up to the caller to make
    /// it that.
    pub fn take_pending(&mut self) -> Option<(&KernelSnapshot, &mut Beginnings, u64)> {
        if !self.leave() {
            return None;
        }
        // Without any step nothing goes on.
        let known = &mut self.known[self.made.checked_sub(1)?];
        self.pending = false;
        Some((&known.after, &mut known.beginnings, self.seed))
    }

    /// The machine after the steps that were made.
    fn after(&self) -> Option<&KernelSnapshot> {
        let after = self.made.checked_sub(1).map(|i| &self.known[i].after);
        after.or(self.begin.as_ref())
    }

    fn go_back(&mut self, kernel: &mut Kernel) {
        self.pending = false;
        if let Some(to) = self.after() {
            let own = kernel.restore(to);
            debug_assert!(own.is_ok(), "snapshots are of this very kernel");
            kernel.reseed(self.seed);
        }
    }

    /// What came of a step, if it need not be made; otherwise the machine is ready for it.
    pub fn known(&mut self, kernel: &mut Kernel, step: &Step<'_>) -> Option<Came> {
        if !self.fresh {
            return None;
        }
        if self.pending {
            if let Some(known) = self.known.get(self.made)
                && step.is(&known.made)
            {
                self.made += 1;
                return Some(known.came.clone());
            }
            self.go_back(kernel);
            // Another test, or one whose beginnings differ: what is known stays.
            self.fresh = self.made == self.known.len();
        }
        None
    }

    /// It was made.
    pub fn note(&mut self, kernel: &mut Kernel, step: &Step<'_>, came: impl FnOnce() -> Came) {
        if !self.fresh || self.begin.is_none() || self.known.len() >= MOST {
            self.fresh = false;
            return;
        }
        self.known.push(Known {
            made: step.made(),
            came: came(),
            after: kernel.snapshot(),
            beginnings: Beginnings::default(),
        });
        self.made += 1;
    }
}
