//! `BPF_PROG_TEST_RUN` with inputs right and wrong, beside what Linux 6.18 answered.
//! `BPFSIM_TEST_RUNS=N` asks the running kernel for N more of each program.
#![allow(clippy::print_stderr)] // the reader of the tests is to be told

use bpfsim::{Cache, Ebpf, Error, ProgramInput, Sim};
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_testing::linux::observe::test_run_case;
use bpfsim_testing::linux::{or_skip, skip_loudly};
use bpfsim_testing::test_runs::{self, Answer, Case};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/test_run.bpf.o");

/// What bpfsim answers; `None` for what it says that it cannot do.
fn answer(case: &Case, cache: &Cache) -> Option<Answer> {
    let sim = Sim::new().unwrap();
    sim.use_cache(cache);
    let mut bpf = Ebpf::load(&sim, OBJECT).unwrap();
    let input = ProgramInput {
        data: case.data.clone(),
        ctx: case.ctx.clone(),
        repeat: case.repeat,
        flags: case.flags,
        cpu: case.cpu,
        batch_size: case.batch_size,
        data_size_out: case.data_size_out,
        ctx_size_out: case.ctx_size_out.filter(|_| !case.ctx.is_empty()),
        ..ProgramInput::empty()
    };
    match bpf.program_mut(&case.program).unwrap().test_run(input) {
        Ok(out) => Some(Answer {
            errno: 0,
            retval: out.return_value,
            data: out.data_out,
            ctx: if case.ctx.is_empty() {
                Vec::new()
            } else {
                out.ctx_out
            },
            seen: bpf.map(".bss").unwrap().lookup(&[0; 4]).unwrap().unwrap(),
        }),
        Err(Error::TestRun { errno }) => Some(Answer {
            errno: errno.0.into(),
            ..Answer::default()
        }),
        Err(Error::Unsupported { .. }) => None,
        Err(other) => panic!("{case:?}: {other}"),
    }
}

fn difference(ours: &Answer, linux: &Answer) -> Option<String> {
    let word = |b: &[u8], i: usize| b.get(8 * i..8 * i + 8).map(<[u8]>::to_vec);
    if ours.errno != linux.errno {
        return Some(format!("errno {}, Linux {}", ours.errno, linux.errno));
    }
    if ours.retval != linux.retval {
        return Some(format!("returns {}, Linux {}", ours.retval, linux.retval));
    }
    for (what, a, b) in [
        ("seen", &ours.seen, &linux.seen),
        ("data", &ours.data, &linux.data),
        ("ctx", &ours.ctx, &linux.ctx),
    ] {
        if a != b {
            let at = (0..).find(|&i| word(a, i) != word(b, i) || 8 * i > a.len().max(b.len()));
            let at = at.unwrap_or(0);
            let (x, y) = (word(a, at), word(b, at));
            return Some(format!(
                "{what}[{at}] is {x:x?}, Linux {y:x?} ({} and {} bytes)",
                a.len(),
                b.len()
            ));
        }
    }
    None
}

fn compare(cases: &[Case]) {
    let mut wrong = Vec::new();
    let mut unsupported = 0;
    let cache = Cache::default();
    for case in cases {
        match answer(case, &cache) {
            None => unsupported += 1,
            Some(ours) => {
                if let Some(how) = difference(&ours, &case.answer) {
                    let bare = Case {
                        answer: Answer::default(),
                        ..case.clone()
                    };
                    let bare = serde_json::to_string(&bare).unwrap();
                    wrong.push(format!("{how}\n    {bare}"));
                }
            }
        }
    }
    let (n, all) = (wrong.len(), cases.len());
    wrong.truncate(12);
    assert!(n == 0, "{n} of {all} unlike Linux:\n{}", wrong.join("\n"));
    assert!(unsupported * 20 < all, "{unsupported} of {all} unsupported");
}

#[test]
fn as_linux_was_seen_to_answer() {
    let recorded = include_str!("../../../fixtures/test_run.cases.json");
    let cases: Vec<Case> = serde_json::from_str(recorded).unwrap();
    assert_eq!(
        cases.len() as u64,
        test_runs::PROGRAMS.len() as u64 * test_runs::RECORDED
    );
    compare(&cases);
}

#[test]
fn as_linux_answers_now() {
    let more = std::env::var("BPFSIM_TEST_RUNS").map_or(20, |n| n.parse().unwrap());
    let Some(linux) = or_skip("as_linux_answers_now") else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly("as_linux_answers_now", linux.release());
    }
    let facts = KernelFacts::of_this_machine(&linux).unwrap();
    let object = bpfsim_loader::load(OBJECT).unwrap();
    let mut cases = Vec::new();
    for program in test_runs::PROGRAMS {
        for nth in test_runs::RECORDED..test_runs::RECORDED + more {
            let mut case = test_runs::case(program, nth);
            case.answer = test_run_case(&linux, &facts, &object, &case).unwrap();
            cases.push(case);
        }
    }
    compare(&cases);
}
