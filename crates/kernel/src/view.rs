//! The kernel, as the engine sees it.

use crate::helper::{self, Args};
use crate::kfunc;
use crate::state::State;
use bpfsim_vm::{Call, Flow, GuestMem, Host};

pub(crate) struct View<'a> {
    pub st: &'a mut State,
    /// What the CPU's clock would have been at the activation's first instruction, had it run
    /// without a break: an instruction takes a nanosecond.
    pub base: u64,
}

impl Host for View<'_> {
    fn call(&mut self, call: Call, args: &[u64; 5], insns: u64, mem: &mut GuestMem) -> Flow {
        self.st.cpu().clock = self.base + insns;
        let a = Args { call, r: *args };
        match call {
            Call::Helper(id) => helper::call(self.st, mem, id, &a),
            Call::Kfunc(index) => kfunc::call(self.st, mem, index, &a),
        }
    }

    fn resume(&mut self, r0: u64, mem: &mut GuestMem) -> Flow {
        helper::resume(self.st, mem, r0)
    }

    fn is_visible(&self, call: Call, _: &[u64; 5]) -> bool {
        match call {
            Call::Helper(id) => helper::is_visible(id),
            Call::Kfunc(index) => kfunc::is_visible(index),
        }
    }

    fn load(&mut self, addr: u64, size: u32, _: &GuestMem) -> Option<u64> {
        self.st.cur.ctx.load(addr, size)
    }

    fn store(&mut self, addr: u64, size: u32, value: u64, _: &mut GuestMem) -> Option<()> {
        self.st.cur.ctx.store(addr, size, value)
    }

    fn load_packet(&mut self, offset: i32, size: u32, mem: &GuestMem) -> Option<u64> {
        self.st.cur.ctx.packet()?.load(mem, offset, size)
    }
}
