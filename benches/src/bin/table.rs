//! Prints the tables of docs/performance.md:
//! `table [--rounds N] [--ms N] [--only NAME] [--part engines|orders]`, with so many rounds, in each
//! of which every engine or tool runs for so many milliseconds; with `--testrun DIR RECORD.csv` the
//! programs of the selftests too, whose objects are in that folder.

#![allow(clippy::print_stdout)] // a command of its own, for people to read

use bpfsim_benches::engines::ENGINES;
use bpfsim_benches::measure::{Row, geomean, measure};
use bpfsim_benches::orders::{MODELS, PEER, TOOLS, rates};
use bpfsim_benches::programs::programs;
use bpfsim_benches::testrun;
use std::path::Path;

fn main() {
    let given = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let arg = |name: &str, or: f64| given(name).and_then(|a| a.parse().ok()).unwrap_or(or);
    let (only, part) = (given("--only"), given("--part"));
    let (rounds, share) = (arg("--rounds", 15.0) as usize, arg("--ms", 10.0) * 1e6);
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let does = |name: &str| part.as_ref().is_none_or(|part| part == name);
    if does("engines") {
        engines(rounds, share, wanted);
    }
    if does("orders") {
        orders(rounds, share, wanted);
    }
    let testrun: Vec<String> = std::env::args().skip_while(|a| a != "--testrun").collect();
    if let [_, dir, record, ..] = &testrun[..] {
        selftests(dir.as_ref(), record.as_ref(), rounds, share);
    }
}

/// The selftests' programs beside the twelve, by bpfsim's interpreter, checked and not.
fn selftests(dir: &Path, record: &Path, rounds: usize, share: f64) {
    let rows = match testrun::measure(dir, record) {
        Ok(rows) if !rows.is_empty() => rows,
        Ok(_) => return println!("\nno program of the record is long enough"),
        Err(why) => return println!("\n{why}"),
    };
    println!(
        "\nprograms of selftests that call nothing outside of themselves, ns per instruction\n"
    );
    println!("| program | instructions | plain | checked |\n|---|---|---|---|");
    for row in &rows {
        let (plain, checked) = (short(row.plain), short(row.checked));
        println!("| {} | {} | {plain} | {checked} |", row.name, row.insns);
    }
    let twelve: Vec<Row> = programs()
        .iter()
        .filter(|p| !p.per_run)
        .map(|p| measure(p, rounds, share))
        .collect();
    let engine = |name: &str| ENGINES.iter().position(|(n, _)| *n == name).unwrap_or(0);
    for (name, ours) in [
        ("bpfsim", geomean(rows.iter().map(|r| r.plain))),
        ("bpfsim checked", geomean(rows.iter().map(|r| r.checked))),
    ] {
        let beside = geomean(twelve.iter().map(|r| r.ns[engine(name)]));
        println!(
            "\n{name}: geometric mean {} over these {}, {} over the {} of the table that are measured \
             by instruction: {}",
            short(ours),
            rows.len(),
            short(beside),
            twelve.len(),
            short(ours / beside),
        );
    }
}

fn engines(rounds: usize, share: f64, wanted: impl Fn(&str) -> bool) {
    let rows: Vec<Row> = programs()
        .iter()
        .filter(|p| wanted(p.name))
        .map(|p| measure(p, rounds, share))
        .collect();
    if rows.is_empty() {
        return;
    }
    let names: Vec<&str> = rows.iter().map(|r| r.name).collect();
    let engines: Vec<&str> = ENGINES.iter().map(|(name, _)| *name).collect();
    let table = |title: &str, cell: &dyn Fn(&Row, usize) -> f64| {
        print_table(title, "engine", &names, &engines, &|row, column| {
            cell(&rows[column], row)
        });
    };
    table("ns per instruction (pkt, nop2: per run)", &|row, i| {
        row.ns[i]
    });
    table("as a multiple of solana-sbpf's interpreter", &|row, i| {
        row.ns[i] / row.ns[0]
    });
}

fn orders(rounds: usize, share: f64, wanted: impl Fn(&str) -> bool) {
    let models: Vec<_> = MODELS.iter().filter(|m| wanted(m.name)).collect();
    if models.is_empty() {
        return;
    }
    let rates: Vec<Vec<f64>> = models.iter().map(|m| rates(m, rounds, share)).collect();
    let names: Vec<&str> = models.iter().map(|m| m.name).collect();
    let tools: Vec<&str> = TOOLS.iter().map(|(name, _)| *name).collect();
    let table = |title: &str, cell: &dyn Fn(usize, usize) -> f64| {
        print_table(title, "tool", &names, &tools, cell);
    };
    table("thousands of executions a second", &|tool, model| {
        rates[model][tool] / 1e3
    });
    table(
        "as a multiple of shuttle's random search",
        &|tool, model| rates[model][tool] / rates[model][PEER],
    );
}

/// A table with the geometric mean of each row behind it.
fn print_table(
    title: &str,
    kind: &str,
    columns: &[&str],
    rows: &[&str],
    cell: &dyn Fn(usize, usize) -> f64,
) {
    println!("\n{title}\n");
    println!("| {kind} | {} | geometric mean |", columns.join(" | "));
    println!("|---{}|", "|---".repeat(columns.len() + 1));
    for (i, name) in rows.iter().enumerate() {
        let all = (0..columns.len()).map(|c| cell(i, c));
        let cells: Vec<String> = all.clone().map(short).collect();
        println!(
            "| {name} | {} | {} |",
            cells.join(" | "),
            short(geomean(all))
        );
    }
}

fn short(x: f64) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.3}"),
    }
}
