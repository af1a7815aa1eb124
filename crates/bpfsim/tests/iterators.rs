//! Iterators read as files. Linux is not asked, since nothing is attached to the machine that runs
//! this: what is expected here is what its sources say.

use bpfsim::{
    Arg, AttachError, AttachOpts, CgroupOrder, Cpu, Ebpf, Errno, Error, Hook, IterInfo, Link,
    NsKind, ProgramInput, Result, Sim, SockSpec, SockState, check_exhaustive, ensure, ensure_eq,
};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/iterators.bpf.o");

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

    fn attach(&mut self, program: &str, iter: IterInfo) -> Result<Link> {
        let opts = AttachOpts {
            iter,
            ..AttachOpts::default()
        };
        self.bpf.program_mut(program)?.attach_with(&[], &opts)
    }

    fn read(&mut self, program: &str, iter: IterInfo) -> Result<String> {
        let link = self.attach(program, iter)?;
        let text = self.sim.read_iter(&link);
        link.detach().unwrap();
        text
    }

    fn over_map(&self, map: &str) -> Result<IterInfo> {
        Ok(IterInfo {
            map: Some(self.bpf.map(map)?.id()),
            ..IterInfo::default()
        })
    }
}

fn refused<T>(result: Result<T>) -> Option<Errno> {
    match result {
        Err(Error::Attach {
            error: AttachError::Refused { errno, .. },
            ..
        }) => Some(errno),
        Err(Error::Iter { errno }) => Some(errno),
        _ => None,
    }
}

/// By pid: kworkers, the test, and those that it makes.
#[test]
fn tasks_come_by_number_and_an_end() -> Result<()> {
    let mut b = Bench::new()?;
    let web = b.sim.task("nginx").pid(2000).user()?;
    b.sim.task("thread").pid(1500).tgid(2000).user()?;
    let all = b.read("tasks", IterInfo::default())?;
    let expected = "0: 10/10 kworker/0:1\n1: 11/11 kworker/1:1\n2: 1000/1000 test\n\
                    3: 1500/2000 thread\n4: 2000/2000 nginx\nend 4\n";
    ensure_eq!(all, expected);
    // Each file is a session.
    let link = b.attach("tasks", IterInfo::default())?;
    b.sim.read_iter(&link)?;
    let first: u64 = b.bpf.global("session")?;
    b.sim.read_iter(&link)?;
    ensure_eq!(b.bpf.global::<u64>("session")?, first + 1);
    let only = |tid, pid| IterInfo {
        tid,
        pid,
        ..IterInfo::default()
    };
    ensure_eq!(
        b.read("tasks", only(1500, 0))?,
        "0: 1500/2000 thread\nend 0\n"
    );
    let both = "0: 1500/2000 thread\n1: 2000/2000 nginx\nend 1\n";
    ensure_eq!(b.read("tasks", only(0, 2000))?, both);
    ensure_eq!(
        refused(b.attach("tasks", only(1500, 2000))),
        Some(Errno::EINVAL)
    );
    ensure_eq!(b.read("tasks", only(7, 0))?, "end 0\n");
    // A zombie is still there, what is reaped is not.
    web.exit(&b.sim).unwrap();
    ensure_eq!(
        b.read("tasks", only(2000, 0))?,
        "0: 2000/2000 nginx\nend 0\n"
    );
    web.reap(&b.sim).unwrap();
    ensure_eq!(b.read("tasks", only(2000, 0))?, "end 0\n");
    b.sim.finish()
}

