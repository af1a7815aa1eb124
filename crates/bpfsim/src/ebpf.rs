//! A loaded object and its programs.

use crate::setup::{Bytes, Load};
use crate::{Bench, Error, Map, Result, Sim};
use bpfsim_abi::{AttachType, Errno, KernelVersion, ProgType};
use bpfsim_btf::{Btf, TypeId};
use bpfsim_kernel::{
    Config, Kernel, Loaded, MapId, NewError, OnUnsupported, Policy, Prepared, Profile, ProgId,
    ProgramInput, ProgramOutput, SysOp, SysResult, hash_bytes, mix,
};
use bpfsim_loader::{Object, load};
use std::rc::Rc;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A program of an object, by its name.
fn program_of<'a>(object: &'a mut Object, name: &str) -> Result<&'a mut bpfsim_loader::Program> {
    match object.programs.iter().position(|p| p.name == name) {
        Some(at) => Ok(&mut object.programs[at]),
        None => Err(Error::not_found(
            "program",
            name,
            object.programs.iter().map(|p| p.name.as_str()),
        )),
    }
}

/// An object whose maps and programs are in a [`Sim`].
#[derive(Clone)]
pub struct Ebpf {
    sim: Sim,
    parts: Rc<Loading>,
}

/// What a load made.
pub(crate) struct Loading {
    prepared: Arc<Prepared>,
    loaded: Loaded,
    /// Of the object's bytes, and of the kernel's types where these are not the usual ones.
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
    pub(crate) id: ProgId,
    pub(crate) sim: &'a Sim,
}

/// Loads objects otherwise than [`Ebpf::load`] does.
#[derive(Clone, Debug, Default)]
pub struct EbpfLoader {
    only: Option<Vec<String>>,
    types: Vec<(String, ProgType)>,
    attach_types: Vec<(String, AttachType)>,
    globals: Vec<(String, Vec<u8>)>,
    policy: Policy,
    kernel: KernelVersion,
    btf: Option<Arc<Btf>>,
}

impl PartialEq for EbpfLoader {
    /// Types are equal if they are the same.
    fn eq(&self, other: &EbpfLoader) -> bool {
        let btf = match (&self.btf, &other.btf) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        btf && self.only == other.only
            && self.types == other.types
            && self.attach_types == other.attach_types
            && self.globals == other.globals
            && self.policy == other.policy
            && self.kernel == other.kernel
    }
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

    /// Loads this program as one of a type, whatever its section's name says
    /// (`bpf_program__set_type`). libbpf knows no type of sections with names of one's own.
    ///
    /// ```
    /// use bpfsim::{EbpfLoader, ProgType};
    ///
    /// let loader = EbpfLoader::new().set_type("classify", ProgType::SchedCls);
    /// ```
    #[must_use]
    pub fn set_type(mut self, program: &str, prog_type: ProgType) -> EbpfLoader {
        self.types.push((program.to_string(), prog_type));
        self
    }

    /// Loads this program as one that is to be attached to this
    /// (`bpf_program__set_expected_attach_type`).
    #[must_use]
    pub fn set_expected_attach_type(
        mut self,
        program: &str,
        attach_type: AttachType,
    ) -> EbpfLoader {
        self.attach_types.push((program.to_string(), attach_type));
        self
    }

    /// Gives a global variable its value before the load: the only time at which one that is
    /// `const` can get it, and what the verifier then takes it for.
    #[must_use]
    pub fn set_global<T: IntoBytes + Immutable + ?Sized>(
        mut self,
        name: &str,
        value: &T,
    ) -> EbpfLoader {
        self.globals
            .push((name.to_string(), value.as_bytes().to_vec()));
        self
    }

    /// What to do with programs of which the verifier cannot say whether Linux would take them.
    /// Without this, the object is refused.
    #[must_use]
    pub fn on_unsupported(mut self, what: OnUnsupported) -> EbpfLoader {
        self.policy = Policy::Verify(what);
        self
    }

    /// Loads without asking the verifier: for tests of engines, and for programs that are wrong on
    /// purpose. Memory outside of the simulation stays out of their reach.
    #[must_use]
    pub fn unverified(mut self) -> EbpfLoader {
        self.policy = Policy::Unverified;
        self
    }

