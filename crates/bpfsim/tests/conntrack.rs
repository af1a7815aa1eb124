//! Connections that netfilter tracks, as programs find, make and change them. What Linux answers to
//! options that are wrong, and where there is none, is in fixtures/conntrack.linux.json; what becomes
//! of those that are made are our own expectations.

use bpfsim::{
    Connection, Ebpf, Errno, Error, ProgramInput, Result, Sim, check_random, ensure_eq, millis,
};
use std::time::Duration;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/conntrack.bpf.o");
const SEEN_REPLY: u32 = 2;
const ASSURED: u32 = 4;
const CONFIRMED: u32 = 8;
const SRC_NAT: u32 = 16;
const SRC_NAT_DONE: u32 = 128;

fn said(bpf: &mut Ebpf) -> Result<Vec<i64>> {
    let n: u32 = bpf.global("n")?;
    let out: [u64; 80] = bpf.global("out")?;
    bpf.set_global("n", &0u32)?;
    Ok(out[..n as usize].iter().map(|&w| w as i32 as i64).collect())
}

fn run(bpf: &mut Ebpf, program: &str) -> Result<u32> {
    let input = ProgramInput::packet(&[0; 64]);
    Ok(bpf.program_mut(program)?.test_run(input)?.return_value)
}

#[test]
fn one_is_made_and_found_both_ways() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    ensure_eq!(run(&mut bpf, "makes")?, 0);
    let status = SEEN_REPLY | CONFIRMED | SRC_NAT | SRC_NAT_DONE;
    let busy = -i64::from(Errno::EBUSY.0);
    let (einval, enomem) = (-22, -12);
    let answers = [busy, 0, einval, 0, enomem, status.into(), 0, busy, 0];
    ensure_eq!(said(&mut bpf)?, answers);
    let [conn] = &sim.tracked()[..] else {
        panic!("{:?}", sim.tracked());
    };
    ensure_eq!(conn.source, "192.0.2.1:4660".parse().unwrap());
    ensure_eq!(conn.reply_dest, "192.0.2.9:5000".parse().unwrap());
    ensure_eq!(conn.reply_source, conn.dest);
    ensure_eq!((conn.mark, conn.status), (42, status | ASSURED));
    ensure_eq!(conn.timeout.as_millis().div_ceil(1000), 60);
    // As its packets are; the same again is not taken.
    ensure_eq!(run(&mut bpf, "finds")?, 0);
    ensure_eq!(said(&mut bpf)?, [0, 1, 42, 0]);
    // The other way, addresses are translated.
    let reply = [192, 0, 2, 2, 192, 0, 2, 9, 0, 80, 0x13, 0x88];
    let mut tuple = [0u8; 36];
    tuple[..12].copy_from_slice(&reply);
    bpf.set_global("tuple", &tuple)?;
    ensure_eq!(run(&mut bpf, "finds")?, 0);
    ensure_eq!(said(&mut bpf)?, [1, 1, 42, 0]);
    // Until it has run out.
    sim.run_for(Duration::from_secs(61))?;
    ensure_eq!(sim.tracked().len(), 0);
    ensure_eq!(run(&mut bpf, "passes_known")?, 1);
    sim.finish()
}

#[test]
fn tests_track_connections() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let (from, to) = (
        "192.0.2.1:4660".parse().unwrap(),
        "192.0.2.2:80".parse().unwrap(),
    );
    let conn = Connection {
        timeout: millis(500),
        mark: 7,
        ..Connection::new(6, from, to)
    };
    sim.track(&conn)?;
    let errno = |tracked: Result<()>| match tracked {
        Err(Error::World { errno, .. }) => Some(errno),
        _ => None,
    };
    ensure_eq!(errno(sim.track(&conn)), Some(Errno::EEXIST));
    let icmp = Connection::new(1, from, to);
    ensure_eq!(errno(sim.track(&icmp)), Some(Errno::EINVAL));
    ensure_eq!(run(&mut bpf, "passes_known")?, 2);
    ensure_eq!(
        (sim.tracked()[0].mark, sim.tracked()[0].status),
        (8, CONFIRMED)
    );
    sim.run_for(millis(600))?;
    ensure_eq!(run(&mut bpf, "passes_known")?, 1);
    sim.track(&conn)?;
    sim.finish()
}

/// Two programs on two CPUs make the same connection: one of them is told that it is there.
#[test]
fn one_of_two_makes_it() -> bpfsim::TestResult {
    let test = |sim: &Sim| {
        let bpf = Ebpf::load(sim, OBJECT)?;
        let input = ProgramInput::packet(&[0; 64]);
        for cpu in [0, 1] {
            sim.spawn_on(bpfsim::Cpu(cpu), bpf.program("makes")?, input.clone())?;
        }
        sim.run_until_idle()?;
        ensure_eq!(sim.tracked().len(), 1);
        sim.finish()
    };
    check_random(test, 50)
}
