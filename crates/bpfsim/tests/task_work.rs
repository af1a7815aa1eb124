//! Task work that reads the memory of the task it runs in.

use bpfsim::{Ebpf, ProgramInput, Sim, check, check_random, ensure_eq};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/task_reads.bpf.o");
const EFAULT: i64 = -14;

#[derive(Debug, PartialEq, zerocopy::FromBytes)]
#[repr(C)]
struct Sample {
    length: i64,
    text: [u8; 24],
    read: u64,
}

/// What `read_text` found at `at`, where the task has `memory` at 0x7000.
fn sample(sim: &Sim, memory: &[u8], at: u64, flags: u64) -> bpfsim::Result<Sample> {
    let mut bpf = Ebpf::load(sim, OBJECT)?;
    sim.write_user(sim.main_task(), 0x7000, memory);
    bpf.set_global("user_text", &at)?;
    bpf.set_global("flags", &flags)?;
    let out = bpf
        .program_mut("on_sample")?
        .test_run(ProgramInput::empty())?;
    ensure_eq!(out.return_value, 0);
    Ok(bpf
        .map("samples")?
        .get(&1u32)?
        .expect("the program made it"))
}

fn reads_user_memory(sim: &Sim) -> bpfsim::Result<()> {
    let text = *b"user text\0--------------";
    ensure_eq!(
        sample(sim, b"user text\0more", 0x7000, 0)?,
        Sample {
            length: 10,
            text,
            read: 0
        }
    );
    Ok(())
}

#[test]
fn in_any_order() -> bpfsim::TestResult {
    check(reads_user_memory)?;
    check_random(reads_user_memory, 20)
}

#[test]
fn the_rest_is_as_asked() -> bpfsim::TestResult {
    check(|sim| {
        let text = *b"user text\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        ensure_eq!(
            sample(sim, b"user text\0more", 0x7000, 1)?,
            Sample {
                length: 10,
                text,
                read: 0
            }
        );
        Ok(())
    })?;
    check(|sim| {
        let text = *b"xxxxxxxxxxxxxxxxxxxxxxx\0";
        ensure_eq!(
            sample(sim, &[b'x'; 64], 0x7000, 0)?,
            Sample {
                length: 24,
                text,
                read: 0
            }
        );
        Ok(())
    })?;
    check(|sim| {
        ensure_eq!(sample(sim, b"x", 0, 0)?.length, EFAULT);
        Ok(())
    })
}
