//! XDP packets redirected to maps of devices and CPUs whose values hold programs: `dev_map_bpf_prog_run`,
//! `cpu_map_bpf_prog_run`.

use super::Hook;
use super::fire::Fire;
use super::links::{Hooked, Stage};
use crate::hook::Interrupt;
use crate::ids::{Cpu, MapId, ProgId};
use crate::kernel::Kernel;
use crate::packet::{Redirect, RedirectKind};
use crate::prog::{ProgCtx, ProgramInput, ProgramOutput, program_of};
use bpfsim_abi::MapType;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_vm::MemError;

const XDP_PASS: u32 = 2;
/// `BPF_F_BROADCAST`, `BPF_F_EXCLUDE_INGRESS`
const BROADCAST: u64 = 8;
const EXCLUDE_INGRESS: u64 = 16;

/// A packet on its way to a device or a CPU.
#[derive(Clone)]
pub(crate) struct Sent {
    /// Metadata, then the packet.
    bytes: Vec<u8>,
    meta: usize,
    ingress: u32,
    /// The device that it would leave by; 0 at a CPU.
    egress: u32,
    redirect: Redirect,
}

/// A value of such a map.
struct Target {
    /// The device, or how much a CPU's queue holds.
    number: u32,
    prog: Option<ProgId>,
}

impl Target {
    fn of(handle: u64) -> Target {
        Target {
            number: handle as u32,
            prog: program_of((handle >> 32) as u32),
        }
    }
}

fn of_map(prog: ProgId, stage: Stage) -> Hooked {
    Hooked {
        prog,
        stage,
        cookie: 0,
        cgroup: None,
        link: None,
    }
}

impl Kernel {
    /// A program of a device's XDP hook, or of a map that its packets were redirected to, is over: which
    /// programs of maps come next.
    pub(super) fn follow_redirect(
        &mut self,
        fire: &mut Fire,
        hooked: &Hooked,
        ctx: &ProgCtx,
        output: &mut ProgramOutput,
    ) {
        let (Hook::Xdp { .. }, ProgCtx::Fields(fields)) = (&fire.hook, ctx) else {
            return;
        };
        if hooked.stage == Stage::Devmap {
            // It leaves, or nothing comes of it.
            output.redirects.clear();
            let sent = fire.sent.pop_front();
            if let Some(sent) = sent.filter(|_| output.return_value == XDP_PASS) {
                let packet = fields.packet;
                let meta = packet.map_or(0, |p| (p.data - p.meta) as usize);
                output.redirects.push(Redirect {
                    data: output.data_out.get(meta..).unwrap_or(&[]).to_vec(),
                    ..sent.redirect
                });
            }
            return;
        }
        let Some(redirect) = output.redirects.last().cloned() else {
            return;
        };
        let RedirectKind::Map(map) = redirect.how else {
            return;
        };
        let meta = fields.packet.map_or(0, |p| (p.data - p.meta) as usize);
        let sent = Sent {
            bytes: output.data_out.clone(),
            meta,
            ingress: fields.get(CtxSlot::XdpIngressIfindex) as u32,
            egress: 0,
            redirect,
        };
        match self.st.maps[map.at()].spec.map_type {
            MapType::Cpumap => self.send_to_cpu(fire, map, sent),
            MapType::Devmap | MapType::DevmapHash => {
                let (with, without) = self.targets(map, &sent);
                if without == 0 && !with.is_empty() {
                    output.redirects.pop();
                }
                for (egress, prog) in with {
                    fire.rest.push_back(of_map(prog, Stage::Devmap));
                    self.st.refs.get_prog(prog);
                    fire.sent.push_back(Sent {
                        egress,
                        ..sent.clone()
                    });
                }
            }
            _ => {}
        }
    }

    /// The devices that a packet goes to: those with programs, and how many are without.
    fn targets(&self, map: MapId, sent: &Sent) -> (Vec<(u32, ProgId)>, usize) {
        let m = &self.st.maps[map.at()];
        let all = sent.redirect.flags & BROADCAST != 0;
        let handles: Vec<u64> = match (m.spec.map_type, all) {
            (MapType::Devmap, true) => (0..m.spec.max_entries)
                .filter_map(|i| m.handle(i))
                .collect(),
            (MapType::Devmap, false) => m.handle(sent.redirect.to).into_iter().collect(),
            (_, true) => m
                .values()
                .iter()
                .filter_map(|&at| self.mem.read_u64(at))
                .collect(),
            (_, false) => {
                let key = sent.redirect.to.to_le_bytes();
                let found = m.value_of(&self.mem, &key);
                found
                    .and_then(|at| self.mem.read_u64(at))
                    .into_iter()
                    .collect()
            }
        };
        let not_back = all && sent.redirect.flags & EXCLUDE_INGRESS != 0;
        let targets = handles.into_iter().map(Target::of);
        let targets = targets.filter(|t| !not_back || t.number != sent.ingress);
        let (with, without): (Vec<Target>, Vec<Target>) = targets.partition(|t| t.prog.is_some());
        let with = with.into_iter().filter_map(|t| Some((t.number, t.prog?)));
        (with.collect(), without.len())
    }

    /// The packet waits in the queue of a CPU, whose kthread runs the program.
    fn send_to_cpu(&mut self, fire: &mut Fire, map: MapId, sent: Sent) {
        let to = sent.redirect.to;
        let handle = self.st.maps[map.at()].handle(to);
        let Some(prog) = handle.and_then(|h| Target::of(h).prog) else {
            return;
        };
        if to as usize >= self.cpus.len() {
            return;
        }
        self.results.push(None);
        fire.made += 1;
        let id = fire.id.child(fire.made);
        let mut next = Box::new(Fire::new(id, fire.hook.clone(), ProgramInput::empty()));
        next.job = Some(self.results.len() - 1);
        next.instead = Some(of_map(prog, Stage::Cpumap));
        next.sent.push_back(sent);
        self.cpus[to as usize].interrupts.push_back(Interrupt {
            at: self.st.now(),
            fire: next,
        });
    }

    /// The context of a program of a map: `xdp_convert_frame_to_buff`.
    pub(super) fn make_sent_ctx(
        &mut self,
        cpu: Cpu,
        fire: &mut Fire,
        hooked: &Hooked,
    ) -> Result<(u64, ProgCtx), MemError> {
        let sent = match hooked.stage {
            Stage::Cpumap => fire.sent.pop_front(),
            _ => fire.sent.front().cloned(),
        };
        let Some(sent) = sent else {
            return self.make_ctx(hooked.prog, &fire.input, cpu);
        };
        let md = [
            sent.meta as u32,
            sent.bytes.len() as u32,
            0,
            sent.ingress,
            0,
            0,
        ];
        let ctx: Vec<u8> = md.iter().flat_map(|word| word.to_le_bytes()).collect();
        let input = ProgramInput::packet(&sent.bytes).with_ctx(&ctx);
        let (r1, mut ctx) = self.make_ctx(hooked.prog, &input, cpu)?;
        if let ProgCtx::Fields(fields) = &mut ctx {
            fields.set(CtxSlot::XdpEgressIfindex, sent.egress);
        }
        Ok((r1, ctx))
    }
}
