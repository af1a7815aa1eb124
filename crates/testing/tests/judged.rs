//! What Linux said of the programs of fixtures (`*.judged.json`), bpfsim says. A kernel that runs is asked
//! again.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use bpfsim_kernel::{Profile, Resolved};
use bpfsim_testing::judged::{Judged, STATS};
use bpfsim_testing::linux::loads::hash;
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_testing::linux::{or_skip, skip_loudly};
use bpfsim_testing::verdicts::ask::Answer;
use bpfsim_verifier::{Options, Verdict};

const OBJECTS: [&str; 1] = ["verdicts"];

fn object(name: &str) -> (Vec<u8>, Judged) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
    let bytes = std::fs::read(folder.join(format!("{name}.bpf.o"))).unwrap();
    let json = std::fs::read_to_string(folder.join(format!("{name}.judged.json"))).unwrap();
    (bytes, serde_json::from_str(&json).unwrap())
}

#[test]
fn bpfsim_says_what_linux_said() {
    let profile = Profile::reference().unwrap();
    for name in OBJECTS {
        let (bytes, judged) = object(name);
        assert_eq!(hash(&bytes), judged.hash, "{name}: record it anew");
        let resolved = Resolved::new(bpfsim_loader::load(&bytes).unwrap(), &profile).unwrap();
        assert!(judged.programs.len() > 1);
        for (program, answer) in &judged.programs {
            let mut all = resolved.object().programs.iter();
            let index = all.position(|p| p.name == *program).unwrap();
            let options = Options {
                log_level: STATS,
                ..Options::default()
            };
            let outcome = resolved.judge(index, &profile, &options).unwrap();
            let errno = match outcome.verdict {
                Verdict::Accept(_) => String::new(),
                Verdict::Reject { errno, .. } => errno.name().unwrap_or("?").to_owned(),
                Verdict::Unsupported { what, .. } => what,
            };
            let ours = Answer::new(errno, &outcome.log);
            assert!(
                ours.same(answer),
                "{name} {program}: {ours}, Linux {answer}"
            );
        }
    }
}

#[test]
fn linux_says_it_still() {
    let test = "linux_says_it_still";
    let Some(linux) = or_skip(test) else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly(test, "not Linux 6.18");
    }
    let facts = KernelFacts::of_this_machine(&linux).unwrap();
    for name in OBJECTS {
        let (bytes, judged) = object(name);
        let now = Judged::ask(&linux, &facts, &bytes).unwrap();
        let same = |(a, b): (&Answer, &Answer)| a.same(b);
        assert!(now.programs.keys().eq(judged.programs.keys()));
        assert!(
            now.programs
                .values()
                .zip(judged.programs.values())
                .all(same),
            "{name}"
        );
    }
}