#[test]
fn a_read_gives_what_there_is_and_goes_on_from_there() -> Result<()> {
    let mut b = Bench::new()?;
    let link = b.attach("tasks", IterInfo::default())?;
    let file = link.open_iter()?;
    // One object is enough for ten bytes; what was written beyond them comes next.
    ensure_eq!(file.read(10)?, b"0: 10/10 k");
    ensure_eq!(b.bpf.global::<u32>("calls")?, 1);
    ensure_eq!(file.read(100)?, b"worker/0:1\n");
    ensure_eq!(b.bpf.global::<u32>("calls")?, 1);
    ensure_eq!(
        file.read(4096)?,
        b"1: 11/11 kworker/1:1\n2: 1000/1000 test\nend 2\n"
    );
    // The end is told once.
    ensure_eq!(
        (file.read(4096)?, b.bpf.global::<u32>("calls")?),
        (vec![], 4)
    );
    file.close()?;
    ensure_eq!(refused(file.read(1)), Some(Errno::EBADF));
    ensure_eq!(refused(file.close()), Some(Errno::EBADF));
    // An object that the program wants again: the read ends before it, and what it wrote is gone.
    b.bpf.set_global("retry_pid", &11u32)?;
    b.bpf.set_global("retries", &1u32)?;
    let file = link.open_iter()?;
    ensure_eq!(file.read(4096)?, b"0: 10/10 kworker/0:1\n");
    ensure_eq!(
        file.read(4096)?,
        b"1: 11/11 kworker/1:1\n2: 1000/1000 test\nend 2\n"
    );
    b.bpf.set_global("retries", &1000u32)?;
    let file = link.open_iter()?;
    file.read(4096)?;
    ensure_eq!(refused(file.read(4096)), Some(Errno::EAGAIN));
    b.bpf.set_global("retries", &0u32)?;
    ensure!(!file.read(4096)?.is_empty());
    // The link can go before the file, not before it is opened.
    link.detach().unwrap();
    ensure!(file.read_to_end()?.is_empty());
    ensure_eq!(refused(link.open_iter()), Some(Errno::ENOLINK));
    b.sim.finish()
}

#[test]
fn a_sequence_file_holds_eight_pages() -> Result<()> {
    let mut b = Bench::new()?;
    // Seven of them and a line: the second object does not fit, and comes with the next read.
    b.bpf.set_global("padding", &7u32)?;
    let link = b.attach("tasks", IterInfo::default())?;
    let file = link.open_iter()?;
    let first = file.read(1 << 20)?;
    ensure_eq!(first.len(), 7 * 4096 + "0: 10/10 kworker/0:1\n".len());
    ensure_eq!(b.bpf.global::<i64>("wrote")?, -75);
    ensure!(file.read(1 << 20)?.ends_with(b"1: 11/11 kworker/1:1\n"));
    ensure!(file.read(1 << 20)?.ends_with(b"2: 1000/1000 test\nend 2\n"));
    // One that does not fit alone is an error.
    b.bpf.set_global("padding", &8u32)?;
    ensure_eq!(refused(b.sim.read_iter(&link)), Some(Errno::E2BIG));
    // Of cgroups all is read at once.
    let order = IterInfo {
        order: Some(CgroupOrder::DescendantsPre),
        ..IterInfo::default()
    };
    b.sim.cgroup(b.sim.root_cgroup(), "web")?;
    b.bpf.set_global("padding", &7u32)?;
    let file = b.attach("cgroups", order)?.open_iter()?;
    file.read(1 << 20)?;
    ensure_eq!(refused(file.read(1 << 20)), Some(Errno::EOPNOTSUPP));
    b.sim.finish()
}

#[test]
fn files_and_memory_of_tasks() -> Result<()> {
    let mut b = Bench::new()?;
    let [log, conf] = [b.sim.file("/var/log/web")?, b.sim.file("/etc/web.conf")?];
    let web = b.sim.task("nginx").pid(2000).user()?;
    let thread = b.sim.task("thread").pid(2001).tgid(2000).user()?;
    let fds = [log, conf, log].map(|f| web.open(&b.sim, f).unwrap());
    ensure_eq!(fds, [0, 1, 2]);
    web.close(&b.sim, 1).unwrap();
    ensure_eq!(web.close(&b.sim, 1), Err(Errno::EBADF));
    ensure_eq!(thread.open(&b.sim, conf), Ok(1));
    thread.close(&b.sim, 1).unwrap();
    // A thread that shares its files is passed over, unless it is asked for.
    let all = "0: 2000 has 0\n1: 2000 has 2\nend 1\n";
    ensure_eq!(b.read("files", IterInfo::default())?, all);
    let alone = IterInfo {
        tid: 2001,
        ..IterInfo::default()
    };
    ensure_eq!(
        b.read("files", alone)?,
        "0: 2001 has 0\n1: 2001 has 2\nend 1\n"
    );
    b.sim.write_user(web, 0x5000, &[1; 0x1800]);
    b.sim.write_user(web, 0x9000, &[1]);
    let areas = "0: 2000 5000-7000\n1: 2000 9000-a000\n";
    ensure_eq!(b.read("areas", IterInfo::default())?, areas);
    web.exit(&b.sim).unwrap();
    ensure_eq!(b.read("areas", IterInfo::default())?, "");
    ensure_eq!(b.read("files", IterInfo::default())?, "end 0\n");
    b.sim.finish()
}

