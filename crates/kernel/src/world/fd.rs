//! Descriptors of cgroups, sockets and files, by which keys and values of maps name them.

use super::World;
use crate::ids::{CgroupId, FileId, SockId};
use crate::kernel::Kernel;
use bpfsim_abi::Errno;

/// Of each kind those of a range of their own: below them are numbers of maps, programs and tasks.
const RANGE: u32 = 1 << 24;
const CGROUPS: u32 = RANGE;
const SOCKS: u32 = 2 * RANGE;
const FILES: u32 = 3 * RANGE;

/// The place that a descriptor of a kind names.
fn place(fd: u32, first: u32) -> Option<u32> {
    fd.checked_sub(first).filter(|&at| at < RANGE)
}

fn is_open(fd: u32) -> bool {
    (RANGE..4 * RANGE).contains(&fd)
}

impl World {
    /// The cgroup that a descriptor names. `EBADF` if it names none.
    pub fn cgroup_of(&self, fd: u32) -> Result<CgroupId, Errno> {
        let id = CgroupId(place(fd, CGROUPS).ok_or(Errno::EBADF)?);
        let cgroup = self.cgroups.get(id.at()).filter(|c| c.online);
        cgroup.map(|_| id).ok_or(Errno::EBADF)
    }

    /// The socket that a descriptor names. `ENOTSOCK` if it names something else, `EBADF` if it
    /// names nothing.
    pub fn sock_of(&self, fd: u32) -> Result<SockId, Errno> {
        let Some(at) = place(fd, SOCKS) else {
            let errno = if is_open(fd) {
                Errno::ENOTSOCK
            } else {
                Errno::EBADF
            };
            return Err(errno);
        };
        let sock = self.socks.get(SockId(at).at()).filter(|s| s.open);
        sock.map(|_| SockId(at)).ok_or(Errno::EBADF)
    }

    /// The file that a descriptor names. `EBADF` if it names none.
    pub fn file_of(&self, fd: u32) -> Result<FileId, Errno> {
        let id = FileId(place(fd, FILES).ok_or(Errno::EBADF)?);
        let file = self.files.get(id.at());
        file.map(|_| id).ok_or(Errno::EBADF)
    }
}

impl Kernel {
    /// A cgroup's descriptor, for values of cgroup arrays and keys of cgroup storage.
    pub fn cgroup_fd(&self, cgroup: CgroupId) -> u32 {
        CGROUPS | cgroup.0
    }

    /// A socket's descriptor, for values of maps of sockets and keys of socket storage.
    pub fn sock_fd(&self, sock: SockId) -> u32 {
        SOCKS | sock.0
    }

    /// A file's descriptor, for keys of inode storage.
    pub fn file_fd(&self, file: FileId) -> u32 {
        FILES | file.0
    }
}
