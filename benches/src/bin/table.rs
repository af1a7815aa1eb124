//! Prints what the engines took, and as multiples of solana-sbpf's interpreter:
//! `table [--rounds N] [--ms N] [--only PROGRAM]`, with so many rounds, in each of which every engine
//! runs for so many milliseconds.

#![allow(clippy::print_stdout)] // a command of its own, for people to read

use bpfsim_benches::engines::ENGINES;
use bpfsim_benches::measure::{Row, geomean, measure};
use bpfsim_benches::programs::programs;

fn main() {
    let given = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let arg = |name: &str, or: f64| given(name).and_then(|a| a.parse().ok()).unwrap_or(or);
    let only = given("--only");
    let (rounds, share) = (arg("--rounds", 15.0) as usize, arg("--ms", 10.0) * 1e6);
    let rows: Vec<Row> = programs()
        .iter()
        .filter(|p| only.as_ref().is_none_or(|name| name == p.name))
        .map(|p| measure(p, rounds, share))
        .collect();
    print_table(
        "ns per instruction (pkt, nop2: per run)",
        &rows,
        |row, i| row.ns[i],
    );
    print_table(
        "as a multiple of solana-sbpf's interpreter",
        &rows,
        |row, i| row.ns[i] / row.ns[0],
    );
}

fn print_table(title: &str, rows: &[Row], cell: impl Fn(&Row, usize) -> f64) {
    println!("\n{title}\n");
    let names: Vec<&str> = rows.iter().map(|r| r.name).collect();
    println!("| engine | {} | geometric mean |", names.join(" | "));
    println!("|---{}|", "|---".repeat(rows.len() + 1));
    for (i, (name, _)) in ENGINES.iter().enumerate() {
        let cells: Vec<String> = rows.iter().map(|r| short(cell(r, i))).collect();
        let mean = short(geomean(rows.iter().map(|r| cell(r, i))));
        println!("| {name} | {} | {mean} |", cells.join(" | "));
    }
}

fn short(x: f64) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.3}"),
    }
}