#[test]
fn elements_of_maps() -> Result<()> {
    let mut b = Bench::new()?;
    let (hash, array, percpu) = (
        b.bpf.map("hash")?,
        b.bpf.map("array")?,
        b.bpf.map("percpu")?,
    );
    hash.set(&7u32, &70u64)?;
    array.set(&1u32, &10u64)?;
    let over = b.over_map("array")?;
    ensure_eq!(
        b.read("elements", over)?,
        "0: 0=0\n1: 1=10\n2: 2=0\nend of array\n"
    );
    // The elements themselves were given.
    ensure_eq!(array.get::<u32, u64>(&1)?, Some(110));
    let over = b.over_map("hash")?;
    ensure_eq!(b.read("elements", over)?, "0: 7=70\nend of hash\n");
    ensure_eq!(hash.get::<u32, u64>(&7)?, Some(170));
    // Of each CPU a copy.
    let mut both = 3u64.to_le_bytes().to_vec();
    both.extend(4u64.to_le_bytes());
    percpu.update(&5u32.to_le_bytes(), &both, 0)?;
    let over = b.over_map("percpu")?;
    ensure_eq!(b.read("both_cpus", over)?, "5=3,4\n");
    ensure_eq!(b.read("elements", over)?, "0: 5=3\nend of percpu\n");
    ensure_eq!(percpu.lookup(&5u32.to_le_bytes())?, Some(both));
    // What the verifier saw must be there.
    ensure_eq!(
        refused(b.attach("elements", IterInfo::default())),
        Some(Errno::EBADF)
    );
    let narrow = b.over_map("narrow")?;
    ensure_eq!(refused(b.attach("elements", narrow)), Some(Errno::EACCES));
    let over = b.over_map("hash")?;
    ensure_eq!(refused(b.attach("both_cpus", over)), Some(Errno::EACCES));
    let ring = b.over_map("ring")?;
    ensure_eq!(refused(b.attach("elements", ring)), Some(Errno::EINVAL));
    b.sim.finish()
}

#[test]
fn maps_programs_and_links() -> Result<()> {
    let mut b = Bench::new()?;
    let maps = b.read("maps", IterInfo::default())?;
    let named: Vec<&str> = maps
        .lines()
        .filter_map(|l| l.split(' ').next_back())
        .collect();
    for name in ["hash", "array", "percpu", "ring"] {
        ensure!(named.contains(&name), "{maps}");
    }
    ensure!(maps.starts_with("0: 1 "), "{maps}");
    let programs = b.read("programs", IterInfo::default())?;
    ensure!(
        programs
            .lines()
            .any(|l| l.ends_with(" tasks bpf_iter_task")),
        "{programs}"
    );
    // Two links of one program, one gone: the link of the iterator itself is among them.
    let one = b.attach("tasks", IterInfo::default())?;
    let two = b.attach("tasks", IterInfo::default())?;
    one.detach().unwrap();
    let links = b.read("links", IterInfo::default())?;
    let ids: Vec<&str> = links.lines().filter_map(|l| l.split(": ").nth(1)).collect();
    ensure_eq!(ids.len(), 2);
    let is = |id: &str, name: &str| {
        let line = format!("{id} {name} ");
        programs.lines().any(|l| l.starts_with(&line))
    };
    ensure!(
        is(ids[0], "tasks") && is(ids[1], "links"),
        "{links}{programs}"
    );
    two.detach().unwrap();
    b.sim.finish()
}

