//! A loaded object and its programs.

use crate::{Error, Map, Result, Sim};
use bpfsim_abi::Errno;
use bpfsim_btf::{Btf, TypeId};
use bpfsim_kernel::{Kernel, Loaded, ProgId, ProgramInput, ProgramOutput, SysOp, SysResult, mix};
use bpfsim_loader::{Object, load};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An object whose maps and programs are in a [`Sim`].
#[derive(Clone)]
pub struct Ebpf {
    sim: Sim,
    parts: Parts,
}

/// What a load made.
#[derive(Clone)]
pub(crate) struct Parts {
    object: Arc<Object>,
    loaded: Arc<Loaded>,
    /// Of the object's bytes.
    hash: u64,
}

/// A program, to name it.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    pub(crate) id: ProgId,
    name: &'a str,
}

/// A program, to run it.
pub struct ProgramMut<'a> {
    id: ProgId,
    sim: &'a Sim,
}

/// Loads objects otherwise than [`Ebpf::load`] does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EbpfLoader {
    only: Option<Vec<String>>,
}

impl EbpfLoader {
    /// Loads as [`Ebpf::load`] does.
    pub fn new() -> EbpfLoader {
        EbpfLoader::default()
    }

    /// Loads this program, and of the others only those that are named so too, whether or not
    /// they are marked for it (`bpf_program__set_autoload`).
    #[must_use]
    pub fn only(mut self, program: &str) -> EbpfLoader {
        self.only.get_or_insert_default().push(program.to_string());
        self
    }

    /// Loads an object into `sim`.
    pub fn load(&self, sim: &Sim, bytes: &[u8]) -> Result<Ebpf> {
        let parts = sim.load(self, bytes, |kernel| self.load_anew(kernel, bytes))?;
        sim.note_object(parts.hash);
        Ok(Ebpf {
            sim: sim.clone(),
            parts,
        })
    }

    fn load_anew(&self, kernel: &mut Kernel, bytes: &[u8]) -> Result<Parts> {
        let mut object = load(bytes)?;
        if let Some(only) = &self.only {
            for name in only {
                object.program(name).ok_or_else(|| {
                    Error::not_found(
                        "program",
                        name,
                        object.programs.iter().map(|p| p.name.as_str()),
                    )
                })?;
            }
            for program in &mut object.programs {
                program.autoload = only.contains(&program.name);
            }
        }
        let loaded = kernel.load(&mut object)?;
        Ok(Parts {
            object: Arc::new(object),
            loaded: Arc::new(loaded),
            hash: hash(bytes),
        })
    }
}

/// Tells objects apart: replay strings depend on it, its results may not change.
fn hash(bytes: &[u8]) -> u64 {
    let word = |hash, chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    };
    bytes.chunks(8).fold(bytes.len() as u64, word)
}

impl Ebpf {
    /// Loads an object: makes its maps, applies its relocations, CO-RE against the types of a
    /// Linux 6.18 kernel, and loads every program that libbpf would load.
    pub fn load(sim: &Sim, bytes: &[u8]) -> Result<Ebpf> {
        EbpfLoader::new().load(sim, bytes)
    }

