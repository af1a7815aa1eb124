//! Sequences of asynchronous calls on the running kernel.

use std::time::{Duration, Instant};

use bpfsim_abi::Errno;
use bpfsim_loader::Object;

use super::object::{KernelFacts, LinuxObject, ObjectError};
use super::{Input, Linux, Map, Prog};
use crate::async_ops::{
    Kind, MAPS, Machine, Op, Outcome, Step, VALUE_SIZE, ops_bytes, parse_entries, run_all,
};

/// fixtures/async_ops.bpf.o on Linux. The calling thread must stay on one CPU.
#[derive(Debug)]
pub struct LinuxMachine {
    object: LinuxObject,
    /// Where the variables are in `.bss`.
    vars: Vars,
    scripts: Vec<(usize, Vec<Op>)>,
    /// The maps, while they are open, and their ids.
    maps: Vec<(Option<Map>, u32)>,
    fences: u32,
}

#[derive(Clone, Copy, Debug)]
struct Vars {
    ops: usize,
    entries: usize,
    nr_entries: usize,
    flags: usize,
    tc_first: usize,
    tc_count: usize,
    fenced: usize,
}

/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

impl LinuxMachine {
    /// Runs the first sequences of a kind on an object file's bytes.
    ///
    /// # Errors
    /// What could not be loaded, or what the kernel did not let the machine do, in words.
    pub fn run_all(
        linux: &Linux,
        object: &[u8],
        kind: Kind,
        count: u64,
    ) -> Result<Vec<Vec<Outcome>>, String> {
        let facts = KernelFacts::of_this_machine(linux).map_err(|e| e.to_string())?;
        let object = bpfsim_loader::load(object).map_err(|e| e.to_string())?;
        let mut failed = None;
        let outcomes = run_all(kind, count, || {
            LinuxMachine::new(linux, &facts, &object).map_err(|e| {
                failed = Some(e.to_string());
                Errno::EINVAL
            })
        });
        outcomes.map_err(|errno| failed.unwrap_or_else(|| errno.to_string()))
    }

    /// Loads the fixture.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(
        linux: &Linux,
        facts: &KernelFacts,
        object: &Object,
    ) -> Result<LinuxMachine, ObjectError> {
        let at = |name: &str| {
            let found = object.globals().find(|g| g.name == name);
            found.map_or(0, |g| g.offset as usize)
        };
        let vars = Vars {
            ops: at("ops"),
            entries: at("entries"),
            nr_entries: at("nr_entries"),
            flags: at("flags"),
            tc_first: at("tc_first"),
            tc_count: at("tc_count"),
            fenced: at("fenced"),
        };
        let mut loaded = linux.load_object(facts, object, &["run_ops", "run_ops_tc", "fence"])?;
        let missing = |name: &str| ObjectError::Unsupported {
            name: name.to_string(),
            what: "what the fixture does not have",
        };
        let mut maps = Vec::new();
        for name in MAPS {
            let map = loaded.take_map(name).ok_or_else(|| missing(name))?;
            let id = map.id().map_err(|errno| ObjectError::Map {
                name: name.to_string(),
                errno,
            })?;
            maps.push((Some(map), id));
        }
        Ok(LinuxMachine {
            object: loaded,
            vars,
            scripts: Vec::new(),
            maps,
            fences: 0,
        })
    }

    fn prog(&self, name: &str) -> Result<&Prog, Errno> {
        self.object.program(name).ok_or(Errno::ENOENT)
    }

    fn bss(&self) -> Result<Vec<u8>, Errno> {
        self.object
            .map(".bss")
            .ok_or(Errno::ENOENT)?
            .lookup(&[0; 4])
    }

    fn set_bss(&self, bss: &[u8]) -> Result<(), Errno> {
        let map = self.object.map(".bss").ok_or(Errno::ENOENT)?;
        map.update(&[0; 4], bss, 0)
    }

    fn word(bss: &[u8], at: usize) -> u32 {
        let word = bss.get(at..at + 4).and_then(|w| w.try_into().ok());
        word.map_or(0, u32::from_le_bytes)
    }

    /// Puts a work item behind all that is queued on this CPU and waits for it.
    fn fence(&mut self) -> Result<Vec<u8>, Errno> {
        self.prog("fence")?.test_run(&Input::default())?;
        self.fences += 1;
        let start = Instant::now();
        loop {
            let bss = self.bss()?;
            if Self::word(&bss, self.vars.fenced) >= self.fences {
                return Ok(bss);
            }
            if start.elapsed() > PATIENCE {
                return Err(Errno::ETIMEDOUT);
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Waits until nothing that is due is left to run.
    fn settle(&mut self) -> Result<Vec<u8>, Errno> {
        let mut seen = u32::MAX;
        loop {
            let bss = self.fence()?;
            let now = Self::word(&bss, self.vars.nr_entries);
            if now == seen {
                return Ok(bss);
            }
            seen = now;
        }
    }

    fn run(&mut self, tc: bool, ops: &[Op]) -> Result<(), Errno> {
        let mut bss = self.bss()?;
        let bytes = ops_bytes(ops, &self.scripts);
        bss[self.vars.ops..][..bytes.len()].copy_from_slice(&bytes);
        bss[self.vars.tc_first..][..4].fill(0);
        bss[self.vars.tc_count..][..4].copy_from_slice(&(ops.len() as u32).to_le_bytes());
        self.set_bss(&bss)?;
        let ctx = [0u32.to_le_bytes(), (ops.len() as u32).to_le_bytes()].concat();
        let (name, input) = match tc {
            true => ("run_ops_tc", Input::packet(&[0; 64])),
            false => {
                let input = Input {
                    ctx: &ctx,
                    ..Input::default()
                };
                ("run_ops", input)
            }
        };
        self.prog(name)?.test_run(&input).map(drop)
    }

    fn open(&self, map: u8) -> Result<&Map, Errno> {
        let (map, _) = self.maps.get(map as usize).ok_or(Errno::EBADF)?;
        map.as_ref().ok_or(Errno::EBADF)
    }

    fn perform(&mut self, step: &Step) -> Result<(), Errno> {
        let key = |key: u8| u32::from(key).to_le_bytes();
        match step {
            Step::Run { tc, ops } => self.run(*tc, ops),
            Step::Update { map, key: k, flags } => {
                self.open(*map)?.update(&key(*k), &[0; VALUE_SIZE], *flags)
            }
            Step::Delete { map, key: k } => self.open(*map)?.delete(&key(*k)),
            Step::LookupDelete { map, key: k } => {
                self.open(*map)?.lookup_and_delete(&key(*k)).map(drop)
            }
            Step::Close { map } => {
                self.maps[*map as usize].0 = None;
                Ok(())
            }
            Step::Open { map } => {
                let (slot, id) = &mut self.maps[*map as usize];
                *slot = Some(Map::by_id(*id, 4, VALUE_SIZE)?);
                Ok(())
            }
        }
    }
}

impl Machine for LinuxMachine {
    type Error = Errno;

    fn scripts(&mut self, scripts: &[(usize, Vec<Op>)]) -> Result<(), Errno> {
        self.scripts = scripts.to_vec();
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, Errno> {
        let mut bss = self.bss()?;
        bss[self.vars.nr_entries..][..4].fill(0);
        bss[self.vars.flags..][..32].fill(0);
        self.set_bss(&bss)?;
        let errno = self.perform(step).err().map_or(0, |e| e.0);
        let bss = self.settle()?;
        let count = Self::word(&bss, self.vars.nr_entries);
        let entries = parse_entries(&bss[self.vars.entries..][..256 * 16], count);
        Ok(Outcome { errno, entries })
    }
}
