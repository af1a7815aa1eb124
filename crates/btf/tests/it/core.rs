//! CO-RE against what libbpf did (data/core), and the rules that need types clang does not make.

use bpfsim_btf::core::{CoreError, Patched, Relocator, patch, relocate};
use bpfsim_btf::{Btf, BtfBuilder, BtfExt, CoreRelo, CoreReloKind, Linkage, Member, TypeId};

use crate::{read, read_text};

const KERNELS: [&str; 8] = [
    "same",
    "moved",
    "resized",
    "gone",
    "flavours",
    "ambiguous",
    "kinds",
    "nested",
];

fn words(bytes: &[u8]) -> Vec<[u8; 8]> {
    let words = bytes.chunks_exact(8);
    words.map(|w| w.try_into().expect("eight bytes")).collect()
}

fn hex(word: [u8; 8]) -> String {
    word.iter().map(|b| format!("{b:02x}")).collect()
}

/// The same lines that data/core/README.md describes, as this crate answers.
fn answers(kernel: &str) -> String {
    let local = Btf::parse(&read("core/prog.btf")).expect("prog.btf");
    let ext = BtfExt::parse(&read("core/prog.btf_ext"), &local).expect("prog.btf_ext");
    let target = Btf::parse(&read(&format!("core/{kernel}.btf"))).expect(kernel);
    let mut relocator = Relocator::new(&local, &target);
    let mut out = String::new();
    for section in &ext.core_relos {
        let name = &section.section;
        let mut insns = words(&read(&format!("core/{name}.bin")));
        for (i, relo) in section.records.iter().enumerate() {
            let text = relocator
                .describe(relo)
                .expect("clang's relocations are well-formed");
            let at = relo.insn_off as usize / 8;
            let result = match relocator.resolve(relo) {
                Ok(result) => result,
                Err(e) => return format!("{out}{name} {i} error relocate -{}\n", e.errno()),
            };
            if let Err(e) = patch(&mut insns[at..], &result) {
                return format!("{out}{name} {i} error patch -{}\n", e.errno());
            }
            let wide = match insns[at][0] {
                0x18 => format!(" {}", hex(insns[at + 1])),
                _ => String::new(),
            };
            out += &format!("{name} {i} {}{wide} {text}\n", hex(insns[at]));
        }
    }
    out
}

#[test]
fn every_relocation_is_as_libbpf_made_it() {
    for kernel in KERNELS {
        let expected = read_text(&format!("core/{kernel}.answers"));
        for (ours, theirs) in answers(kernel).lines().zip(expected.lines()) {
            assert_eq!(ours, theirs, "kernel '{kernel}'");
        }
        assert_eq!(answers(kernel), expected, "kernel '{kernel}'");
    }
}

fn member(name: &str, ty: TypeId, bit_offset: u32) -> Member<'_> {
    Member {
        name,
        ty,
        bit_offset,
        bitfield_size: 0,
    }
}

/// A BTF with the relocation's root type, its access string, and `build` before them.
fn with_relo(
    kind: CoreReloKind,
    access: &str,
    build: impl FnOnce(&mut BtfBuilder) -> TypeId,
) -> (Btf, CoreRelo) {
    let mut b = BtfBuilder::new();
    let type_id = build(&mut b);
    let access_str_off = b.add_str(access);
    let relo = CoreRelo {
        insn_off: 0,
        type_id,
        access_str_off,
        kind,
    };
    (b.build().expect("well-formed"), relo)
}

/// `struct name { elem field[n]; }`
fn array_struct(b: &mut BtfBuilder, size: u32, n: u32) -> TypeId {
    let elem = b.add_int("elem", size, 0);
    let array = b.add_array(elem, elem, n);
    b.add_struct("s", size * n.max(1), &[member("field", array, 0)])
}

