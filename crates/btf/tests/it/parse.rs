//! Builder to bytes to types and back.

use std::sync::Arc;

use bpfsim_btf::{
    Btf, BtfBuilder, BtfErrorKind, Kind, Linkage, Member, Type, TypeId, VarSecinfo, essential_name,
};
use proptest::prelude::*;

use crate::read;

/// A type to add, with references as numbers that are folded into what there is.
#[derive(Clone, Debug)]
enum Recipe {
    Int(String, u32, u8),
    Float(u32),
    Reference(u8, String, u32),
    Array(u32, u32, u32),
    Composite(bool, String, u32, Vec<(String, u32, u32, u8)>),
    Enum(bool, bool, String, Vec<(String, i64)>),
    Fwd(String, bool),
    FuncProto(u32, Vec<(String, u32)>),
    Var(String, u32),
    Datasec(String, Vec<(u32, u32, u32)>),
    DeclTag(String, u32, i32),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z_][a-z0-9_]{0,12}(___v[0-9])?"]
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let members = prop::collection::vec((name(), any::<u32>(), 0u32..1 << 24, any::<u8>()), 0..6);
    let values = prop::collection::vec((name(), any::<i64>()), 0..6);
    let params = prop::collection::vec((name(), any::<u32>()), 0..5);
    let vars = prop::collection::vec(any::<(u32, u32, u32)>(), 0..5);
    prop_oneof![
        (name(), any::<u32>(), 0u8..16).prop_map(|(n, s, e)| Recipe::Int(n, s, e)),
        any::<u32>().prop_map(Recipe::Float),
        (0u8..6, name(), any::<u32>()).prop_map(|(k, n, t)| Recipe::Reference(k, n, t)),
        (any::<u32>(), any::<u32>(), 0u32..100).prop_map(|(e, i, n)| Recipe::Array(e, i, n)),
        (any::<bool>(), name(), any::<u32>(), members)
            .prop_map(|(u, n, s, m)| Recipe::Composite(u, n, s, m)),
        (any::<bool>(), any::<bool>(), name(), values)
            .prop_map(|(w, s, n, v)| Recipe::Enum(w, s, n, v)),
        (name(), any::<bool>()).prop_map(|(n, u)| Recipe::Fwd(n, u)),
        (any::<u32>(), params).prop_map(|(r, p)| Recipe::FuncProto(r, p)),
        (name(), any::<u32>()).prop_map(|(n, t)| Recipe::Var(n, t)),
        (name(), vars).prop_map(|(n, v)| Recipe::Datasec(n, v)),
        (name(), any::<u32>(), any::<i32>()).prop_map(|(n, t, c)| Recipe::DeclTag(n, t, c)),
    ]
}

/// What the types say, in a form that can be compared; ids folded as `add` folds them.
fn add(b: &mut BtfBuilder, recipe: &Recipe, count: u32) -> String {
    let fold = |id: u32| TypeId(id % count);
    match recipe {
        Recipe::Int(name, size, encoding) => {
            b.add_int_bits(name, *size, *encoding, 3, 200);
            format!("{name} {size} {encoding} 3 200")
        }
        Recipe::Float(size) => {
            b.add_float("f", *size);
            format!("f {size}")
        }
        Recipe::Reference(kind, name, to) => {
            let to = fold(*to);
            match kind {
                0 => b.add_ptr(to),
                1 => b.add_const(to),
                2 => b.add_volatile(to),
                3 => b.add_restrict(to),
                4 => b.add_typedef(name, to),
                _ => b.add_type_tag(name, to),
            };
            let name = if *kind >= 4 { name } else { "" };
            format!("{name} {to}")
        }
        Recipe::Array(elem, index, n) => {
            let (elem, index) = (fold(*elem), fold(*index));
            b.add_array(elem, index, *n);
            format!("{elem} {index} {n}")
        }
        Recipe::Composite(union, name, size, members) => {
            let member = |(name, ty, bit_offset, bitfield_size): &'_ (String, u32, u32, u8)| {
                (name.clone(), fold(*ty), *bit_offset, *bitfield_size)
            };
            let members: Vec<_> = members.iter().map(member).collect();
            let list: Vec<Member<'_>> = members
                .iter()
                .map(|(name, ty, bit_offset, bitfield_size)| Member {
                    name,
                    ty: *ty,
                    bit_offset: *bit_offset,
                    bitfield_size: *bitfield_size,
                })
                .collect();
            match union {
                true => b.add_union(name, *size, &list),
                false => b.add_struct(name, *size, &list),
            };
            format!("{name} {size} {members:?}")
        }
        Recipe::Enum(wide, signed, name, values) => {
            let narrow = |v: i64| match signed {
                true => i64::from(v as i32),
                false => i64::from(v as u32),
            };
            let keep = |v: i64| if *wide { v } else { narrow(v) };
            let kept: Vec<(&str, i64)> = values.iter().map(|(n, v)| (&**n, keep(*v))).collect();
            match wide {
                true => b.add_enum64(name, 8, *signed, &kept),
                false => b.add_enum(name, 4, *signed, &kept),
            };
            format!("{name} {signed} {kept:?}")
        }
        Recipe::Fwd(name, union) => {
            b.add_fwd(name, *union);
            format!("{name} {union}")
        }
        Recipe::FuncProto(ret, params) => {
            let params: Vec<(&str, TypeId)> =
                params.iter().map(|(n, t)| (&**n, fold(*t))).collect();
            let ret = fold(*ret);
            b.add_func_proto(ret, &params);
            format!("{ret} {params:?}")
        }
        Recipe::Var(name, ty) => {
            let ty = fold(*ty);
            b.add_var(name, Linkage::Global, ty);
            format!("{name} {ty} Global")
        }
        Recipe::Datasec(name, vars) => {
            let var = |&(ty, offset, size): &(u32, u32, u32)| VarSecinfo {
                ty: fold(ty),
                offset,
                size,
            };
            let vars: Vec<VarSecinfo> = vars.iter().map(var).collect();
            b.add_datasec(name, 9, &vars);
            format!("{name} 9 {vars:?}")
        }
        Recipe::DeclTag(name, ty, component) => {
            let ty = fold(*ty);
            b.add_decl_tag(name, ty, *component);
            format!("{name} {ty} {component}")
        }
    }
}

