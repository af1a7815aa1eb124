//! What programs know of what they are attached to, and what becomes of it.
//!
//! Linux is not asked: nothing is attached to the machine that runs this. What is expected here is
//! what its sources say.

use bpfsim::{
    Arg, AttachError, AttachOpts, AttachType, Cgroup, Cpu, Ebpf, Errno, Error, Fired, Hook, Link,
    ProgramInput, Result, Runner, Sim, attach_flags, check_exhaustive, ensure, ensure_eq,
};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/attached.bpf.o");

/// A simulation with the programs of the fixture.
struct Bench {
    sim: Sim,
    bpf: Ebpf,
}

impl Bench {
    fn new() -> Result<Bench> {
        let sim = Sim::new()?;
        let bpf = Ebpf::load(&sim, OBJECT)?;
        Ok(Bench { sim, bpf })
    }

    fn saw(&self, who: usize) -> Result<u64> {
        Ok(self.bpf.global::<[u64; 64]>("saw")?[who])
    }

    fn answer(&mut self, who: usize, with: i32) -> Result<()> {
        let mut answers: [i32; 64] = self.bpf.global("answers")?;
        answers[who] = with;
        self.bpf.set_global("answers", &answers)
    }

    fn attach(&mut self, programs: &[&str]) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for name in programs {
            links.push(self.bpf.program_mut(name)?.attach()?);
        }
        Ok(links)
    }

    /// What comes of a hook, and which programs ran there, by number.
    fn fire(&mut self, hook: &Hook, input: ProgramInput) -> Result<(Fired, Vec<u32>)> {
        self.bpf.set_global("nr_ran", &0u32)?;
        let fired = self.sim.fire(hook, input)?;
        let ran: [u32; 64] = self.bpf.global("ran")?;
        let n: u32 = self.bpf.global("nr_ran")?;
        Ok((fired, ran[..n as usize].to_vec()))
    }

    fn attach_cgroup(&mut self, name: &str, cgroup: Cgroup) -> Result<Link> {
        let mut program = self.bpf.program_mut(name)?;
        program.attach_cgroup(cgroup, &AttachOpts::default())
    }
}

fn packet() -> ProgramInput {
    ProgramInput::packet(&[0; 64])
}

fn errno<T>(result: Result<T>) -> Option<Errno> {
    match result {
        Err(Error::Attach {
            error: AttachError::Refused { errno, .. },
            ..
        }) => Some(errno),
        _ => None,
    }
}

fn call(args: &[u64]) -> ProgramInput {
    ProgramInput::args(args.iter().map(|&a| Arg::Value(a)))
}

const EGRESS: AttachType = AttachType::CgroupInetEgress;
const INGRESS: AttachType = AttachType::CgroupInetIngress;

/// `struct bpf_cgroup_storage_key`, with something in its padding.
fn key(cgroup: u64, what: AttachType) -> Vec<u8> {
    let mut key = cgroup.to_le_bytes().to_vec();
    key.extend((what as u64 | 7 << 32).to_le_bytes());
    key
}

fn value(bpf: &Ebpf, map: &str, key: &[u8]) -> Result<Option<u64>> {
    let value = bpf.map(map)?.lookup(key)?;
    Ok(value.map(|v| u64::from_le_bytes(v[..8].try_into().unwrap_or_default())))
}

