//! docs/zoo.md is what the zoo does: each bug in its author's words, and the smallest order that is
//! found for it. `INSTA_UPDATE=always cargo nextest run -p bpfsim-cli --test zoo_docs` writes it anew.

use bpfsim::timeline::Detail;
use bpfsim::{Config, Record, Runner, Sim, Strategy};
use bpfsim_cli::scenario::{Ended, Scenario};
use std::fmt::Write;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const INTRO: &str = "# The bug zoo

Small programs with real ordering bugs, in fixtures/zoo. None of them fails in the usual order; each
does in some other, and its fixed version, built from the same source with `FIXED` defined, in none.
To look one up yourself:

```sh
bpfsim explore fixtures/zoo/lost_update.bpf.o --scenario fixtures/zoo/lost_update.scenario.toml
bpfsim run fixtures/zoo/lost_update.bpf.o --scenario fixtures/zoo/lost_update.scenario.toml \\
  --replay bs1-... --html lost_update.html
```

Below, each with the smallest order in which it fails: what executed where, every operation that
others can notice, what it changed (`=>`), and accesses that met (`<race N>`). Times are virtual;
each CPU has a clock of its own. This page is written and held true by crates/cli/tests/zoo_docs.rs.
";

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The comment at the head of a source, as paragraphs.
fn story(source: &str) -> String {
    let comment = source
        .split("/*\n")
        .nth(1)
        .and_then(|s| s.split("*/").next())
        .unwrap();
    let lines = comment.lines().map(|l| l.trim_start_matches(" *").trim());
    lines.collect::<Vec<_>>().join("\n").trim().to_string()
}

/// The smallest failing order of a bug, told.
fn told(name: &str) -> String {
    let scenario = format!("fixtures/zoo/{name}.scenario.toml");
    let scenario = Scenario::parse(&scenario, &read(&scenario)).unwrap();
    let object = std::fs::read(format!("{ROOT}/fixtures/zoo/{name}.bpf.o")).unwrap();
    let loader = scenario.loader(&object).unwrap();
    let config = scenario.config(Config::default()).unwrap();
    let runner = Runner::new()
        .config(config)
        .strategy(Strategy::Pct { depth: 3 });
    let outcome = runner.executions(500).explore(
        |sim: &_| scenario.explore(sim, &object, &loader),
        &mut |_| {},
    );
    let found = outcome
        .failure
        .as_ref()
        .unwrap_or_else(|| panic!("{name} is not found"));
    let replay = outcome.replay().unwrap();
    let sim = Sim::with_chooser(replay.config.clone(), replay.chooser()).unwrap();
    sim.record(Record {
        moments: true,
        ..Record::default()
    });
    let Err(Ended::Failed(message, sim, _)) = scenario.run_on(sim, &object) else {
        panic!("{name} does not fail again");
    };
    let text = sim.timeline(name, Some(&message)).text(Detail::All);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!(
        "{}:\n\n```text\n{}\n\n{message}\n```\n",
        match found.preemptions {
            0 => "It takes no preemption".to_string(),
            1 => "It takes one preemption".to_string(),
            n => format!("It takes {n} preemptions"),
        },
        lines.join("\n"),
    )
}

#[test]
fn the_page_tells_what_the_zoo_does() {
    let files = std::fs::read_dir(format!("{ROOT}/fixtures/zoo")).unwrap();
    let names = files.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter_map(|n| Some(n.strip_suffix(".bpf.c")?.to_string()))
        .collect();
    names.sort();
    let mut page = INTRO.to_string();
    for name in names {
        let source = read(&format!("fixtures/zoo/{name}.bpf.c"));
        write!(page, "\n## {name}\n\n{}\n\n{}", story(&source), told(&name)).unwrap();
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|v| v == "always") {
        std::fs::write(format!("{ROOT}/docs/zoo.md"), &page).unwrap();
    }
    let committed = read("docs/zoo.md");
    let differs = committed.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert_eq!(differs, None, "INSTA_UPDATE=always writes it anew");
    assert_eq!(committed.len(), page.len());
}
