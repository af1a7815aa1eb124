//! The engines, each behind the same few calls.

use crate::programs::{HELPER, HELPER_NAME, Program, helper};
use crate::reference::Outcome;
use crate::world::{Addresses, FRAME, Value};
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
    /// Runs the program once and gives r0; nothing if it fails. Two registers hold that: what is
    /// handed over in memory is waited for when it is read again, in some engines longer than a
    /// short program takes.
    fn run(&mut self) -> Option<u64>;

    /// Instructions of the last run, where the engine counts them.
    fn insns(&self) -> Option<u64>;
}

/// Makes an engine with a program in it, or says why it cannot.
pub type Make = fn(&Program) -> Result<Box<dyn Engine>, String>;

const SBPF: (&str, Make) = ("solana-sbpf", |p| Ok(Box::new(Sbpf::new(p)?)));
const RBPF: (&str, Make) = ("rbpf", |p| Ok(Box::new(Rbpf::new(p)?)));
const PLAIN: (&str, Make) = ("bpfsim", |p| Bpfsim::make(p, Mode::Plain, false));
const CHECKED: (&str, Make) = ("bpfsim checked", |p| Bpfsim::make(p, Mode::Plain, true));

/// Every engine: its name in tables, and how it is made. The first is what others are compared
/// with.
pub const ENGINES: &[(&str, Make)] = &[
    SBPF,
    RBPF,
    PLAIN,
    ("bpfsim explore", |p| Bpfsim::make(p, Mode::Explore, false)),
    CHECKED,
];

/// Where bpfsim's plain interpreter is among them.
pub const PLAIN_AT: usize = 2;

/// Those that run programs which were taken down from the kernel.
pub const WITH_WORLDS: &[(&str, Make)] = &[SBPF, PLAIN];

/// And those that run some of them.
pub const WITH_SOME_WORLDS: &[(&str, Make)] = &[RBPF, CHECKED];

/// Runs an engine once and holds it against the reference.
///
/// # Errors
/// If they differ.
pub fn check(
    name: &str,
    program: &Program,
    engine: &mut dyn Engine,
    expected: Outcome,
) -> Result<(), String> {
    let Some(r0) = engine.run() else {
        return Err(format!("{name} fails on {}", program.name));
    };
    let insns = engine.insns().unwrap_or(expected.insns);
    let got = Outcome { r0, insns };
    match got == expected {
        true => Ok(()),
        false => Err(format!(
            "{name} on {}: {got:?} in place of {expected:?}",
            program.name
        )),
    }
}

/// A call's reply, with the addresses of one engine.
type Reply = (u64, Vec<(u64, Vec<u8>)>);

/// Puts an engine's addresses into the program's immediates.
fn placed(program: &Program, addresses: &Addresses<'_>) -> Vec<Insn> {
    let mut slots = program.slots.clone();
    for &(at, value) in &program.world.immediates {
        let number = addresses.of(value);
        slots[at].imm = number as i32;
        slots[at + 1].imm = (number >> 32) as i32;
    }
    slots
}

/// bpfsim's interpreter with its instruction budget on.
struct Bpfsim<H> {
    image: Image,
    mem: GuestMem,
    args: [u64; 5],
    stack: u64,
    mode: Mode,
    kernel: H,
    act: Activation,
}

impl Bpfsim<()> {
    fn make(program: &Program, mode: Mode, checked: bool) -> Result<Box<dyn Engine>, String> {
        let mut mem = GuestMem::new().map_err(|e| e.to_string())?;
        if checked {
            mem.check();
        }
        let room = "no room for the memory";
        let mut memory = Vec::new();
        for bytes in &program.world.memory {
            let at = mem.alloc(Area::Packet, bytes.data.len() as u64, 64);
            memory.push(at.map_err(|e| e.to_string())?);
        }
        let stack = mem.alloc(Area::Stack, STACK_SIZE, 64);
        let stack = stack.map_err(|e| e.to_string())?;
        let addresses = Addresses {
            memory: &memory,
            stack: stack + STACK_SIZE - FRAME,
            frame: -(FRAME as i64),
        };
        for (at, bytes) in memory.iter().zip(&program.world.memory) {
            let bytes = addresses.bytes(bytes);
            let to = mem.slice_mut(*at, bytes.len() as u64).ok_or(room)?;
            to.copy_from_slice(&bytes);
        }
        let args = addresses.args(&program.world);
        let image = Image::unverified(&placed(program, &addresses)).map_err(|e| e.to_string())?;
        let replies = addresses.replies(&program.world);
        Ok(match replies.is_empty() {
            true => Box::new(Bpfsim {
                image,
                mem,
                args,
                stack,
                mode,
                kernel: Mixer,
                act: Activation::default(),
            }),
            false => Box::new(Bpfsim {
                image,
                mem,
                args,
                stack,
                mode,
                kernel: Told { replies, next: 0 },
                act: Activation::default(),
            }),
        })
    }
}

