//! What holds of every program, valid or not: it does the same in one piece and in many, counts
//! the same, keeps to its budget, and stays inside guest memory.

use bpfsim_isa::{Insn, any_insn, any_op, assemble, encode};
use bpfsim_testing::programs::{Config, Program, programs};
use bpfsim_vm::{
    Access, Activation, Area, BASE, Call, Fault, FaultKind, Flow, GuestMem, Host, Image, Mode,
    STACK_SIZE, Stop, run,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Answers calls from a list, over and over; an empty list answers that there is no such call.
#[derive(Default)]
struct Answers {
    flows: Vec<Flow>,
    at: usize,
    values: u64,
    resumed: Vec<u64>,
}

impl Answers {
    fn of(flows: impl Into<Vec<Flow>>) -> Answers {
        Answers {
            flows: flows.into(),
            ..Answers::default()
        }
    }

    fn next(&mut self, call: Option<Call>) -> Flow {
        self.at += 1;
        match self.flows.len() {
            0 => Flow::Fault(FaultKind::UnknownCall(call.unwrap_or(Call::Helper(0)))),
            n => self.flows[(self.at - 1) % n],
        }
    }
}

impl Host for Answers {
    fn call(&mut self, call: Call, _: &[u64; 5], _: u64, _: &mut GuestMem) -> Flow {
        self.next(Some(call))
    }
    fn resume(&mut self, r0: u64, _: &mut GuestMem) -> Flow {
        self.resumed.push(r0);
        self.next(None)
    }
    fn is_visible(&self, _: Call, args: &[u64; 5]) -> bool {
        args[0] & 1 == 1
    }
    fn load(&mut self, addr: u64, _: u32, _: &GuestMem) -> Option<u64> {
        (addr & 0x100 == 0).then_some(self.values ^ addr)
    }
    fn store(&mut self, addr: u64, _: u32, value: u64, _: &mut GuestMem) -> Option<()> {
        self.values = self.values.rotate_left(5) ^ value;
        (addr & 0x100 == 0).then_some(())
    }
    fn translate(&mut self, addr: u64, _: u32, _: bool, _: &mut GuestMem) -> Option<u64> {
        // An arena of 64 KiB, and below it what is no guest address after all.
        match addr {
            0x1_0000..0x2_0000 => Some(SHARED + 4096 + (addr - 0x1_0000)),
            0x8000..0x9000 => Some(addr),
            _ => None,
        }
    }
    fn arena_user_start(&self) -> u64 {
        0x7f00_0000_0000
    }
    fn load_packet(&mut self, offset: i32, _: u32, _: &GuestMem) -> Option<u64> {
        (offset & 8 == 0).then_some(offset as u64)
    }
}

/// First address of [`Area::Shared`].
const SHARED: u64 = BASE + 0x1000_0000;

/// Everything that a run leaves behind.
#[derive(Debug, PartialEq)]
struct Left {
    stop: Stop,
    regs: [u64; 16],
    insns: u64,
    area: Vec<u8>,
    stack: Vec<u8>,
}

/// A program in a memory with its area and a stack.
struct Machine {
    image: Image,
    mem: GuestMem,
    act: Activation,
    area: (u64, u64),
    stack: u64,
}

impl Machine {
    fn new(program: &Program, area: &[u8], shared: bool) -> Machine {
        let mut mem = GuestMem::new().unwrap();
        let len = area.len() as u64;
        let kind = if shared { Area::Shared } else { Area::Packet };
        let at = mem.alloc(kind, len, 8).unwrap();
        let stack = mem.alloc(Area::Stack, STACK_SIZE, 8).unwrap();
        mem.slice_mut(at, len).unwrap().copy_from_slice(area);
        Machine {
            image: Image::unverified(&program.slots).unwrap(),
            mem,
            act: Activation::new(0, [at, 0, 0, 0, 0], stack),
            area: (at, len),
            stack,
        }
    }

    fn go(&mut self, budget: u64, mode: Mode) -> Stop {
        let host = &mut Answers::default();
        run(
            &self.image,
            &mut self.act,
            &mut self.mem,
            host,
            budget,
            mode,
        )
    }

    fn left(self, stop: Stop) -> Left {
        let (at, len) = self.area;
        let mut regs = self.act.regs;
        (regs[6], regs[10]) = (0, 0); // where the area and the stack are
        Left {
            stop,
            regs,
            insns: self.act.insns,
            area: self.mem.slice(at, len).unwrap().to_vec(),
            stack: self.mem.slice(self.stack, STACK_SIZE).unwrap().to_vec(),
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        // About every second program does not lower.
        max_global_rejects: 1 << 16,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// In one piece; instruction by instruction; in pieces of any size; before and after each
    /// access to shared memory: all the same.
    #[test]
    fn pieces_make_the_whole(
        (program, area) in programs(Config { statements: 40, stack: 128, ..Config::default() }),
        pieces in vec(1_u64..200, 1..8),
    ) {
        let mut whole = Machine::new(&program, &area, false);
        let stop = whole.go(program.most_steps, Mode::Plain);
        let whole = whole.left(stop);
        prop_assert!(matches!(whole.stop, Stop::Exit(_)), "{:?}", whole.stop);

        for pieces in [&[1][..], &pieces] {
            let mut parts = Machine::new(&program, &area, false);
            let mut sizes = pieces.iter().cycle();
            let stop = loop {
                let (size, before) = (*sizes.next().unwrap(), parts.act.insns);
                match parts.go(size, Mode::Plain) {
                    Stop::Budget => prop_assert_eq!(parts.act.insns - before, size),
                    stop => break stop,
                }
            };
            prop_assert_eq!(&parts.left(stop), &whole);
        }

        let mut explored = Machine::new(&program, &area, true);
        let mut before = None;
        let stop = loop {
            match explored.go(program.most_steps, Mode::Explore) {
                Stop::Access(Access { addr, size, .. }) => {
                    let (at, len) = explored.area;
                    prop_assert!(addr >= at && addr + size as u64 <= at + len);
                    prop_assert!(before.replace(explored.act.insns) < Some(explored.act.insns + 1));
                    explored.act.grant = true;
                }
                stop => break stop,
            }
        };
        prop_assert_eq!(&explored.left(stop), &whole);
    }

    /// Any bytes that lower, any registers, any answers: the run ends within its budget, and a
    /// run in pieces meets the same end.
    #[test]
    fn nothing_gets_out(
        slots in hostile(),
        pc in 0_u32..40,
        regs in vec(number(), 16),
        flows in vec(flow(), 0..4),
        explore: bool,
    ) {
        let image = Image::unverified(&slots);
        prop_assume!(image.is_ok());
        let image = image.unwrap();
        let other = Image::unverified(&assemble("r0 += 1; exit").unwrap()).unwrap();
        let mode = if explore { Mode::Explore } else { Mode::Plain };
        let mut ends = Vec::new();
        for piece in [2_000, 7, 1] {
            let mut mem = GuestMem::new().unwrap();
            let stack = mem.alloc(Area::Stack, STACK_SIZE, 8).unwrap();
            let mut host = Answers::of(flows.clone());
            let mut act = Activation::new(pc, [0; 5], stack);
            act.regs.copy_from_slice(&regs);
            let mut stops = 0;
            let end = loop {
                let before = act.insns;
                let budget = piece.min(2_000 - before);
                let image = if act.prog == 0 { &image } else { &other };
                let stop = run(image, &mut act, &mut mem, &mut host, budget, mode);
                prop_assert!(act.insns - before <= budget);
                stops += 1;
                act.grant = true;
                match stop {
                    Stop::Exit(_) | Stop::Fault(_) => break Some(stop),
                    Stop::Budget if act.insns == 2_000 => break None,
                    _ if stops > 5_000 => break None,
                    _ => {}
                }
            };
            // Stopping for other reasons draws further answers, or stops more often than this lets.
            let same = !flows.iter().any(|f| matches!(f, Flow::Suspend)) && stops <= 5_000;
            ends.push(same.then_some((end, act.regs, act.insns, host.values)));
        }
        if let [Some(whole), Some(by_seven), Some(by_one)] = &ends[..] {
            prop_assert_eq!(whole, by_seven);
            prop_assert_eq!(whole, by_one);
        }
    }
}

/// Slots that are instructions, seldom just bytes, and whose jumps stay inside.
fn hostile() -> impl Strategy<Value = Vec<Insn>> {
    let op = any_op().prop_filter_map("no encoding", |op| Some(encode(&op).ok()?.to_vec()));
    let slot = any_insn().prop_map(|insn| vec![insn]);
    vec(prop_oneof![200 => op, 1 => slot], 1..24).prop_map(|parts| {
        let mut slots = parts.concat();
        let len = slots.len() as i64;
        let mut at = 0;
        while at < slots.len() {
            // Jumps and calls that leave the program would make it not lower at all.
            if let Ok((op, _)) = bpfsim_isa::decode(&slots, at)
                && let Some(to) = op.jump_target(at)
                && !(0..len).contains(&to)
            {
                let by = (to.rem_euclid(len) - at as i64 - 1) as i32;
                if slots[at].code == 0x85 || slots[at].code == 0x06 {
                    slots[at].imm = by;
                } else {
                    slots[at].off = by as i16;
                }
            }
            at += slots[at].len_in_slots();
        }
        slots
    })
}

/// Numbers, addresses in guest memory, and addresses around its edges.
fn number() -> impl Strategy<Value = u64> {
    let near = (
        prop_oneof![
            Just(BASE),
            Just(BASE + (1 << 32)),
            Just(SHARED),
            Just(BASE + 0x0800_0000),
            Just(0),
            Just(0x1_0000),
            Just(0x8000)
        ],
        -20_i64..20,
    );
    prop_oneof![
        near.prop_map(|(at, by)| at.wrapping_add_signed(by)),
        any::<u64>(),
        0_u64..64
    ]
}

fn flow() -> impl Strategy<Value = Flow> {
    prop_oneof![
        4 => number().prop_map(Flow::Done),
        1 => number().prop_map(Flow::Yield),
        1 => Just(Flow::Suspend),
        1 => number().prop_map(Flow::Exit),
        4 => (0_u32..40, number()).prop_map(|(entry, a)| Flow::CallBpf { entry, args: [a; 5] }),
        1 => (0_u32..2, 0_u32..3).prop_map(|(prog, entry)| Flow::TailCall { prog, entry }),
        1 => (0_u32..40, number()).prop_map(|(entry, cookie)| Flow::Throw { entry, cookie }),
    ]
}

/// Runs a program with these answers to its end.
fn ends(text: &str, flows: &[Flow]) -> (Stop, Answers, Activation) {
    let image = Image::unverified(&assemble(text).unwrap()).unwrap();
    let mut mem = GuestMem::new().unwrap();
    mem.alloc(Area::Shared, 0x2_0000, 8).unwrap();
    let stack = mem.alloc(Area::Stack, STACK_SIZE, 8).unwrap();
    let mut host = Answers::of(flows);
    let mut act = Activation::new(0, [0; 5], stack);
    let stop = run(&image, &mut act, &mut mem, &mut host, 1_000, Mode::Plain);
    (stop, host, act)
}

#[test]
fn a_callback_returns_to_the_host_and_the_call_to_the_program() {
    let text = "r6 = 7; call 1; r0 += r6; exit; r6 = 0; r0 = r1; r0 += 1; exit";
    let flows = [
        Flow::CallBpf {
            entry: 4,
            args: [10; 5],
        },
        Flow::CallBpf {
            entry: 4,
            args: [20; 5],
        },
        Flow::Done(100),
    ];
    let (stop, host, _) = ends(text, &flows);
    assert_eq!((stop, host.resumed), (Stop::Exit(107), vec![11, 21]));
}

#[test]
fn a_tail_call_in_a_subprogram_returns_to_its_caller() {
    // A subprogram makes the tail call; the other program's end ends the subprogram.
    let image =
        Image::unverified(&assemble("r6 = 5; call f; r0 += r6; exit; f: call 12; exit").unwrap());
    let other = Image::unverified(&assemble("r6 = 0; r0 = 40; exit").unwrap()).unwrap();
    let image = image.unwrap();
    let mut mem = GuestMem::new().unwrap();
    let stack = mem.alloc(Area::Stack, STACK_SIZE, 8).unwrap();
    let mut host = Answers::of([Flow::TailCall { prog: 1, entry: 0 }]);
    let mut act = Activation::new(0, [0; 5], stack);
    let mut stops = Vec::new();
    loop {
        let image = if act.prog == 0 { &image } else { &other };
        let stop = run(image, &mut act, &mut mem, &mut host, 100, Mode::Plain);
        stops.push((stop, act.prog));
        if stop != Stop::Switch {
            break;
        }
    }
    let expected = [(Stop::Switch, 1), (Stop::Switch, 0), (Stop::Exit(45), 0)];
    assert_eq!(stops, expected);
    assert_eq!(act.insns, 3 + 3 + 2);
}

#[test]
fn what_is_thrown_ends_all_frames() {
    let text = "call f; r0 = 1; exit; f: call 1; exit; r0 = r1; r0 += 1; exit";
    let (stop, _, act) = ends(
        text,
        &[Flow::Throw {
            entry: 5,
            cookie: 41,
        }],
    );
    assert_eq!(stop, Stop::Exit(42));
    assert_eq!(act.insns, 5);
}

#[test]
fn an_arena_is_reached_by_its_low_addresses() {
    let text = "
        r1 = 0x7f0000010008 ll
        r2 = addr_space_cast(r1, 0, 1)
        *(u64 *)(r2 + 0) = 6
        r3 = 36
        lock *(u64 *)(r2 + 0) += r3
        r0 = *(u32 *)(r2 + 0)
        r4 = addr_space_cast(r2, 1, 0)
        if r4 != r1 goto +1
        exit
        r0 = 0
        exit";
    assert_eq!(ends(text, &[]).0, Stop::Exit(42));
}

#[test]
fn faults_name_the_instruction_within_a_sequence() {
    // The third op of one dispatch, in both compilations of the loop.
    let text = "r3 = 0x5000; r1 = r3; r1 += 0x100; r2 = *(u8 *)(r1 + 2); exit";
    let image = Image::unverified(&assemble(text).unwrap()).unwrap();
    for budget in [4, 1_000] {
        let mut mem = GuestMem::new().unwrap();
        let stack = mem.alloc(Area::Stack, STACK_SIZE, 8).unwrap();
        let mut act = Activation::new(0, [0; 5], stack);
        let host = &mut Answers::default();
        let stop = run(&image, &mut act, &mut mem, host, budget, Mode::Plain);
        let kind = FaultKind::Address {
            addr: 0x5102,
            size: 1,
            write: false,
        };
        assert_eq!(stop, Stop::Fault(Fault { pc: 3, kind }));
        assert_eq!((act.insns, act.pc), (3, 3));
    }
}
