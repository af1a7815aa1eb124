//! What a scheduler is made of, and what the kernel refuses of it.

use super::consts::{MAX_BATCH, MAX_TIMEOUT, ops};
use crate::ids::{MapId, ProgId};
use crate::kernel::Kernel;
use crate::testrun::Refused;
use bpfsim_abi::Errno;

/// `struct sched_ext_ops`
#[derive(Clone, Debug)]
pub(crate) struct Ops {
    members: Vec<(String, ProgId)>,
    pub name: String,
    pub flags: u64,
    /// After so long a task that waits is stalled, in ns.
    pub timeout: u64,
    pub max_batch: u32,
}

/// Members that are never called here: a scheduler that has one is told so by name.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("sub_attach", "schedulers below schedulers (sub_attach)"),
    ("sub_detach", "schedulers below schedulers (sub_detach)"),
];

impl Ops {
    pub fn has(&self, member: &str) -> bool {
        self.prog(member).is_some()
    }

    pub fn prog(&self, member: &str) -> Option<ProgId> {
        let found = self.members.iter().find(|(name, _)| name == member);
        found.map(|(_, prog)| *prog)
    }

    /// Its programs, each as often as it stands for a member.
    pub fn progs(&self) -> impl Iterator<Item = ProgId> {
        self.members.iter().map(|(_, prog)| *prog)
    }
}

impl Kernel {
    /// Reads the scheduler of a map, as `bpf_scx_init_member` and `bpf_scx_init` take it.
    pub(super) fn read_scx(&self, map: MapId) -> Result<Ops, Refused> {
        let bytes = self.struct_ops_data(map, "sched_ext_ops")?;
        let word = |member: &str, size: usize| {
            let at = self.layouts.member("sched_ext_ops", member)? as usize;
            let bytes = bytes.get(at..at + size)?;
            Some(bytes.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b)))
        };
        let flags = word("flags", 8).unwrap_or(0);
        let timeout = word("timeout_ms", 4).unwrap_or(0) as u32;
        let batch = word("dispatch_max_batch", 4).unwrap_or(0) as u32;
        let name = self.layouts.member("sched_ext_ops", "name").unwrap_or(0) as usize;
        let name = bytes.get(name..).unwrap_or_default();
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        if flags & !ops::ALL != 0 || name.is_empty() {
            return Err(Errno::EINVAL.into());
        }
        if batch > i32::MAX as u32 || timeout > MAX_TIMEOUT {
            return Err(Errno::E2BIG.into());
        }
        let members = self.struct_ops_members(map)?;
        let members = members.into_iter().filter_map(|m| Some((m.name, m.prog?)));
        let timeout = if timeout == 0 { MAX_TIMEOUT } else { timeout };
        let made = Ops {
            members: members.collect(),
            name: String::from_utf8_lossy(name).into_owned(),
            flags,
            timeout: u64::from(timeout) * 1_000_000,
            max_batch: if batch == 0 { MAX_BATCH } else { batch },
        };
        match UNSUPPORTED.iter().find(|(member, _)| made.has(member)) {
            Some((_, what)) => Err(Refused::Unsupported(what)),
            None => Ok(made),
        }
    }
}
