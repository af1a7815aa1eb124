//! `bpfsim explore merge`: what shards found together.

use crate::show::Warnings;
use crate::{Outcome, Stop, run, show};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// What each shard printed with --json.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What is read back of a shard's result.
#[derive(Deserialize)]
struct Shard {
    strategy: String,
    shard: (u64, u64),
    executions: u64,
    redundant: u64,
    choices: u64,
    traces: Vec<String>,
    complete: bool,
    failure: Option<Value>,
    warnings: Warnings,
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let mut shards = Vec::new();
    for path in &args.results {
        let wrong = |e: &dyn std::fmt::Display| {
            Stop::unusable(format!("{}: no result of a shard: {e}", path.display()))
        };
        let text = String::from_utf8(run::read(path)?).map_err(|e| wrong(&e))?;
        let shard: Shard = serde_json::from_str(text.trim()).map_err(|e| wrong(&e))?;
        shards.push(shard);
    }
    shards.sort_by_key(|s| s.shard);
    let merged = merge(&shards).map_err(Stop::unusable)?;
    let warnings = warnings(&shards, &merged);
    match args.json {
        true => {
            let mut merged = merged.clone();
            merged["warnings"] = json!(warnings);
            show::json(&merged);
        }
        false => {
            text(&merged);
            show::warnings(&warnings);
        }
    }
    Ok(match merged["failure"].is_null() {
        true => Outcome::Fine,
        false => Outcome::Failed,
    })
}

/// The sum of all shards; an error when one is missing, there twice, or of something else.
fn merge(shards: &[Shard]) -> Result<Value, String> {
    let parts = shards.first().map_or(0, |s| s.shard.1);
    for (i, shard) in shards.iter().enumerate() {
        let first = &shards[0];
        if (&shard.strategy, shard.shard.1) != (&first.strategy, parts) {
            return Err("these are shards of several explorations".to_string());
        }
        if shard.shard.0 != i as u64 + 1 {
            return Err(format!("shard {}/{parts} is missing or there twice", i + 1));
        }
    }
    if shards.len() as u64 != parts {
        let (have, next) = (shards.len(), shards.len() + 1);
        return Err(format!(
            "{have} of {parts} shards: shard {next}/{parts} is missing"
        ));
    }
    // Whatever the files say.
    let sum = |f: fn(&Shard) -> u64| shards.iter().map(f).fold(0, u64::saturating_add);
    let traces: BTreeSet<&String> = shards.iter().flat_map(|s| &s.traces).collect();
    let failures = shards.iter().filter_map(|s| s.failure.as_ref());
    let first = failures.min_by_key(|f| f["execution"].as_u64());
    Ok(json!({
        "event": "merged",
        "strategy": shards.first().map(|s| &s.strategy),
        "shards": parts,
        "executions": sum(|s| s.executions),
        "redundant": sum(|s| s.redundant),
        "choices": sum(|s| s.choices),
        "traces": traces.len(),
        "complete": shards.iter().all(|s| s.complete),
        "failure": first,
    }))
}

/// What was found in the shards; where one of them failed, what was found in that failure alone, as
/// where nothing is split.
fn warnings(shards: &[Shard], merged: &Value) -> Warnings {
    let mut all = Warnings::default();
    for shard in shards {
        let fails = shard.failure.as_ref() == Some(&merged["failure"]);
        if merged["failure"].is_null() || fails {
            all.merge(shard.warnings.clone());
        }
    }
    all
}

fn text(merged: &Value) {
    let word = |key: &str| merged[key].to_string();
    let complete = match merged["complete"] == true {
        true => "every shard came to its end",
        false => "not every shard came to its end",
    };
    show::line(&format!(
        "{} shards: {} executions, {} distinct traces, {} choices; {complete}",
        word("shards"),
        word("executions"),
        word("traces"),
        word("choices"),
    ));
    let failure = &merged["failure"];
    if !failure.is_null() {
        let text = |key: &str| failure[key].as_str().unwrap_or("").to_string();
        show::heading(&format!("FAILED: {}", text("message")));
        show::line(&format!("  again, with a timeline: {}", text("command")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(part: u64, traces: &[&str], failed_at: Option<u64>) -> Shard {
        Shard {
            strategy: "Random".to_string(),
            shard: (part, 2),
            executions: 10,
            redundant: 0,
            choices: 5,
            traces: traces.iter().map(|t| t.to_string()).collect(),
            complete: true,
            failure: failed_at.map(|n| json!({ "execution": n })),
            warnings: serde_json::from_value(json!({ "a race": [format!("map[{part}]")] }))
                .unwrap(),
        }
    }

    #[test]
    fn warnings_of_all_or_of_the_failure() {
        let shards = [shard(1, &[], None), shard(2, &[], None)];
        let found = warnings(&shards, &merge(&shards).unwrap());
        assert_eq!(found.lines(), ["a race: map[1] and 1 more"]);
        let shards = [shard(1, &[], Some(7)), shard(2, &[], Some(3))];
        let found = warnings(&shards, &merge(&shards).unwrap());
        assert_eq!(found.lines(), ["a race: map[2]"]);
    }

    #[test]
    fn sums_and_the_first_failure() {
        let shards = [shard(1, &["a", "b"], Some(7)), shard(2, &["b"], Some(3))];
        let merged = merge(&shards).unwrap();
        assert_eq!(merged["executions"], 20);
        assert_eq!(merged["traces"], 2);
        assert_eq!(merged["failure"]["execution"], 3);
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut shards = [shard(1, &[], None), shard(2, &[], None)];
        shards[0].choices = u64::MAX;
        assert_eq!(merge(&shards).unwrap()["choices"], u64::MAX);
    }

    #[test]
    fn a_missing_shard_is_an_error() {
        assert!(
            merge(&[shard(1, &[], None)])
                .unwrap_err()
                .contains("2/2 is missing")
        );
        assert!(merge(&[shard(2, &[], None)]).is_err());
        assert!(merge(&[shard(1, &[], None), shard(1, &[], None)]).is_err());
    }
}
