//! What `sk_msg` programs do to the data of a message (`struct sk_msg`).
//!
//! The elements of its scatter list lie one behind the other in guest memory: what matters to programs is
//! where they end, since a program sees the first one, or what it pulled.

use super::packet::{done, fields};
use super::{Arg, Args, Helper, row};
use crate::packet::{FieldsCtx, Packet};
use crate::state::State;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};
use smallvec::{SmallVec, smallvec};

/// `MAX_MSG_FRAGS`
const MAX_FRAGS: usize = 17;

pub(super) const HELPERS: &[Helper] = &[
    row(Func::MsgPullData, false, |st, mem, a| {
        edit(st, mem, a, pull)
    }),
    row(Func::MsgPushData, false, |st, mem, a| {
        edit(st, mem, a, push)
    }),
    row(Func::MsgPopData, false, |st, mem, a| edit(st, mem, a, pop)),
    row(Func::MsgApplyBytes, false, |st, _, a| {
        message(st, a)?.apply_bytes = a.r[1] as u32;
        done(Ok(0))
    }),
    row(Func::MsgCorkBytes, false, |st, _, a| {
        message(st, a)?.cork_bytes = a.r[1] as u32;
        done(Ok(0))
    }),
];

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Where it lies, and how long its elements are.
    at: u64,
    elements: SmallVec<[u64; 4]>,
    pub apply_bytes: u32,
    pub cork_bytes: u32,
}

impl Message {
    /// One element, as the copy of what is sent makes one.
    pub fn new(packet: &Packet) -> Message {
        Message {
            at: packet.data,
            elements: smallvec![packet.len()],
            apply_bytes: 0,
            cork_bytes: 0,
        }
    }

    /// `msg->sg.size`
    fn len(&self) -> u64 {
        self.elements.iter().sum()
    }

    /// All of it: address and length.
    pub fn span(&self) -> (u64, u64) {
        (self.at, self.len())
    }

    /// The element that a byte is in, and where that begins; of what is behind the end the last one.
    fn element(&self, start: u64) -> (usize, u64) {
        let mut offset = 0;
        for (i, len) in self.elements.iter().enumerate() {
            if start < offset + len || i + 1 == self.elements.len() {
                return (i, offset);
            }
            offset += len;
        }
        (0, 0)
    }
}

fn message<'a>(st: &'a mut State, a: &Args) -> Arg<&'a mut Message> {
    fields(st, a)?.message.as_mut().map_or_else(|| a.bad(1), Ok)
}

/// What an edit leaves: the bytes that the program sees now.
type Window = Result<Option<(u64, u64)>, Errno>;

/// Carries out an edit: start and length, or start and end.
fn edit(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    how: fn(&mut Message, &mut GuestMem, &Packet, u64, u64) -> Window,
) -> Arg<Flow> {
    let ctx = fields(st, a)?;
    let (Some(packet), Some(msg)) = (ctx.packet, ctx.message.as_mut()) else {
        return a.bad(1);
    };
    let [_, start, len, flags, _] = a.r.map(|r| r as u32 as u64);
    if flags != 0 {
        return done(Err(Errno::EINVAL));
    }
    let seen = match how(msg, mem, &packet, start, len) {
        Ok(Some(seen)) => seen,
        Ok(None) => return done(Ok(0)),
        Err(errno) => return done(Err(errno)),
    };
    show(ctx, packet, seen);
    done(Ok(0))
}

/// The program sees these bytes of its message.
fn show(ctx: &mut FieldsCtx, packet: Packet, (at, len): (u64, u64)) {
    ctx.show(Packet {
        data: at,
        meta: at,
        end: at + len,
        ..packet
    });
    let size = ctx.message.as_ref().map_or(0, Message::len);
    ctx.set(CtxSlot::SkMsgSize, size as u32);
}

/// `bpf_msg_pull_data(msg, start, end, flags)`: elements become one where they must.
fn pull(msg: &mut Message, _: &mut GuestMem, _: &Packet, start: u64, end: u64) -> Window {
    let (first, offset) = msg.element(start);
    if end <= start || start >= offset + msg.elements[first] {
        return Err(Errno::EINVAL);
    }
    let (mut taken, mut n) = (0, 0);
    for len in &msg.elements[first..] {
        (taken, n) = (taken + len, n + 1);
        if taken >= end - offset {
            break;
        }
    }
    if taken < end - offset {
        return Err(Errno::EINVAL);
    }
    msg.elements.drain(first..first + n);
    msg.elements.insert(first, taken);
    Ok(Some((msg.at + start, end - start)))
}

