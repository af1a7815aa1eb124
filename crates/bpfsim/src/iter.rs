//! Iterators read as files. docs/hooks.md is the guide.

use crate::hook::Link;
use crate::user::{Answer, User};
use crate::{Error, Result, Sim};
use bpfsim_abi::Errno;
use bpfsim_kernel::{AttachError, IterFd, SysOp, SysResult};

/// An iterator that was opened. Dropping it changes nothing: [`IterFile::close`] does.
#[derive(Clone)]
pub struct IterFile {
    sim: Sim,
    file: IterFd,
}

impl Link {
    /// Opens the iterator that was attached (`bpf_iter_create`). It goes on where the last read of it
    /// ended; another one begins anew.
    ///
    /// # Errors
    /// [`Error::Iter`]: `EINVAL` for a link of something else, `ENOLINK` for one that was detached;
    /// [`Error::Attach`] for an iterator over what bpfsim has nothing of.
    pub fn open_iter(&self) -> Result<IterFile> {
        let sim = self.sim().clone();
        let made = sim.kernel_mut().iter_create(self.id());
        let file = made.map_err(|error| match error {
            AttachError::Refused { errno, .. } => Error::Iter { errno },
            error => Error::Attach {
                program: sim.kernel().link_prog_name(self.id()),
                error,
            },
        })?;
        Ok(IterFile { sim, file })
    }
}

impl Sim {
    /// All that an iterator says from its beginning on (`bpftool iter`, `cat` of its pin).
    ///
    /// ```
    /// use bpfsim::{Ebpf, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let mut bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/iterators.bpf.o"))?;
    /// let link = bpf.program_mut("tasks")?.attach()?;
    /// let text = sim.read_iter(&link)?;
    /// assert!(text.contains(" 1000/1000 test\n"), "{text}");
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Iter`]: `EAGAIN` where a program wants an object again and again, `E2BIG` where it
    /// writes more about one than a sequence file holds.
    pub fn read_iter(&self, link: &Link) -> Result<String> {
        let file = link.open_iter()?;
        let text = file.read_to_end();
        file.close()?;
        Ok(String::from_utf8_lossy(&text?).into_owned())
    }
}

impl IterFile {
    /// `read(2)` of at most so many bytes; none are the end.
    pub fn read(&self, len: u64) -> Result<Vec<u8>> {
        let file = self.file;
        let job = self
            .sim
            .kernel_mut()
            .start_syscall(SysOp::IterRead { file, len });
        let result = self.sim.finish_job(job)?;
        bytes(result).map_err(|errno| Error::Iter { errno })
    }

    /// Reads in blocks of four KiB until there is no more.
    pub fn read_to_end(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let more = self.read(4096)?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// `close(2)`
    pub fn close(&self) -> Result<()> {
        let closed = self.sim.kernel_mut().iter_close(self.file);
        closed.map_err(|errno| Error::Iter { errno })
    }
}

impl User {
    /// `read(2)` of an iterator.
    pub async fn read_iter(&self, file: &IterFile, len: u64) -> Answer<Vec<u8>> {
        let file = file.file;
        bytes(self.call(SysOp::IterRead { file, len }).await)
    }
}

fn bytes(result: SysResult) -> Result<Vec<u8>, Errno> {
    match result {
        SysResult::Value(bytes) => Ok(bytes),
        other => Err(other.done().err().unwrap_or(Errno::EINVAL)),
    }
}
