//! Checked mode: each small program of a table meets exactly what it should, at its instruction;
//! programs that do nothing wrong do the same as unchecked.

use bpfsim_isa::{any_insn, assemble};
use bpfsim_testing::programs::{Config, programs};
use bpfsim_vm::{
    Activation, Area, Call, Elements, FaultKind, Flow, GuestMem, Host, Image, Mode, STACK_SIZE,
    Stop, run,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A kernel with one element, one record and one packet.
struct Kernel {
    value: u64,
    record: u64,
    packet: u64,
}

impl Host for Kernel {
    fn call(&mut self, call: Call, args: &[u64; 5], _: u64, mem: &mut GuestMem) -> Flow {
        Flow::Done(match call {
            Call::Helper(1) => self.value,
            Call::Helper(2) => {
                mem.retire(self.value);
                0
            }
            Call::Helper(3) => {
                mem.renew(self.value);
                0
            }
            Call::Helper(4) => {
                mem.place(self.record, 16);
                self.record
            }
            Call::Helper(5) => {
                mem.retire(self.record);
                0
            }
            Call::Helper(6) => {
                mem.expose(self.packet + 8, 56);
                0
            }
            // Reads 8 bytes at its first argument, and says whether all were written.
            Call::Helper(7) => match mem.check_arg(1, args[0], 8, false) {
                Ok(partly) => partly as u64,
                Err(kind) => return Flow::Fault(kind),
            },
            // Calls a function with its own first argument.
            Call::Helper(8) => {
                return Flow::CallBpf {
                    entry: args[1] as u32,
                    args: [args[0], 0, 0, 0, 0],
                };
            }
            _ => return Flow::Fault(FaultKind::UnknownCall(call)),
        })
    }
    fn resume(&mut self, r0: u64, _: &mut GuestMem) -> Flow {
        Flow::Done(r0)
    }
    fn is_visible(&self, _: Call, _: &[u64; 5]) -> bool {
        false
    }
    fn load(&mut self, _: u64, _: u32, _: &GuestMem) -> Option<u64> {
        None
    }
    fn store(&mut self, _: u64, _: u32, _: u64, _: &mut GuestMem) -> Option<()> {
        None
    }
    fn load_packet(&mut self, _: i32, _: u32, _: &GuestMem) -> Option<u64> {
        None
    }
}

/// Runs a program with the packet in r1, and says how it ended and what it did with stale pointers.
fn outcome(text: &str, checked: bool) -> String {
    let image = Image::unverified(&assemble(text).unwrap()).unwrap();
    let mut mem = GuestMem::new().unwrap();
    if checked {
        mem.check();
    }
    let stack = mem.alloc(Area::Stack, STACK_SIZE + 64, 64).unwrap();
    let table = mem.alloc(Area::Shared, 4 * 32, 8).unwrap();
    mem.divide(
        table,
        Elements {
            stride: 32,
            key: 4,
            value: 8,
            size: 12,
            each: 16,
        },
    );
    let ring = mem.alloc(Area::Packet, 64, 8).unwrap();
    mem.hold_records(ring);
    let packet = mem.alloc(Area::Packet, 64, 8).unwrap();
    let mut host = Kernel {
        value: table + 8,
        record: ring + 8,
        packet,
    };
    let mut act = Activation::new(0, [packet, 0, 0, 0, 0], stack);
    let stop = run(&image, &mut act, &mut mem, &mut host, 1000, Mode::Plain);
    let mut told = match stop {
        Stop::Exit(r0) => format!("returns {r0}"),
        Stop::Fault(fault) => fault.to_string(),
        other => format!("{other:?}"),
    };
    for s in mem.take_stale() {
        let what = if s.write { "writes" } else { "reads" };
        let whose = if s.recycled { "another's" } else { "freed" };
        told += &format!(
            "; insn {} {what} what is {whose}, freed by insn {}",
            s.by.pc, s.freed.pc
        );
    }
    // Addresses depend on the order of allocations, which is no matter of these tests.
    told.replace(&format!("{:#x}", host.value + 16), "VALUE+16")
        .replace(&format!("{packet:#x}"), "PACKET")
        .replace(&format!("{:#x}", host.record), "RECORD")
        .replace(&format!("{:#x}", host.value), "VALUE")
}

const GET: &str = "call 1; r6 = r0;";

#[test]
fn each_meets_what_it_should() {
    let table: &[(&str, String, &str)] = &[
        (
            "within",
            format!("{GET} r0 = *(u32 *)(r6 + 8); exit"),
            "returns 0",
        ),
        (
            "beside the value",
            format!("{GET} r0 = *(u32 *)(r6 + 12); exit"),
            "insn 2: read of 4 bytes at offset 12 of 12 bytes",
        ),
        (
            "partly beside it",
            format!("{GET} *(u64 *)(r6 + 8) = 1; r0 = 0; exit"),
            "insn 2: write of 8 bytes at offset 8 of 12 bytes",
        ),
        (
            "the next element, far enough to be there",
            format!("{GET} r6 += 32; r0 = *(u32 *)(r6 + 0); exit"),
            "insn 3: read of 4 bytes at offset 32 of 12 bytes",
        ),
        (
            "below",
            format!("{GET} r2 = -8; r2 += r6; r0 = *(u32 *)(r2 + 0); exit"),
            "insn 4: read of 4 bytes at offset -8 of 12 bytes",
        ),
        (
            "after an atomic",
            format!("{GET} r1 = 1; lock *(u64 *)(r6 + 8) += r1; r0 = 0; exit"),
            "insn 3: read of 8 bytes at offset 8 of 12 bytes",
        ),
        (
            "unwritten stack",
            "r0 = *(u64 *)(r10 - 8); exit".into(),
            "insn 0: read of 8 bytes of stack at fp-8, which were never written",
        ),
        (
            "padding is read with what is around it",
            "*(u32 *)(r10 - 8) = 1; r0 = *(u64 *)(r10 - 8); exit".into(),
            "returns 1",
        ),
        (
            "the stack of a function that was called before",
            "call one; call two; exit; one: *(u64 *)(r10 - 16) = 7; r0 = 0; exit;
             two: r0 = *(u64 *)(r10 - 16); exit"
                .into(),
            "insn 6: read of 8 bytes of stack at fp-16, which were never written",
        ),
        (
            "out of the frame",
            "call one; exit; one: r2 = r10; *(u64 *)(r2 + 8) = 1; r0 = 0; exit".into(),
            "insn 3: write of 8 bytes at offset 520 of 512 bytes",
        ),
        (
            "the caller's stack, by its pointer",
            "*(u64 *)(r10 - 8) = 5; r1 = r10; call one; exit;
             one: r0 = *(u64 *)(r1 - 8); exit"
                .into(),
            "returns 5",
        ),
        (
            "a pointer into a frame that returned",
            "call one; *(u64 *)(r0 - 8) = 1; r0 = 0; exit; one: r0 = r10; exit".into(),
            "insn 1: use after free: write of 8 bytes at",
        ),
        (
            "a spilled pointer keeps what it is to",
            format!(
                "{GET} *(u64 *)(r10 - 8) = r6; r2 = *(u64 *)(r10 - 8); r0 = *(u32 *)(r2 + 12); exit"
            ),
            "insn 4: read of 4 bytes at offset 12 of 12 bytes",
        ),
        (
            "a pointer that a call saved",
            format!("{GET} call one; r0 = *(u32 *)(r6 + 12); exit; one: r6 = 1; r0 = 0; exit"),
            "insn 3: read of 4 bytes at offset 12 of 12 bytes",
        ),
        (
            "an argument of a callback",
            format!("{GET} r1 = r6; r2 = 6; call 8; exit; *(u32 *)(r1 + 12) = 1; r0 = 0; exit"),
            "insn 6: write of 4 bytes at offset 12 of 12 bytes",
        ),
        (
            "reading what was freed",
            format!("{GET} call 2; r0 = *(u32 *)(r6 + 0); exit"),
            "returns 0; insn 3 reads what is freed, freed by insn 2",
        ),
        (
            "reading what was recycled",
            format!("{GET} call 2; call 3; r0 = *(u32 *)(r6 + 0); exit"),
            "returns 0; insn 4 reads what is another's, freed by insn 2",
        ),
        (
            "writing to what was freed",
            format!("{GET} call 2; *(u32 *)(r6 + 0) = 1; r0 = 0; exit"),
            "returns 0; insn 3 writes what is freed, freed by insn 2",
        ),
        (
            "writing into another's",
            format!("{GET} call 2; call 3; *(u32 *)(r6 + 0) = 1; r0 = 0; exit"),
            "insn 4: write of 4 bytes at VALUE by a stale pointer, into somebody else's element",
        ),
        (
            "finding the new one",
            format!("{GET} call 2; call 3; {GET} *(u32 *)(r6 + 0) = 1; r0 = 0; exit"),
            "returns 0",
        ),
        (
            "a record",
            "call 4; *(u64 *)(r0 + 8) = 1; r0 = 0; exit".into(),
            "returns 0",
        ),
        (
            "beside a record",
            "call 4; *(u64 *)(r0 + 16) = 1; r0 = 0; exit".into(),
            "insn 1: write of 8 bytes at offset 16 of 16 bytes",
        ),
        (
            "a record that was submitted",
            "call 4; r6 = r0; call 5; *(u64 *)(r6 + 0) = 1; r0 = 0; exit".into(),
            "insn 3: use after free: write of 8 bytes at RECORD",
        ),
        (
            "a packet that was moved",
            "r6 = r1; call 6; r0 = *(u8 *)(r6 + 0); exit".into(),
            "insn 2: use after free: read of 1 bytes at PACKET",
        ),
        (
            "past the packet",
            "r0 = *(u8 *)(r1 + 64); exit".into(),
            "insn 0: read of 1 bytes at offset 64 of 64 bytes",
        ),
        (
            "an argument that was never written",
            "r1 = r10; r1 += -8; call 7; exit".into(),
            "insn 2: read of 8 bytes of stack at fp-8, which were never written",
        ),
        (
            "an argument of which half was written",
            "*(u32 *)(r10 - 8) = 1; r1 = r10; r1 += -8; call 7; exit".into(),
            "returns 1",
        ),
    ];
    for (name, text, expected) in table {
        let met = outcome(text, true);
        let open = expected.ends_with(" at");
        let as_expected = met == *expected || (open && met.starts_with(expected));
        assert!(as_expected, "{name}: {met}, and not: {expected}");
        let plain = outcome(text, false);
        assert!(plain.starts_with("returns"), "{name}, unchecked: {plain}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Programs that keep to their memory end as they do unchecked, in one piece and in many.
    #[test]
    fn nothing_else_differs(
        (program, area) in programs(Config { statements: 40, stack: 128, ..Config::default() }),
        piece in 1_u64..50,
    ) {
        let image = Image::unverified(&program.slots).unwrap();
        let go = |checked: bool, piece: u64| {
            let mut mem = GuestMem::new().unwrap();
            if checked {
                mem.check();
            }
            let stack = mem.alloc(Area::Stack, STACK_SIZE + 64, 64).unwrap();
            let at = mem.alloc(Area::Packet, area.len().max(1) as u64, 8).unwrap();
            mem.slice_mut(at, area.len() as u64).unwrap().copy_from_slice(&area);
            let mut host = Kernel { value: 0, record: 0, packet: 0 };
            let mut act = Activation::new(0, [at, 0, 0, 0, 0], stack);
            let stop = loop {
                match run(&image, &mut act, &mut mem, &mut host, piece, Mode::Plain) {
                    Stop::Budget if act.insns < program.most_steps => {}
                    stop => break stop,
                }
            };
            let left = mem.slice(at, area.len() as u64).unwrap().to_vec();
            (stop, act.insns, left)
        };
        let plain = go(false, program.most_steps);
        prop_assert_eq!(&go(true, program.most_steps), &plain);
        prop_assert_eq!(&go(true, piece), &plain);
    }

    /// Any instructions, and pointers to all kinds of memory: never a panic.
    #[test]
    fn anything_may_be_checked(insns in vec(any_insn(), 1..60), stack in 0_u64..9000) {
        let Ok(image) = Image::unverified(&insns) else {
            return Ok(());
        };
        let mut mem = GuestMem::new().unwrap();
        mem.check();
        let base = mem.alloc(Area::Stack, 2 * STACK_SIZE, 64).unwrap();
        let table = mem.alloc(Area::Shared, 256, 8).unwrap();
        mem.divide(table, Elements { stride: 32, key: 4, value: 8, size: 12, each: 0 });
        let mut host = Kernel { value: table, record: table, packet: table };
        let args = [table, base, base + 4090, table + 250, 0];
        let mut act = Activation::new(0, args, base + stack / 8 * 8);
        run(&image, &mut act, &mut mem, &mut host, 2000, Mode::Plain);
    }
}
