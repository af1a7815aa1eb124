//! Every engine gives what the reference gives, and counts what it counts.

use bpfsim_benches::engines::{ENGINES, check};
use bpfsim_benches::orders::{self, MODELS};
use bpfsim_benches::programs::programs;
use bpfsim_benches::reference;

#[test]
fn engines_agree_with_the_reference() {
    for program in programs() {
        let expected = reference::run(&program);
        for (name, make) in ENGINES {
            let mut engine = make(&program).unwrap();
            check(name, &program, &mut *engine, expected).unwrap();
            // Nothing is left over.
            check(name, &program, &mut *engine, expected).unwrap();
        }
    }
}

/// The peers begin threads and join them where bpfsim enters system calls and leaves them: a few
/// steps an execution.
const FEW: f64 = 8.0;

#[test]
fn models_are_of_as_many_steps_as_the_peers() {
    for model in MODELS {
        let [ours, theirs] = orders::steps(model, 200);
        let name = model.name;
        assert!(ours > theirs - FEW, "{name}: {ours} steps beside {theirs}");
    }
}
