//! The kernel's rules, held to what Linux 6.18 said (data/kernel-6.18).

use bpfsim_btf::{Btf, BtfBuilder, BtfErrorKind, Kind, Linkage, Member, TypeId, VarSecinfo};

use crate::{read, read_text};

fn mutate(blob: &mut [u8], patches: &str) {
    for patch in patches.split(' ') {
        let (offset, word) = patch.split_once('=').expect("offset=word");
        let offset: usize = offset.parse().expect("offset");
        let word = u32::from_str_radix(word, 16).expect("word");
        blob[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    }
}

#[test]
fn every_lie_is_refused_with_linuxs_errno_and_text() {
    let rich = read("kernel-6.18/rich.btf");
    Btf::load_as_kernel(&rich, None).expect("Linux takes it as it is");
    let mut refused = 0;
    for line in read_text("kernel-6.18/mutations.tsv").lines() {
        let [patches, errno, text] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}");
        };
        let mut blob = rich.clone();
        mutate(&mut blob, patches);
        let answer = Btf::load_as_kernel(&blob, None);
        let ours = answer.as_ref().map_or_else(|e| e.errno(), |_| 0);
        assert_eq!(ours.to_string(), errno, "{line}\nours: {:?}", answer.err());
        if let Err(error) = answer {
            let what = error.what.to_string();
            // Linux has the member's own line before its text, here it is the member's index.
            let what = what.rsplit(": ").next().unwrap_or(&what);
            // A header of another size is called by its size, or too short to be one.
            let header = matches!(
                error.what,
                BtfErrorKind::UnsupportedHeader(_) | BtfErrorKind::HeaderNotFound
            );
            assert!(header || text.ends_with(what), "{line}\nours: {error}");
            refused += 1;
        }
    }
    assert!(refused > 500, "only {refused} lies");
}

#[test]
fn structs_that_programs_allocate_must_be_consistent() {
    let kernel = bpfsim_btf::vmlinux().expect("built in");
    for line in read_text("kernel-6.18/special/answers.tsv").lines() {
        let mut columns = line.split('\t');
        let (name, errno) = (
            columns.next().expect("name"),
            columns.next().expect("errno"),
        );
        let blob = read(&format!("kernel-6.18/special/{name}.btf"));
        let answer = Btf::load_as_kernel(&blob, Some(&kernel));
        let ours = answer.as_ref().map_or_else(|e| e.errno(), |_| 0);
        assert_eq!(ours.to_string(), errno, "{name}: {:?}", answer.err());
    }
}

/// What `check_as_kernel` says of types that no compiler makes.
fn verdict(build: impl FnOnce(&mut BtfBuilder)) -> Result<(), (u32, BtfErrorKind)> {
    let mut b = BtfBuilder::new();
    b.add_int("int", 4, 1);
    build(&mut b);
    let btf = b.build().expect("parses");
    let answer = btf.check_as_kernel();
    answer.map_err(|e| (e.type_id.map_or(0, |id| id.0), e.what))
}

const INT: TypeId = TypeId(1);

fn member(name: &str, ty: TypeId) -> Member<'_> {
    Member {
        name,
        ty,
        bit_offset: 0,
        bitfield_size: 0,
    }
}