#[test]
fn programs_have_the_storage_of_the_cgroup_that_they_are_attached_to() -> Result<()> {
    let mut b = Bench::new()?;
    let top = b.sim.cgroup(b.sim.root_cgroup(), "top")?;
    let leaf = b.sim.cgroup(top, "leaf")?;
    let (top_id, leaf_id) = (top.id(&b.sim), leaf.id(&b.sim));
    ensure_eq!(value(&b.bpf, "own", &key(top_id, EGRESS))?, None);
    let link = b.attach_cgroup("own_egress", top)?;
    // It is there from the attachment on, zero.
    ensure_eq!(value(&b.bpf, "own", &key(top_id, EGRESS))?, Some(0));
    b.attach_cgroup("own_egress", leaf)?;
    b.attach_cgroup("own_ingress", top)?;
    for _ in 0..3 {
        b.sim.fire(&leaf.hook(EGRESS), packet())?;
    }
    b.sim.fire(&top.hook(EGRESS), packet())?;
    b.sim.fire(&top.hook(INGRESS), packet())?;
    // By the cgroup that the program is attached to, not by whose packet it is; by what it does.
    ensure_eq!(value(&b.bpf, "own", &key(top_id, EGRESS))?, Some(4));
    ensure_eq!(value(&b.bpf, "own", &key(leaf_id, EGRESS))?, Some(3));
    ensure_eq!(value(&b.bpf, "own", &key(top_id, INGRESS))?, Some(1));
    // The newest comes first.
    let own = b.bpf.map("own")?;
    let keys: Vec<Vec<u8>> = own.entries()?.into_iter().map(|(k, _)| k).collect();
    let clean = |mut key: Vec<u8>| {
        key[12..].fill(0);
        key
    };
    let expected = [(top_id, INGRESS), (leaf_id, EGRESS), (top_id, EGRESS)];
    ensure_eq!(keys, expected.map(|(c, what)| clean(key(c, what))));
    // User space changes what there is; programs go on from there.
    own.update(&key(top_id, EGRESS), &40u64.to_le_bytes(), 0)?;
    b.sim.fire(&top.hook(EGRESS), packet())?;
    ensure_eq!(b.saw(0)?, 41);
    ensure!(own.update(&key(9, EGRESS), &[0; 8], 0).is_err());
    ensure!(own.delete(&key(top_id, EGRESS)).is_err());
    // It outlives the attachment, but not the cgroup.
    link.detach().unwrap();
    ensure_eq!(value(&b.bpf, "own", &key(top_id, EGRESS))?, Some(41));
    b.attach_cgroup("own_egress", top)?;
    b.sim.fire(&top.hook(EGRESS), packet())?;
    ensure_eq!(b.saw(0)?, 42);
    leaf.remove(&b.sim).unwrap();
    ensure_eq!(value(&b.bpf, "own", &key(leaf_id, EGRESS))?, None);
    ensure_eq!(own.entries()?.len(), 2);
    b.sim.finish()
}

#[test]
fn storage_is_shared_where_keys_have_no_attach_type() -> Result<()> {
    let mut b = Bench::new()?;
    let web = b.sim.cgroup(b.sim.root_cgroup(), "web")?;
    b.attach_cgroup("shared_egress", web)?;
    b.attach_cgroup("shared_ingress", web)?;
    b.sim.fire(&web.hook(EGRESS), packet())?;
    b.sim.fire(&web.hook(INGRESS), packet())?;
    ensure_eq!((b.saw(3)?, b.saw(4)?), (1, 2));
    let web_id = web.id(&b.sim).to_le_bytes();
    ensure_eq!(value(&b.bpf, "shared", &web_id)?, Some(2));
    // One of each CPU.
    b.attach_cgroup("own_egress", web)?;
    for cpu in [0, 1, 1] {
        b.sim
            .fire_on(bpfsim::Cpu(cpu), &web.hook(EGRESS), packet())?;
        b.sim.run_until_idle()?;
    }
    let all = b.bpf.map("percpu")?.lookup(&web_id)?.unwrap();
    ensure_eq!((all[0], all[8]), (1, 2));
    // Of what security modules are asked, by the attach type of those programs.
    b.attach_cgroup("bound", web)?;
    b.sim.main_task().move_to(&b.sim, web).unwrap();
    b.sim
        .fire(&bpfsim::Hook::lsm("socket_bind"), ProgramInput::empty())?;
    let lsm = key(web.id(&b.sim), AttachType::LsmCgroup);
    ensure_eq!(value(&b.bpf, "own", &lsm)?, Some(1));
    b.sim.finish()
}

/// A program that is not attached has storage as long as `BPF_PROG_TEST_RUN` takes: all of its runs.
/// Linux 6.18 was asked this: 1, 3 and 2 where it is repeated so often, and the map stays empty.
#[test]
fn a_test_run_has_storage_of_its_own() -> Result<()> {
    let mut b = Bench::new()?;
    let mut program = b.bpf.program_mut("own_egress")?;
    program.test_run(packet().repeat(3))?;
    ensure_eq!((b.saw(0)?, b.saw(1)?), (3, 3));
    b.bpf.program_mut("own_egress")?.test_run(packet())?;
    ensure_eq!(b.saw(0)?, 1);
    ensure_eq!(b.bpf.map("own")?.entries()?.len(), 0);
    b.sim.finish()
}

