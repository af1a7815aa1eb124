//! `cargo xtask oracle verdicts`: what the verifier says of programs of Linux's selftests, beside
//! what Linux said.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bpfsim_abi::Func;
use bpfsim_kernel::{Profile, Resolved, veristat_fixup, veristat_freplace};
use bpfsim_testing::linux::Linux;
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_verifier::{Options, Outcome, Verdict};
use rustix::time::{ClockId, clock_gettime};

use crate::oracle_live;

/// A row of the record.
pub struct Row {
    file: String,
    pub program: String,
    accepted: bool,
    pub errno: i32,
    pub insns: u32,
    states: u32,
    peak: u32,
    pub micros: u64,
    message: String,
}

impl Row {
    /// Of a log with counts; `None` where the verifier did not run.
    pub fn of_log(file: &str, program: &str, errno: i32, log: &str) -> Option<Row> {
        let counts = log.lines().find_map(|l| l.strip_prefix("processed "))?;
        let words: Vec<&str> = counts.split(' ').collect();
        let after = |name: &str| {
            let at = words.iter().position(|w| *w == name)?;
            words.get(at + 1)?.parse().ok()
        };
        let time = log
            .lines()
            .find_map(|l| l.strip_prefix("verification time "));
        let mut told = log.lines().map(str::trim).filter(|l| !counted(l));
        Some(Row {
            file: file.to_owned(),
            program: program.to_owned(),
            accepted: errno == 0,
            errno,
            insns: words[0].parse().ok()?,
            states: after("total_states")?,
            peak: after("peak_states")?,
            micros: time?.split(' ').next()?.parse().ok()?,
            message: match errno {
                0 => String::new(),
                _ => told.next_back().unwrap_or_default().to_owned(),
            },
        })
    }
}

/// Whether a line of a log is about the verifier and not about the program.
fn counted(line: &str) -> bool {
    const COUNTS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    line.is_empty() || line.starts_with("; ") || COUNTS.iter().any(|c| line.starts_with(c))
}

#[derive(Default)]
struct Score {
    rows: usize,
    agree: usize,
    false_accepts: Vec<String>,
    false_rejects: Vec<String>,
    unsupported: BTreeMap<String, usize>,
    refused: usize,
    errno: usize,
    message: usize,
    accepted: usize,
    insns: usize,
    states: usize,
    peak: usize,
    other: Vec<String>,
    /// Of each row: ours and Linux's, and its name.
    times: Vec<(Duration, Duration, String)>,
}

/// A row that takes longer is held against Linux's time for it by itself.
const LONG: Duration = Duration::from_millis(5);

/// Takes the folder of the objects, the record or `--live`, and words to look for in `file program` with
/// `--only`; `--log` prints logs.
pub fn main(args: &[String]) -> Result<(), String> {
    let mut plain = Vec::new();
    let (mut only, mut level, mut verbose, mut live) = (None, 4, false, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--live" => live = true,
            "--only" => only = args.next().cloned(),
            "--log" => level = args.next().and_then(|n| n.parse().ok()).unwrap_or(2),
            "-v" => verbose = true,
            _ => plain.push(arg.clone()),
        }
    }
    let dir = plain.first().ok_or("oracle verdicts DIR [RECORD.csv]")?;
    let mut profile = Profile {
        // As on the machine that the record is from.
        kallsyms_all: false,
        refused_helpers: &[Func::OverrideReturn, Func::ProbeWriteUser],
        ..Profile::reference().map_err(|e| format!("{e}"))?
    };
    let files = match live {
        true => {
            let linux = Linux::detect().map_err(|e| e.to_string())?;
            let facts = KernelFacts::of_this_machine(&linux).map_err(|e| e.to_string())?;
            let dir = Path::new(dir);
            let (files, unverified) = oracle_live::rows(&linux, &facts, dir, only.as_deref())?;
            println!("not verified by Linux     {unverified:5}");
            profile.config = facts.config().to_owned().leak();
            files
        }
        false => rows_by_file(plain.get(1))?,
    };
    let mut score = Score::default();
    for (file, rows) in &files {
        let path = Path::new(dir).join(file);
        let bytes = std::fs::read(&path).map_err(|_| "no such object".to_owned());
        let object = bytes.and_then(|b| prepare(&b, &profile));
        for row in rows {
            let name = format!("{} {}", row.file, row.program);
            if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
                continue;
            }
            score.rows += 1;
            let mut time = Duration::MAX;
            let mut once = || match &object {
                Ok(object) => judge(object, &row.program, &profile, level, &mut time),
                Err(e) => Err(e.clone()),
            };
            let mut outcome = once();
            for _ in 1..(if live { oracle_live::LOADS } else { 1 }) {
                outcome = once();
            }
            let linux = Duration::from_micros(row.micros);
            if time < Duration::MAX {
                score.times.push((time, linux, name.clone()));
            }
            match outcome {
                Ok(outcome) => {
                    if level != 4 {
                        println!("{}", outcome.log);
                    }
                    count(&mut score, row, &name, &outcome);
                }
                Err(e) => {
                    *score.unsupported.entry(format!("load: {e}")).or_default() += 1;
                    score.other.push(format!("load {name}: {e}"));
                }
            }
        }
    }
    report(&score, verbose);
    Ok(())
}