    /// Loads as for an older kernel: helpers, kfuncs, types and instructions that came later are
    /// refused. The verifier's logic is 6.18's all the same.
    #[must_use]
    pub fn kernel(mut self, version: KernelVersion) -> EbpfLoader {
        self.kernel = version;
        self
    }

    /// Resolves CO-RE relocations and kernel functions against these types: for judging a program.
    /// What bpfsim itself lays out in memory, such as tasks, is as the machine's types say
    /// nevertheless ([`Config::btf`]), which objects are resolved against without this.
    #[must_use]
    pub fn btf(mut self, btf: Arc<Btf>) -> EbpfLoader {
        self.btf = Some(btf);
        self
    }

    /// Reads an object, resolves it for the kernel and verifies its programs.
    fn prepare(&self, bytes: &[u8], config: &Config) -> Result<Arc<Prepared>> {
        let mut object = load(bytes)?;
        if let Some(only) = &self.only {
            for name in only {
                program_of(&mut object, name)?;
            }
            for program in &mut object.programs {
                program.autoload = only.contains(&program.name);
            }
        }
        for (name, prog_type) in &self.types {
            program_of(&mut object, name)?.set_type(*prog_type);
        }
        for (name, attach_type) in &self.attach_types {
            program_of(&mut object, name)?.set_expected_attach_type(*attach_type);
        }
        for (name, value) in &self.globals {
            object.set_global(name, value)?;
        }
        let mut profile = Profile::reference().map_err(NewError::from)?;
        profile.version = self.kernel;
        profile.cpus = config.cpus;
        profile.own_types = self.kernel == KernelVersion::REFERENCE;
        let own = config.btf.as_ref().map(|types| &types.btf);
        if let Some(btf) = self.btf.as_ref().or(own) {
            (profile.btf, profile.own_types) = (Arc::clone(btf), true);
        }
        Ok(Arc::new(Prepared::new(object, &profile, self.policy)?))
    }

    fn load_into(&self, kernel: &mut Kernel, sim: &Sim, bytes: &[u8]) -> Result<Rc<Loading>> {
        let cache = sim.cache();
        let config = kernel.config().clone();
        let make = || self.prepare(bytes, &config);
        let prepared = cache.get(self, bytes, &config, make)?;
        let loaded = kernel.load(&prepared)?;
        kernel.record_loaded();
        Ok(Rc::new(Loading {
            prepared,
            loaded,
            hash: match &config.btf {
                None => hash_bytes(bytes),
                Some(types) => mix(hash_bytes(bytes), types.hash()),
            },
        }))
    }

    /// Loads an object into `sim`.
    pub fn load(&self, sim: &Sim, bytes: &[u8]) -> Result<Ebpf> {
        Ebpf::load_bytes(sim, Some(self), Bytes::Any(bytes))
    }

    /// As [`EbpfLoader::load`], for bytes that never change: see [`Ebpf::load_static`].
    pub fn load_static(&self, sim: &Sim, bytes: &'static [u8]) -> Result<Ebpf> {
        Ebpf::load_bytes(sim, Some(self), Bytes::Static(bytes))
    }
}

impl Ebpf {
    /// Loads an object: makes its maps, applies its relocations, CO-RE against the types of a
    /// Linux 6.18 kernel, and loads every program that libbpf would load, if the verifier accepts
    /// it as Linux would.
    pub fn load(sim: &Sim, bytes: &[u8]) -> Result<Ebpf> {
        Ebpf::load_bytes(sim, None, Bytes::Any(bytes))
    }

    /// As [`Ebpf::load`], of bytes that are part of the test (`include_bytes!`). An exploration
    /// loads the object in each of its many executions, and knows by the place of such bytes, rather
    /// than by comparing them all, that they are what it knows.
    pub fn load_static(sim: &Sim, bytes: &'static [u8]) -> Result<Ebpf> {
        Ebpf::load_bytes(sim, None, Bytes::Static(bytes))
    }

