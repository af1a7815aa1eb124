//! What can be wrong with a replay, and how executions end.

use std::fmt;

/// Why an execution cannot be seen again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It does not look like one.
    #[error("no replay string: one begins with `bs1-`")]
    NoReplay,
    /// Another version of bpfsim wrote it.
    #[error("a replay string of format {0}: this bpfsim reads format 1")]
    Version(String),
    /// It was cut off or changed.
    #[error("the replay string is damaged: copy all of it")]
    Damaged,
    /// The objects are not those that it was made with.
    #[error(
        "the replay string was made with other objects, or other types of the kernel (hash {was:08x}, now {is:08x}): \
         an order of one program means nothing to another"
    )]
    Object {
        /// Hash of the objects then.
        was: u32,
        /// Hash of the objects now.
        is: u32,
    },
    /// The machine is another one.
    #[error("the replay string was made on another machine: {what} was {was}, now it is {is}")]
    Config {
        /// The field that differs.
        what: &'static str,
        /// Its value then.
        was: String,
        /// Its value now.
        is: String,
    },
    /// The order cannot be taken any more.
    #[error("the order cannot be taken any more: the test, or what it depends on, has changed")]
    Strayed,
}

/// How an execution failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which kind of failure: a stable name.
    pub kind: String,
    /// The C line, or the line of the test, where there is one.
    pub place: Option<String>,
    /// What it is about, where that is known: a lock, an element.
    pub object: Option<String>,
    /// For people.
    pub message: String,
}

/// Kind of a test that does not do the same twice.
pub(crate) const NONDETERMINISM: &str = "nondeterminism";

impl Failed {
    /// True for failures of one kind, at one place, about one thing: what shrinking keeps.
    pub fn like(&self, other: &Failed) -> bool {
        (&self.kind, &self.place, &self.object) == (&other.kind, &other.place, &other.object)
    }

    /// The same choices were offered other things: the test depends on what is outside of it.
    pub(crate) fn nondeterminism(traces: Option<[u64; 2]>, failed: Option<&Failed>) -> Failed {
        let mut message = "the test does not do the same when it is run again: it depends on \
                           something that is not part of the simulation"
            .to_string();
        if let Some([a, b]) = traces.filter(|[a, b]| a != b) {
            message += &format!(" (one order gave the traces {a:016x} and {b:016x})");
        }
        if let Some(failed) = failed {
            message += &format!("; at first it failed: {failed}");
        }
        Failed {
            kind: NONDETERMINISM.to_string(),
            place: None,
            object: None,
            message,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
