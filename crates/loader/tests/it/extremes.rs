//! Objects as large as they may be, each in a process of its own that may use so much and no more.

use std::fmt::Write as _;
use std::process::Command;

use bpfsim_btf::{BtfBuilder, Linkage, VarSecinfo};
use bpfsim_isa::Insn;
use bpfsim_loader::{LoadErrorKind, RelocKind, load};
use object::write::{StandardSection, SymbolSection};
use object::{SectionKind, SymbolKind, SymbolScope};

use crate::built::Made;

const CASE: &str = "BPFSIM_EXTREME";
/// Kilobytes that a case may add to the process; the file itself is some of them.
const MAX_KB: u64 = 100 << 10;
/// Seconds of processor time, of code that is not optimised and of making the object, too.
const MAX_SECONDS: u32 = 20;

/// Makes an object, and looks at what became of it.
type Case = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

const CASES: &[Case] = &[
    ("a million instructions", million_insns, |bytes| {
        assert_eq!(load(bytes).unwrap().programs[0].insns.len(), 1_000_000);
    }),
    (
        "too many instructions",
        || program_of(9 << 20),
        |bytes| {
            assert!(matches!(
                load(bytes).unwrap_err().kind,
                LoadErrorKind::TooLarge { .. }
            ));
        },
    ),
    (
        "a hundred thousand programs",
        || programs(100_000, 8),
        |bytes| {
            assert_eq!(load(bytes).unwrap().programs.len(), 100_000);
        },
    ),
    (
        "a hundred thousand names of a megabyte",
        long_names,
        |bytes| {
            assert!(load(bytes).is_err());
        },
    ),
    (
        "programs that all call the same large function",
        shared_subprogram,
        |bytes| {
            assert!(matches!(
                load(bytes).unwrap_err().kind,
                LoadErrorKind::TooLarge { .. }
            ));
        },
    ),
    ("a chain of fifty thousand calls", call_chain, |bytes| {
        let object = load(bytes).unwrap();
        let program = object.program("prog").unwrap();
        assert!(program.link_error.is_none());
        assert_eq!(program.funcs.len(), 50_001);
        assert!(
            program
                .relocs
                .iter()
                .all(|r| matches!(r.kind, RelocKind::Call { .. }))
        );
    }),
    (
        "a million programs",
        || programs(1_000_000, 8),
        |bytes| {
            let kind = load(bytes).unwrap_err().kind;
            assert!(matches!(
                kind,
                LoadErrorKind::TooLarge {
                    what: "programs",
                    ..
                }
            ));
        },
    ),
    (
        "sections that share sixty thousand variables",
        shared_datasec,
        |bytes| {
            let kind = load(bytes).unwrap_err().kind;
            assert!(matches!(
                kind,
                LoadErrorKind::TooLarge {
                    what: "variables",
                    ..
                }
            ));
        },
    ),
    (
        "relocations that are read ten thousand times",
        shared_relocs,
        |bytes| {
            assert_eq!(load(bytes).unwrap_err().kind, LoadErrorKind::Overlapping);
        },
    ),
    (
        "ten thousand sections on the same bytes",
        overlapping,
        |bytes| {
            assert_eq!(load(bytes).unwrap_err().kind, LoadErrorKind::Overlapping);
        },
    ),
];

