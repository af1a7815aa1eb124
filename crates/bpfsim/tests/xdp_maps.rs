//! Programs in the values of maps of devices and CPUs run on what XDP redirects to them.
#![allow(clippy::print_stderr)] // the reader of the tests is to be told

use bpfsim::{
    Ebpf, Errno, Error, Fired, ProgramInput, Redirect, RedirectKind, Result, Sim, ensure, ensure_eq,
};
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_testing::linux::{or_skip, skip_loudly};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/xdp_maps.bpf.o");

/// Updates one after another: map, key, first word, program of the second, and what Linux 6.18
/// answers. `send` uses the array of devices, so that only programs without fragments fit into it.
const UPDATES: &[(&str, u32, u32, &str, u16)] = &[
    ("devices", 0, 1, "leave", 0),
    ("devices", 1, 1, "stay", 0),
    ("devices", 1, 0, "stay", 22),
    ("devices", 1, 1, "send", 22),
    ("devices", 1, 1, "arrive", 22),
    ("devices", 1, 1, "leave_frags", 22),
    ("devices", 1, 1, "none", 0),
    ("devices", 1, 0, "none", 0),
    ("devices", 1, 4_000_000, "leave", 22),
    ("device_hash", 7, 1, "leave_frags", 0),
    ("device_hash", 7, 1, "leave", 22),
    ("device_hash", 8, 0, "leave_frags", 22),
    ("device_hash", 8, 1, "none", 0),
    ("cpus", 0, 192, "arrive", 0),
    ("cpus", 0, 192, "leave", 12),
    ("cpus", 0, 192, "send", 12),
    ("cpus", 0, 0, "leave", 0),
    ("cpus", 0, 16385, "arrive", 75),
    ("cpus", 0, 192, "none", 0),
];

fn value(number: u32, prog: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&prog.to_le_bytes());
    bytes
}

#[test]
fn which_programs_maps_take() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    for &(map, key, number, prog, want) in UPDATES {
        let fd = match prog {
            "none" => 0,
            prog => bpf.program_mut(prog)?.fd(),
        };
        let done = bpf
            .map(map)?
            .update(&key.to_le_bytes(), &value(number, fd), 0);
        let errno = match done {
            Ok(()) => 0,
            Err(Error::Map { errno, .. }) => errno.0,
            Err(other) => return Err(other),
        };
        ensure_eq!(
            (map, key, number, prog, errno),
            (map, key, number, prog, want)
        );
        if want == 0 && number != 0 {
            // User space sees the program's id.
            let shown = bpf.map(map)?.lookup(&key.to_le_bytes())?;
            ensure_eq!(shown.as_deref(), Some(&value(number, fd)[..]));
        }
    }
    Ok(())
}

#[test]
fn which_programs_linux_takes() {
    let Some(linux) = or_skip("which_programs_linux_takes") else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly("which_programs_linux_takes", linux.release());
    }
    let facts = KernelFacts::of_this_machine(&linux).unwrap();
    let object = bpfsim_loader::load(OBJECT).unwrap();
    let names: Vec<&str> = object.programs.iter().map(|p| p.name.as_str()).collect();
    let loaded = linux.load_object(&facts, &object, &names).unwrap();
    for &(map, key, number, prog, want) in UPDATES {
        let fd = loaded.program(prog).map_or(0, |p| p.fd() as u32);
        let map = loaded.map(map).unwrap();
        let done = map.update(&key.to_le_bytes(), &value(number, fd), 0);
        let errno = done.err().map_or(0, |errno| errno.0);
        assert_eq!(errno, want, "{key} {number} {prog}");
    }
}

/// A simulation with two devices, and `send` attached to the first.
struct Bench {
    sim: Sim,
    bpf: Ebpf,
    devs: [bpfsim::Netdev; 2],
}

impl Bench {
    fn new(attached: &str) -> Result<Bench> {
        let sim = Sim::new()?;
        let mut bpf = Ebpf::load(&sim, OBJECT)?;
        let devs = [
            sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?,
            sim.netdev("eth1", [2, 0, 0, 0, 0, 2])?,
        ];
        bpf.program_mut(attached)?.attach_xdp(devs[0])?;
        Ok(Bench { sim, bpf, devs })
    }

    fn put(&mut self, map: &str, key: u32, number: u32, prog: &str) -> Result<()> {
        let fd = match prog {
            "" => 0,
            prog => self.bpf.program_mut(prog)?.fd(),
        };
        let map = self.bpf.map(map)?;
        map.update(&key.to_le_bytes(), &value(number, fd), 0)
    }

    fn fire(&mut self, which: u32, flags: u64) -> Result<Fired> {
        self.bpf.set_global("which", &which)?;
        self.bpf.set_global("flags", &flags)?;
        self.bpf.set_global("runs", &0u32)?;
        let packet: Vec<u8> = (0..64).collect();
        self.sim
            .fire(&self.devs[0].xdp(), ProgramInput::packet(&packet))
    }

    fn seen(&self) -> Result<([u64; 6], u32)> {
        Ok((self.bpf.global("seen")?, self.bpf.global("runs")?))
    }
}

