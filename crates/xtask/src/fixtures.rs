//! `cargo xtask fixtures`: the objects of `fixtures/`, built again from their sources.
//!
//! `fixtures/build.toml` says which compiler makes what. An object's bytes depend on the compiler's
//! version and on nothing else: sources are named relative to their folder, and no path of this
//! machine gets into the debug information. A compiler that is absent, or of another version,
//! is said so and passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    compiler: BTreeMap<String, Tool>,
    disassembler: Tool,
    set: Vec<Set>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    command: String,
    version: String,
    package: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    sources: String,
    out: String,
    #[serde(default)]
    only: Vec<String>,
    #[serde(default = "little_endian")]
    target: String,
    /// Macros that are defined.
    #[serde(default)]
    defines: Vec<String>,
    compilers: BTreeMap<String, Vec<String>>,
}

fn little_endian() -> String {
    "bpf".into()
}

/// One object to be made.
struct Job {
    compiler: String,
    cpu: String,
    target: String,
    defines: Vec<String>,
    /// Folder of the source and its name without `.bpf.c`.
    folder: PathBuf,
    stem: String,
    /// Where the object is committed.
    object: PathBuf,
}

/// How the objects came out.
#[derive(Default)]
struct Tally {
    same: usize,
    written: usize,
    skipped: usize,
    different: Vec<String>,
}

/// Runs the chore.
pub fn main(args: &[String]) -> Result<(), String> {
    let mut check = false;
    let mut wanted = Vec::new();
    for arg in args {
        match arg.as_str() {
            "--check" => check = true,
            flag if flag.starts_with('-') => {
                return Err(format!("fixtures: unknown option {flag}"));
            }
            path => wanted.push(path),
        }
    }
    let root = fixtures_dir();
    let text = read(&root.join("build.toml"))?;
    let build: Build = toml::from_str(&String::from_utf8_lossy(&text))
        .map_err(|e| format!("fixtures/build.toml: {e}"))?;

    let jobs = jobs(&root, &build)?;
    let matches = |job: &Job| {
        let name = relative(&root, &job.object);
        wanted.is_empty() || wanted.iter().any(|w| name.contains(w))
    };
    let jobs: Vec<Job> = jobs.into_iter().filter(matches).collect();
    if jobs.is_empty() {
        return Err(format!("fixtures: nothing matches {wanted:?}"));
    }

    let usable: BTreeMap<&str, bool> = build
        .compiler
        .iter()
        .map(|(name, tool)| (name.as_str(), is_usable(tool)))
        .collect();
    let lister = is_usable(&build.disassembler).then_some(&build.disassembler);
    let mut tally = Tally::default();
    for job in &jobs {
        let tool = (build.compiler.get(&job.compiler))
            .ok_or_else(|| format!("build.toml: no compiler {:?}", job.compiler))?;
        if !usable[job.compiler.as_str()] {
            tally.skipped += 1;
            continue;
        }
        make(&root, job, tool, lister, check, &mut tally)?;
    }
    report(&tally, check)
}

fn report(tally: &Tally, check: bool) -> Result<(), String> {
    let Tally {
        same,
        written,
        skipped,
        different,
    } = tally;
    println!("fixtures: {same} files as committed, {written} written, {skipped} objects SKIPPED");
    if check && !different.is_empty() {
        let list = different.join("\n  ");
        return Err(format!(
            "fixtures: not what their sources make:\n  {list}\nrun `cargo xtask fixtures`"
        ));
    }
    Ok(())
}

/// Where the fixtures are.
pub fn fixtures_dir() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join("fixtures")
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn jobs(root: &Path, build: &Build) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    for set in &build.set {
        let folder = root.join(&set.sources);
        let stems = match set.only.is_empty() {
            true => sources_in(&folder)?,
            false => set.only.clone(),
        };
        for (compiler, cpus) in &set.compilers {
            for cpu in cpus {
                let out = set
                    .out
                    .replace("{compiler}", compiler)
                    .replace("{cpu}", cpu);
                jobs.extend(stems.iter().map(|stem| {
                    Job {
                        compiler: compiler.clone(),
                        cpu: cpu.clone(),
                        target: set.target.clone(),
                        defines: set.defines.clone(),
                        folder: folder.clone(),
                        stem: stem.clone(),
                        object: root
                            .join(&out)
                            .join(format!("{stem}.bpf.o"))
                            .components()
                            .collect(),
                    }
                }));
            }
        }
    }
    Ok(jobs)
}

