//! Objects made on purpose: each thing that libbpf refuses, and what it says.

use std::collections::HashMap;
use std::fmt::Write as _;

use bpfsim_btf::{BtfBuilder, Linkage, Member, TypeId, VarSecinfo};
use bpfsim_isa::{Insn, assemble};
use bpfsim_loader::{RelocKind, load};
use object::write::{
    Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection,
};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// An object being made.
pub struct Made {
    pub object: Object<'static>,
    sections: HashMap<String, SectionId>,
}

impl Made {
    pub fn new() -> Made {
        let object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        Made {
            object,
            sections: HashMap::new(),
        }
    }

    /// A section, made when it is first named.
    pub fn section(&mut self, name: &str, kind: SectionKind) -> SectionId {
        if let Some(&id) = self.sections.get(name) {
            return id;
        }
        let id = match name {
            ".text" => self.object.section_id(StandardSection::Text),
            _ => self
                .object
                .add_section(Vec::new(), name.as_bytes().to_vec(), kind),
        };
        self.sections.insert(name.to_owned(), id);
        id
    }

    pub fn data(&mut self, name: &str, bytes: &[u8]) -> SectionId {
        let id = self.section(name, SectionKind::Data);
        self.object.append_section_data(id, bytes, 8);
        id
    }

    /// A global function of these instructions at the end of a section.
    pub fn func(&mut self, section: &str, name: &str, text: &str) -> SymbolId {
        let insns = assemble(text).unwrap();
        self.code(section, name, &insns, SymbolScope::Dynamic)
    }

    pub fn code(
        &mut self,
        section: &str,
        name: &str,
        insns: &[Insn],
        scope: SymbolScope,
    ) -> SymbolId {
        let id = self.section(section, SectionKind::Text);
        let bytes = Insn::slots_to_le_bytes(insns);
        let offset = self.object.append_section_data(id, &bytes, 8);
        self.symbol(
            name,
            SymbolSection::Section(id),
            offset,
            bytes.len() as u64,
            SymbolKind::Text,
            scope,
        )
    }

    pub fn symbol(
        &mut self,
        name: &str,
        section: SymbolSection,
        value: u64,
        size: u64,
        kind: SymbolKind,
        scope: SymbolScope,
    ) -> SymbolId {
        let name = name.as_bytes().to_vec();
        let flags = SymbolFlags::None;
        self.object.add_symbol(Symbol {
            name,
            value,
            size,
            kind,
            scope,
            weak: false,
            section,
            flags,
        })
    }

    /// A global variable.
    pub fn var(&mut self, section: SectionId, name: &str, value: u64, size: u64) -> SymbolId {
        let section = SymbolSection::Section(section);
        self.symbol(
            name,
            section,
            value,
            size,
            SymbolKind::Data,
            SymbolScope::Dynamic,
        )
    }

    pub fn undefined(&mut self, name: &str) -> SymbolId {
        self.symbol(
            name,
            SymbolSection::Undefined,
            0,
            0,
            SymbolKind::Unknown,
            SymbolScope::Dynamic,
        )
    }

    pub fn reloc(&mut self, section: &str, insn: u64, symbol: SymbolId, r_type: u32) {
        let id = self.sections[section];
        let r_type = object::elf::RelocationType(r_type);
        let flags = RelocationFlags::Elf { r_type };
        let relocation = Relocation {
            offset: 8 * insn,
            symbol,
            addend: 0,
            flags,
        };
        self.object.add_relocation(id, relocation).unwrap();
    }

    pub fn btf(&mut self, btf: BtfBuilder) {
        self.data(".BTF", &btf.to_bytes());
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.object.write().unwrap()
    }
}

const R_64_64: u32 = 1;
const R_64_32: u32 = 10;

fn with(make: impl FnOnce(&mut Made)) -> Vec<u8> {
    let mut made = Made::new();
    make(&mut made);
    made.bytes()
}

