//! Helpers that need no more than a few lines each: clocks, names, signals, storage of a run.

use super::{Arg, Args, Helper, ret, row};
use crate::ids::TaskId;
use crate::state::State;
use crate::task::TaskState;
use crate::world::NS_DEV;
use bpfsim_abi::{Errno, Func, MapType};
use bpfsim_btf::{Kind, TypeId};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::Jiffies64, false, |st, _, _| {
        Ok(Flow::Done(jiffies(st.cpu().clock)))
    }),
    row(Func::KtimeGetTaiNs, false, |st, _, _| {
        Ok(Flow::Done(BOOTED_TAI + st.cpu().clock))
    }),
    row(Func::SendSignal, true, send_signal),
    row(Func::SendSignalThread, true, send_signal),
    row(Func::BtfFindByNameKind, false, btf_find),
    row(Func::KallsymsLookupName, false, kallsyms_lookup),
    row(Func::ReadBranchRecords, false, |_, _, a| {
        let known = a.r[3] & !1 == 0;
        done(Err(if known { Errno::ENOENT } else { Errno::EINVAL }))
    }),
    row(Func::GetBranchSnapshot, false, |_, _, a| {
        let known = a.r[2] == 0;
        done(Err(if known { Errno::ENOENT } else { Errno::EINVAL }))
    }),
    row(Func::GetLocalStorage, true, get_local_storage),
    row(Func::GetNsCurrentPidTgid, false, ns_current_pid_tgid),
    row(Func::SeqWrite, true, seq_write),
    row(Func::SeqPrintf, true, seq_printf),
    row(Func::SeqPrintfBtf, true, |st, mem, a| {
        let text = super::text::btf_text(st, mem, a, 2)?;
        done(text.map(|text| {
            // That there is no more room is no error of this one.
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            let _ = put(st, &bytes);
            0
        }))
    }),
];

/// `CONFIG_HZ` of the emulated kernel, and its first value of `jiffies`: five minutes before they
/// are more than 32 bits.
pub(crate) const HZ: u64 = 250;
const INITIAL_JIFFIES: u64 = (1 << 32) - 300 * HZ;
/// International atomic time at boot, in ns: the beginning of 2025.
const BOOTED_TAI: u64 = 1_735_689_637_000_000_000;
/// Most bytes that a sequence file holds before it is read.
const SEQ_SIZE: usize = 8 * 4096;

/// `jiffies_64` at a time, in ns.
pub(crate) fn jiffies(clock: u64) -> u64 {
    let ticks = clock as u128 * HZ as u128 / 1_000_000_000;
    INITIAL_JIFFIES + ticks as u64
}

fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result)))
}

/// `bpf_send_signal`, `bpf_send_signal_thread`: noted on the task, which a test asks for.
fn send_signal(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    done(st.send_signal(st.cur.task, a.r[0] as u32))
}

impl State {
    /// `bpf_send_signal_common`
    pub fn send_signal(&mut self, task: TaskId, signal: u32) -> Result<u64, Errno> {
        /// `_NSIG`
        const SIGNALS: u32 = 64;
        let task = &mut self.tasks[task.at()];
        if task.kthread || task.pid == 0 {
            return Err(Errno::EPERM);
        }
        if signal > SIGNALS {
            return Err(Errno::EINVAL);
        }
        if signal != 0 {
            task.signals.push(signal);
        }
        Ok(0)
    }
}

/// A name of so many bytes with its NUL, which is where it must be.
fn name(mem: &GuestMem, a: &Args) -> Arg<Result<String, Errno>> {
    let bytes = a.bytes(mem, 1, a.r[1] as u32 as u64)?;
    let Some((0, text)) = bytes.split_last().filter(|(_, text)| !text.is_empty()) else {
        return Ok(Err(Errno::EINVAL));
    };
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    Ok(Ok(String::from_utf8_lossy(&text[..end]).into_owned()))
}

/// `bpf_btf_find_by_name_kind(name, name_sz, kind, flags)`
fn btf_find(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let name = match name(mem, a)? {
        Ok(name) if a.r[3] == 0 => name,
        _ => return done(Err(Errno::EINVAL)),
    };
    let kind = u8::try_from(a.r[2] as u32).ok().and_then(Kind::from_u8);
    let found = kind.and_then(|kind| st.kernel_btf.as_ref()?.find(&name, kind));
    done(found.map(|TypeId(id)| id as u64).ok_or(Errno::ENOENT))
}

