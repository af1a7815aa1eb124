//! Exception callbacks: functions that only a decl tag names, and that are linked in all the same.

use std::collections::HashMap;

use bpfsim_btf::{Linkage, Type};

use crate::error::{LoadError, LoadErrorKind as K};
use crate::open::{Func, Open};

/// Decl tags `exception_callback:NAME`.
pub(crate) struct Callbacks<'o> {
    /// By name of the tagged function: the callbacks' names.
    tags: HashMap<&'o str, Vec<&'o str>>,
    /// Whether a tag sits on something that is no global function.
    misplaced: bool,
    subprogs: HashMap<&'o str, usize>,
}

impl<'o> Callbacks<'o> {
    pub(crate) fn new(open: &'o Open<'_>) -> Callbacks<'o> {
        let mut callbacks = Callbacks {
            tags: HashMap::new(),
            misplaced: false,
            subprogs: HashMap::new(),
        };
        let Some(btf) = open.btf.as_deref() else {
            return callbacks;
        };
        for (_, ty) in btf.iter() {
            let Type::DeclTag {
                name,
                ty,
                component_idx: -1,
                ..
            } = ty
            else {
                continue;
            };
            let Some(callback) = name.strip_prefix("exception_callback:") else {
                continue;
            };
            match btf.ty(ty) {
                Some(Type::Func {
                    name,
                    linkage: Linkage::Global,
                    ..
                }) => {
                    callbacks.tags.entry(name).or_default().push(callback);
                }
                _ => callbacks.misplaced = true,
            }
        }
        if !callbacks.tags.is_empty() {
            for (index, func) in open.funcs.iter().enumerate() {
                if open.is_subprog(func) {
                    callbacks.subprogs.entry(func.name).or_insert(index);
                }
            }
        }
        callbacks
    }

    /// `bpf_prog_assign_exc_cb`: the function that a program's tag names. Two tags are for the
    /// verifier to refuse.
    pub(crate) fn of(&self, open: &Open<'_>, main: &Func<'_>) -> Result<Option<usize>, LoadError> {
        let bad = |why: &str| K::BadExceptionCallback(why.to_owned()).err();
        if self.misplaced {
            return Err(bad("a tag on what is no main program"));
        }
        let Some(&[name, ref more @ ..]) = self.tags.get(main.name).map(Vec::as_slice) else {
            return Ok(None);
        };
        if name.is_empty() {
            return Err(bad("a tag without a name"));
        }
        let index = *self
            .subprogs
            .get(name)
            .ok_or_else(|| bad("no such function in .text"))?;
        let callback = &open.funcs[index];
        if !callback.global || callback.hidden {
            return Err(bad("it must be global and not hidden"));
        }
        Ok(more.is_empty().then_some(index))
    }
}