    #[inline]
    fn load_bytes(sim: &Sim, loader: Option<&EbpfLoader>, object: Bytes<'_>) -> Result<Ebpf> {
        let load = |kernel: &mut Kernel| match loader {
            Some(loader) => loader.load_into(kernel, sim, object.get()),
            None => EbpfLoader::new().load_into(kernel, sim, object.get()),
        };
        let parts = sim.step(&Load(loader, object), load)?;
        sim.note_object(parts.hash);
        Ok(Ebpf {
            sim: sim.clone(),
            parts,
        })
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
                .prepared
                .object()
                .maps
                .iter()
                .zip(&self.parts.loaded.maps)
                .filter_map(|(d, id)| Some((d, (*id)?)))
        };
        let found =
            made().find(|(d, _)| d.name == name || d.section == name && d.kind.is_internal());
        match found {
            Some((_, id)) => Ok(self.made(id)),
            None => Err(Error::not_found(
                "map",
                name,
                made().map(|(d, _)| d.name.as_str()),
            )),
        }
    }

    /// A map, with the descriptor that the load opened.
    fn made(&self, id: MapId) -> Map {
        let mut reused = self.parts.loaded.reused.iter();
        let fd = reused.find(|(map, _)| *map == id).map(|(_, fd)| *fd);
        Map::opened(self.sim.clone(), id, fd)
    }

    /// The maps that were made, in the object's order.
    pub fn maps(&self) -> impl Iterator<Item = Map> + '_ {
        self.parts
            .loaded
            .maps
            .iter()
            .flatten()
            .map(|&id| self.made(id))
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
            .prepared
            .object()
            .globals()
            .find(|g| g.name == name)
            .map(|g| g.ty);
        match (&self.parts.prepared.object().btf, found) {
            (Some(btf), Some(ty)) => Ok((Arc::clone(btf), ty, size)),
            _ => Err(Error::not_found("variable", name, std::iter::empty())),
        }
    }

    /// True for a variable that gets its value before the load only:
    /// [`EbpfLoader::set_global`](crate::EbpfLoader::set_global).
    pub fn is_constant(&self, name: &str) -> Result<bool> {
        let (map, ..) = self.find_global(name)?;
        let maps = self.parts.prepared.object().maps.iter();
        let mut made = maps.zip(&self.parts.loaded.maps);
        let of = |d: &bpfsim_loader::MapDef| d.kind == bpfsim_loader::MapKind::Rodata;
        Ok(made.any(|(d, id)| *id == Some(map.id()) && of(d)))
    }

    /// The object's types.
    pub fn btf(&self) -> Option<Arc<Btf>> {
        self.parts.prepared.object().btf.clone()
    }

    /// The map that holds a variable, and its place in there.
    fn find_global(&self, name: &str) -> Result<(Map, usize, usize)> {
        let found = self
            .parts
            .prepared
            .object()
            .globals()
            .find(|g| g.name == name);
        let names = || self.parts.prepared.object().globals().map(|g| g.name);
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
    /// The program's descriptor, for [`SysOp`](crate::SysOp)s.
    pub fn prog_id(&self) -> ProgId {
        self.id
    }

    /// Name of its function.
    pub fn name(&self) -> &str {
        self.name
    }
}

impl<'a> ProgramMut<'a> {
    /// Name of its function.
    pub fn name(&self) -> String {
        self.sim.kernel().prog_name(self.id).to_string()
    }

    /// Its descriptor, for values of maps that hold programs: arrays of programs, and the second word of
    /// those of devices and CPUs (`bpf_prog.fd`).
    pub fn fd(&self) -> u32 {
        bpfsim_kernel::descriptor_of(self.id)
    }

    /// True when its input is a packet.
    pub fn takes_packet(&self) -> bool {
        self.sim.takes_packet(self.id)
    }

    /// True when [`ProgramInput::repeat`] means something to programs of its type.
    pub fn repeats(&self) -> bool {
        self.sim.kernel().can_repeat(self.id)
    }

    /// Prepares the program to be run again and again, for a bench.
    ///
    /// # Errors
    /// If it cannot be run with this input.
    pub fn bench(self, input: ProgramInput) -> Result<Bench<'a>> {
        Bench::new(self, input)
    }

    pub(crate) fn sim(&self) -> &Sim {
        self.sim
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
            SysResult::Unsupported(what) => Err(Error::Unsupported { what }),
            other => Err(Error::TestRun {
                errno: other.done().err().unwrap_or(Errno::EINVAL),
            }),
        }
    }
}
