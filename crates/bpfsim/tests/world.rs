//! What programs find around them is what the test has made.

use bpfsim::{Ebpf, Error, ProgramInput, Redirect, RedirectKind, Result, Sim, ensure, ensure_eq};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/world.bpf.o");

fn seen(bpf: &Ebpf) -> Result<[u64; 8]> {
    bpf.global("seen")
}

/// Addresses and ports as a packet has them.
fn flow(source: ([u8; 4], u16), dest: ([u8; 4], u16)) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&source.0);
    bytes[4..8].copy_from_slice(&dest.0);
    bytes[8..10].copy_from_slice(&source.1.to_be_bytes());
    bytes[10..].copy_from_slice(&dest.1.to_be_bytes());
    bytes
}

#[test]
fn a_task_has_its_user_and_its_cgroups() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let system = sim.cgroup(sim.root_cgroup(), "system")?;
    let web = sim.cgroup(system, "web")?;
    sim.main_task().move_to(&sim, web).unwrap();
    bpf.program_mut("who")?.test_run(ProgramInput::empty())?;
    let root = sim.root_cgroup().id(&sim);
    let [uid_gid, own, level0, level1, level7, ..] = seen(&bpf)?;
    ensure_eq!((uid_gid, own), (0, web.id(&sim)));
    ensure_eq!((level0, level1, level7), (root, system.id(&sim), 0));
    let twice = sim.cgroup(system, "web");
    ensure!(matches!(twice, Err(Error::World { .. })));
    Ok(())
}

#[test]
fn lookups_find_connections_before_listeners_and_nothing_closed() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let (here, there) = (([10, 0, 0, 1], 80), ([10, 0, 0, 9], 4000));
    let mut find = |want: u32| -> Result<[u64; 8]> {
        bpf.set_global("flow", &flow(there, here))?;
        let out = bpf
            .program_mut("find")?
            .test_run(ProgramInput::packet(&[0; 64]))?;
        ensure_eq!(out.return_value, want);
        seen(&bpf)
    };
    find(2)?;
    let any = sim.tcp_listener("0.0.0.0:80".parse().unwrap())?;
    let [state, port, address, ..] = find(0)?;
    ensure_eq!((state, port, address), (10, 80, 0));
    let stream = sim.tcp_stream(
        "10.0.0.1:80".parse().unwrap(),
        "10.0.0.9:4000".parse().unwrap(),
    )?;
    let [state, _, address, remote, ..] = find(0)?;
    ensure_eq!((state, address), (1, u64::from(u32::from_le_bytes(here.0))));
    ensure_eq!(remote, u64::from(4000u16.to_be()));
    stream.close(&sim);
    ensure_eq!(find(0)?[0], 10);
    any.close(&sim);
    find(2)?;
    Ok(())
}

#[test]
fn what_is_sent_is_in_the_output() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let eth0 = sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?.ifindex();
    bpf.set_global("out_ifindex", &eth0)?;
    let packet = [7; 60];
    let out = bpf
        .program_mut("send")?
        .test_run(ProgramInput::packet(&packet))?;
    let sent = |how| Redirect {
        how,
        to: eth0,
        flags: 0,
        data: packet.to_vec(),
    };
    ensure_eq!(
        out.redirects,
        [sent(RedirectKind::Clone), sent(RedirectKind::Redirect)]
    );
    bpf.set_global("out_ifindex", &77u32)?;
    let out = bpf
        .program_mut("send")?
        .test_run(ProgramInput::packet(&packet))?;
    ensure_eq!(seen(&bpf)?[0], -22i64 as u64);
    ensure_eq!(out.redirects.len(), 1);
    Ok(())
}
