//! The engines, each behind the same few calls.

use crate::programs::{HELPER, HELPER_NAME, Program, helper};
use crate::reference::Outcome;
use bpfsim_isa::Insn;
use bpfsim_vm::{
    Activation, Area, Call, FaultKind, Flow, GuestMem, Host, Image, Mode, STACK_SIZE, Stop,
};
use solana_sbpf::ebpf;
use solana_sbpf::elf::Executable;
use solana_sbpf::error::StableResult;
use solana_sbpf::memory_region::{MemoryMapping, MemoryRegion};
use solana_sbpf::program::{
    BuiltinFunctionDefinition, BuiltinProgram, FunctionRegistry, SBPFVersion,
};
use solana_sbpf::verifier::RequisiteVerifier;
use solana_sbpf::vm::{CallFrame, Config, ContextObject, EbpfVm, ExecutionMode};
use std::ptr::NonNull;
use std::sync::Arc;

/// More than any of the programs executes; engines that have a budget count down from it.
pub const FUEL: u64 = 100_000_000;

/// An engine with a program in it, ready to be run again and again.
pub trait Engine {
    /// Runs the program once: r0, and instructions where the engine counts them.
    fn run(&mut self) -> (u64, Option<u64>);
}

/// Makes an engine with a program in it.
pub type Make = fn(&Program) -> Box<dyn Engine>;

/// Every engine: its name in tables, and how it is made. The first is what others are compared
/// with.
pub const ENGINES: &[(&str, Make)] = &[
    ("solana-sbpf", |p| Box::new(Sbpf::new(p))),
    ("rbpf", |p| Box::new(Rbpf::new(p))),
    ("bpfsim", |p| Box::new(Bpfsim::new(p, Mode::Plain, false))),
    ("bpfsim explore", |p| {
        Box::new(Bpfsim::new(p, Mode::Explore, false))
    }),
    ("bpfsim checked", |p| {
        Box::new(Bpfsim::new(p, Mode::Plain, true))
    }),
];

/// Runs an engine once and holds it against the reference.
///
/// # Panics
/// If they differ.
pub fn check(name: &str, program: &Program, engine: &mut dyn Engine, expected: Outcome) {
    let (r0, insns) = engine.run();
    assert_eq!(r0, expected.r0, "{name} on {}: r0", program.name);
    if let Some(insns) = insns {
        assert_eq!(
            insns, expected.insns,
            "{name} on {}: instructions",
            program.name
        );
    }
}

/// bpfsim's interpreter with its instruction budget on.
struct Bpfsim {
    image: Image,
    mem: GuestMem,
    args: [u64; 5],
    stack: u64,
    mode: Mode,
}

impl Bpfsim {
    fn new(program: &Program, mode: Mode, checked: bool) -> Bpfsim {
        let mut mem = GuestMem::new().expect("memory");
        if checked {
            mem.check();
        }
        let len = program.input.len() as u64;
        let at = mem
            .alloc(Area::Packet, len, 64)
            .expect("room for the input");
        let stack = mem.alloc(Area::Stack, STACK_SIZE, 64).expect("a stack");
        mem.slice_mut(at, len)
            .expect("allocated")
            .copy_from_slice(&program.input);
        let image = Image::unverified(&program.slots).expect("an image");
        Bpfsim {
            image,
            mem,
            args: [at, 0, 0, 0, 0],
            stack,
            mode,
        }
    }
}

impl Engine for Bpfsim {
    fn run(&mut self) -> (u64, Option<u64>) {
        let mut act = Activation::new(0, self.args, self.stack);
        match bpfsim_vm::run(
            &self.image,
            &mut act,
            &mut self.mem,
            &mut Kernel,
            FUEL,
            self.mode,
        ) {
            Stop::Exit(r0) => (r0, Some(act.insns)),
            other => panic!("{other:?}"),
        }
    }
}

/// A kernel of one helper.
struct Kernel;

