//! Which C lines and branches ran, over any number of executions, as lcov writes it.
//!
//! A branch is a conditional jump, on its line, with both of its outcomes. Lines are those of the
//! programs that were loaded; a function that is in several programs counts in all of them.

use bpfsim_kernel::{Kernel, ProgCounts, ProgId, ProgLines};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Counts of lines, functions and branches, by file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    files: BTreeMap<String, File>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct File {
    /// How often each line ran.
    lines: BTreeMap<u32, u64>,
    /// By line, program and instruction: how often taken, and not.
    branches: BTreeMap<(u32, String, usize), [u64; 2]>,
    /// By line and name, how often entered.
    functions: BTreeMap<(u32, String), u64>,
}

/// How much of what there is ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What ran.
    pub hit: usize,
    /// All.
    pub all: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.hit as f64 / self.all.max(1) as f64;
        write!(f, "{} of {} ({percent:.1} %)", self.hit, self.all)
    }
}

impl Coverage {
    /// Adds what a kernel counted (`Kernel::record` with `counts`), and the lines of programs that
    /// did not run.
    pub fn add(&mut self, kernel: &Kernel) {
        let none = ProgCounts::default();
        for id in 0.. {
            let Some(prog) = kernel.prog_lines(ProgId(id)) else {
                break;
            };
            self.add_program(&prog, kernel.counts().get(id as usize).unwrap_or(&none));
        }
    }

    fn add_program(&mut self, prog: &ProgLines<'_>, counts: &ProgCounts) {
        let ran = |at: usize| counts.ran.get(at).copied().unwrap_or(0);
        // Of this program, how often each line ran: as often as its most frequent instruction.
        let mut most: BTreeMap<(&str, u32), u64> = BTreeMap::new();
        for at in (0..prog.len()).filter(|&at| prog.is_insn(at)) {
            let Some(line) = prog.lines.at(at).filter(|l| l.line != 0) else {
                continue;
            };
            let line_most = most.entry((line.file, line.line)).or_default();
            *line_most = ran(at).max(*line_most);
            let file = self.files.entry(line.file.to_string()).or_default();
            if prog.is_branch(at) {
                let key = (line.line, prog.name.to_string(), at);
                let taken = counts.taken.get(at).copied().unwrap_or(0);
                let [yes, no] = file.branches.entry(key).or_default();
                *yes += taken;
                *no += ran(at) - taken.min(ran(at));
            }
            if let Some((_, name)) = prog.funcs.iter().find(|(entry, _)| *entry as usize == at) {
                let key = (line.line, name.to_string());
                *file.functions.entry(key).or_default() += ran(at);
            }
        }
        for ((file, line), n) in most {
            let file = self.files.entry(file.to_string()).or_default();
            *file.lines.entry(line).or_default() += n;
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: Coverage) {
        for (name, from) in other.files {
            let to = self.files.entry(name).or_default();
            for (line, n) in from.lines {
                *to.lines.entry(line).or_default() += n;
            }
            for (key, n) in from.functions {
                *to.functions.entry(key).or_default() += n;
            }
            for (key, [yes, no]) in from.branches {
                let sum = to.branches.entry(key).or_default();
                *sum = [sum[0] + yes, sum[1] + no];
            }
        }
    }

    /// Names of the files, as the objects have them.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// How often a line ran; `None` for one that made no instructions.
    pub fn line(&self, file: &str, line: u32) -> Option<u64> {
        self.files.get(file)?.lines.get(&line).copied()
    }

    /// Lines of a file that ran.
    pub fn lines(&self, file: &str) -> Share {
        let lines = self.files.get(file).map(|f| &f.lines);
        let counts = || lines.into_iter().flat_map(BTreeMap::values);
        Share {
            hit: counts().filter(|&&n| n > 0).count(),
            all: counts().count(),
        }
    }

    /// Outcomes of a file's branches that came about.
    pub fn branches(&self, file: &str) -> Share {
        let branches = self.files.get(file).map(|f| &f.branches);
        let counts = || branches.into_iter().flat_map(BTreeMap::values).flatten();
        Share {
            hit: counts().filter(|&&n| n > 0).count(),
            all: counts().count(),
        }
    }

    /// As a tracefile of lcov, which genhtml and others read; `path` says where a file is.
    pub fn lcov(&self, path: impl Fn(&str) -> String) -> String {
        let mut out = String::new();
        for (name, file) in &self.files {
            // Writing to a string does not fail.
            let _ = file.write(&mut out, &path(name));
        }
        out
    }
}

impl File {
    fn write(&self, out: &mut String, path: &str) -> fmt::Result {
        writeln!(out, "TN:\nSF:{path}")?;
        for (line, name) in self.functions.keys() {
            writeln!(out, "FN:{line},{name}")?;
        }
        for ((_, name), n) in &self.functions {
            writeln!(out, "FNDA:{n},{name}")?;
        }
        let hit = self.functions.values().filter(|&&n| n > 0).count();
        writeln!(out, "FNF:{}\nFNH:{hit}", self.functions.len())?;

        let (mut hit, mut block, mut last) = (0, 0, None);
        for ((line, ..), outcomes) in &self.branches {
            block = if last == Some(line) { block + 1 } else { 0 };
            last = Some(line);
            let ran = outcomes.iter().any(|&n| n > 0);
            for (branch, n) in outcomes.iter().enumerate() {
                hit += usize::from(*n > 0);
                match ran {
                    true => writeln!(out, "BRDA:{line},{block},{branch},{n}")?,
                    false => writeln!(out, "BRDA:{line},{block},{branch},-")?,
                }
            }
        }
        writeln!(out, "BRF:{}\nBRH:{hit}", 2 * self.branches.len())?;

        for (line, n) in &self.lines {
            writeln!(out, "DA:{line},{n}")?;
        }
        let hit = self.lines.values().filter(|&&n| n > 0).count();
        writeln!(out, "LF:{}\nLH:{hit}\nend_of_record", self.lines.len())
    }
}
