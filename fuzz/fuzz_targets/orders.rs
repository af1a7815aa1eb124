//! Orders and packets together, led by the branches of a BPF program beside those of Rust: two
//! packets at once, one of them and the order the fuzzer's. No count may be lost.
//!
//! With `guarded` in place of `guarded_right` it finds the one that is lost: three bytes and an
//! order.
#![no_main]

use arbitrary::Arbitrary;
use bpfsim::fuzz::{Order, Target};
use bpfsim::{Config, Cpu, Ebpf, ProgramInput, Sim, ensure_eq};

const OBJECT: &[u8] = include_bytes!("../../fixtures/fuzzed.bpf.o");

#[derive(Arbitrary, Debug)]
struct Input {
    packet: [u8; 14],
    order: Order,
}

fn no_count_is_lost(sim: &Sim, packet: &[u8]) -> bpfsim::Result<()> {
    let bpf = Ebpf::load(sim, OBJECT)?;
    for (cpu, packet) in [(Cpu(0), packet), (Cpu(1), b"bpf...........")] {
        sim.spawn_on(
            cpu,
            bpf.program("guarded_right")?,
            ProgramInput::packet(packet),
        )?;
    }
    sim.finish()?;
    ensure_eq!(bpf.global::<u64>("count")?, bpf.global::<u64>("passed")?);
    Ok(())
}

std::thread_local! {
    static TARGET: Target = Target::new(Config::default()).expect("a machine");
}

libfuzzer_sys::fuzz_target!(|input: Input| {
    let ran = TARGET.with(|t| t.run(&input.order, |sim| no_count_is_lost(sim, &input.packet)));
    ran.expect("no count is lost");
});
