//! Sockets in maps and their options; what user space names by descriptors.

use bpfsim::{
    Ebpf, EbpfLoader, Errno, Error, Map, ProgramInput, Redirect, RedirectKind, Result, Sim, Sock,
    SockSpec, SockState, ensure, ensure_eq,
};
use std::net::SocketAddr;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/sockets.bpf.o");

fn loaded(sim: &Sim, program: &str) -> Result<Ebpf> {
    EbpfLoader::new().only(program).load(sim, OBJECT)
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn stream(sim: &Sim) -> Result<Sock> {
    sim.tcp_stream(at("10.0.0.1:80"), at("10.0.0.9:4000"))
}

fn answers(bpf: &Ebpf) -> Result<[i64; 8]> {
    bpf.global("answers")
}

/// The errno of an update with a descriptor.
fn put(map: &Map, key: u32, fd: u32) -> Result<(), Errno> {
    let value = u64::from(fd).to_le_bytes();
    let len = map.spec().value_size as usize;
    match map.update(&key.to_le_bytes(), &value[..len], 0) {
        Err(Error::Map { errno, .. }) => Err(errno),
        other => {
            other.unwrap();
            Ok(())
        }
    }
}

#[test]
fn data_goes_to_sockets_of_maps() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "verdict")?;
    let socks = bpf.map("socks")?;
    let (there, listens) = (stream(&sim)?, sim.tcp_listener(at("10.0.0.1:80"))?);
    let connecting = SockSpec::new(6, at("10.0.0.1:1"), SockState::SynSent);
    let connecting = sim.sock(connecting)?;
    let cgroup = sim.root_cgroup().fd(&sim);
    ensure_eq!(put(&socks, 1, there.fd(&sim)), Ok(()));
    ensure_eq!(put(&socks, 2, listens.fd(&sim)), Ok(()));
    ensure_eq!(put(&socks, 3, connecting.fd(&sim)), Err(Errno::EOPNOTSUPP));
    ensure_eq!(put(&socks, 3, cgroup), Err(Errno::ENOTSOCK));
    ensure_eq!(put(&socks, 3, 77), Err(Errno::EBADF));
    // User space sees cookies.
    ensure_eq!(socks.get::<u32, u64>(&1)?, Some(there.cookie(&sim)));
    let mut verdict = |index: u32| -> Result<(u32, Vec<Redirect>)> {
        bpf.set_global("slot", &index)?;
        let input = ProgramInput::packet(&[7; 64]);
        let out = bpf.program_mut("verdict")?.test_run(input)?;
        Ok((out.return_value, out.redirects))
    };
    let sent = Redirect {
        how: RedirectKind::Sock(there.id()),
        to: 0,
        flags: 0,
        data: vec![7; 64],
    };
    ensure_eq!(verdict(1)?, (1, vec![sent]));
    ensure_eq!(verdict(2)?, (0, vec![]));
    ensure_eq!(verdict(3)?, (0, vec![]));
    // One that is closed leaves the map.
    there.close(&sim);
    ensure_eq!(verdict(1)?, (0, vec![]));
    ensure_eq!(socks.get::<u32, u64>(&1)?, None);
    ensure_eq!(put(&socks, 1, there.fd(&sim)), Err(Errno::EBADF));
    Ok(())
}

#[test]
fn messages_go_to_sockets_by_key() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "message")?;
    let by_key = bpf.map("by_key")?;
    let there = stream(&sim)?;
    by_key.set(&5u64, &u64::from(there.fd(&sim)))?;
    by_key.set(&6u64, &u64::from(there.fd(&sim)))?;
    let mut message = |index: u32| -> Result<usize> {
        bpf.set_global("slot", &index)?;
        let input = ProgramInput::packet(&[1; 10]);
        let out = bpf.program_mut("message")?.test_run(input)?;
        ensure_eq!(out.return_value as usize, out.redirects.len());
        Ok(out.redirects.len())
    };
    ensure_eq!((message(5)?, message(4)?), (1, 0));
    there.close(&sim);
    ensure_eq!((message(5)?, by_key.len()), (0, 0));
    Ok(())
}

