//! What can go wrong for a user of the facade.

use bpfsim_abi::Errno;
use bpfsim_kernel::Failure;
use bpfsim_kernel::explanation::Explanation;

/// Any error of this crate. What the verifier refuses is one line; the alternate form (`{:#}`)
/// explains it on the C lines.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The object cannot be read.
    #[error(transparent)]
    Object(#[from] bpfsim_loader::LoadError),
    /// The object cannot be loaded into the kernel.
    #[error(transparent)]
    Load(#[from] bpfsim_kernel::LoadError),
    /// The simulation could not be made.
    #[error(transparent)]
    New(#[from] bpfsim_kernel::NewError),
    /// The host has no memory for what was asked.
    #[error(transparent)]
    Memory(#[from] bpfsim_vm::MemError),
    /// The simulation failed.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// There is nothing of that name.
    #[error("no {what} `{name}`{}", list(.near))]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// The name.
        name: String,
        /// Names that are there, closest first.
        near: Vec<String>,
    },
    /// A type does not fit what it is used for.
    #[error("{what}: {got} bytes given where there are {want}")]
    Size {
        /// For what.
        what: String,
        /// Its size.
        want: usize,
        /// The size given.
        got: usize,
    },
    /// A map operation was refused, as Linux would refuse it.
    #[error("map `{map}`: {op}: {errno:?}")]
    Map {
        /// The map.
        map: String,
        /// The command of `bpf(2)`.
        op: &'static str,
        /// What it answers.
        errno: Errno,
    },
    /// Something of the emulated world could not be made, as Linux would refuse it.
    #[error("{what} `{name}`: {errno:?}")]
    World {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// What the system call answers.
        errno: Errno,
    },
    /// A program could not be run.
    #[error("BPF_PROG_TEST_RUN: {errno:?}")]
    TestRun {
        /// What it answers.
        errno: Errno,
    },
    /// A program could not be attached.
    #[error("program `{program}`: {error}")]
    Attach {
        /// The program.
        program: String,
        /// Why.
        error: bpfsim_kernel::AttachError,
    },
    /// An iterator could not be opened or read.
    #[error("the iterator cannot be read: {errno:?}")]
    Iter {
        /// What the system call answers.
        errno: Errno,
    },
    /// A hook could not be made to happen.
    #[error("{hook}: {errno:?}")]
    Fire {
        /// The hook.
        hook: String,
        /// Why: `ENODEV` for a device or cgroup that there is not, `EINVAL` for an input that it
        /// cannot have.
        errno: Errno,
    },
    /// The kernel aborted a scheduler (sched_ext), as Linux would.
    #[error("scheduler `{name}`: {}: {}", .exit.kind.reason(), .exit.msg)]
    Scheduler {
        /// Its map.
        name: String,
        /// Why.
        exit: Box<bpfsim_kernel::ScxExit>,
    },
    /// bpfsim cannot do this.
    #[error("unsupported: {what}")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// `ensure!` or `ensure_eq!` did not hold.
    #[error("{message} ({file}:{line})")]
    Expectation {
        /// What was expected and what was found.
        message: String,
        /// Where.
        file: &'static str,
        /// Where.
        line: u32,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; there is {}", names.join(", ")),
    }
}

impl Error {
    /// Why the verifier refuses a program, for people and as data; `None` for other errors.
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            Error::Load(error) => error.explanation(),
            _ => None,
        }
    }

    /// There is no `name` among `names`: lists those closest to it.
    pub(crate) fn not_found<'a>(
        what: &'static str,
        name: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Error {
        let mut near: Vec<String> = names.map(str::to_string).collect();
        near.sort_by_cached_key(|n| (distance(n, name), n.clone()));
        near.truncate(5);
        Error::NotFound {
            what,
            name: name.to_string(),
            near,
        }
    }

    /// As `ensure!` makes it.
    #[doc(hidden)]
    pub fn expectation(message: String, file: &'static str, line: u32) -> Error {
        Error::Expectation {
            message,
            file,
            line,
        }
    }
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let change = diagonal + (x != y) as usize;
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Returns an error from the test unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr $(,)?) => {
        $crate::ensure!($condition, "{} does not hold", stringify!($condition))
    };
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Error::expectation(format!($($message)+), file!(), line!()).into());
        }
    };
}

/// Returns an error from the test unless both are equal.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => $crate::ensure!(
                *left == *right,
                "{} is {:?}, expected {:?}",
                stringify!($left),
                left,
                right
            ),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_come_first() {
        let e = Error::not_found("map", "flow", ["ports", "flows", "x"].into_iter());
        assert_eq!(e.to_string(), "no map `flow`; there is flows, x, ports");
    }
}
