//! Files, as programs see them: `struct file`, its `struct path`, `struct dentry`, `struct inode`,
//! and extended attributes.

use super::World;
use crate::ids::{FileId, TaskId};
use crate::kernel::Kernel;
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, MemError};
use std::collections::BTreeMap;

/// A file that is open.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Its absolute path.
    pub path: String,
    /// Guest address of its `struct file`; its dentry and inode are behind it.
    pub addr: u64,
    pub dentry: u64,
    pub inode: u64,
    /// References that programs hold.
    pub refs: u32,
    pub xattrs: Xattrs,
}

/// Extended attributes by name.
pub(crate) type Xattrs = BTreeMap<String, Vec<u8>>;

/// `PATH_MAX`
const PATH_MAX: usize = 4096;
/// `XATTR_SIZE_MAX`, `XATTR_NAME_MAX`
const XATTR_SIZE: usize = 65536;
const XATTR_NAME: usize = 255;

impl World {
    /// The file whose `struct file` is at this address.
    pub fn file_at(&self, addr: u64) -> Option<FileId> {
        let at = self.files.iter().position(|f| f.addr == addr)?;
        Some(FileId(at as u32))
    }

    /// The file whose `struct dentry` is at this address.
    pub fn file_of_dentry(&self, addr: u64) -> Option<FileId> {
        let at = self.files.iter().position(|f| f.dentry == addr)?;
        Some(FileId(at as u32))
    }
}

impl Kernel {
    /// Opens a file: one of this path that was not there is made. `EINVAL` for a path that is not
    /// absolute or has a NUL, `ENAMETOOLONG` for one longer than `PATH_MAX`.
    pub fn make_file(&mut self, path: &str) -> Result<FileId, Errno> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(Errno::EINVAL);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.add_file(path).map_err(|_| Errno::ENOMEM)
    }

    fn add_file(&mut self, path: &str) -> Result<FileId, MemError> {
        let size = |name| self.layouts.size_of(name).next_multiple_of(8);
        let (file, dentry, inode) = (size("file"), size("dentry"), size("inode"));
        let addr = self.mem.alloc(Area::Object, file + dentry + inode, 64)?;
        let number = self.st.world.files.len() as u64;
        let at = |base: u64, name, member| {
            let off = self.layouts.member(name, member);
            off.map(|off| base + off)
        };
        let (dentry, inode) = (addr + file, addr + file + dentry);
        for (to, value) in [
            (at(addr, "file", "f_path.dentry"), dentry),
            (at(addr, "file", "f_inode"), inode),
            (at(dentry, "dentry", "d_inode"), inode),
            (at(dentry, "dentry", "d_parent"), dentry),
            // As if the file system had given out the numbers in order.
            (at(inode, "inode", "i_ino"), 2 + number),
        ] {
            to.and_then(|to| self.mem.write_u64(to, value));
        }
        self.st.world.files.push(File {
            path: path.to_string(),
            addr,
            dentry,
            inode,
            refs: 0,
            xattrs: Xattrs::new(),
        });
        Ok(FileId(number as u32))
    }

    /// `fsetxattr(2)`: `ERANGE` for a name that is empty or too long, `E2BIG` for too long a value.
    pub fn set_xattr(&mut self, file: FileId, name: &str, value: &[u8]) -> Result<(), Errno> {
        if name.is_empty() || name.len() > XATTR_NAME {
            return Err(Errno::ERANGE);
        }
        if value.len() > XATTR_SIZE {
            return Err(Errno::E2BIG);
        }
        let file = self.st.world.files.get_mut(file.at());
        let file = file.ok_or(Errno::EBADF)?;
        file.xattrs.insert(name.to_string(), value.to_vec());
        Ok(())
    }

    /// `fgetxattr(2)`: `ENODATA` for a name that the file has not.
    pub fn xattr(&self, file: FileId, name: &str) -> Result<&[u8], Errno> {
        let file = self.st.world.files.get(file.at()).ok_or(Errno::EBADF)?;
        file.xattrs
            .get(name)
            .map(Vec::as_slice)
            .ok_or(Errno::ENODATA)
    }

    /// Has a task execute a file (`/proc/PID/exe`). `EINVAL` for a kernel thread.
    pub fn set_exe(&mut self, task: TaskId, file: FileId) -> Result<(), Errno> {
        let t = self.st.tasks.get_mut(task.at()).ok_or(Errno::ESRCH)?;
        if t.kthread {
            return Err(Errno::EINVAL);
        }
        t.exe = Some(file);
        Ok(())
    }
}
