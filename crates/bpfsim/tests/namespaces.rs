//! What programs see of the namespaces of tasks and sockets, as Linux's sources say: nothing of it
//! is asked of the machine that runs this.

use bpfsim::{
    AttachType, Ebpf, Hook, Namespace, NsKind, ProgramInput, Result, Sim, SockSpec, SockState,
    Task, ensure, ensure_eq,
};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/namespaces.bpf.o");
const EINVAL: i64 = -22;

fn ask(sim: &Sim, bpf: &mut Ebpf, task: Task, about: Namespace) -> Result<(i64, [u32; 2])> {
    let (dev, ino) = about.file(sim);
    bpf.set_global("dev", &dev)?;
    bpf.set_global("ino", &ino)?;
    task.test_run(sim, &bpf.program_mut("who")?, ProgramInput::empty())?;
    Ok((bpf.global("result")?, bpf.global("info")?))
}

#[test]
fn tasks_have_numbers_in_each_namespace_that_they_are_in() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let initial = sim.initial_namespace(NsKind::Pid);
    let outer = sim.namespace(NsKind::Pid)?;
    let inner = outer.below(&sim)?;
    let init = sim.task("init").namespace(outer).user()?;
    let shell = sim.task("sh").namespace(outer).user()?;
    let thread = sim
        .task("sh/2")
        .parent(shell)
        .tgid(shell.pid(&sim))
        .user()?;
    let deep = sim.task("deep").namespace(inner).user()?;
    let there = [init, shell, thread, deep].map(|t| t.pid_in(&sim, outer));
    ensure_eq!(there, [1, 2, 3, 4]);
    ensure_eq!(
        (deep.pid_in(&sim, inner), shell.pid_in(&sim, inner)),
        (1, 0)
    );
    ensure_eq!(shell.pid_in(&sim, initial), shell.pid(&sim));
    // Linux tells the numbers in the task's own namespace only.
    ensure_eq!(ask(&sim, &mut bpf, shell, outer)?, (0, [2, 2]));
    ensure_eq!(ask(&sim, &mut bpf, thread, outer)?, (0, [3, 2]));
    ensure_eq!(ask(&sim, &mut bpf, shell, initial)?, (EINVAL, [0, 0]));
    ensure_eq!(ask(&sim, &mut bpf, deep, outer)?, (EINVAL, [0, 0]));
    let main = sim.main_task();
    let own = main.pid(&sim);
    ensure_eq!(ask(&sim, &mut bpf, main, initial)?, (0, [own, own]));
    // What the structures show.
    bpf.set_global("vpid", &1u32)?;
    ask(&sim, &mut bpf, deep, inner)?;
    let inum = |ns: Namespace| ns.file(&sim).1 as u32;
    ensure_eq!(bpf.global::<u32>("level")?, 2);
    ensure_eq!(bpf.global::<u32>("inner_nr")?, 1);
    ensure_eq!(bpf.global::<u32>("inner_inum")?, inum(inner));
    // By number, in who asks' namespace.
    ensure_eq!(bpf.global::<u32>("found_pid")?, deep.pid(&sim));
    ask(&sim, &mut bpf, shell, outer)?;
    ensure_eq!(bpf.global::<u32>("found_pid")?, init.pid(&sim));
    bpf.set_global("vpid", &deep.pid(&sim))?;
    ask(&sim, &mut bpf, shell, outer)?;
    ensure_eq!(bpf.global::<u32>("found_pid")?, 0);
    // A thread is where its group is; a task that is gone has no number.
    let lost = sim.task("lost").tgid(shell.pid(&sim)).user();
    ensure!(lost.is_err());
    deep.exit(&sim).unwrap();
    deep.reap(&sim).unwrap();
    bpf.set_global("vpid", &4u32)?;
    ask(&sim, &mut bpf, shell, outer)?;
    ensure_eq!(bpf.global::<u32>("found_pid")?, 0);
    sim.finish()
}

