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

/// bpfsim's programs look their map up, and arm a timer where the peers begin a thread.
const MORE: f64 = 3.0;

#[test]
fn models_are_of_as_many_visible_operations_as_the_peers() {
    for model in MODELS {
        let [ours, theirs] = orders::operations(model, 200);
        let (name, range) = (model.name, theirs..=theirs + MORE);
        assert!(range.contains(&ours), "{name}: {ours} beside {theirs}");
    }
}