#[test]
fn what_tells_congestion_attaches_to_egress_only() -> Result<()> {
    let mut b = Bench::new()?;
    let web = b.sim.cgroup(b.sim.root_cgroup(), "web")?;
    let mut program = b.bpf.program_mut("congested")?;
    ensure_eq!(
        errno(program.attach_to(web.hook(INGRESS))),
        Some(Errno::EINVAL)
    );
    program.attach_to(web.hook(EGRESS))?;
    ensure_eq!(b.fire(&web.hook(EGRESS), packet())?.0.result, 1);
    // One that can return it, and other things, attaches to both; there 2 is no refusal.
    b.bpf
        .program_mut("any_egress")?
        .attach_to(web.hook(INGRESS))?;
    for (answer, result) in [(0, -1), (1, 0), (2, 0), (3, 0)] {
        b.answer(6, answer)?;
        ensure_eq!(b.fire(&web.hook(INGRESS), packet())?.0.result, result);
    }
    Ok(())
}

#[test]
fn sessions_run_at_entry_and_return() -> Result<()> {
    let mut b = Bench::new()?;
    let hook = Hook::function("security_bprm_check");
    b.attach(&["session1", "session2"])?;
    // Each has a word of its own, which its return finds.
    let (_, ran) = b.fire(&hook, call(&[7]))?;
    ensure_eq!(ran, [12, 10, 13, 11]);
    ensure_eq!((b.saw(11)?, b.saw(13)?), (110, 112));
    // Who returns 1 at the entry is not asked at the return.
    b.answer(10, 1)?;
    ensure_eq!(b.fire(&hook, call(&[7]))?.1, [12, 10, 13]);
    b.answer(12, 1)?;
    ensure_eq!(b.fire(&hook, call(&[7]))?.1, [12, 10]);
    // The same program twice: each attachment is a session.
    b.answer(12, 0)?;
    b.attach(&["session2"])?;
    ensure_eq!(b.fire(&hook, call(&[7]))?.1, [12, 12, 10, 13, 13]);
    // Of a user program.
    b.attach(&["user_session"])?;
    let main = Hook::user_function("/bin/sh", "main");
    ensure_eq!(b.fire(&main, call(&[1]))?.1, [14, 15]);
    b.answer(14, 1)?;
    ensure_eq!(b.fire(&main, call(&[1]))?.1, [14]);
    // Several functions of the kernel at once, but none of a program among them.
    let both = [hook.clone(), Hook::function("security_bprm_creds_for_exec")];
    let at = AttachOpts::default();
    let mut program = b.bpf.program_mut("session1")?;
    program.attach_with(&both, &at)?.detach().unwrap();
    let mixed = program.attach_with(&[hook, main], &at);
    ensure_eq!(errno(mixed), Some(Errno::EINVAL));
    b.sim.finish()
}

