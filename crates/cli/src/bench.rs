//! `bpfsim bench`: how long programs take.

use crate::{Outcome, Stop, show};
use bpfsim::{Config, Ebpf, EbpfLoader, OnUnsupported, ProgramInput, Seed, Sim};
use bpfsim_linux::object::KernelFacts;
use bpfsim_linux::{Input, Linux};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// The object, as clang made it.
    object: PathBuf,
    /// The programs to run, by the names of their functions; without any, all.
    #[arg(long, value_name = "NAME")]
    prog: Vec<String>,
    /// The packet: a file with its bytes. Without it 64 zero bytes.
    #[arg(long, value_name = "FILE")]
    data_in: Option<PathBuf>,
    /// How long each program is run on each engine, in milliseconds.
    #[arg(long, default_value_t = 200, value_name = "N")]
    ms: u64,
    /// What else to run the programs on: `linux`, by `bpf(2)`, where the kernel of this machine lets
    /// the caller load programs and run them (`BPF_PROG_TEST_RUN`). Nothing is attached.
    #[arg(long, value_enum, value_name = "WHAT")]
    against: Option<Against>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    Linux,
}

/// Runs of one system call, for types of programs that it can run more than once.
const REPEAT: u32 = 1000;
/// So many measurements are made, of which the middle one counts.
const ROUNDS: usize = 9;

/// What came of a program on an engine.
struct Row {
    program: String,
    engine: &'static str,
    figures: Result<Figures, String>,
}

struct Figures {
    /// Of one run.
    ns: f64,
    insns: u64,
    return_value: u32,
    /// Each run is a system call of its own, which is measured with it.
    with_syscall: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| Stop::unusable(format!("{}: {e}", path.display())))
    };
    let object = read(&args.object)?;
    let data = match &args.data_in {
        Some(path) => read(path)?,
        None => vec![0; 64],
    };
    let names = names(args, &object)?;
    let share = Duration::from_millis(args.ms.max(1)) / ROUNDS as u32;
    let linux = args.against.map(|_| OnLinux::new(&object));
    let mut any = false;
    for name in names {
        let mut insns = None;
        for (engine, checked) in [("interpreter", false), ("checked", true)] {
            let figures = ours(&object, &name, &data, checked, share);
            insns = figures.as_ref().map_or(insns, |f| Some(f.insns));
            any |= figures.is_ok();
            show_row(args, &row(&name, engine, figures));
        }
        if let Some(linux) = &linux {
            let figures = linux.as_ref().map_err(String::clone);
            let figures = figures.and_then(|l| l.figures(&name, &data, insns, share));
            show_row(args, &row(&name, "linux", figures));
        }
    }
    Ok(match any {
        true => Outcome::Fine,
        false => Outcome::Unusable,
    })
}

fn row(program: &str, engine: &'static str, figures: Result<Figures, String>) -> Row {
    Row {
        program: program.to_string(),
        engine,
        figures,
    }
}

/// The programs that are wanted, which the object must have.
fn names(args: &Args, object: &[u8]) -> Result<Vec<String>, Stop> {
    let sim = Sim::new().map_err(Stop::unusable)?;
    let bpf = loader()
        .load(&sim, object)
        .map_err(|e| Stop::not_loaded(&args.object, &e))?;
    for name in &args.prog {
        bpf.program(name).map_err(Stop::unusable)?;
    }
    let all = bpf.programs().map(|p| p.name().to_string());
    Ok(match args.prog.is_empty() {
        true => all.collect(),
        false => args.prog.clone(),
    })
}

/// What the verifier cannot tell of is run all the same: checked, it shows what it does.
fn loader() -> EbpfLoader {
    EbpfLoader::new().on_unsupported(OnUnsupported::RunChecked)
}