#[test]
fn a_group_of_sockets_shares_an_address() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "select")?;
    let group = bpf.map("group")?;
    let udp = |local: &str, shares: bool| -> Result<Sock> {
        let mut spec = SockSpec::new(17, at(local), SockState::Close);
        spec.reuseport = shares;
        sim.sock(spec)
    };
    let (a, b) = (udp("10.0.0.1:53", true)?, udp("10.0.0.1:53", true)?);
    let (other, alone) = (udp("10.0.0.1:54", true)?, udp("10.0.0.1:55", false)?);
    ensure_eq!(put(&group, 0, b.fd(&sim)), Ok(()));
    ensure_eq!(put(&group, 1, other.fd(&sim)), Ok(()));
    ensure_eq!(put(&group, 2, alone.fd(&sim)), Err(Errno::EINVAL));
    let mut select = |index: u32| -> Result<(i64, Vec<RedirectKind>)> {
        bpf.set_global("slot", &index)?;
        let input = ProgramInput::packet(&[0; 8]).with_sock(a.id());
        let out = bpf.program_mut("select")?.test_run(input)?;
        let to = out.redirects.iter().map(|r| r.how).collect();
        Ok((answers(&bpf)?[0], to))
    };
    ensure_eq!(select(0)?, (0, vec![RedirectKind::Sock(b.id())]));
    ensure_eq!(select(1)?, (-77, vec![]));
    ensure_eq!(select(3)?, (-2, vec![]));
    Ok(())
}

#[test]
fn a_program_sets_options_and_puts_its_socket_into_a_map() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "operation")?;
    let sock = stream(&sim)?;
    let mut operation = |op: u32, opt: (i32, i32), number: i32, text: &[u8; 16]| -> Result<_> {
        bpf.set_global("level", &opt.0)?;
        bpf.set_global("name", &opt.1)?;
        bpf.set_global("number", &number)?;
        bpf.set_global("text", text)?;
        let mut ctx = [0; 24];
        ctx[..4].copy_from_slice(&op.to_le_bytes());
        let input = ProgramInput::context(&ctx).with_sock(sock.id());
        bpf.program_mut("operation")?.test_run(input)?;
        let got: i32 = bpf.global("number")?;
        let text = bpf.global::<[u8; 16]>("text")?;
        Ok((answers(&bpf)?, got, text))
    };
    let (cubic, vegas) = (*b"reno\0-----------", *b"vegas\0----------");
    let reno = *b"reno\0\0\0\0\0\0\0\0\0\0\0\0";
    // SO_MARK, while the connection is being established.
    let (got, mark, name) = operation(4, (1, 36), 9, &cubic)?;
    ensure_eq!(got[..6], [0, 0x80, 0, 0, 0, 0]);
    ensure_eq!((mark, name), (9, reno));
    // It is in the map already; no such congestion control; TCP_KEEPCNT has limits.
    let (got, _, name) = operation(4, (6, 6), 128, &vegas)?;
    ensure_eq!(got[..6], [-17, 0x80, -22, 0, -2, 0]);
    ensure_eq!(name, reno);
    // SO_SNDBUF is doubled; another operation has no socket for a map.
    let (got, size, _) = operation(1, (1, 7), 30_000, &cubic)?;
    ensure_eq!((got[0], got[2], size), (-95, 0, 60_000));
    // IPV6_TCLASS of an IPv4 socket; what was not read is zero.
    let (got, number, _) = operation(1, (41, 67), 5, &cubic)?;
    ensure_eq!((got[2], got[3], number), (-22, -22, 0));
    ensure_eq!(
        bpf.map("socks")?.get::<u32, u64>(&0)?,
        Some(sock.cookie(&sim))
    );
    Ok(())
}

