//! Attaching programs to hooks, and hooks that happen. docs/hooks.md is the guide.

use crate::user::{Answer, User};
use crate::{Cgroup, Error, Map, Netdev, ProgramMut, Result, Sim, Sock};
use bpfsim_abi::{AttachType, Errno};
pub use bpfsim_kernel::{
    AttachError, AttachOpts, CgroupOrder, Fired, FiredRun, Hook, IterInfo, LinkId, LwtHook, ProgId,
    Relative, attach_flags,
};
use bpfsim_kernel::{Cpu, Job, ProgramInput, SysOp, SysResult};
use std::time::Duration;

/// A program's attachment to a hook. It stays until it is [detached](Link::detach): dropping this
/// changes nothing.
#[derive(Clone)]
pub struct Link {
    sim: Sim,
    id: LinkId,
}

impl Link {
    pub(crate) fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Its identity.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// `bpf_link__destroy`: the program runs no more. `ENOLINK` if it was detached before, or its
    /// cgroup was removed.
    pub fn detach(&self) -> Result<(), Errno> {
        self.sim.kernel_mut().detach(self.id)
    }

    /// True until it is detached.
    pub fn is_attached(&self) -> bool {
        self.sim.kernel().is_attached(self.id)
    }

    /// It, for [`AttachOpts::relative`].
    pub fn relative(&self) -> Relative {
        Relative::Link(self.id)
    }
}

impl ProgramMut<'_> {
    /// Attaches the program to what its section says (`bpf_program__attach`):
    /// `SEC("kprobe/do_unlinkat")`, `SEC("lsm/file_open")` and so on.
    ///
    /// # Errors
    /// [`Error::Attach`] for a section that says nothing, such as `xdp`, and for what Linux refuses.
    pub fn attach(&mut self) -> Result<Link> {
        self.attach_with(&[], &AttachOpts::default())
    }

    /// Attaches the program to a hook.
    pub fn attach_to(&mut self, hook: Hook) -> Result<Link> {
        self.attach_with(&[hook], &AttachOpts::default())
    }

    /// Attaches the program to a hook, to several (`kprobe.multi`, `uprobe.multi` and their sessions), or
    /// without any to what its section says.
    pub fn attach_with(&mut self, hooks: &[Hook], opts: &AttachOpts) -> Result<Link> {
        let made = self.sim.kernel_mut().attach(self.id, hooks, opts);
        let id = made.map_err(|error| Error::Attach {
            program: self.name().to_string(),
            error,
        })?;
        Ok(Link {
            sim: self.sim.clone(),
            id,
        })
    }

    /// To a kernel function's entry, or its return (`bpf_program__attach_kprobe`).
    pub fn attach_kprobe(&mut self, retprobe: bool, function: &str) -> Result<Link> {
        self.probe(retprobe, Hook::function(function))
    }

    /// To the entry or the return of a function of a program in user space
    /// (`bpf_program__attach_uprobe`).
    pub fn attach_uprobe(&mut self, retprobe: bool, binary: &str, function: &str) -> Result<Link> {
        self.probe(retprobe, Hook::user_function(binary, function))
    }

    fn probe(&mut self, retprobe: bool, hook: Hook) -> Result<Link> {
        let opts = AttachOpts {
            returns: Some(retprobe),
            ..AttachOpts::default()
        };
        self.attach_with(&[hook], &opts)
    }

    /// To a tracepoint (`bpf_program__attach_tracepoint`).
    pub fn attach_tracepoint(&mut self, category: &str, name: &str) -> Result<Link> {
        self.attach_to(Hook::tracepoint(category, name))
    }

    /// To a tracepoint's call (`bpf_program__attach_raw_tracepoint`).
    pub fn attach_raw_tracepoint(&mut self, name: &str) -> Result<Link> {
        self.attach_to(Hook::raw_tracepoint(name))
    }

    /// To a perf event, by a number of the test's choice (`bpf_program__attach_perf_event`).
    pub fn attach_perf_event(&mut self, event: u32) -> Result<Link> {
        self.attach_to(Hook::PerfEvent(event))
    }

    /// To a device (`bpf_program__attach_xdp`).
    pub fn attach_xdp(&mut self, dev: Netdev) -> Result<Link> {
        self.attach_to(dev.xdp())
    }

    /// To one side of a device (`bpf_program__attach_tcx`): that of its section, which is ingress
    /// for one that says none.
    pub fn attach_tcx(&mut self, dev: Netdev, opts: &AttachOpts) -> Result<Link> {
        let egress = self.sim.kernel().attach_type(self.id) == AttachType::TcxEgress;
        let hook = if egress { dev.egress() } else { dev.ingress() };
        self.attach_with(&[hook], opts)
    }

    /// To a cgroup (`bpf_program__attach_cgroup`): a link, beside which there can be others. With
    /// [`AttachOpts::legacy`] by `BPF_PROG_ATTACH`, as flags say.
    pub fn attach_cgroup(&mut self, cgroup: Cgroup, opts: &AttachOpts) -> Result<Link> {
        let hook = cgroup.hook(self.sim.kernel().attach_type(self.id));
        self.attach_with(&[hook], opts)
    }

    /// To the network namespace (`bpf_program__attach_netns`): `sk_lookup` and `flow_dissector`.
    pub fn attach_netns(&mut self) -> Result<Link> {
        let hook = match self.sim.kernel().attach_type(self.id) {
            AttachType::FlowDissector => Hook::FlowDissector,
            _ => Hook::SkLookup,
        };
        self.attach_to(hook)
    }

    /// To a hook of netfilter (`bpf_program__attach_netfilter`).
    pub fn attach_netfilter(&mut self, family: u8, hook: u8, priority: i32) -> Result<Link> {
        let opts = AttachOpts {
            priority,
            ..AttachOpts::default()
        };
        self.attach_with(&[Hook::Netfilter { family, hook }], &opts)
    }

    /// To the sockets of a sockmap or sockhash (`bpf_program__attach_sockmap`).
    pub fn attach_sockmap(&mut self, map: &Map) -> Result<Link> {
        let what = self.sim.kernel().attach_type(self.id);
        let map = map.id();
        self.attach_to(Hook::SockMap { map, what })
    }

    /// To a socket (`SO_ATTACH_BPF`, `SO_ATTACH_REUSEPORT_EBPF`).
    pub fn attach_sock(&mut self, sock: Sock) -> Result<Link> {
        self.attach_to(Hook::Sock(sock.id()))
    }

    /// The program's descriptor, for [`AttachOpts::relative`] and [`AttachOpts::replace`].
    pub fn prog_id(&self) -> ProgId {
        self.id
    }
}

