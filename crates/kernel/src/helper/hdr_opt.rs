//! Options of TCP headers: `sock_ops` programs look at those that came, ask for room in what is to
//! be sent, and write there.
//!
//! The packet of such a run is the TCP header with its options (`skb->data`). Room that a program
//! reserved for a socket is there when this socket's next header is written.

use super::packet::{done, fields, show};
use super::sock::own_sock;
use super::{Arg, Args, Helper, row};
use crate::packet::{FieldsCtx, Packet};
use crate::state::State;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::LoadHdrOpt, false, load),
    row(Func::StoreHdrOpt, false, store),
    row(Func::ReserveHdrOpt, true, reserve),
];

/// `BPF_SOCK_OPS_HDR_OPT_LEN_CB`, `BPF_SOCK_OPS_WRITE_HDR_OPT_CB`
const LEN_CB: u64 = 14;
const WRITE_CB: u64 = 15;
/// `BPF_LOAD_HDR_OPT_TCP_SYN`
const F_SYN: u64 = 1;
/// `sizeof(struct tcphdr)`, `MAX_TCP_OPTION_SPACE`
const TCPHDR: u64 = 20;
const OPTIONS: u32 = 40;

/// `TCPOPT_EOL`, `TCPOPT_NOP`, `TCPOPT_EXP`, and another one for experiments.
const EOL: u8 = 0;
const NOP: u8 = 1;
const EXP: u8 = 254;
const EXP_TOO: u8 = 253;

/// What a `sock_ops` program may still put into a header, when it begins (`remaining_opt_len`);
/// `reserved` is what programs asked for in its socket's next one.
pub(crate) fn room(ctx: &FieldsCtx, reserved: Option<&mut u32>, header: u64) -> u32 {
    let asked = match (ctx.get(CtxSlot::SockOpsOp), reserved) {
        (LEN_CB | WRITE_CB, Some(reserved)) => std::mem::take(reserved),
        _ => 0,
    };
    match ctx.get(CtxSlot::SockOpsOp) {
        LEN_CB => OPTIONS.saturating_sub(header.saturating_sub(TCPHDR) as u32),
        WRITE_CB => asked.next_multiple_of(4),
        _ => 0,
    }
}

/// Why an option was not found.
enum Missing {
    /// There is none.
    None,
    /// There is none, and no more can follow: the options have ended.
    Ended,
    /// What is there is no list of options.
    Broken,
}

/// `bpf_search_tcp_opt`: where an option of a kind is, that begins with `magic`.
fn search(options: &[u8], kind: u8, magic: &[u8]) -> Result<usize, Missing> {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            EOL => return Err(Missing::Ended),
            NOP => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let left = options.len() - at;
        let len = options.get(at + 1).map_or(0, |&len| len as usize);
        if left < 2 || left < len || len < 2 {
            return Err(Missing::Broken);
        }
        if options[at] == kind {
            if magic.len() > len - 2 {
                return Err(Missing::None);
            }
            if options[at + 2..].starts_with(magic) {
                return Ok(at);
            }
        }
        at += len;
    }
    Err(Missing::None)
}

fn header(ctx: &FieldsCtx) -> Option<Packet> {
    ctx.packet
}

/// Behind the header's fixed part.
fn options(mem: &GuestMem, p: Packet) -> &[u8] {
    let len = p.len().saturating_sub(TCPHDR);
    mem.slice(p.data + TCPHDR, len).unwrap_or(&[])
}