/// An attribute of a map: name and type.
type Attribute = (&'static str, TypeId);

/// Types that attributes of maps are written in.
struct MapTypes {
    btf: BtfBuilder,
    int: TypeId,
}

impl MapTypes {
    fn new() -> MapTypes {
        let mut btf = BtfBuilder::new();
        let int = btf.add_int("int", 4, 1);
        MapTypes { btf, int }
    }

    /// `int (*)[n]`
    fn uint(&mut self, n: u32) -> TypeId {
        let array = self.btf.add_array(self.int, self.int, n);
        self.btf.add_ptr(array)
    }

    fn def(&mut self, attributes: &[Attribute]) -> TypeId {
        let members: Vec<_> = attributes
            .iter()
            .enumerate()
            .map(|(i, &(name, ty))| Member {
                name,
                ty,
                bit_offset: 64 * i as u32,
                bitfield_size: 0,
            })
            .collect();
        self.btf
            .add_struct("", 8 * attributes.len() as u32, &members)
    }
}

/// An object of maps `m0`, `m1` and so on, of these attributes.
fn maps(linkage: Linkage, defs: impl FnOnce(&mut MapTypes) -> Vec<Vec<Attribute>>) -> Vec<u8> {
    let mut types = MapTypes::new();
    let defs = defs(&mut types);
    let mut made = Made::new();
    let mut vars = Vec::new();
    for (i, def) in defs.iter().enumerate() {
        let (name, size) = (format!("m{i}"), 8 * def.len() as u32);
        let def = types.def(def);
        let ty = types.btf.add_var(&name, linkage, def);
        let section = made.section(".maps", SectionKind::Data);
        let offset = made
            .object
            .append_section_data(section, &vec![0; size as usize], 8);
        made.var(section, &name, offset, size.into());
        vars.push(VarSecinfo {
            ty,
            offset: 0,
            size,
        });
    }
    types.btf.add_datasec(".maps", 0, &vars);
    made.btf(types.btf);
    made.bytes()
}

fn one_map(attributes: impl FnOnce(&mut MapTypes) -> Vec<Attribute>) -> Vec<u8> {
    maps(Linkage::Global, |types| vec![attributes(types)])
}

fn refusals() -> Vec<(&'static str, Vec<u8>)> {
    let exit = "r0 = 0\nexit";
    let prog = |made: &mut Made| made.func("tc", "prog", exit);
    let mut elf32 = with(|m| _ = prog(m));
    elf32[4] = 1;
    let mut exec = with(|m| _ = prog(m));
    exec[16] = 2;
    let x86 = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let big = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Big);
    vec![
        ("empty file", Vec::new()),
        ("text file", b"#include <linux/bpf.h>".to_vec()),
        ("32 bits", elf32),
        ("executable", exec),
        ("another machine", x86.write().unwrap()),
        ("big-endian", big.write().unwrap()),
        ("legacy maps", with(|m| _ = m.data("maps", &[0; 20]))),
        (
            "a static entry program",
            with(|m| {
                let insns = assemble(exit).unwrap();
                m.code("tc", "prog", &insns, SymbolScope::Compilation);
            }),
        ),
        (
            "a program of half an instruction",
            with(|m| {
                let section = m.section("tc", SectionKind::Text);
                m.object.append_section_data(section, &[0; 16], 8);
                let place = SymbolSection::Section(section);
                m.symbol("prog", place, 0, 12, SymbolKind::Text, SymbolScope::Dynamic);
            }),
        ),
        (
            "a program past its section",
            with(|m| {
                let section = m.section("tc", SectionKind::Text);
                m.object.append_section_data(section, &[0; 16], 8);
                let place = SymbolSection::Section(section);
                m.symbol("prog", place, 8, 16, SymbolKind::Text, SymbolScope::Dynamic);
            }),
        ),
        (
            "a version of two bytes",
            with(|m| _ = m.data("version", &[1, 2])),
        ),
        ("maps without BTF", with(|m| _ = m.data(".maps", &[0; 8]))),
        (
            "maps with broken BTF",
            with(|m| {
                m.data(".maps", &[0; 8]);
                m.data(".BTF", &[0x9f, 0xeb, 1, 0]);
            }),
        ),
        (
            "maps without a DATASEC",
            with(|m| {
                m.data(".maps", &[0; 8]);
                m.btf(BtfBuilder::new());
            }),
        ),
        (
            "a DATASEC without a section",
            with(|m| {
                let mut btf = BtfBuilder::new();
                btf.add_datasec(".data", 0, &[]);
                m.btf(btf);
                prog(m);
            }),
        ),
        (
            "a map without a type",
            one_map(|t| vec![("max_entries", t.uint(1))]),
        ),
        (
            "an unknown attribute",
            one_map(|t| vec![("type", t.uint(1)), ("colour", t.uint(1))]),
        ),
        (
            "an attribute of the wrong type",
            one_map(|t| vec![("type", t.int)]),
        ),
        (
            "conflicting key sizes",
            one_map(|t| {
                let key = t.btf.add_ptr(t.int);
                vec![("type", t.uint(1)), ("key", key), ("key_size", t.uint(8))]
            }),
        ),
        (
            "a key of no size",
            one_map(|t| {
                let key = t.btf.add_ptr(TypeId::VOID);
                vec![("type", t.uint(1)), ("key", key)]
            }),
        ),
        (
            "pinning by something",
            one_map(|t| vec![("type", t.uint(1)), ("pinning", t.uint(2))]),
        ),
        (
            "values in an array",
            one_map(|t| {
                let values = t.btf.add_array(t.int, t.int, 0);
                vec![("type", t.uint(2)), ("values", values)]
            }),
        ),
        (
            "values that are not last",
            one_map(|t| {
                let values = t.btf.add_array(t.int, t.int, 0);
                vec![
                    ("type", t.uint(12)),
                    ("values", values),
                    ("max_entries", t.uint(1)),
                ]
            }),
        ),
        (
            "a static map",
            maps(Linkage::Static, |t| vec![vec![("type", t.uint(1))]]),
        ),
        (
            "two arenas",
            maps(Linkage::Global, |t| {
                let arena = vec![("type", t.uint(33))];
                vec![arena.clone(), arena]
            }),
        ),
        ("arena variables without an arena", {
            with(|m| {
                let mut t = MapTypes::new();
                let section = m.data(".maps", &[0; 8]);
                m.var(section, "m0", 0, 8);
                let uint = t.uint(1);
                let def = t.def(&[("type", uint)]);
                let ty = t.btf.add_var("m0", Linkage::Global, def);
                t.btf.add_datasec(
                    ".maps",
                    0,
                    &[VarSecinfo {
                        ty,
                        offset: 0,
                        size: 8,
                    }],
                );
                m.btf(t.btf);
                m.data(".addr_space.1", &[1; 8]);
            })
        }),
        (
            "an extern without BTF",
            with(|m| _ = m.undefined("bpf_kfunc")),
        ),
        (
            "an extern that BTF does not know",
            with(|m| {
                m.undefined("bpf_kfunc");
                m.btf(BtfBuilder::new());
            }),
        ),
        (
            "a relocation of an addition",
            with(|m| {
                let symbol = m.func("tc", "prog", "r0 += 1\nexit");
                m.reloc("tc", 0, symbol, R_64_64);
            }),
        ),
        (
            "a call into another program's section",
            with(|m| {
                let other = m.func("xdp", "other", exit);
                m.func("tc", "prog", "call pc-0x1\nexit");
                m.reloc("tc", 0, other, R_64_32);
            }),
        ),
        (
            "a helper call with a relocation",
            with(|m| {
                let sub = m.func(".text", "sub", exit);
                m.func("tc", "prog", "call 1\nexit");
                m.reloc("tc", 0, sub, R_64_32);
            }),
        ),
        (
            "an ld_imm64 cut in half",
            with(|m| {
                let section = m.data(".data", &[0; 8]);
                let var = m.var(section, "var", 0, 8);
                m.code(
                    "tc",
                    "prog",
                    &[Insn::new(0x18, 1, 0, 0, 0)],
                    SymbolScope::Dynamic,
                );
                m.reloc("tc", 0, var, R_64_64);
            }),
        ),
        (
            "a variable in a section that is no map",
            with(|m| {
                let section = m.data("notes", &[0; 8]);
                let var = m.var(section, "var", 0, 8);
                m.func("tc", "prog", "r1 = 0 ll\nexit");
                m.reloc("tc", 0, var, R_64_64);
            }),
        ),
        (
            "a relocation past its section",
            with(|m| {
                let symbol = m.func("tc", "prog", exit);
                m.reloc("tc", 100, symbol, R_64_64);
            }),
        ),
    ]
}