impl Netdev {
    /// It receives a frame.
    pub fn xdp(self) -> Hook {
        let ifindex = self.ifindex();
        Hook::Xdp { ifindex }
    }

    /// It receives a packet.
    pub fn ingress(self) -> Hook {
        self.tc(false)
    }

    /// It sends a packet.
    pub fn egress(self) -> Hook {
        self.tc(true)
    }

    /// How often what is attached to one of its sides was changed, for [`AttachOpts::revision`].
    pub fn revision(self, sim: &Sim, egress: bool) -> u64 {
        sim.kernel().revision(&self.tc(egress))
    }

    fn tc(self, egress: bool) -> Hook {
        let ifindex = self.ifindex();
        Hook::Tc { ifindex, egress }
    }
}

impl Cgroup {
    /// How often what is attached to one of its hooks was changed, for [`AttachOpts::revision`].
    pub fn revision(self, sim: &Sim, what: AttachType) -> u64 {
        sim.kernel().revision(&self.hook(what))
    }

    /// Something that its tasks or sockets do.
    pub fn hook(self, what: AttachType) -> Hook {
        let cgroup = self.0;
        Hook::Cgroup { cgroup, what }
    }
}

impl Sim {
    /// Makes a hook happen, and runs what is attached to it, in the order that Linux runs it in.
    ///
    /// It happens on CPU 0: in the test's own task, or where Linux comes to the hook in an
    /// interrupt (a packet that is received, a perf event), in that. [`ProgramInput::level`] says
    /// otherwise.
    ///
    /// ```
    /// use bpfsim::{Ebpf, ProgramInput, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let mut bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/hooks.bpf.o"))?;
    /// let eth0 = sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    /// let link = bpf.program_mut("drop_all")?.attach_xdp(eth0)?;
    /// let packet = ProgramInput::packet(&[0; 64]);
    /// assert_eq!(sim.fire(&eth0.xdp(), packet.clone())?.result, 1); // XDP_DROP
    /// link.detach().unwrap();
    /// assert_eq!(sim.fire(&eth0.xdp(), packet)?.result, 2); // XDP_PASS
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn fire(&self, hook: &Hook, input: ProgramInput) -> Result<Fired> {
        self.kernel_mut().count_callbacks_anew();
        let job = self.fire_on(Cpu(0), hook, input)?;
        match self.finish_job(job)? {
            SysResult::Fired(fired) => Ok(*fired),
            SysResult::Unsupported(what) => Err(Error::Unsupported { what }),
            other => Err(Error::Fire {
                hook: hook.to_string(),
                errno: other.done().err().unwrap_or(Errno::EINVAL),
            }),
        }
    }

    /// A hook happens on a CPU, side by side with whatever else the simulation runs: it begins
    /// when the simulation goes on. An interrupt comes over what the CPU executes, wherever that
    /// lets it; a task is a new one, on CPU 0 the test's own.
    pub fn fire_on(&self, cpu: Cpu, hook: &Hook, input: ProgramInput) -> Result<Job> {
        self.fire_after(Duration::ZERO, cpu, hook, input)
    }