    /// A program, by the name of its function.
    pub fn program(&self, name: &str) -> Result<Program<'_>> {
        let found = self.parts.loaded.programs.iter().find(|(n, _)| n == name);
        let names = || self.parts.loaded.programs.iter().map(|(n, _)| n.as_str());
        let (name, id) = found.ok_or_else(|| Error::not_found("program", name, names()))?;
        Ok(Program { id: *id, name })
    }

    /// A program, by the name of its function.
    pub fn program_mut(&mut self, name: &str) -> Result<ProgramMut<'_>> {
        let id = self.program(name)?.id;
        Ok(ProgramMut { id, sim: &self.sim })
    }

    /// The programs that were loaded, in the object's order.
    pub fn programs(&self) -> impl Iterator<Item = Program<'_>> {
        self.parts
            .loaded
            .programs
            .iter()
            .map(|(name, id)| Program { id: *id, name })
    }

    /// A map, by its name in the object (`.bss` and its like by the name of the section).
    pub fn map(&self, name: &str) -> Result<Map> {
        let made = || {
            self.parts
                .object
                .maps
                .iter()
                .zip(&self.parts.loaded.maps)
                .filter_map(|(d, id)| Some((d, (*id)?)))
        };
        let found =
            made().find(|(d, _)| d.name == name || d.section == name && d.kind.is_internal());
        match found {
            Some((_, id)) => Ok(Map::new(self.sim.clone(), id)),
            None => Err(Error::not_found(
                "map",
                name,
                made().map(|(d, _)| d.name.as_str()),
            )),
        }
    }

    /// The maps that were made, in the object's order.
    pub fn maps(&self) -> impl Iterator<Item = Map> + '_ {
        self.parts
            .loaded
            .maps
            .iter()
            .flatten()
            .map(|&id| Map::new(self.sim.clone(), id))
    }

    /// A global variable's value.
    pub fn global<T: FromBytes>(&self, name: &str) -> Result<T> {
        let bytes = self.global_bytes(name)?;
        T::read_from_bytes(&bytes).map_err(|_| Error::Size {
            what: format!("variable `{name}`"),
            want: bytes.len(),
            got: size_of::<T>(),
        })
    }

    /// Sets a global variable.
    pub fn set_global<T: IntoBytes + Immutable>(&mut self, name: &str, value: &T) -> Result<()> {
        self.set_global_bytes(name, value.as_bytes())
    }

    /// A global variable's bytes.
    pub fn global_bytes(&self, name: &str) -> Result<Vec<u8>> {
        let (map, at, size) = self.find_global(name)?;
        let data = map.data()?;
        let bytes = data.get(at..at + size).map(<[u8]>::to_vec);
        bytes.ok_or_else(|| Error::Size {
            what: format!("variable `{name}`"),
            want: size,
            got: data.len(),
        })
    }

    /// Sets a global variable's bytes.
    pub fn set_global_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (map, at, size) = self.find_global(name)?;
        if size != bytes.len() {
            return Err(Error::Size {
                what: format!("variable `{name}`"),
                want: size,
                got: bytes.len(),
            });
        }
        map.write_data(at, bytes)
    }

    /// A global variable's type, and its size in bytes.
    pub fn global_type(&self, name: &str) -> Result<(Arc<Btf>, TypeId, usize)> {
        let (_, _, size) = self.find_global(name)?;
        let found = self
            .parts
            .object
            .globals()
            .find(|g| g.name == name)
            .map(|g| g.ty);
        match (&self.parts.object.btf, found) {
            (Some(btf), Some(ty)) => Ok((Arc::clone(btf), ty, size)),
            _ => Err(Error::not_found("variable", name, std::iter::empty())),
        }
    }

    /// The map that holds a variable, and its place in there.
    fn find_global(&self, name: &str) -> Result<(Map, usize, usize)> {
        let found = self.parts.object.globals().find(|g| g.name == name);
        let names = || self.parts.object.globals().map(|g| g.name);
        let g = found.ok_or_else(|| Error::not_found("variable", name, names()))?;
        let id = self.parts.loaded.maps[g.map]
            .ok_or_else(|| Error::not_found("map", name, std::iter::empty()))?;
        Ok((
            Map::new(self.sim.clone(), id),
            g.offset as usize,
            g.size as usize,
        ))
    }
}

impl Program<'_> {
    /// Name of its function.
    pub fn name(&self) -> &str {
        self.name
    }
}

impl ProgramMut<'_> {
    /// True when its input is a packet.
    pub fn takes_packet(&self) -> bool {
        self.sim.kernel().takes_packet(self.id)
    }

    /// Closes the program's descriptor. It lives on as long as timers, works or task works refer
    /// to it, but cannot be run any more.
    pub fn close(&mut self) -> Result<()> {
        self.sim.syscall(&SysOp::ProgClose(self.id)).map(drop)
    }

    /// True until nothing refers to the program any more.
    pub fn exists(&self) -> bool {
        self.sim.kernel().prog_exists(self.id)
    }

    /// Runs the program as `BPF_PROG_TEST_RUN` does, in the test's own task, and returns when
    /// that system call would: after the soft interrupts that it lets in and after the task's own
    /// task work. What else has become due stays so.
    pub fn test_run(&mut self, input: ProgramInput) -> Result<ProgramOutput> {
        let job = self.sim.kernel_mut().start_test_run(self.id, input);
        match self.sim.finish_job(job)? {
            SysResult::Output(out) => Ok(out),
            other => Err(Error::TestRun {
                errno: other.done().err().unwrap_or(Errno::EINVAL),
            }),
        }
    }
}
