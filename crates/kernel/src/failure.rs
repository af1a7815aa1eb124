//! How a simulation can fail, and what it finds on the way.
//!
//! A [`Failure`] ends a run of the simulation. A [`Warning`] is the same thing said of something
//! that Linux lets happen: the run goes on, and [`Kernel::warnings`](crate::Kernel::warnings) has
//! it. Which detectors look, and which of their findings end the run, is
//! [`Config::detectors`](crate::Config::detectors). A finding names both sides where there are
//! two: [`Failure::who`] and [`Failure::place`] say who did it and where, [`Failure::other`] who
//! it met.
//!
//! | kind | what it means | by default |
//! |---|---|---|
//! | [`Fault`](FailureKind::Fault) | a program did what it must not: an access where there is no memory, beside the allocation that its pointer is to, of stack that was never written, to what was freed; a [write by a stale pointer](bpfsim_vm::FaultKind::StaleWrite) into somebody else's element; too many frames | fails |
//! | [`Deadlock`](FailureKind::Deadlock) | executions wait for each other in a circle: two locks taken in both orders, cancels of each other's timers, a callback waited for by whom it interrupts | fails |
//! | [`Livelock`](FailureKind::Livelock) | callbacks make each other run for ever at one instant | fails |
//! | [`Fuel`](FailureKind::Fuel) | a program does not end | fails |
//! | [`LeftOver`](FailureKind::LeftOver) | a program returned with a lock held, interrupts or preemption off, a reference not given back | fails |
//! | [`NeverRan`](FailureKind::NeverRan) | arming a callback returned 0, its time has come, and at the end it has not run; or its element was evicted or replaced meanwhile, and nobody cancelled it | fails; evicted: warns |
//! | [`Stale`](FailureKind::Stale) | an access by a pointer to an element that is gone: a read, or a write before the memory is another's. Linux permits it under RCU; what is read may be another element's | warns |
//! | [`NoPage`](FailureKind::NoPage) | an access to a page of an arena that was freed, or never allocated. Linux lets it happen: what is read is 0, and what is written is lost | warns |
//! | [`UnwrittenArgument`](FailureKind::UnwrittenArgument) | a helper reads stack some bytes of which were never written, such as the padding of a key | warns |
//! | [`LostUpdate`](FailureKind::LostUpdate) | an execution loaded a value and later stored to it, another stored in between, and that store is lost. Counters of statistics may want no better | warns |
//! | [`DataRace`](FailureKind::DataRace) | two accesses, one a plain store, that no lock, no arming and no waiting puts in an order | warns |
//! | [`Nondeterminism`](FailureKind::Nondeterminism) | one order run twice gave two traces: the test draws on something outside of the simulation | fails |

use crate::choose::Waiting;
use crate::ids::{Cpu, CtxId};
use crate::kernel::BOOTED;
use crate::spot::Spot;
use crate::trace::{AsyncKind, Element};
use bpfsim_vm::{Access, AccessKind, Fault, FaultKind};
use std::fmt;

/// A place in a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The program.
    pub program: String,
    /// The function in it.
    pub function: String,
    /// Instruction index.
    pub insn: u32,
    /// File, line number and text of the C line, where the object has them.
    pub line: Option<(String, u32, String)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, insn {}", self.function, self.insn)?;
        if let Some((file, line, text)) = &self.line {
            write!(f, " ({file}:{line}: `{}`)", text.trim())?;
        }
        Ok(())
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A program did what it must not.
    Fault(Fault),
    /// Executions wait for each other, and nothing else can go on. Where they do so in a circle,
    /// each waits for the next, and the last for the first.
    Deadlock(Vec<Blocked>),
    /// Callbacks make each other run for ever at one instant.
    Livelock {
        /// Callbacks that ran.
        callbacks: u64,
    },
    /// A program did not end within its instructions.
    Fuel {
        /// How many it had.
        insns: u64,
    },
    /// A program or callback returned with something that it must give back first.
    LeftOver(LeftOver),
    /// A callback whose arming returned 0 has not run though it was due, or never will.
    NeverRan {
        /// Which kind.
        kind: AsyncKind,
        /// Its element.
        element: Element,
        /// When it was due.
        due: u64,
        /// Its element was evicted or replaced.
        dropped: bool,
    },
    /// An access by a pointer to an element that is gone.
    Stale {
        /// Its address.
        addr: u64,
        /// Bytes.
        size: u32,
        /// A store or an atomic.
        write: bool,
        /// The memory is another element's by now.
        recycled: bool,
    },
    /// An access to a page of an arena that is not there.
    NoPage {
        /// The address, as the program had it.
        addr: u64,
        /// Bytes.
        size: u32,
        /// A store or an atomic.
        write: bool,
    },
    /// A helper or kfunc read stack of which some bytes were never written.
    UnwrittenArgument {
        /// Number of the argument, from 1.
        arg: u8,
    },
    /// A store overwrote what another execution had stored since this one loaded the value.
    LostUpdate(Access),
    /// An access that nothing puts in an order with another execution's.
    DataRace {
        /// This access.
        access: Access,
        /// The other one.
        other: AccessKind,
    },
    /// One order gave two traces.
    Nondeterminism {
        /// Their hashes.
        hashes: [u64; 2],
    },
}