    /// [`Sim::fire_on`], for interrupts not before so much virtual time has passed.
    pub fn fire_after(
        &self,
        time: Duration,
        cpu: Cpu,
        hook: &Hook,
        input: ProgramInput,
    ) -> Result<Job> {
        let mut kernel = self.kernel_mut();
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = kernel.now().saturating_add(ns);
        Ok(kernel.fire(cpu, hook.clone(), input, at)?)
    }

    /// What came of a hook that was made to happen side by side; `None` as long as it is not over.
    pub fn fired(&self, job: Job) -> Option<Fired> {
        self.kernel().fired(job).cloned()
    }
}

impl User {
    /// Something that the task does comes to a hook; one that happens in interrupts comes over the
    /// task's CPU, and this waits for it.
    pub async fn fire(&self, hook: &Hook, input: ProgramInput) -> Answer<Fired> {
        let hook = hook.clone();
        match self.call(SysOp::Fire { hook, input }).await {
            SysResult::Fired(fired) => Ok(*fired),
            SysResult::Failed(errno) => Err(errno),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `BPF_LINK_DETACH`
    pub async fn detach(&self, link: &Link) -> Answer<()> {
        self.call(SysOp::LinkDetach(link.id)).await.done()
    }
}

/// A struct of operations that the kernel calls, made of an object's map.
#[derive(Clone)]
pub struct StructOps {
    sim: Sim,
    map: Map,
}

impl Map {
    /// Has the kernel call the programs of a struct_ops map (`bpf_map__attach_struct_ops`).
    ///
    /// ```
    /// use bpfsim::{Arg, Ebpf, ProgramInput, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/hooks.bpf.o"))?;
    /// let ops = bpf.map("greedy")?.attach_struct_ops()?;
    /// let out = ops.call("undo_cwnd", ProgramInput::args([Arg::Value(0)]))?;
    /// assert_eq!(out.result, 77);
    /// ops.detach()?;
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn attach_struct_ops(&self) -> Result<StructOps> {
        let sim = self.sim();
        let done = sim.kernel_mut().struct_ops_attach(self.id());
        done.map_err(self.refused("BPF_LINK_CREATE"))?;
        Ok(StructOps {
            sim: sim.clone(),
            map: self.clone(),
        })
    }
}

impl StructOps {
    /// The kernel calls a member. One without a program returns [`ProgramInput::returns`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is no member.
    pub fn call(&self, member: &str, input: ProgramInput) -> Result<Fired> {
        let members = self.sim.kernel().struct_ops_members(self.map.id());
        let members = members.unwrap_or_default();
        if members.iter().all(|m| m.name != member) {
            let names = members.iter().map(|m| m.name.as_str());
            return Err(Error::not_found("member", member, names));
        }
        self.sim.fire(&self.hook(member), input)
    }

    /// The hook that a member is, for [`Sim::fire_on`].
    pub fn hook(&self, member: &str) -> Hook {
        Hook::StructOps {
            map: self.map.id(),
            member: member.to_string(),
        }
    }

    /// From now on another map's programs are called in the place of these (`bpf_link__update_map`).
    pub fn replace(&mut self, map: &Map) -> Result<()> {
        let done = self
            .sim
            .kernel_mut()
            .struct_ops_replace(self.map.id(), map.id());
        done.map_err(map.refused("BPF_LINK_UPDATE"))?;
        self.map = map.clone();
        Ok(())
    }

    /// The kernel calls it no more (`bpf_link__destroy`).
    pub fn detach(&self) -> Result<()> {
        let done = self.sim.kernel_mut().struct_ops_detach(self.map.id());
        done.map_err(self.map.refused("BPF_LINK_DETACH"))
    }
}

impl crate::Ebpf {
    /// Attaches all programs whose sections say to what, and all struct_ops maps
    /// (`bpf_object__attach_skeleton`).
    pub fn attach(&mut self) -> Result<Vec<Link>> {
        let names: Vec<String> = self.programs().map(|p| p.name().to_string()).collect();
        let mut links = Vec::new();
        for name in names {
            let mut program = self.program_mut(&name)?;
            if program.attaches_by_section() {
                links.push(program.attach()?);
            }
        }
        let maps: Vec<Map> = self.maps().collect();
        for map in maps {
            if map.spec().map_type == bpfsim_abi::MapType::StructOps {
                map.attach_struct_ops()?;
            }
        }
        Ok(links)
    }
}

impl ProgramMut<'_> {
    /// True when its section says what to attach to.
    pub fn attaches_by_section(&self) -> bool {
        self.sim.kernel().own_hooks(self.id).is_ok()
    }
}