#[test]
fn a_socket_is_bound_before_it_connects() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "connecting")?;
    sim.udp_socket(at("127.0.0.2:99"))?;
    let mut connecting = |ip: [u8; 4], port: u16| -> Result<[i64; 2]> {
        let sock = sim.sock(SockSpec::new(17, at("0.0.0.0:0"), SockState::Close))?;
        let mut address = [0u8; 28];
        address[0] = 2;
        address[2..4].copy_from_slice(&port.to_be_bytes());
        address[4..8].copy_from_slice(&ip);
        bpf.set_global("address", &address)?;
        let input = ProgramInput::context(&[0; 8]).with_sock(sock.id());
        bpf.program_mut("connecting")?.test_run(input)?;
        let [a, b, ..] = answers(&bpf)?;
        Ok([a, b])
    };
    ensure_eq!(connecting([127, 0, 0, 1], 99)?, [0, -22]);
    ensure_eq!(connecting([127, 0, 0, 2], 99)?, [-98, -22]);
    ensure_eq!(connecting([192, 0, 2, 1], 99)?, [-99, -22]);
    Ok(())
}

#[test]
fn user_space_names_owners_by_descriptors() -> Result<()> {
    let sim = Sim::new()?;
    let bpf = loaded(&sim, "storages")?;
    let sock = stream(&sim)?;
    let file = sim.file("/etc/hosts")?;
    let cgroup = sim.cgroup(sim.root_cgroup(), "web")?;
    for (map, fd, wrong) in [
        ("of_socks", sock.fd(&sim), Errno::ENOTSOCK),
        ("of_inodes", file.fd(&sim), Errno::EBADF),
        ("of_cgroups", cgroup.fd(&sim), Errno::EBADF),
    ] {
        let map = bpf.map(map)?;
        ensure_eq!(map.get::<u32, u64>(&fd)?, None);
        map.set(&fd, &77u64)?;
        ensure_eq!(map.get::<u32, u64>(&fd)?, Some(77));
        let other = if fd == file.fd(&sim) {
            cgroup.fd(&sim)
        } else {
            file.fd(&sim)
        };
        let refused = map.set(&other, &1u64);
        ensure!(matches!(refused, Err(Error::Map { errno, .. }) if errno == wrong));
    }
    sock.close(&sim);
    ensure!(
        bpf.map("of_socks")?
            .get::<u32, u64>(&sock.fd(&sim))
            .is_err()
    );
    Ok(())
}

#[test]
fn programs_find_sockets_and_cgroups_in_maps() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "look")?;
    let (web, db) = (
        sim.cgroup(sim.root_cgroup(), "web")?,
        sim.cgroup(sim.root_cgroup(), "db")?,
    );
    sim.main_task().move_to(&sim, web).unwrap();
    let cgroups = bpf.map("cgroups")?;
    ensure_eq!(put(&cgroups, 0, web.fd(&sim)), Ok(()));
    ensure_eq!(put(&cgroups, 1, db.fd(&sim)), Ok(()));
    let mut spec = SockSpec::new(17, at("10.0.0.1:53"), SockState::Close);
    spec.mark = 5;
    let sock = sim.sock(spec)?;
    ensure_eq!(put(&bpf.map("socks")?, 2, sock.fd(&sim)), Ok(()));
    bpf.set_global("slot", &2u32)?;
    let input = ProgramInput::packet(&[0; 64]);
    let out = bpf.program_mut("look")?.test_run(input)?;
    let [in_web, in_db, mark, ..] = answers(&bpf)?;
    ensure_eq!((out.return_value, in_web, in_db, mark), (0, 1, 0, 5));
    Ok(())
}

#[test]
fn a_program_watches_over_parameters() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = loaded(&sim, "parameter")?;
    let mut run = |input: ProgramInput| -> Result<([i64; 7], [u8; 16], Vec<u8>)> {
        let out = bpf.program_mut("parameter")?.test_run(input)?;
        ensure_eq!((out.return_value, out.retval), (1, 0));
        let answers = answers(&bpf)?;
        let mut first = [0; 7];
        first.copy_from_slice(&answers[..7]);
        Ok((first, bpf.global("text")?, out.data_out))
    };
    let (name, current) = ("net/core/somaxconn", b"128\n");
    let (got, text, new) = run(ProgramInput::sysctl(name, current, None))?;
    // The base name is cut; nothing is written; two bytes of the value and a NUL.
    ensure_eq!(got, [18, -7, 4, -22, -7, 0, -22]);
    ensure_eq!((&text, new), (b"somaxco\x00128\n\0\0\0\0", vec![]));
    let (got, _, new) = run(ProgramInput::sysctl(name, current, Some(b"64\n")))?;
    ensure_eq!(got, [18, -7, 4, 3, -7, 0, 0]);
    ensure_eq!(new, b"4096");
    Ok(())
}

