//! Concrete inside abstract: random programs that the verifier accepts are run, and what their registers
//! and stacks hold is held against what the verifier knew.

use std::sync::Arc;

use bpfsim_abi::{ProgType, sections::SecFlags};
use bpfsim_btf::{Btf, Kind};
use bpfsim_isa::uapi::*;
use bpfsim_kernel::{
    Config, Failure, FailureKind, Goal, Kernel, MapId, OnUnsupported, Policy, Prepared, Profile,
    ProgramInput, SysOp,
};
use bpfsim_loader::{
    Extern, ExternKind, FuncInfo, MapDef, MapKind, Object, Program, Reloc, RelocKind, SectionSpec,
};
use bpfsim_verifier::{Keep, Options, Verdict};

use crate::verdicts::world::{KFUNCS, MAPS, MapRow, func_type, types};
use crate::verdicts::{Dice, Flat, REG_INVARIANTS, SLEEPABLE, random};

/// Instructions of one run.
const FUEL: u64 = 300_000;
/// Runs of each program.
const RUNS: usize = 3;

/// What became of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Whether the verifier took it.
    pub accepted: bool,
    /// Instructions that were held against states.
    pub insns: u64,
    /// Runs that were stopped in a loop of the kernel's: `bpf_loop` and `may_goto` go on for millions
    /// of rounds.
    pub stopped: u64,
}

/// All that programs are run with: made once.
#[derive(Debug)]
pub struct Inside {
    types: Arc<Btf>,
    profile: Profile,
}

impl Inside {
    /// Makes the types.
    ///
    /// # Errors
    /// Where they cannot be had.
    pub fn new() -> Result<Inside, String> {
        Ok(Inside {
            types: Arc::new(types().build().map_err(|e| e.to_string())?),
            profile: Profile::reference().map_err(|e| e.to_string())?,
        })
    }

    /// A random program and its runs.
    ///
    /// # Errors
    /// What is wrong with the verifier or the engine, and the program.
    pub fn try_random(&self, dice: &mut Dice) -> Result<Held, String> {
        let flat = random(dice).flat();
        self.try_program(&flat, dice)
            .map_err(|why| format!("{why}\n{flat}"))
    }

    /// The runs of a program, with what the choices put into maps and packets.
    ///
    /// # Errors
    /// What is wrong with the verifier or the engine.
    pub fn try_program(&self, flat: &Flat, dice: &mut Dice) -> Result<Held, String> {
        let policy = Policy::Verify(OnUnsupported::Refuse);
        let Ok(prepared) = Prepared::new(self.object(flat), &self.profile, policy) else {
            return Ok(Held::default());
        };
        let mut held = Held {
            accepted: true,
            ..Held::default()
        };
        let seed = dice.number() as u64;
        for keep in [Keep::All, Keep::Joins] {
            let options = Options {
                test_reg_invariants: flat.flags & REG_INVARIANTS != 0,
                ..Options::default()
            };
            let observed = prepared
                .resolved()
                .observe(0, &self.profile, &options, keep);
            let (outcome, observed) = observed.map_err(|e| e.to_string())?;
            let config = Config {
                fuel: FUEL,
                seed,
                ..Config::default()
            };
            let mut kernel = Kernel::new(config).map_err(|e| e.to_string())?;
            let loaded = kernel.load(&prepared).map_err(|e| e.to_string())?;
            let prog = loaded.programs.first().ok_or("no program")?.1;
            // With a state at each instruction a program may be too much for the verifier.
            if matches!(outcome.verdict, Verdict::Accept(_)) {
                kernel.hold_against(prog, observed, &loaded.maps);
            }
            for (map, row) in loaded.maps.iter().zip(&MAPS) {
                fill(&mut kernel, *map, row, dice);
            }
            let mut ran = Ok(());
            for _ in 0..RUNS {
                let input = input(flat.prog_type, dice);
                let job = kernel.start_test_run(prog, input);
                ran = kernel
                    .run(Goal::Job(job))
                    .and_then(|_| kernel.run_for(1000));
                if ran.is_err() {
                    break;
                }
            }
            let (insns, miss) = kernel.held_against();
            if let Some(miss) = miss {
                return Err(miss.to_string());
            }
            held.insns += insns;
            match ran {
                Err(failure) if is_long(&failure) => held.stopped += 1,
                Err(failure) if is_wrong(&failure) => return Err(failure.to_string()),
                _ => {}
            }
        }
        Ok(held)
    }

