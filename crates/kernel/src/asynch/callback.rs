//! What timers and works have in common: how one comes to be in its slot, and gets its callback.

use super::{Callback, Pool, Slotted, put_in_slot};
use crate::shared::Shared;
use crate::state::State;
use crate::trace::Level;
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;

/// `struct bpf_async_cb`: what has a callback of a program's.
pub(super) trait Async: Slotted + Copy {
    fn callback(&mut self) -> &mut Option<Callback>;

    /// Where all of the kind are.
    fn pool(st: &mut State) -> &mut Shared<Pool<Self>>;
}

impl State {
    /// `__bpf_async_init`, once the flags are known to be good.
    pub(super) fn async_init<T: Async>(
        &mut self,
        mem: &mut GuestMem,
        new: T,
    ) -> Result<u64, Errno> {
        let slot = *new.slot();
        if self.cur.level == Level::Nmi {
            return Err(Errno::EOPNOTSUPP);
        }
        if T::pool(self).in_slot(mem, slot.addr).is_some() {
            return Err(Errno::EBUSY);
        }
        if self.maps[slot.map.at()].uref == 0 {
            return Err(Errno::EPERM);
        }
        if self.fails() {
            return Err(Errno::ENOMEM);
        }
        let handle = T::pool(self).insert(new);
        if put_in_slot(mem, slot.addr, Some(handle)).is_none() {
            T::pool(self).remove(handle);
            return Err(Errno::ENOMEM);
        }
        Ok(0)
    }

    /// `__bpf_async_set_callback`
    pub(super) fn async_set_callback<T: Async>(
        &mut self,
        mem: &GuestMem,
        addr: u64,
        callback: Callback,
    ) -> Result<u64, Errno> {
        if self.cur.level == Level::Nmi {
            return Err(Errno::EOPNOTSUPP);
        }
        let handle = T::pool(self).in_slot(mem, addr).ok_or(Errno::EINVAL)?;
        let mut item = *T::pool(self).get(handle).ok_or(Errno::EINVAL)?;
        if self.maps[item.slot().map.at()].uref == 0 {
            return Err(Errno::EPERM);
        }
        self.refs.move_to(*item.callback(), callback)?;
        if let Some(item) = T::pool(self).get_mut(handle) {
            *item.callback() = Some(callback);
        }
        Ok(0)
    }
}
