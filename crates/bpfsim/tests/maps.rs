//! Maps that are no tables: what user space finds in them after a program ran.

use bpfsim::{Ebpf, Map, ProgramInput, Sim, update};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/map_helpers.bpf.o");

fn after(program: &str) -> Ebpf {
    let sim = Sim::new().unwrap();
    let mut bpf = Ebpf::load(&sim, OBJECT).unwrap();
    let run = |bpf: &mut Ebpf| {
        let mut program = bpf.program_mut(program).unwrap();
        program.test_run(ProgramInput::packet(&[0; 64])).unwrap();
    };
    run(&mut bpf);
    bpf
}

fn map(bpf: &Ebpf, name: &str) -> Map {
    bpf.map(name).unwrap().clone()
}

#[test]
fn records_of_a_ring_buffer() {
    let ring = map(&after("records"), "ring");
    let first = |r: &Vec<u8>| (r.len(), u64::from_le_bytes(r[..8].try_into().unwrap()));
    let records: Vec<_> = ring.records().unwrap().iter().map(first).collect();
    let large = [0, 2, 3].map(|n| (1000, n));
    assert_eq!(records[..3], large, "the one with 1 was discarded");
    assert_eq!(records[3..], [(8, 42); 3]);
    assert!(ring.records().unwrap().is_empty());
}

#[test]
fn values_of_all_cpus() {
    let bpf = after("percpu");
    let word = |n: u64| n.to_le_bytes().to_vec();
    let key = 2u32.to_le_bytes();
    let values = map(&bpf, "percpu_hash").percpu(&key).unwrap();
    assert_eq!(values, Some(vec![word(14), word(0)]));
    let values = map(&bpf, "percpu_array").percpu(&key).unwrap();
    assert_eq!(values, Some(vec![word(21), word(0)]));
    assert_eq!(map(&bpf, "percpu_hash").percpu(&[9; 4]).unwrap(), None);
}

#[test]
fn queues_and_sets_from_user_space() {
    let bpf = after("keyless");
    let word = |n: u32| n.to_le_bytes();
    for (name, order) in [("queue", [1, 2]), ("stack", [2, 1])] {
        let m = map(&bpf, name);
        assert_eq!(m.pop().unwrap(), None);
        m.push(&word(1), update::ANY).unwrap();
        m.push(&word(2), update::ANY).unwrap();
        for n in order {
            assert_eq!(m.pop().unwrap(), Some(word(n).to_vec()), "{name}");
        }
    }
    let bloom = map(&bpf, "bloom");
    assert!(bloom.may_contain(&word(5)).unwrap());
    assert!(!bloom.may_contain(&word(6)).unwrap());
}