fn sources_in(folder: &Path) -> Result<Vec<String>, String> {
    let listing = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut stems: Vec<String> = listing
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".bpf.c")?.to_string()))
        .collect();
    stems.sort();
    Ok(stems)
}

/// Whether the tool is here and of the version whose output is committed; says so if not.
fn is_usable(tool: &Tool) -> bool {
    let Ok(output) = Command::new(&tool.command).arg("--version").output() else {
        println!(
            "SKIPPED: {} is not installed (Debian package {})",
            tool.command, tool.package
        );
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.split_whitespace().any(|word| word == tool.version);
    if !found {
        let first = text.lines().next().unwrap_or_default();
        println!(
            "SKIPPED: {} is not {}, which made the committed files: {first}",
            tool.command, tool.version
        );
    }
    found
}

fn make(
    root: &Path,
    job: &Job,
    tool: &Tool,
    lister: Option<&Tool>,
    check: bool,
    tally: &mut Tally,
) -> Result<(), String> {
    let name = relative(root, &job.object);
    let built = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = built.path().join(format!("{}.bpf.o", job.stem));
    run(&mut compile(root, job, tool, &file), &name)?;
    let bytes = read(&file)?;
    if let Some(leak) = machine_path(root, &bytes) {
        return Err(format!("{name}: holds the path {leak} of this machine"));
    }
    settle(root, &job.object, &bytes, check, tally)?;

    if let Some(lister) = lister {
        // Run beside the object, so that the listing's first line has no folder in it.
        let mut command = Command::new(&lister.command);
        command
            .current_dir(built.path())
            .arg("-d")
            .arg(format!("{}.bpf.o", job.stem));
        let listing = run(&mut command, &name)?.stdout;
        settle(
            root,
            &job.object.with_extension("objdump"),
            &listing,
            check,
            tally,
        )?;
    }
    Ok(())
}

fn compile(root: &Path, job: &Job, tool: &Tool, to: &Path) -> Command {
    let is_gcc = job.compiler.starts_with("gcc");
    // GCC orders BTF by the addresses of its own memory, so those have to be the same each time.
    let mut command = Command::new(if is_gcc { "setarch" } else { &tool.command });
    command.current_dir(&job.folder);
    if is_gcc {
        command.arg("-R").arg(&tool.command);
        // It writes its folder into BTF, where no prefix map reaches: by a name true everywhere.
        command.env("PWD", "/proc/self/cwd");
        command.args(["-gbtf", "-mco-re", "-fdebug-prefix-map=/proc/self/cwd=."]);
    } else {
        command.arg(format!("--target={}", job.target));
        command.args(["-fdebug-compilation-dir=.", "-Wall", "-Werror"]);
    }
    let include = match job.folder.components().eq(root.join(".").components()) {
        true => "include",
        false => "../include",
    };
    command.arg(format!("-mcpu={}", job.cpu));
    command.arg(format!("-DCPU={}", job.cpu.trim_start_matches('v')));
    command.args(job.defines.iter().map(|name| format!("-D{name}")));
    command.args(["-O2", "-g", "-I", include, "-c"]);
    command.arg(format!("{}.bpf.c", job.stem)).arg("-o").arg(to);
    command
}

fn run(command: &mut Command, what: &str) -> Result<Output, String> {
    let output = command
        .output()
        .map_err(|e| format!("{what}: {command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!(
            "{what}: {command:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// A path of this machine that got into the bytes.
fn machine_path(root: &Path, bytes: &[u8]) -> Option<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let workspace = root.parent().unwrap_or(root).display().to_string();
    let found =
        |path: &String| path.len() > 1 && bytes.windows(path.len()).any(|w| w == path.as_bytes());
    [workspace, home].into_iter().find(found)
}

/// Compares a file with what is committed, and writes it unless only checking.
fn settle(
    root: &Path,
    path: &Path,
    bytes: &[u8],
    check: bool,
    tally: &mut Tally,
) -> Result<(), String> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        tally.same += 1;
        return Ok(());
    }
    tally.different.push(relative(root, path));
    if check {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    tally.written += 1;
    Ok(())
}