fn count(score: &mut Score, row: &Row, name: &str, outcome: &Outcome) {
    match &outcome.verdict {
        Verdict::Unsupported { what, .. } => {
            *score.unsupported.entry(what.clone()).or_default() += 1;
            score.other.push(format!("unsupported {name}: {what}"));
        }
        Verdict::Accept(_) if !row.accepted => {
            score
                .false_accepts
                .push(format!("{name}: {} {}", row.errno, row.message));
        }
        Verdict::Accept(_) => {
            score.agree += 1;
            score.accepted += 1;
            let s = outcome.stats;
            let same = s.insns_processed == row.insns;
            score.insns += usize::from(same);
            score.states += usize::from(s.total_states == row.states);
            score.peak += usize::from(s.peak_states == row.peak);
            if s.peak_states != row.peak {
                let (ours, peak) = (s.peak_states, row.peak);
                score.other.push(format!("peak {name}: {ours} for {peak}"));
            }
            if !same {
                score.other.push(format!(
                    "insns {name}: {} for {}, states {} for {}",
                    s.insns_processed, row.insns, s.total_states, row.states
                ));
            }
        }
        Verdict::Reject { errno, message, .. } if row.accepted => {
            score
                .false_rejects
                .push(format!("{name}: {errno:?} {message}"));
        }
        Verdict::Reject { errno, message, .. } => {
            score.agree += 1;
            score.refused += 1;
            let same = i32::from(errno.0) == -row.errno;
            score.errno += usize::from(same);
            if !same {
                score.other.push(format!(
                    "errno {name}: {errno:?} for {}: {message} for {}",
                    row.errno, row.message
                ));
            }
            let same = last_line(outcome, message).trim() == row.message.trim();
            score.message += usize::from(same);
            if !same {
                score.other.push(format!(
                    "message {name}: {} for {}",
                    last_line(outcome, message),
                    row.message
                ));
            }
        }
    }
}

/// The last line before the counts, as the record has it.
fn last_line<'a>(outcome: &'a Outcome, message: &'a str) -> &'a str {
    match message.is_empty() {
        false => message,
        true => outcome
            .log
            .lines()
            .find(|l| l.starts_with("stack depth"))
            .unwrap_or(""),
    }
}

fn report(score: &Score, verbose: bool) {
    if verbose {
        for line in &score.other {
            println!("{line}");
        }
    }
    for line in &score.false_accepts {
        println!("false accept {line}");
    }
    for line in &score.false_rejects {
        println!("false reject {line}");
    }
    let mut why: Vec<_> = score.unsupported.iter().collect();
    why.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    for (what, n) in why {
        println!("{n:5}  unsupported: {what}");
    }
    let share = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
    let line = |what: &str, n: usize, of: usize| {
        println!("{what:24} {n:5} of {of:5}  {:5.1} %", share(n, of));
    };
    line("same verdict", score.agree, score.rows);
    line("false accepts", score.false_accepts.len(), score.rows);
    line("false rejects", score.false_rejects.len(), score.rows);
    line("unsupported", score.unsupported.values().sum(), score.rows);
    line("same errno", score.errno, score.refused);
    line("same last line", score.message, score.refused);
    line("same insns", score.insns, score.accepted);
    line("same states", score.states, score.accepted);
    line("same peak states", score.peak, score.accepted);
    report_times(&score.times);
}

