//! Runs that were taken down from the kernel end in other engines as they ended there.

use bpfsim_benches::engines::{WITH_WORLDS, check};
use bpfsim_benches::testrun::alone;
use std::path::Path;

/// Objects and programs, with the calls that a run makes, or why it cannot be given to others.
const RUNS: &[(&str, &str, Result<usize, &str>)] = &[
    ("objects", "lists", Ok(50)),
    ("objects", "kptrs", Ok(23)),
    ("objects", "trees", Err("is called back")),
    ("dynptrs", "local", Ok(50)),
    ("dynptrs", "packet", Ok(24)),
    ("kfuncs", "masks", Ok(43)),
    ("kfuncs", "throwing", Err("ends in another program")),
    ("hooks", "count_packet", Ok(0)),
    ("async_ops", "run_ops_tc", Err("has atomics")),
    ("arenas", "pages", Err("touches what is no memory")),
];

#[test]
fn captured_runs_end_as_they_did_in_the_kernel() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    for &(object, program, expected) in RUNS {
        let bytes = std::fs::read(fixtures.join(format!("{object}.bpf.o"))).unwrap();
        let (captured, outcome) = match alone(&bytes, program, program) {
            Ok(run) => run,
            Err(why) => {
                assert_eq!(Err(why.as_str()), expected, "{object} {program}");
                continue;
            }
        };
        assert_eq!(Ok(captured.world.replies.len()), expected, "{program}");
        for (name, make) in WITH_WORLDS {
            let mut engine = make(&captured).unwrap();
            check(name, &captured, &mut *engine, outcome).unwrap();
        }
    }
}