impl FailureKind {
    /// A stable name, of small letters and hyphens: what is alike of failures of one kind.
    pub fn name(&self) -> &'static str {
        match self {
            FailureKind::Fault(fault) => match fault.kind {
                FaultKind::Address { .. } => "bad-address",
                FaultKind::OutOfBounds { .. } => "out-of-bounds",
                FaultKind::Uninitialised { .. } => "uninitialised-stack",
                FaultKind::UseAfterFree { .. } => "use-after-free",
                FaultKind::StaleWrite { .. } => "stale-write",
                FaultKind::MemoryLimit => "memory-limit",
                FaultKind::FrameDepth => "frame-depth",
                _ => "bad-call",
            },
            FailureKind::Deadlock(_) => "deadlock",
            FailureKind::Livelock { .. } => "livelock",
            FailureKind::Fuel { .. } => "fuel",
            FailureKind::LeftOver(_) => "left-over",
            FailureKind::NeverRan { .. } => "never-ran",
            FailureKind::Stale { .. } => "stale-access",
            FailureKind::NoPage { .. } => "no-page",
            FailureKind::UnwrittenArgument { .. } => "unwritten-argument",
            FailureKind::LostUpdate(_) => "lost-update",
            FailureKind::DataRace { .. } => "data-race",
            FailureKind::Nondeterminism { .. } => "nondeterminism",
        }
    }
}

/// An execution that waits, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Which execution waits, and for what.
    pub waiting: Waiting,
    /// Where in its program; none in a system call.
    pub place: Option<Place>,
    /// Where what it waits for was taken, by the next one.
    pub taken: Option<Place>,
}

/// The other side of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The CPU and the execution.
    pub who: (Cpu, CtxId),
    /// Where in its program; none for user space.
    pub place: Option<Place>,
}

/// What a detector does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Report {
    /// It does not look.
    Off,
    /// The finding is a [`Warning`].
    #[default]
    Warn,
    /// The finding is a [`Failure`].
    Fail,
}

/// Which detectors look; all but the first two only when orders are explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detectors {
    /// [`FailureKind::Stale`] and [`FailureKind::NoPage`]; in checked mode.
    pub stale: Report,
    /// [`FailureKind::UnwrittenArgument`]; in checked mode.
    pub unwritten_argument: Report,
    /// [`FailureKind::LostUpdate`]
    pub lost_update: Report,
    /// [`FailureKind::DataRace`]
    pub data_race: Report,
    /// [`FailureKind::NeverRan`] of callbacks whose elements were evicted or replaced.
    pub dropped: Report,
}

impl Default for Detectors {
    fn default() -> Detectors {
        Detectors {
            stale: Report::Warn,
            unwritten_argument: Report::Warn,
            lost_update: Report::Warn,
            data_race: Report::Warn,
            dropped: Report::Warn,
        }
    }
}

impl Detectors {
    /// None.
    pub const OFF: Detectors = Detectors {
        stale: Report::Off,
        unwritten_argument: Report::Off,
        lost_update: Report::Off,
        data_race: Report::Off,
        dropped: Report::Off,
    };

    /// What to do with a finding of this kind.
    pub(crate) fn of(&self, kind: &FailureKind) -> Report {
        match kind {
            FailureKind::Stale { .. } | FailureKind::NoPage { .. } => self.stale,
            FailureKind::UnwrittenArgument { .. } => self.unwritten_argument,
            FailureKind::LostUpdate(_) => self.lost_update,
            FailureKind::DataRace { .. } => self.data_race,
            FailureKind::NeverRan { dropped: true, .. } => self.dropped,
            _ => Report::Fail,
        }
    }
}

impl Failure {
    /// What it is about, where the kind and the place do not say so: the same in all orders.
    pub fn object(&self) -> Option<String> {
        match &self.kind {
            FailureKind::Deadlock(blocked) => {
                let waits = blocked.iter().map(|b| b.waiting.wait.to_string());
                let mut waits: Vec<String> = waits.collect();
                waits.sort();
                Some(waits.join("; "))
            }
            FailureKind::LeftOver(what) => Some(what.to_string()),
            _ => self.spot.as_ref().map(|spot| spot.to_string()),
        }
    }
}

/// What a program must not keep when it returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOver {
    /// It holds the `bpf_spin_lock` at this address.
    SpinLock(u64),
    /// Interrupts are off.
    IrqsOff,
    /// Preemption is off.
    PreemptionOff,
    /// It has not given back what a helper or kfunc gave it.
    Reference {
        /// The helper or kfunc.
        from: &'static str,
        /// What it gave.
        addr: u64,
    },
}

impl fmt::Display for LeftOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeftOver::SpinLock(addr) => write!(f, "the bpf_spin_lock at {addr:#x} held"),
            LeftOver::IrqsOff => f.write_str("interrupts off"),
            LeftOver::PreemptionOff => f.write_str("preemption off"),
            LeftOver::Reference { from, addr } => {
                write!(f, "the reference {addr:#x} that {from} gave")
            }
        }
    }
}

