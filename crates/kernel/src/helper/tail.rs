//! `bpf_tail_call`

use super::{Arg, Args, ret};
use crate::map::Storage;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// Tail calls that one run makes at most (`MAX_TAIL_CALL_CNT`).
const MAX_TAIL_CALLS: u32 = 33;

/// Goes on as the program in a slot of a program array. An empty slot, one out of range and the
/// 34th call fall through.
pub(super) fn tail_call(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let Storage::FdArray(array) = &st.maps[map.at()].storage else {
        return a.bad(2);
    };
    let prog = array.get(a.r[2] as u32).map(|handle| handle as u32 - 1);
    match prog.filter(|_| st.cur.tail_calls < MAX_TAIL_CALLS) {
        Some(prog) => {
            st.cur.tail_calls += 1;
            Ok(Flow::TailCall { prog, entry: 0 })
        }
        None => Ok(Flow::Done(ret(Err(Errno::ENOENT)))),
    }
}
