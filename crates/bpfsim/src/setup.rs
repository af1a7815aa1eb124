//! What executions of a test begin with, done once.
//!
//! A test loads an object, fills its maps and spawns programs before anything is a matter of order,
//! in every execution the same. The first execution remembers the machine after each of these steps;
//! a later one that makes the same steps is told what came of them, and the machine is set back only
//! when something else is done: to as it was after the last step that was the same.

use crate::EbpfLoader;
use crate::ebpf::Loading;
use bpfsim_kernel::{
    Beginnings, Cpu, Job, Kernel, KernelSnapshot, MapId, ProgId, ProgramInput, SysOp, SysResult,
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
pub(crate) enum KnownBytes {
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
pub(crate) trait Step {
    /// What comes of it.
    type Came;

    /// What came of a step, if that was this one.
    fn came(&self, made: &Made) -> Option<Self::Came>;

    /// It was made, and this came of it; `None` where it is not over.
    fn made(&self, came: &Self::Came) -> Option<Made>;
}

/// An object is loaded; without a loader, as objects usually are.
pub(crate) struct Load<'a>(pub Option<&'a EbpfLoader>, pub Bytes<'a>);

/// A program is spawned.
pub(crate) struct Spawn<'a>(pub Cpu, pub ProgId, pub &'a ProgramInput);

/// The test makes a system call.
pub(crate) struct Syscall<'a>(pub &'a SysOp);

/// The test writes to global data of an object, from a place in there on.
pub(crate) struct Write<'a>(pub MapId, pub usize, pub &'a [u8]);

/// A step as it was made, and what came of it.
pub(crate) enum Made {
    Load(Option<Box<EbpfLoader>>, KnownBytes, Rc<Loading>),
    Spawn(Cpu, ProgId, ProgramInput, Job),
    Syscall(SysOp, SysResult),
    Write(MapId, usize, Box<[u8]>),
}

struct Known {
    made: Made,
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

impl Step for Load<'_> {
    type Came = Rc<Loading>;

    #[inline]
    fn came(&self, made: &Made) -> Option<Rc<Loading>> {
        let (Load(loader, bytes), Made::Load(l, b, came)) = (self, made) else {
            return None;
        };
        (bytes.are(b) && *loader == l.as_deref()).then(|| Rc::clone(came))
    }

    fn made(&self, came: &Rc<Loading>) -> Option<Made> {
        let loader = self.0.map(|loader| Box::new(loader.clone()));
        Some(Made::Load(loader, self.1.known(), Rc::clone(came)))
    }
}

impl Step for Spawn<'_> {
    type Came = Job;

    #[inline]
    fn came(&self, made: &Made) -> Option<Job> {
        let (Spawn(cpu, prog, input), Made::Spawn(c, p, i, came)) = (self, made) else {
            return None;
        };
        ((cpu, prog) == (c, p) && input.is_like(i)).then_some(*came)
    }

    fn made(&self, came: &Job) -> Option<Made> {
        Some(Made::Spawn(self.0, self.1, self.2.clone(), *came))
    }
}

impl Step for Syscall<'_> {
    /// Where it waits, what for.
    type Came = Result<SysResult, Job>;

    fn came(&self, made: &Made) -> Option<Self::Came> {
        match made {
            Made::Syscall(op, came) if op == self.0 => Some(Ok(came.clone())),
            _ => None,
        }
    }

    fn made(&self, came: &Self::Came) -> Option<Made> {
        let came = came.as_ref().ok()?;
        Some(Made::Syscall(self.0.clone(), came.clone()))
    }
}

impl Step for Write<'_> {
    type Came = ();

    fn came(&self, made: &Made) -> Option<()> {
        match made {
            Made::Write(map, at, bytes) => {
                ((*map, *at) == (self.0, self.1) && **bytes == *self.2).then_some(())
            }
            _ => None,
        }
    }

    fn made(&self, (): &()) -> Option<Made> {
        Some(Made::Write(self.0, self.1, self.2.into()))
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

    /// What the machine is taken for, where it is not yet that: to look at something that no step changes.
    pub fn pending(&self) -> Option<&KernelSnapshot> {
        self.after().filter(|_| self.pending)
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

    /// What came of a step, if it need not be made.
    #[inline]
    pub fn known<S: Step>(&mut self, step: &S) -> Option<S::Came> {
        if !(self.fresh && self.pending) {
            return None;
        }
        let came = step.came(&self.known.get(self.made)?.made)?;
        self.made += 1;
        Some(came)
    }

    /// A step is not known: the machine is made ready for it.
    pub fn make_ready(&mut self, kernel: &mut Kernel) {
        if self.fresh && self.pending {
            self.go_back(kernel);
            // Another test, or one whose beginnings differ: what is known stays.
            self.fresh = self.made == self.known.len();
        }
    }

    /// It was made.
    pub fn note<S: Step>(&mut self, kernel: &mut Kernel, step: &S, came: &S::Came) {
        let is_next = self.fresh && self.begin.is_some() && self.known.len() < MOST;
        let made = match is_next {
            true => step.made(came),
            false => None,
        };
        let Some(made) = made else {
            self.fresh = false;
            return;
        };
        self.known.push(Known {
            made,
            after: kernel.snapshot(),
            beginnings: Beginnings::default(),
        });
        self.made += 1;
    }
}