#[test]
fn probes_of_user_programs_see_what_they_are_called_with() -> Result<()> {
    let mut b = Bench::new()?;
    let main = Hook::user_function("/bin/sh", "main");
    b.attach(&["user_entry1"])?;
    let opts = AttachOpts {
        cookie: 77,
        ..AttachOpts::default()
    };
    b.bpf.program_mut("user_entry2")?.attach_with(&[], &opts)?;
    let links = b.attach(&["user_return", "user_multi"])?;
    let (fired, ran) = b.fire(&main, call(&[5]).returning(9))?;
    ensure_eq!((fired.result, ran), (9, vec![23, 21, 20, 22]));
    ensure_eq!(
        (b.saw(20)?, b.saw(21)?, b.saw(22)?, b.saw(23)?),
        (5, 77, 9, 5)
    );
    let other = Hook::user_function("/bin/sh", "exit");
    ensure!(b.fire(&other, call(&[5]))?.1.is_empty());
    links[1].detach().unwrap();
    ensure_eq!(b.fire(&main, call(&[5]))?.1, [21, 20, 22]);
    // At an offset, and at a static tracepoint.
    b.bpf.program_mut("started")?.attach()?;
    let usdt = Hook::Usdt {
        binary: "/bin/sh".into(),
        provider: "shell".into(),
        name: "start".into(),
    };
    ensure_eq!(b.fire(&usdt, call(&[3]))?.1, [24]);
    ensure_eq!(b.saw(24)?, 3);
    let inside = Hook::UserFunction {
        binary: "/bin/sh".into(),
        name: "main".into(),
        offset: 8,
    };
    let mut program = b.bpf.program_mut("user_return")?;
    let returns = AttachOpts {
        returns: Some(true),
        ..AttachOpts::default()
    };
    let refused = program.attach_with(std::slice::from_ref(&inside), &returns);
    ensure_eq!(errno(refused), Some(Errno::EINVAL));
    b.bpf
        .program_mut("user_entry1")?
        .attach_to(inside.clone())?;
    ensure_eq!(b.fire(&inside, call(&[4]))?.1, [20]);
    Ok(())
}

/// `uprobe.multi`: a cookie for each function, where each is, and a process alone.
#[test]
fn one_link_probes_many_functions_of_a_user_program() -> Result<()> {
    let mut b = Bench::new()?;
    let at = |name: &str| Hook::user_function("/bin/sh", name);
    let inside = Hook::UserFunction {
        binary: "/bin/sh".into(),
        name: "main".into(),
        offset: 8,
    };
    let hooks = [at("main"), at("exit"), inside.clone()];
    let cookies = |cookies: &[u64]| AttachOpts {
        cookies: cookies.to_vec(),
        ..AttachOpts::default()
    };
    let mut many = b.bpf.program_mut("user_many")?;
    let link = many.attach_with(&hooks, &cookies(&[5, 6, 7]))?;
    let mut ips = Vec::new();
    for (hook, cookie) in hooks.iter().zip(5..) {
        ensure_eq!(b.fire(hook, call(&[1]))?.1, [25]);
        ensure_eq!(b.saw(25)?, cookie);
        ips.push(b.saw(26)?);
    }
    ensure_eq!(ips[2], ips[0] + 8);
    ensure!(ips[0] != ips[1] && ips[0] != 0);
    ensure!(b.fire(&at("other"), call(&[1]))?.1.is_empty());
    // The return knows where the function is; registers that the test gives say it.
    let mut returns = b.bpf.program_mut("user_many_returns")?;
    returns.attach_with(
        &hooks[..2],
        &AttachOpts {
            cookie: 9,
            ..AttachOpts::default()
        },
    )?;
    ensure_eq!(b.fire(&hooks[1], call(&[1]))?.1, [25, 27]);
    ensure_eq!((b.saw(27)?, b.saw(28)?), (9, ips[1]));
    let mut regs = [0; 168];
    regs[16 * 8..17 * 8].copy_from_slice(&0x40_1000_u64.to_le_bytes());
    b.fire(&hooks[1], ProgramInput::context(&regs))?;
    ensure_eq!((b.saw(26)?, b.saw(28)?), (0x40_1000, 0x40_1000));
    link.detach().unwrap();
    ensure!(b.fire(&inside, call(&[1]))?.1.is_empty());
    // A function that is named twice is probed twice, the newest first.
    let mut many = b.bpf.program_mut("user_many")?;
    let twice = [at("exit"), at("exit")];
    many.attach_with(&twice, &cookies(&[1, 2]))?;
    ensure_eq!(b.fire(&twice[0], call(&[1]))?.1, [25, 25, 27]);
    ensure_eq!(b.saw(25)?, 1);
    // Sessions are the functions', each with a word of its own.
    let mut sessions = b.bpf.program_mut("user_sessions")?;
    let three = [at("f"), at("g"), at("g")];
    sessions.attach_with(&three, &cookies(&[2, 3, 4]))?;
    ensure_eq!(b.fire(&three[0], call(&[1]))?.1, [50, 51]);
    ensure_eq!(b.saw(51)?, 3002);
    ensure_eq!(b.fire(&three[1], call(&[1]))?.1, [50, 50, 51]);
    ensure_eq!((b.saw(50)?, b.saw(51)?), (3, 5004));
    b.sim.finish()
}

