//! What follows loading: globals, configuration, externs, CO-RE, struct_ops.

use crate::fixtures;
use bpfsim_abi::sections::AttachTarget;
use bpfsim_btf::{Type, TypeId};
use bpfsim_isa::{Insn, uapi};
use bpfsim_loader::{
    ExternKind, ExternValue, Kconfig, LoadErrorKind, MapKind, Object, POISON_CALL_KFUNC_BASE,
    Program, RelocKind,
};

fn matrix(name: &str) -> Object {
    let path = format!("matrix/clang-22-v3/{name}.bpf.o");
    fixtures::load(&path, &fixtures::one(&path)).unwrap()
}

#[test]
fn globals_are_found_and_set() {
    let mut object = matrix("globals");
    let read = |object: &Object, name: &str| object.global_bytes(name).unwrap();
    assert_eq!(read(&object, "total"), 7u64.to_le_bytes());
    assert_eq!(
        read(&object, "primes"),
        [2u32, 3, 5, 7].map(u32::to_le_bytes).concat()
    );
    assert_eq!(read(&object, "zeroed"), [0; 32]);
    object.set_global("step", &9u32.to_le_bytes()).unwrap();
    object.set_global("zeroed", &[0xee; 32]).unwrap();
    assert_eq!(read(&object, "step"), 9u32.to_le_bytes());
    assert_eq!(read(&object, "zeroed"), [0xee; 32]);
    let global = object.global("cold").unwrap();
    assert_eq!(object.maps[global.map].section, ".data.cold");
    let btf = object.btf.as_ref().unwrap();
    assert_eq!(btf.name_of(object.global("limits").unwrap().ty), "limits");
    let kinds: Vec<_> = object
        .maps
        .iter()
        .map(|m| (m.section.as_str(), m.kind))
        .collect();
    for (section, kind) in [
        (".bss.scratch", MapKind::Bss),
        (".rodata.primes", MapKind::Rodata),
    ] {
        assert!(kinds.contains(&(section, kind)), "{kinds:?}");
    }
}

#[test]
fn globals_that_are_not_there_name_near_misses() {
    let mut object = matrix("globals");
    let e = object.set_global("totl", &[0; 8]).unwrap_err();
    assert_eq!(e.kind, LoadErrorKind::NoGlobal(vec!["total".into()]));
    let e = object.set_global("total", &[0; 4]).unwrap_err();
    assert_eq!(e.kind, LoadErrorKind::GlobalSize { want: 8, got: 4 });
}

const CONFIG: &str = "# a comment\nCONFIG_HZ=250\nCONFIG_BPF_SYSCALL=y\nCONFIG_NET=m\n\
    CONFIG_CC_VERSION_TEXT=\"gcc (Debian 12.2.0) and more than sixty-four bytes of text to be cut\"\n";

#[test]
fn configuration_is_written_as_libbpf_writes_it() {
    let mut object = matrix("externs");
    let kconfig = Kconfig {
        config: CONFIG,
        kernel_version: 0x61200,
        ..Kconfig::default()
    };
    object.set_kconfig(&kconfig).unwrap();
    let read = |name: &str| object.global_bytes(name).unwrap();
    assert_eq!(read("CONFIG_HZ"), 250u64.to_le_bytes());
    assert_eq!(read("LINUX_KERNEL_VERSION"), 0x61200u32.to_le_bytes());
    assert_eq!(read("CONFIG_BPF_SYSCALL"), [1]);
    assert_eq!(read("CONFIG_NET"), 2u32.to_le_bytes());
    assert_eq!(read("CONFIG_OF_NO_KERNEL_WE_KNOW"), [0; 4]);
    let text = read("CONFIG_CC_VERSION_TEXT");
    assert_eq!(
        (text.len(), text[63], &text[..12]),
        (64, 0, &b"gcc (Debian "[..])
    );
}