/// `bpf_kallsyms_lookup_name(name, name_sz, flags, res)`
fn kallsyms_lookup(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let found = match name(mem, a)? {
        Ok(name) if a.r[2] == 0 => st.ksym_address(&name).ok_or(Errno::ENOENT),
        _ => Err(Errno::EINVAL),
    };
    if mem.write_u64(a.r[3], found.unwrap_or(0)).is_none() {
        return a.bad(4);
    }
    done(found.map(|_| 0))
}

/// `bpf_get_local_storage(map, flags)`: that of the cgroup that the program is attached to. One that
/// is attached to none has storage of its own for as long as it runs, as `BPF_PROG_TEST_RUN` gives it.
fn get_local_storage(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let spec = &st.maps[map.at()].spec;
    let copies = match spec.map_type {
        MapType::CgroupStorage => 1,
        MapType::PercpuCgroupStorage => st.cpus.len() as u32,
        _ => return a.bad(1),
    };
    let stride = spec.value_size.next_multiple_of(8);
    if let Some(of) = st.cur.hook.as_ref().and_then(|h| h.cgroup) {
        let key = of.bytes(spec.key_size);
        let (m, mut op) = st.map_op(mem, map);
        if let Some(at) = m.lookup(&mut op, &key) {
            return Ok(Flow::Done(at));
        }
    }
    let known = st.cur.storage.iter().find(|(of, _)| *of == map);
    let at = match known {
        Some(&(_, at)) => at,
        None => {
            let Some(at) = st.buffer(mem, stride * copies) else {
                return done(Err(Errno::ENOMEM));
            };
            if let Some(bytes) = mem.slice_mut(at, (stride * copies) as u64) {
                bytes.fill(0);
            }
            st.cur.storage.push((map, at));
            at
        }
    };
    let cpu = if copies > 1 { st.cur.cpu.0 } else { 0 };
    Ok(Flow::Done(at + (cpu * stride) as u64))
}

/// `bpf_get_ns_current_pid_tgid(dev, ino, nsdata, size)`
fn ns_current_pid_tgid(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let task = st.cur.task;
    let t = &st.tasks[task.at()];
    let ns = t.pid_ns;
    let named = a.r[0] == NS_DEV && a.r[1] == u64::from(st.world.ns(ns).inum);
    let word = match (a.r[3] as u32, t.state) {
        (size, _) if size != 8 || u32::try_from(a.r[0]).is_err() => Err(Errno::EINVAL),
        (_, TaskState::Reaped) => Err(Errno::ENOENT),
        _ if !named => Err(Errno::EINVAL),
        _ => {
            let (pid, tgid) = (st.pid_in(task, ns), st.tgid_in(task, ns));
            Ok(u64::from(pid) | u64::from(tgid) << 32)
        }
    };
    let Some(to) = mem.slice_mut(a.r[2], a.r[3] as u32 as u64) else {
        return a.bad(3);
    };
    to.fill(0);
    if let Ok(word) = word {
        to.copy_from_slice(&word.to_le_bytes());
    }
    done(word.map(|_| 0))
}

/// `bpf_seq_write(m, data, len)`
fn seq_write(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let bytes = a.bytes(mem, 2, a.r[2] as u32 as u64)?;
    done(put(st, &bytes))
}

/// `bpf_seq_printf(m, fmt, fmt_size, data, data_len)`
fn seq_printf(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let format = a.bytes(mem, 2, a.r[2] as u32 as u64)?;
    let text = match super::text::data(mem, a, 4)? {
        Ok(args) => st.format(mem, &format, &args),
        Err(errno) => Err(errno),
    };
    done(text.and_then(|text| put(st, &text)))
}

/// What does not fit is left out whole.
fn put(st: &mut State, bytes: &[u8]) -> Result<u64, Errno> {
    let cur = &mut *st.cur;
    let seq = &mut cur.seq;
    let overflowed = cur.hook.as_mut().map(|h| &mut h.seq_overflowed);
    if matches!(overflowed, Some(true)) || seq.len() + bytes.len() >= SEQ_SIZE {
        overflowed.into_iter().for_each(|o| *o = true);
        return Err(Errno::EOVERFLOW);
    }
    seq.extend_from_slice(bytes);
    Ok(0)
}
