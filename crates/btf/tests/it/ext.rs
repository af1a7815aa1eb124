//! `.BTF.ext`, of clang's making and of nobody's.

use bpfsim_btf::{Btf, BtfErrorKind, BtfExt, CoreReloKind};

use crate::read;

fn prog() -> (Btf, Vec<u8>) {
    let btf = Btf::parse(&read("core/prog.btf")).expect("prog.btf");
    (btf, read("core/prog.btf_ext"))
}

#[test]
fn lists_are_by_section() {
    let (btf, bytes) = prog();
    let ext = BtfExt::parse(&bytes, &btf).expect("clang's");
    let names = |f: &dyn Fn() -> Vec<String>| f();
    let sections = names(&|| ext.func_info.iter().map(|s| s.section.clone()).collect());
    assert_eq!(sections, ["tc", "xdp"]);
    assert_eq!(btf.name_of(ext.func_info[0].records[0].type_id), "prog");
    let first = ext.line_info[0].records[0];
    assert!(first.file(&btf).ends_with("prog.c"));
    assert_eq!(first.text(&btf).trim(), "put(t->id);");
    assert_eq!(first.line, 75);
    let relo = ext.core_relos[0].records[0];
    assert_eq!(relo.kind, CoreReloKind::FieldByteOffset);
    assert_eq!(btf.string(relo.access_str_off), Some("0:0"));
    let counts: Vec<usize> = ext.core_relos.iter().map(|s| s.records.len()).collect();
    assert_eq!(counts, [62, 4]);
}

#[test]
fn what_is_written_reads_the_same() {
    let (btf, bytes) = prog();
    let ext = BtfExt::parse(&bytes, &btf).expect("clang's");
    let offset_of = |name: &str| {
        let mut offsets = 0..1 << 20;
        offsets
            .find(|&off| btf.string(off) == Some(name))
            .expect("a name of the object")
    };
    let again = ext.to_bytes(offset_of);
    assert_eq!(BtfExt::parse(&again, &btf).expect("ours"), ext);
}

#[test]
fn lies_are_named() {
    use BtfErrorKind as E;
    let (btf, bytes) = prog();
    let start = 32;
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("word"));
    let cases: [(usize, u32, E); 11] = [
        (0, 0x9feb, E::BigEndian(0x9feb)),
        (0, 0, E::InvalidMagic(0)),
        (0, word(0) + (1 << 16), E::UnsupportedVersion(2)),
        (0, word(0) + (1 << 24), E::UnsupportedFlags(1)),
        (4, 20, E::UnsupportedHeader(20)),
        (4, 1 << 31, E::Ext("header", "BTF.ext header not found")),
        (
            8,
            2,
            E::Ext("func_info", "section is not aligned to 4 bytes"),
        ),
        (
            12,
            u32::MAX,
            E::Ext("func_info", "section is beyond the end of .BTF.ext"),
        ),
        (start, 6, E::ExtRecordSize("func_info", 6)),
        (start + 4, 1 << 24, E::InvalidNameOffset(1 << 24)),
        (
            start + 8,
            u32::MAX,
            E::Ext("func_info", "section has incorrect num_records"),
        ),
    ];
    for (at, lie, expected) in cases {
        let mut blob = bytes.clone();
        blob[at..at + 4].copy_from_slice(&lie.to_le_bytes());
        assert_eq!(
            BtfExt::parse(&blob, &btf).expect_err("a lie").what,
            expected
        );
    }
    for len in 0..bytes.len() {
        // Nothing but the whole is whole; no length may do harm.
        BtfExt::parse(&bytes[..len], &btf).expect_err("truncated");
    }
}
