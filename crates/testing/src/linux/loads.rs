//! Which programs of a folder's objects Linux takes: loaded, never run.

use std::collections::BTreeMap;
use std::path::Path;

use bpfsim_loader::load;
use serde::{Deserialize, Serialize};

use super::Linux;
use super::object::KernelFacts;

/// What one kernel took.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Loads {
    /// Its release, without what a distributor adds.
    pub kernel: String,
    /// By file name.
    pub objects: BTreeMap<String, ObjectLoad>,
}

/// What it took of one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLoad {
    /// Of the object's bytes (FNV-1a), so that an answer is never taken for that about another.
    pub hash: String,
    /// The programs that were loaded, in the object's order.
    pub accepted: Vec<String>,
}

impl ObjectLoad {
    /// Loads all programs of an object.
    ///
    /// # Errors
    /// Why one of them is not loaded.
    pub fn ask(linux: &Linux, facts: &KernelFacts, bytes: &[u8]) -> Result<ObjectLoad, String> {
        let object = load(bytes).map_err(|e| e.to_string())?;
        let loaded = linux.load_object(facts, &object, &[]);
        let loaded = loaded.map_err(|e| e.to_string())?;
        let names = object.programs.iter().map(|p| p.name.clone());
        Ok(ObjectLoad {
            hash: hash(bytes),
            accepted: names.filter(|n| loaded.program(n).is_some()).collect(),
        })
    }
}

/// The objects of a folder, by name.
///
/// # Errors
/// The file system's.
pub fn objects(folder: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".bpf.o") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            found.insert(name.into_owned(), std::fs::read(&path)?);
        }
    }
    Ok(found)
}

/// A name for bytes.
pub fn hash(bytes: &[u8]) -> String {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}
