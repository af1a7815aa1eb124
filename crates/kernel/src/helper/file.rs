//! Files: their paths and extended attributes.

use super::{Arg, Args, Helper, ret, row};
use crate::dynptr::Dynptr;
use crate::ids::FileId;
use crate::state::State;
use crate::types::member_of;
use crate::world::Xattrs;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::ImaInodeHash, false, no_ima),
    row(Func::ImaFileHash, false, no_ima),
    row(Func::DPath, false, |st, mem, a| match a.r[2] as u32 {
        0 => Ok(Flow::Done(0)),
        _ => Ok(Flow::Done(ret(d_path(st, mem, a)?))),
    }),
    // No file of the emulated world is a socket's.
    row(Func::SockFromFile, false, |st, _, a| {
        let file = st.world.file_at(a.r[0]);
        file.map_or_else(|| a.bad(1), |_| Ok(Flow::Done(0)))
    }),
];

/// `bpf_ima_inode_hash`, `bpf_ima_file_hash`: a kernel without `CONFIG_IMA` measures nothing.
fn no_ima(_: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    Ok(Flow::Done(ret(Err(Errno::EOPNOTSUPP))))
}

/// Writes the path of a `struct path` to a buffer, as `d_path` does: from the buffer's end on, then
/// to its beginning. Gives its length with the NUL.
fn d_path(st: &State, mem: &mut GuestMem, a: &Args) -> Arg<Result<u64, Errno>> {
    let at = st
        .kernel_btf
        .as_ref()
        .and_then(|b| member_of(b, "path", "dentry"));
    let dentry = at.and_then(|at| mem.read_u64(a.r[0].wrapping_add(at.into())));
    let Some(file) = dentry.and_then(|d| st.world.file_of_dentry(d)) else {
        return a.bad(1);
    };
    let mut text = st.world.files[file.at()].path.clone().into_bytes();
    text.push(0);
    let Some(to) = mem.slice_mut(a.r[1], a.r[2] as u32 as u64) else {
        return a.bad(2);
    };
    let Some(start) = to.len().checked_sub(text.len()) else {
        return Ok(Err(Errno::ENAMETOOLONG));
    };
    to[start..].copy_from_slice(&text);
    to[..text.len()].copy_from_slice(&text);
    Ok(Ok(text.len() as u64))
}

/// Kfuncs on files.
pub(crate) mod kfuncs {
    use super::*;

    fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
        Ok(Flow::Done(ret(result) as u32 as u64))
    }

    /// `bpf_path_d_path(path, buf, buf__sz)`
    pub(crate) fn path_d_path(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
        match a.r[2] as u32 {
            0 => done32(Err(Errno::EINVAL)),
            _ => done32(d_path(st, mem, a)?),
        }
    }

    /// `bpf_get_task_exe_file(task)`
    pub(crate) fn task_exe(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let task = a.task(st, 1)?;
        let t = &st.tasks[task.at()];
        let Some(file) = t.exe.filter(|_| t.has_mm()) else {
            return Ok(Flow::Done(0));
        };
        let file = &mut st.world.files[file.at()];
        file.refs += 1;
        Ok(Flow::Done(file.addr))
    }

    /// `bpf_put_file(file)`
    pub(crate) fn put(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let file = file(st, a)?;
        let file = &mut st.world.files[file.at()];
        file.refs = file.refs.saturating_sub(1);
        Ok(Flow::Done(0))
    }

    fn file(st: &State, a: &Args) -> Arg<FileId> {
        let found = st.world.file_at(a.r[0]);
        found.map_or_else(|| a.bad(1), Ok)
    }

    fn of_dentry(st: &State, a: &Args) -> Arg<FileId> {
        let found = st.world.file_of_dentry(a.r[0]);
        found.map_or_else(|| a.bad(1), Ok)
    }

    /// The name of an attribute: what argument 2 points to.
    fn name(mem: &GuestMem, a: &Args) -> Arg<String> {
        /// Longest that is looked at: more than `XATTR_NAME_MAX`.
        const MOST: u64 = 256;
        let byte = |i: u64| mem.slice(a.r[1].wrapping_add(i), 1).map(|b| b[0]);
        let bytes: Option<Vec<u8>> = (0..MOST).map(byte).take_while(|b| *b != Some(0)).collect();
        let bytes = bytes.map_or_else(|| a.bad(2), Ok)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `bpf_get_file_xattr(file, name__str, value_p)`
    pub(crate) fn file_xattr(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let file = file(st, a)?;
        let allowed = |n: &str| n.starts_with("user.") || n.starts_with("security.bpf.");
        read(st, mem, a, &st.world.files[file.at()].xattrs, allowed)
    }

    /// `bpf_get_dentry_xattr(dentry, name__str, value_p)`
    pub(crate) fn dentry_xattr(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let file = of_dentry(st, a)?;
        let allowed = |n: &str| n.starts_with("user.") || n.starts_with("security.bpf.");
        read(st, mem, a, &st.world.files[file.at()].xattrs, allowed)
    }

    /// `bpf_cgroup_read_xattr(cgroup, name__str, value_p)`
    pub(crate) fn cgroup_xattr(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let cgroup = st.world.cgroup_at(a.r[0]);
        let cgroup = cgroup.map_or_else(|| a.bad(1), Ok)?;
        let xattrs = &st.world.cgroups[cgroup.at()].xattrs;
        read(st, mem, a, xattrs, |n| n.starts_with("user."))
    }

    /// `__vfs_getxattr` to a dynptr: `ERANGE` where the value does not fit.
    fn read(
        st: &State,
        mem: &mut GuestMem,
        a: &Args,
        xattrs: &Xattrs,
        allowed: impl Fn(&str) -> bool,
    ) -> Arg<Flow> {
        let name = name(mem, a)?;
        let to = Dynptr::read(mem, a, 3)?;
        let room = to.and_then(|d| Some((d.slice_rdwr(st, 0, d.size.into())?, d.size as usize)));
        let Some((at, room)) = room else {
            return done32(Err(Errno::EINVAL));
        };
        if !allowed(&name) {
            return done32(Err(Errno::EPERM));
        }
        let Some(value) = xattrs.get(&name) else {
            return done32(Err(Errno::ENODATA));
        };
        if room != 0 {
            if value.len() > room {
                return done32(Err(Errno::ERANGE));
            }
            match mem.slice_mut(at, value.len() as u64) {
                Some(to) => to.copy_from_slice(value),
                None => return a.bad(3),
            }
        }
        done32(Ok(value.len() as u64))
    }

    /// `bpf_set_dentry_xattr(dentry, name__str, value_p, flags)`
    pub(crate) fn set_xattr(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
        /// `XATTR_CREATE`, `XATTR_REPLACE`
        const CREATE: u32 = 1;
        const REPLACE: u32 = 2;
        let file = of_dentry(st, a)?;
        let name = name(mem, a)?;
        let from = Dynptr::read(mem, a, 3)?;
        let at = from.and_then(|d| Some((d.slice(st, 0, d.size.into())?, d.size)));
        let Some((at, len)) = at else {
            return done32(Err(Errno::EINVAL));
        };
        if !name.starts_with("security.bpf.") {
            return done32(Err(Errno::EPERM));
        }
        let value = a.memory(mem, at, len.into())?.into_vec();
        let xattrs = &mut st.world.files[file.at()].xattrs;
        let flags = a.r[3] as u32;
        match xattrs.contains_key(&name) {
            true if flags & CREATE != 0 => return done32(Err(Errno::EEXIST)),
            false if flags & REPLACE != 0 => return done32(Err(Errno::ENODATA)),
            _ => {}
        }
        xattrs.insert(name, value);
        done32(Ok(0))
    }

    /// `bpf_remove_dentry_xattr(dentry, name__str)`
    pub(crate) fn remove_xattr(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let file = of_dentry(st, a)?;
        let name = name(mem, a)?;
        if !name.starts_with("security.bpf.") {
            return done32(Err(Errno::EPERM));
        }
        let removed = st.world.files[file.at()].xattrs.remove(&name);
        done32(removed.map(|_| 0).ok_or(Errno::ENODATA))
    }
}
