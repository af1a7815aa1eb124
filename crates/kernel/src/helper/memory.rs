//! Helpers that read memory which may not be there: `bpf_probe_read*`, `bpf_copy_from_user*`.

use super::{Arg, Args, ret};
use crate::ids::TaskId;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// Whose memory an address is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Kernel,
    User(TaskId),
}

/// First address that is no user address (`TASK_SIZE_MAX`).
const USER_END: u64 = 0x7fff_ffff_f000;

/// True for addresses that the kernel's memory can have.
pub(crate) fn is_kernel(addr: u64) -> bool {
    addr >= USER_END + 4096 && (addr as i64) >> 47 == -1
}

impl Space {
    /// What `bpf_probe_read`, which is told no space, takes an address for.
    fn of(st: &State, addr: u64) -> Space {
        if addr < USER_END {
            Space::User(st.cur.task)
        } else {
            Space::Kernel
        }
    }

    /// What reading from an address fails with: of the kernel's memory `ERANGE` where none of it
    /// can be (`copy_from_kernel_nofault_allowed`).
    fn fault(self, addr: u64) -> Errno {
        if self == Space::Kernel && !is_kernel(addr) {
            Errno::ERANGE
        } else {
            Errno::EFAULT
        }
    }

    /// A byte, or `None` where reading faults.
    pub fn byte(self, st: &State, mem: &GuestMem, addr: u64) -> Option<u8> {
        match self {
            Space::Kernel => mem.slice(addr, 1).map(|b| b[0]),
            Space::User(task) => st.tasks[task.at()].user.byte(addr),
        }
    }
}

/// `len` bytes from an address, or what reading them fails with.
pub(crate) fn fetch(
    st: &State,
    mem: &GuestMem,
    from: u64,
    len: u64,
    space: Space,
) -> Result<Vec<u8>, Errno> {
    let bytes = (0..len).map_while(|i| space.byte(st, mem, from.wrapping_add(i)));
    let bytes: Vec<u8> = bytes.collect();
    match bytes.len() as u64 == len {
        true => Ok(bytes),
        false => Err(space.fault(from)),
    }
}

/// A string with its NUL, cut to `len`, which is not 0.
pub(crate) fn fetch_string(
    st: &State,
    mem: &GuestMem,
    from: u64,
    len: u64,
    space: Space,
) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    loop {
        match space.byte(st, mem, from.wrapping_add(text.len() as u64)) {
            None => return Err(space.fault(from)),
            Some(byte) if byte != 0 && text.len() as u64 + 1 < len => text.push(byte),
            Some(_) => break,
        }
    }
    text.push(0);
    Ok(text)
}

/// Copies `len` bytes to guest memory; on a fault the destination is zeroed, `EFAULT`.
pub(crate) fn read_memory(
    st: &State,
    mem: &mut GuestMem,
    a: &Args,
    (to, len): (u64, u64),
    from: u64,
    space: Space,
) -> Arg<Result<u64, Errno>> {
    let bytes = fetch(st, mem, from, len, space);
    let Some(to) = mem.slice_mut(to, len) else {
        return a.bad(1);
    };
    Ok(fill(to, bytes).map(|_| 0))
}

/// Copies a string with its NUL, cut to `len`; on a fault the destination is zeroed, `EFAULT`.
pub(crate) fn read_string(
    st: &State,
    mem: &mut GuestMem,
    a: &Args,
    (to, len): (u64, u64),
    from: u64,
    space: Space,
) -> Arg<Result<u64, Errno>> {
    if len == 0 {
        return Ok(Ok(0));
    }
    let text = fetch_string(st, mem, from, len, space);
    let Some(to) = mem.slice_mut(to, len) else {
        return a.bad(1);
    };
    Ok(fill(to, text))
}

/// Writes what was read, or zeros; gives how much it was.
fn fill(to: &mut [u8], bytes: Result<Vec<u8>, Errno>) -> Result<u64, Errno> {
    match bytes {
        Ok(bytes) => {
            to[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len() as u64)
        }
        Err(errno) => {
            to.fill(0);
            Err(errno)
        }
    }
}

/// As [`read_memory`], to where the first argument points.
fn copy(st: &State, mem: &mut GuestMem, a: &Args, size: u64, from: u64, space: Space) -> Arg<Flow> {
    let result = read_memory(st, mem, a, (a.r[0], size), from, space)?;
    Ok(Flow::Done(ret(result)))
}

/// As [`read_string`], to where the first argument points.
fn copy_str(st: &State, mem: &mut GuestMem, a: &Args, from: u64, space: Space) -> Arg<Flow> {
    let size = a.r[1] as u32 as u64;
    let result = read_string(st, mem, a, (a.r[0], size), from, space)?;
    Ok(Flow::Done(ret(result)))
}

/// `bpf_probe_read`
pub(super) fn probe_read(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let space = Space::of(st, a.r[2]);
    copy(st, mem, a, a.r[1] as u32 as u64, a.r[2], space)
}

/// `bpf_probe_read_kernel`
pub(super) fn probe_read_kernel(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    copy(st, mem, a, a.r[1] as u32 as u64, a.r[2], Space::Kernel)
}

/// `bpf_probe_read_user`
pub(super) fn probe_read_user(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let space = Space::User(st.cur.task);
    copy(st, mem, a, a.r[1] as u32 as u64, a.r[2], space)
}

/// `bpf_copy_from_user`: sleeps until the page is there.
pub(super) fn copy_from_user(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if st.user_fault(st.cur.task, a.r[2], a.r[1] as u32 as u64) {
        return Ok(Flow::Suspend);
    }
    probe_read_user(st, mem, a)
}

/// `bpf_copy_from_user_task`: also when it fails the destination is zeroed.
pub(super) fn copy_from_user_task(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if a.r[4] != 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    let task = a.task(st, 4)?;
    if st.user_fault(task, a.r[2], a.r[1] as u32 as u64) {
        return Ok(Flow::Suspend);
    }
    let space = Space::User(task);
    copy(st, mem, a, a.r[1] as u32 as u64, a.r[2], space)
}

/// `bpf_probe_read_str`
pub(super) fn probe_read_str(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let space = Space::of(st, a.r[2]);
    copy_str(st, mem, a, a.r[2], space)
}

/// `bpf_probe_read_kernel_str`
pub(super) fn probe_read_kernel_str(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    copy_str(st, mem, a, a.r[2], Space::Kernel)
}

/// `bpf_probe_read_user_str`
pub(super) fn probe_read_user_str(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let space = Space::User(st.cur.task);
    copy_str(st, mem, a, a.r[2], space)
}

/// `bpf_probe_write_user`: up to where writing faults.
pub(super) fn probe_write_user(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let bytes = a.bytes(mem, 2, a.r[2] as u32 as u64)?;
    let whole = st.tasks[st.cur.task.at()].user.store(a.r[0], &bytes) == bytes.len();
    let result = if whole { Ok(0) } else { Err(Errno::EFAULT) };
    Ok(Flow::Done(ret(result)))
}