#[test]
fn configuration_that_does_not_fit_is_refused() {
    for (config, why) in [
        ("CONFIG_HZ=y", "implies bool, tristate or char"),
        ("CONFIG_HZ=2x", "not an integer"),
        ("CONFIG_HZ=", "a line without a value"),
        ("CONFIG_BPF_SYSCALL=m", "a bool is no tristate"),
        ("CONFIG_BPF_SYSCALL=1", "implies an integer"),
        ("CONFIG_NET=\"y\"", "implies a char array"),
        ("CONFIG_CC_VERSION_TEXT=\"gcc", "an unended string"),
        ("CONFIG_OF_NO_KERNEL_WE_KNOW=0x100000000", "does not fit"),
        ("CONFIG_BPF_SYSCALL=y", ""),
    ] {
        // The first value of a name counts.
        let text = format!("{config}\n{CONFIG}");
        let kconfig = Kconfig {
            config: &text,
            ..Kconfig::default()
        };
        let result = matrix("externs").set_kconfig(&kconfig);
        let e = result.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            e.contains(why) && e.is_empty() == why.is_empty(),
            "{config}: {e}"
        );
    }
    let e = matrix("externs")
        .set_kconfig(&Kconfig::default())
        .unwrap_err();
    assert_eq!(
        e.kind,
        LoadErrorKind::UnresolvedExtern("configuration value")
    );
}

fn extern_insns<'p>(object: &'p Object, program: &'p Program, name: &str) -> Vec<&'p [Insn]> {
    let ext = object.externs.iter().position(|e| e.name == name).unwrap();
    let of_it = program.relocs.iter().filter(|r| match r.kind {
        RelocKind::ExternVar { ext: e } | RelocKind::ExternCall { ext: e } => e == ext,
        _ => false,
    });
    of_it.map(|r| &program.insns[r.insn..]).collect()
}

#[test]
fn externs_resolve_or_are_zero_or_poisoned() {
    let mut object = matrix("externs");
    let strong = object.resolve_externs(|_| None).unwrap_err();
    assert!(
        matches!(strong.kind, LoadErrorKind::UnresolvedExtern(_)),
        "{strong}"
    );
    let address = 0xffff_ffff_8123_4567;
    object
        .resolve_externs(|ext| match (ext.name.as_str(), &ext.kind) {
            ("bpf_map_put", ExternKind::Ksym { ty: None }) => Some(ExternValue::Address(address)),
            ("bpf_prog_active", ExternKind::Ksym { ty: Some(_) }) => Some(ExternValue::Btf {
                id: TypeId(77),
                btf: 0,
            }),
            (name, ExternKind::Kfunc { .. }) if name.starts_with("bpf_rcu") => {
                Some(ExternValue::Btf {
                    id: TypeId(99),
                    btf: 3,
                })
            }
            (_, _) => {
                assert!(ext.weak, "{}", ext.name);
                None
            }
        })
        .unwrap();
    let program = object.program("read_externs").unwrap();
    let put = extern_insns(&object, program, "bpf_map_put")[0];
    assert_eq!(
        (put[0].src(), put[0].imm as u32, put[1].imm as u32),
        (0, 0x8123_4567, 0xffff_ffff)
    );
    let missing = extern_insns(&object, program, "no_such_symbol")[0];
    assert_eq!(
        (missing[0].src(), missing[0].imm, missing[1].imm),
        (0, 0, 0)
    );
    let lock = extern_insns(&object, program, "bpf_rcu_read_lock")[0][0];
    assert_eq!(
        (lock.src(), lock.imm, lock.off),
        (uapi::BPF_PSEUDO_KFUNC_CALL, 99, 3)
    );
    let ext = object
        .externs
        .iter()
        .position(|e| e.name == "no_such_kfunc")
        .unwrap();
    let uses = extern_insns(&object, program, "no_such_kfunc");
    let calls: Vec<_> = uses
        .iter()
        .map(|i| i[0])
        .filter(|i| !i.is_ld_imm64())
        .collect();
    let poison = Insn::new(
        uapi::BPF_JMP | uapi::BPF_CALL,
        0,
        0,
        0,
        POISON_CALL_KFUNC_BASE + ext as i32,
    );
    assert_eq!(calls, [poison]);
    let typed = object.program("read_typed_externs").unwrap();
    let active = extern_insns(&object, typed, "bpf_prog_active")[0];
    assert_eq!(
        (active[0].src(), active[0].imm, active[1].imm),
        (uapi::BPF_PSEUDO_BTF_ID, 77, 0)
    );
}

