//! Files, cgroups, registers and routes are what the test has made.

use bpfsim::{
    Arg, Cgroup, Ebpf, EbpfLoader, ProgramInput, Result, Route, RouteKind, Sim, ensure_eq,
};
use std::net::IpAddr;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/surroundings.bpf.o");

fn errno(errno: bpfsim::Errno) -> i64 {
    -i64::from(errno.0)
}

fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap()
}

#[test]
fn a_program_reads_a_files_path_and_attributes() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = EbpfLoader::new().only("opened").load(&sim, OBJECT)?;
    let file = sim.file("/etc/passwd")?;
    file.set_xattr(&sim, "user.role", b"users").unwrap();
    file.set_xattr(&sim, "security.ima", b"x").unwrap();
    let input = ProgramInput::args([file.arg()]);
    ensure_eq!(bpf.program_mut("opened")?.test_run(input)?.return_value, 0);
    ensure_eq!(text(&bpf.global_bytes("text")?), "/etc/passwd");
    ensure_eq!(text(&bpf.global_bytes("value")?), "users");
    use bpfsim::Errno;
    let want = [
        12,
        errno(Errno::ENAMETOOLONG),
        5,
        errno(Errno::EPERM),
        errno(Errno::ERANGE),
        0,
        0,
        0,
    ];
    ensure_eq!(bpf.global::<[i64; 8]>("answers")?, want);
    Ok(())
}

#[test]
fn a_task_executes_a_file_and_has_registers() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = EbpfLoader::new().only("executes").load(&sim, OBJECT)?;
    let run = |bpf: &mut Ebpf| -> Result<i32> {
        let input = ProgramInput::args([Arg::Value(0)]);
        Ok(bpf.program_mut("executes")?.test_run(input)?.return_value as i32)
    };
    ensure_eq!(run(&mut bpf)?, -2);
    let main = sim.main_task();
    main.execute(&sim, sim.file("/usr/bin/curl")?).unwrap();
    main.set_registers(&sim, &[("di", 42)]).unwrap();
    assert!(main.set_registers(&sim, &[("rdi", 42)]).is_err());
    ensure_eq!(run(&mut bpf)?, 0);
    ensure_eq!(text(&bpf.global_bytes("text")?), "/usr/bin/curl");
    ensure_eq!(bpf.global::<[u64; 16]>("seen")?[0], 42);
    let kthread = sim.task("kthreadd").kthread()?;
    assert!(kthread.execute(&sim, sim.file("/x")?).is_err());
    Ok(())
}

/// What an iterator gave.
fn listed(bpf: &Ebpf) -> Result<Vec<u64>> {
    let seen = bpf.global::<[u64; 16]>("seen")?;
    Ok(seen.into_iter().take_while(|&id| id != 0).collect())
}

#[test]
fn cgroups_are_walked_in_every_order() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = EbpfLoader::new().only("below").load(&sim, OBJECT)?;
    let root = sim.root_cgroup();
    let a = sim.cgroup(root, "a")?;
    let b = sim.cgroup(root, "b")?;
    let (aa, ab) = (sim.cgroup(a, "a")?, sim.cgroup(a, "b")?);
    sim.cgroup(b, "gone")?.remove(&sim).unwrap();
    let mut walk = |from: Cgroup, order: u32| -> Result<(i64, Vec<u64>)> {
        bpf.set_global("seen", &[0u64; 16])?;
        bpf.set_global("cgroup_id", &from.id(&sim))?;
        bpf.set_global("order", &order)?;
        let out = bpf.program_mut("below")?.test_run(ProgramInput::empty())?;
        ensure_eq!(out.return_value, 0);
        Ok((bpf.global::<[i64; 8]>("answers")?[0], listed(&bpf)?))
    };
    let ids = |all: &[Cgroup]| (0, all.iter().map(|c| c.id(&sim)).collect::<Vec<_>>());
    ensure_eq!(walk(root, 2)?, ids(&[root, a, aa, ab, b]));
    ensure_eq!(walk(root, 3)?, ids(&[aa, ab, a, b, root]));
    ensure_eq!(walk(ab, 4)?, ids(&[ab, a, root]));
    ensure_eq!(walk(a, 3)?, ids(&[aa, ab, a]));
    ensure_eq!(walk(a, 5)?, (-22, vec![]));
    Ok(())
}

