//! `cargo xtask oracle logs`: the verifier's logs of programs of Linux's selftests, line for line beside
//! those of the kernel that runs.
//!
//! Only programs that the kernel judges as the record has it, of fewer than [`MOST_INSNS`] processed
//! instructions. They are loaded, never attached.

use std::path::Path;

use bpfsim_abi::Func;
use bpfsim_kernel::{Profile, Resolved, veristat_fixup, veristat_freplace};
use bpfsim_testing::linux::Linux;
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_verifier::Options;

use crate::oracle_verdicts::{Row, rows_by_file};

/// Logs of longer walks are not compared.
const MOST_INSNS: u32 = 1000;

/// Takes the folder of the objects, the record, words to look for in `file program` with `--only`, the
/// level with `--level`; `-v` prints the first line that differs of each program.
pub fn main(args: &[String]) -> Result<(), String> {
    let mut plain = Vec::new();
    let (mut only, mut level, mut verbose) = (None, 2, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => only = args.next().cloned(),
            "--level" => level = args.next().and_then(|n| n.parse().ok()).unwrap_or(2),
            "-v" => verbose = true,
            _ => plain.push(arg.clone()),
        }
    }
    let dir = plain.first().ok_or("oracle logs DIR [RECORD.csv]")?;
    let files = rows_by_file(plain.get(1))?;
    let linux = Linux::detect().map_err(|e| e.to_string())?;
    let facts = KernelFacts::of_this_machine(&linux).map_err(|e| e.to_string())?;
    // Ids of types are in the log, so the types are those of this kernel.
    let path = "/sys/kernel/btf/vmlinux";
    let btf = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let btf = bpfsim_btf::Btf::parse(&btf).map_err(|e| format!("{path}: {e}"))?;
    let profile = Profile {
        btf: btf.into(),
        kallsyms_all: false,
        refused_helpers: &[Func::OverrideReturn, Func::ProbeWriteUser],
        ..Profile::reference().map_err(|e| format!("{e}"))?
    };
    let ask = Ask {
        linux,
        facts,
        profile,
        level,
    };
    let (mut asked, mut same, mut lines, mut same_lines) = (0, 0, 0, 0);
    for (file, rows) in &files {
        let Ok(bytes) = std::fs::read(Path::new(dir).join(file)) else {
            continue;
        };
        for row in rows {
            let name = format!("{file} {}", row.program);
            let wanted = only.as_ref().is_none_or(|o| name.contains(o.as_str()));
            if !wanted || row.insns >= MOST_INSNS {
                continue;
            }
            let Some((theirs, ours)) = ask.both(&bytes, row) else {
                continue;
            };
            asked += 1;
            let equal = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
            lines += theirs.len();
            same_lines += equal;
            if theirs == ours {
                same += 1;
                continue;
            }
            let end = "(end)".to_owned();
            let (a, b) = (
                theirs.get(equal).unwrap_or(&end),
                ours.get(equal).unwrap_or(&end),
            );
            if verbose {
                println!("{name}, line {}\n  Linux  {a}\n  bpfsim {b}", equal + 1);
            }
        }
    }
    let share = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
    println!(
        "same log   {same:6} of {asked:6}  {:5.1} %",
        share(same, asked)
    );
    println!(
        "lines before the first that differs {same_lines} of {lines}  {:.1} %",
        share(same_lines, lines)
    );
    Ok(())
}

struct Ask {
    linux: Linux,
    facts: KernelFacts,
    profile: Profile,
    level: u32,
}

impl Ask {
    /// Both logs, where Linux says what the record says.
    fn both(&self, bytes: &[u8], row: &Row) -> Option<(Vec<String>, Vec<String>)> {
        let mut object = bpfsim_loader::load(bytes).ok()?;
        veristat_fixup(&mut object);
        veristat_freplace(&mut object);
        let loaded = self
            .linux
            .judge_object(&self.facts, &object, &row.program, self.level)
            .ok()?;
        let errno = match &loaded.result {
            Ok(_) => 0,
            Err(errno) => -i32::from(errno.0),
        };
        if errno != row.errno {
            return None;
        }
        let index = object.programs.iter().position(|p| p.name == row.program)?;
        let resolved = Resolved::new(object, &self.profile).ok()?;
        let options = Options {
            log_level: self.level,
            ..Options::default()
        };
        let ours = resolved.judge(index, &self.profile, &options);
        let ours = ours.map_or_else(|e| format!("{e}"), |o| o.log);
        Some((comparable(&loaded.log), comparable(&ours)))
    }
}

/// Lines without times and addresses.
fn comparable(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|l| !l.starts_with("verification time"));
    lines.map(plain).collect()
}

/// A line without the address of a map or variable, and how far a state stands to its right.
fn plain(line: &str) -> String {
    let Some((insn, rest)) = line.split_once("(18) r") else {
        return line.to_owned();
    };
    let state = rest.split_once(';').map_or("", |(_, state)| state);
    let reg = rest.split(' ').next().unwrap_or("");
    format!("{insn}(18) r{reg} ;{state}")
}
