//! The table of refusals and those who refuse. That each refusal has a row is seen to when this
//! crate compiles (`bpfsim_abi::text::row`); here, that each row is said by somebody, and that
//! what Linux was seen to say is found in it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bpfsim_abi::text::{self, RULES};
use std::collections::BTreeSet;
use std::path::Path;

/// A format string without the names of its holes and its line's end.
fn bare(format: &str) -> String {
    let line = format.replace('\n', "\\n");
    let line = line
        .strip_suffix("\\n")
        .unwrap_or(&line)
        .replace("{{", "\u{1}")
        .replace("}}", "\u{2}");
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some((before, behind)) = rest.split_once('{') {
        out += before;
        out += "{}";
        rest = behind.split_once('}').map_or("", |(_, r)| r);
    }
    out + rest
}

/// Every string literal of the sources below a folder.
fn literals(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            literals(&path, found);
            continue;
        }
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(path).unwrap();
        for line in source.lines().filter(|l| !l.trim().starts_with("//")) {
            let mut rest = line;
            while let Some((_, behind)) = rest.split_once('"') {
                let mut end = 0;
                let bytes = behind.as_bytes();
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let end = end.min(behind.len());
                found.insert(bare(&behind[..end]));
                rest = behind.get(end + 1..).unwrap_or("");
            }
        }
    }
}

#[test]
fn every_row_is_said_by_somebody() {
    let mut said = BTreeSet::new();
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    literals(&own.join("src"), &mut said);
    literals(&own.join("../abi/src/map"), &mut said);
    let unsaid: Vec<&str> = text::rows()
        .filter(|row| row.text.kind != text::Kind::Case)
        .map(|row| row.text.pattern)
        .filter(|pattern| !said.contains(&bare(pattern)))
        .collect();
    assert!(unsaid.is_empty(), "rows that nothing says: {unsaid:#?}");
}

#[test]
fn rows_are_one_each_and_words_name_holes_that_are_there() {
    let mut seen = BTreeSet::new();
    for rule in RULES.iter().flat_map(|rules| rules.iter()) {
        assert!(!rule.texts.is_empty(), "{}", rule.required);
        for words in [rule.required, rule.fix] {
            assert!(!words.is_empty() && !words.ends_with('.'), "{words}");
            for hole in words.split('{').skip(1).filter(|h| h.contains('}')) {
                let name = format!("{{{}}}", hole.split('}').next().unwrap());
                if name == "{}" || name.contains(' ') {
                    continue;
                }
                let named = |t: &text::Text| t.pattern.contains(&name);
                assert!(rule.texts.iter().any(named), "{name} in: {words}");
            }
        }
        for text in rule.texts {
            assert!(seen.insert(bare(text.pattern)), "twice: {}", text.pattern);
        }
    }
}

#[test]
fn cases_are_of_texts_that_are_said() {
    for case in text::rows().filter(|r| r.text.kind == text::Kind::Case) {
        let line = case.text.pattern;
        let mut of = text::rows().filter(|r| r.text.kind == text::Kind::Said);
        assert!(of.any(|r| r.text.holes(line).is_some()), "{line}");
    }
    let (row, _) = text::find("R0 invalid mem access 'map_value_or_null'").unwrap();
    assert!(row.rule.required.contains("NULL"));
}

#[test]
fn holes_are_read_back() {
    let (row, holes) =
        text::find("R3 pointer arithmetic on map_value_or_null prohibited, null-check it first")
            .unwrap();
    assert!(row.rule.required.contains("NULL"));
    let holes: Vec<_> = holes.iter().map(|h| (h.name, &*h.value)).collect();
    assert_eq!(holes, [("reg", "3"), ("type", "map_value_or_null")]);
    let (row, holes) = text::find("can't spin_{lock,unlock} in rbtree cb").unwrap();
    assert_eq!(row.text.line(), "can't spin_{lock,unlock} in rbtree cb");
    assert!(holes.is_empty());
    assert!(text::find("nobody says this").is_none());
}

#[test]
fn what_linux_was_seen_to_say_has_a_row() {
    #[derive(serde::Deserialize)]
    struct File {
        case: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        line: String,
    }
    let files = [
        include_str!("data/basic.toml"),
        include_str!("../../testing/tests/data/async_rules.toml"),
    ];
    let cases = files.map(|text| toml::from_str::<File>(text).unwrap().case);
    let lines: BTreeSet<String> = cases.into_iter().flatten().map(|c| c.line).collect();
    assert!(lines.len() > 10, "{lines:#?}");
    let without = |line: &&String| !line.is_empty() && text::find(line).is_none();
    let without: Vec<_> = lines.iter().filter(without).collect();
    assert!(without.is_empty(), "lines without a row: {without:#?}");
}
