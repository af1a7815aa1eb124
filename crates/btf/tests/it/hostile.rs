//! Blobs that nobody would write: none may panic, hang or take memory beyond its own size.

use bpfsim_btf::display::{definition, value};
use bpfsim_btf::fields::parse_fields;
use bpfsim_btf::{Btf, BtfBuilder, BtfErrorKind as E, Member, TypeId};
use proptest::prelude::*;

use crate::read;

/// Everything that can be asked of a blob.
fn walk(bytes: &[u8]) {
    let _ = Btf::load_as_kernel(bytes, None);
    let Ok(btf) = Btf::parse(bytes) else {
        return;
    };
    let _ = btf.check_as_kernel();
    let data: Vec<u8> = (0..=255).collect();
    for (id, ty) in btf.iter() {
        assert_eq!(btf.ty(id).map(|t| t.kind()), Some(ty.kind()));
        let _ = (btf.size_of(id), btf.align_of(id));
        let _ = (btf.skip_mods(id), btf.resolve(id));
        let _ = (definition(&btf, id), parse_fields(&btf, id));
        if let Ok(value) = value(&btf, id, &data) {
            assert!(!value.text().is_empty());
        }
        assert!(ty.name().is_empty() || btf.find(ty.name(), ty.kind()).is_some());
    }
}

#[test]
fn truncated_everywhere() {
    let rich = read("kernel-6.18/rich.btf");
    for len in 0..rich.len() {
        walk(&rich[..len]);
        // The same with a header that says so: sections cut short, not the file.
        let mut cut = rich[..len.max(24)].to_vec();
        let types = (len.saturating_sub(24) / 2) as u32;
        cut[12..16].copy_from_slice(&types.to_le_bytes());
        cut[16..20].copy_from_slice(&types.to_le_bytes());
        let strings = (cut.len() as u32 - 24).saturating_sub(types);
        cut[20..24].copy_from_slice(&strings.to_le_bytes());
        walk(&cut);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn flipped_anywhere(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut blob = read("kernel-6.18/rich.btf");
        for (at, byte) in flips {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        walk(&blob);
    }
}

fn member(name: &str, ty: TypeId) -> Member<'_> {
    Member {
        name,
        ty,
        bit_offset: 0,
        bitfield_size: 0,
    }
}

#[test]
fn a_million_types() {
    let mut b = BtfBuilder::new();
    b.add_int("int", 4, 1);
    let name = b.add_str("same");
    // Typedefs of one another, all of one name: 12 bytes each.
    for i in 1..1_000_000 {
        b.add_raw(name, 8 << 24, i, &[]);
    }
    let bytes = b.to_bytes();
    let btf = Btf::parse(&bytes).expect("no lie in it for libbpf");
    assert_eq!(btf.type_count(), 1_000_001);
    let last = TypeId(1_000_000);
    assert_eq!(
        btf.size_of(last).expect_err("too long").what,
        E::ChainTooLong
    );
    assert_eq!(
        btf.resolve(last).expect_err("too long").what,
        E::ChainTooLong
    );
    assert_eq!(btf.find("same", bpfsim_btf::Kind::Typedef), Some(TypeId(2)));
    // The kernel follows what it has resolved before, and takes it.
    assert_eq!(btf.check_as_kernel(), Ok(()));
}

#[test]
fn a_million_names_in_one_string() {
    // Each type's name is a tail of one string of a megabyte.
    let mut b = BtfBuilder::new();
    let long = "x".repeat(1 << 20);
    let start = b.add_str(&long);
    for i in 0..200_000 {
        b.add_raw(start + i, 7 << 24, 0, &[]);
    }
    let error = Btf::parse(&b.to_bytes()).expect_err("names without an end");
    assert_eq!(error.what, E::NameTooLong(bpfsim_btf::MAX_NAME_LEN));
}

#[test]
fn cycles_of_every_kind_end() {
    type Build = fn(&mut BtfBuilder) -> TypeId;
    let cycles: [Build; 5] = [
        |b| b.add_typedef("t", TypeId(1)),
        |b| b.add_ptr(TypeId(1)),
        |b| b.add_array(TypeId(1), TypeId(1), 1),
        |b| b.add_struct("s", 8, &[member("a", TypeId(1)), member("", TypeId(1))]),
        |b| b.add_func_proto(TypeId(1), &[("a", TypeId(1)), ("b", TypeId(1))]),
    ];
    for build in cycles {
        let mut b = BtfBuilder::new();
        build(&mut b);
        let btf = b.build().expect("libbpf would read it");
        btf.check_as_kernel().expect_err("Linux would not");
        walk(&btf.to_bytes());
    }
}

#[test]
fn texts_and_values_that_grow_by_nesting_are_given_up() {
    let mut b = BtfBuilder::new();
    let int = b.add_int("int", 4, 1);
    let mut at = b.add_ptr(int);
    for _ in 0..40 {
        let proto = b.add_func_proto(int, &[("a", at), ("b", at)]);
        at = b.add_ptr(proto);
    }
    let mut empty = b.add_struct("", 0, &[]);
    for _ in 0..40 {
        empty = b.add_struct("", 0, &[member("a", empty), member("b", empty)]);
    }
    let none = b.add_struct("none", 0, &[]);
    let endless = b.add_array(none, int, u32::MAX);
    let btf = b.build().expect("well-formed");
    let too_long = definition(&btf, at).expect_err("2^40 functions");
    assert_eq!(too_long.what, E::TextTooLong(1 << 20));
    let too_long = definition(&btf, empty).expect_err("2^40 structs");
    assert_eq!(too_long.what, E::TextTooLong(1 << 20));
    for id in [empty, endless] {
        let too_many = value(&btf, id, &[]).expect_err("values of no size");
        assert_eq!(too_many.what, E::TooManyValues(4096));
    }
    assert_eq!(
        parse_fields(&btf, empty)
            .expect_err("2^40 structs")
            .to_string(),
        "structs or arrays are nested more than 32 deep"
    );
}