#[test]
fn chains_and_cycles() {
    use BtfErrorKind as E;
    // Two structs in each other.
    let answer = verdict(|b| {
        let second = TypeId(b.next_id().0 + 1);
        b.add_struct("a", 4, &[member("b", second)]);
        b.add_struct("b", 4, &[member("a", TypeId(second.0 - 1))]);
    });
    assert_eq!(answer, Err((2, E::Loop)));
    // A list is no cycle.
    let answer = verdict(|b| {
        let ptr = TypeId(b.next_id().0 + 1);
        b.add_struct("node", 8, &[member("next", ptr)]);
        b.add_ptr(TypeId(ptr.0 - 1));
    });
    assert_eq!(answer, Ok(()));
    // A pointer to itself, through const.
    let answer = verdict(|b| {
        let ptr = b.next_id();
        b.add_ptr(TypeId(ptr.0 + 1));
        b.add_const(ptr);
    });
    assert_eq!(answer, Err((2, E::Loop)));
    // Types that come after what they stand on are as many as one likes; before it, 32.
    for (first, expected) in [(true, Ok(())), (false, Err((2, E::TooDeep(32))))] {
        let answer = verdict(|b| {
            let start = b.next_id().0;
            for i in 0..33 {
                let inner = match (first, i) {
                    (true, 0) | (false, 32) => INT,
                    (true, _) => TypeId(start + i - 1),
                    (false, _) => TypeId(start + i + 1),
                };
                b.add_struct(&format!("s{i}"), 4, &[member("m", inner)]);
            }
        });
        assert_eq!(answer, expected);
    }
    let answer = verdict(|b| {
        let mut at = INT;
        for _ in 0..33 {
            at = b.add_const(at);
        }
    });
    assert_eq!(answer, Ok(()), "each is good once the one before it is");
    let answer = verdict(|b| {
        let tagged = b.add_const(TypeId(b.next_id().0 + 1));
        b.add_type_tag("tag", INT);
        let ptr = b.add_ptr(tagged);
        b.add_var("v", Linkage::Static, ptr);
    });
    assert_eq!(answer, Err((2, E::TypeTagsOrder)));
}

#[test]
fn functions_variables_and_tags() {
    use BtfErrorKind as E;
    let answer = verdict(|b| {
        let proto = b.add_func_proto(INT, &[("", INT)]);
        b.add_func("f", Linkage::Global, proto);
    });
    assert_eq!(
        answer,
        Err((3, E::InvalidArg(1))),
        "clang's naked functions"
    );
    let answer = verdict(|b| {
        let proto = b.add_func_proto(TypeId::VOID, &[("a", INT), ("", TypeId::VOID)]);
        b.add_func("printf", Linkage::Extern, proto);
    });
    assert_eq!(answer, Err((3, E::InvalidFuncLinkage)));
    let answer = verdict(|b| {
        let var = b.add_var("v", Linkage::Global, INT);
        let whole = VarSecinfo {
            ty: var,
            offset: 0,
            size: 2,
        };
        b.add_datasec(".data", 4, &[whole]);
    });
    assert_eq!(answer, Err((3, E::InvalidVarSize(0))));
    let answer = verdict(|b| {
        let st = b.add_struct("s", 4, &[member("m", INT)]);
        b.add_decl_tag("tag", st, 1);
    });
    assert_eq!(answer, Err((3, E::InvalidComponentIdx)));
    let answer = verdict(|b| {
        b.add_decl_tag("tag", INT, -1);
    });
    assert_eq!(answer, Err((2, E::InvalidTypeId)));
    let answer = verdict(|b| {
        let fwd = b.add_fwd("unknown", false);
        b.add_var("v", Linkage::Global, fwd);
    });
    assert_eq!(answer, Err((3, E::InvalidTypeId)));
    let answer = verdict(|b| {
        let huge = b.add_array(INT, INT, 1 << 30);
        b.add_typedef("huge_t", huge);
    });
    assert_eq!(answer, Err((2, E::ArrayTooLarge)));
}

#[test]
fn a_split_btf_is_checked_on_its_base() {
    let mut base = BtfBuilder::new();
    let int = base.add_int("int", 4, 1);
    let array = base.add_array(int, int, 3);
    let base = std::sync::Arc::new(base.build().expect("base"));
    let mut split = BtfBuilder::split(base.clone());
    let st = split.add_struct("s", 12, &[member("a", array)]);
    let small = split.add_struct("small", 8, &[member("a", array)]);
    let split = split.build().expect("split");
    assert_eq!((st, small), (TypeId(3), TypeId(4)));
    assert_eq!(split.find("int", Kind::Int), Some(int));
    assert_eq!(split.size_of(st), Ok(12));
    let error = split.check_as_kernel().expect_err("12 bytes in 8");
    assert_eq!(error.type_id, Some(small));
    assert_eq!(error.what, BtfErrorKind::MemberExceedsStruct(0));
}