#[test]
fn loads_of_an_array_follow_its_elements() {
    // libbpf since 1.6: the width is the element's, but the field is no integer, so it cannot follow.
    let (local, relo) = with_relo(CoreReloKind::FieldByteOffset, "0:0", |b| {
        array_struct(b, 4, 4)
    });
    let (same, _) = with_relo(CoreReloKind::FieldByteOffset, "", |b| array_struct(b, 4, 9));
    let result = relocate(&local, &relo, &same).expect("longer array");
    assert_eq!((result.orig_size, result.new_size), (4, 4));
    assert!(!result.fail_memsz_adjust);
    let (wider, _) = with_relo(CoreReloKind::FieldByteOffset, "", |b| array_struct(b, 8, 4));
    let result = relocate(&local, &relo, &wider).expect("wider array");
    assert_eq!((result.orig_size, result.new_size), (4, 8));
    let mut insn = [[0x61, 0x10, 0, 0, 0, 0, 0, 0]];
    assert_eq!(patch(&mut insn, &result), Ok(Patched::Poisoned));
    assert_eq!(insn[0], [0x85, 0, 0, 0, 0x10, 0x23, 0xad, 0x0b]);
}

#[test]
fn malformed_access_strings_are_named() {
    for access in [
        "",
        ":",
        "0:",
        "0::0",
        "-1",
        "0:1",
        "0:0:4",
        "0:0:0:0",
        "x",
        "0x1",
        "99999999999",
        "+0",
    ] {
        let (local, relo) = with_relo(CoreReloKind::FieldExists, access, |b| array_struct(b, 4, 4));
        let error = relocate(&local, &relo, &local).expect_err(access);
        assert!(
            matches!(error, CoreError::BadSpec { .. }),
            "'{access}': {error}"
        );
        assert_eq!(error.errno(), 22);
    }
    let deep = ["0"; 65].join(":");
    let (local, relo) = with_relo(CoreReloKind::FieldExists, &deep, |b| array_struct(b, 4, 4));
    relocate(&local, &relo, &local).expect_err("65 steps");
}

#[test]
fn indices_beyond_32_bits_are_no_offsets() {
    let (local, relo) = with_relo(CoreReloKind::FieldByteOffset, "2000000000", |b| {
        array_struct(b, 4, 4)
    });
    assert_eq!(relocate(&local, &relo, &local), Err(CoreError::OutOfRange));
}

#[test]
fn a_module_is_asked_only_for_what_the_kernel_lacks() {
    let (local, relo) = with_relo(CoreReloKind::TypeIdTarget, "0", |b| {
        b.add_struct("in_module", 4, &[])
    });
    let mut kernel = BtfBuilder::new();
    kernel.add_int("int", 4, 1);
    let kernel = std::sync::Arc::new(kernel.build().expect("kernel"));
    let mut module = BtfBuilder::split(kernel.clone());
    let id = module.add_struct("in_module", 4, &[]);
    let module = module.build().expect("module");
    let mut alone = Relocator::new(&local, &kernel);
    assert_eq!(alone.resolve(&relo).expect("absent").new_val, 0);
    let mut both = Relocator::new(&local, &kernel);
    both.add_module(&module);
    let result = both.resolve(&relo).expect("found");
    assert_eq!((result.new_val, result.candidate), (2, Some((1, id))));
}

#[test]
fn types_made_to_be_compared_for_ever_are_given_up() {
    // Each struct has two members of the next: 2^40 paths.
    let (local, relo) = with_relo(CoreReloKind::TypeMatches, "0", |b| {
        let mut at = b.add_int("int", 4, 1);
        for level in 0..30 {
            let name = format!("s{level}");
            at = b.add_struct(&name, 4, &[member("a", at, 0), member("b", at, 0)]);
        }
        at
    });
    assert_eq!(relocate(&local, &relo, &local), Err(CoreError::TooMuchWork));
    // Anonymous members are searched through, and there is no `z` in them.
    let (target, _) = with_relo(CoreReloKind::FieldExists, "", |b| {
        let mut at = b.add_int("int", 4, 1);
        at = b.add_struct("", 4, &[member("a", at, 0)]);
        for _ in 0..60 {
            at = b.add_struct("", 4, &[member("", at, 0), member("", at, 0)]);
        }
        b.add_struct("s", 4, &[member("", at, 0)])
    });
    let (local, relo) = with_relo(CoreReloKind::FieldExists, "0:0", |b| {
        let int = b.add_int("int", 4, 1);
        b.add_struct("s", 4, &[member("z", int, 0)])
    });
    assert_eq!(
        relocate(&local, &relo, &target),
        Err(CoreError::TooMuchWork)
    );
}

