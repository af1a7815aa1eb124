//! Special fields, held to what Linux 6.18 found (data/kernel-6.18/special).

use bpfsim_btf::fields::{
    Field, FieldKind, FieldMask, FieldTarget, FieldsError, check_ownership, parse_fields,
    parse_fields_in,
};
use bpfsim_btf::{Btf, Kind, TypeId};

use crate::{read, read_text};

fn case(name: &str) -> (Btf, TypeId) {
    let btf = Btf::parse(&read(&format!("kernel-6.18/special/{name}.btf"))).expect(name);
    let value = btf.find("v", Kind::Struct).expect("struct v");
    (btf, value)
}

#[test]
fn linux_finds_the_same() {
    let kernel = bpfsim_btf::vmlinux().expect("built in");
    let mut counts = [0, 0];
    for line in read_text("kernel-6.18/special/answers.tsv").lines() {
        let [name, _, id, errno] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("four columns: {line}");
        };
        if errno == "-" {
            continue;
        }
        let (btf, value) = case(name);
        assert_eq!(value.to_string(), format!("[{id}]"));
        let found = parse_fields_in(&btf, value, FieldMask::MAP_VALUE, Some(&kernel));
        let any = found.as_ref().is_ok_and(|f| !f.is_empty());
        assert_eq!(any, errno == "13", "{name}: {found:?}");
        counts[usize::from(any)] += 1;
    }
    assert!(counts[0] > 20 && counts[1] > 25, "{counts:?}");
}

fn places(name: &str) -> Vec<(FieldKind, u32)> {
    let (btf, value) = case(name);
    let found = parse_fields(&btf, value).expect(name);
    found.iter().map(|f| (f.kind, f.offset)).collect()
}

#[test]
fn where_and_what() {
    use FieldKind::*;
    let cases: [(&str, &[(FieldKind, u32)]); 8] = [
        ("timer", &[(Timer, 8)]),
        ("timer_nested", &[(Timer, 16)]),
        // Alignment is held against the nested struct, not the value.
        ("timer_nested_misaligned_container", &[(Timer, 12)]),
        (
            "timer_and_wq",
            &[(Timer, 0), (Workqueue, 16), (TaskWork, 32)],
        ),
        ("lock_array1", &[(SpinLock, 0)]),
        ("refcount", &[(Refcount, 0)]),
        ("uptr_and_kptr", &[(Uptr, 0), (KptrRef, 8)]),
        ("timer_typedef", &[]),
    ];
    for (name, expected) in cases {
        assert_eq!(places(name), expected, "{name}");
    }
    let pointers: Vec<u32> = places("kptr_nested_arr").iter().map(|f| f.1).collect();
    assert_eq!(pointers, (0..10).map(|i| 8 * i).collect::<Vec<u32>>());
}

#[test]
fn lists_and_pointers_say_what_they_hold() {
    let (btf, value) = case("ok_list");
    let node = btf.find("n", Kind::Struct).expect("struct n");
    let list = Field {
        kind: FieldKind::ListHead,
        offset: 8,
        size: 16,
        to: FieldTarget::Graph {
            value: node,
            node_offset: 0,
        },
    };
    assert_eq!(parse_fields(&btf, value).expect("fields")[1], list);
    let (btf, value) = case("volatile_kptr");
    let to = btf.find("zzz", Kind::Struct).expect("struct zzz");
    let found = parse_fields(&btf, value).expect("fields");
    assert_eq!(found[0].to, FieldTarget::Struct(to));
}

#[test]
fn why_there_are_none() {
    let error = |name: &str| {
        let (btf, value) = case(name);
        parse_fields(&btf, value).expect_err(name).to_string()
    };
    let cases = [
        ("timer2", "second bpf_timer in one value"),
        ("timer_arr2", "array of bpf_timer"),
        ("timer_nested_arr2", "array of bpf_timer"),
        (
            "both_locks",
            "bpf_spin_lock and bpf_res_spin_lock in one value",
        ),
        ("kptr_arr12", "more than 11 special fields"),
        (
            "list_no_lock",
            "bpf_list_head and bpf_rb_root need a bpf_spin_lock in the same value",
        ),
        (
            "list_no_contains",
            "list or tree at offset 8 without a valid 'contains:' tag",
        ),
        (
            "list_bad_type",
            "'contains:' tag of the list or tree at offset 8 names what is not there",
        ),
        ("kptr_int", "kptr at offset 0 does not point to a struct"),
        (
            "kptr_two_tags",
            "pointer at offset 0 has a type tag that is unknown, or several",
        ),
    ];
    for (name, text) in cases {
        assert_eq!(error(name), text, "{name}");
    }
    // A bit-field that does not start at a byte hides every field of the value.
    let (btf, value) = case("timer_bits");
    let error = parse_fields(&btf, value).expect_err("bits");
    assert_eq!(
        error,
        FieldsError::UnalignedMember {
            ty: value,
            member: 2
        }
    );
    let (btf, value) = case("kptr_sock");
    let kernel = bpfsim_btf::vmlinux().expect("built in");
    let error = parse_fields_in(&btf, value, FieldMask::MAP_VALUE, Some(&kernel));
    let error = error.expect_err("no destructor");
    assert_eq!(error.errno(), 2);
    assert!(
        error.to_string().ends_with("no destructor for struct sock"),
        "{error}"
    );
}

#[test]
fn ownership() {
    let (btf, value) = case("root_node");
    let owner = btf.find("a", Kind::Struct).expect("struct a");
    for (ty, expected) in [(value, Ok(())), (owner, Ok(()))] {
        let fields = parse_fields_in(&btf, ty, FieldMask::ALLOCATED, None).expect("fields");
        assert_eq!(check_ownership(&btf, &fields), expected);
    }
    let btf = Btf::parse(&read("kernel-6.18/special/cycle.btf")).expect("cycle");
    let cyclic = btf.find("a", Kind::Struct).expect("struct a");
    let fields = parse_fields_in(&btf, cyclic, FieldMask::ALLOCATED, None).expect("fields");
    let error = check_ownership(&btf, &fields).expect_err("a list of its own kind");
    assert_eq!(
        (error.errno(), error),
        (40, FieldsError::OwnershipCycle(32))
    );
}