#[test]
fn cgroups_in_each_order() -> Result<()> {
    let mut b = Bench::new()?;
    let root = b.sim.root_cgroup();
    let system = b.sim.cgroup(root, "system")?;
    let [web, db] = [b.sim.cgroup(system, "web")?, b.sim.cgroup(system, "db")?];
    let id = |c: bpfsim::Cgroup| c.id(&b.sim);
    let [r, s, w, d] = [root, system, web, db].map(id);
    let from = |cgroup: bpfsim::Cgroup, order| IterInfo {
        cgroup: Some(cgroup.key()),
        order,
        ..IterInfo::default()
    };
    let listed = |ids: &[u64]| {
        let lines = ids.iter().enumerate().map(|(i, id)| format!("{i}: {id}\n"));
        lines.collect::<String>() + &format!("end {}\n", ids.len() - 1)
    };
    let cases = [
        (system, CgroupOrder::SelfOnly, vec![s]),
        (system, CgroupOrder::DescendantsPre, vec![s, w, d]),
        (system, CgroupOrder::DescendantsPost, vec![w, d, s]),
        (web, CgroupOrder::AncestorsUp, vec![w, s, r]),
    ];
    for (cgroup, order, ids) in &cases {
        ensure_eq!(b.read("cgroups", from(*cgroup, Some(*order)))?, listed(ids));
    }
    ensure_eq!(
        refused(b.attach("cgroups", from(web, None))),
        Some(Errno::EINVAL)
    );
    // A program ends it by returning 1; it is told of the end.
    b.bpf.set_global("last_cgroup", &w)?;
    let post = from(system, Some(CgroupOrder::DescendantsPost));
    ensure_eq!(b.read("cgroups", post)?, listed(&[w]));
    // One that goes after it was attached is passed over, unseen.
    let link = b.attach("cgroups", from(db, Some(CgroupOrder::SelfOnly)))?;
    db.remove(&b.sim).unwrap();
    ensure_eq!(b.sim.read_iter(&link)?, "end 0\n");
    b.sim.finish()
}

#[test]
fn sockets_of_the_namespace() -> Result<()> {
    let mut b = Bench::new()?;
    let (here, there) = (
        "10.0.0.1:80".parse().unwrap(),
        "10.0.0.2:90".parse().unwrap(),
    );
    let stream = b.sim.tcp_stream(here, there)?;
    b.sim.tcp_listener("0.0.0.0:443".parse().unwrap())?;
    b.sim.udp_socket("10.0.0.1:53".parse().unwrap())?;
    let away = b.sim.namespace(NsKind::Net)?;
    let mut other = SockSpec::new(6, here, SockState::Listen);
    (other.netns, other.uid) = (Some(away.id()), 33);
    b.sim.sock(other)?;
    ensure_eq!(
        b.read("tcp", IterInfo::default())?,
        "0: 443 10 0\n1: 80 1 0\n"
    );
    ensure_eq!(b.read("udp", IterInfo::default())?, "0: 53\n");
    stream.close(&b.sim);
    ensure_eq!(b.read("tcp", IterInfo::default())?, "0: 443 10 0\n");
    // Who opens it elsewhere sees what is there.
    b.sim.main_task().enter(&b.sim, away).unwrap();
    ensure_eq!(b.read("tcp", IterInfo::default())?, "0: 80 10 33\n");
    b.sim.finish()
}

