//! What is looked at before the walk: subprograms, BTF, kernel functions, maps.

mod pseudo;
mod subprogs;

use crate::verifier::{R, Verifier};

impl Verifier<'_> {
    pub(crate) fn setup(&mut self) -> R {
        for map in 0..self.maps.len() {
            let record = self.record_of(&self.maps[map].fields);
            self.map_records.push(record);
        }
        self.check_func_order()?;
        self.add_subprogs()?;
        self.check_subprogs()?;
        self.check_funcs()?;
        self.check_pseudo_loads()
    }
}
