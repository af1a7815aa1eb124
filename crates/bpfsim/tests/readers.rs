//! Buffers that user space reads, with what is lost; its own memory; maps that are shared and gone.

use bpfsim::{
    Arg, Ebpf, EbpfLoader, Error, LoadError, PerfBuffer, PerfEvent, ProgramInput, Protection,
    Result, RingBuf, Sim, UserRingBuf, ensure, ensure_eq, millis,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/readers.bpf.o");
const MAPS: &[u8] = include_bytes!("../../../fixtures/matrix/clang-22-v3/maps.bpf.o");

#[derive(FromBytes, IntoBytes, Immutable, Clone, Debug, PartialEq)]
#[repr(C)]
struct Sample {
    number: u64,
    rest: [u8; 1016],
}

fn loaded(sim: &Sim, program: &str) -> Result<Ebpf> {
    EbpfLoader::new().only(program).load(sim, OBJECT)
}

fn run(bpf: &mut Ebpf, program: &str, count: u32) -> Result<i64> {
    bpf.set_global("count", &count)?;
    let input = ProgramInput::packet(&[0; 64]);
    bpf.program_mut(program)?.test_run(input)?;
    answer(bpf, 0)
}

fn answer(bpf: &Ebpf, at: usize) -> Result<i64> {
    Ok(bpf.global::<[i64; 8]>("answers")?[at])
}

#[test]
fn a_perf_ring_says_what_it_lost() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "emit")?;
    ensure_eq!(run(&mut bpf, "emit", 1)?, -2); // no event was opened
    let events = PerfBuffer::<Sample>::open(bpf.map("events")?)?;
    ensure_eq!(run(&mut bpf, "emit", 1)?, 0);
    ensure!(matches!(events.next(0)?, Some(PerfEvent::Sample(s)) if s.number == 2));
    // Each takes 1,040 bytes of 64 pages.
    ensure_eq!(run(&mut bpf, "emit", 255)?, -28);
    ensure!(matches!(events.next(0)?, Some(PerfEvent::Sample(s)) if s.number == 3));
    ensure_eq!(run(&mut bpf, "emit", 1)?, 0);
    let all = events.records(0)?;
    let lost: Vec<_> = all
        .iter()
        .enumerate()
        .filter_map(|(i, e)| match e {
            PerfEvent::Lost(n) => Some((i, *n)),
            PerfEvent::Sample(_) => None,
        })
        .collect();
    ensure_eq!(lost, [(251, 3)]);
    ensure!(matches!(&all[252], PerfEvent::Sample(s) if s.number == 258));
    ensure_eq!(events.next(1)?, None);
    ensure!(PerfBuffer::<u64>::open(bpf.map("ring")?).is_err());
    Ok(())
}

#[test]
fn a_ring_buffer_is_full_and_wakes_who_polls() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "fill")?;
    let ring: RingBuf<Sample> = bpf.map("ring")?.try_into()?;
    ensure_eq!(run(&mut bpf, "fill", 3)?, 0);
    ensure_eq!(
        (ring.unread()?, ring.dropped()?, ring.wakeups()?),
        (3 * 1032, 0, 1)
    );
    ensure_eq!(run(&mut bpf, "fill", 2)?, -11);
    ensure_eq!(ring.dropped()?, 2);
    ensure_eq!(ring.next()?.map(|s| s.number), Some(1));
    ensure_eq!(run(&mut bpf, "fill", 1)?, 0);
    let numbers: Vec<_> = ring.records()?.iter().map(|s| s.number).collect();
    ensure_eq!(numbers, [2, 3, 6]);
    ensure_eq!(run(&mut bpf, "fill", 1)?, 0);
    ensure_eq!(ring.wakeups()?, 2);
    let wide: RingBuf<[u8; 2000]> = bpf.map("ring")?.try_into()?;
    ensure!(matches!(wide.next(), Err(Error::Size { got: 2000, .. })));
    Ok(())
}

#[test]
fn a_program_drains_what_user_space_submits() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "drain")?;
    let orders: UserRingBuf<u64> = bpf.map("orders")?.try_into()?;
    for n in 1..=256 {
        orders.submit(&n)?;
    }
    ensure_eq!(orders.undrained()?, 4096);
    let full = orders.submit(&1);
    ensure!(matches!(
        full,
        Err(Error::Map {
            errno: bpfsim::Errno::ENOSPC,
            ..
        })
    ));
    ensure_eq!(run(&mut bpf, "drain", 0)?, 256);
    ensure_eq!(bpf.global::<u64>("sum")?, 256 * 257 / 2);
    orders.submit(&1)?;
    ensure_eq!(orders.undrained()?, 16);
    Ok(())
}

const EFAULT: i64 = -14;

