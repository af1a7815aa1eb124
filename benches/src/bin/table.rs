//! Prints the tables of docs/performance.md:
//! `table [--rounds N] [--ms N] [--only NAME] [--part engines|orders]`, with so many rounds, in each
//! of which every engine or tool runs for so many milliseconds; with `--testrun DIR RECORD.csv` the
//! programs of the selftests too, whose objects are in that folder.

#![allow(clippy::print_stdout)] // a command of its own, for people to read

use bpfsim_benches::engines::{ENGINES, PLAIN_AT as PLAIN, WITH_SOME_WORLDS, WITH_WORLDS};
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

/// The selftests' programs beside the twelve.
fn selftests(dir: &Path, record: &Path, rounds: usize, share: f64) {
    let measured = match testrun::measure(dir, record, rounds, share / 5.0) {
        Ok(measured) if !measured.rows.is_empty() => measured,
        Ok(_) => return println!("\nno program of the record can be measured"),
        Err(why) => return println!("\n{why}"),
    };
    let names: Vec<&str> = WITH_WORLDS
        .iter()
        .chain(WITH_SOME_WORLDS)
        .map(|(name, _)| *name)
        .collect();
    println!("\nprograms of selftests, ns per run\n");
    let columns = names.join(" | ");
    println!("| program | instructions | calls | {columns} |");
    println!("|---{}|", "|---".repeat(names.len() + 2));
    for row in &measured.rows {
        let cell = |ns: &Option<f64>| ns.map_or("-".into(), short);
        let cells: Vec<String> = row.ns.iter().map(cell).collect();
        let cells = cells.join(" | ");
        println!("| {} | {} | {} | {cells} |", row.name, row.insns, row.calls);
    }
    println!("\nnot measured:\n");
    for (why, n) in &measured.left {
        println!("{n:5}  {why}");
    }
    println!("\nas a multiple of solana-sbpf's interpreter, by instructions of a run\n");
    println!("| instructions | programs | {} |", names[1..].join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    let classes = [
        (0, 4),
        (5, 9),
        (10, 19),
        (20, 99),
        (100, u64::MAX),
        (0, u64::MAX),
    ];
    for (from, to) in classes {
        let rows = measured.rows.iter();
        let rows: Vec<_> = rows.filter(|r| (from..=to).contains(&r.insns)).collect();
        if rows.is_empty() {
            continue;
        }
        let mean = |engine: usize| {
            let ratios = rows.iter().filter_map(|r| Some(r.ns[engine]? / r.ns[0]?));
            short(geomean(ratios))
        };
        let cells: Vec<String> = (1..names.len()).map(mean).collect();
        let class = match (from, to) {
            (0, u64::MAX) => "all".to_string(),
            (from, u64::MAX) => format!("{from} and more"),
            (from, to) => format!("{from} to {to}"),
        };
        println!("| {class} | {} | {} |", rows.len(), cells.join(" | "));
    }
    let twelve = programs();
    let twelve = twelve.iter().map(|p| measure(p, rounds, share));
    let twelve = geomean(twelve.map(|r| r.ns[PLAIN] / r.ns[0]));
    let all = measured.rows.iter();
    let all = geomean(all.filter_map(|r| Some(r.ns[1]? / r.ns[0]?)));
    println!(
        "\nbpfsim beside solana-sbpf: {} over these {}, {} over the twelve: {} times that",
        short(all),
        measured.rows.len(),
        short(twelve),
        short(all / twelve),
    );
}

fn engines(rounds: usize, share: f64, wanted: impl Fn(&str) -> bool) {
    let rows: Vec<Row> = programs()
        .iter()
        .filter(|p| wanted(&p.name))
        .map(|p| measure(p, rounds, share))
        .collect();
    if rows.is_empty() {
        return;
    }
    let names: Vec<&str> = rows.iter().map(|r| r.name.as_str()).collect();
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