#[test]
fn sockets_of_maps() -> Result<()> {
    let mut b = Bench::new()?;
    let [one, two] = ["10.0.0.1:80", "10.0.0.1:81"].map(|a| a.parse().unwrap());
    let there = "10.0.0.2:90".parse().unwrap();
    let socks = [b.sim.tcp_stream(one, there)?, b.sim.tcp_stream(two, there)?];
    let (storage, hash) = (b.bpf.map("storage")?, b.bpf.map("socks")?);
    for (i, sock) in socks.iter().enumerate() {
        let fd = sock.fd(&b.sim);
        storage.update(&fd.to_le_bytes(), &(7 + i as u64).to_le_bytes(), 0)?;
        let value = u64::from(fd).to_le_bytes();
        hash.update(&(i as u32).to_le_bytes(), &value, 0)?;
    }
    let over = b.over_map("storage")?;
    ensure_eq!(b.read("storages", over)?, "0: 80 has 7\n1: 81 has 8\n");
    ensure_eq!(refused(b.attach("members", over)), Some(Errno::EINVAL));
    let over = b.over_map("socks")?;
    let mut text: Vec<String> = b
        .read("members", over)?
        .lines()
        .map(str::to_string)
        .collect();
    text.sort_by_key(|line| line.split(": ").nth(1).map(str::to_string));
    let said: Vec<&str> = text.iter().filter_map(|l| l.split(": ").nth(1)).collect();
    ensure_eq!(said, ["0 is 80", "1 is 81"]);
    // A socket that is closed leaves both.
    socks[0].close(&b.sim);
    ensure_eq!(b.read("members", over)?, "0: 1 is 81\n");
    let over = b.over_map("storage")?;
    ensure_eq!(b.read("storages", over)?, "0: 81 has 8\n");
    b.sim.finish()
}

/// What is put in meanwhile is seen or not, by where the iterator is.
#[test]
fn others_come_between_objects() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let test = |sim: &Sim| {
        let mut bpf = Ebpf::load(sim, OBJECT)?;
        let hash = bpf.map("hash")?;
        for key in [1u32, 3] {
            hash.set(&key, &u64::from(key))?;
        }
        let opts = AttachOpts {
            iter: IterInfo {
                map: Some(hash.id()),
                ..IterInfo::default()
            },
            ..AttachOpts::default()
        };
        let link = bpf.program_mut("elements")?.attach_with(&[], &opts)?;
        let file = link.open_iter()?;
        let text = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let to = text.clone();
        sim.spawn_user(Cpu(0), async move |user| {
            *to.borrow_mut() = user.read_iter(&file, 4096).await.unwrap();
            Ok(())
        })?;
        sim.spawn_on(Cpu(1), bpf.program("put_more")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        let text = String::from_utf8_lossy(&text.borrow()).into_owned();
        let lines = text.lines().filter(|l| l.contains('=')).count();
        ensure!(lines == 2 || lines == 3, "{text}");
        ensure_eq!(hash.len(), 3);
        seen.lock().unwrap().insert(lines);
        sim.finish()
    };
    check_exhaustive(test).unwrap();
    assert_eq!(
        seen.lock().unwrap().len(),
        2,
        "in some orders two, in others three"
    );
}

#[test]
fn what_there_is_nothing_of_is_said_by_name() -> Result<()> {
    let mut b = Bench::new()?;
    // Objects that a test makes up can be given, a whole cannot be read.
    let symbols = b.attach("symbols", IterInfo::default())?;
    let one = ProgramInput::args([Arg::Value(0), Arg::Value(0)]);
    ensure_eq!(b.sim.fire(&Hook::Iter("ksym".into()), one)?.runs.len(), 1);
    let text = b.sim.read_iter(&symbols).err().map(|e| e.to_string());
    let text = text.unwrap_or_default();
    ensure!(text.contains("unsupported: iterators over ksym"), "{text}");
    // A program is for what it was loaded for; a link of something else is no iterator.
    let mut program = b.bpf.program_mut("tasks")?;
    let other = program.attach_to(Hook::Iter("ksym".into()));
    ensure_eq!(refused(other), Some(Errno::EINVAL));
    let mut hooks = Ebpf::load(&b.sim, include_bytes!("../../../fixtures/hooks.bpf.o"))?;
    let kprobe = hooks.program_mut("entry1")?.attach()?;
    ensure_eq!(refused(kprobe.open_iter()), Some(Errno::EINVAL));
    Ok(())
}