/// Names and redirects of the programs that ran.
fn runs(fired: &Fired) -> Vec<(&str, u32, &[Redirect])> {
    let runs = fired.runs.iter();
    let outputs = runs.filter_map(|r| Some((r.name.as_str(), r.output.as_ref()?)));
    outputs
        .map(|(name, out)| (name, out.return_value, out.redirects.as_slice()))
        .collect()
}

#[test]
fn a_program_of_a_device_runs_before_the_packet_leaves() -> Result<()> {
    let mut b = Bench::new("send")?;
    let [eth0, eth1] = b.devs.map(|d| d.ifindex());
    b.put("devices", 0, eth1, "leave")?;
    b.put("devices", 1, eth1, "stay")?;
    b.put("devices", 2, eth1, "")?;
    let fired = b.fire(0, 0)?;
    // It sees both devices, the first queue and the metadata, and what it makes of the packet leaves.
    let here = [eth0.into(), eth1.into(), 0, 64, 0xabcd, 0];
    ensure_eq!(b.seen()?, (here, 1));
    let sent = runs(&fired);
    ensure_eq!(fired.result, 4);
    let [("send", 4, []), ("leave", 2, [redirect])] = sent[..] else {
        panic!("{sent:?}");
    };
    ensure_eq!(
        (redirect.to, redirect.data.len(), redirect.data[0]),
        (0, 60, 4)
    );
    ensure!(matches!(redirect.how, RedirectKind::Map(_)));

    // One that returns something else than XDP_PASS drops it.
    let fired = b.fire(1, 0)?;
    ensure_eq!(b.seen()?, (here, 1));
    let sent = runs(&fired);
    ensure!(
        matches!(sent[..], [("send", 4, []), ("stay", 1, [])]),
        "{sent:?}"
    );

    // Without a program it leaves as it is.
    let fired = b.fire(2, 0)?;
    ensure_eq!(b.seen()?.1, 0);
    let sent = runs(&fired);
    ensure!(
        matches!(sent[..], [("send", 4, [one])] if one.data.len() == 64),
        "{sent:?}"
    );
    Ok(())
}

#[test]
fn what_is_broadcast_runs_each_devices_program() -> Result<()> {
    const BROADCAST: u64 = 8;
    const EXCLUDE_INGRESS: u64 = 16;
    let mut b = Bench::new("send")?;
    let [eth0, eth1] = b.devs.map(|d| d.ifindex());
    b.put("devices", 0, eth0, "stay")?;
    b.put("devices", 1, eth1, "leave")?;
    let fired = b.fire(0, BROADCAST)?;
    let names: Vec<&str> = runs(&fired).iter().map(|(name, ..)| *name).collect();
    ensure_eq!(names, ["send", "stay", "leave"]);
    ensure_eq!(b.seen()?.0[1], u64::from(eth1));
    let fired = b.fire(0, BROADCAST | EXCLUDE_INGRESS)?;
    let names: Vec<&str> = runs(&fired).iter().map(|(name, ..)| *name).collect();
    ensure_eq!(names, ["send", "leave"]);

    let mut b = Bench::new("send_hash")?;
    let [eth0, eth1] = b.devs.map(|d| d.ifindex());
    b.put("device_hash", 70, eth0, "")?;
    b.put("device_hash", 71, eth1, "leave")?;
    let fired = b.fire(71, 0)?;
    ensure_eq!(b.seen()?, ([eth0.into(), eth1.into(), 0, 64, 0, 0], 1));
    ensure!(matches!(
        runs(&fired)[..],
        [("send_hash", 4, []), ("leave", 2, [_])]
    ));
    // To the device without a program it leaves as it is.
    let fired = b.fire(70, BROADCAST)?;
    ensure!(matches!(
        runs(&fired)[..],
        [("send_hash", 4, [_]), ("leave", 2, [_])]
    ));
    Ok(())
}

#[test]
fn a_program_of_a_cpu_runs_there() -> Result<()> {
    let mut b = Bench::new("send")?;
    let [eth0, eth1] = b.devs.map(|d| d.ifindex());
    b.put("cpus", 1, 192, "arrive")?;
    let fired = b.fire(9, 0)?;
    ensure!(matches!(runs(&fired)[..], [("send", 4, [_])]));
    b.sim.run_until_idle()?;
    ensure_eq!(b.seen()?, ([eth0.into(), 0, 0, 64, 0xabcd, 1], 1));

    // From there on to a device, through its program.
    b.put("cpus", 1, 192, "arrive_and_send")?;
    b.put("device_hash", 7, eth1, "leave")?;
    b.fire(9, 0)?;
    b.sim.run_until_idle()?;
    ensure_eq!(b.seen()?, ([eth0.into(), eth1.into(), 0, 64, 0xabcd, 1], 2));
    Ok(())
}

#[test]
fn programs_are_named_by_open_descriptors() -> Result<()> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    bpf.program_mut("leave")?.close()?;
    let fd = bpf.program_mut("leave")?.fd();
    let done = bpf.map("devices")?.update(&[0; 4], &value(1, fd), 0);
    ensure!(
        matches!(
            done,
            Err(Error::Map {
                errno: Errno::EINVAL,
                ..
            })
        ),
        "a program that user space has closed cannot be named"
    );
    Ok(())
}