#[test]
fn tasks_are_in_one_namespace_of_each_kind() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let [uts, net] = [sim.namespace(NsKind::Uts)?, sim.namespace(NsKind::Net)?];
    let user = sim.namespace(NsKind::User)?.below(&sim)?;
    let boxed = sim.task("boxed").namespace(uts).namespace(user).user()?;
    let child = sim.task("child").parent(boxed).user()?;
    let seen = |bpf: &mut Ebpf, task: Task| -> Result<[u32; 4]> {
        ask(&sim, bpf, task, uts)?;
        bpf.global("inums")
    };
    let inum = |ns: Namespace| ns.file(&sim).1 as u32;
    let initial = |kind| inum(sim.initial_namespace(kind));
    // Numbers of the initial ones are Linux's.
    ensure_eq!(
        (initial(NsKind::Uts), initial(NsKind::Net)),
        (0xefff_fffe, 0xefff_fff9)
    );
    let expected = [
        inum(uts),
        initial(NsKind::Pid),
        initial(NsKind::Net),
        inum(user),
    ];
    ensure_eq!(seen(&mut bpf, boxed)?, expected);
    ensure_eq!(seen(&mut bpf, child)?, expected);
    ensure_eq!(bpf.global::<u32>("user_level")?, 2);
    // Into another one, whatever the children are in.
    boxed.enter(&sim, net).unwrap();
    ensure_eq!(seen(&mut bpf, boxed)?[2], inum(net));
    ensure_eq!(seen(&mut bpf, child)?, expected);
    // Into one of pids only those that come after go.
    let pids = sim.namespace(NsKind::Pid)?;
    boxed.enter(&sim, pids).unwrap();
    ensure_eq!(boxed.pid_in(&sim, pids), 0);
    let first = sim.task("first").parent(boxed).user()?;
    ensure_eq!(
        (first.pid_in(&sim, pids), seen(&mut bpf, first)?[2]),
        (1, inum(net))
    );
    let two = sim.task("two").namespace(net).namespace(net).user();
    ensure!(two.is_err());
    // A task that sleeps makes no system call.
    let asleep = sim.task("asleep").sleeping()?;
    ensure!(
        asleep
            .test_run(&sim, &bpf.program_mut("who")?, ProgramInput::empty())
            .is_err()
    );
    sim.finish()
}

#[test]
fn sockets_are_found_in_the_namespace_that_is_asked() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let (here, away) = (
        sim.initial_namespace(NsKind::Net),
        sim.namespace(NsKind::Net)?,
    );
    ensure!(here.cookie(&sim) != away.cookie(&sim));
    let mut spec = SockSpec::new(17, "10.0.0.1:80".parse().unwrap(), SockState::Close);
    spec.netns = Some(away.id());
    let sock = sim.sock(spec)?;
    let packet = || ProgramInput::packet(&[0; 64]);
    let look = |bpf: &mut Ebpf, netns: u64| -> Result<u32> {
        bpf.set_global("netns", &netns)?;
        bpf.program_mut("look")?.test_run(packet())?;
        bpf.global("found")
    };
    // Not in the packet's own, nor by a number that it does not know.
    ensure_eq!((look(&mut bpf, u64::MAX)?, look(&mut bpf, 7)?), (0, 0));
    here.set_id_of(&sim, away, 7).unwrap();
    ensure_eq!((look(&mut bpf, 7)?, look(&mut bpf, 8)?), (1, 0));
    ensure_eq!(look(&mut bpf, 1 << 32 | 7)?, 0);
    let own = (
        bpf.global::<u64>("cookie")?,
        bpf.global::<u64>("no_cookie")?,
    );
    ensure_eq!(own, (here.cookie(&sim), here.cookie(&sim)));
    ensure!(here.set_id_of(&sim, away, 9).is_err());
    // A hook about that socket is there.
    let root = sim.root_cgroup();
    let at = root.hook(AttachType::CgroupInet4PostBind);
    bpf.program_mut("bound")?.attach_to(at.clone())?;
    sim.fire(&at, ProgramInput::empty().with_sock(sock.id()))?;
    ensure_eq!(bpf.global::<u64>("cookie")?, away.cookie(&sim));
    sim.finish()
}

/// A hook happens in a task, where its cgroup and its namespaces are.
#[test]
fn hooks_happen_in_a_task() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/attached.bpf.o"))?;
    let web = sim.cgroup(sim.root_cgroup(), "web")?;
    let nginx = sim.task("nginx").cgroup(web).user()?;
    let at_web = bpfsim::AttachOpts::default();
    bpf.program_mut("bound")?.attach_cgroup(web, &at_web)?;
    let bind = Hook::lsm("socket_bind");
    ensure_eq!(sim.fire(&bind, ProgramInput::empty())?.runs.len(), 0);
    ensure_eq!(
        nginx.fire(&sim, &bind, ProgramInput::empty())?.runs.len(),
        1
    );
    sim.finish()
}