#[test]
fn the_tasks_of_a_cgroup_are_listed() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = EbpfLoader::new().only("members").load(&sim, OBJECT)?;
    let web = sim.cgroup(sim.root_cgroup(), "web")?;
    web.set_xattr(&sim, "user.role", b"web").unwrap();
    let leader = sim.task("nginx").cgroup(web).user()?;
    let pid = leader.pid(&sim);
    let thread = sim.task("nginx").tgid(pid).cgroup(web).user()?;
    let other = sim.task("sh").cgroup(web).sleeping()?;
    let dead = sim.task("gone").cgroup(web).user()?;
    dead.exit(&sim).unwrap();
    let mut tasks = |flags: u32| -> Result<(i64, Vec<u64>)> {
        bpf.set_global("seen", &[0u64; 16])?;
        bpf.set_global("cgroup_id", &web.id(&sim))?;
        bpf.set_global("order", &flags)?;
        let input = ProgramInput::args([Arg::Value(0)]);
        ensure_eq!(bpf.program_mut("members")?.test_run(input)?.return_value, 0);
        Ok((bpf.global::<[i64; 8]>("answers")?[0], listed(&bpf)?))
    };
    let pids = |all: &[bpfsim::Task]| all.iter().map(|t| t.pid(&sim) as u64).collect::<Vec<_>>();
    ensure_eq!(tasks(0)?, (0, pids(&[leader, thread, other])));
    ensure_eq!(tasks(1)?, (0, pids(&[leader, other])));
    ensure_eq!(tasks(2)?, (-22, vec![]));
    let [_, size, refused, ..] = bpf.global::<[i64; 8]>("answers")?;
    ensure_eq!((size, refused), (3, -1));
    Ok(())
}

/// What `bpf_fib_lookup` answers, and its parameters then.
fn look_up(bpf: &mut Ebpf, to: [u8; 4], len: u16, flags: u32) -> Result<(i64, [u8; 64])> {
    let mut params = [0u8; 64];
    params[0] = 2;
    params[6..8].copy_from_slice(&len.to_le_bytes());
    params[8] = 2;
    params[32..36].copy_from_slice(&to);
    bpf.set_global("params", &params)?;
    bpf.set_global("flags", &flags)?;
    let input = ProgramInput::packet(&[0; 64]);
    bpf.program_mut("route")?.test_run(input)?;
    let answer = bpf.global::<[i64; 8]>("answers")?[0];
    let bytes = bpf.global_bytes("params")?;
    Ok((answer, bytes.try_into().unwrap()))
}

#[test]
fn packets_are_routed_as_said() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = EbpfLoader::new().only("route").load(&sim, OBJECT)?;
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let eth0 = sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    let eth1 = sim.netdev("eth1", [2, 0, 0, 0, 0, 2])?;
    let far = [192, 0, 2, 7];
    // Nothing is forwarded.
    ensure_eq!(look_up(&mut bpf, far, 0, 0)?.0, 5);
    eth0.forwarding(&sim, true).unwrap();
    // There is no route.
    ensure_eq!(look_up(&mut bpf, far, 0, 0)?.0, 4);
    let mut default = Route::new(ip("0.0.0.0"), 0, eth1.ifindex());
    default.via = Some(ip("10.1.0.1"));
    default.source = Some(ip("10.1.0.2"));
    default.metric = 100;
    sim.route(default.clone())?;
    assert!(sim.route(default).is_err());
    // The gateway is not known.
    ensure_eq!(look_up(&mut bpf, far, 0, 0)?.0, 7);
    eth1.neighbour(&sim, ip("10.1.0.1"), [2, 0, 0, 0, 0, 9])
        .unwrap();
    let (answer, params) = look_up(&mut bpf, far, 0, 16)?;
    ensure_eq!((answer, params[8], params[12]), (0, 3, 100));
    ensure_eq!(params[16..20], [10, 1, 0, 2]);
    ensure_eq!(params[32..36], [10, 1, 0, 1]);
    ensure_eq!(params[52..], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 9]);
    ensure_eq!(u16::from_le_bytes([params[6], params[7]]), 1500);
    // It is too long.
    ensure_eq!(look_up(&mut bpf, far, 1501, 0)?.0, 8);
    // The longest prefix counts.
    let kinds = [
        (RouteKind::Blackhole, 1),
        (RouteKind::Unreachable, 2),
        (RouteKind::Prohibit, 3),
        (RouteKind::Local, 4),
    ];
    for (prefix, (kind, answer)) in (20..).zip(kinds) {
        let mut route = Route::new(ip("192.0.2.0"), prefix, 0);
        route.kind = kind;
        sim.route(route)?;
        ensure_eq!(look_up(&mut bpf, far, 0, 0)?.0, answer);
    }
    ensure_eq!(look_up(&mut bpf, [8, 8, 8, 8], 0, 4)?.0, 0);
    ensure_eq!(look_up(&mut bpf, far, 0, 1 << 6)?.0, -22);
    Ok(())
}
