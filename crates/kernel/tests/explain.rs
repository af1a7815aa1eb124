//! Refusals told to people: one program for each kind of mistake, its explanation as text and as
//! data, and what Linux 6.18 said of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use bpfsim_kernel::explanation::Explanation;
use bpfsim_kernel::{Profile, Resolved, veristat_fixup};
use bpfsim_loader::Object;
use bpfsim_testing::linux::object::{KernelFacts, ObjectError};
use bpfsim_testing::linux::or_skip;
use bpfsim_verifier::{Options, Verdict};
use std::fmt::Write;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/refused_programs.bpf.o");

/// This machine's system may not be attached to: Linux refuses such loads before it verifies.
const EPERM: u16 = 1;

fn object() -> Object {
    let mut object = bpfsim_loader::load(OBJECT).unwrap();
    veristat_fixup(&mut object);
    object
}

fn explanations() -> Vec<(String, Explanation)> {
    let profile = Profile::reference().unwrap();
    let resolved = Resolved::new(object(), &profile).unwrap();
    let programs = resolved.object().programs.iter().enumerate();
    programs
        .map(|(index, program)| {
            let explanation = resolved.explain(index, &profile).unwrap();
            (program.name.clone(), explanation.expect(&program.name))
        })
        .collect()
}

#[test]
fn each_refusal_is_told_on_its_c_lines() {
    let all = explanations();
    assert!(all.len() >= 15);
    for (program, explanation) in all {
        let text = explanation.render(false);
        assert!(!text.contains('\u{1b}'), "colours in: {text}");
        insta::assert_snapshot!(program, text);
    }
}

#[test]
fn explanations_are_data() {
    for (program, explanation) in explanations() {
        let json = serde_json::to_string(&explanation).unwrap();
        let back: Explanation = serde_json::from_str(&json).unwrap();
        assert_eq!(back, explanation, "{program}");
        let bare = |text: String| {
            let mut out = String::new();
            let mut parts = text.split('\u{1b}');
            out += parts.next().unwrap();
            parts.for_each(|p| out += p.split_once('m').unwrap().1);
            out
        };
        let coloured = explanation.render(true);
        assert!(coloured.contains('\u{1b}'), "{program}");
        assert_eq!(bare(coloured), explanation.render(false), "{program}");
    }
}

/// Instructions stand for lines that nobody knows.
#[test]
fn programs_without_c_lines_are_told_by_their_instructions() {
    let profile = Profile::reference().unwrap();
    let mut object = object();
    for program in &mut object.programs {
        program.lines = Default::default();
    }
    let resolved = Resolved::new(object, &profile).unwrap();
    let at = |p: &bpfsim_loader::Program| p.name == "null_not_checked";
    let index = resolved.object().programs.iter().position(at).unwrap();
    let explanation = resolved.explain(index, &profile).unwrap().unwrap();
    insta::assert_snapshot!(explanation.render(false));
}

/// The last line of a log that says something.
fn last(log: &str) -> &str {
    const COUNTS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let tells = |l: &&str| !l.trim().is_empty() && !COUNTS.iter().any(|c| l.starts_with(c));
    let told = log.lines().rev().find(|l| tells(l) && !l.starts_with("; "));
    told.unwrap_or("").trim()
}

/// The snapshot is Linux's; this verifier says the same, and so does the running kernel.
#[test]
fn linux_refuses_them_too() {
    let profile = Profile::reference().unwrap();
    let object = object();
    let resolved = Resolved::new(object.clone(), &profile).unwrap();
    let linux = or_skip("linux_refuses_them_too").filter(|l| l.is_series("6.18"));
    let asked = linux.map(|l| (KernelFacts::of_this_machine(&l).unwrap(), l));
    let mut all = String::new();
    for (index, program) in object.programs.iter().enumerate() {
        let outcome = resolved.judge(index, &profile, &Options::default());
        let Verdict::Reject { errno, message, .. } = outcome.unwrap().verdict else {
            continue;
        };
        let said = format!("{errno:?} {message}");
        writeln!(all, "{}: {said}", program.name).unwrap();
        let Some((facts, linux)) = &asked else {
            continue;
        };
        match linux.judge_object(facts, &object, &program.name, 4) {
            Ok(loaded) => match loaded.result {
                Err(e) if e.0 == EPERM => {
                    println!("{}: SKIPPED, Linux may not be asked", program.name);
                }
                Err(e) => assert_eq!(format!("{e:?} {}", last(&loaded.log)), said),
                Ok(_) => panic!("Linux takes {}", program.name),
            },
            Err(ObjectError::Unsupported { what, .. }) => {
                println!("{}: SKIPPED, {what}", program.name);
            }
            Err(e) => panic!("{}: {e}", program.name),
        }
    }
    insta::assert_snapshot!(all);
}
