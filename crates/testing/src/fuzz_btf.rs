//! Any bytes as types: reading, checking, walking and printing them, and CO-RE from one blob to
//! another, neither panic nor hang, and what they give is consistent.

use bpfsim_btf::core::{CoreError, Relocator, patch};
use bpfsim_btf::display::{declaration, definition, value};
use bpfsim_btf::fields::{FieldMask, check_ownership, parse_fields_in};
use bpfsim_btf::{Btf, BtfExt, CoreRelo, CoreReloKind, Type, TypeId};

/// Types that are looked at from all sides: some stand for all, an input may have a million.
const SOME: usize = 64;
/// Access strings that are tried on each type.
const ACCESSES: usize = 4;

/// One input of the fuzzer of types: bytes of `.BTF`, and also of `.BTF.ext`.
///
/// # Panics
/// Where bpfsim-btf does, and where it contradicts itself.
pub fn run(bytes: &[u8]) {
    let parsed = Btf::parse(bytes);
    let loaded = Btf::load_as_kernel(bytes, None);
    let checked = parsed.as_ref().map(|btf| btf.check_as_kernel().is_ok());
    assert_eq!(
        loaded.is_ok(),
        checked == Ok(true),
        "two ways to one verdict"
    );
    let Ok(btf) = parsed else {
        return;
    };
    let again = Btf::parse(&btf.to_bytes()).expect("what it writes it reads");
    assert_eq!(again.type_count(), btf.type_count());
    let data: Vec<u8> = (0..=255).cycle().take(1024).collect();
    let (head, tail) = (btf.iter().take(SOME), btf.iter().rev().take(SOME));
    for (id, ty) in head.chain(tail) {
        walk(&btf, id, &ty, &data);
    }
    if let Ok(ext) = BtfExt::parse(bytes, &btf) {
        let lines = ext.line_info.iter().flat_map(|s| &s.records);
        assert!(lines.map(|l| l.text(&btf).len()).max() < Some(bytes.len()));
    }
}

fn walk(btf: &Btf, id: TypeId, ty: &Type<'_>, data: &[u8]) {
    let name = ty.name();
    let found = btf.find(name, ty.kind());
    assert_eq!(found.is_some(), !name.is_empty());
    assert!(found.is_none_or(|first| first <= id && btf.name_of(first) == name));
    if let Ok((end, _)) = btf.resolve(id) {
        assert_eq!(btf.resolve(end).map(|(id, _)| id), Ok(end));
    }
    let printed = (definition(btf, id), declaration(btf, id, "x"));
    if let (Ok(text), Ok(_)) = printed {
        assert!(text.len() <= 1 << 20);
    }
    if let Ok(value) = value(btf, id, data) {
        assert!(!value.text().is_empty());
    }
    if let Ok(size) = btf.size_of(id) {
        let fields = parse_fields_in(btf, id, FieldMask::ALLOCATED, Some(btf)).unwrap_or_default();
        assert!(fields.iter().all(|f| f.offset + f.size <= size));
        let _may_be_refused = check_ownership(btf, &fields);
    }
    let _may_have_none = btf.align_of(id);
}

/// One input of the fuzzer of CO-RE: two bytes say how long the object's types are, the kernel's follow.
/// Every kind is asked of every type, with the strings that the object has for access strings.
///
/// # Panics
/// Where bpfsim-btf does, and where it contradicts itself.
pub fn run_core(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
    let (local, kernel) = rest.split_at(len);
    let Ok(local) = Btf::parse(local) else {
        return;
    };
    let kernel = Btf::parse(kernel);
    let kernel = kernel.as_ref().unwrap_or(&local);
    let accesses: Vec<u32> = (0..1 << 12)
        .filter(|&off| {
            let text = local.string(off).unwrap_or("");
            text.starts_with('0') && text.len() < 16
        })
        .take(ACCESSES)
        .collect();
    let mut relocator = Relocator::new(&local, kernel);
    for (type_id, _) in local.iter().take(SOME) {
        for access_str_off in accesses.iter().copied() {
            for kind in (0..13).filter_map(CoreReloKind::from_u32) {
                let relo = CoreRelo {
                    insn_off: 0,
                    type_id,
                    access_str_off,
                    kind,
                };
                resolve(&mut relocator, &relo);
            }
        }
    }
}

fn resolve(relocator: &mut Relocator<'_>, relo: &CoreRelo) {
    let described = relocator.describe(relo);
    let result = match relocator.resolve(relo) {
        Ok(result) => result,
        Err(e) => {
            assert!(e.errno() > 0 && e.to_string().len() < 8192);
            assert!(described.is_ok() || e != CoreError::TruncatedInsn);
            return;
        }
    };
    assert!(described.is_ok(), "what is resolved can be described");
    for code in [0xb7, 0x61, 0x7a, 0x18, 0x85, 0xbf] {
        let mut first = [code, 0, 0, 0, 0, 0, 0, 0];
        let low = result.orig_val.to_le_bytes();
        match code {
            0x61 | 0x7a => first[2..4].copy_from_slice(&low[..2]),
            _ => first[4..].copy_from_slice(&low[..4]),
        }
        let mut second = [0; 8];
        second[4..].copy_from_slice(&low[4..]);
        let mut insns = [first, second];
        let before = insns;
        if patch(&mut insns, &result).is_err() {
            assert_eq!(insns, before, "a refused instruction stays as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Blobs of bpfsim-btf's own tests.
    fn seed(name: &str) -> Vec<u8> {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../btf/tests/data/");
        std::fs::read(format!("{data}{name}")).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn core_seed() -> Vec<u8> {
        let local = seed("core/prog.btf");
        let len = u16::try_from(local.len()).expect("short");
        [len.to_le_bytes().to_vec(), local, seed("core/kinds.btf")].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn flipped(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
            for (name, run) in [
                ("types", super::run as fn(&[u8])),
                ("core", super::run_core),
            ] {
                let mut bytes = match name {
                    "types" => seed("kernel-6.18/rich.btf"),
                    _ => core_seed(),
                };
                for (at, byte) in &flips {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                run(&bytes);
            }
        }
    }
}
