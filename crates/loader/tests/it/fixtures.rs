//! Every committed object: read like goblin reads it, and with the maps and programs that it has.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bpfsim_loader::elf::Elf;
use bpfsim_loader::{LoadErrorKind, LoadOptions, Object, load_with};
use goblin::elf::Elf as Goblin;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// All `*.o` below a folder, by their path from there.
pub fn all() -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|e| e == "o") {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root(), &root(), &mut found);
    assert!(found.len() > 100, "only {} fixtures", found.len());
    found
}

/// One fixture.
pub fn one(name: &str) -> Vec<u8> {
    std::fs::read(root().join(name)).unwrap()
}

pub fn load(name: &str, bytes: &[u8]) -> Result<Object, bpfsim_loader::LoadError> {
    let file = name.rsplit('/').next().unwrap();
    let name = file.split('.').next().unwrap().to_owned();
    load_with(
        bytes,
        &LoadOptions {
            name,
            ..LoadOptions::default()
        },
    )
}

#[test]
fn goblin_reads_the_same_sections_symbols_and_relocations() {
    for (name, bytes) in all() {
        let theirs = Goblin::parse(&bytes).unwrap();
        if !theirs.little_endian {
            let refused = Elf::parse(&bytes).err().map(|e| e.kind);
            assert_eq!(refused, Some(LoadErrorKind::BigEndian), "{name}");
            continue;
        }
        let ours = Elf::parse(&bytes).unwrap();
        assert_eq!(ours.section_count(), theirs.section_headers.len(), "{name}");
        for (i, header) in theirs.section_headers.iter().enumerate() {
            let section = ours.section(i).unwrap();
            let here = format!("{name} section {i} {}", section.name);
            assert_eq!(section.name, &theirs.shdr_strtab[header.sh_name], "{here}");
            assert_eq!(section.kind, header.sh_type, "{here}");
            assert_eq!(section.flags, header.sh_flags, "{here}");
            assert_eq!(section.size, header.sh_size, "{here}");
            assert_eq!(section.link, header.sh_link as usize, "{here}");
            assert_eq!(section.info, header.sh_info as usize, "{here}");
            assert_eq!(section.entsize, header.sh_entsize, "{here}");
            let range = header.file_range();
            assert_eq!(
                ours.data(i).unwrap(),
                range.map_or(&[][..], |r| &bytes[r]),
                "{here}"
            );
        }
        assert_eq!(ours.symbol_count(), theirs.syms.len(), "{name}");
        for (i, (ours_sym, sym)) in ours.symbols().zip(theirs.syms.iter()).enumerate() {
            let here = format!("{name} symbol {i}");
            assert_eq!(
                ours.symbol_name(&ours_sym).unwrap(),
                &theirs.strtab[sym.st_name],
                "{here}"
            );
            assert_eq!(
                (ours_sym.value, ours_sym.size),
                (sym.st_value, sym.st_size),
                "{here}"
            );
            assert_eq!(ours_sym.section, sym.st_shndx, "{here}");
            assert_eq!(
                (ours_sym.kind, ours_sym.bind),
                (sym.st_type(), sym.st_bind()),
                "{here}"
            );
            assert_eq!(ours_sym.visibility, sym.st_visibility(), "{here}");
        }
        let mut sections = 0;
        for (i, relocs) in &theirs.shdr_relocs {
            let rels: Vec<_> = ours
                .rels(*i)
                .unwrap()
                .map(|r| (r.offset, r.symbol, r.kind))
                .collect();
            let want: Vec<_> = relocs
                .iter()
                .map(|r| (r.r_offset, r.r_sym, r.r_type))
                .collect();
            assert_eq!(rels, want, "{name} section {i}");
            sections += 1;
        }
        assert!(sections > 0, "{name} has no relocations");
    }
}

#[test]
fn programs_and_maps_are_goblins_functions_and_map_symbols() {
    for (name, bytes) in all() {
        let Ok(object) = load(&name, &bytes) else {
            continue;
        };
        let elf = Goblin::parse(&bytes).unwrap();
        let section = |i: usize| {
            elf.section_headers
                .get(i)
                .map(|h| &elf.shdr_strtab[h.sh_name])
        };
        let mut programs = Vec::new();
        let mut maps = Vec::new();
        for sym in &elf.syms {
            let symbol = elf.strtab[sym.st_name].to_owned();
            match (sym.st_type(), section(sym.st_shndx)) {
                (goblin::elf::sym::STT_FUNC, Some(section)) if section != ".text" => {
                    let section = section.trim_start_matches('?').to_owned();
                    programs.push((symbol, section, sym.st_size as usize / 8));
                }
                (goblin::elf::sym::STT_OBJECT, Some(".maps")) => maps.push(symbol),
                _ => {}
            }
        }
        let mut ours: Vec<_> = object
            .programs
            .iter()
            .map(|p| (p.name.clone(), p.section.clone(), p.main_len))
            .collect();
        ours.sort();
        programs.sort();
        assert_eq!(ours, programs, "{name}");
        let user = object
            .maps
            .iter()
            .filter(|m| m.kind == bpfsim_loader::MapKind::User);
        let mut ours: Vec<_> = user.map(|m| m.name.clone()).collect();
        ours.sort();
        maps.sort();
        assert_eq!(ours, maps, "{name}");
    }
}

/// What people would want to see change: one line a program, map, extern and global.
#[test]
fn fixtures_hold_what_they_held() {
    let mut text = String::new();
    for (name, bytes) in all() {
        // One compiler of each kind stands for the others in the snapshot; all are loaded.
        let object = load(&name, &bytes);
        let shown = ["clang-22-v3", "gcc-12", "refused"]
            .iter()
            .any(|part| name.contains(part));
        if !shown {
            if let Ok(object) = &object {
                assert!(!object.programs.is_empty(), "{name}");
            }
            continue;
        }
        let _ = writeln!(text, "{name}");
        match object {
            Ok(object) => describe(&mut text, &object),
            Err(e) => {
                let _ = writeln!(text, "  refused with {:?}: {e}", e.errno());
            }
        }
    }
    insta::assert_snapshot!(text);
}

fn describe(text: &mut String, object: &Object) {
    for p in &object.programs {
        let funcs: Vec<_> = p
            .funcs
            .iter()
            .map(|f| format!("{}@{}", f.name, f.start_insn))
            .collect();
        let _ = writeln!(
            text,
            "  program {} {} {:?} {} insns, {} relocs, {} core, {} lines: {}{}",
            p.name,
            p.section,
            p.spec.prog_type,
            p.insns.len(),
            p.relocs.len(),
            p.core_relos.len(),
            p.lines.len(),
            funcs.join(" "),
            p.link_error
                .as_ref()
                .map(|e| format!(": {e}"))
                .unwrap_or_default(),
        );
    }
    for m in &object.maps {
        let _ = writeln!(
            text,
            "  map {} type {} key {} value {} max {} flags {:#x} values {:?}",
            m.name, m.map_type, m.key_size, m.value_size, m.max_entries, m.map_flags, m.values
        );
    }
    for e in &object.externs {
        let _ = writeln!(text, "  extern {} weak {} {:?}", e.name, e.weak, e.kind);
    }
    for g in object.globals() {
        let _ = writeln!(
            text,
            "  global {} map {} +{} size {}",
            g.name, g.map, g.offset, g.size
        );
    }
}