#[test]
fn time_and_memory_are_bounded() {
    if let Ok(name) = std::env::var(CASE) {
        let (_, make, check) = CASES.iter().find(|(n, ..)| *n == name).unwrap();
        let bytes = make();
        let before = peak_kb();
        check(&bytes);
        assert!(
            peak_kb() - before <= MAX_KB,
            "{name}: {} kB",
            peak_kb() - before
        );
        return;
    }
    let test = std::env::current_exe().unwrap();
    let mut failed = String::new();
    for (name, ..) in CASES {
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("ulimit -t {MAX_SECONDS}; exec \"$0\" \"$@\""),
            ])
            .arg(&test)
            .args([
                "extremes::time_and_memory_are_bounded",
                "--exact",
                "--nocapture",
            ])
            .env(CASE, name)
            .output()
            .unwrap();
        if !output.status.success() {
            let _ = writeln!(
                failed,
                "{name}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// `VmHWM`: the most that this process ever had.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const EXIT: Insn = Insn::new(0x95, 0, 0, 0, 0);

fn million_insns() -> Vec<u8> {
    program_of(1_000_000)
}

fn program_of(count: usize) -> Vec<u8> {
    let mut made = Made::new();
    made.code("tc", "prog", &vec![EXIT; count], SymbolScope::Dynamic);
    made.bytes()
}

fn programs(count: u64, size: u64) -> Vec<u8> {
    let mut made = Made::new();
    let section = made.section("tc", SectionKind::Text);
    made.object
        .append_section_data(section, &EXIT.to_le_bytes().repeat(count as usize), 8);
    for i in 0..count {
        let place = SymbolSection::Section(section);
        made.symbol(
            &format!("p{i}"),
            place,
            8 * i,
            size,
            SymbolKind::Text,
            SymbolScope::Dynamic,
        );
    }
    made.bytes()
}

/// Every symbol's name starts at another byte of one long string.
fn long_names() -> Vec<u8> {
    let mut bytes = programs(100_000, 8);
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let symtab = elf.section_headers.iter().find(|h| h.sh_type == 2).unwrap();
    let (symbols, strings) = (symtab.sh_offset as usize, symtab.sh_link as usize);
    let header = elf.header.e_shoff as usize + 64 * strings;
    let start = bytes.len() as u64;
    bytes.extend(vec![b'a'; 1 << 20]);
    bytes.push(0);
    bytes[header + 24..header + 32].copy_from_slice(&start.to_le_bytes());
    bytes[header + 32..header + 40].copy_from_slice(&((1u64 << 20) + 1).to_le_bytes());
    // Section names are often the same table; they are all `a`s now, and that is fine.
    for i in 1..=100_000 {
        let name = (1 << 20) - 4000 + (i % 4000) as u32;
        bytes[symbols + 24 * i..][..4].copy_from_slice(&name.to_le_bytes());
    }
    bytes
}

fn shared_subprogram() -> Vec<u8> {
    let mut made = Made::new();
    let large = made.code(".text", "large", &vec![EXIT; 100_000], SymbolScope::Dynamic);
    for i in 0..100 {
        let at = 2 * i;
        let call = Insn::new(0x85, 0, 1, 0, -1);
        made.code("tc", &format!("p{i}"), &[call, EXIT], SymbolScope::Dynamic);
        made.reloc("tc", at, large, 10);
    }
    made.bytes()
}

fn call_chain() -> Vec<u8> {
    let mut made = Made::new();
    let text = made.object.section_id(StandardSection::Text);
    // Each calls the next one, which starts two slots after it.
    let mut insns = [Insn::new(0x85, 0, 1, 0, 1), EXIT].repeat(49_999);
    insns.extend([EXIT, EXIT]);
    made.object
        .append_section_data(text, &Insn::slots_to_le_bytes(&insns), 8);
    let mut first = None;
    for i in 0..50_000 {
        let place = SymbolSection::Section(text);
        let id = made.symbol(
            &format!("f{i}"),
            place,
            16 * i,
            16,
            SymbolKind::Text,
            SymbolScope::Dynamic,
        );
        first.get_or_insert(id);
    }
    let call = Insn::new(0x85, 0, 1, 0, -1);
    made.code("tc", "prog", &[call, EXIT], SymbolScope::Dynamic);
    made.reloc("tc", 0, first.unwrap(), 10);
    made.bytes()
}

/// Each `.data.*` claims the same megabyte.
fn overlapping() -> Vec<u8> {
    let mut made = Made::new();
    made.data(".data.first", &vec![1; 1 << 20]);
    for i in 0..10_000 {
        made.data(&format!(".data.{i}"), &[1]);
    }
    made.func("tc", "prog", "r0 = 0\nexit");
    let mut bytes = made.bytes();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let headers = elf.header.e_shoff as usize;
    let named = |name: &str| {
        elf.section_headers
            .iter()
            .position(|h| elf.shdr_strtab.get_at(h.sh_name) == Some(name))
    };
    let first = named(".data.first").unwrap();
    let place = bytes[headers + 64 * first + 24..][..16].to_vec();
    for i in first..first + 10_000 {
        bytes[headers + 64 * i + 24..][..16].copy_from_slice(&place);
    }
    bytes
}

/// Ten thousand sections of one name have one `DATASEC`, all of whose variables are static.
fn shared_datasec() -> Vec<u8> {
    let mut btf = BtfBuilder::new();
    let int = btf.add_int("int", 4, 1);
    let vars: Vec<_> = (0..60_000)
        .map(|_| {
            let ty = btf.add_var("v", Linkage::Static, int);
            let (offset, size) = (0, 4);
            VarSecinfo { ty, offset, size }
        })
        .collect();
    btf.add_datasec(".data.x", 4, &vars);
    let mut made = Made::new();
    made.btf(btf);
    for _ in 0..10_000 {
        let id = made
            .object
            .add_section(Vec::new(), b".data.x".to_vec(), SectionKind::Data);
        made.object.append_section_data(id, &[1; 4], 4);
    }
    made.bytes()
}

/// Ten thousand sections of relocations of ten thousand entries, which are the same bytes.
fn shared_relocs() -> Vec<u8> {
    let mut made = Made::new();
    let data = made.data(".data", &[1; 8]);
    let var = made.var(data, "var", 0, 8);
    let load = [Insn::new(0x18, 1, 0, 0, 0), Insn::default()].repeat(10_000);
    made.code("tc", "prog", &load, SymbolScope::Dynamic);
    for i in 0..10_000 {
        made.reloc("tc", 2 * i, var, 1);
    }
    for i in 0..10_000 {
        let other = format!("tc{i}");
        made.code(&other, &format!("p{i}"), &load[..2], SymbolScope::Dynamic);
        made.reloc(&other, 0, var, 1);
    }
    let mut bytes = made.bytes();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let headers = elf.header.e_shoff as usize;
    let rels = |h: &goblin::elf::SectionHeader| h.sh_type == goblin::elf::section_header::SHT_REL;
    let large = elf
        .section_headers
        .iter()
        .position(|h| rels(h) && h.sh_size > 16)
        .unwrap();
    let header = bytes[headers + 64 * large..][..64].to_vec();
    for (i, section) in elf.section_headers.iter().enumerate() {
        if rels(section) {
            bytes[headers + 64 * i..][..64].copy_from_slice(&header);
        }
    }
    bytes
}
