//! Programs of routes: what they push around packets, and what they do to segment routing headers.
//! Expectations are our own; what Linux answers without a route is in fixtures/lwt.linux.json.

use bpfsim::{
    AttachError, AttachOpts, Ebpf, Errno, Error, Fired, Hook, LwtHook, ProgramInput, Result, Route,
    RouteKind, Sim, ensure_eq,
};
use std::net::{IpAddr, Ipv6Addr};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/lwt.bpf.o");
const HERE: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 2);
const LAST: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0xa);
const BEYOND: Ipv6Addr = Ipv6Addr::new(0xfc01, 0, 0, 0, 0, 0, 0, 1);

fn ipv6(next: u8, to: Ipv6Addr, behind: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x6a, 0xb1, 0x23, 0x45, 0, behind.len() as u8, next, 63];
    ip.extend(Ipv6Addr::LOCALHOST.octets());
    ip.extend(to.octets());
    ip.extend(behind);
    ip
}

/// A segment routing header of two segments.
fn srh(next: u8, left: u8) -> Vec<u8> {
    let mut srh = vec![next, 4, 4, left, 1, 0, 0, 0];
    srh.extend(LAST.octets());
    srh.extend(HERE.octets());
    srh
}

fn frame(ip: &[u8]) -> ProgramInput {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd]);
    frame.extend(ip);
    ProgramInput::packet(&frame)
}

struct Bench {
    sim: Sim,
    bpf: Ebpf,
}

impl Bench {
    fn new() -> Result<Bench> {
        let sim = Sim::new()?;
        let bpf = Ebpf::load(&sim, OBJECT)?;
        let dev = sim.netdev("eth0", [2; 6])?.ifindex();
        let route = |dest: Ipv6Addr, prefix| Route::new(dest.into(), prefix, dev);
        sim.route(route(HERE, 128))?;
        sim.route(Route {
            source: Some(HERE.into()),
            ..route(LAST, 128)
        })?;
        sim.route(Route {
            kind: RouteKind::Prohibit,
            ..route(BEYOND, 32)
        })?;
        Ok(Bench { sim, bpf })
    }

    /// Attaches a program to the route to this machine, and sends it a packet.
    fn run(&mut self, program: &str, what: LwtHook, input: ProgramInput) -> Result<Fired> {
        let hook = Hook::Lwt {
            dest: HERE.into(),
            prefix: 128,
            what,
        };
        let mut program = self.bpf.program_mut(program)?;
        let link = program.attach_with(std::slice::from_ref(&hook), &AttachOpts::default())?;
        let fired = self.sim.fire(&hook, input)?;
        link.detach().unwrap();
        Ok(fired)
    }

    fn said(&mut self) -> Result<Vec<i64>> {
        let n: u32 = self.bpf.global("n")?;
        let out: [u64; 64] = self.bpf.global("out")?;
        self.bpf.set_global("n", &0u32)?;
        Ok(out[..n as usize].iter().map(|&w| w as i64).collect())
    }
}

/// The packet that the one program left, from its network header on. `BPF_PROG_TEST_RUN` puts an
/// empty Ethernet header before it, where it runs such programs.
fn left(fired: &Fired) -> Vec<u8> {
    let output = fired.runs[0].output.as_ref().unwrap();
    let packet = &output.data_out;
    packet.strip_prefix(&[0; 14]).unwrap_or(packet).to_vec()
}

#[test]
fn headers_are_pushed_and_packets_rerouted() -> Result<()> {
    let mut b = Bench::new()?;
    let inner = ipv6(59, BEYOND, &[7; 8]);
    let fired = b.run("sends_around", LwtHook::Xmit, frame(&inner))?;
    ensure_eq!(fired.result, 128);
    ensure_eq!(b.said()?, [0, 72, 8]);
    let packet = left(&fired);
    ensure_eq!((packet[0], packet[9]), (0x45, 47));
    ensure_eq!(&packet[24..], &inner[..]);
    // Headers of segments: where they lead to says whether there is a way.
    let mut header = [0; 64];
    header[..40].copy_from_slice(&srh(0, 1));
    b.bpf.set_global("header", &header)?;
    let fired = b.run("segments_inline", LwtHook::In, frame(&inner))?;
    ensure_eq!((fired.result, b.said()?), (128, vec![0, 88, 0xdd86]));
    let mut with = srh(59, 1);
    with[8..24].copy_from_slice(&BEYOND.octets());
    with.extend([7; 8]);
    ensure_eq!(left(&fired), ipv6(43, HERE, &with));
    let fired = b.run("segments_around", LwtHook::In, frame(&inner))?;
    ensure_eq!((fired.result, b.said()?), (128, vec![0, 128, 0xdd86]));
    let mut around = srh(41, 1);
    around.extend(&inner);
    let mut around = ipv6(43, HERE, &around);
    around[8..24].fill(0);
    ensure_eq!(left(&fired), around);
    Ok(())
}

