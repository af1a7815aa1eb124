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

#[test]
fn tools_take_as_many_steps() {
    for model in MODELS {
        let [ours, theirs] = orders::steps(model, 200);
        println!("{}: {ours} {theirs}", model.name);
    }
}