#[test]
fn probes_of_many_user_functions_run_in_a_process() -> Result<()> {
    let mut b = Bench::new()?;
    let [main, exit] = ["main", "exit"].map(|name| Hook::user_function("/bin/sh", name));
    let leader = b.sim.task("sh").pid(300).user()?;
    let thread = b.sim.task("sh").pid(301).tgid(300).user()?;
    let other = b.sim.task("sh").pid(400).user()?;
    let of = |pid| AttachOpts {
        pid,
        ..AttachOpts::default()
    };
    let both = [main.clone(), exit.clone()];
    let mut many = b.bpf.program_mut("user_many")?;
    many.attach_with(&both, &of(300))?;
    // No number of a process: of a thread, of nobody.
    for pid in [301, 999] {
        ensure_eq!(errno(many.attach_with(&both, &of(pid))), Some(Errno::ESRCH));
    }
    for (task, runs) in [(leader, 1), (thread, 1), (other, 0)] {
        let fired = task.fire(&b.sim, &exit, call(&[1]))?;
        ensure_eq!(fired.runs.len(), runs);
    }
    ensure!(b.fire(&exit, call(&[1]))?.1.is_empty());
    let entry = b
        .bpf
        .program_mut("user_entry1")?
        .attach_with(&[main], &of(300));
    let unsupported = matches!(
        entry.err(),
        Some(Error::Attach {
            error: AttachError::Unsupported { .. },
            ..
        })
    );
    ensure!(unsupported);
    Ok(())
}

#[test]
fn what_goes_to_one_place_or_another_does_not_go_to_many() -> Result<()> {
    let mut b = Bench::new()?;
    let user = |binary: &str| Hook::user_function(binary, "main");
    let kernel = Hook::function("security_bprm_check");
    let usual = AttachOpts::default();
    let cookies = AttachOpts {
        cookies: vec![1],
        ..AttachOpts::default()
    };
    let returns = AttachOpts {
        returns: Some(true),
        ..AttachOpts::default()
    };
    for (program, hooks, opts) in [
        // Of one program, and of such that are not multi.
        ("user_many", vec![user("/bin/sh"), user("/bin/ls")], &usual),
        ("user_entry1", vec![user("/bin/sh"); 2], &usual),
        ("user_many", vec![user("/bin/sh"), kernel.clone()], &usual),
        ("user_many", vec![kernel.clone()], &usual),
        ("session1", vec![user("/bin/sh")], &usual),
        // Cookies are as many as functions.
        ("user_many", vec![user("/bin/sh"); 2], &cookies),
        ("user_entry2", vec![user("/bin/sh")], &cookies),
        ("user_sessions", vec![user("/bin/sh")], &returns),
    ] {
        let refused = b.bpf.program_mut(program)?.attach_with(&hooks, opts);
        ensure_eq!(errno(refused), Some(Errno::EINVAL));
    }
    Ok(())
}

