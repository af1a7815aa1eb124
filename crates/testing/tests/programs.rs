//! Random programs on every engine there is: each gives the same r0 and the same area.

use bpfsim_abi::ProgType;
use bpfsim_isa::{AluOp, Cpu, Op, Operand, Width, decode_all};
use bpfsim_testing::linux::{Input, Linux, ProgSpec, or_skip};
use bpfsim_testing::programs::{Config, Program, programs};
use bpfsim_vm::{Activation, Area, Call, Flow, GuestMem, Host, Image, Mode, STACK_SIZE, Stop, run};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What an engine made of a program: r0 and the area.
type Outcome = (u64, Vec<u8>);

const LONG: Config = Config {
    cpu: Cpu::V4,
    area: 64,
    stack: 128,
    statements: 64,
    allow: |_| true,
};

fn check(
    test: &str,
    config: Config,
    engines: impl Fn(&Program, &[u8]) -> Vec<(&'static str, Outcome)>,
) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&programs(config), |(program, area)| {
        let outcomes = engines(&program, &area);
        for pair in outcomes.windows(2) {
            let [(a, outcome_a), (b, outcome_b)] = pair else {
                unreachable!()
            };
            prop_assert_eq!(outcome_a, outcome_b, "{} and {}, {:?}", a, b, program);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{test}: {error}"));
}

#[test]
fn interpreter_does_what_linux_does() {
    let Some(linux) = or_skip("interpreter_does_what_linux_does") else {
        return;
    };
    check("linux", LONG, |program, area| {
        vec![
            ("Linux", on_linux(&linux, program, area)),
            ("interpreter", interpreted(program, area)),
        ]
    });
}

#[test]
fn interpreter_does_what_rbpf_does() {
    let config = Config {
        cpu: Cpu::V3,
        allow: rbpf_can,
        ..LONG
    };
    check("rbpf", config, |program, area| {
        vec![
            ("rbpf", on_rbpf(program, area)),
            ("interpreter", interpreted(program, area)),
        ]
    });
}

/// Known defects of rbpf 0.4.1's interpreter.
fn rbpf_can(op: &Op) -> bool {
    match op {
        // Negation of the least value overflows, and panics where that is checked.
        Op::Neg { .. } => false,
        // Has no atomics.
        Op::Atomic { .. } => false,
        // Zero-extends the immediate that a 64-bit register is compared with.
        Op::Jmp {
            w: Width::W64,
            src: Operand::Imm(imm),
            ..
        } => *imm >= 0,
        // Leaves the upper half where a 32-bit remainder is by zero.
        Op::Alu {
            w: Width::W32,
            op: AluOp::Mod,
            src: Operand::Reg(_),
            ..
        } => false,
        _ => true,
    }
}

fn on_linux(linux: &Linux, program: &Program, area: &[u8]) -> Outcome {
    const BPF_F_SLEEPABLE: u32 = 1 << 4;
    let spec = ProgSpec {
        prog_flags: BPF_F_SLEEPABLE,
        ..ProgSpec::new(ProgType::Syscall, &program.slots)
    };
    let prog = linux
        .load(&spec.log())
        .result
        .unwrap_or_else(|e| panic!("{e:?}: {program:?}"));
    let ran = prog
        .test_run(&Input::ctx(area))
        .expect("a syscall program runs");
    // Linux hands out the lower half of r0; the whole of it is in the area.
    (ran.retval.into(), ran.ctx_out)
}

fn on_rbpf(program: &Program, area: &[u8]) -> Outcome {
    let mut area = area.to_vec();
    let bytes = bpfsim_isa::Insn::slots_to_le_bytes(&program.slots);
    let vm = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap_or_else(|e| panic!("{e:?}: {program:?}"));
    let r0 = vm.execute_program(&mut area);
    (
        r0.unwrap_or_else(|e| panic!("{e:?}: {program:?}")) & 0xffff_ffff,
        area,
    )
}

fn interpreted(program: &Program, area: &[u8]) -> Outcome {
    let image = Image::unverified(&program.slots).expect("lowers");
    let mut mem = GuestMem::new().expect("memory");
    let len = area.len() as u64;
    let at = mem.alloc(Area::Shared, len, 8).expect("an area");
    let stack = mem.alloc(Area::Stack, STACK_SIZE, 8).expect("a stack");
    mem.slice_mut(at, len).unwrap().copy_from_slice(area);
    let mut act = Activation::new(0, [at, 0, 0, 0, 0], stack);
    let stop = run(
        &image,
        &mut act,
        &mut mem,
        &mut Alone,
        program.most_steps,
        Mode::Plain,
    );
    let Stop::Exit(r0) = stop else {
        panic!("{stop:?} {program:?}")
    };
    (r0 & 0xffff_ffff, mem.slice(at, len).unwrap().to_vec())
}

/// A kernel that has nothing: these programs ask for nothing.
struct Alone;

impl Host for Alone {
    fn call(&mut self, call: Call, _: &[u64; 5], _: u64, _: &mut GuestMem) -> Flow {
        panic!("{call:?}")
    }
    fn resume(&mut self, _: u64, _: &mut GuestMem) -> Flow {
        panic!("resume")
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

proptest! {
    #[test]
    fn programs_are_well_formed((program, area) in programs(LONG)) {
        prop_assert_eq!(program.area_len, area.len());
        let ops = decode_all(&program.slots).unwrap();
        let starts: Vec<i64> = ops.iter().map(|(at, _)| *at as i64).collect();
        for (at, op) in &ops {
            if let Some(target) = op.jump_target(*at) {
                prop_assert!(starts.contains(&target), "{:?} at {}", op, at);
            }
        }
        prop_assert_eq!(ops.last().unwrap().1, Op::Exit);
    }
}
