//! Helpers, by number. Each is a few lines over [`State`]; what needs more has its own module.

mod cgroup;
pub(crate) mod dynptr;
mod fib;
mod file;
pub(crate) mod hdr_opt;
mod hook;
mod iterate;
pub(crate) mod lwt;
pub(crate) mod memory;
mod misc;
mod msg;
mod packet;
mod retval;
mod room;
mod sock;
mod sockmap;
mod sockopt;
mod stack;
mod syncookie;
mod sysctl;
mod tail;
mod text;
mod tunnel;
mod xdp;

pub(crate) use cgroup::kfuncs as cgroup_kfuncs;
pub(crate) use file::kfuncs as file_kfuncs;
pub(crate) use hook::KFUNCS as HOOK_KFUNCS;
pub(crate) use iterate::{Iteration, begin_rb_add, resume};
pub(crate) use misc::{HZ, jiffies};
pub(crate) use msg::Message;
pub(crate) use retval::{hook_retval, retval};
pub(crate) use sock::own_sock;

use crate::asynch::{Callback, Slot};
use crate::ids::{MapId, TaskId};
use crate::lock;
use crate::map::helpers as maps;
use crate::prog::code_of;
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_btf::fields::FieldKind;
use bpfsim_vm::{Call, FaultKind, Flow, GuestMem};
use smallvec::SmallVec;

/// A result as it stands in R0.
pub(crate) fn ret(result: Result<u64, Errno>) -> u64 {
    match result {
        Ok(value) => value,
        Err(errno) => (-(errno.0 as i64)) as u64,
    }
}

/// A call with its arguments, on its way to what carries it out.
pub(crate) struct Args {
    pub call: Call,
    pub r: [u64; 5],
}

/// The outcome of reading an argument: what is wrong with it is a fault of the program, since
/// the verifier lets none such through.
pub(crate) type Arg<T> = Result<T, FaultKind>;

impl Args {
    pub fn bad<T>(&self, arg: u8) -> Arg<T> {
        Err(FaultKind::BadArgument {
            call: self.call,
            arg,
        })
    }

    /// Argument `n`, from 1.
    fn at(&self, n: u8) -> u64 {
        self.r[n as usize - 1]
    }

    pub fn map(&self, st: &State, n: u8) -> Arg<MapId> {
        st.map_at(self.at(n)).map_or_else(|| self.bad(n), Ok)
    }

    /// Memory that an argument points to.
    pub fn bytes(&self, mem: &GuestMem, n: u8, len: u64) -> Arg<SmallVec<[u8; 64]>> {
        match mem.slice(self.at(n), len) {
            Some(bytes) => Ok(bytes.into()),
            None => self.bad(n),
        }
    }

    /// Memory that the kernel itself points to.
    pub fn memory(&self, mem: &GuestMem, at: u64, len: u64) -> Arg<SmallVec<[u8; 64]>> {
        mem.slice(at, len)
            .map_or_else(|| self.bad(1), |b| Ok(b.into()))
    }

    pub fn key(&self, st: &State, mem: &GuestMem, map: MapId, n: u8) -> Arg<SmallVec<[u8; 64]>> {
        self.bytes(mem, n, st.maps[map.at()].spec.key_size as u64)
    }

    /// A special field that argument `n` points to, in a value of the map.
    pub fn slot(&self, st: &State, map: MapId, n: u8, is: fn(&FieldKind) -> bool) -> Arg<Slot> {
        let m = &st.maps[map.at()];
        let addr = self.at(n);
        let value = m.fields.offset(is).map(|o| addr.wrapping_sub(o as u64));
        match value.filter(|&v| m.value_around(addr) == Some(v)) {
            Some(value) => Ok(Slot { map, addr, value }),
            None => self.bad(n),
        }
    }

    /// The function that argument `n` points to.
    pub fn function(&self, st: &State, n: u8) -> Arg<Callback> {
        match code_of(&st.progs, self.at(n)) {
            Some((prog, entry)) => Ok(Callback { prog, entry }),
            None => self.bad(n),
        }
    }

    /// The task whose `struct task_struct` argument `n` points to.
    pub fn task(&self, st: &State, n: u8) -> Arg<TaskId> {
        let at = st.tasks.iter().position(|t| t.addr == self.at(n));
        at.map_or_else(|| self.bad(n), |i| Ok(TaskId(i as u32)))
    }
}

pub(crate) use text::data as words;
pub(crate) use tunnel::Tunnel;
pub(crate) use xdp::pull_data as xdp_pull_data;

