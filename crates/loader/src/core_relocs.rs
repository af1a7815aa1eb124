//! CO-RE over a whole object: every program's relocations against one kernel's BTF.

use std::collections::HashMap;
use std::sync::Arc;

use bpfsim_btf::Btf;
use bpfsim_btf::core::{CoreError, CoreResult, Patched, Relocator, patch};
use bpfsim_isa::Insn;

use crate::error::{LoadError, LoadErrorKind as K};
use crate::object::Object;

/// What became of each relocation, by program and instruction.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    /// In the order of [`Object::programs`] and of their [`crate::Program::core_relos`].
    pub outcomes: Vec<CoreOutcome>,
}

/// What became of one relocation.
#[derive(Clone, Debug)]
pub struct CoreOutcome {
    /// Index of the program.
    pub program: usize,
    /// Instruction.
    pub insn: usize,
    /// Whether the instruction holds the new value or is poisoned; an error is one for which libbpf
    /// refuses the object, if the program is to be loaded.
    pub result: Result<Patched, CoreError>,
}

impl CoreReport {
    /// Why libbpf would refuse to load this program.
    pub fn error(&self, program: usize) -> Option<&CoreError> {
        let of_program = self.outcomes.iter().filter(|o| o.program == program);
        of_program.filter_map(|o| o.result.as_ref().err()).next()
    }

    /// Relocations that no type of the kernel answers.
    pub fn poisoned(&self) -> impl Iterator<Item = &CoreOutcome> {
        self.outcomes
            .iter()
            .filter(|o| o.result == Ok(Patched::Poisoned))
    }
}

impl Object {
    /// `bpf_object__relocate_core`: adapts all programs to a kernel's types. To be called once; a
    /// second call would find instructions that no longer hold what the compiler wrote.
    ///
    /// # Errors
    /// None for what a single relocation meets (that is in the report); only that there is no BTF.
    pub fn relocate_core(
        &mut self,
        kernel: &Btf,
        modules: &[&Btf],
    ) -> Result<CoreReport, LoadError> {
        let mut report = CoreReport::default();
        if self.programs.iter().all(|p| p.core_relos.is_empty()) {
            return Ok(report);
        }
        let local = self.btf.as_ref().map(Arc::clone).ok_or(K::NoBtf.err())?;
        let mut relocator = Relocator::new(&local, kernel);
        for module in modules {
            relocator.add_module(module);
        }
        // Subprograms' relocations come once for each program that has them.
        let mut known: HashMap<_, Result<CoreResult, CoreError>> = HashMap::new();
        for (index, program) in self.programs.iter_mut().enumerate() {
            for relo in &program.core_relos {
                let record = relo.record;
                let key = (record.type_id, record.access_str_off, record.kind);
                let result = known
                    .entry(key)
                    .or_insert_with(|| relocator.resolve(&record));
                let result = match result {
                    Ok(result) => patch_at(&mut program.insns, relo.insn, result),
                    Err(e) => Err(e.clone()),
                };
                let (program, insn) = (index, relo.insn);
                report.outcomes.push(CoreOutcome {
                    program,
                    insn,
                    result,
                });
            }
        }
        Ok(report)
    }
}

fn patch_at(insns: &mut [Insn], at: usize, result: &CoreResult) -> Result<Patched, CoreError> {
    let insns = insns.get_mut(at..).unwrap_or_default();
    let count = insns.len().min(2);
    let mut slots = [[0; 8]; 2];
    for (slot, insn) in slots.iter_mut().zip(insns.iter()) {
        *slot = insn.to_le_bytes();
    }
    let patched = patch(&mut slots[..count], result)?;
    for (insn, slot) in insns.iter_mut().zip(&slots[..count]) {
        *insn = Insn::from_le_bytes(*slot);
    }
    Ok(patched)
}