/// Sums, medians and rows that take too long; how much memory it all took.
fn report_times(times: &[(Duration, Duration, String)]) {
    let median = |of: fn(&(Duration, Duration, String)) -> Duration| {
        let mut all: Vec<Duration> = times.iter().map(of).collect();
        all.sort();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let (ours, linux): (Duration, Duration) = (
        times.iter().map(|t| t.0).sum(),
        times.iter().map(|t| t.1).sum(),
    );
    println!(
        "time                     {:.2} s, Linux {:.2} s: {:.2} times; median {:?}, Linux {:?}",
        ours.as_secs_f64(),
        linux.as_secs_f64(),
        ours.as_secs_f64() / linux.as_secs_f64(),
        median(|t| t.0),
        median(|t| t.1),
    );
    let long = times.iter().filter(|t| t.0 > LONG);
    let (mut count, mut worst) = (0, 0f64);
    for (ours, linux, name) in long {
        let times = ours.as_secs_f64() / linux.as_secs_f64().max(1e-6);
        (count, worst) = (count + 1, worst.max(times));
        if times > 3.0 {
            println!("slow {name}: {ours:?}, Linux {linux:?}: {times:.1} times");
        }
    }
    println!("longer than {LONG:?}          {count:5}, at most {worst:.2} times Linux's");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    println!(
        "memory at most           {}",
        peak.unwrap_or("unknown").trim()
    );
}

/// The record's rows with a verdict.
pub fn rows_by_file(record: Option<&String>) -> Result<BTreeMap<String, Vec<Row>>, String> {
    let default = "../shared/oracle/verdicts.csv".to_owned();
    let record = record.unwrap_or(&default);
    let text = std::fs::read_to_string(record).map_err(|e| format!("{record}: {e}"))?;
    let mut files: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in text.lines().skip(1).filter_map(row) {
        files.entry(row.file.clone()).or_default().push(row);
    }
    Ok(files)
}

/// Splits a line of CSV with quotes.
fn fields(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                if let Some(last) = out.last_mut() {
                    last.push('"');
                }
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    out
}

fn row(line: &str) -> Option<Row> {
    let f = fields(line);
    let accepted = match f.get(3)?.as_str() {
        "success" => true,
        "failure" => false,
        _ => return None,
    };
    let number = |i: usize| f.get(i).and_then(|v| v.parse::<i64>().ok()).unwrap_or(0);
    Some(Row {
        file: f[0].clone(),
        program: f[1].clone(),
        accepted,
        errno: number(5) as i32,
        insns: number(6) as u32,
        states: number(7) as u32,
        peak: number(8) as u32,
        micros: number(9) as u64,
        message: f.get(14)?.clone(),
    })
}

/// An object with all that a kernel adds, loaded as veristat loads it.
fn prepare(bytes: &[u8], profile: &Profile) -> Result<Resolved, String> {
    let mut object = bpfsim_loader::load(bytes).map_err(|e| format!("{e}"))?;
    veristat_fixup(&mut object);
    veristat_freplace(&mut object);
    Resolved::new(object, profile).map_err(|e| format!("{e}"))
}

fn judge(
    object: &Resolved,
    name: &str,
    profile: &Profile,
    level: u32,
    time: &mut Duration,
) -> Result<Outcome, String> {
    let mut names = object.object().programs.iter();
    let index = names.position(|p| p.name == name);
    let index = index.ok_or("no such program")?;
    let options = Options {
        log_level: level,
        ..Options::default()
    };
    let start = cpu_time();
    let outcome = object.judge(index, profile, &options);
    *time = (*time).min(cpu_time().saturating_sub(start));
    outcome.map_err(|e| format!("{e}"))
}

/// How long this thread has run.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
