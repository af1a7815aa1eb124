//! What is attached to a hook runs when it happens, in Linux's order, and its verdict is Linux's.

use bpfsim::{
    Arg, AttachError, AttachOpts, AttachType, Cpu, Ebpf, Errno, Error, Fired, Hook, Level, Link,
    ProgramInput, Result, Runner, Sim, Strategy, attach_flags, check, check_exhaustive,
    check_random, ensure, ensure_eq,
};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/hooks.bpf.o");
const MODELS: &[u8] = include_bytes!("../../../fixtures/order_models.bpf.o");
const EPERM: i64 = -1;

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

    fn attach(&mut self, programs: &[&str]) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for name in programs {
            links.push(self.bpf.program_mut(name)?.attach()?);
        }
        Ok(links)
    }

    fn answer(&mut self, who: usize, with: i32) -> Result<()> {
        let mut answers: [i32; 32] = self.bpf.global("answers")?;
        answers[who] = with;
        self.bpf.set_global("answers", &answers)
    }

    /// Which programs ran since the last call, by number.
    fn ran(&mut self) -> Result<Vec<u32>> {
        let ran: [u32; 32] = self.bpf.global("ran")?;
        let n: u32 = self.bpf.global("nr_ran")?;
        self.bpf.set_global("nr_ran", &0u32)?;
        Ok(ran[..n as usize].to_vec())
    }

    fn saw(&self, who: usize) -> Result<u64> {
        Ok(self.bpf.global::<[u64; 32]>("saw")?[who])
    }

    fn fire(&mut self, hook: &Hook, input: ProgramInput) -> Result<(Fired, Vec<u32>)> {
        let fired = self.sim.fire(hook, input)?;
        Ok((fired, self.ran()?))
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

#[test]
fn a_function_runs_what_is_around_it_in_linuxes_order() -> Result<()> {
    let mut b = Bench::new()?;
    let hook = Hook::function("security_bprm_check");
    b.attach(&["entry1", "entry2", "return1", "return2"])?;
    let links = b.attach(&["fentry1", "modify1", "modify2", "fexit1"])?;
    // New kprobes and trampolines' programs come first, return probes are a stack.
    let call = ProgramInput::args([Arg::Value(0xb)]).returning(5);
    let (fired, ran) = b.fire(&hook, call.clone())?;
    ensure_eq!(ran, [2, 1, 5, 7, 6, 8, 3, 4]);
    ensure_eq!((fired.result, b.saw(1)?, b.saw(5)?), (5, 0xb, 0xb));
    // What the function returned is seen by who comes after it only.
    ensure_eq!((b.saw(6)?, b.saw(8)?, b.saw(3)?), (0, 5, 5));
    // A result of fmod_ret takes the function's place, and the others' turn.
    b.answer(7, -13)?;
    let (fired, ran) = b.fire(&hook, call.clone())?;
    ensure_eq!(ran, [2, 1, 5, 7, 8, 3, 4]);
    ensure_eq!(fired.result, -13);
    ensure_eq!((b.saw(8)? as i64, b.saw(4)? as i64), (-13, -13));
    links[2].detach().unwrap();
    ensure_eq!(links[2].detach(), Err(Errno::ENOLINK));
    let (fired, ran) = b.fire(&hook, call)?;
    ensure_eq!((fired.result, ran), (5, vec![2, 1, 5, 6, 8, 3, 4]));
    ensure_eq!(errno(b.attach(&["fentry1"])), Some(Errno::EBUSY));
    Ok(())
}

#[test]
fn programs_ask_about_their_hook() -> Result<()> {
    let mut b = Bench::new()?;
    let opts = AttachOpts {
        cookie: 99,
        ..AttachOpts::default()
    };
    b.bpf.program_mut("asks")?.attach_with(&[], &opts)?;
    let call = ProgramInput::args([Arg::Value(7)]).returning(5);
    b.fire(&Hook::function("security_bprm_check"), call)?;
    ensure_eq!((b.saw(23)?, b.saw(24)?, b.saw(26)?), (7, 5, 99));
    ensure_eq!((b.saw(25)? as i64, b.saw(27)? != 0), (-22, true));
    Ok(())
}

#[test]
fn security_modules_stop_at_the_first_that_refuses() -> Result<()> {
    let mut b = Bench::new()?;
    let hook = Hook::lsm("bprm_check_security");
    b.attach(&["lsm1", "lsm2"])?;
    ensure_eq!(b.fire(&hook, ProgramInput::empty())?.1, [10, 9]);
    b.answer(10, -1)?;
    let (fired, ran) = b.fire(&hook, ProgramInput::empty())?;
    ensure_eq!((fired.result, ran), (EPERM, vec![10]));
    // By cgroup: whose task asks decides.
    let web = b.sim.cgroup(b.sim.root_cgroup(), "web")?;
    let mut program = b.bpf.program_mut("lsm_cgroup1")?;
    program.attach_cgroup(web, &AttachOpts::default())?;
    let hook = Hook::lsm("socket_bind");
    let (fired, ran) = b.fire(&hook, ProgramInput::empty())?;
    ensure_eq!((fired.result, ran), (0, vec![]));
    b.sim.main_task().move_to(&b.sim, web).unwrap();
    let (fired, ran) = b.fire(&hook, ProgramInput::empty())?;
    ensure_eq!((fired.result, ran), (EPERM, vec![11]));
    Ok(())
}

#[test]
fn a_chain_of_tcx_goes_on_until_a_verdict() -> Result<()> {
    let mut b = Bench::new()?;
    let eth0 = b.sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    let mut attach = |name: &str, flags, relative| -> Result<Link> {
        let opts = AttachOpts {
            flags,
            relative,
            ..AttachOpts::default()
        };
        b.bpf.program_mut(name)?.attach_tcx(eth0, &opts)
    };
    let one = attach("tcx1", 0, None)?;
    attach("tcx2", attach_flags::BEFORE, None)?;
    ensure_eq!(errno(attach("tcx2", 0, None)), Some(Errno::EEXIST));
    let both = attach_flags::BEFORE | attach_flags::AFTER;
    ensure_eq!(errno(attach("tcx3", both, None)), Some(Errno::ERANGE));
    attach("tcx3", attach_flags::BEFORE, Some(one.relative()))?;
    let opts = AttachOpts {
        filter: true,
        ..AttachOpts::default()
    };
    let mut program = b.bpf.program_mut("filter")?;
    program.attach_with(&[eth0.ingress()], &opts)?;
    for who in 1..=3 {
        b.answer(who, -1)?;
    }
    // TCX_NEXT: the next one; each sees what the one before did to the packet.
    let (fired, ran) = b.fire(&eth0.ingress(), packet())?;
    ensure_eq!((fired.result, ran), (0, vec![2, 3, 1, 4]));
    ensure_eq!((b.saw(1)?, b.saw(4)?), (3, u64::from(eth0.ifindex())));
    let marks = fired.runs.iter().take(3).map(|r| {
        let ctx = &r.output.as_ref().unwrap().ctx_out;
        u32::from_le_bytes(ctx[8..12].try_into().unwrap())
    });
    ensure_eq!(marks.collect::<Vec<_>>(), [1, 2, 3]);
    // No verdict of tcx's (TC_ACT_PIPE) ends the chain, but not what follows it.
    b.answer(2, 3)?;
    ensure_eq!(b.fire(&eth0.ingress(), packet())?.1, [2, 4]);
    b.answer(2, 2)?;
    let (fired, ran) = b.fire(&eth0.ingress(), packet())?;
    ensure_eq!((fired.result, ran), (2, vec![2]));
    ensure_eq!(b.fire(&eth0.egress(), packet())?.0.result, -1);
    Ok(())
}

#[test]
fn cgroups_run_their_own_and_what_those_above_let_through() -> Result<()> {
    let mut b = Bench::new()?;
    let top = b.sim.cgroup(b.sim.root_cgroup(), "top")?;
    let leaf = b.sim.cgroup(top, "leaf")?;
    let what = AttachType::CgroupInetEgress;
    let by_link = |flags| AttachOpts {
        flags,
        ..AttachOpts::default()
    };
    b.bpf
        .program_mut("egress1")?
        .attach_cgroup(top, &by_link(0))?;
    let second = b
        .bpf
        .program_mut("egress2")?
        .attach_cgroup(leaf, &by_link(0))?;
    let before = AttachOpts {
        flags: attach_flags::BEFORE,
        relative: Some(second.relative()),
        ..AttachOpts::default()
    };
    b.bpf.program_mut("egress3")?.attach_cgroup(leaf, &before)?;
    for who in 1..=4 {
        b.answer(who, 1)?;
    }
    let (fired, ran) = b.fire(&leaf.hook(what), packet())?;
    ensure_eq!((fired.result, ran), (0, vec![3, 2, 1]));
    ensure_eq!(b.fire(&top.hook(what), packet())?.1, [1]);
    // All run, whatever one says; congestion is told apart (NET_XMIT_CN, NET_XMIT_DROP).
    b.answer(3, 0)?;
    let (fired, ran) = b.fire(&leaf.hook(what), packet())?;
    ensure_eq!((fired.result, ran), (EPERM, vec![3, 2, 1]));
    b.answer(3, 3)?;
    ensure_eq!(b.fire(&leaf.hook(what), packet())?.0.result, 2);
    b.answer(1, 0)?;
    ensure_eq!(b.fire(&leaf.hook(what), packet())?.0.result, 1);
    // BPF_F_PREORDER: before those of cgroups below.
    let pre = by_link(attach_flags::PREORDER);
    let link = b.bpf.program_mut("egress4")?.attach_cgroup(top, &pre)?;
    ensure_eq!(b.fire(&leaf.hook(what), packet())?.1, [4, 3, 2, 1]);
    // The cgroup goes, and its links with it.
    leaf.remove(&b.sim).unwrap();
    ensure!(link.is_attached() && !second.is_attached());
    ensure_eq!(second.detach(), Err(Errno::ENOLINK));
    ensure!(matches!(
        b.sim.fire(&leaf.hook(what), packet()),
        Err(Error::Fire { .. })
    ));
    Ok(())
}

#[test]
fn flags_of_programs_at_a_cgroup_say_who_may_come() -> Result<()> {
    let mut b = Bench::new()?;
    let top = b.sim.cgroup(b.sim.root_cgroup(), "top")?;
    let leaf = b.sim.cgroup(top, "leaf")?;
    let what = AttachType::CgroupInetEgress;
    let mut attach = |name: &str, cgroup: bpfsim::Cgroup, flags| {
        let opts = AttachOpts {
            flags,
            legacy: true,
            ..AttachOpts::default()
        };
        b.bpf.program_mut(name)?.attach_cgroup(cgroup, &opts)
    };
    // Alone: nobody below.
    let alone = attach("egress1", top, 0)?;
    ensure_eq!(errno(attach("egress2", leaf, 0)), Some(Errno::EPERM));
    ensure_eq!(
        errno(attach("egress2", top, attach_flags::ALLOW_MULTI)),
        Some(Errno::EPERM)
    );
    alone.detach().unwrap();
    // With override: another one below, instead.
    attach("egress1", top, attach_flags::ALLOW_OVERRIDE)?;
    attach("egress2", leaf, attach_flags::ALLOW_OVERRIDE)?;
    // Another one in the place of the first.
    let three = attach("egress3", leaf, attach_flags::ALLOW_OVERRIDE)?;
    let both = attach_flags::ALLOW_OVERRIDE | attach_flags::ALLOW_MULTI;
    ensure_eq!(errno(attach("egress4", leaf, both)), Some(Errno::EINVAL));
    ensure_eq!(b.fire(&leaf.hook(what), packet())?.1, [3]);
    three.detach().unwrap();
    ensure_eq!(b.fire(&leaf.hook(what), packet())?.1, [1]);
    Ok(())
}

#[test]
fn tracepoints_run_all_and_events_are_recorded_if_all_say_so() -> Result<()> {
    let mut b = Bench::new()?;
    b.attach(&["raw", "typed", "event1", "event2"])?;
    let args = ProgramInput::args([Arg::Value(0), Arg::Value(257)]);
    ensure_eq!(
        b.fire(&Hook::raw_tracepoint("sys_enter"), args)?.1,
        [13, 14]
    );
    ensure_eq!((b.saw(13)?, b.saw(14)?), (257, 257));
    let mut record = [0; 64];
    record[24..32].copy_from_slice(&0x1234u64.to_le_bytes());
    let hook = Hook::tracepoint("syscalls", "sys_enter_openat");
    b.answer(15, 1)?;
    let (fired, ran) = b.fire(&hook, ProgramInput::context(&record))?;
    ensure_eq!((fired.result, ran, b.saw(16)?), (0, vec![15, 16], 0x1234));
    b.answer(16, 1)?;
    ensure_eq!(b.fire(&hook, ProgramInput::context(&record))?.0.result, 1);
    ensure_eq!(errno(b.attach(&["event1"])), Some(Errno::EEXIST));
    Ok(())
}

#[test]
fn sockets_are_looked_up_by_all_programs() -> Result<()> {
    let mut b = Bench::new()?;
    b.bpf.program_mut("lookup1")?.attach_netns()?;
    b.bpf.program_mut("lookup2")?.attach_netns()?;
    let mut ctx = [0; 72];
    ctx[8..12].copy_from_slice(&2u32.to_le_bytes());
    ctx[60..64].copy_from_slice(&80u32.to_le_bytes());
    b.answer(19, 1)?;
    let (fired, ran) = b.fire(&Hook::SkLookup, ProgramInput::context(&ctx))?;
    ensure_eq!((fired.result, ran, b.saw(18)?), (0, vec![18, 19], 80));
    b.answer(18, 1)?;
    ensure_eq!(
        b.fire(&Hook::SkLookup, ProgramInput::context(&ctx))?
            .0
            .result,
        1
    );
    Ok(())
}

#[test]
fn netfilter_runs_by_priority_until_one_drops() -> Result<()> {
    let mut b = Bench::new()?;
    b.bpf.program_mut("guard1")?.attach_netfilter(2, 1, 10)?;
    let mut second = b.bpf.program_mut("guard2")?;
    ensure_eq!(errno(second.attach_netfilter(2, 1, 10)), Some(Errno::EBUSY));
    second.attach_netfilter(2, 1, -10)?;
    let hook = Hook::Netfilter { family: 2, hook: 1 };
    let (fired, ran) = b.fire(&hook, packet())?;
    ensure_eq!((fired.result, ran, b.saw(30)?), (0, vec![30], 50));
    b.answer(30, 1)?;
    b.answer(29, 1)?;
    let (fired, ran) = b.fire(&hook, packet())?;
    ensure_eq!((fired.result, ran, b.saw(29)?), (1, vec![30, 29], 0x102));
    Ok(())
}

#[test]
fn the_kernel_calls_members_of_structs() -> Result<()> {
    let mut b = Bench::new()?;
    let greedy = b.bpf.map("greedy")?;
    let ops = greedy.attach_struct_ops()?;
    let args = ProgramInput::args([Arg::Value(1), Arg::Value(2), Arg::Value(3)]);
    ensure_eq!(ops.call("undo_cwnd", args.clone())?.result, 77);
    ensure_eq!(ops.call("cong_avoid", args.clone())?.runs.len(), 1);
    ensure_eq!((b.ran()?, b.saw(22)?), (vec![20, 22], 3));
    // One without a program is the kernel's own.
    ensure_eq!(
        ops.call("min_tso_segs", args.clone().returning(2))?.result,
        2
    );
    let missing = ops.call("undo_cwn", args.clone());
    ensure!(matches!(&missing, Err(Error::NotFound { near, .. }) if near[0] == "undo_cwnd"));
    ops.detach()?;
    ensure!(matches!(
        ops.call("undo_cwnd", args),
        Err(Error::Fire { .. })
    ));
    Ok(())
}

#[test]
fn what_cannot_be_attached_is_said_by_name() -> Result<()> {
    let mut b = Bench::new()?;
    let eth0 = b.sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    let text = |r: Result<Link>| r.err().map(|e| e.to_string()).unwrap_or_default();
    let no_target = text(b.bpf.program_mut("drop_all")?.attach());
    ensure!(
        no_target.contains("`drop_all`") && no_target.contains("`xdp`"),
        "{no_target}"
    );
    b.bpf.program_mut("drop_all")?.attach_xdp(eth0)?;
    ensure_eq!(
        errno(b.bpf.program_mut("count_packet")?.attach_xdp(eth0)),
        Some(Errno::EBUSY)
    );
    let mut program = b.bpf.program_mut("entry1")?;
    ensure_eq!(
        errno(program.attach_kprobe(false, "no_such_function")),
        Some(Errno::ENOENT)
    );
    ensure_eq!(errno(program.attach_to(eth0.xdp())), Some(Errno::EINVAL));
    let ops = text(b.bpf.program_mut("greedy_undo_cwnd")?.attach());
    ensure!(ops.contains("unsupported") && ops.contains("map"), "{ops}");
    let many = b.bpf.program_mut("many")?.attach()?;
    let call = ProgramInput::args([Arg::Value(7)]);
    b.fire(
        &Hook::function("security_bprm_creds_for_exec"),
        call.clone(),
    )?;
    ensure_eq!(b.saw(12)?, 7);
    many.detach().unwrap();
    ensure_eq!(
        b.fire(&Hook::function("security_bprm_check"), call)?
            .1
            .len(),
        0
    );
    Ok(())
}

/// An interrupt comes over a program only where it is let in, and what it does in between is seen.
#[test]
fn interrupts_come_over_what_runs_below() {
    let test = |level| {
        move |sim: &Sim| {
            let mut bpf = Ebpf::load(sim, OBJECT)?;
            bpf.program_mut("count_above")?.attach_perf_event(1)?;
            let below = bpf.program("count_below")?;
            sim.spawn_on(Cpu(0), below, ProgramInput::empty())?;
            let above = ProgramInput::context(&[0; 200]).at_level(level);
            let job = sim.fire_on(Cpu(0), &Hook::PerfEvent(1), above)?;
            sim.run_until_idle()?;
            ensure!(sim.fired(job).is_some());
            ensure_eq!(bpf.global::<u64>("counter")?, 2);
            sim.finish()
        }
    };
    for level in [Level::Softirq, Level::Hardirq, Level::Nmi] {
        check(test(level)).unwrap();
        let runner = Runner::new().executions(200).regressions(None);
        let lost = runner.check(test(level)).unwrap_err();
        assert!(lost.to_string().contains("counter"), "{lost}");
    }
    // In a task of the same CPU it waits for the other to end.
    check_exhaustive(test(Level::Task)).unwrap();
}

/// What a lock keeps off comes as soon as the lock is given back, and not only with what the program does
/// next, or after its end.
#[test]
fn interrupts_come_straight_after_a_lock() {
    let test = |sim: &Sim| {
        let mut bpf = Ebpf::load(sim, OBJECT)?;
        bpf.program_mut("count_above")?.attach_perf_event(1)?;
        let models = Ebpf::load(sim, MODELS)?;
        let locked = models.program("locked")?;
        sim.spawn_on(Cpu(0), locked, ProgramInput::empty())?;
        let above = ProgramInput::context(&[0; 200]).at_level(Level::Hardirq);
        sim.fire_on(Cpu(0), &Hook::PerfEvent(1), above)?;
        sim.run_until_idle()
    };
    let all = Strategy::Bounded {
        preemptions: u64::MAX,
    };
    let outcome = Runner::new().strategy(all).run(test);
    // Before the program, before its look-up, before and after each of ten locks, and before and after its task
    // is in user mode again.
    assert!(outcome.complete);
    assert_eq!(outcome.counts.executions, 1 + 1 + 20 + 2);
}

/// A program that executes, or one like it, keeps others from running on its CPU.
#[test]
fn kprobes_and_events_do_not_nest_but_packets_do() {
    let runs = std::sync::Mutex::new((0, 0, 0));
    let test = |sim: &Sim| {
        let mut bpf = Ebpf::load(sim, OBJECT)?;
        bpf.program_mut("entry1")?.attach()?;
        bpf.program_mut("count_above")?.attach_perf_event(1)?;
        let eth0 = sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
        bpf.program_mut("count_packet")?.attach_xdp(eth0)?;
        let call = ProgramInput::args([Arg::Value(0)]);
        let below = sim.fire_on(Cpu(0), &Hook::function("security_bprm_check"), call)?;
        let event = ProgramInput::context(&[0; 200]);
        let event = sim.fire_on(Cpu(0), &Hook::PerfEvent(1), event)?;
        let packet = sim.fire_on(Cpu(0), &eth0.xdp(), packet())?;
        sim.run_until_idle()?;
        let ran = |job| sim.fired(job).map(|f| f.runs[0].output.is_some());
        ensure_eq!((ran(below), ran(packet)), (Some(true), Some(true)));
        let mut runs = runs.lock().unwrap();
        match ran(event) {
            Some(true) => runs.0 += 1,
            Some(false) => runs.1 += 1,
            None => runs.2 += 1,
        }
        Ok(())
    };
    check_random(test, 200).unwrap();
    let (ran, missed, never) = *runs.lock().unwrap();
    assert!(
        ran > 0 && missed > 0 && never == 0,
        "{ran} {missed} {never}"
    );
}

/// In an NMI there are no timers (SEMANTICS 1.2), elsewhere there are.
#[test]
fn helpers_answer_by_level() -> Result<()> {
    for (level, answer) in [(Level::Hardirq, 0), (Level::Nmi, -95)] {
        let mut b = Bench::new()?;
        b.attach(&["arm"])?;
        let call = ProgramInput::args([Arg::Value(0)]).at_level(level);
        b.fire(&Hook::function("security_bprm_check"), call)?;
        ensure_eq!(b.saw(17)? as i64, answer);
    }
    Ok(())
}

/// While an update waits for the callback of the timer that it frees it holds its bucket's lock. What
/// comes over it on its own CPU - an NMI, since interrupts are off - is told so; on the CPU of the
/// callback an NMI gives up after a quarter of a second.
#[test]
fn an_nmi_does_not_wait_for_the_lock_that_it_came_over() {
    const EEXIST: i64 = -17;
    const EDEADLK: i64 = -35;
    const ETIMEDOUT: i64 = -110;
    let answers = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let test = |cpu: Cpu| {
        let answers = &answers;
        move |sim: &Sim| {
            let mut bpf = Ebpf::load(sim, OBJECT)?;
            bpf.program_mut("put_above")?.attach()?;
            sim.spawn_on(Cpu(1), bpf.program("arm_later")?, ProgramInput::empty())?;
            sim.run_until_idle()?;
            sim.spawn_on(Cpu(0), bpf.program("put_below")?, ProgramInput::empty())?;
            let above = ProgramInput::args([Arg::Value(0)]).at_level(Level::Nmi);
            let job = sim.fire_on(cpu, &Hook::function("security_bprm_check"), above)?;
            sim.run_for(bpfsim::millis(2))?;
            sim.run_until_idle()?;
            ensure!(sim.fired(job).is_some());
            let answer = bpf.global::<[u64; 32]>("saw")?[31] as i64;
            answers.lock().unwrap().insert((cpu, answer));
            sim.finish()
        }
    };
    for cpu in [Cpu(0), Cpu(1)] {
        let runner = Runner::new().executions(600).regressions(None);
        runner.check(test(cpu)).unwrap();
    }
    let expected = [
        (Cpu(0), EDEADLK),
        (Cpu(0), EEXIST),
        (Cpu(1), ETIMEDOUT),
        (Cpu(1), EEXIST),
    ];
    assert_eq!(answers.into_inner().unwrap(), expected.into());
}