#[test]
fn externs_are_looked_up_in_a_kernels_types() {
    let object = matrix("externs");
    let kernel = bpfsim_btf::vmlinux().unwrap();
    for (name, known) in [
        ("bpf_rcu_read_lock", true),
        ("bpf_prog_active", true),
        ("no_such_kfunc", false),
        ("no_such_variable", false),
        // Typeless ones have no id.
        ("bpf_map_put", false),
        ("CONFIG_HZ", false),
    ] {
        let ext = object.externs.iter().find(|e| e.name == name).unwrap();
        let found = object.find_extern(ext, &kernel).unwrap();
        assert_eq!(found.map(|id| kernel.name_of(id)), known.then_some(name));
    }
    // Of the right name, but another type: a strong one is refused, a weak function is missing.
    let mut lock = object
        .externs
        .iter()
        .find(|e| e.name == "bpf_rcu_read_lock")
        .unwrap()
        .clone();
    let other = object
        .externs
        .iter()
        .find(|e| e.name == "no_such_kfunc")
        .unwrap();
    lock.kind = other.kind.clone();
    assert!(matches!(
        object.find_extern(&lock, &kernel).unwrap_err().kind,
        LoadErrorKind::BadExtern(_)
    ));
    lock.weak = true;
    assert_eq!(object.find_extern(&lock, &kernel), Ok(None));
}

/// The kernel takes no extern: libbpf makes variables of ksyms, and so does BTF here.
#[test]
fn btf_of_externs_is_what_libbpf_gives_the_kernel() {
    let object = matrix("externs");
    let btf = object.btf.as_ref().unwrap();
    let section = |name| match btf
        .find(name, bpfsim_btf::Kind::Datasec)
        .and_then(|id| btf.ty(id))
    {
        Some(Type::Datasec(section)) => section,
        other => panic!("{other:?}"),
    };
    let ksyms = section(".ksyms");
    assert_eq!(ksyms.size as usize, 4 * ksyms.vars.len());
    for (i, var) in ksyms.vars.iter().enumerate() {
        assert_eq!((var.offset as usize, var.size), (4 * i, 4));
        assert!(matches!(
            btf.ty(var.ty),
            Some(Type::Var {
                linkage: bpfsim_btf::Linkage::Global,
                ..
            })
        ));
    }
    let kconfig = section(".kconfig");
    let map = object.map(".kconfig").unwrap();
    assert_eq!(kconfig.size, map.value_size);
    assert!(kconfig.vars.iter().map(|v| v.offset).is_sorted());
    assert!(btf.check_as_kernel().is_ok(), "{:?}", btf.check_as_kernel());
}

#[test]
fn core_relocates_against_the_shipped_kernel() {
    let mut object = matrix("core");
    let kernel = bpfsim_btf::vmlinux().unwrap();
    let report = object.relocate_core(&kernel, &[]).unwrap();
    let relos: usize = object.programs.iter().map(|p| p.core_relos.len()).sum();
    assert_eq!(report.outcomes.len(), relos);
    for (index, program) in object.programs.iter().enumerate() {
        assert_eq!(report.error(index), None, "{}", program.name);
    }
    let poisoned: Vec<_> = report
        .poisoned()
        .map(|o| object.programs[o.program].name.as_str())
        .collect();
    assert!(
        !poisoned.is_empty(),
        "the fixture has fields that no kernel has"
    );
    assert!(
        poisoned
            .iter()
            .all(|name| ["fields", "types_and_values", "guarded"].contains(name))
    );
}

#[test]
fn struct_ops_maps_name_their_programs() {
    let mut object = matrix("struct_ops");
    let map = object.map_index("fixed_link").unwrap();
    let ops = object.maps[map].struct_ops.clone().unwrap();
    assert!(ops.link && ops.type_name == "tcp_congestion_ops");
    let names: Vec<_> = ops
        .progs
        .iter()
        .map(|&(_, p)| object.programs[p].name.clone())
        .collect();
    assert_eq!(
        names,
        ["fixed_ssthresh", "fixed_cong_avoid", "fixed_undo_cwnd"]
    );
    for map in &mut object.maps {
        map.autocreate = false;
    }
    object.adjust_struct_ops_autoload();
    assert!(object.programs.iter().all(|p| !p.autoload));
    object.maps[map].autocreate = true;
    object.adjust_struct_ops_autoload();
    assert!(object.programs.iter().all(|p| p.autoload));
}

