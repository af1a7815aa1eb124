//! Failures that a test has helpers and kfuncs meet, and helpers that it does itself.

use crate::chance;
use crate::helper;
use crate::kernel::Kernel;
use crate::kfunc;
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Call, Flow, GuestMem};
use std::rc::Rc;

/// A call to come that is to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Injected {
    call: Call,
    /// Calls until then, itself included.
    left: u64,
    errno: Errno,
}

/// What a test does in place of a helper: given R1 to R5, gives R0, or `None` to have bpfsim do it.
pub type Override = Rc<dyn Fn(&[u64; 5]) -> Option<u64>>;

/// Why no call of a name can be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bpfsim runs no helper or kfunc `{0}`")]
pub struct UnknownCall(pub String);

fn find(name: &str) -> Result<Call, UnknownCall> {
    let helper = Func::from_name(name).filter(|&f| helper::runs(f));
    let call = helper.map(|f| Call::Helper(f as u32));
    let call = call.or_else(|| kfunc::index(name).map(Call::Kfunc));
    call.ok_or_else(|| UnknownCall(name.to_string()))
}

impl Kernel {
    /// The `nth` call of a helper or kfunc from now on, counted from 1, fails with this errno; one
    /// that gives a pointer gives null.
    pub fn fail(&mut self, name: &str, nth: u64, errno: Errno) -> Result<(), UnknownCall> {
        let (call, left) = (find(name)?, nth.max(1));
        self.st.injected.push(Injected { call, left, errno });
        Ok(())
    }

    /// From now on calls of a helper or kfunc are the test's. This is no part of snapshots.
    pub fn override_call(&mut self, name: &str, with: Override) -> Result<(), UnknownCall> {
        let call = find(name)?;
        self.overrides.retain(|(c, _)| *c != call);
        self.overrides.push((call, with));
        Ok(())
    }

    /// Another test begins: what the last one did itself, or had [recorded](Kernel::record), is no part of
    /// snapshots, and not gone back over with them.
    pub fn forget_test(&mut self) {
        self.overrides.clear();
        self.recorder = None;
    }
}

/// What a call answers in place of being carried out.
pub(crate) fn instead(
    st: &mut State,
    mem: &mut GuestMem,
    overrides: &[(Call, Override)],
    call: Call,
    args: &[u64; 5],
) -> Option<Flow> {
    // A call that goes on was let through before.
    if st.cur.op.is_some() {
        return None;
    }
    if let Some(r0) = failed(st, call) {
        return Some(Flow::Done(r0));
    }
    if let Some(flow) = chance::instead(st, mem, call, args) {
        return Some(flow);
    }
    let (_, with) = overrides.iter().find(|(c, _)| *c == call)?;
    with(args).map(Flow::Done)
}

fn failed(st: &mut State, call: Call) -> Option<u64> {
    let mut errno = None;
    st.injected.retain_mut(|i| {
        if i.call != call {
            return true;
        }
        i.left -= 1;
        if i.left == 0 {
            errno = Some(i.errno);
        }
        i.left > 0
    });
    let errno = errno?;
    Some(if gives_pointer(call) {
        0
    } else {
        helper::ret(Err(errno))
    })
}

fn gives_pointer(call: Call) -> bool {
    match call {
        Call::Helper(id) => crate::checked::proto(id).is_some_and(|p| p.ret.is_pointer()),
        Call::Kfunc(index) => {
            let row = kfunc::name(index).and_then(bpfsim_abi::kfunc::get);
            row.is_some_and(|k| {
                k.proto
                    .split('(')
                    .next()
                    .is_some_and(|ret| ret.contains('*'))
            })
        }
    }
}
