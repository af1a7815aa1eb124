//! Objects made ready to load: resolved for a kernel, their programs judged. One [`Prepared`]
//! loads into any number of simulations.

use crate::load::LoadError;
use crate::verify::{Profile, Resolved};
use bpfsim_abi::Errno;
use bpfsim_loader::Object;
use bpfsim_verifier::{Explanation, Options, Verdict, Verified};
use std::fmt;
use std::sync::Arc;

/// What becomes of programs of which the verifier cannot say whether Linux would take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnUnsupported {
    /// The object does not load; the error names what the verifier lacks.
    #[default]
    Refuse,
    /// They load without a verdict and run with the engine's own checks.
    RunChecked,
}

/// Whether programs are verified before they load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// As Linux does it.
    Verify(OnUnsupported),
    /// Whatever libbpf would pass on loads: for tests of engines.
    Unverified,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::Verify(OnUnsupported::default())
    }
}

/// How a program came to be loaded.
#[derive(Clone, Debug)]
pub enum Standing {
    /// The verifier accepts it.
    Verified(Arc<Verified>),
    /// The verifier lacks this.
    Unsupported(String),
    /// Nobody asked.
    Unverified,
}

impl Standing {
    /// What the verifier learnt, if it accepted.
    pub fn verified(&self) -> Option<&Verified> {
        match self {
            Standing::Verified(v) => Some(v),
            Standing::Unsupported(_) | Standing::Unverified => None,
        }
    }
}

/// The verifier's refusal of a program, as Linux gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The program.
    pub program: String,
    /// What `BPF_PROG_LOAD` answers.
    pub errno: Errno,
    /// The last line of the log that says something.
    pub message: String,
    /// The instruction at hand, where there is one.
    pub insn: Option<usize>,
    /// The log at level 1: the way to the refusal. Of a long one, the end.
    pub log: String,
    /// The same for people: what was required, what was found, what made it so.
    pub explanation: Option<Box<Explanation>>,
}

/// Most bytes of a log that are kept.
const MAX_LOG: usize = 1 << 20;

/// In one line; the alternate form (`{:#}`) has the explanation below.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejection { program, errno, .. } = self;
        write!(f, "program `{program}`: -{errno:?}")?;
        if let Some(text) = errno.text() {
            write!(f, " ({text})")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match &self.explanation {
            Some(explanation) if f.alternate() => {
                write!(f, "\n\n{}", explanation.render(false))
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

/// An object that is ready to load.
#[derive(Clone, Debug)]
pub struct Prepared {
    resolved: Resolved,
    /// By program; `None` for those that are not to load.
    standings: Vec<Option<Standing>>,
}

impl Prepared {
    /// Resolves an object for a kernel and verifies the programs that are to load.
    ///
    /// # Errors
    /// As libbpf or the verifier refuses the object.
    pub fn new(object: Object, profile: &Profile, policy: Policy) -> Result<Prepared, LoadError> {
        let resolved = Resolved::new(object, profile)?;
        let programs = resolved.object().programs.iter().enumerate();
        let standings = programs.map(|(index, program)| {
            let judged = program
                .autoload
                .then(|| standing(&resolved, index, profile, policy));
            judged.transpose()
        });
        let standings = standings.collect::<Result<_, _>>()?;
        Ok(Prepared {
            resolved,
            standings,
        })
    }

    /// The object, resolved.
    pub fn object(&self) -> &Object {
        self.resolved.object()
    }

    /// The object, for its verifier.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// How a program came to be loaded, by its index in [`Object::programs`]; `None` for one that
    /// is not to load.
    pub fn standing(&self, program: usize) -> Option<&Standing> {
        self.standings.get(program)?.as_ref()
    }
}

fn standing(
    resolved: &Resolved,
    index: usize,
    profile: &Profile,
    policy: Policy,
) -> Result<Standing, LoadError> {
    let Policy::Verify(on_unsupported) = policy else {
        resolved.loadable(index)?;
        return Ok(Standing::Unverified);
    };
    let options = Options::default();
    match resolved.judge(index, profile, &options)?.verdict {
        Verdict::Accept(verified) => {
            let newer = resolved.newer(index, profile, |at| verified.is_reached(at));
            match newer.is_empty() {
                true => Ok(Standing::Verified(Arc::new(verified))),
                false => Err(LoadError::Newer {
                    program: resolved.object().programs[index].name.clone(),
                    kernel: profile.version,
                    newer,
                }),
            }
        }
        Verdict::Unsupported { what, insn } => match on_unsupported {
            OnUnsupported::RunChecked => Ok(Standing::Unsupported(what)),
            OnUnsupported::Refuse => Err(LoadError::Unjudged {
                program: resolved.object().programs[index].name.clone(),
                what,
                insn,
            }),
        },
        Verdict::Reject {
            errno,
            message,
            insn,
            ..
        } => {
            // As libbpf does, once more for the log.
            let options = Options {
                log_level: 1,
                ..options
            };
            let again = resolved.judge(index, profile, &options)?;
            let explanation = resolved.explain(index, profile)?;
            Err(LoadError::Rejected(Box::new(Rejection {
                program: resolved.object().programs[index].name.clone(),
                errno,
                message,
                insn,
                log: tail(again.log),
                explanation: explanation.map(Box::new),
            })))
        }
    }
}

/// The last whole lines of a text.
fn tail(text: String) -> String {
    let Some(from) = text.len().checked_sub(MAX_LOG) else {
        return text;
    };
    let bytes = &text.as_bytes()[from..];
    let start = bytes.iter().position(|&b| b == b'\n').map_or(0, |i| i + 1);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}