/// Members lie where the kernel's own struct has them, whatever the object's had.
#[test]
fn struct_ops_values_are_the_kernels() {
    let mut object = matrix("struct_ops");
    let kernel = bpfsim_btf::vmlinux().unwrap();
    let all = object.kern_struct_ops(&kernel).unwrap();
    assert_eq!(all.len(), 2);
    let find = |name| {
        let id = kernel.find(name, bpfsim_btf::Kind::Struct).unwrap();
        (id, kernel.ty(id).unwrap().composite().unwrap())
    };
    let (value_type, value) = find("bpf_struct_ops_tcp_congestion_ops");
    let (type_id, ops) = find("tcp_congestion_ops");
    let data = value
        .members
        .iter()
        .find(|m| m.name == "data")
        .unwrap()
        .bit_offset
        / 8;
    for kern in &all {
        assert_eq!((kern.value_type, kern.type_id), (value_type, type_id));
        assert_eq!(kern.value.len(), value.size as usize);
        for prog in &kern.progs {
            let member = ops.members.get(prog.member as usize).unwrap();
            assert_eq!(prog.offset, data + member.bit_offset / 8);
            let program = &object.programs[prog.program].name;
            assert_eq!(program.as_str(), format!("fixed_{}", member.name));
        }
        assert_eq!(kern.progs.len(), 3);
        let name = ops.members.iter().find(|m| m.name == "name").unwrap();
        let start = (data + name.bit_offset / 8) as usize;
        assert_eq!(kern.value[start..start + 6], *b"bpfsim");
    }
    // A program stands for one member; a member that is set must exist.
    let map = all[0].map;
    let ops = object.maps[map].struct_ops.as_mut().unwrap();
    let (a, b) = (ops.progs[0].1, ops.progs[1].1);
    (ops.progs[0].1, ops.progs[1].1) = (b, a);
    let e = object.kern_struct_ops(&kernel).unwrap_err();
    assert!(matches!(e.kind, LoadErrorKind::BadStructOps(_)), "{e}");
    object.maps[map].struct_ops.as_mut().unwrap().type_name = "list_head".into();
    let e = object.kern_struct_ops(&kernel).unwrap_err();
    assert_eq!(
        e.kind,
        LoadErrorKind::NoKernelType("bpf_struct_ops_list_head".into())
    );
}

#[test]
fn sections_say_type_and_target() {
    let object = matrix("sections");
    assert!(object.programs.len() > 20);
    for program in &object.programs {
        assert!(program.spec.def.is_some(), "{}", program.section);
        if let Some(AttachTarget::Btf { name, .. }) = program.attach_target() {
            assert!(program.section.ends_with(name));
        }
    }
}

/// Lines of every instruction's source, by BTF where clang made it and by DWARF where gcc did.
#[test]
fn every_program_has_lines() {
    let mut by_dwarf = 0;
    for (name, bytes) in fixtures::all() {
        let Ok(object) = fixtures::load(&name, &bytes) else {
            continue;
        };
        for program in object.programs.iter().filter(|p| p.link_error.is_none()) {
            let first = program.lines.at(0);
            let first = first.unwrap_or_else(|| panic!("{name}: {} has no lines", program.name));
            assert!(
                first.file.ends_with(".c") && first.line > 0,
                "{name}: {first:?}"
            );
            assert!(program.lines.iter().all(|l| l.insn < program.insns.len()));
            by_dwarf += usize::from(first.text.is_empty());
        }
    }
    assert!(by_dwarf > 0, "no fixture has DWARF alone");
}

/// The same object says the same by DWARF alone, but for what the compiler made up.
#[test]
fn dwarf_says_what_btf_says() {
    let path = "matrix/clang-22-v3/alu.bpf.o";
    let bytes = fixtures::one(path);
    let by_btf = fixtures::load(path, &bytes).unwrap();
    let mut bytes = bytes;
    let places: Vec<_> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, w)| w == b".BTF")
        .collect();
    for at in places.iter().map(|(at, _)| *at).collect::<Vec<_>>() {
        bytes[at + 1] = b'X';
    }
    let by_dwarf = fixtures::load(path, &bytes).unwrap();
    assert!(by_dwarf.btf.is_none() && by_btf.btf.is_some());
    let (mut same, mut all) = (0, 0);
    for (a, b) in by_btf.programs.iter().zip(&by_dwarf.programs) {
        for insn in 0..a.insns.len() {
            let (a, b) = (a.lines.at(insn).unwrap(), b.lines.at(insn).unwrap());
            assert!(b.text.is_empty() && b.file.ends_with("alu.bpf.c"), "{b:?}");
            all += 1;
            same += usize::from(a.line == b.line);
        }
    }
    assert!(same * 100 >= all * 95, "{same} of {all}");
}
