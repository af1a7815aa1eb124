//! Keys and options of tunnels, as packets carry them (`struct ip_tunnel_info`).

use super::packet::{done, fields};
use super::{Arg, Args, Helper, row};
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::SkbSetTunnelKey, false, set_key),
    row(Func::SkbGetTunnelKey, false, get_key),
    row(Func::SkbSetTunnelOpt, false, set_opt),
    row(Func::SkbGetTunnelOpt, false, get_opt),
];

/// `BPF_F_TUNINFO_IPV6`, `BPF_F_ZERO_CSUM_TX`, `BPF_F_DONT_FRAGMENT`, `BPF_F_SEQ_NUMBER`,
/// `BPF_F_NO_TUNNEL_KEY`; `BPF_F_TUNINFO_FLAGS`.
const F_IPV6: u64 = 1;
const F_ZERO_CSUM: u64 = 2;
const F_DONT_FRAGMENT: u64 = 4;
const F_SEQ: u64 = 8;
const F_NO_KEY: u64 = 16;
const F_FLAGS: u64 = 16;

/// `IP_TUNNEL_*_BIT`
const CSUM: u16 = 1 << 0;
const KEY: u16 = 1 << 2;
const SEQ: u16 = 1 << 3;
const DONT_FRAGMENT: u16 = 1 << 8;
const GENEVE_OPT: u16 = 1 << 11;
const VXLAN_OPT: u16 = 1 << 12;
const NOCACHE: u16 = 1 << 13;
const ERSPAN_OPT: u16 = 1 << 14;
const GTP_OPT: u16 = 1 << 15;
const OPTIONS: u16 = GENEVE_OPT | VXLAN_OPT | ERSPAN_OPT | GTP_OPT;

/// `struct bpf_tunnel_key`: how long it is, and was.
const SIZE: usize = 44;
const OLDER: [usize; 4] = [28, 24, 22, 8];
const REMOTE: std::ops::Range<usize> = 4..20;
const EXT: std::ops::Range<usize> = 22..24;
const LABEL: std::ops::Range<usize> = 24..28;
const LOCAL: std::ops::Range<usize> = 28..44;
/// `IPV6_FLOWLABEL_MASK`
const LABEL_MASK: u32 = 0x000f_ffff;
/// `IP_TUNNEL_OPTS_MAX`
const OPTS_MAX: u64 = 255;

/// What a packet is to be sent with.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    key: [u8; SIZE],
    v6: bool,
    flags: u16,
    options: Vec<u8>,
}

/// `bpf_skb_set_tunnel_key(skb, key, size, flags)`
fn set_key(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (size, flags) = (a.r[2] as u32 as usize, a.r[3]);
    let known = F_IPV6 | F_ZERO_CSUM | F_DONT_FRAGMENT | F_SEQ | F_NO_KEY;
    if flags & !known != 0 || size != SIZE && !OLDER.contains(&size) {
        return done(Err(Errno::EINVAL));
    }
    let given = a.bytes(mem, 2, size as u64)?;
    let mut key = [0; SIZE];
    key[..size].copy_from_slice(&given);
    let v6 = flags & F_IPV6 != 0;
    let labelled = key[LABEL] != [0; 4];
    if labelled && !v6 || key[EXT] != [0; 2] {
        return done(Err(Errno::EINVAL));
    }
    if v6 {
        let label = u32::from_le_bytes([key[24], key[25], key[26], key[27]]) & LABEL_MASK;
        key[LABEL].copy_from_slice(&label.to_le_bytes());
    } else {
        key[REMOTE][4..].fill(0);
        key[LOCAL][4..].fill(0);
    }
    let mut bits = KEY | CSUM | NOCACHE;
    for (flag, set, bit) in [
        (F_DONT_FRAGMENT, true, DONT_FRAGMENT),
        (F_ZERO_CSUM, false, CSUM),
        (F_SEQ, true, SEQ),
        (F_NO_KEY, false, KEY),
    ] {
        match (flags & flag != 0, set) {
            (true, true) => bits |= bit,
            (true, false) => bits &= !bit,
            (false, _) => {}
        }
    }
    fields(st, a)?.tunnel = Some(Box::new(Tunnel {
        key,
        v6,
        flags: bits,
        options: Vec::new(),
    }));
    done(Ok(0))
}

/// `bpf_skb_get_tunnel_key(skb, key, size, flags)`: of a packet that goes out, the ends are those of one that
/// came in.
fn get_key(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (size, flags) = (a.r[2] as u32 as usize, a.r[3]);
    let v6 = flags & F_IPV6 != 0;
    let tunnel = fields(st, a)?.tunnel.clone();
    let key = match tunnel.filter(|_| flags & !(F_IPV6 | F_FLAGS) == 0) {
        None => Err(Errno::EINVAL),
        Some(tunnel) if tunnel.v6 != v6 => Err(Errno::EPROTO),
        Some(_) if size != SIZE && !OLDER.contains(&size) => Err(Errno::EINVAL),
        Some(_) if size == 8 && v6 => Err(Errno::EINVAL),
        Some(tunnel) => {
            let mut key = tunnel.key;
            key[REMOTE].copy_from_slice(&tunnel.key[LOCAL]);
            key[LOCAL].copy_from_slice(&tunnel.key[REMOTE]);
            let ext = if flags & F_FLAGS != 0 {
                tunnel.flags
            } else {
                0
            };
            key[EXT].copy_from_slice(&ext.to_be_bytes());
            Ok(key)
        }
    };
    let Some(to) = mem.slice_mut(a.r[1], size as u64) else {
        return a.bad(2);
    };
    match key {
        Ok(key) => to.copy_from_slice(&key[..size]),
        Err(errno) => {
            to.fill(0);
            return done(Err(errno));
        }
    }
    done(Ok(0))
}

/// `bpf_skb_set_tunnel_opt(skb, opt, size)`
fn set_opt(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let size = a.r[2] as u32 as u64;
    let ctx = fields(st, a)?;
    let Some(tunnel) = ctx.tunnel.as_mut().filter(|_| size.is_multiple_of(4)) else {
        return done(Err(Errno::EINVAL));
    };
    if size > OPTS_MAX {
        return done(Err(Errno::ENOMEM));
    }
    tunnel.options = a.bytes(mem, 2, size)?.into_vec();
    tunnel.flags |= OPTIONS;
    done(Ok(0))
}

/// `bpf_skb_get_tunnel_opt(skb, opt, size)`: how long they are.
fn get_opt(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let size = a.r[2] as u32 as u64;
    let tunnel = fields(st, a)?.tunnel.as_ref();
    let options = match tunnel.filter(|t| t.flags & OPTIONS != 0) {
        None => Err(Errno::ENOENT),
        Some(t) if size < t.options.len() as u64 => Err(Errno::ENOMEM),
        Some(t) => Ok(t.options.clone()),
    };
    let Some(to) = mem.slice_mut(a.r[1], size) else {
        return a.bad(2);
    };
    to.fill(0);
    done(options.map(|options| {
        to[..options.len()].copy_from_slice(&options);
        options.len() as u64
    }))
}