/// Linux's answers with a listener whose queue was never full; a test run has none to be asked about.
#[test]
fn a_listener_that_has_room_needs_no_cookies() -> Result<()> {
    const OBJECT: &[u8] = include_bytes!("../../../fixtures/tunnels.bpf.o");
    const EINVAL: i64 = -22;
    const ENOENT: i64 = -2;
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let mut ask = || -> Result<Vec<i64>> {
        let mut flow = [0; 12];
        flow[..4].copy_from_slice(&[10, 0, 0, 9]);
        flow[4..8].copy_from_slice(&[10, 0, 0, 1]);
        flow[8..10].copy_from_slice(&4000u16.to_be_bytes());
        flow[10..].copy_from_slice(&80u16.to_be_bytes());
        bpf.set_global_bytes("flow", &flow)?;
        bpf.set_global("n", &0u32)?;
        let input = ProgramInput::packet(&[0; 64]);
        bpf.program_mut("of_listener")?.test_run(input)?;
        let out = bpf.global_bytes("out")?;
        let words = out.chunks(8).take(4);
        Ok(words
            .map(|w| i64::from_le_bytes(w.try_into().unwrap()))
            .collect())
    };
    let listener = sim.tcp_listener("0.0.0.0:80".parse().unwrap())?;
    ensure_eq!(ask()?, [ENOENT, ENOENT, EINVAL, ENOENT]);
    listener.close(&sim);
    sim.tcp_stream(
        "10.0.0.1:80".parse().unwrap(),
        "10.0.0.9:4000".parse().unwrap(),
    )?;
    ensure_eq!(ask()?, [EINVAL; 4]);
    Ok(())
}

/// What programs find in TCP headers, and put there: our own expectations.
#[test]
fn options_of_headers() -> Result<()> {
    const OBJECT: &[u8] = include_bytes!("../../../fixtures/hdr_opts.bpf.o");
    const MSS: [u8; 4] = [2, 4, 5, 180];
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let sock = sim.sock(SockSpec::new(
        6,
        "10.0.0.1:80".parse().unwrap(),
        SockState::Established,
    ))?;
    let mut run = |op: u32, options: &[u8]| -> Result<(Vec<i64>, Vec<u8>)> {
        let mut data = vec![0; 20];
        data.extend(options);
        let input = ProgramInput {
            ctx: op.to_le_bytes().to_vec(),
            data,
            sock: Some(sock.id()),
            ..ProgramInput::default()
        };
        let left = bpf.program_mut("options")?.test_run(input)?.data_out;
        let n: u32 = bpf.global("n")?;
        let out: [u64; 32] = bpf.global("out")?;
        bpf.set_global("n", &0u32)?;
        let said = out[..n as usize].iter().map(|&w| w as i64).collect();
        Ok((said, left))
    };
    let came = [&MSS[..], &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
    let (said, _) = run(13, &came)?;
    ensure_eq!(said, [10, -28, 4, -42, -42, -22, -22, -22, -22, -2, -1, -1]);
    // Options that are none.
    let (said, _) = run(13, &[34, 1])?;
    ensure_eq!(said[..3], [-14, -14, -14]);
    // Ten bytes are asked for, of which there is room: twelve are there then.
    let (said, _) = run(14, &MSS)?;
    ensure_eq!(said, [-22, 0, -22, -28, 0, -1]);
    let (said, left) = run(15, &MSS)?;
    ensure_eq!(said, [-22, -22, -22, -17, 0, -17, -28, 0, 6]);
    let written = [254, 6, 0xeb, 0x9f, 1, 2, 30, 6, 0xeb, 0x9f, 1, 2];
    ensure_eq!(left[20..], [&MSS[..], &written].concat()[..]);
    // Nothing was asked for.
    let (said, left) = run(15, &MSS)?;
    ensure_eq!((said[4], left.len()), (-28, 24));
    sim.finish()
}