impl Host for Kernel {
    fn call(&mut self, call: Call, a: &[u64; 5], _: u64, _: &mut GuestMem) -> Flow {
        match call {
            Call::Helper(HELPER) => Flow::Done(helper(a[0], a[1], a[2], a[3], a[4])),
            other => Flow::Fault(FaultKind::UnknownCall(other)),
        }
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

/// rbpf's interpreter, which has no budget.
struct Rbpf {
    vm: rbpf::EbpfVmRaw<'static>,
    input: &'static mut [u8],
}

impl Rbpf {
    /// The machine borrows code and input for as long as it lives; a bench makes few of them,
    /// so they are leaked.
    fn new(program: &Program) -> Rbpf {
        let code: &'static [u8] = Insn::slots_to_le_bytes(&program.slots).leak();
        let mut vm = rbpf::EbpfVmRaw::new(Some(code)).expect("rbpf takes it");
        vm.register_helper(HELPER, helper)
            .expect("rbpf takes the helper");
        Rbpf {
            vm,
            input: program.input.clone().leak(),
        }
    }
}

impl Engine for Rbpf {
    fn run(&mut self) -> (u64, Option<u64>) {
        // Running does not keep the input, though the signature says so.
        let (at, len) = (self.input.as_mut_ptr(), self.input.len());
        #[allow(unsafe_code)]
        // SAFETY: the leaked slice lives for ever, and the run's borrow of it ends with the run.
        let input: &'static mut [u8] = unsafe { std::slice::from_raw_parts_mut(at, len) };
        (self.vm.execute_program(input).expect("rbpf runs it"), None)
    }
}

/// solana-sbpf's interpreter with its instruction meter on, SBPF version 3: the encoding that is
/// BPF's.
struct Sbpf {
    // Borrows of what follows, dropped first.
    vm: EbpfVm<'static, Meter>,
    executable: Executable<Meter>,
    frames: Vec<CallFrame>,
    registers: [u64; 12],
}

/// Instructions left, and the memory.
struct Meter {
    left: u64,
    mapping: MemoryMapping,
}

impl ContextObject for Meter {
    fn consume(&mut self, amount: u64) {
        self.left = self.left.saturating_sub(amount);
    }
    fn get_remaining(&self) -> u64 {
        self.left
    }
    fn active_mapping_ptr(&mut self) -> NonNull<MemoryMapping> {
        NonNull::from(&mut self.mapping)
    }
}

struct Mix;

impl BuiltinFunctionDefinition<Meter> for Mix {
    type Error = Box<dyn std::error::Error>;
    fn rust(_: &mut Meter, a: u64, b: u64, c: u64, d: u64, e: u64) -> Result<u64, Self::Error> {
        Ok(helper(a, b, c, d, e))
    }
}

impl Sbpf {
    fn new(program: &Program) -> Sbpf {
        let config = Config {
            max_call_depth: 8,
            stack_frame_size: 512,
            ..Config::default()
        };
        let mut loader = BuiltinProgram::new_loader(config);
        Mix::register(&mut loader, HELPER_NAME).expect("solana-sbpf takes the helper");
        let keys: Vec<u32> = loader.get_function_registry().keys().collect();
        assert_eq!(keys, [HELPER], "solana-sbpf's number of the helper");
        let loader = Arc::new(loader);
        let code = Insn::slots_to_le_bytes(&program.slots);
        let version = SBPFVersion::V3;
        let functions = FunctionRegistry::default();
        let executable =
            Executable::from_text_bytes(&code, loader.clone(), version, functions).expect("sbpf");
        executable
            .verify::<RequisiteVerifier>()
            .expect("solana-sbpf takes it");
        let stack: &'static mut [u8] = vec![0; 8 * 512].leak();
        let input: &'static mut [u8] = program.input.clone().leak();
        let regions = vec![
            executable.get_ro_region(),
            MemoryRegion::new(&raw mut *stack, ebpf::MM_STACK_START),
            MemoryRegion::new(&raw mut *input, ebpf::MM_INPUT_START),
        ];
        #[allow(unsafe_code)]
        // SAFETY: the regions are leaked, but for the code's, which the executable beside it owns.
        let mapping = unsafe { MemoryMapping::new(regions, executable.get_config(), version) };
        let meter = Box::leak(Box::new(Meter {
            left: FUEL,
            mapping: mapping.expect("regions"),
        }));
        let mut vm = EbpfVm::new(loader, version, meter, 8 * 512);
        vm.registers[1] = ebpf::MM_INPUT_START;
        let registers = vm.registers;
        Sbpf {
            vm,
            executable,
            frames: vec![CallFrame::default(); 8],
            registers,
        }
    }
}

impl Engine for Sbpf {
    fn run(&mut self) -> (u64, Option<u64>) {
        self.vm.registers = self.registers;
        self.vm.context().left = FUEL;
        let mut mode = ExecutionMode::Interpreted;
        let (insns, result) =
            self.vm
                .execute_program(&self.executable, &mut mode, &mut self.frames);
        match result {
            StableResult::Ok(r0) => (r0, Some(insns)),
            StableResult::Err(e) => panic!("{e}"),
        }
    }
}