impl<H: Anew> Engine for Bpfsim<H> {
    fn insns(&self) -> Option<u64> {
        Some(self.act.insns)
    }

    fn run(&mut self) -> Option<u64> {
        self.kernel.begin();
        self.act.begin(0, self.args, self.stack);
        match bpfsim_vm::run(
            &self.image,
            &mut self.act,
            &mut self.mem,
            &mut self.kernel,
            FUEL,
            self.mode,
        ) {
            Stop::Exit(r0) => Some(r0),
            _ => None,
        }
    }
}

/// A kernel in which a run begins.
trait Anew: Host {
    fn begin(&mut self);
}

/// Makes a [`Host`] of a function that answers a call.
macro_rules! host {
    ($kernel:ty, |$this:ident, $a:ident, $mem:ident| $answer:expr) => {
        impl Host for $kernel {
            fn call(&mut self, call: Call, $a: &[u64; 5], _: u64, $mem: &mut GuestMem) -> Flow {
                let $this = self;
                let answer: Option<u64> = match call {
                    Call::Helper(HELPER) => $answer,
                    _ => None,
                };
                match answer {
                    Some(r0) => Flow::Done(r0),
                    None => Flow::Fault(FaultKind::UnknownCall(call)),
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
    };
}

/// A kernel of one helper.
struct Mixer;

impl Anew for Mixer {
    fn begin(&mut self) {}
}

host!(Mixer, |_this, a, _mem| Some(helper(
    a[0], a[1], a[2], a[3], a[4]
)));

/// A kernel that says what another said.
struct Told {
    replies: Vec<Reply>,
    next: usize,
}

impl Anew for Told {
    fn begin(&mut self) {
        self.next = 0;
    }
}

host!(Told, |this, _a, mem| {
    let reply = this.replies.get(this.next);
    this.next += 1;
    reply.and_then(|(r0, writes)| {
        for (at, bytes) in writes {
            mem.slice_mut(*at, bytes.len() as u64)?
                .copy_from_slice(bytes);
        }
        Some(*r0)
    })
});

/// rbpf's interpreter, which has no budget.
struct Rbpf {
    vm: rbpf::EbpfVmRaw<'static>,
    input: &'static mut [u8],
}

impl Rbpf {
    /// The machine borrows code and input for as long as it lives; a bench makes few of them,
    /// so they are leaked.
    fn new(program: &Program) -> Result<Rbpf, String> {
        let world = &program.world;
        if !world.replies.is_empty() {
            return Err("rbpf's helpers have no state".into());
        }
        let memory: Vec<&'static mut [u8]> = world
            .memory
            .iter()
            .map(|bytes| bytes.data.clone().leak() as &mut [u8])
            .collect();
        let starts: Vec<u64> = memory.iter().map(|m| m.as_ptr() as u64).collect();
        let addresses = Addresses {
            memory: &starts,
            stack: 0,
            frame: 0,
        };
        let code: &'static [u8] = Insn::slots_to_le_bytes(&placed(program, &addresses)).leak();
        let mut vm = rbpf::EbpfVmRaw::new(Some(code)).map_err(|e| e.to_string())?;
        vm.register_helper(HELPER, helper)
            .map_err(|e| e.to_string())?;
        let mut memory = memory.into_iter();
        let mut input = memory.next().ok_or("no memory")?;
        input.copy_from_slice(&addresses.bytes(&world.memory[0]));
        if world.args.first() != Some(&Value::In(0, 0)) {
            // R1 is what else the program is given.
            input = &mut [];
        }
        for (at, (to, bytes)) in starts[1..].iter().zip(memory.zip(&world.memory[1..])) {
            to.copy_from_slice(&addresses.bytes(bytes));
            vm.register_allowed_memory(*at..*at + to.len() as u64);
        }
        Ok(Rbpf { vm, input })
    }
}

impl Engine for Rbpf {
    fn insns(&self) -> Option<u64> {
        None
    }

    fn run(&mut self) -> Option<u64> {
        // Running does not keep the input, though the signature says so.
        let (at, len) = (self.input.as_mut_ptr(), self.input.len());
        #[allow(unsafe_code)]
        // SAFETY: the leaked slice lives for ever, and the run's borrow of it ends with the run.
        let input: &'static mut [u8] = unsafe { std::slice::from_raw_parts_mut(at, len) };
        self.vm.execute_program(input).ok()
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
    insns: u64,
}

/// Instructions left, the memory, and what calls give.
struct Meter {
    left: u64,
    mapping: MemoryMapping,
    replies: Vec<(u64, Vec<Write>)>,
    next: usize,
}

/// What a call writes to memory of the machine's that was leaked.
struct Write {
    to: *mut [u8],
    bytes: Vec<u8>,
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
    fn rust(m: &mut Meter, a: u64, b: u64, c: u64, d: u64, e: u64) -> Result<u64, Self::Error> {
        if m.replies.is_empty() {
            return Ok(helper(a, b, c, d, e));
        }
        let (r0, writes) = m.replies.get(m.next).ok_or("no such call")?;
        m.next += 1;
        for write in writes {
            #[allow(unsafe_code)]
            // SAFETY: it is within memory that was leaked, which only the machine uses, and the
            // machine waits for this call.
            let to = unsafe { &mut *write.to };
            to.copy_from_slice(&write.bytes);
        }
        Ok(*r0)
    }
}

impl Sbpf {
    fn new(program: &Program) -> Result<Sbpf, String> {
        let world = &program.world;
        let config = Config {
            max_call_depth: 8,
            stack_frame_size: 512,
            ..Config::default()
        };
        let mut loader = BuiltinProgram::new_loader(config);
        Mix::register(&mut loader, HELPER_NAME).map_err(|e| e.to_string())?;
        let keys: Vec<u32> = loader.get_function_registry().keys().collect();
        assert_eq!(keys, [HELPER], "solana-sbpf's number of the helper");
        let loader = Arc::new(loader);
        // A region for each piece of memory, each in 4 GiB of its own, as the machine wants them.
        let region = |i: usize| ebpf::MM_INPUT_START + i as u64 * ebpf::MM_REGION_SIZE;
        let starts: Vec<u64> = (0..world.memory.len()).map(region).collect();
        let addresses = Addresses {
            memory: &starts,
            stack: ebpf::MM_STACK_START,
            frame: FRAME as i64,
        };
        let code = Insn::slots_to_le_bytes(&placed(program, &addresses));
        let version = SBPFVersion::V3;
        let functions = FunctionRegistry::default();
        let executable = Executable::from_text_bytes(&code, loader.clone(), version, functions);
        let executable = executable.map_err(|e| e.to_string())?;
        executable
            .verify::<RequisiteVerifier>()
            .map_err(|e| format!("solana-sbpf refuses {}: {e}", program.name))?;
        let stack: &'static mut [u8] = vec![0; 8 * 512].leak();
        let mut hosts: Vec<(u64, *mut [u8])> = vec![(ebpf::MM_STACK_START, &raw mut *stack)];
        for (at, bytes) in starts.iter().zip(&world.memory) {
            let leaked: &'static mut [u8] = addresses.bytes(bytes).leak();
            hosts.push((*at, &raw mut *leaked));
        }
        let mut regions = vec![executable.get_ro_region()];
        regions.extend(hosts.iter().map(|(at, to)| MemoryRegion::new(*to, *at)));
        #[allow(unsafe_code)]
        // SAFETY: the regions are leaked, but for the code's, which the executable beside it owns.
        let mapping = unsafe { MemoryMapping::new(regions, executable.get_config(), version) };
        let meter = Box::leak(Box::new(Meter {
            left: FUEL,
            mapping: mapping.map_err(|e| e.to_string())?,
            replies: writes(addresses.replies(world), &hosts)?,
            next: 0,
        }));
        let mut vm = EbpfVm::new(loader, version, meter, 8 * 512);
        vm.registers[1..6].copy_from_slice(&addresses.args(world));
        let registers = vm.registers;
        Ok(Sbpf {
            vm,
            executable,
            frames: vec![CallFrame::default(); 8],
            registers,
            insns: 0,
        })
    }
}

/// The replies, with the machine's memory in place of its addresses.
fn writes(
    replies: Vec<Reply>,
    hosts: &[(u64, *mut [u8])],
) -> Result<Vec<(u64, Vec<Write>)>, String> {
    let write = |(at, bytes): (u64, Vec<u8>)| {
        let found = hosts.iter().find_map(|(start, host)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            (from + bytes.len() <= host.len()).then_some((host, from))
        });
        let (host, from) = found.ok_or("a call writes elsewhere")?;
        let first = host.cast::<u8>().wrapping_add(from);
        let to = std::ptr::slice_from_raw_parts_mut(first, bytes.len());
        Ok(Write { to, bytes })
    };
    let reply = |(r0, writes): Reply| {
        let writes: Result<_, String> = writes.into_iter().map(write).collect();
        Ok((r0, writes?))
    };
    replies.into_iter().map(reply).collect()
}

impl Engine for Sbpf {
    fn insns(&self) -> Option<u64> {
        Some(self.insns)
    }

    fn run(&mut self) -> Option<u64> {
        self.vm.registers = self.registers;
        let meter = self.vm.context();
        (meter.left, meter.next) = (FUEL, 0);
        let mut mode = ExecutionMode::Interpreted;
        let (insns, result) =
            self.vm
                .execute_program(&self.executable, &mut mode, &mut self.frames);
        self.insns = insns;
        match result {
            StableResult::Ok(r0) => Some(r0),
            StableResult::Err(_) => None,
        }
    }
}