#[test]
fn a_program_puts_a_result_in_the_place_of_a_functions() -> Result<()> {
    let mut b = Bench::new()?;
    let hook = Hook::function("__x64_sys_nanosleep");
    let old = b.attach(&["result", "override1"])?;
    ensure_eq!(b.fire(&hook, call(&[1]).returning(3))?.0.result, 3);
    ensure_eq!(b.saw(34)?, 3);
    // Kprobes of the same function: the newest says it, and those behind are not called, nor what
    // probes the return and is older.
    b.attach(&["override2"])?;
    b.answer(30, -5)?;
    b.answer(31, -12)?;
    let (fired, ran) = b.fire(&hook, call(&[1]).returning(3))?;
    ensure_eq!((fired.result, ran), (-12, vec![31]));
    b.answer(31, 0)?;
    let (fired, ran) = b.fire(&hook, call(&[1]).returning(3))?;
    ensure_eq!((fired.result, ran), (-5, vec![31, 30]));
    // A newer one sees the result, and can say another one.
    old[0].detach().unwrap();
    b.attach(&["result", "override3"])?;
    let (fired, ran) = b.fire(&hook, call(&[1]).returning(3))?;
    ensure_eq!((fired.result, ran), (-5, vec![31, 30, 34, 32]));
    ensure_eq!((b.saw(34)? as i64, b.saw(32)? as i64), (-5, -5));
    b.answer(32, -7)?;
    ensure_eq!(b.fire(&hook, call(&[1]))?.0.result, -7);
    // Only where the function says so, and where it begins.
    let mut program = b.bpf.program_mut("override1")?;
    let mut refused = |hook| errno(program.attach_to(hook));
    ensure_eq!(
        refused(Hook::function("security_bprm_check")),
        Some(Errno::EINVAL)
    );
    ensure_eq!(
        refused(Hook::user_function("/bin/sh", "main")),
        Some(Errno::EINVAL)
    );
    let (name, offset) = ("__x64_sys_nanosleep".to_string(), 4);
    ensure_eq!(
        refused(Hook::Function { name, offset }),
        Some(Errno::EINVAL)
    );
    b.attach(&["override4"])?;
    b.answer(33, -9)?;
    let other = Hook::function("__x64_sys_getpgid");
    ensure_eq!(b.fire(&other, call(&[1]))?.0.result, -9);
    Ok(())
}

#[test]
fn sockets_ask_their_programs() -> Result<()> {
    let mut b = Bench::new()?;
    let map = b.bpf.map("socks")?;
    let (here, there) = (
        "10.0.0.1:80".parse().unwrap(),
        "10.0.0.2:90".parse().unwrap(),
    );
    let sock = b.sim.tcp_stream(here, there)?;
    for key in [0u32, 1] {
        map.update(
            &key.to_le_bytes(),
            &u64::from(sock.fd(&b.sim)).to_le_bytes(),
            0,
        )?;
    }
    for name in ["parser", "verdict", "message"] {
        b.bpf.program_mut(name)?.attach_sockmap(&map)?;
    }
    let at = |what| Hook::SockMap {
        map: map.id(),
        what,
    };
    b.answer(40, 20)?;
    let stream = packet().with_sock(sock.id());
    let parse = at(AttachType::SkSkbStreamParser);
    ensure_eq!(b.fire(&parse, stream.clone())?.0.result, 20);
    let verdict = at(AttachType::SkSkbStreamVerdict);
    let (fired, ran) = b.fire(&verdict, stream.clone())?;
    ensure_eq!((fired.result, ran, b.saw(41)?), (1, vec![41], 64));
    let sent = &fired.runs[0].output.as_ref().unwrap().redirects;
    ensure_eq!(sent.len(), 1);
    let (fired, ran) = b.fire(&at(AttachType::SkMsgVerdict), stream.clone())?;
    ensure_eq!((fired.result, ran), (1, vec![43]));
    // One program of a kind, and none that alone decides beside it.
    let again = b.bpf.program_mut("verdict")?.attach_sockmap(&map);
    ensure_eq!(errno(again), Some(Errno::EBUSY));
    let mut program = b.bpf.program_mut("alone")?;
    ensure_eq!(errno(program.attach_sockmap(&map)), Some(Errno::EBUSY));
    // What the socket itself asks: its filter, which of its group gets the packet.
    b.bpf.program_mut("filter")?.attach_sock(sock)?;
    b.answer(45, 10)?;
    ensure_eq!(b.fire(&Hook::Sock(sock.id()), packet())?.0.result, 10);
    let mut group = bpfsim::SockSpec::new(17, here, bpfsim::SockState::Close);
    group.reuseport = true;
    let member = b.sim.sock(group)?;
    b.bpf.program_mut("reuseport")?.attach_sock(member)?;
    b.answer(44, 1)?;
    let (fired, ran) = b.fire(&Hook::Sock(member.id()), packet())?;
    ensure_eq!((fired.result, ran), (1, vec![44]));
    // How headers are taken apart: by one for all.
    let dissector = b.bpf.program_mut("dissect")?.attach_netns()?;
    let again = b.bpf.program_mut("dissect")?.attach_netns();
    ensure_eq!(errno(again), Some(Errno::E2BIG));
    b.answer(46, 2)?;
    ensure_eq!(b.fire(&Hook::FlowDissector, packet())?.0.result, 2);
    dissector.detach().unwrap();
    // BPF_FLOW_DISSECTOR_CONTINUE
    ensure_eq!(b.fire(&Hook::FlowDissector, packet())?.0.result, 129);
    Ok(())
}

