//! C and values as people read them.

use bpfsim_btf::display::{Value, declaration, definition, dump_entries, value};
use bpfsim_btf::{Btf, BtfBuilder, Kind, TypeId};

use crate::read;

#[test]
fn declarations() {
    let btf = Btf::parse(&read("kernel-6.18/rich.btf")).expect("rich");
    let mut out = String::new();
    for (id, ty) in btf.iter() {
        let named =
            !ty.name().is_empty() && ty.kind() != Kind::Datasec && ty.kind() != Kind::DeclTag;
        if named {
            out += &format!("{};\n\n", definition(&btf, id).expect("a type of C"));
        }
    }
    insta::assert_snapshot!(out);
}

#[test]
fn declarators() {
    let mut b = BtfBuilder::new();
    let int = b.add_int("int", 4, 1);
    let ptr = b.add_ptr(int);
    let const_ptr = b.add_const(ptr);
    let const_int = b.add_const(int);
    let to_const = b.add_ptr(const_int);
    let array = b.add_array(ptr, int, 3);
    let matrix = b.add_array(array, int, 2);
    let to_array = b.add_ptr(array);
    let proto = b.add_func_proto(int, &[("a", to_const), ("", TypeId::VOID)]);
    let func = b.add_ptr(proto);
    let funcs = b.add_array(func, int, 4);
    let returns = b.add_func_proto(func, &[]);
    let factory = b.add_ptr(returns);
    let anon = b.add_struct("", 0, &[]);
    let tagged = b.add_type_tag("user", int);
    let user = b.add_ptr(tagged);
    let void = b.add_ptr(TypeId::VOID);
    let btf = b.build().expect("well-formed");
    for (id, text) in [
        (int, "int x"),
        (ptr, "int *x"),
        (const_ptr, "int * const x"),
        (to_const, "const int *x"),
        (array, "int *x[3]"),
        (matrix, "int *x[2][3]"),
        (to_array, "int *(*x)[3]"),
        (func, "int (*x)(const int *a, ...)"),
        (funcs, "int (*x[4])(const int *a, ...)"),
        (factory, "int (* (*x)(void))(const int *a, ...)"),
        (anon, "struct {} x"),
        (user, "int __attribute__((btf_type_tag(\"user\"))) *x"),
        (void, "void *x"),
    ] {
        assert_eq!(declaration(&btf, id, "x").expect(text), text);
    }
}

/// A value of `struct v` of data/value.c, as bytes.
fn bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..176u32).map(|i| (i * 37 + 11) as u8).collect();
    bytes[24..40].copy_from_slice(b"hello \"world\"\0\xff\xff");
    bytes[40..48].copy_from_slice(b"no end!!");
    bytes
}

#[test]
fn values() {
    let btf = Btf::parse(&read("value.btf")).expect("value.btf");
    let id = btf.find("v", Kind::Struct).expect("struct v");
    let shown = value(&btf, id, &bytes()).expect("long enough");
    let zero = value(&btf, id, &[0; 176]).expect("long enough");
    let keys = [Value::Uint(0), Value::Str("second".into())];
    insta::assert_snapshot!(dump_entries(keys.into_iter().zip([shown.clone(), zero])));
    insta::assert_snapshot!(serde_json::to_string(&shown).expect("JSON"));
    for len in 0..176 {
        let error = value(&btf, id, &bytes()[..len]).expect_err("too short");
        assert!(error.to_string().contains("a value takes"), "{error}");
    }
}
