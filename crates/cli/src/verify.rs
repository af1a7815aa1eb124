//! `bpfsim verify`: what Linux's verifier would say of each program.

use crate::files::types;
use crate::{Outcome, Stop, inspect, show};
use bpfsim_abi::{Errno, KernelVersion};
use bpfsim_kernel::{LoadError, Newer, Profile, Resolved, veristat_fixup};
use bpfsim_loader::Object;
use bpfsim_verifier::{Explanation, Options, Stats, Verdict};
use clap::ColorChoice;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Verifies every program of objects, each alone, as Linux 6.18 would: those too that an
/// application has to ask for.
#[derive(clap::Args)]
pub struct Args {
    /// The objects, as a compiler made them.
    #[arg(required = true)]
    objects: Vec<PathBuf>,
    /// Only the programs of these functions.
    #[arg(long)]
    prog: Vec<String>,
    /// Print the verifier's log, with C lines: 1 what led to a refusal, 2 everything, 4 counts.
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=7), conflicts_with = "json")]
    log: Option<u32>,
    /// Which of these kernels take each program, such as 5.15,6.1,6.18.
    #[arg(long, value_delimiter = ',', conflicts_with = "log")]
    kernel: Vec<KernelVersion>,
    /// A kernel's own types, such as 5.15=/path/to/vmlinux.btf: raw BTF.
    #[arg(long, value_name = "KERNEL=FILE", value_parser = own_types, requires = "kernel")]
    btf: Vec<(KernelVersion, PathBuf)>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

fn own_types(text: &str) -> Result<(KernelVersion, PathBuf), String> {
    let (version, file) = text.split_once('=').ok_or("not KERNEL=FILE")?;
    let version: KernelVersion = version.parse().map_err(|e| format!("{e}"))?;
    Ok((version, PathBuf::from(file)))
}

pub fn run(args: &Args, color: ColorChoice) -> Result<Outcome, Stop> {
    let reference = Profile::reference().map_err(Stop::unusable)?;
    let profiles = profiles(args, &reference)?;
    let mut ends = Ends::default();
    let mut rows: Vec<Vec<Row>> = vec![Vec::new(); profiles.len()];
    for path in &args.objects {
        let object = match inspect::load(path) {
            Ok(mut object) => {
                veristat_fixup(&mut object);
                object
            }
            Err(e) => {
                ends.unusable = true;
                show::error(&format!("{}: {}", path.display(), e.message));
                continue;
            }
        };
        for (profile, rows) in profiles.iter().zip(&mut rows) {
            rows.extend(verify(args, path, &object, profile));
        }
    }
    if rows[0].is_empty() && !args.prog.is_empty() && !ends.unusable {
        let names = args.prog.join(", ");
        return Err(Stop::unusable(format!("no program {names}")));
    }
    rows.iter().flatten().for_each(|row| ends.count(row));
    let matrix = !args.kernel.is_empty();
    match (args.json, matrix) {
        (true, _) => {
            for i in 0..rows[0].len() {
                for (profile, rows) in profiles.iter().zip(&rows) {
                    show::json(&rows[i].json(matrix.then_some(profile)));
                }
            }
        }
        (false, true) => print_matrix(&profiles, &rows),
        (false, false) => print_table(args, &rows[0], color),
    }
    Ok(ends.outcome())
}

/// The kernels that are asked for, oldest as the user has them; without any, the reference.
fn profiles(args: &Args, reference: &Profile) -> Result<Vec<Profile>, Stop> {
    if args.kernel.is_empty() {
        return Ok(vec![reference.clone()]);
    }
    if let Some((version, _)) = args.btf.iter().find(|(v, _)| !args.kernel.contains(v)) {
        let message = format!("types of {version}, which --kernel does not ask for");
        return Err(Stop::unusable(message));
    }
    let of = |&version: &KernelVersion| {
        if !KernelVersion::ALL.contains(&version) {
            let all = (KernelVersion::OLDEST, KernelVersion::REFERENCE);
            let message = format!("kernel {version}: bpfsim knows {} to {}", all.0, all.1);
            return Err(Stop::unusable(message));
        }
        let own = args.btf.iter().find(|(v, _)| *v == version);
        Ok(Profile {
            version,
            own_types: own.is_some() || version == KernelVersion::REFERENCE,
            btf: match own {
                Some((_, file)) => types(file).map_err(Stop::unusable)?.btf,
                None => Arc::clone(&reference.btf),
            },
            ..reference.clone()
        })
    };
    args.kernel.iter().map(of).collect()
}

/// How the command ends.
#[derive(Default)]
struct Ends {
    rejected: bool,
    unsupported: bool,
    unusable: bool,
}