/// Measures a program in a simulation of its own.
fn ours(
    object: &[u8],
    name: &str,
    data: &[u8],
    checked: bool,
    share: Duration,
) -> Result<Figures, String> {
    let text = |e: bpfsim::Error| e.to_string();
    let config = Config {
        checked,
        ..Config::default()
    };
    let sim = Sim::with(config, Seed::USUAL).map_err(text)?;
    let mut bpf: Ebpf = loader().load(&sim, object).map_err(text)?;
    let program = bpf.program_mut(name).map_err(text)?;
    let input = match program.takes_packet() {
        true => ProgramInput::packet(data),
        false => ProgramInput::empty(),
    };
    let repeats = program.repeats();
    let input = input.repeat(if repeats { REPEAT } else { 0 });
    let mut bench = program.bench(input).map_err(text)?;
    let (insns, return_value) = (bench.first().insns, bench.first().return_value);
    let at_once = f64::from(bench.runs_at_once());
    let ns = measure(share, &mut || bench.run().map(drop).map_err(text))? / at_once;
    Ok(Figures {
        ns,
        insns,
        return_value,
        with_syscall: !repeats,
    })
}

/// How long `f` takes, in ns: the middle of some measurements, each of which takes about `share`.
fn measure(share: Duration, f: &mut dyn FnMut() -> Result<(), String>) -> Result<f64, String> {
    let mut time = |times: u64| -> Result<f64, String> {
        let start = Instant::now();
        for _ in 0..times {
            f()?;
        }
        Ok(start.elapsed().as_nanos() as f64 / times as f64)
    };
    let once = time(3)?.max(1.0);
    let times = (share.as_nanos() as f64 / once).clamp(1.0, 1e7) as u64;
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        all.push(time(times)?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[ROUNDS / 2])
}

/// The kernel of this machine, and the object.
struct OnLinux {
    linux: Linux,
    facts: KernelFacts,
    object: bpfsim_loader::Object,
}

impl OnLinux {
    /// It answers, and can be given objects.
    fn new(object: &[u8]) -> Result<OnLinux, String> {
        let linux = Linux::detect().map_err(|why| why.to_string())?;
        Ok(OnLinux {
            facts: KernelFacts::of_this_machine(&linux).map_err(|e| e.to_string())?,
            object: bpfsim_loader::load(object).map_err(|e| e.to_string())?,
            linux,
        })
    }

    fn figures(
        &self,
        name: &str,
        data: &[u8],
        insns: Option<u64>,
        share: Duration,
    ) -> Result<Figures, String> {
        let loaded = self.linux.load_object(&self.facts, &self.object, &[name]);
        let loaded = loaded.map_err(|e| e.to_string())?;
        let program = loaded.program(name).ok_or("it was not loaded")?;
        let refused = |errno: bpfsim::Errno| format!("BPF_PROG_TEST_RUN: {errno}");
        // Which types take a packet, and how often they run, only the kernel can say.
        let packet = Input {
            repeat: REPEAT,
            ..Input::packet(data)
        };
        let (input, ran) = match program.test_run(&packet) {
            Ok(ran) => (packet, ran),
            Err(_) => {
                let bare = Input::default();
                let ran = program.test_run(&bare).map_err(refused)?;
                (bare, ran)
            }
        };
        let repeats = input.repeat > 0;
        let mut times = Vec::new();
        let whole = measure(share, &mut || {
            let ran = program.test_run(&input).map_err(refused)?;
            times.push(ran.duration);
            Ok(())
        })?;
        times.sort_unstable();
        Ok(Figures {
            ns: match repeats {
                true => f64::from(times[times.len() / 2]),
                false => whole,
            },
            insns: insns.unwrap_or(0),
            return_value: ran.retval,
            with_syscall: !repeats,
        })
    }
}

fn show_row(args: &Args, row: &Row) {
    let (program, engine) = (&row.program, row.engine);
    match &row.figures {
        Ok(f) => {
            let each = f.ns / f.insns.max(1) as f64;
            if args.json {
                return show::json(&json!({
                    "program": program,
                    "engine": engine,
                    "ns_per_run": f.ns,
                    "ns_per_insn": each,
                    "insns": f.insns,
                    "return_value": f.return_value,
                    "with_syscall": f.with_syscall,
                }));
            }
            let how = match f.with_syscall {
                true => ", system call included",
                false => "",
            };
            show::line(&format!(
                "{program:<32} {engine:<12} {:>10.1} ns a run {each:>8.3} ns an instruction \
                 ({} instructions, returned {}{how})",
                f.ns, f.insns, f.return_value as i32,
            ));
        }
        Err(why) if args.json => show::json(&json!({
            "program": program,
            "engine": engine,
            "error": why,
        })),
        Err(why) => show::line(&format!("{program:<32} {engine:<12} cannot run: {why}")),
    }
}
