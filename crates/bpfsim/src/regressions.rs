//! Failing orders that are kept and run first next time, a file for each test.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where they are kept unless `BPFSIM_REGRESSIONS` says otherwise.
pub(crate) const FOLDER: &str = "bpfsim-regressions";

/// Those of one test.
pub(crate) struct Kept {
    file: PathBuf,
}

impl Kept {
    /// Of the test of this name, in this folder.
    pub fn new(folder: &Path, test: &str) -> Kept {
        let fit = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        };
        let name: String = test.replace("{{closure}}", "closure");
        let name: String = name.chars().map(fit).collect();
        Kept {
            file: folder.join(format!("{name}.txt")),
        }
    }

    /// Replay strings, oldest first. No file, none.
    pub fn read(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let first = |line: &str| line.split_whitespace().next().map(str::to_string);
        let words = text.lines().filter_map(first);
        words.filter(|w| !w.starts_with('#')).collect()
    }

    /// Adds one with what happens in it. A folder that cannot be written to is not the test's
    /// failure.
    pub fn add(&self, replay: &str, what: &str) {
        if self.read().iter().any(|kept| kept == replay) {
            return;
        }
        let what = what.lines().next().unwrap_or("");
        if let Some(folder) = self.file.parent() {
            let _ = fs::create_dir_all(folder);
        }
        let mut open = fs::OpenOptions::new();
        if let Ok(mut file) = open.create(true).append(true).open(&self.file) {
            let _ = writeln!(file, "{replay}  # {what}");
        }
    }
}
