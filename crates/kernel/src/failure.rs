//! How a simulation can fail.

use crate::choose::Waiting;
use crate::ids::{Cpu, CtxId};
use bpfsim_vm::Fault;
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
    /// Executions wait for each other, and nothing else can go on.
    Deadlock(Vec<Waiting>),
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
}

impl FailureKind {
    /// A stable name: what is alike of failures of one kind.
    pub fn name(&self) -> String {
        match self {
            FailureKind::Fault(fault) => {
                let kind = format!("{:?}", fault.kind);
                let name = kind.split(|c: char| !c.is_alphanumeric()).next();
                format!("fault {}", name.unwrap_or(""))
            }
            FailureKind::Deadlock(_) => "deadlock".to_string(),
            FailureKind::Livelock { .. } => "livelock".to_string(),
            FailureKind::Fuel { .. } => "fuel".to_string(),
            FailureKind::LeftOver(_) => "left over".to_string(),
        }
    }

    /// What it is about, where the kind and the place do not say so: the same in all orders.
    pub fn object(&self) -> Option<String> {
        match self {
            FailureKind::Deadlock(waiting) => {
                let mut waits: Vec<String> = waiting.iter().map(|w| w.wait.to_string()).collect();
                waits.sort();
                Some(waits.join("; "))
            }
            FailureKind::LeftOver(what) => Some(what.to_string()),
            _ => None,
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
}

impl fmt::Display for LeftOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeftOver::SpinLock(addr) => write!(f, "the bpf_spin_lock at {addr:#x} held"),
            LeftOver::IrqsOff => f.write_str("interrupts off"),
            LeftOver::PreemptionOff => f.write_str("preemption off"),
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FailureKind::Fault(fault) => write!(f, "fault: {}", fault.kind)?,
            FailureKind::Deadlock(waiting) => {
                f.write_str("deadlock:")?;
                for (i, w) in waiting.iter().enumerate() {
                    write!(
                        f,
                        "{} {} on {} waits for {}",
                        if i > 0 { ";" } else { "" },
                        w.id,
                        w.cpu,
                        w.wait
                    )?;
                }
            }
            FailureKind::Livelock { callbacks } => {
                write!(
                    f,
                    "livelock: {callbacks} callbacks ran and another is always due"
                )?;
            }
            FailureKind::Fuel { insns } => {
                write!(f, "a program did not end within {insns} instructions")?
            }
            FailureKind::LeftOver(what) => write!(f, "left behind: {what}")?,
        }
        if let Some(place) = &self.place {
            write!(f, " in {place}")?;
        }
        if let Some((cpu, _)) = self.who {
            write!(f, " on {cpu}")?;
        }
        write!(f, " at {} ns", self.at)
    }
}

impl std::error::Error for Failure {}
