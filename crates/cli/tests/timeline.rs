//! Timelines: a recorded run is the run, and what is written of it can be read by others.

use bpfsim::timeline::{Kind, Timeline};
use bpfsim::{Config, Record, Seed, Sim};
use bpfsim_cli::scenario::{Ended, Scenario};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

const ZOO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/zoo");
const RECORD: Record = Record {
    moments: true,
    counts: true,
};

/// A scenario of the zoo in the order of a seed: as it was then, and how it failed.
fn run(name: &str, seed: u64, record: Record) -> (Sim, Option<String>) {
    let text = std::fs::read_to_string(format!("{ZOO}/{name}.scenario.toml")).unwrap();
    let scenario = Scenario::parse(name, &text).unwrap();
    let object = std::fs::read(format!("{ZOO}/{name}.bpf.o")).unwrap();
    let config = Config {
        seed,
        ..Config::default()
    };
    let sim = Sim::with(scenario.config(config).unwrap(), Seed(seed)).unwrap();
    sim.record(record);
    match scenario.run_on(sim, &object) {
        Ok((sim, _)) => (sim, None),
        Err(Ended::Failed(message, sim, _)) => (*sim, Some(message)),
        Err(Ended::Wrong(message)) => panic!("{message}"),
        Err(Ended::NotLoaded(error)) => panic!("{error}"),
    }
}

/// One that fails.
fn timeline(name: &str) -> Timeline {
    for seed in 1.. {
        let (sim, failure) = run(name, seed, RECORD);
        if let Some(failure) = failure {
            return sim.timeline(name, Some(&failure));
        }
    }
    unreachable!("each bug shows sometime")
}

#[test]
fn a_recorded_run_is_the_run() {
    for file in std::fs::read_dir(ZOO).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".bpf.c") else {
            continue;
        };
        for seed in 0..10 {
            let (plain, plain_failure) = run(name, seed, Record::default());
            let (recorded, failure) = run(name, seed, RECORD);
            assert_eq!(failure, plain_failure, "{name}, seed {seed}");
            assert_eq!(
                plain.trace().events(),
                recorded.trace().events(),
                "{name}, seed {seed}"
            );
            assert_eq!(
                plain.trace_hash(),
                recorded.trace_hash(),
                "{name}, seed {seed}"
            );
        }
    }
}

#[test]
fn a_lost_update_is_told() {
    let timeline = timeline("racy_refcount");
    let find = |kind: Kind, text: &str| {
        let is = |s: &&bpfsim::timeline::Step| s.kind == kind && s.text.starts_with(text);
        timeline
            .steps
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("no {kind:?} {text}"))
    };
    let read = find(Kind::Read, "reads objects[1].refs: ");
    assert_eq!(read.line.as_ref().unwrap().text, "__u32 now = *refs + by;");
    assert!(
        !find(Kind::Write, "writes objects[1].refs: ")
            .races
            .is_empty()
    );
    let change = find(Kind::Changed, "objects[1] is gone")
        .change
        .as_ref()
        .unwrap();
    assert_eq!(
        (change.element.as_str(), &change.new),
        ("objects[1]", &None)
    );
    let begin = timeline
        .steps
        .iter()
        .find(|s| s.kind == Kind::Begin)
        .unwrap();
    assert_eq!(begin.who, "use");
}