#[test]
fn types_deeper_than_32_levels_are_refused_as_libbpf_does() {
    let (local, relo) = with_relo(CoreReloKind::TypeExists, "0", |b| {
        let mut at = b.add_int("int", 4, 1);
        for _ in 0..40 {
            at = b.add_ptr(at);
        }
        b.add_typedef("deep", at)
    });
    assert_eq!(
        relocate(&local, &relo, &local),
        Err(CoreError::TypesTooDeep)
    );
}

#[test]
fn what_cannot_be_relocated_is_named() {
    let value = |validate| bpfsim_btf::core::CoreResult {
        orig_val: 8,
        new_val: 40_000,
        validate,
        ..Default::default()
    };
    let cases: [(&[[u8; 8]], bool, &str); 8] = [
        (&[], true, "insn (LDIMM64) is truncated"),
        (
            &[[0x18, 0, 0, 0, 8, 0, 0, 0]],
            true,
            "insn (LDIMM64) is truncated",
        ),
        (
            &[[0x18, 0x10, 0, 0, 8, 0, 0, 0], [0; 8]],
            true,
            "insn (LDIMM64) has unexpected form",
        ),
        (
            &[[0xb7, 1, 0, 0, 9, 0, 0, 0]],
            true,
            "unexpected insn (ALU/ALU64) value: got 9, exp 8 -> 40000",
        ),
        (
            &[[0x61, 1, 0xff, 0xff, 0, 0, 0, 0]],
            true,
            "unexpected insn (LDX/ST/STX) value: got -1, exp 8 -> 40000",
        ),
        (
            &[[0x61, 1, 8, 0, 0, 0, 0, 0]],
            true,
            "insn (LDX/ST/STX) value too big: 40000",
        ),
        (
            &[[0xbf, 0x21, 0, 0, 0, 0, 0, 0]],
            false,
            "trying to relocate unrecognized insn, code:0xbf, src:0x2, dst:0x1, off:0x0, imm:0x0",
        ),
        (
            &[[0x85, 0, 0, 0, 6, 0, 0, 0]],
            false,
            "trying to relocate unrecognized insn, code:0x85, src:0x0, dst:0x0, off:0x0, imm:0x6",
        ),
    ];
    for (insns, validate, text) in cases {
        let mut insns = insns.to_vec();
        let before = insns.clone();
        let error = patch(&mut insns, &value(validate)).expect_err(text);
        assert_eq!(error.to_string(), text);
        assert_eq!(insns, before, "a refused instruction stays as it is");
    }
}

#[test]
fn functions_are_compared_by_their_parameters() {
    let proto = |params: &[(&str, u32)]| {
        let params: Vec<(&str, u32)> = params.to_vec();
        with_relo(CoreReloKind::TypeExists, "0", move |b| {
            let int = b.add_int("int", 4, 1);
            let st = b.add_struct("s", 4, &[]);
            let ids = [int, st, TypeId(b.next_id().0 + 1)];
            let ptr = b.add_ptr(st);
            let long = b.add_int("long", 8, 1);
            assert_eq!(ids[2], long);
            let types = [int, ptr, long];
            let params: Vec<_> = params
                .iter()
                .map(|&(n, i)| (n, types[i as usize]))
                .collect();
            let proto = b.add_func_proto(int, &params);
            b.add_func("unused", Linkage::Static, proto);
            b.add_typedef("fn", proto)
        })
    };
    let (local, relo) = proto(&[("a", 0), ("b", 1)]);
    for (params, exists) in [
        (&[("x", 0), ("y", 1)][..], 1),
        // Integers of any size stand for one another where existence is asked.
        (&[("x", 2), ("y", 1)], 1),
        (&[("x", 1), ("y", 1)], 0),
        (&[("x", 0)], 0),
    ] {
        let (target, _) = proto(params);
        let result = relocate(&local, &relo, &target).expect("comparable");
        assert_eq!(result.new_val, exists, "{params:?}");
    }
    // A match is stricter.
    let relo = CoreRelo {
        kind: CoreReloKind::TypeMatches,
        ..relo
    };
    let (target, _) = proto(&[("x", 2), ("y", 1)]);
    assert_eq!(
        relocate(&local, &relo, &target)
            .expect("comparable")
            .new_val,
        0
    );
    assert_eq!(
        relocate(&local, &relo, &local).expect("comparable").new_val,
        1
    );
}
