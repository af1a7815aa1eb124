//! What Linux said of each program of an object, kept beside it as `NAME.judged.json`.

use std::collections::BTreeMap;

use bpfsim_loader::load;
use serde::{Deserialize, Serialize};

use crate::linux::Linux;
use crate::linux::loads::hash;
use crate::linux::object::KernelFacts;
use crate::verdicts::ask::Answer;

/// `BPF_LOG_STATS`
pub const STATS: u32 = 4;

/// What one kernel said of an object's programs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// Its release, without what a distributor adds.
    pub kernel: String,
    /// Of the object's bytes, so that an answer is never taken for that about another.
    pub hash: String,
    /// By program; those are missing that did not come to the verifier.
    pub programs: BTreeMap<String, Answer>,
}

impl Judged {
    /// Asks the running kernel. Programs are loaded, never attached.
    ///
    /// # Errors
    /// The object cannot be read.
    pub fn ask(linux: &Linux, facts: &KernelFacts, bytes: &[u8]) -> Result<Judged, String> {
        let object = load(bytes).map_err(|e| e.to_string())?;
        let mut programs = BTreeMap::new();
        for program in &object.programs {
            let Ok(loaded) = linux.judge_object(facts, &object, &program.name, STATS) else {
                continue;
            };
            if !loaded.log.contains("processed ") {
                continue;
            }
            let errno = loaded.result.err().map_or("", |e| e.name().unwrap_or("?"));
            let answer = Answer::new(errno.to_owned(), &loaded.log);
            programs.insert(program.name.clone(), answer);
        }
        let kernel = linux.release().split('-').next().unwrap_or_default();
        Ok(Judged {
            kernel: kernel.to_owned(),
            hash: hash(bytes),
            programs,
        })
    }
}
