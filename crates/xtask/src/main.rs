//! Chores of the workspace: `cargo xtask <chore>`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command of its own, for people to read

mod bench;
mod fixtures;
mod libbpf_compare;
mod oracle_live;
mod oracle_logs;
mod oracle_testrun;
mod oracle_verdicts;
mod record;

use std::process::ExitCode;

/// A chore: takes the arguments after its name.
type Chore = fn(&[String]) -> Result<(), String>;

/// Every chore: name, what `cargo xtask` prints of it, what runs it.
const CHORES: &[(&str, &str, Chore)] = &[
    (
        "bench",
        "[--rounds N] [--ms N] [--part engines|orders] [--testrun DIR RECORD.csv]  interpreters and \
         explorers beside their peers, as docs/performance.md keeps them",
        bench::main,
    ),
    (
        "fixtures",
        "[--check] [PATH...]  build the objects of fixtures/ again; --check compares instead",
        fixtures::main,
    ),
    (
        "libbpf-compare",
        "DIR|OBJECT... [--libbpf DIR]  hold the loader against libbpf",
        libbpf_compare::main,
    ),
    (
        "oracle",
        "testrun DIR [RECORD.csv]  what selftests return here, beside what they returned on Linux\n  \
         oracle verdicts DIR [RECORD.csv|--live] [-v] [--only TEXT] [--log N]  what the verifier says of them, beside Linux\n  \
         oracle logs DIR [RECORD.csv] [-v] [--only TEXT] [--level N]  its logs, line for line beside the running Linux's",
        oracle,
    ),
    (
        "record",
        "[--runs N] [PATH...]  ask the running Linux again what *.linux.json of fixtures/ say",
        record::main,
    ),
];

fn oracle(args: &[String]) -> Result<(), String> {
    let which = args.split_first().map(|(name, rest)| (name.as_str(), rest));
    match which {
        Some(("testrun", rest)) => oracle_testrun::main(rest),
        Some(("logs", rest)) => oracle_logs::main(rest),
        Some(("verdicts", rest)) => oracle_verdicts::main(rest),
        _ => Err("oracle testrun|verdicts|logs DIR [RECORD.csv]".into()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let chore = args
        .first()
        .and_then(|name| CHORES.iter().find(|(n, _, _)| n == name));
    let Some((_, _, run)) = chore else {
        eprintln!("usage: cargo xtask <chore>");
        for (name, help, _) in CHORES {
            eprintln!("  {name} {help}");
        }
        return ExitCode::from(2);
    };
    match run(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