#[test]
fn refusals_read_like_this() {
    let mut text = String::new();
    for (name, bytes) in refusals() {
        let e = load(&bytes).map(|o| o.programs.len()).expect_err(name);
        let _ = writeln!(text, "{name}\n    {:?}: {e}", e.errno());
    }
    insta::assert_snapshot!(text);
}

/// What only this program cannot do without is its own error, as libbpf finds when it loads it.
#[test]
fn a_program_that_cannot_be_linked_does_not_hide_the_others() {
    let bytes = with(|m| {
        m.func(".text", "sub", "r0 = 0\nexit");
        m.func("tc", "bad", "call pc+0x30\nexit");
        m.func("tc", "good", "r0 = 1\nexit");
    });
    let object = load(&bytes).unwrap();
    let bad = object.program("bad").unwrap();
    let e = bad.link_error.as_ref().unwrap();
    assert_eq!(
        (e.section.as_deref(), e.offset, e.symbol.as_deref()),
        (Some("tc"), Some(0), Some("bad"))
    );
    assert_eq!(bad.insns.len(), 2);
    assert!(object.program("good").unwrap().link_error.is_none());
}

#[test]
fn recursion_is_linked_once() {
    let bytes = with(|m| {
        let first = m.func(".text", "first", "call pc-0x1\nexit");
        let second = m.func(".text", "second", "call pc-0x1\ncall pc-0x1\nexit");
        m.reloc(".text", 0, second, R_64_32);
        m.reloc(".text", 2, first, R_64_32);
        m.reloc(".text", 3, second, R_64_32);
        m.func("tc", "prog", "call pc-0x1\nexit");
        m.reloc("tc", 0, first, R_64_32);
    });
    let object = load(&bytes).unwrap();
    let program = object.program("prog").unwrap();
    let names: Vec<_> = program.funcs.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["prog", "first", "second"]);
    let calls: Vec<_> = program
        .relocs
        .iter()
        .map(|r| match r.kind {
            RelocKind::Call { insn } => (r.insn, insn),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(calls, [(0, 2), (2, 4), (4, 2), (5, 4)]);
    let imms: Vec<_> = calls
        .iter()
        .map(|&(at, to)| (program.insns[at].imm, to as i32 - at as i32 - 1))
        .collect();
    assert!(imms.iter().all(|(imm, want)| imm == want), "{imms:?}");
}

/// Sizes that no file has: they cost neither memory nor time.
#[test]
fn sizes_of_four_gigabytes() {
    let bytes = with(|m| {
        let section = m.section(".bss", SectionKind::UninitializedData);
        m.object.append_section_bss(section, 64, 8);
        m.func("tc", "prog", "r0 = 0\nexit");
        m.data("license", b"GPL\0");
    });
    let headers = goblin::elf::Elf::parse(&bytes).unwrap();
    let at = headers.header.e_shoff as usize;
    for (i, header) in headers.section_headers.iter().enumerate() {
        for size in [u64::from(u32::MAX), 1 << 32, 1 << 40, u64::MAX] {
            let mut bytes = bytes.clone();
            bytes[at + 64 * i + 32..][..8].copy_from_slice(&size.to_le_bytes());
            bpfsim_testing::fuzz_elf::run(&bytes);
            let bss = headers.shdr_strtab.get_at(header.sh_name) == Some(".bss");
            match (bss, load(&bytes)) {
                (true, Ok(object)) => {
                    assert_eq!(u64::from(object.map(".bss").unwrap().value_size), size)
                }
                (true, Err(e)) => assert!(size > u64::from(u32::MAX), "{e}"),
                // A null section or a debug section may claim what it likes.
                (false, Ok(_)) => assert!(header.sh_type == 0, "{i}"),
                (false, Err(_)) => {}
            }
        }
    }
}
