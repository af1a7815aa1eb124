//! What libbpf corrects in BTF: sizes and offsets that only the linker knows, and linkage.

use std::collections::HashMap;
use std::sync::Arc;

use bpfsim_btf::{Btf, Datasec, Linkage, Type, TypeId, VarSecinfo};

use crate::btf_edit::BtfEdit;
use crate::elf::Symbol;
use crate::error::{LoadError, LoadErrorKind as K};
use crate::externs::{KCONFIG, KSYMS, rewrite_ksyms};
use crate::object::{Extern, ExternKind};
use crate::open::Open;

impl Open<'_> {
    /// The changes of `bpf_object__collect_externs`, `bpf_object_fixup_btf` and (for hidden
    /// functions) `bpf_object__sanitize_and_load_btf`.
    pub(crate) fn fix_btf(&mut self) -> Result<(), LoadError> {
        let Some(btf) = self.btf.clone() else {
            return Ok(());
        };
        let mut edit = BtfEdit::new(&btf);
        let externs: HashMap<&str, &Extern> = self
            .externs
            .iter()
            .map(|ext| (ext.name.as_str(), ext))
            .collect();
        if externs
            .values()
            .any(|ext| !matches!(ext.kind, ExternKind::Kconfig { .. }))
        {
            rewrite_ksyms(&mut edit, &btf, &externs)?;
        }
        let variables = self.variables();
        for (id, ty) in btf.iter() {
            let Type::Datasec(section) = ty else { continue };
            let result = match section.name {
                KSYMS => Ok(()),
                KCONFIG => self.fix_kconfig(&mut edit, &btf, (id, section), &externs),
                _ => self.fix_datasec(&mut edit, &btf, (id, section), &variables),
            };
            result.map_err(|e| e.section(section.name))?;
        }
        self.hide_functions(&mut edit, &btf);
        let broken = |e: bpfsim_btf::BtfError| K::BadBtf(e.to_string()).in_section(".BTF");
        if let Some(btf) = edit.finish().map_err(broken)? {
            self.btf = Some(Arc::new(btf));
        }
        Ok(())
    }

    /// Global variables of ELF by name; the first wins (`find_elf_var_sym`).
    fn variables(&self) -> HashMap<&str, Symbol> {
        let mut variables = HashMap::new();
        for symbol in self.elf.symbols() {
            if symbol.kind == crate::elf::STT_OBJECT
                && symbol.is_global()
                && let Ok(name) = self.elf.symbol_name(&symbol)
            {
                variables.entry(name).or_insert(symbol);
            }
        }
        variables
    }

    /// Offsets of `.kconfig` variables are ours to choose: they have no ELF section.
    fn fix_kconfig(
        &self,
        edit: &mut BtfEdit,
        btf: &Btf,
        (id, section): (TypeId, Datasec<'_>),
        externs: &HashMap<&str, &Extern>,
    ) -> Result<(), LoadError> {
        if self.kconfig_size() == 0 {
            return Ok(());
        }
        let mut vars = Vec::with_capacity(section.vars.len());
        for var in section.vars {
            let name = btf.name_of(var.ty);
            let Some(ExternKind::Kconfig { off, .. }) = externs.get(name).map(|e| &e.kind) else {
                return Err(K::ExternWithoutSymbol.err().symbol(name));
            };
            edit.set_var_linkage(var.ty, 1);
            vars.push(VarSecinfo {
                offset: *off,
                ..var
            });
        }
        edit.set_size(id, self.kconfig_size());
        write_sorted(edit, id, vars);
        Ok(())
    }

    /// `btf_fixup_datasec`: clang leaves sizes and offsets zero.
    fn fix_datasec(
        &self,
        edit: &mut BtfEdit,
        btf: &Btf,
        (id, section): (TypeId, Datasec<'_>),
        variables: &HashMap<&str, Symbol>,
    ) -> Result<(), LoadError> {
        let unplaced = section.size == 0;
        if unplaced {
            let missing = || K::BadDatasec("ELF has no such section, or it is empty").err();
            let index = self.elf.find_section(section.name).ok_or_else(missing)?;
            let size = self.elf.section(index)?.size;
            if size == 0 {
                return Err(missing());
            }
            let size = u32::try_from(size).map_err(|_| {
                let limit = u64::from(u32::MAX);
                K::TooLarge {
                    what: "bytes of a section of variables",
                    limit,
                }
                .err()
            })?;
            edit.set_size(id, size);
        }
        let mut vars = Vec::with_capacity(section.vars.len());
        for mut var in section.vars {
            let Some(Type::Var { name, linkage, .. }) = btf.ty(var.ty) else {
                return Err(K::BadBtf("an entry of a DATASEC is no variable".into()).err());
            };
            if linkage != Linkage::Static && linkage != Linkage::Extern {
                let missing = || K::BadDatasec("ELF has no symbol of this variable").err();
                let symbol = variables.get(name).ok_or_else(|| missing().symbol(name))?;
                if unplaced {
                    var.offset = symbol.value as u32;
                }
                if symbol.is_hidden() {
                    edit.set_var_linkage(var.ty, 0);
                }
            }
            vars.push(var);
        }
        write_sorted(edit, id, vars);
        Ok(())
    }

    /// A global subprogram of hidden visibility is static to the verifier.
    fn hide_functions(&self, edit: &mut BtfEdit, btf: &Btf) {
        let hidden = self.funcs.iter().filter(|f| f.hidden && self.is_subprog(f));
        let mut hidden: HashMap<&str, ()> = hidden.map(|f| (f.name, ())).collect();
        if hidden.is_empty() {
            return;
        }
        for (id, ty) in btf.iter() {
            if let Type::Func {
                name,
                linkage: Linkage::Global,
                ..
            } = ty
                && hidden.remove(name).is_some()
            {
                edit.set_func_linkage(id, 0);
            }
        }
    }
}

fn write_sorted(edit: &mut BtfEdit, id: TypeId, mut vars: Vec<VarSecinfo>) {
    vars.sort_by_key(|var| var.offset);
    for (index, var) in vars.into_iter().enumerate() {
        edit.set_var(id, index, var);
    }
}
