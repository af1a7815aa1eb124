//! `bpfsim conformance-plugin`: the plugin protocol of the public bpf_conformance suite.
//!
//! A program comes as bytes in base 16 on the first line of the standard input, memory as another
//! such string in an argument; r1 points to the memory, r2 is its length, and r0 goes to the
//! standard output in base 16. Programs run unverified, as the suite's are meant to.

use crate::{Outcome, Stop, show};
use bpfsim_isa::Insn;
use bpfsim_loader::code_sections;
use bpfsim_vm::{
    Activation, Area, Call, FaultKind, Flow, GuestMem, Host, Image, Mode, STACK_SIZE, Stop as End,
};
use std::io::BufRead;

/// Instructions that a program of the suite may execute.
const FUEL: u64 = 100_000_000;
/// Bytes that are read of a program in base 16.
const MOST: u64 = 64 << 20;

/// Arguments of `bpfsim conformance-plugin`, as the suite gives them.
#[derive(clap::Args)]
pub struct Args {
    /// Bytes of memory in base 16, such as "00 2a ff".
    memory: Option<String>,
    /// Bytes of the program in base 16, in place of the standard input.
    #[arg(long)]
    program: Option<String>,
    /// The bytes are an ELF object; the first section with code is the program.
    #[arg(long)]
    elf: bool,
    /// Taken and ignored, since errors always say what is wrong.
    #[arg(long)]
    debug: bool,
}

/// Runs the program and prints r0.
pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let text = match &args.program {
        Some(text) => text.clone(),
        None => first_line()?,
    };
    let bytes = base16(&text).map_err(Stop::unusable)?;
    let slots = match args.elf {
        true => {
            let sections = code_sections(&bytes).map_err(Stop::unusable)?;
            let first = sections.into_iter().find(|s| !s.insns.is_empty());
            first.ok_or_else(|| Stop::unusable("no code"))?.insns
        }
        false => Insn::slots_from_le_bytes(&bytes)
            .ok_or_else(|| Stop::unusable("the program is no whole number of instructions"))?,
    };
    let memory = base16(args.memory.as_deref().unwrap_or("")).map_err(Stop::unusable)?;
    match execute(&slots, &memory) {
        Ok(r0) => {
            show::line(&format!("{r0:x}"));
            Ok(Outcome::Fine)
        }
        Err(message) => Err(Stop {
            outcome: Outcome::Failed,
            message,
            explanation: None,
        }),
    }
}

fn first_line() -> Result<String, Stop> {
    let mut line = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), MOST);
    input.read_line(&mut line).map_err(Stop::unusable)?;
    Ok(line)
}

/// Bytes of two digits each, with blanks between them.
fn base16(text: &str) -> Result<Vec<u8>, String> {
    let byte = |word: &str| u8::from_str_radix(word, 16).map_err(|_| format!("no byte: {word:?}"));
    text.split_ascii_whitespace().map(byte).collect()
}

fn execute(slots: &[Insn], memory: &[u8]) -> Result<u64, String> {
    let image = Image::unverified(slots).map_err(|e| e.to_string())?;
    let mut mem = GuestMem::new().map_err(|e| e.to_string())?;
    let len = memory.len() as u64;
    let at = mem.alloc(Area::Packet, len, 8).map_err(|e| e.to_string())?;
    let stack = mem.alloc(Area::Stack, STACK_SIZE, 8);
    let stack = stack.map_err(|e| e.to_string())?;
    match mem.slice_mut(at, len) {
        Some(to) => to.copy_from_slice(memory),
        None => return Err("no room for the memory".to_string()),
    }
    let mut act = Activation::new(0, [at, len, 0, 0, 0], stack);
    match bpfsim_vm::run(&image, &mut act, &mut mem, &mut Kernel, FUEL, Mode::Plain) {
        End::Exit(r0) => Ok(r0),
        End::Fault(fault) => Err(fault.to_string()),
        End::Budget => Err(format!("more than {FUEL} instructions")),
        other => Err(format!("stopped: {other:?}")),
    }
}

/// A kernel of one helper, the clock, at its beginning.
struct Kernel;

impl Host for Kernel {
    fn call(&mut self, call: Call, _: &[u64; 5], _: u64, _: &mut GuestMem) -> Flow {
        const KTIME_GET_NS: u32 = 5;
        match call {
            Call::Helper(KTIME_GET_NS) => Flow::Done(0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_what_the_suite_gives() {
        // r0 = *(u8 *)(r1 + 1); r0 += r2; exit
        let program = "71 10 01 00 00 00 00 00 0f 20 00 00 00 00 00 00 95 00 00 00 00 00 00 00 \n";
        let slots = Insn::slots_from_le_bytes(&base16(program).unwrap()).unwrap();
        assert_eq!(execute(&slots, &base16("00 2a ").unwrap()), Ok(44));
        assert!(
            execute(&slots, &[]).is_ok(),
            "guest memory goes on behind the buffer"
        );
        // r2 = 5; callx r2 (the clock); r0 = 2; exit
        let indirect = "b7 02 00 00 05 00 00 00 8d 02 00 00 00 00 00 00 b7 00 00 00 02 00 00 00 95 00 00 00 00 00 00 00";
        let slots = Insn::slots_from_le_bytes(&base16(indirect).unwrap()).unwrap();
        assert_eq!(execute(&slots, &[]), Ok(2));
        assert_eq!(base16("1 zz"), Err("no byte: \"zz\"".to_string()));
        let wild = "79 00 00 00 00 00 00 00 95 00 00 00 00 00 00 00";
        let slots = Insn::slots_from_le_bytes(&base16(wild).unwrap()).unwrap();
        let error = execute(&slots, &[]).unwrap_err();
        assert_eq!(
            error,
            "insn 0: read of 8 bytes at 0x0, where there is no memory"
        );
    }
}