/// A simulation came to an end that it must not come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// Virtual time in ns.
    pub at: u64,
    /// The CPU and the execution, where it is one's doing.
    pub who: Option<(Cpu, CtxId)>,
    /// Where in the program.
    pub place: Option<Box<Place>>,
    /// The other side: who freed it, stored in between, took the lock, armed the callback.
    pub other: Option<Box<Party>>,
    /// What it is about, where that is a part of a map's element.
    pub spot: Option<Box<Spot>>,
}

/// Something that Linux lets happen, and that is likely a mistake.
pub type Warning = Failure;

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waiting { id, cpu, wait } = &self.waiting;
        write!(f, "{id} on {cpu} waits")?;
        if let Some(place) = &self.place {
            write!(f, " in {place}")?;
        }
        write!(f, " for {wait}")?;
        if let Some(taken) = &self.taken {
            write!(f, ", taken in {taken}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell(f, None)
    }
}

impl FailureKind {
    /// In words, with what it is about.
    fn tell(&self, f: &mut fmt::Formatter<'_>, spot: Option<&Spot>) -> fmt::Result {
        let about = |addr: u64| spot.map_or_else(|| format!("{addr:#x}"), Spot::to_string);
        match self {
            FailureKind::Fault(fault) => write!(f, "fault: {}", fault.kind),
            FailureKind::Deadlock(blocked) => {
                f.write_str("deadlock:")?;
                for (i, b) in blocked.iter().enumerate() {
                    write!(f, "{} {b}", if i > 0 { ";" } else { "" })?;
                }
                Ok(())
            }
            FailureKind::Livelock { callbacks } => {
                write!(
                    f,
                    "livelock: {callbacks} callbacks ran and another is always due"
                )?;
                spot.map_or(Ok(()), |spot| write!(f, ", now that of {spot}"))
            }
            FailureKind::Fuel { insns } => {
                write!(f, "a program did not end within {insns} instructions")
            }
            FailureKind::LeftOver(what) => write!(f, "left behind: {what}"),
            FailureKind::NeverRan {
                kind,
                element,
                due,
                dropped,
            } => {
                let why = match dropped {
                    true => "its element was evicted or replaced",
                    false => "it was due",
                };
                let of = spot.map_or_else(
                    || format!("{} key {:02x?}", element.map, element.key),
                    Spot::to_string,
                );
                let kind = kind.name();
                write!(
                    f,
                    "the {kind} of {of}, armed for {}, never ran: {why}",
                    time(*due)
                )
            }
            FailureKind::Stale {
                size,
                write,
                recycled,
                ..
            } => write!(
                f,
                "{} of {size} bytes by a stale pointer: {}",
                if *write { "write" } else { "read" },
                if *recycled {
                    "the element is gone, and its memory is another's"
                } else {
                    "the element is gone"
                }
            ),
            FailureKind::NoPage { size, write, .. } => write!(
                f,
                "{} of {size} bytes where the arena has no page: {}",
                if *write { "write" } else { "read" },
                if *write { "it is lost" } else { "it gives 0" }
            ),
            FailureKind::UnwrittenArgument { arg } => {
                write!(f, "argument {arg} has bytes that were never written")
            }
            FailureKind::LostUpdate(access) => write!(
                f,
                "lost update of {}: this store of {} bytes overwrites another's",
                about(access.addr),
                access.size
            ),
            FailureKind::DataRace { access, other } => write!(
                f,
                "data race on {}: {} of {} bytes, and {} that nothing orders with it",
                about(access.addr),
                kind_name(access.kind),
                access.size,
                kind_name(*other)
            ),
            FailureKind::Nondeterminism { hashes: [a, b] } => write!(
                f,
                "nondeterminism: one order gave the traces {a:016x} and {b:016x}"
            ),
        }
    }
}

/// As timelines have it: since the machine was made.
fn time(at: u64) -> String {
    let ns = at.saturating_sub(BOOTED);
    format!("{}.{:03} us", ns / 1_000, ns % 1_000)
}

fn kind_name(kind: AccessKind) -> &'static str {
    match kind {
        AccessKind::Read => "a read",
        AccessKind::Write => "a write",
        AccessKind::Rmw => "an atomic operation",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.tell(f, self.spot.as_deref())?;
        if let Some(place) = &self.place {
            write!(f, " in {place}")?;
        }
        if let Some((cpu, _)) = self.who {
            write!(f, " on {cpu}")?;
        }
        write!(f, " at {}", time(self.at))?;
        if let Some(other) = &self.other {
            let role = match &self.kind {
                FailureKind::LostUpdate(_) => "stored in between",
                FailureKind::DataRace { .. } => "the other",
                FailureKind::LeftOver(_) => "taken",
                FailureKind::NeverRan { .. } | FailureKind::Livelock { .. } => "armed",
                _ => "freed",
            };
            write!(f, "; {role}")?;
            match &other.place {
                Some(place) => write!(f, " in {place}")?,
                None => f.write_str(" by user space")?,
            }
            write!(f, " on {}", other.who.0)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