/// `bpf_msg_push_data(msg, start, len, flags)`: what comes in is zero here; Linux leaves in it what the page
/// held.
fn push(msg: &mut Message, mem: &mut GuestMem, room: &Packet, start: u64, len: u64) -> Window {
    if len == 0 {
        return Ok(None);
    }
    let (i, offset) = msg.element(start);
    let inside = start.wrapping_sub(offset);
    if start > offset + msg.elements[i] {
        return Err(Errno::EINVAL);
    }
    if msg.at + msg.len() + len > room.tail {
        return Err(Errno::ENOMEM);
    }
    let at = msg.at + start;
    if move_bytes(mem, at, at + len, msg.len() - start).is_none() {
        return Err(Errno::ENOMEM);
    }
    if let Some(new) = mem.slice_mut(at, len) {
        new.fill(0);
    }
    let splits = inside != 0;
    let space = MAX_FRAGS.saturating_sub(msg.elements.len());
    if space == 0 || space == 1 && splits {
        // The element is copied to a page that holds both.
        msg.elements[i] += len;
    } else {
        let rest = msg.elements[i] - inside;
        let parts = [inside, len, rest].into_iter().filter(|&n| n > 0);
        let parts: SmallVec<[u64; 3]> = parts.collect();
        msg.elements.remove(i);
        msg.elements.insert_many(i, parts);
    }
    expose(mem, msg);
    Ok(Some((msg.at, msg.elements[0])))
}

/// `bpf_msg_pop_data(msg, start, len, flags)`
fn pop(msg: &mut Message, mem: &mut GuestMem, _: &Packet, start: u64, len: u64) -> Window {
    if len == 0 {
        return Ok(None);
    }
    let (i, offset) = msg.element(start);
    if start >= offset + msg.elements[i] || start + len > msg.len() {
        return Err(Errno::EINVAL);
    }
    let at = msg.at + start;
    if move_bytes(mem, at + len, at, msg.len() - start - len).is_none() {
        return Err(Errno::ENOMEM);
    }
    let inside = start - offset;
    let has = msg.elements[i];
    if inside > 0 && inside + len < has {
        let space = msg.elements.len() < MAX_FRAGS;
        msg.elements[i] = if space { inside } else { has - len };
        if space {
            msg.elements.insert(i + 1, has - len - inside);
        }
    } else {
        let (mut left, mut at) = (len, i);
        if inside > 0 {
            left -= has - inside;
            msg.elements[i] = inside;
            at += 1;
        }
        while left > 0 {
            let cut = left.min(msg.elements[at]);
            left -= cut;
            msg.elements[at] -= cut;
            if msg.elements[at] == 0 {
                msg.elements.remove(at);
            }
        }
    }
    if msg.elements.is_empty() {
        msg.elements.push(0);
    }
    expose(mem, msg);
    Ok(Some((msg.at, msg.elements[0])))
}

fn expose(mem: &mut GuestMem, msg: &Message) {
    let (at, len) = msg.span();
    mem.expose(at, len);
}

/// `memmove`
fn move_bytes(mem: &mut GuestMem, from: u64, to: u64, len: u64) -> Option<()> {
    let bytes = mem.slice(from, len)?.to_vec();
    mem.slice_mut(to, len)?.copy_from_slice(&bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(elements: &[u64]) -> Message {
        Message {
            at: 0,
            elements: elements.into(),
            apply_bytes: 0,
            cork_bytes: 0,
        }
    }

    #[test]
    fn bytes_are_in_the_element_that_they_lie_in() {
        let msg = with(&[4, 6, 2]);
        let at: Vec<_> = [0, 3, 4, 9, 10, 12, 40].map(|b| msg.element(b)).into();
        assert_eq!(
            at,
            [(0, 0), (0, 0), (1, 4), (1, 4), (2, 10), (2, 10), (2, 10)]
        );
        assert_eq!(msg.len(), 12);
    }
}
