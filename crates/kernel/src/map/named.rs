//! What keys and values name: tasks, sockets and files by descriptor, maps, programs, devices. User space
//! hands in and sees numbers, maps keep handles.

use super::ops::index;
use super::{MapSpec, Owner};
use crate::ids::{MapId, ProgId, TaskId};
use crate::prog::program_of;
use crate::state::State;
use crate::world::sock_window;
use bpfsim_abi::{AttachType, Errno, MapType, ProgType};
use smallvec::SmallVec;

/// Values are numbers of maps or programs, kept as handles.
fn shows_ids(spec: &MapSpec) -> bool {
    matches!(
        spec.map_type,
        MapType::ArrayOfMaps | MapType::HashOfMaps | MapType::ProgArray
    )
}

impl State {
    /// The key as the map type takes it: that of storage which belongs to an object is a
    /// descriptor of the object.
    pub(super) fn sys_key(&self, map: MapId, key: &[u8]) -> Result<SmallVec<[u8; 16]>, Errno> {
        let spec = &self.maps[map.at()].spec;
        match spec.map_type {
            MapType::TaskStorage => {
                let task = TaskId(index(key));
                let task = self.tasks.get(task.at()).ok_or(Errno::EBADF)?;
                Ok(SmallVec::from_slice(&task.addr.to_le_bytes()))
            }
            MapType::SkStorage | MapType::InodeStorage | MapType::CgrpStorage => {
                let (world, fd) = (&self.world, index(key));
                let owner = match spec.map_type {
                    MapType::SkStorage => world.socks[world.sock_of(fd)?.at()].addr,
                    MapType::InodeStorage => world.files[world.file_of(fd)?.at()].inode,
                    _ => world.cgroups[world.cgroup_of(fd)?.at()].addr,
                };
                Ok(SmallVec::from_slice(&owner.to_le_bytes()))
            }
            _ => Ok(SmallVec::from_slice(key)),
        }
    }

    /// What a value from user space stands for, where it names something by descriptor.
    pub(super) fn handle(&mut self, map: MapId, key: &[u8], value: &[u8]) -> Result<u64, Errno> {
        let number = |at: usize| {
            let word = value.get(at..at + 4).and_then(|w| w.try_into().ok());
            word.map_or(0, u32::from_le_bytes)
        };
        let m = &self.maps[map.at()];
        match m.spec.map_type {
            MapType::ArrayOfMaps | MapType::HashOfMaps => {
                let inner = self.maps.get(MapId(number(0)).at()).ok_or(Errno::EBADF)?;
                let fits = m.inner.as_ref().is_some_and(|i| i.permits(inner));
                fits.then_some(inner.addr).ok_or(Errno::EINVAL)
            }
            MapType::ProgArray => self.tail_call_target(map, number(0)),
            MapType::PerfEventArray => {
                // The event that records what happens on this CPU.
                let cpu = number(0);
                let there = (cpu as usize) < self.cpus.len();
                there.then_some(cpu as u64 + 1).ok_or(Errno::EBADF)
            }
            MapType::Devmap | MapType::DevmapHash => {
                let (ifindex, prog) = (number(0), number(4));
                if ifindex == 0 && m.spec.map_type == MapType::Devmap && prog as i32 <= 0 {
                    return Ok(0);
                }
                self.world.netdev(ifindex).ok_or(Errno::EINVAL)?;
                let prog = self.value_program(map, prog, AttachType::XdpDevmap);
                Ok(ifindex as u64 | prog.ok_or(Errno::EINVAL)? << 32)
            }
            MapType::Cpumap => {
                let (qsize, prog) = (number(0), number(4));
                if qsize > 16384 {
                    return Err(Errno::EOVERFLOW);
                }
                if index(key) as usize >= self.cpus.len() {
                    return Err(Errno::ENODEV);
                }
                if qsize == 0 {
                    return Ok(0);
                }
                let prog = self.value_program(map, prog, AttachType::XdpCpumap);
                Ok(qsize as u64 | prog.ok_or(Errno::ENOMEM)? << 32)
            }
            MapType::Sockmap | MapType::Sockhash | MapType::ReuseportSockarray => {
                let wide = value.len() == 8 && number(4) != 0;
                let negative = number(0) > i32::MAX as u32
                    && (value.len() == 8 || m.spec.map_type != MapType::ReuseportSockarray);
                if wide || negative {
                    return Err(Errno::EINVAL);
                }
                let sock = self.world.sock_of(number(0))?;
                if m.spec.map_type != MapType::ReuseportSockarray {
                    self.world.fits_map(sock)?;
                } else if !self.world.socks[sock.at()].spec.reuseport {
                    // `reuseport_array_update_check`: it must be in a group.
                    return Err(Errno::EINVAL);
                }
                Ok(sock_window(sock))
            }
            MapType::CgroupArray => {
                let cgroup = self.world.cgroup_of(number(0))?;
                Ok(cgroup.0 as u64 + 1)
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// `prog_fd_array_get_ptr`: all programs of an array are of one type.
    fn tail_call_target(&mut self, map: MapId, number: u32) -> Result<u64, Errno> {
        let prog = program_of(number).filter(|&prog| self.prog_fd_open(prog));
        let prog = prog.ok_or(Errno::EBADF)?;
        match self.map_takes(map, prog) {
            true => Ok(number.into()),
            false => Err(Errno::EINVAL),
        }
    }

    /// `bpf_prog_map_compatible`: all programs that are in a map, or use it, are alike.
    pub fn map_takes(&mut self, map: MapId, prog: ProgId) -> bool {
        let (m, prog) = (&mut self.maps[map.at()], &self.progs[prog.at()]);
        let like = Owner {
            prog_type: prog.prog_type,
            xdp_frags: prog.xdp_frags,
        };
        m.dirty |= m.owner.is_none();
        *m.owner.get_or_insert(like) == like
    }

    /// The program of a value for devices or CPUs: 0 for none.
    fn value_program(&mut self, map: MapId, fd: u32, made_for: AttachType) -> Option<u64> {
        if fd as i32 <= 0 {
            return Some(0);
        }
        let prog = program_of(fd).filter(|&prog| self.prog_fd_open(prog))?;
        let meta = &self.progs[prog.at()];
        let fits = meta.prog_type == ProgType::Xdp && meta.attach_type == made_for;
        (fits && self.map_takes(map, prog)).then_some(fd.into())
    }

    /// Values as user space sees them: numbers instead of handles.
    pub(super) fn shown(&self, map: MapId, value: Vec<u8>) -> Vec<u8> {
        let spec = &self.maps[map.at()].spec;
        if self.maps[map.at()].holds_socks() {
            let handle = value.try_into().map_or(0, u64::from_le_bytes);
            let sock = self
                .world
                .sock_at(handle)
                .map(|s| &self.world.socks[s.at()]);
            return sock.map_or(0, |s| s.cookie).to_le_bytes().to_vec();
        }
        if !shows_ids(spec) {
            return value;
        }
        let handle = value.try_into().map_or(0, u64::from_le_bytes);
        let id = match spec.map_type {
            MapType::ProgArray => handle as u32,
            _ => self.map_at(handle).map_or(u32::MAX, |id| id.0),
        };
        id.to_le_bytes().to_vec()
    }
}
