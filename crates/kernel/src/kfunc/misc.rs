//! Kfuncs that need no more than a few lines each.

use super::{Kfunc, row};
use crate::helper::memory::{Space, read_string};
use crate::helper::{Arg, Args, ret};
use crate::packet::{CTX_WINDOW, Packet};
use crate::state::State;
use crate::types::member_of;
use bpfsim_abi::Errno;
use bpfsim_btf::{Btf, Kind};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_cast_to_kern_ctx", false, cast_to_kern_ctx),
    // There is the initial namespace only.
    row("bpf_task_from_vpid", true, |st, _, a| {
        // By its number in the namespace of who asks.
        let ns = st.tasks[st.cur.task.at()].pid_ns;
        let found = st.task_by_pid(a.r[0] as u32, ns);
        Ok(Flow::Done(found.map_or(0, |task| st.task_acquire(task))))
    }),
    row("bpf_xdp_pull_data", false, crate::helper::xdp_pull_data),
    row("bpf_send_signal_task", true, send_signal_task),
    row(
        "bpf_copy_from_user_task_str",
        false,
        copy_from_user_task_str,
    ),
    row("bpf_stream_vprintk_impl", true, stream_vprintk),
    row("bpf_lookup_user_key", false, |_, _, _| Ok(Flow::Done(0))),
    row("bpf_lookup_system_key", false, lookup_system_key),
    row("bpf_key_put", false, |st, mem, a| {
        let known = st.objects.is_buffer(a.r[0]);
        let put = known.then(|| st.obj_drop(mem, a.r[0])).flatten();
        put.map_or_else(|| a.bad(1), |()| Ok(Flow::Done(0)))
    }),
];

fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result) as u32 as u64))
}

/// `bpf_cast_to_kern_ctx(ctx)`: the `struct sk_buff` or `struct xdp_buff` of a packet, as it is now;
/// other contexts are the kernel's own.
fn cast_to_kern_ctx(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let Some(packet) = st.cur.ctx.packet().filter(|_| a.r[0] == CTX_WINDOW) else {
        return Ok(Flow::Done(a.r[0]));
    };
    let Some(btf) = (*st.kernel_btf).clone() else {
        return a.bad(1);
    };
    let xdp = st.cur.ctx.is_xdp();
    let name = if xdp { "xdp_buff" } else { "sk_buff" };
    if st.cur.kern_ctx == 0 {
        let id = btf.find(name, Kind::Struct);
        let size = id.and_then(|id| btf.size_of(id).ok()).unwrap_or(8);
        let made = st.buffer(mem, size);
        if let Some(bytes) = made.and_then(|at| mem.slice_mut(at, size as u64)) {
            bytes.fill(0);
        }
        st.cur.kern_ctx = made.unwrap_or(0);
    }
    let at = st.cur.kern_ctx;
    show_packet(&btf, mem, at, &packet, xdp);
    Ok(Flow::Done(at))
}

/// Has a `struct sk_buff` or a `struct xdp_buff` show a packet.
pub(crate) fn show_packet(btf: &Btf, mem: &mut GuestMem, at: u64, packet: &Packet, xdp: bool) {
    let name = if xdp { "xdp_buff" } else { "sk_buff" };
    let skb: [(&str, u32, u64); 7] = [
        ("len", 4, packet.len()),
        ("head", 8, packet.head),
        ("data", 8, packet.data),
        ("tail", 4, packet.end - packet.head),
        ("end", 4, packet.tail - packet.head),
        ("mac_header", 2, packet.mac - packet.head),
        (
            "network_header",
            2,
            packet.mac + crate::packet::ETH_HLEN - packet.head,
        ),
    ];
    let buff = [
        ("data", 8, packet.data),
        ("data_end", 8, packet.end),
        ("data_meta", 8, packet.meta),
        ("data_hard_start", 8, packet.head),
        ("frame_sz", 4, packet.tail - packet.head),
    ];
    for (field, len, value) in if xdp { &buff[..] } else { &skb[..] } {
        if let Some(to) = member_of(btf, name, field)
            && let Some(bytes) = mem.slice_mut(at + to as u64, *len as u64)
        {
            bytes.copy_from_slice(&value.to_le_bytes()[..*len as usize]);
        }
    }
}

/// `bpf_send_signal_task(task, sig, type, value)`
fn send_signal_task(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `PIDTYPE_PID`, `PIDTYPE_TGID`
    const TYPES: u32 = 1;
    let task = a.task(st, 1)?;
    if a.r[2] as u32 > TYPES {
        return done32(Err(Errno::EINVAL));
    }
    done32(st.send_signal(task, a.r[1] as u32))
}

/// `bpf_copy_from_user_task_str(dst, dst__sz, unsafe_ptr, task, flags)`
fn copy_from_user_task_str(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const F_PAD_ZEROS: u64 = 1;
    let (to, size, flags) = (a.r[0], a.r[1] as u32 as u64, a.r[4]);
    let task = a.task(st, 4)?;
    if flags & !F_PAD_ZEROS != 0 {
        return done32(Err(Errno::EINVAL));
    }
    if size == 0 {
        return done32(Ok(0));
    }
    if st.user_fault_str(task, a.r[2], size) {
        return Ok(Flow::Suspend);
    }
    let result = read_string(st, mem, a, (to, size), a.r[2], Space::User(task))?;
    if let Ok(len) = result
        && flags & F_PAD_ZEROS != 0
        && let Some(rest) = mem.slice_mut(to + len, size - len)
    {
        rest.fill(0);
    }
    done32(result)
}

/// `bpf_stream_vprintk_impl(stream_id, fmt, args, len, aux)`: to the program's own streams.
fn stream_vprintk(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// Longest format that is looked at.
    const MAX_FORMAT: u64 = 1 << 16;
    /// `BPF_STREAM_MAX_CAPACITY`
    const CAPACITY: usize = 100_000;
    let stream = a.r[0] as u32;
    if !matches!(stream, 1 | 2) {
        return done32(Err(Errno::ENOENT));
    }
    let byte = |i: u64| mem.slice(a.r[1].wrapping_add(i), 1).map(|b| b[0]);
    let len = (0..MAX_FORMAT).find(|&i| byte(i).is_none_or(|b| b == 0));
    let format = a.bytes(mem, 2, len.unwrap_or(0) + 1)?;
    let text = match crate::helper::words(mem, a, 3)? {
        Ok(args) => st.format(mem, &format, &args),
        Err(errno) => Err(errno),
    };
    let prog = st.cur.prog;
    done32(text.and_then(|text| {
        let held = st.streams.entry((prog, stream)).or_default();
        if held.len() + text.len() > CAPACITY {
            return Err(Errno::ENOSPC);
        }
        held.extend_from_slice(&text);
        Ok(text.len() as u64)
    }))
}

/// `bpf_lookup_system_key(id)`: the keyrings are there and empty.
fn lookup_system_key(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `VERIFY_USE_PLATFORM_KEYRING`, the last there is; `sizeof(struct bpf_key)`.
    const LAST: u64 = 2;
    const SIZE: u32 = 16;
    if a.r[0] > LAST {
        return Ok(Flow::Done(0));
    }
    let key = st.buffer(mem, SIZE);
    if let Some(at) = key {
        // The kernel names system keyrings by their number.
        mem.write_u64(at, a.r[0]);
        mem.write_u64(at + 8, 0);
    }
    Ok(Flow::Done(key.unwrap_or(0)))
}
