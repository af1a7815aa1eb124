//! What happened in a run, as data, and the ways in which people look at it: [`text`](Timeline::text)
//! for terminals, [`html`](Timeline::html) for browsers, [`perfetto`](Timeline::perfetto) for trace
//! viewers.
//!
//! A [`Timeline`] is made from a kernel. Of one that was recorded (`Kernel::record`) it tells each
//! visible operation with its C line and each map value that changed; of any other, its events.

mod build;
mod html;
mod perfetto;
mod text;
mod value;

pub use text::{Detail, time};
pub use value::{compact, parts, through_btf, typed, unnamed};

use serde::Serialize;

/// What happened in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// What it is of.
    pub title: String,
    /// How the run failed, if it did.
    pub failure: Option<String>,
    /// Who executes where: a lane for each CPU and kind of context.
    pub lanes: Vec<Lane>,
    /// What happened, in order. Virtual time goes on for each CPU of its own.
    pub steps: Vec<Step>,
    /// C lines that are known of the programs that ran, by file.
    pub sources: Vec<Source>,
    /// The values of maps when the run began to be recorded: element and value.
    pub values: Vec<(String, String)>,
}

/// A CPU's contexts of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// The CPU.
    pub cpu: u32,
    /// `task`, `softirq`, `hardirq` or `nmi`.
    pub level: &'static str,
}

/// A file of C.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its name.
    pub file: String,
    /// Numbers and texts of its lines that made instructions.
    pub lines: Vec<(u32, String)>,
}

/// Kinds of [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program or callback began.
    Begin,
    /// A program or callback returned.
    End,
    /// A callback was asked for.
    Armed,
    /// A callback that was asked for will not run.
    Disarmed,
    /// A call came out otherwise than usual.
    Chance,
    /// A line was printed.
    Printk,
    /// Shared memory was read.
    Read,
    /// Shared memory was written.
    Write,
    /// Shared memory was changed atomically.
    Atomic,
    /// A helper or kfunc that others can notice was called.
    Call,
    /// A map's value appeared, changed or went.
    Changed,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Virtual time in ns since the machine was made.
    pub at: u64,
    /// Index among [`Timeline::lanes`].
    pub lane: usize,
    /// Name of the execution, the same in every order.
    pub ctx: String,
    /// The program or callback that executed, or user space.
    pub who: String,
    /// What kind of thing.
    pub kind: Kind,
    /// What happened, without who and when.
    pub text: String,
    /// The C line of the instruction.
    pub line: Option<Line>,
    /// The value that changed.
    pub change: Option<Change>,
    /// Of a callback that begins: the step that asked for it.
    pub armed_by: Option<usize>,
    /// Of an access that runs into another one's: the number of the pair.
    pub races: Vec<usize>,
}

/// A line of C.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// File.
    pub file: String,
    /// Number.
    pub line: u32,
    /// Text, without the space around it.
    pub text: String,
    /// The function that holds the instruction.
    pub function: String,
}

/// A map value that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The element, as in `map[key]`, or the variable.
    pub element: String,
    /// Before; nothing where it was not there.
    pub old: Option<String>,
    /// After; nothing where it is gone.
    pub new: Option<String>,
}
