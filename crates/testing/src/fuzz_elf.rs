//! Any bytes as an object: loading them, and all that can be reached from there, neither panics nor
//! hangs, and what it gives is consistent.

use bpfsim_btf::TypeId;
use bpfsim_loader::{
    ExternValue, Kconfig, LoadOptions, MapDef, Object, Program, RelocKind, SlotValue,
    code_sections, load_with,
};

/// Globals that are written, and programs whose every line is looked at: some stand for all.
const SOME: usize = 16;

/// One input of a fuzzer.
///
/// # Panics
/// On an object that refers to what it does not have, and wherever the loader does.
pub fn run(bytes: &[u8]) {
    if let Ok(sections) = code_sections(bytes) {
        for section in sections {
            assert!(section.labels.is_sorted_by_key(|label| label.offset));
            assert!(section.relocs.is_sorted_by_key(|reloc| reloc.offset));
            section
                .lines
                .iter()
                .take(SOME)
                .for_each(|line| drop(format!("{line:?}")));
        }
    }
    let options = LoadOptions {
        name: "fuzz".to_owned(),
        ..LoadOptions::default()
    };
    match load_with(bytes, &options) {
        Ok(object) => whole(object),
        Err(e) => {
            assert!(e.errno() as i32 > 0);
            assert!(e.to_string().len() < 4096, "a message grows with the input");
        }
    }
}

fn whole(mut object: Object) {
    for program in &object.programs {
        check_program(&object, program);
    }
    for map in &object.maps {
        check_map(&object, map);
    }
    let names: Vec<String> = object
        .globals()
        .map(|g| g.name.to_owned())
        .take(SOME)
        .collect();
    for name in names {
        if let Ok(mut value) = object.global_bytes(&name) {
            value.fill(0xa5);
            if object.set_global(&name, &value).is_ok() {
                assert_eq!(object.global_bytes(&name), Ok(value));
            }
        }
    }
    let config = "CONFIG_HZ=250\nCONFIG_BPF=y\nCONFIG_CC_VERSION_TEXT=\"clang\"\n";
    let kernel_version = 0x06_12_00;
    let kconfig = Kconfig {
        config,
        kernel_version,
        ..Kconfig::default()
    };
    let _wants_more = object.set_kconfig(&kconfig);
    if let Some(btf) = object.btf.clone() {
        let _of_this_kernel = object.kern_struct_ops(&btf);
        let report = object.relocate_core(&btf, &[]);
        let count = object
            .programs
            .iter()
            .map(|p| p.core_relos.len())
            .sum::<usize>();
        assert!(report.is_ok_and(|r| r.outcomes.len() == count));
    }
    let mut odd = false;
    let _unresolved = object.resolve_externs(|_| {
        odd = !odd;
        odd.then_some(ExternValue::Btf {
            id: TypeId(1),
            btf: 0,
        })
    });
    object.adjust_struct_ops_autoload();
}

fn check_program(object: &Object, program: &Program) {
    let len = program.insns.len();
    assert!(program.main_len > 0 && program.main_len <= len);
    assert!(program.funcs.first().is_some_and(|f| f.start_insn == 0));
    assert!(
        program
            .funcs
            .is_sorted_by(|a, b| a.start_insn < b.start_insn)
    );
    assert!(program.funcs.iter().all(|f| f.start_insn < len));
    assert!(program.exception_cb.is_none_or(|i| i < program.funcs.len()));
    assert!(program.relocs.is_sorted_by_key(|r| r.insn));
    assert!(program.core_relos.iter().all(|r| r.insn < len));
    let starts = |insn| program.func_at(insn).is_some_and(|f| f.start_insn == insn);
    for reloc in &program.relocs {
        assert!(reloc.insn < len && program.reloc_at(reloc.insn).is_some());
        match reloc.kind {
            RelocKind::MapFd { map } | RelocKind::MapValue { map, .. } => {
                assert!(map < object.maps.len());
            }
            RelocKind::Func { insn } | RelocKind::Call { insn } => assert!(starts(insn)),
            RelocKind::ExternVar { ext } | RelocKind::ExternCall { ext } => {
                assert!(ext < object.externs.len());
            }
        }
    }
    for line in program.lines.iter().take(SOME) {
        assert!(line.insn < len);
        assert_eq!(program.lines.at(line.insn).map(|l| l.insn), Some(line.insn));
    }
    drop(format!(
        "{:?} {:?}",
        program.attach_target(),
        program.link_error
    ));
}

fn check_map(object: &Object, map: &MapDef) {
    assert!(map.kernel_name().len() <= 15);
    let arena = map.kind == bpfsim_loader::MapKind::User;
    assert!(arena || map.data.len() <= map.value_size as usize);
    assert!(map.values.is_sorted_by(|a, b| a.key < b.key));
    for slot in &map.values {
        match slot.value {
            SlotValue::Map(other) => assert!(other < object.maps.len()),
            SlotValue::Program(program) => assert!(program < object.programs.len()),
        }
    }
    for &(_, program) in map.struct_ops.iter().flat_map(|ops| &ops.progs) {
        assert!(program < object.programs.len());
    }
}