/// `bpf_load_hdr_opt(skops, searchby_res, len, flags)`
fn load(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (len, flags) = (a.r[2] as u32, a.r[3]);
    if len < 2 || flags & !F_SYN != 0 {
        return done(Err(Errno::EINVAL));
    }
    let by = a.bytes(mem, 2, len.into())?;
    let (kind, by_len) = (by[0], by[1]);
    let experiment = matches!(kind, EXP | EXP_TOO);
    let fits = match experiment {
        true => matches!(by_len, 4 | 6),
        false => by_len == 0,
    };
    if u32::from(by_len) > len || matches!(kind, EOL | NOP) || !fits {
        return done(Err(Errno::EINVAL));
    }
    if flags & F_SYN != 0 {
        // No SYN was saved.
        return done(Err(Errno::ENOENT));
    }
    let ctx = fields(st, a)?;
    let Some(p) = header(ctx).filter(|_| ctx.get(CtxSlot::SockOpsOp) != LEN_CB) else {
        return done(Err(Errno::EPERM));
    };
    let magic = &by[2..by_len.max(2) as usize];
    let options = options(mem, p);
    let at = match search(options, kind, magic) {
        Ok(at) => at,
        Err(Missing::Broken) => return done(Err(Errno::EFAULT)),
        Err(Missing::None | Missing::Ended) => return done(Err(Errno::ENOMSG)),
    };
    let found = options[at..at + options[at + 1] as usize].to_vec();
    let copied = found.len().min(len as usize);
    match mem.slice_mut(a.r[1], copied as u64) {
        Some(to) => to.copy_from_slice(&found[..copied]),
        None => return a.bad(2),
    }
    done(match copied < found.len() {
        true => Err(Errno::ENOSPC),
        false => Ok(found.len() as u64),
    })
}

/// `bpf_store_hdr_opt(skops, from, len, flags)`
fn store(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (len, flags) = (a.r[2] as u32, a.r[3]);
    let ctx = fields(st, a)?;
    if ctx.get(CtxSlot::SockOpsOp) != WRITE_CB {
        return done(Err(Errno::EPERM));
    }
    if len < 2 || flags != 0 {
        return done(Err(Errno::EINVAL));
    }
    let new = a.bytes(mem, 2, len.into())?;
    let (kind, new_len) = (new[0], new[1]);
    if u32::from(new_len) > len || matches!(kind, EOL | NOP) {
        return done(Err(Errno::EINVAL));
    }
    if u32::from(new_len) > ctx.opt_room {
        return done(Err(Errno::ENOSPC));
    }
    let experiment = matches!(kind, EXP | EXP_TOO);
    if experiment && new_len < 4 {
        return done(Err(Errno::EINVAL));
    }
    let Some(p) = header(ctx) else {
        return done(Err(Errno::EPERM));
    };
    let magic = if experiment { &new[2..4] } else { &[][..] };
    match search(options(mem, p), kind, magic) {
        Ok(_) => return done(Err(Errno::EEXIST)),
        Err(Missing::Broken) => return done(Err(Errno::EFAULT)),
        Err(Missing::Ended) => return done(Err(Errno::ENOSPC)),
        Err(Missing::None) => {}
    }
    let (end, new_len) = (p.end, u64::from(new_len));
    let to = mem
        .slice_mut(end, new_len)
        .filter(|_| end + new_len <= p.tail);
    let Some(to) = to else {
        return done(Err(Errno::ENOSPC));
    };
    to.copy_from_slice(&new[..new_len as usize]);
    mem.expose(end, new_len);
    ctx.opt_room -= new_len as u32;
    show(
        st,
        Packet {
            end: end + new_len,
            ..p
        },
    );
    done(Ok(0))
}

/// `bpf_reserve_hdr_opt(skops, len, flags)`
fn reserve(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (len, flags) = (a.r[1] as u32, a.r[2]);
    let ctx = fields(st, a)?;
    if ctx.get(CtxSlot::SockOpsOp) != LEN_CB {
        return done(Err(Errno::EPERM));
    }
    if flags != 0 || len < 2 {
        return done(Err(Errno::EINVAL));
    }
    if len > ctx.opt_room {
        return done(Err(Errno::ENOSPC));
    }
    ctx.opt_room -= len;
    if let Some(sock) = own_sock(st, a.r[0]) {
        st.world.socks[sock.at()].opt_reserved += len;
    }
    done(Ok(0))
}