    fn object(&self, flat: &Flat) -> Object {
        let btf = &self.types;
        let maps: Vec<MapDef> = MAPS.iter().map(|row| map_def(row, btf)).collect();
        let mut relocs = Vec::new();
        let mut insns = flat.insns.clone();
        let mut at = 0;
        while at < insns.len() {
            let insn = insns[at];
            let map = insn.imm as usize;
            let kind = match (insn.is_ld_imm64(), insn.src()) {
                (true, BPF_PSEUDO_MAP_FD) => Some(RelocKind::MapFd { map }),
                (true, BPF_PSEUDO_MAP_VALUE) => {
                    let off = insns.get(at + 1).map_or(0, |i| i.imm as u32);
                    Some(RelocKind::MapValue { map, off })
                }
                (true, BPF_PSEUDO_FUNC) => Some(RelocKind::Func {
                    insn: (at as i64 + 1 + i64::from(insn.imm)) as usize,
                }),
                (false, BPF_PSEUDO_KFUNC_CALL) if insn.code == 0x85 && map < KFUNCS.len() => {
                    Some(RelocKind::ExternCall { ext: map })
                }
                _ => None,
            };
            relocs.extend(kind.map(|kind| Reloc { insn: at, kind }));
            at += 1 + usize::from(insn.is_ld_imm64());
        }
        let typed = flat.has_types();
        let funcs = flat.starts.iter().enumerate().map(|(i, start)| FuncInfo {
            name: format!("f{i}"),
            start_insn: *start,
            type_id: func_type(btf, i, flat.is_global(i)).filter(|_| typed),
            global: flat.is_global(i),
        });
        let sleepable = flat.flags & SLEEPABLE != 0;
        let program = Program {
            name: "f0".into(),
            section: String::new(),
            spec: SectionSpec {
                prog_type: flat.prog_type,
                attach_type: None,
                flags: if sleepable {
                    SecFlags::SLEEPABLE
                } else {
                    SecFlags::NONE
                },
                def: None,
            },
            autoload: true,
            link_error: None,
            main_len: flat.starts.get(1).copied().unwrap_or(insns.len()),
            insns: std::mem::take(&mut insns),
            funcs: funcs.collect(),
            relocs,
            lines: Default::default(),
            core_relos: Vec::new(),
            exception_cb: None,
        };
        let externs = KFUNCS.iter().map(|name| Extern {
            name: (*name).to_owned(),
            kind: ExternKind::Kfunc {
                proto: Default::default(),
            },
            weak: true,
            btf_id: Default::default(),
        });
        Object {
            name: "random".into(),
            license: if flat.gpl { "GPL" } else { "Proprietary" }.into(),
            kern_version: None,
            programs: vec![program],
            maps,
            externs: externs.collect(),
            btf: Some(Arc::clone(btf)),
            btf_ext: None,
            skipped: Vec::new(),
        }
    }
}

fn map_def(row: &MapRow, btf: &Btf) -> MapDef {
    let value = row.value.and_then(|name| btf.find(name, Kind::Struct));
    let inner = row.inner.map(|inner| Box::new(map_def(&MAPS[inner], btf)));
    MapDef {
        name: row.name.to_owned(),
        kind: match row.frozen {
            Some(_) => MapKind::Rodata,
            None => MapKind::User,
        },
        section: if row.frozen.is_some() {
            ".rodata"
        } else {
            ".maps"
        }
        .into(),
        map_type: row.map_type.number(),
        key_size: row.key_size,
        value_size: row.value_size,
        max_entries: row.max_entries,
        map_flags: row.flags,
        map_extra: 0,
        numa_node: 0,
        pin_by_name: false,
        key_type: value.and_then(|_| btf.find("int", Kind::Int)),
        value_type: value,
        inner,
        values: Vec::new(),
        data: row.frozen.map_or_else(Vec::new, <[u8]>::to_vec),
        struct_ops: None,
        autocreate: true,
    }
}

/// Some elements of a map of plain values.
fn fill(kernel: &mut Kernel, map: Option<MapId>, row: &MapRow, dice: &mut Dice) {
    let plain = matches!(row.name, "arr" | "hash");
    let (Some(map), true) = (map, plain) else {
        return;
    };
    for key in 0..row.max_entries.min(4) {
        let mut bytes = u64::from(key).to_le_bytes().to_vec();
        bytes.truncate(row.key_size as usize);
        let words = (0..row.value_size / 8).flat_map(|_| dice.number().to_le_bytes());
        let op = SysOp::MapUpdate {
            map,
            key: bytes,
            value: words.collect(),
            flags: 0,
        };
        // A table that is full stays as it is.
        let _ = kernel.syscall_now(&op);
    }
}

fn input(prog_type: ProgType, dice: &mut Dice) -> ProgramInput {
    let bytes =
        |n: usize, dice: &mut Dice| -> Vec<u8> { (0..n).map(|_| dice.number() as u8).collect() };
    match prog_type {
        ProgType::Kprobe => {
            let args: Vec<u64> = (0..6).map(|_| dice.number() as u64).collect();
            ProgramInput::call(&args)
        }
        ProgType::Syscall => ProgramInput::context(&bytes(64, dice)),
        _ => {
            let len = dice.pick(&[14, 20, 60, 64, 100, 1000]);
            ProgramInput::packet(&bytes(len, dice))
        }
    }
}

/// Whether a run came to its limit.
fn is_long(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Fuel { .. })
}

/// Whether Linux's verifier excludes that it happens. It lets programs read stack that was not written,
/// and elements that are gone.
fn is_wrong(failure: &Failure) -> bool {
    let permitted = ["uninitialised-stack", "use-after-free", "stale-write"];
    matches!(failure.kind, FailureKind::Fault(_)) && !permitted.contains(&failure.kind.name())
}
