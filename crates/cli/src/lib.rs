//! The `bpfsim` command, as a library that tests share.

mod bench;
mod conformance;
mod cov;
mod disasm;
mod explore;
mod features;
mod files;
mod inspect;
mod run;
pub mod scenario;
mod show;
mod verify;

use bpfsim::explanation::Explanation;
use clap::{ColorChoice, Parser, Subcommand};
use std::fmt;
use std::process::ExitCode;

/// The kernel half of BPF, in user space: load, run and explore BPF programs for Linux without
/// root and without a kernel.
#[derive(Parser)]
#[command(name = "bpfsim", version, about)]
struct Cli {
    /// Colours: only on terminals, always, or never.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load an object, run a program of it, and run what it left.
    Run(run::Args),
    /// Run a scenario in many orders, and find one in which it fails.
    Explore(explore::Args),
    /// How long programs take, run after run.
    Bench(bench::Args),
    /// Which C lines and branches a scenario runs, over several orders.
    Cov(cov::Args),
    /// What Linux's verifier would say of each program of objects.
    Verify(verify::Args),
    /// What an object holds: programs, maps, globals, externs, relocations, types.
    Inspect(inspect::Args),
    /// An object's instructions, with C lines.
    Disasm(disasm::Args),
    /// What of Linux's BPF surface bpfsim has, and what objects want beyond it.
    Features(features::Args),
    /// Run a program as the bpf_conformance suite asks its plugins to.
    ConformancePlugin(conformance::Args),
}

/// How a command ends, as its exit status says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All as hoped.
    Fine = 0,
    /// A program was rejected, or an expectation failed.
    Failed = 1,
    /// Bad usage, input that is no BPF object, or only unsupported.
    Unusable = 2,
}

/// An error that ends a command.
struct Stop {
    outcome: Outcome,
    message: String,
    explanation: Option<Box<Explanation>>,
}

impl Stop {
    /// An object does not load: the verifier refuses it, or it cannot be used.
    fn not_loaded(object: &std::path::Path, error: &bpfsim::Error) -> Stop {
        use bpfsim::{Error, LoadError};
        let rejected = matches!(error, Error::Load(LoadError::Rejected(_)));
        Stop {
            outcome: if rejected {
                Outcome::Failed
            } else {
                Outcome::Unusable
            },
            message: format!("{}: {error}", object.display()),
            explanation: error.explanation().cloned().map(Box::new),
        }
    }

    /// The input cannot be used.
    fn unusable(message: impl fmt::Display) -> Stop {
        Stop {
            outcome: Outcome::Unusable,
            message: message.to_string(),
            explanation: None,
        }
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let Cli { color, command } = Cli::parse();
    let ended = match command {
        Command::Run(args) => run::run(&args),
        Command::Explore(args) => explore::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Cov(args) => cov::run(&args),
        Command::Verify(args) => verify::run(&args, color),
        Command::Inspect(args) => inspect::run(&args),
        Command::Disasm(args) => disasm::run(&args),
        Command::Features(args) => features::run(&args),
        Command::ConformancePlugin(args) => conformance::run(&args),
    };
    let outcome = ended.unwrap_or_else(|stop| {
        show::error(&stop.message);
        if let Some(explanation) = &stop.explanation {
            show::explain_error(explanation, color);
        }
        stop.outcome
    });
    ExitCode::from(outcome as u8)
}