/// What reading and writing a task's memory answers where sleeping is not allowed.
fn touch(bpf: &mut Ebpf, at: u64) -> Result<[i64; 3]> {
    bpf.set_global("user_addr", &at)?;
    bpf.program_mut("touch")?
        .test_run(ProgramInput::call(&[]))?;
    let [read, text, write, ..] = bpf.global::<[i64; 8]>("answers")?;
    Ok([read, text, write])
}

#[test]
fn pages_of_a_task_can_be_gone_absent_or_read_only() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "touch")?;
    let task = sim.main_task();
    ensure_eq!(touch(&mut bpf, 0x5000)?, [EFAULT; 3]);
    sim.write_user(task, 0x5000, b"hello\0world");
    ensure_eq!(touch(&mut bpf, 0x5000)?, [0, 6, 0]);
    ensure_eq!(task.read_memory(&sim, 0x5000, 6), Some(b"abcdo\0".to_vec()));
    task.protect(&sim, 0x5000, 1, Protection::Read).unwrap();
    ensure_eq!(touch(&mut bpf, 0x5000)?, [0, 6, EFAULT]);
    task.protect(&sim, 0x5000, 1, Protection::None).unwrap();
    ensure_eq!(touch(&mut bpf, 0x5000)?, [EFAULT; 3]);
    task.protect(&sim, 0x5000, 1, Protection::ReadWrite)
        .unwrap();
    // Two bytes before a page that is not there.
    sim.write_user(task, 0x5ffe, b"xy");
    ensure_eq!(touch(&mut bpf, 0x5ffe)?, [EFAULT; 3]);
    ensure_eq!(task.read_memory(&sim, 0x5ffe, 2), Some(b"ab".to_vec()));
    task.page_out(&sim, 0x5000, millis(1));
    ensure_eq!(touch(&mut bpf, 0x5000)?, [EFAULT; 3]);
    Ok(())
}

#[test]
fn who_may_sleep_waits_for_pages() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "fetch")?;
    let task = sim.main_task();
    sim.write_user(task, 0x5ffa, b"hello world\0---------");
    task.page_out(&sim, 0x5000, millis(1));
    task.page_out(&sim, 0x6000, millis(2));
    bpf.set_global("user_addr", &0x5ffau64)?;
    let before = sim.now();
    bpf.program_mut("fetch")?.test_run(ProgramInput::empty())?;
    ensure_eq!((answer(&bpf, 0)?, answer(&bpf, 1)?), (0, 12));
    ensure!(sim.now() - before >= millis(3));
    // The string alone, across both pages.
    task.page_out(&sim, 0x6000, millis(2));
    task.unmap(&sim, 0x7000, 1);
    bpf.set_global("user_addr", &0x5ffau64)?;
    bpf.program_mut("fetch")?.test_run(ProgramInput::empty())?;
    ensure_eq!(answer(&bpf, 1)?, 12);
    task.unmap(&sim, 0x6000, 1);
    bpf.program_mut("fetch")?.test_run(ProgramInput::empty())?;
    ensure_eq!((answer(&bpf, 0)?, answer(&bpf, 1)?), (EFAULT, EFAULT));
    Ok(())
}

#[test]
fn a_map_that_is_gone_gives_its_kptrs_back() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "hold")?;
    let task = sim.main_task();
    let input = || ProgramInput::args([Arg::Value(0)]);
    bpf.program_mut("hold")?.test_run(input())?;
    bpf.program_mut("hold")?.test_run(input())?;
    ensure_eq!(task.references(&sim), 1);
    let held = bpf.map("held")?;
    held.close()?;
    ensure_eq!((held.exists(), task.references(&sim)), (true, 1));
    bpf.program_mut("hold")?.close()?;
    ensure_eq!((held.exists(), task.references(&sim)), (false, 0));
    Ok(())
}

#[test]
fn objects_share_what_is_pinned_by_name() -> Result<()> {
    let sim = Sim::new()?;
    let first = Ebpf::load(&sim, MAPS)?;
    let second = Ebpf::load(&sim, MAPS)?;
    let (a, b) = (first.map("pinned")?, second.map("pinned")?);
    ensure_eq!(a.id(), b.id());
    ensure!(first.map("ring")?.id() != second.map("ring")?.id());
    // Each has a descriptor of its own.
    a.close()?;
    ensure!(a.close().is_err());
    b.close()?;
    ensure!(sim.pinned("pinned")?.exists());
    let other = loaded(&sim, "emit");
    let Err(Error::Load(LoadError::Pinned { map, path, what })) = other else {
        panic!("another map was taken for it");
    };
    ensure_eq!(
        (map.as_str(), path.as_str()),
        ("pinned", "/sys/fs/bpf/pinned")
    );
    ensure_eq!(what, "max_entries 101, not 100");
    sim.unpin("pinned")?;
    ensure!(sim.unpin("pinned").is_err());
    loaded(&sim, "emit")?;
    ensure_eq!(sim.pinned("pinned")?.spec().max_entries, 101);
    Ok(())
}