/// What carries a call out.
pub(crate) type Body = fn(&mut State, &mut GuestMem, &Args) -> Arg<Flow>;

pub(crate) struct Helper {
    func: Func,
    /// It touches what other executions can touch.
    visible: bool,
    body: Body,
}

pub(crate) const fn row(func: Func, visible: bool, body: Body) -> Helper {
    Helper {
        func,
        visible,
        body,
    }
}

const HELPERS: &[Helper] = &[
    row(Func::MapLookupElem, true, map_lookup),
    row(Func::MapUpdateElem, true, map_update),
    row(Func::MapDeleteElem, true, map_delete),
    row(Func::KtimeGetNs, false, ktime),
    row(Func::KtimeGetBootNs, false, ktime),
    row(Func::KtimeGetCoarseNs, false, ktime),
    row(Func::TracePrintk, true, text::trace_printk),
    row(Func::TraceVprintk, true, text::trace_vprintk),
    row(Func::Snprintf, false, text::snprintf),
    row(Func::SnprintfBtf, false, text::snprintf_btf),
    row(Func::Strncmp, false, text::strncmp),
    row(Func::Strtol, false, text::strtol),
    row(Func::Strtoul, false, text::strtoul),
    row(Func::ProbeRead, false, memory::probe_read),
    row(Func::ProbeReadStr, false, memory::probe_read_str),
    row(Func::ProbeReadKernel, false, memory::probe_read_kernel),
    row(
        Func::ProbeReadKernelStr,
        false,
        memory::probe_read_kernel_str,
    ),
    row(Func::ProbeReadUser, false, memory::probe_read_user),
    row(Func::ProbeReadUserStr, false, memory::probe_read_user_str),
    row(Func::ProbeWriteUser, false, memory::probe_write_user),
    row(Func::CopyFromUser, false, memory::copy_from_user),
    row(Func::CopyFromUserTask, false, memory::copy_from_user_task),
    row(Func::TailCall, true, tail::tail_call),
    row(Func::Loop, false, iterate::bpf_loop),
    row(Func::UserRingbufDrain, true, iterate::user_ringbuf_drain),
    row(Func::FindVma, true, iterate::find_vma),
    row(Func::ForEachMapElem, true, iterate::for_each_map_elem),
    row(Func::GetPrandomU32, false, |st, _, _| {
        let seed = st.seed.get();
        Ok(Flow::Done(st.cur.random(seed).into()))
    }),
    row(Func::GetSmpProcessorId, false, |st, _, _| {
        Ok(Flow::Done(st.cur.cpu.0 as u64))
    }),
    row(Func::GetNumaNodeId, false, |_, _, _| Ok(Flow::Done(0))),
    row(Func::GetCurrentPidTgid, false, current_pid_tgid),
    row(Func::GetCurrentUidGid, false, |st, _, _| {
        let t = &st.tasks[st.cur.task.at()];
        Ok(Flow::Done((t.gid as u64) << 32 | t.uid as u64))
    }),
    row(Func::GetCurrentComm, false, current_comm),
    row(Func::GetCurrentTask, false, current_task),
    row(Func::GetCurrentTaskBtf, false, current_task),
    row(Func::TaskPtRegs, false, |st, _, a| {
        let task = a.task(st, 1)?;
        Ok(Flow::Done(st.tasks[task.at()].regs))
    }),
    row(Func::KptrXchg, true, kptr_xchg),
    row(Func::ThisCpuPtr, false, |st, _, a| {
        let at = st.per_cpu(a.r[0], st.cur.cpu.0);
        at.map_or_else(|| a.bad(1), |at| Ok(Flow::Done(at)))
    }),
    row(Func::PerCpuPtr, false, |st, _, a| {
        let cpu = a.r[1] as u32;
        if cpu as usize >= st.cpus.len() {
            return Ok(Flow::Done(0));
        }
        let at = st.per_cpu(a.r[0], cpu);
        at.map_or_else(|| a.bad(1), |at| Ok(Flow::Done(at)))
    }),
    row(Func::SpinLock, true, spin),
    row(Func::SpinUnlock, true, spin),
    row(Func::TimerInit, true, timer_init),
    row(Func::TimerSetCallback, true, timer_set_callback),
    row(Func::TimerStart, true, |st, mem, a| {
        Ok(st.timer_start(mem, a.r[0], a.r[1], a.r[2]))
    }),
    row(Func::TimerCancel, true, |st, mem, a| {
        Ok(st.timer_cancel(mem, a.r[0]))
    }),
];