impl Ends {
    fn count(&mut self, row: &Row) {
        match row.says {
            Says::Accept => {}
            Says::Reject => self.rejected = true,
            Says::Unsupported => self.unsupported = true,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Ends { rejected: true, .. } => Outcome::Failed,
            Ends {
                unsupported: false,
                unusable: false,
                ..
            } => Outcome::Fine,
            _ => Outcome::Unusable,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Accept,
    Reject,
    Unsupported,
}

impl Says {
    const fn name(self) -> &'static str {
        match self {
            Says::Accept => "accept",
            Says::Reject => "reject",
            Says::Unsupported => "unsupported",
        }
    }
}

/// What is said of one program for one kernel.
#[derive(Clone)]
struct Row {
    file: String,
    program: String,
    section: String,
    prog_type: &'static str,
    says: Says,
    errno: Option<u32>,
    stats: Stats,
    took: Duration,
    message: String,
    /// What the kernel lacks.
    newer: Vec<Newer>,
    /// What libbpf found missing where the program is refused.
    missing: Option<String>,
    log: String,
    explanation: Option<Explanation>,
}

/// Each program of an object, as far as it is asked for.
fn verify(args: &Args, path: &Path, object: &Object, profile: &Profile) -> Vec<Row> {
    let resolved = Resolved::new(object.clone(), profile);
    let wanted = |name: &String| args.prog.is_empty() || args.prog.contains(name);
    let programs = object.programs.iter().enumerate();
    programs
        .filter(|(_, p)| wanted(&p.name))
        .map(|(index, program)| {
            let mut row = Row {
                file: path.display().to_string(),
                program: program.name.clone(),
                section: program.section.clone(),
                prog_type: program.spec.prog_type.name(),
                says: Says::Accept,
                errno: None,
                stats: Stats::default(),
                took: Duration::ZERO,
                message: String::new(),
                newer: Vec::new(),
                missing: None,
                log: String::new(),
                explanation: None,
            };
            match &resolved {
                Ok(resolved) => {
                    row.judge(resolved, index, profile, args.log.unwrap_or(0));
                    if row.says != Says::Accept && args.kernel.is_empty() {
                        row.explanation = resolved.explain(index, profile).ok().flatten();
                    }
                }
                Err(e) => row.not_loaded(e),
            }
            row
        })
        .collect()
}

impl Row {
    /// What keeps libbpf from asking the kernel.
    fn not_loaded(&mut self, error: &LoadError) {
        self.errno = error.errno();
        self.message = error.to_string();
        self.says = match self.errno {
            Some(_) => Says::Reject,
            None => Says::Unsupported,
        };
    }

    fn judge(&mut self, resolved: &Resolved, index: usize, profile: &Profile, log_level: u32) {
        let options = Options {
            log_level,
            ..Options::default()
        };
        let begin = Instant::now();
        let outcome = match resolved.judge(index, profile, &options) {
            Ok(outcome) => outcome,
            Err(e) => {
                self.newer = resolved.newer(index, profile, |_| true);
                return self.not_loaded(&e);
            }
        };
        self.took = begin.elapsed();
        (self.stats, self.log) = (outcome.stats, outcome.log);
        match outcome.verdict {
            Verdict::Accept(verified) => {
                self.newer = resolved.newer(index, profile, |at| verified.is_reached(at));
                if !self.newer.is_empty() {
                    self.says = Says::Reject;
                    self.message = format!("Linux {} lacks {}", profile.version, self.lacks());
                }
            }
            Verdict::Reject {
                errno,
                message,
                insn,
                ..
            } => {
                self.missing = insn.and_then(|at| resolved.missing(index, at));
                self.says = Says::Reject;
                (self.errno, self.message) = (Some(errno.0.into()), message);
                self.newer = resolved.newer(index, profile, |_| true);
            }
            Verdict::Unsupported { what, .. } => {
                (self.says, self.message) = (Says::Unsupported, what);
            }
        }
    }

    fn lacks(&self) -> String {
        let all: Vec<String> = self.newer.iter().map(Newer::to_string).collect();
        all.join(", ")
    }

    /// Why not, in one line.
    fn reason(&self) -> String {
        match (self.says, self.errno) {
            (Says::Unsupported, _) => format!("unsupported: {}", self.message),
            (_, Some(errno)) => {
                let known = u16::try_from(errno).ok().and_then(|e| Errno(e).name());
                let errno = known.map_or_else(|| errno.to_string(), str::to_string);
                let lacks = match self.newer.is_empty() {
                    true => String::new(),
                    false => format!("; also lacks {}", self.lacks()),
                };
                let missing = self.missing.as_ref();
                let missing = missing.map_or_else(String::new, |m| format!(" ({m})"));
                format!("-{errno} {}{missing}{lacks}", self.message)
            }
            (_, None) => self.message.clone(),
        }
    }