#[test]
fn programs_take_each_others_places() -> Result<()> {
    let mut b = Bench::new()?;
    let web = b.sim.cgroup(b.sim.root_cgroup(), "web")?;
    let multi = |flags, replace, relative| AttachOpts {
        flags: flags | attach_flags::ALLOW_MULTI,
        replace,
        relative,
        legacy: true,
        ..AttachOpts::default()
    };
    let one = b.bpf.program_mut("own_egress")?.prog_id();
    let two = b.bpf.program_mut("shared_egress")?.prog_id();
    let mut attach =
        |name: &str, opts: &AttachOpts| b.bpf.program_mut(name)?.attach_cgroup(web, opts);
    attach("own_egress", &multi(0, None, None))?;
    attach("shared_egress", &multi(0, None, None))?;
    let replace = |old| multi(attach_flags::REPLACE, Some(old), None);
    attach("any_egress", &replace(one))?;
    // It is gone by now; and what is there already does not come twice.
    ensure_eq!(
        errno(attach("congested", &replace(one))),
        Some(Errno::ENOENT)
    );
    ensure_eq!(
        errno(attach("shared_egress", &multi(0, None, None))),
        Some(Errno::EINVAL)
    );
    let alone = multi(attach_flags::REPLACE, None, None);
    ensure_eq!(errno(attach("congested", &alone)), Some(Errno::EINVAL));
    let beside = bpfsim::Relative::Prog(two);
    attach(
        "own_egress",
        &multi(attach_flags::BEFORE, None, Some(beside)),
    )?;
    attach("congested", &multi(attach_flags::AFTER, None, Some(beside)))?;
    b.answer(6, 1)?;
    let (fired, _) = b.fire(&web.hook(EGRESS), packet())?;
    let names: Vec<&str> = fired.runs.iter().map(|r| r.name.as_str()).collect();
    ensure_eq!(
        names,
        ["any_egress", "own_egress", "shared_egress", "congested"]
    );
    // By the revision that was seen.
    let what = web.revision(&b.sim, EGRESS);
    let mut at = |revision| {
        let opts = AttachOpts {
            revision,
            ..AttachOpts::default()
        };
        b.bpf.program_mut("own_egress")?.attach_cgroup(web, &opts)
    };
    ensure_eq!(errno(at(what - 1)), Some(Errno::ESTALE));
    at(what)?;
    ensure_eq!(errno(at(what)), Some(Errno::ESTALE));
    ensure_eq!(web.revision(&b.sim, EGRESS), what + 1);
    // The same at a device; one without programs begins anew.
    let eth0 = b.sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    let mut at = |revision| {
        let opts = AttachOpts {
            revision,
            ..AttachOpts::default()
        };
        b.bpf.program_mut("next")?.attach_tcx(eth0, &opts)
    };
    ensure_eq!(errno(at(2)), Some(Errno::ESTALE));
    let link = at(1)?;
    ensure_eq!(errno(at(1)), Some(Errno::ESTALE));
    ensure_eq!(errno(at(2)), Some(Errno::EEXIST));
    ensure_eq!(eth0.revision(&b.sim, false), 2);
    link.detach().unwrap();
    ensure_eq!(eth0.revision(&b.sim, false), 1);
    Ok(())
}

