//! Programs of each type of which the table says that they run get the context that a test gives.

use bpfsim::{Arg, AttachType, Ebpf, EbpfLoader, ProgramInput, Result, Sim, ensure_eq};
use bpfsim_abi::{ProgType, Status, status};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/prog_types.bpf.o");

/// Words of a context.
fn words<const N: usize>(words: [u32; N]) -> ProgramInput {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    ProgramInput::context(&bytes)
}

fn longs<const N: usize>(words: [u64; N]) -> ProgramInput {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    ProgramInput::context(&bytes)
}

/// What a program of a type is given, and what it finds there.
fn case(sim: &Sim, prog_type: ProgType) -> Result<(ProgramInput, u32)> {
    use ProgType as P;
    let packet = || ProgramInput::packet(&[0; 64]);
    Ok(match prog_type {
        P::SchedCls | P::SchedAct | P::Xdp | P::FlowDissector | P::SkSkb => (packet(), 64),
        P::SocketFilter | P::LwtIn | P::LwtOut | P::LwtXmit | P::LwtSeg6local => (packet(), 50),
        P::CgroupSkb | P::SkMsg | P::SkReuseport | P::Netfilter => (packet(), 1),
        P::Kprobe | P::PerfEvent => (ProgramInput::call(&[11, 22]), 22),
        P::Syscall | P::Tracepoint | P::RawTracepoint | P::RawTracepointWritable => {
            (longs([11, 22]), 22)
        }
        P::Tracing => (ProgramInput::args([Arg::Value(11), Arg::Value(0)]), 11),
        P::Lsm => (
            ProgramInput::args([sim.file("/etc/passwd")?.arg()]),
            -1i32 as u32,
        ),
        P::StructOps => {
            let sock = sim.tcp_listener("10.0.0.1:80".parse().unwrap())?;
            (ProgramInput::args([sock.arg()]), 1)
        }
        P::CgroupSock => (words([0, 2, 1, 6]), 1),
        P::CgroupSockAddr => (words([2, 0, 0, 0, 0, 0, 80, 2, 1, 6]), 1),
        P::CgroupSockopt => {
            let mut input = words([0, 0, 0, 0, 0, 0, 6, 7, 4, -92i32 as u32]);
            input.data = vec![0; 4];
            (input, 1)
        }
        P::CgroupSysctl => (words([1, 0]), 1),
        P::CgroupDevice => (words([2, 1, 3]), 1),
        P::SockOps => (words([3, 0, 0, 0, 0, 2]), 1),
        P::SkLookup => (words([0, 0, 2, 6]), 1),
        P::LircMode2 => (words([77]), 77),
        other => panic!("nothing to give programs of type {}", other.name()),
    })
}

#[test]
fn each_type_that_runs_finds_its_context() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let mut wrong = Vec::new();
    for &prog_type in &ProgType::ALL[1..] {
        if status::prog_type(prog_type) == Status::No {
            continue;
        }
        let (input, want) = case(&sim, prog_type)?;
        match bpf
            .program_mut(&format!("on_{}", prog_type.name()))?
            .test_run(input)
        {
            Ok(out) if out.return_value == want => {}
            other => wrong.push(format!("{}: {other:?}, not {want}", prog_type.name())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_cgroups_hook_gives_what_its_program_left() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let mut retval = |program: &str, input: ProgramInput| -> Result<(u32, i32)> {
        let out = bpf.program_mut(&format!("on_{program}"))?.test_run(input)?;
        Ok((out.return_value, out.retval))
    };
    let connect = |port| words([2, 0, 0, 0, 0, 0, port, 2, 1, 6]);
    ensure_eq!(retval("cgroup_sock_addr", connect(80))?, (1, 0));
    // It refuses with an errno of its own.
    ensure_eq!(retval("cgroup_sock_addr", connect(81))?, (0, -13));
    // It refuses without one.
    ensure_eq!(retval("cgroup_device", words([2, 2, 3]))?, (0, -1));
    let mut inherited = words([2, 2, 3]);
    inherited.retval = -95;
    ensure_eq!(retval("cgroup_device", inherited)?, (0, -95));
    // What getsockopt would give is in the context.
    let sockopt = |name| words([0, 0, 0, 0, 0, 0, 6, name, 4, -92i32 as u32]);
    ensure_eq!(retval("cgroup_sockopt", sockopt(7))?, (1, 0));
    ensure_eq!(retval("cgroup_sockopt", sockopt(8))?, (0, -92));
    ensure_eq!(
        retval("sched_cls", ProgramInput::packet(&[0; 64]))?,
        (64, 0)
    );
    Ok(())
}

/// Sections whose names say nothing: the type comes from who loads them.
#[test]
fn types_are_set_before_the_load() {
    const OBJECT: &[u8] = include_bytes!("../../../fixtures/own_sections.bpf.o");
    let load = |loader: EbpfLoader| loader.load(&Sim::new().unwrap(), OBJECT);
    let classify = |prog_type| {
        let loader = EbpfLoader::new().only("classify");
        let mut bpf = load(loader.set_type("classify", prog_type)).unwrap();
        let input = ProgramInput::packet(&[0; 64]);
        let ran = bpf.program_mut("classify").unwrap().test_run(input);
        ran.unwrap().return_value
    };
    // With its Ethernet header, and without.
    assert_eq!(classify(ProgType::SchedCls), 64);
    assert_eq!(classify(ProgType::LwtXmit), 50);
    assert!(load(EbpfLoader::new().only("classify")).is_err());
    let connects = EbpfLoader::new()
        .only("connects")
        .set_type("connects", ProgType::CgroupSockAddr);
    for (attach_type, taken) in [
        (AttachType::CgroupInet4Connect, true),
        (AttachType::CgroupInet6Connect, false),
    ] {
        let loader = connects
            .clone()
            .set_expected_attach_type("connects", attach_type);
        assert_eq!(load(loader).is_ok(), taken, "{}", attach_type.name());
    }
    assert!(load(EbpfLoader::new().set_type("nobody", ProgType::Xdp)).is_err());
}