    fn json(&self, matrix: Option<&Profile>) -> Value {
        let mut row = json!({
            "file": self.file,
            "program": self.program,
            "section": self.section,
            "prog_type": self.prog_type,
            "verdict": self.says.name(),
            "errno": self.errno,
            "insns": self.stats.insns_processed,
            "states": self.stats.total_states,
            "peak_states": self.stats.peak_states,
            "duration_us": self.took.as_micros() as u64,
            "message": self.message,
            "explanation": self.explanation,
        });
        if let Some(profile) = matrix {
            row["kernel"] = json!(profile.version.to_string());
            row["types"] = json!(types_of(profile).to_string());
            row["logic"] = json!(KernelVersion::REFERENCE.to_string());
            row["lacks"] = self
                .newer
                .iter()
                .map(|n| json!({ "what": n.what, "since": n.since.to_string(), "insn": n.insn }))
                .collect();
        }
        row
    }
}

/// Whose types a kernel's row was made with.
fn types_of(profile: &Profile) -> KernelVersion {
    match profile.own_types {
        true => profile.version,
        false => KernelVersion::REFERENCE,
    }
}

fn print_table(args: &Args, rows: &[Row], color: ColorChoice) {
    if rows.is_empty() {
        return;
    }
    if args.log.is_some() {
        for row in rows {
            show::line(&format!("{} {}", row.file, row.program));
            show::line(&row.log);
        }
    }
    let head = [
        "file", "program", "verdict", "insns", "states", "peak", "time",
    ];
    let mut table = vec![head.map(str::to_string)];
    table.extend(rows.iter().map(|row| {
        [
            row.file.clone(),
            row.program.clone(),
            row.says.name().to_string(),
            row.stats.insns_processed.to_string(),
            row.stats.total_states.to_string(),
            row.stats.peak_states.to_string(),
            format!("{} us", row.took.as_micros()),
        ]
    }));
    print_columns(&table, 3);
    for row in rows.iter().filter(|r| r.says != Says::Accept) {
        show::line("");
        show::line(&format!("{}: {}", row.program, row.reason()));
        if let Some(explanation) = &row.explanation {
            show::explain(explanation, color);
        }
    }
    if rows.iter().any(|r| r.says != Says::Accept) {
        show::line("");
    }
    // libbpf found no such function, variable or type.
    if rows.iter().any(|r| r.errno == Some(Errno::ESRCH.0.into())) {
        show::line(
            "note: the kernel's types are those of a 6.18 without sched_ext and modules; another's: \
             --kernel 6.18 --btf 6.18=/sys/kernel/btf/vmlinux",
        );
    }
    let count = |says| rows.iter().filter(|r| r.says == says).count();
    show::line(&format!(
        "{} programs: {} accepted, {} rejected, {} unsupported",
        rows.len(),
        count(Says::Accept),
        count(Says::Reject),
        count(Says::Unsupported)
    ));
}

/// Lines of columns, those from `right` on flush right.
fn print_columns<const N: usize>(table: &[[String; N]], right: usize) {
    let widths: Vec<usize> = (0..N)
        .map(|c| table.iter().map(|row| row[c].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    for row in table {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(c, (text, &width))| match c < right {
            true => format!("{text:width$}"),
            false => format!("{text:>width$}"),
        });
        let line: Vec<String> = cells.collect();
        show::line(line.join("  ").trim_end());
    }
}

fn print_matrix(profiles: &[Profile], rows: &[Vec<Row>]) {
    let Some(first) = rows.first().filter(|rows| !rows.is_empty()) else {
        return;
    };
    let name = |row: &Row| format!("{} {}", row.file, row.program);
    let width = first.iter().map(|r| name(r).chars().count()).max();
    let width = width.unwrap_or_default();
    let mut head = format!("{:width$}", "program");
    for profile in profiles {
        head += &format!("  {:>5}", profile.version.to_string());
    }
    show::line(&head);
    for (i, row) in first.iter().enumerate() {
        let mut line = format!("{:width$}", name(row));
        for rows in rows {
            let says = match rows[i].says {
                Says::Accept => "yes",
                Says::Reject => "no",
                Says::Unsupported => "?",
            };
            line += &format!("  {says:>5}");
        }
        show::line(&line);
        for (profile, rows) in profiles.iter().zip(rows) {
            if rows[i].says != Says::Accept {
                show::line(&format!("  {}: {}", profile.version, rows[i].reason()));
            }
        }
    }
    for profile in profiles {
        let types = types_of(profile);
        if types != profile.version {
            let version = profile.version;
            show::line(&format!(
                "types: {version} with those of {types}; --btf {version}=FILE gives its own"
            ));
        }
    }
    let logic = KernelVersion::REFERENCE;
    show::line(&format!(
        "The verifier's logic is that of {logic} in every column: helpers, kfuncs, types, flags and instructions are those of each kernel."
    ));
}
