//! `bpfsim cov`, held against what the programs must have done.

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Runs it on an object of the zoo; gives the tracefile and what was printed.
fn cov(name: &str, random: u32) -> (String, String) {
    cov_by(name, &["--random", &random.to_string()])
}

fn cov_by(name: &str, how: &[&str]) -> (String, String) {
    let to = tempfile::NamedTempFile::new().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_bpfsim"))
        .current_dir(DIR)
        .args(["cov", &format!("fixtures/zoo/fixed/{name}.bpf.o"), "--json"])
        .args(["--scenario", &format!("fixtures/zoo/{name}.scenario.toml")])
        .args(how)
        .arg("--lcov")
        .arg(to.path())
        .output()
        .unwrap();
    let printed = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    (std::fs::read_to_string(to.path()).unwrap(), printed)
}

/// Counts of a tracefile's lines by the texts that they have in the source.
fn lines(name: &str, lcov: &str) -> BTreeMap<String, u64> {
    let source = std::fs::read_to_string(format!("{DIR}/fixtures/zoo/{name}.bpf.c")).unwrap();
    let source: Vec<&str> = source.lines().collect();
    let counts = lcov
        .lines()
        .filter_map(|l| l.strip_prefix("DA:")?.split_once(','));
    let at = |n: &str| source[n.parse::<usize>().unwrap() - 1].trim().to_string();
    counts
        .map(|(n, count)| (at(n), count.parse().unwrap()))
        .collect()
}

#[test]
fn lines_count_what_ran() {
    let name = "lookup_delete";
    let usual = lines(name, &cov(name, 0).0);
    assert_eq!(usual["if (bpf_map_lookup_elem(&sessions, &id))"], 1);
    // The timer was cancelled.
    assert_eq!(usual["__u32 own = *id;"], 0);
    let many = lines(name, &cov(name, 100).0);
    assert_eq!(many["if (bpf_map_lookup_elem(&sessions, &id))"], 101);
    assert!((1..101).contains(&many["__u32 own = *id;"]), "{many:?}");
    // Whoever ended it, it ended once.
    assert_eq!(many["atomic_add(&ended, 1);"], 101);
}

#[test]
fn branches_have_two_outcomes() {
    let (lcov, printed) = cov("lookup_delete", 100);
    let mut outcomes: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for row in lcov.lines().filter_map(|l| l.strip_prefix("BRDA:")) {
        let part: Vec<&str> = row.split(',').collect();
        outcomes
            .entry((part[0], part[1]))
            .or_default()
            .push(part[3]);
    }
    assert!(outcomes.len() > 5);
    assert!(outcomes.values().all(|o| o.len() == 2));
    // Some jump went both ways, another only one.
    let ran = |n: &&str| n.parse::<u64>().is_ok_and(|n| n > 0);
    assert!(outcomes.values().any(|o| o.iter().all(ran)));
    assert!(
        outcomes
            .values()
            .any(|o| o.iter().filter(|n| ran(n)).count() == 1)
    );
    let row: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert_eq!(row["branches"]["all"], 2 * outcomes.len());
    assert_eq!(row["file"], "fixtures/zoo/fixed/lookup_delete.bpf.c");
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is passed over says so")]
fn genhtml_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    // The source lies beside the object's folder.
    let lcov = cov("lookup_delete", 20).0.replace("zoo/fixed/", "zoo/");
    let info = dir.path().join("bpf.info");
    std::fs::write(&info, lcov).unwrap();
    let made = Command::new("genhtml")
        .current_dir(DIR)
        .args(["--branch-coverage", "--quiet", "-o"])
        .arg(dir.path().join("html"))
        .arg(&info)
        .output();
    let Ok(made) = made else {
        eprintln!("SKIPPED genhtml_takes_it: no genhtml (Debian package lcov)");
        return;
    };
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    assert!(dir.path().join("html/index.html").exists());
}

#[test]
fn every_strategy_counts_what_its_orders_ran() {
    let name = "lookup_delete";
    let line = "if (bpf_map_lookup_elem(&sessions, &id))";
    for how in [&["--exhaustive"][..], &["--bounded", "1"], &["--pct", "2"]] {
        let (lcov, printed) = cov_by(name, how);
        let told: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
        let executions = told["executions"].as_u64().unwrap();
        assert!(executions > 2, "{how:?}: {printed}");
        // Some executions are made twice.
        assert!(lines(name, &lcov)[line] >= executions, "{how:?}");
        // What the usual order does not run.
        assert!(lines(name, &lcov)["__u32 own = *id;"] > 0, "{how:?}");
    }
}