#[test]
fn segment_routing_headers_are_changed() -> Result<()> {
    let mut b = Bench::new()?;
    let arrives = |left| {
        let mut behind = srh(41, left);
        behind.extend(ipv6(59, BEYOND, &[]));
        frame(&ipv6(43, HERE, &behind))
    };
    // The next segment is the destination before a program sees it.
    let fired = b.run("tags", LwtHook::Seg6local, arrives(1))?;
    ensure_eq!((fired.result, b.said()?), (0, vec![0, -14, -14]));
    let packet = left(&fired);
    ensure_eq!(&packet[24..40], &LAST.octets()[..]);
    ensure_eq!(packet[40..48], [41, 4, 4, 0, 1, 0, 0xbe, 0xef]);
    // Without segments left there is nothing to do here.
    let fired = b.run("tags", LwtHook::Seg6local, arrives(0))?;
    ensure_eq!((fired.result, fired.runs.len()), (-22, 0));
    let fired = b.run("grows", LwtHook::Seg6local, arrives(1))?;
    ensure_eq!((fired.result, b.said()?), (0, vec![-14, 0, 0, 128]));
    let packet = left(&fired);
    ensure_eq!((packet[5], packet[41]), (88, 5));
    ensure_eq!(packet[80..88], [0x7c, 6, 1, 2, 3, 4, 5, 6]);
    // What is no header any more is dropped.
    let fired = b.run("spoils", LwtHook::Seg6local, arrives(1))?;
    ensure_eq!((fired.result, b.said()?), (-22, vec![0, -74]));
    b.bpf.set_global("segment", &BEYOND.octets())?;
    let fired = b.run("goes_to", LwtHook::Seg6local, arrives(1))?;
    ensure_eq!((fired.result, b.said()?), (7, vec![-22, -13, 0, -22]));
    let fired = b.run("takes_out", LwtHook::Seg6local, arrives(1))?;
    ensure_eq!((fired.result, b.said()?), (7, vec![-13, 40]));
    ensure_eq!(left(&fired), ipv6(59, BEYOND, &[]));
    let mut header = [0; 64];
    header[..40].copy_from_slice(&srh(0, 1));
    b.bpf.set_global("header", &header)?;
    b.run("binds", LwtHook::Seg6local, arrives(1))?;
    ensure_eq!(b.said()?, [0, 0, 240]);
    Ok(())
}

#[test]
fn a_route_has_one_program_of_a_kind() -> Result<()> {
    let mut b = Bench::new()?;
    let at = |dest: IpAddr, what| Hook::Lwt {
        dest,
        prefix: 128,
        what,
    };
    let mut attach = |program: &str, hook| {
        let mut program = b.bpf.program_mut(program)?;
        match program.attach_with(&[hook], &AttachOpts::default()) {
            Ok(_) => Ok(None),
            Err(Error::Attach {
                error: AttachError::Refused { errno, .. },
                ..
            }) => Ok(Some(errno)),
            Err(error) => Err(error),
        }
    };
    ensure_eq!(attach("tags", at(HERE.into(), LwtHook::Seg6local))?, None);
    let again = attach("grows", at(HERE.into(), LwtHook::Seg6local))?;
    ensure_eq!(again, Some(Errno::EEXIST));
    let other = attach("grows", at(HERE.into(), LwtHook::In))?;
    ensure_eq!(other, Some(Errno::EINVAL));
    let nowhere = attach("grows", at(BEYOND.into(), LwtHook::Seg6local))?;
    ensure_eq!(nowhere, Some(Errno::ENOENT));
    Ok(())
}