/// All rows.
const GROUPS: &[&[Helper]] = &[
    HELPERS,
    maps::HELPERS,
    dynptr::HELPERS,
    hook::HELPERS,
    misc::HELPERS,
    stack::HELPERS,
    packet::HELPERS,
    xdp::HELPERS,
    msg::HELPERS,
    syncookie::HELPERS,
    tunnel::HELPERS,
    sock::HELPERS,
    cgroup::HELPERS,
    retval::HELPERS,
    room::HELPERS,
    lwt::HELPERS,
    hdr_opt::HELPERS,
    file::HELPERS,
    fib::HELPERS,
    sockmap::HELPERS,
    sockopt::HELPERS,
    sysctl::HELPERS,
];

/// Row of each helper number.
static ROWS: [Option<&Helper>; 256] = {
    let mut rows = [None; 256];
    let mut group = 0;
    while group < GROUPS.len() {
        let mut i = 0;
        while i < GROUPS[group].len() {
            rows[GROUPS[group][i].func as usize] = Some(&GROUPS[group][i]);
            i += 1;
        }
        group += 1;
    }
    rows
};

fn find(id: u32) -> Option<&'static Helper> {
    *ROWS.get(id as usize)?
}

/// True when a call touches what other executions can touch.
pub(crate) fn is_visible(id: u32) -> bool {
    find(id).is_some_and(|h| h.visible)
}

/// Name of a helper by its number.
pub(crate) fn name(id: u32) -> Option<&'static str> {
    Func::from_u32(id).map(Func::name)
}

/// True when bpfsim runs this helper.
pub fn runs(func: Func) -> bool {
    find(func as u32).is_some()
}

/// Carries out helper `id`.
pub(crate) fn call(st: &mut State, mem: &mut GuestMem, id: u32, a: &Args) -> Flow {
    match find(id) {
        Some(h) => (h.body)(st, mem, a).unwrap_or_else(Flow::Fault),
        None => Flow::Fault(FaultKind::UnknownCall(a.call)),
    }
}

fn ktime(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    Ok(Flow::Done(st.cpu().clock))
}

fn current_pid_tgid(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    let t = &st.tasks[st.cur.task.at()];
    Ok(Flow::Done((t.tgid as u64) << 32 | t.pid as u64))
}

fn current_task(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    Ok(Flow::Done(st.tasks[st.cur.task.at()].addr))
}

fn timer_init(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let slot = a.slot(st, map, 1, |k| matches!(k, FieldKind::Timer))?;
    Ok(st.timer_init(mem, slot, a.r[2]))
}

fn timer_set_callback(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let callback = a.function(st, 2)?;
    Ok(st.timer_set_callback(mem, a.r[0], callback))
}

fn map_lookup(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let key = a.key(st, mem, map, 2)?;
    let (m, mut op) = st.map_op(mem, map);
    let found = m.lookup(&mut op, &key).unwrap_or(0);
    // A socket comes with a reference.
    if found != 0
        && m.holds_socks()
        && let Some(sock) = st.world.sock_at(found)
    {
        st.world.socks[sock.at()].refs += 1;
    }
    Ok(Flow::Done(found))
}

/// What a map operation answers, or that it is to be called again.
fn step(result: Option<Result<(), Errno>>) -> Flow {
    result.map_or(Flow::Suspend, |r| Flow::Done(ret(r.map(|()| 0))))
}

fn map_update(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let key = a.key(st, mem, map, 2)?;
    let value = a.bytes(mem, 3, st.maps[map.at()].spec.value_size as u64)?;
    Ok(step(
        st.map_update_step(mem, map, &key, &value, a.r[3], false),
    ))
}

fn map_delete(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let key = a.key(st, mem, map, 2)?;
    Ok(step(st.map_delete_step(mem, map, &key, false)))
}

fn current_comm(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let size = a.r[1];
    if size == 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    let Some(to) = mem.slice_mut(a.r[0], size) else {
        return a.bad(1);
    };
    let comm = st.tasks[st.cur.task.at()].comm.as_bytes();
    let n = comm.len().min(to.len() - 1);
    to.fill(0);
    to[..n].copy_from_slice(&comm[..n]);
    Ok(Flow::Done(0))
}

/// `bpf_kptr_xchg`
fn kptr_xchg(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let old = mem.read_u64(a.r[0]);
    match old.and_then(|_| mem.write_u64(a.r[0], a.r[1])) {
        Some(()) => Ok(Flow::Done(old.unwrap_or(0))),
        None => a.bad(1),
    }
}

fn spin(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    lock::call(st, mem, a.call, a.r[0]).map_or_else(|| a.bad(1), Ok)
}
