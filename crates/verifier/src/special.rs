//! References, locks, dynptrs, iterators, graph nodes: what is more than a pointer.

mod dynptr;
mod irq;
mod iter;
mod lock;
mod refs;

use crate::record::RField;
use crate::refusal::{also, reject};
use crate::reg::{BTF_PROG, Reg, ty};
use crate::verifier::{R, Verifier};

/// `mark_reg_graph_node`: the object that holds a node.
pub(crate) fn graph_node(f: &RField) -> Reg {
    let mut reg = Reg::pointer(ty::BTF_ID | ty::ALLOC);
    (reg.a, reg.b) = (BTF_PROG, f.target.1);
    reg.off = f.node_offset as i32;
    reg
}

/// Where an object lies on the stack, or why it does not.
pub(crate) enum Spi {
    At(usize),
    /// Below what was used of the stack.
    Below,
    Bad,
}

impl Verifier<'_> {
    /// `check_map_field_pointer`
    pub(crate) fn check_map_field(&mut self, n: usize, bit: u32, name: &str) -> R {
        let reg = self.reg(n);
        if !reg.var_off.is_const() {
            reject!(
                self,
                EINVAL,
                "R{n} doesn't have constant offset. {name} has to be at the constant offset\n"
            );
        }
        let Some(map) = reg.map().filter(|m| *m < self.maps.len()) else {
            return self.bug(format_args!("map"));
        };
        let map_name = self.maps[map].name.as_str();
        if !self.maps[map].has_btf {
            reject!(
                self,
                EINVAL,
                "map '{map_name}' has to have BTF in order to use {name}\n"
            );
        }
        let record = self.map_records[map].clone().filter(|r| r.has(bit));
        let Some(record) = record else {
            reject!(self, EINVAL, "map '{map_name}' has no valid {name}\n");
        };
        let at = record.offset_of(bit);
        let off = (reg.var_off.value as i64).wrapping_add(reg.off.into());
        if i64::from(at) != off {
            reject!(
                self,
                EINVAL,
                "off {off} doesn't point to 'struct {name}' that is at {at}\n"
            );
        }
        Ok(())
    }

    /// `stack_slot_obj_get_spi`
    pub(crate) fn object_at(&mut self, reg: &Reg, what: &str, slots: usize) -> Spi {
        if !reg.var_off.is_const() {
            also!(self, "{what} has to be at a constant offset\n");
            return Spi::Bad;
        }
        let off = reg.fixed_off();
        let spi = (-off - 1) / 8;
        if off % 8 != 0 || i64::from(spi) + 1 < slots as i64 {
            also!(self, "cannot pass in {what} at an offset={off}\n");
            return Spi::Bad;
        }
        let Ok(spi) = usize::try_from(spi) else {
            return Spi::Bad;
        };
        let len = self.frame_of(reg).stack.len();
        match spi + 1 >= slots && spi < len {
            true => Spi::At(spi),
            false => Spi::Below,
        }
    }

    /// `mark_stack_obj_read`
    fn read_object(&mut self, reg: &Reg, spi: usize, slots: usize) {
        for s in (0..slots).map(|i| spi - i) {
            self.live_read(usize::from(reg.frameno), self.insn_idx as usize, 1 << s);
            self.log.scratch_slot(s);
        }
    }
}