#[test]
fn full_hooks_take_no_more() -> Result<()> {
    const MOST: usize = 64;
    let mut b = Bench::new()?;
    let web = b.sim.cgroup(b.sim.root_cgroup(), "web")?;
    for _ in 0..MOST {
        b.attach_cgroup("shared_egress", web)?;
    }
    ensure_eq!(
        errno(b.attach_cgroup("shared_egress", web)),
        Some(Errno::E2BIG)
    );
    ensure_eq!(b.fire(&web.hook(EGRESS), packet())?.1.len(), MOST);
    // Programs are there once only, so that it takes as many objects.
    let eth0 = b.sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    for i in 0..=MOST {
        let mut other = Ebpf::load(&b.sim, OBJECT)?;
        let at_device = other
            .program_mut("next")?
            .attach_tcx(eth0, &AttachOpts::default());
        let at_event = other.program_mut("event")?.attach();
        let at_netns = other.program_mut("lookup")?.attach_netns();
        if i < MOST {
            at_device?;
            at_event?;
            at_netns?;
            continue;
        }
        ensure_eq!(errno(at_device), Some(Errno::ERANGE));
        ensure_eq!(errno(at_event), Some(Errno::E2BIG));
        ensure_eq!(errno(at_netns), Some(Errno::E2BIG));
    }
    ensure_eq!(b.sim.fire(&eth0.ingress(), packet())?.runs.len(), MOST);
    Ok(())
}

/// A program that runs is not pulled away: who detaches it meanwhile only keeps it from the next
/// time, whatever the order.
#[test]
fn a_program_is_detached_while_another_cpu_runs_it() {
    let times = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let test = |sim: &Sim| {
        let mut bpf = Ebpf::load(sim, OBJECT)?;
        let link = bpf.program_mut("slow")?.attach()?;
        let hook = Hook::function("security_bprm_check");
        let (first, of_task) = (link.clone(), hook.clone());
        let job = sim.fire_on(Cpu(0), &hook, call(&[1]))?;
        sim.spawn_user(Cpu(1), async move |user| {
            user.detach(&first).await.unwrap();
            // Now it runs for nobody any more.
            let fired = user.fire(&of_task, call(&[2])).await.unwrap();
            ensure!(fired.runs.is_empty());
            Ok(())
        })?;
        sim.run_until_idle()?;
        ensure!(!link.is_attached());
        let runs = sim.fired(job).unwrap().runs;
        let steps: u64 = bpf.global("slow_steps")?;
        ensure_eq!(steps, 4 * runs.len() as u64);
        times.lock().unwrap().insert(runs.len());
        sim.finish()
    };
    check_exhaustive(test).unwrap();
    assert_eq!(times.lock().unwrap().len(), 2, "it ran, and it did not");
}

#[test]
fn structs_of_operations_take_turns() -> Result<()> {
    let b = Bench::new()?;
    let (old, new) = (b.bpf.map("old_ops")?, b.bpf.map("new_ops")?);
    let ops = old.attach_struct_ops()?;
    ensure_eq!(ops.call("undo_cwnd", call(&[0]))?.result, 1);
    // A name is taken once, until it is given back.
    ensure!(new.attach_struct_ops().is_err());
    ops.detach()?;
    ensure!(ops.detach().is_err());
    let mut ops = new.attach_struct_ops()?;
    ensure_eq!(ops.call("undo_cwnd", call(&[0]))?.result, 2);
    // Or by the way of its link, without a moment in between.
    ops.replace(&old)?;
    ensure_eq!(ops.call("undo_cwnd", call(&[0]))?.result, 1);
    ensure!(ops.replace(&b.bpf.map("own")?).is_err());
    ops.detach()?;
    ensure!(ops.replace(&new).is_err());
    Ok(())
}

/// Orders do not decide what user code sees of its own hooks.
#[test]
fn user_code_makes_hooks_happen() {
    let test = |sim: &Sim| {
        let mut bpf = Ebpf::load(sim, OBJECT)?;
        bpf.program_mut("user_entry1")?.attach()?;
        for (cpu, with) in [(0, 1u64), (1, 2)] {
            let main = Hook::user_function("/bin/sh", "main");
            sim.spawn_user(Cpu(cpu), async move |user| {
                let fired = user
                    .fire(&main, call(&[with]).returning(with))
                    .await
                    .unwrap();
                ensure_eq!((fired.result, fired.runs.len()), (with as i64, 1));
                Ok(())
            })?;
        }
        sim.run_until_idle()?;
        sim.finish()
    };
    Runner::new()
        .executions(50)
        .regressions(None)
        .check(test)
        .unwrap();
}
