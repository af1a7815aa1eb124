//! Damaged copies of every kind of fixture: typed errors or consistent objects, never a panic.

use crate::fixtures;
use bpfsim_loader::elf::{Elf, SHT_NOBITS};
use bpfsim_testing::fuzz_elf;
use goblin::elf::Elf as Goblin;

/// One object of each source, by a new compiler and by gcc.
fn some() -> Vec<(String, Vec<u8>)> {
    let wanted = |name: &str| {
        !name.contains("matrix/") || name.contains("clang-22-v4") || name.contains("gcc-12-v3")
    };
    let some: Vec<_> = fixtures::all()
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .collect();
    assert!(some.len() > 10);
    some
}

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

#[test]
fn cut_at_every_section_border() {
    for (name, bytes) in some() {
        let mut borders = vec![0, 1, 16, 63, 64, 65];
        for header in &Goblin::parse(&bytes).unwrap().section_headers {
            if header.sh_type != SHT_NOBITS {
                let (start, end) = (header.sh_offset, header.sh_offset + header.sh_size);
                borders.extend(
                    [start, start + 1, end - header.sh_size.min(1), end, end + 1]
                        .map(|n| n as usize),
                );
            }
        }
        for border in borders {
            let cut = &bytes[..border.min(bytes.len())];
            fuzz_elf::run(cut);
            // Section headers come last in what compilers write: without them nothing is left.
            if cut.len() < bytes.len() {
                let e = bpfsim_loader::load(cut).expect_err(&name);
                assert!(!e.to_string().is_empty());
            }
        }
    }
}

#[test]
fn cut_anywhere() {
    let mut numbers = Numbers(1);
    for (_, bytes) in some() {
        for _ in 0..40 {
            fuzz_elf::run(&bytes[..numbers.below(bytes.len())]);
        }
    }
}

#[test]
fn bits_flipped_anywhere() {
    let mut numbers = Numbers(2);
    for (_, bytes) in some() {
        for round in 0..60 {
            let mut bytes = bytes.clone();
            for _ in 0..=round % 4 {
                let at = numbers.below(bytes.len());
                bytes[at] ^= 1 << numbers.below(8);
            }
            fuzz_elf::run(&bytes);
        }
    }
}

/// Where damage tells most: headers, symbols, relocations, BTF, with numbers that tell most.
#[test]
fn telling_numbers_in_telling_places() {
    const TELLING: [u64; 9] = [
        0,
        1,
        7,
        0xff00,
        0xffff,
        1 << 31,
        u32::MAX as u64,
        1 << 32,
        u64::MAX,
    ];
    let mut numbers = Numbers(3);
    for (_, bytes) in some() {
        let Ok(elf) = Elf::parse(&bytes) else {
            continue;
        };
        let mut places = vec![(0usize, 64usize)];
        let goblin = Goblin::parse(&bytes).unwrap();
        let headers = goblin.header.e_shoff as usize;
        places.push((headers, 64 * elf.section_count()));
        for (i, header) in goblin.section_headers.iter().enumerate() {
            let name = elf.section(i).unwrap().name;
            let tells = matches!(name, ".symtab" | ".BTF" | ".BTF.ext" | ".maps")
                || name.starts_with(".rel");
            if tells && header.sh_size >= 8 && !name.starts_with(".rel.debug") {
                places.push((header.sh_offset as usize, header.sh_size as usize));
            }
        }
        for (start, len) in places {
            for _ in 0..60 {
                let mut bytes = bytes.clone();
                let at = start + numbers.below(len) / 4 * 4;
                let value = TELLING[numbers.below(TELLING.len())].to_le_bytes();
                let width = [2, 4, 8][numbers.below(3)];
                if let Some(place) = bytes.get_mut(at..at + width) {
                    place.copy_from_slice(&value[..width]);
                }
                fuzz_elf::run(&bytes);
            }
        }
    }
}
