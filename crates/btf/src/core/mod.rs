//! CO-RE: what an object that was compiled against some kernel's types means against another's.
//! Same decisions as libbpf's `relo_core.c`.
//!
//! [`Relocator::resolve`] computes, [`patch`] writes the result into the instruction. A field that no
//! candidate has is no error: its instruction is poisoned, since a program may guard it.

mod compat;
mod error;
mod matches;
mod patch;
mod spec;
mod value;

use std::collections::HashMap;

pub use error::CoreError;
pub use patch::{POISON_CALL, Patched, patch};
pub use value::CoreResult;

use crate::btf::Btf;
use crate::ext::{CoreRelo, CoreReloKind};
use crate::index::essential_name;
use crate::types::{Kind, Type, TypeId};
use spec::{LocalSpec, Matcher};

/// Members, references and candidates that one relocator looks at before it gives up: a hundred times
/// what the largest programs need, a fraction of a second's work. Types can be nested so as to need 2^64.
const WORK_LIMIT: u64 = 2_000_000;

/// Counts down the work that hostile types may ask for.
#[derive(Clone, Debug)]
pub(crate) struct Budget(u64);

impl Budget {
    pub(crate) fn spend(&mut self, work: u64) -> Result<(), CoreError> {
        self.0 = self.0.checked_sub(work).ok_or(CoreError::TooMuchWork)?;
        Ok(())
    }
}

/// Resolves the relocations of one object against one kernel.
#[derive(Debug)]
pub struct Relocator<'a> {
    local: &'a Btf,
    /// The kernel's BTF first, then those of its modules.
    targets: Vec<&'a Btf>,
    /// Candidates by root type; only those that matched before stay, as in libbpf.
    candidates: HashMap<TypeId, Vec<Candidate>>,
    budget: Budget,
}

/// A type of the kernel that a local type may stand for.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    target: usize,
    id: TypeId,
}

/// `btf_kind_core_compat`: same kind, or enums of either width.
pub(crate) fn kinds_are_compat(a: Kind, b: Kind) -> bool {
    let any_enum = |k| matches!(k, Kind::Enum | Kind::Enum64);
    a == b || any_enum(a) && any_enum(b)
}

impl<'a> Relocator<'a> {
    /// A relocator from the object's own types to a kernel's.
    pub fn new(local: &'a Btf, kernel: &'a Btf) -> Relocator<'a> {
        Relocator {
            local,
            targets: vec![kernel],
            candidates: HashMap::new(),
            budget: Budget(WORK_LIMIT),
        }
    }

    /// Adds a module's split BTF: searched for types that the kernel itself does not have.
    pub fn add_module(&mut self, module: &'a Btf) {
        self.targets.push(module);
    }

    /// What the relocation asks, as libbpf's log has it:
    /// `<byte_off> [7] struct task_struct.pid (0:3 @ offset 12)`.
    ///
    /// # Errors
    /// A malformed relocation.
    pub fn describe(&self, relo: &CoreRelo) -> Result<String, CoreError> {
        Ok(LocalSpec::parse(self.local, relo, &mut Budget(WORK_LIMIT))?.to_string())
    }

    /// What the instruction has to become.
    ///
    /// # Errors
    /// A malformed relocation, candidates that disagree, fields that no load can reach. That no
    /// candidate matches is a result: [`CoreResult::poison`], or the value 0 for existence and sizes.
    pub fn resolve(&mut self, relo: &CoreRelo) -> Result<CoreResult, CoreError> {
        let spec = LocalSpec::parse(self.local, relo, &mut self.budget)?;
        if relo.kind == CoreReloKind::TypeIdLocal {
            return Ok(CoreResult::local_type_id(relo.type_id));
        }
        if self.local.name_of(relo.type_id).is_empty() {
            return Err(CoreError::AnonymousType {
                id: relo.type_id,
                kind: relo.kind,
            });
        }
        let candidates = match self.candidates.get(&relo.type_id) {
            Some(known) => known.clone(),
            None => self.find_candidates(relo.type_id)?,
        };
        let mut chosen: Option<(CoreResult, u32)> = None;
        let mut matching = Vec::new();
        for &candidate in &candidates {
            let target = self.targets[candidate.target];
            let mut matcher = Matcher::new(&spec, target, &mut self.budget);
            let Some(matched) = matcher.run(candidate.id)? else {
                continue;
            };
            let mut result = value::calculate(&spec, Some(&matched))?;
            result.candidate = Some((candidate.target, candidate.id));
            matching.push(candidate);
            let Some((first, bit_offset)) = &chosen else {
                chosen = Some((result, matched.bit_offset));
                continue;
            };
            if *bit_offset != matched.bit_offset {
                return Err(CoreError::OffsetAmbiguity(matched.bit_offset, *bit_offset));
            }
            if first.poison != result.poison || first.new_val != result.new_val {
                return Err(CoreError::DecisionAmbiguity(Box::new((
                    result,
                    first.clone(),
                ))));
            }
        }
        let kept = match matching.is_empty() {
            true => candidates,
            false => matching,
        };
        self.candidates.insert(relo.type_id, kept);
        match chosen {
            Some((result, _)) => Ok(result),
            None => value::calculate(&spec, None),
        }
    }

    /// Types of the same essential name and a compatible kind: the kernel's, or else its modules'.
    fn find_candidates(&mut self, local: TypeId) -> Result<Vec<Candidate>, CoreError> {
        let ty = self.local.get(local)?;
        let name = essential_name(ty.name());
        let mut found = Vec::new();
        for (target, &btf) in self.targets.iter().enumerate() {
            if target == 1 && !found.is_empty() {
                break;
            }
            // A module's base is the kernel, which has been searched.
            let mut layers = vec![btf];
            while let (0, Some(base)) = (target, layers[layers.len() - 1].base()) {
                layers.push(base);
            }
            for layer in layers.into_iter().rev() {
                for id in layer.with_essential_name(name) {
                    self.budget.spend(1)?;
                    if layer
                        .ty(id)
                        .is_some_and(|t| kinds_are_compat(t.kind(), ty.kind()))
                    {
                        found.push(Candidate { target, id });
                    }
                }
            }
        }
        Ok(found)
    }
}

/// One relocation against one kernel; [`Relocator`] keeps its searches for the next.
///
/// # Errors
/// As [`Relocator::resolve`].
pub fn relocate(local: &Btf, relo: &CoreRelo, target: &Btf) -> Result<CoreResult, CoreError> {
    Relocator::new(local, target).resolve(relo)
}

/// `bpf_core_types_are_compat`: does the target's type count as the local one? What libbpf holds a
/// kfunc's prototype and a kernel variable's type to.
///
/// # Errors
/// Types nested beyond reason.
pub fn types_are_compat(
    local: &Btf,
    local_id: TypeId,
    target: &Btf,
    target_id: TypeId,
) -> Result<bool, CoreError> {
    compat::types_are_compat(local, local_id, target, target_id, &mut Budget(WORK_LIMIT))
}

/// The type behind modifiers and typedefs.
pub(crate) fn skip<'a>(
    btf: &'a Btf,
    id: TypeId,
    budget: &mut Budget,
) -> Result<(TypeId, Type<'a>), CoreError> {
    let (id, steps) = btf.skip_counted(id)?;
    budget.spend(u64::from(steps) + 1)?;
    Ok((id, btf.get(id)?))
}