/// The same of a type that was read.
fn describe(ty: Type<'_>) -> String {
    match ty {
        Type::Int(i) => format!(
            "{} {} {} {} {}",
            i.name, i.size, i.encoding, i.offset, i.bits
        ),
        Type::Float { name, size } => format!("{name} {size}"),
        Type::Array(a) => format!("{} {} {}", a.elem, a.index, a.nelems),
        Type::Struct(c) | Type::Union(c) => {
            let member = |m: Member<'_>| (m.name.to_owned(), m.ty, m.bit_offset, m.bitfield_size);
            let members: Vec<_> = c.members.iter().map(member).collect();
            format!("{} {} {members:?}", c.name, c.size)
        }
        Type::Enum(e) | Type::Enum64(e) => {
            let values: Vec<_> = e.values.iter().map(|v| (v.name, v.value)).collect();
            format!("{} {} {values:?}", e.name, e.signed)
        }
        Type::Fwd { name, is_union } => format!("{name} {is_union}"),
        Type::FuncProto(p) => {
            let params: Vec<_> = p.params.iter().map(|p| (p.name, p.ty)).collect();
            format!("{} {params:?}", p.ret)
        }
        Type::Var { name, ty, linkage } => format!("{name} {ty} {linkage:?}"),
        Type::Datasec(d) => format!("{} {} {:?}", d.name, d.size, d.vars),
        Type::DeclTag {
            name,
            ty,
            component_idx,
            ..
        } => format!("{name} {ty} {component_idx}"),
        other => format!(
            "{} {}",
            other.name(),
            other.refers_to().expect("a reference")
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn what_is_built_reads_the_same(recipes in prop::collection::vec(recipe(), 0..40)) {
        let mut b = BtfBuilder::new();
        let count = recipes.len() as u32 + 1;
        let texts: Vec<String> = recipes.iter().map(|r| add(&mut b, r, count)).collect();
        let bytes = b.to_bytes();
        let btf = b.build().expect("every reference is folded");
        prop_assert_eq!(btf.to_bytes(), bytes);
        prop_assert_eq!(btf.type_count(), count);
        for ((id, ty), text) in btf.iter().zip(&texts) {
            prop_assert_eq!(&describe(ty), text);
            let name = ty.name();
            let known = btf.find_all(name);
            prop_assert_eq!(known.contains(&id), !name.is_empty());
            prop_assert!(known.iter().all(|&id| btf.name_of(id) == name));
            prop_assert!(known.is_sorted());
        }
        // Nothing that walks may fail other than by an error.
        let _ = btf.check_as_kernel();
        for (id, _) in btf.iter() {
            let _ = (btf.size_of(id), btf.align_of(id), btf.resolve(id));
            let _ = bpfsim_btf::display::definition(&btf, id);
            let _ = bpfsim_btf::display::value(&btf, id, &[0x41; 64]);
            let _ = bpfsim_btf::fields::parse_fields(&btf, id);
        }
    }
}

#[test]
fn a_flavour_is_what_follows_three_underscores() {
    for (name, essential) in [
        ("task_struct", "task_struct"),
        ("task_struct___v5", "task_struct"),
        ("a___b___c", "a___b"),
        ("a____b", "a____b"),
        ("___x", "___x"),
        ("x___", "x___"),
        ("a___b", "a"),
        ("", ""),
        ("a__b", "a__b"),
    ] {
        assert_eq!(essential_name(name), essential);
    }
}

#[test]
fn headers_and_strings_are_checked() {
    use BtfErrorKind as E;
    let rich = read("kernel-6.18/rich.btf");
    let lie = |at: usize, bytes: &[u8]| {
        let mut blob = rich.clone();
        blob[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::parse(&blob).expect_err("a lie").what
    };
    assert_eq!(lie(0, &[0xeb, 0x9f]), E::BigEndian(0xeb9f_u16.swap_bytes()));
    assert_eq!(lie(0, &[0, 0]), E::InvalidMagic(0));
    assert_eq!(lie(2, &[9]), E::UnsupportedVersion(9));
    assert_eq!(lie(8, &2u32.to_le_bytes()), E::UnalignedTypeOff);
    assert_eq!(lie(12, &u32::MAX.to_le_bytes()), E::SectionTooLong);
    assert_eq!(lie(16, &4u32.to_le_bytes()), E::SectionOverlap);
    assert_eq!(lie(rich.len() - 1, b"x"), E::InvalidStrings);
    assert_eq!(
        lie(24, &(1u32 << 20).to_le_bytes()),
        E::InvalidNameOffset(1 << 20)
    );
    let huge = vec![0; (16 << 20) + 1];
    assert_eq!(
        Btf::parse(&huge).expect_err("huge").what,
        E::TooLarge(huge.len())
    );
}

#[test]
fn c_lines_may_be_in_any_encoding_names_may_not() {
    let mut b = BtfBuilder::new();
    b.add_int("int", 4, 1);
    let line = b.add_str("puts(\"gr??n\");");
    let mut bytes = b.to_bytes();
    let at = bytes.iter().position(|&b| b == b'?').expect("the line");
    bytes[at] = 0xfc;
    let btf = Btf::parse(&bytes).expect("only a line");
    assert_eq!(btf.string(line), Some("puts(\"gr??n\");"));
    assert_eq!(btf.to_bytes(), bytes, "and is kept as it was");
    let at = bytes
        .windows(3)
        .position(|w| w == b"int")
        .expect("the name");
    bytes[at] = 0xfc;
    let error = Btf::parse(&bytes).expect_err("a name");
    assert_eq!(error.what, BtfErrorKind::NameNotUtf8);
    assert_eq!((error.type_id, error.offset), (Some(TypeId(1)), 24));
}

#[test]
fn split_btf_goes_on_where_its_base_ends() {
    let mut base = BtfBuilder::new();
    let int = base.add_int("int", 4, 1);
    let base = Arc::new(base.build().expect("base"));
    let mut split = BtfBuilder::split(base.clone());
    let ptr = split.add_ptr(int);
    let def = split.add_typedef("int_ptr", ptr);
    let bytes = split.to_bytes();
    let split = Btf::parse_split(&bytes, base.clone()).expect("split");
    assert_eq!((ptr, def), (TypeId(2), TypeId(3)));
    assert_eq!(split.name_of(int), "int");
    assert_eq!(split.name_of(def), "int_ptr");
    assert_eq!(split.find("int_ptr", Kind::Typedef), Some(def));
    assert_eq!(split.iter().count(), 2);
    assert_eq!(split.to_bytes(), bytes);
    Btf::parse(&bytes).expect_err("it does not stand alone");
    let mut tower = base;
    for _ in 0..8 {
        let next = BtfBuilder::split(tower.clone()).build().expect("empty");
        tower = Arc::new(next);
    }
    let error = BtfBuilder::split(tower).build().expect_err("nine deep");
    assert_eq!(error.what, BtfErrorKind::BaseTooDeep(8));
}

#[test]
fn what_has_no_name_is_not_found_by_one() {
    let mut b = BtfBuilder::new();
    let name = b.add_str("named");
    let ptr = b.add_raw(name, 2 << 24, 0, &[]);
    let btf = b.build().expect("libbpf does not mind");
    assert_eq!(btf.name_of(ptr), "");
    assert_eq!(btf.find("", Kind::Ptr), None);
    assert_eq!(btf.find("named", Kind::Ptr), None);
    assert_eq!(
        btf.check_as_kernel().expect_err("Linux does").what,
        BtfErrorKind::InvalidName
    );
}

#[test]
fn sizes_and_alignments() {
    let btf = Btf::parse(&read("kernel-6.18/rich.btf")).expect("rich");
    for (name, kind, size, align) in [
        ("outer", Kind::Struct, 144, 8),
        ("outer_t", Kind::Typedef, 144, 8),
        ("inner", Kind::Struct, 16, 8),
        ("bits", Kind::Struct, 8, 8),
        ("small", Kind::Enum, 4, 4),
        ("big", Kind::Enum64, 8, 8),
        ("double", Kind::Float, 8, 8),
        ("_Bool", Kind::Int, 1, 1),
    ] {
        let id = btf.find(name, kind).expect(name);
        assert_eq!(btf.size_of(id), Ok(size), "{name}");
        assert_eq!(btf.align_of(id), Ok(align), "{name}");
    }
    let fwd = btf.find("fwd", Kind::Fwd).expect("fwd");
    let error = btf.size_of(fwd).expect_err("no size");
    assert_eq!(error.what, BtfErrorKind::NoSize(Kind::Fwd));
    assert_eq!(
        btf.get(TypeId(999)).expect_err("none").what,
        BtfErrorKind::NoSuchType(999)
    );
}
