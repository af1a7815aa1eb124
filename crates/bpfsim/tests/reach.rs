//! Helpers that read shared memory where it is: others can come in before them.

use bpfsim::{
    Cpu, Ebpf, Error, ProgramInput, Runner, Sim, Strategy, Warning, check_exhaustive, ensure_eq,
};
use std::collections::BTreeSet;
use std::sync::Mutex;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/chances.bpf.o");

/// A program that reads a pair, side by side with one that writes it.
fn beside(sim: &Sim, reader: &str) -> bpfsim::Result<Ebpf> {
    let bpf = Ebpf::load(sim, OBJECT)?;
    sim.spawn_on(Cpu(0), bpf.program("write_pair")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program(reader)?, ProgramInput::empty())?;
    sim.finish()?;
    Ok(bpf)
}

#[test]
fn a_writer_comes_in_before_a_helper_reads() {
    for reader in ["probe_pair", "format_pair", "point_pair"] {
        let test = |sim: &Sim| {
            let bpf = beside(sim, reader)?;
            ensure_eq!(bpf.global::<u64>("torn")?, 0);
            Ok(())
        };
        for strategy in [Strategy::Random, Strategy::Exhaustive] {
            let runner = Runner::new().strategy(strategy.clone()).executions(1_000);
            let found = runner.run(test).failure;
            let found = found.unwrap_or_else(|| panic!("{reader}, {strategy:?}"));
            assert_eq!(found.failed.kind, "expectation");
            assert_eq!(found.preemptions, 1, "{reader}");
        }
    }
}

#[test]
fn every_order_has_the_copies_of_before_and_of_after() {
    type Copied = fn(&Ebpf) -> Result<Option<u64>, Error>;
    let readers: [(&str, Copied); 2] = [
        ("store_pair", |bpf| bpf.map("copies")?.get(&1u32)),
        ("send_pair", |bpf| {
            let records = bpf.map("ring")?.records()?;
            let first = records.first().and_then(|r| r.first_chunk());
            Ok(first.map(|bytes| u64::from_le_bytes(*bytes)))
        }),
    ];
    for (reader, copied) in readers {
        let seen = Mutex::new(BTreeSet::new());
        check_exhaustive(|sim| {
            let bpf = beside(sim, reader)?;
            seen.lock().unwrap().insert(copied(&bpf)?);
            Ok(())
        })
        .unwrap();
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen, [Some(0), Some(1)].into(), "{reader}");
    }
}

#[test]
fn what_helpers_read_races() {
    let line = |place: Option<&bpfsim::Place>| {
        let line = place.and_then(|p| p.line.as_ref());
        line.map_or("?".to_string(), |l| l.2.trim().to_string())
    };
    let told = |w: &Warning| {
        let other = w.other.as_ref().and_then(|o| o.place.as_ref());
        [line(w.place.as_deref()), line(other)]
    };
    let found: BTreeSet<[String; 2]> = (1..60)
        .flat_map(|seed| {
            let sim = Sim::with(Default::default(), bpfsim::Seed(seed)).unwrap();
            beside(&sim, "probe_pair").unwrap();
            sim.warnings().iter().map(told).collect::<Vec<_>>()
        })
        .collect();
    let read = "bpf_probe_read_kernel(&b, sizeof(b), (void *)&p->b);";
    let [read, write] = [read, "p->b = 1;"].map(str::to_string);
    assert!(found.contains(&[read.clone(), write.clone()]), "{found:?}");
    assert!(found.contains(&[write, read]), "{found:?}");
}

/// What a dynamic pointer points to is touched, and nothing else.
#[test]
fn calls_through_dynamic_pointers_touch_what_these_point_to() {
    let traces = |reader: &'static str| {
        let runner = Runner::new().strategy(Strategy::Exhaustive);
        let outcome = runner
            .executions(1_000)
            .run(|sim| beside(sim, reader).map(|_| ()));
        assert!(outcome.complete && outcome.failure.is_none(), "{reader}");
        outcome.counts.traces.len()
    };
    assert_eq!(traces("fill_other"), 1);
    assert!(traces("point_pair") > 1);
}