#[test]
fn trace_viewers_get_balanced_slices_and_paired_arrows() {
    let timeline = timeline("lookup_delete");
    let json: Value = serde_json::from_str(&timeline.perfetto()).unwrap();
    let mut open: HashMap<u64, i64> = HashMap::new();
    let mut arrows: HashMap<u64, Vec<String>> = HashMap::new();
    let mut last: HashMap<u64, f64> = HashMap::new();
    for event in json["traceEvents"].as_array().unwrap() {
        let (ph, tid) = (
            event["ph"].as_str().unwrap(),
            event["tid"].as_u64().unwrap(),
        );
        if let Some(ts) = event["ts"].as_f64() {
            assert!(
                ts >= last.insert(tid, ts).unwrap_or(0.0),
                "time goes back: {event}"
            );
        }
        match ph {
            "B" => *open.entry(tid).or_default() += 1,
            "E" => *open.entry(tid).or_default() -= 1,
            "s" | "f" => arrows
                .entry(event["id"].as_u64().unwrap())
                .or_default()
                .push(ph.into()),
            "M" | "i" => {}
            other => panic!("{other}"),
        }
        assert!(open.values().all(|&n| n >= 0));
    }
    assert!(open.values().all(|&n| n == 0));
    assert!(!arrows.is_empty());
    assert!(
        arrows.values().all(|pair| *pair == ["s", "f"]),
        "{arrows:?}"
    );
}

#[test]
fn the_page_needs_nothing_else() {
    let mut timeline = timeline("lookup_delete");
    timeline.title = "</script><b>__DATA__ & \"title\"".into();
    timeline.steps[0].text = "</script><script>document.title = 'broken'</script>".into();
    let page = timeline.html();
    for outside in ["src=", "href=", "@import", "url(h", "https://"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script>").count(), 2);
}

/// What a page has become after a script ran in it, by headless Chromium.
fn in_chromium(page: &str, script: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.html");
    let end = "</body>";
    let page = page.replace(end, &format!("<script>{{ {script} }}</script>{end}"));
    std::fs::write(&file, page).unwrap();
    let profile = dir.path().join("profile");
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().find_map(|name| {
        let out = Command::new(name)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("file://{}", Path::new(&file).display()))
            .output()
            .ok()?;
        Some(String::from_utf8_lossy(&out.stdout).into_owned())
    })
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is passed over says so")]
fn a_browser_steps_forward_and_back() {
    let timeline = timeline("lookup_delete");
    let script = r##"
        const seen = [], at = () => document.querySelector("[aria-current=step]").dataset.step;
        const key = k => dispatchEvent(new KeyboardEvent("keydown", { key: k, cancelable: true }));
        onerror = e => { document.title = "error: " + e; };
        key("End"); seen.push(at()); key("ArrowLeft"); seen.push(at()); key("ArrowRight"); seen.push(at());
        key("Home"); key("ArrowDown"); seen.push(at()); $("back").click(); seen.push(at());
        $("last").click(); seen.push(at()); $("brief").click(); $("back").click(); seen.push(at());
        const gone = [...document.querySelectorAll("#values td")].map(t => t.textContent);
        const unnamed = [...document.querySelectorAll("button")].filter(b => !b.getAttribute("aria-label")).length;
        const arrows = document.querySelectorAll("path.arrow").length;
        document.title = "stepped: " + [seen.join(" "), "arrows " + arrows, "unnamed " + unnamed,
          "line " + document.querySelectorAll("pre .on").length, gone.slice(gone.indexOf("ended")).slice(0, 2).join("=")].join("; ");
    "##;
    let Some(dom) = in_chromium(&timeline.html(), script) else {
        eprintln!(
            "SKIPPED a_browser_steps_forward_and_back: no chromium (Debian package chromium)"
        );
        return;
    };
    let title = dom
        .split("<title>")
        .nth(1)
        .and_then(|t| t.split("</title>").next());
    let n = timeline.steps.len() - 1;
    let events = |s: &bpfsim::timeline::Step| matches!(s.kind, Kind::Begin | Kind::End);
    let before = timeline.steps[..n].iter().rposition(events).unwrap();
    let mut changes = timeline.steps[..=before]
        .iter()
        .filter_map(|s| s.change.as_ref());
    let ended = changes.rfind(|c| c.element == "ended");
    let ended = ended.and_then(|c| c.new.as_deref()).unwrap_or("0");
    let line = usize::from(timeline.steps[before].line.is_some());
    assert_eq!(
        title.unwrap_or(&dom),
        format!(
            "stepped: {n} {} {n} 1 0 {n} {before}; arrows 1; unnamed 0; line {line}; ended={ended}",
            n - 1
        )
    );
}
