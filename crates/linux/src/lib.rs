//! The Linux of this machine, asked through `bpf(2)`.
//!
//! [`Linux::detect`] says whether it answers at all; everything else is a method that makes
//! something and owns it: a [`Map`], a [`Prog`], a [`BtfFd`] are gone when dropped. Programs are
//! loaded and run by `BPF_PROG_TEST_RUN`; nothing here can attach one to the running system.

mod map;
#[cfg(feature = "objects")]
pub mod object;
mod prog;
mod sys;

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use bpfsim_abi::{Errno, MapType, ProgType};
use bpfsim_isa::Insn;

pub use map::{BatchAnswer, BatchAsk, BatchCmd, Entry, Map, MapSpec};
pub use prog::{Input, Loaded, Prog, ProgInfo, ProgSpec, Ran, TestRunAs};
pub use sys::TestData;

/// A kernel that lets the caller create maps and load programs.
#[derive(Clone, Debug)]
pub struct Linux {
    release: String,
    possible_cpus: usize,
}

/// Why no kernel can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said of it; none where it did not even come to that.
    pub errno: Option<Errno>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(errno) => write!(f, "bpf(2) does not answer here: {}: {errno}", self.step),
            None => write!(f, "bpf(2) does not answer here: {}", self.step),
        }
    }
}

impl std::error::Error for Unavailable {}

/// BTF loaded into the kernel.
#[derive(Debug)]
pub struct BtfFd(OwnedFd);

impl BtfFd {
    /// Its descriptor, for a [`MapSpec`] or [`ProgSpec`].
    pub fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Linux {
    /// Asks the kernel to make a map and to run a program of two instructions.
    ///
    /// # Errors
    /// The first of these that it refused.
    pub fn detect() -> Result<Linux, Unavailable> {
        let no = |step, errno| Unavailable { step, errno };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_err(|_| no("there is no /proc/sys/kernel/osrelease", None))?;
        let linux = Linux {
            release: release.trim().to_string(),
            possible_cpus: possible_cpus(),
        };
        let refused = |step| move |errno| no(step, Some(errno));
        linux
            .create_map(&MapSpec::new(MapType::Array, 4, 8, 1))
            .map_err(refused("BPF_MAP_CREATE"))?;
        // r0 = 0; exit
        let insns = [Insn::new(0xb7, 0, 0, 0, 0), Insn::new(0x95, 0, 0, 0, 0)];
        let prog = linux
            .load(&ProgSpec::new(ProgType::SocketFilter, &insns))
            .result
            .map_err(refused("BPF_PROG_LOAD"))?;
        prog.test_run(&Input::packet(&[0; 64]))
            .map_err(refused("BPF_PROG_TEST_RUN"))?;
        Ok(linux)
    }

    /// The kernel's release, as in `uname -r`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether it is a kernel of this series, such as `6.18`.
    pub fn is_series(&self, series: &str) -> bool {
        let rest = self.release.strip_prefix(series);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    }

    /// `num_possible_cpus()`: how many values a per-CPU element has.
    pub fn possible_cpus(&self) -> usize {
        self.possible_cpus
    }

    /// Creates a map.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create_map(&self, spec: &MapSpec<'_>) -> Result<Map, Errno> {
        Map::create(spec, self.possible_cpus)
    }

    /// Loads a program: runs the verifier over it.
    pub fn load(&self, spec: &ProgSpec<'_>) -> Loaded {
        prog::load(spec)
    }

    /// Loads BTF.
    ///
    /// # Errors
    /// The kernel's errno and its log.
    pub fn load_btf(&self, btf: &[u8]) -> Result<BtfFd, (Errno, String)> {
        // With a log that does not hold all that is said the kernel refuses what it would take.
        if let Ok(fd) = sys::btf_load(btf, &mut []) {
            return Ok(BtfFd(fd));
        }
        let mut log = vec![0; 1 << 16];
        match sys::btf_load(btf, &mut log) {
            Ok(fd) => Ok(BtfFd(fd)),
            Err(errno) => Err((errno, prog::text_of(&log))),
        }
    }
}

/// Keeps the calling thread on one CPU, so that what it arms stays there too. Gives false where the
/// machine does not let it.
pub fn stay_on_cpu(cpu: usize) -> bool {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return false;
    }
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

fn possible_cpus() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    // `0-7` or `0,2-3`: the kernel sizes per-CPU values by the highest.
    let highest = text.trim().split([',', '-']).filter_map(|n| n.parse().ok());
    highest
        .max()
        .map_or(1, |last: usize| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bpfsim_testing::linux::or_skip`, which is above this crate.
    #[allow(clippy::print_stderr)]
    fn or_skip(test: &str) -> Option<Linux> {
        let linux = Linux::detect();
        linux
            .inspect_err(|why| eprintln!("SKIPPED {test}: {why}"))
            .ok()
    }

    use bpfsim_isa::uapi;

    #[test]
    fn series_are_whole_numbers() {
        let linux = Linux {
            release: "6.18.44-x".into(),
            possible_cpus: 1,
        };
        assert!(linux.is_series("6.18"));
        assert!(linux.is_series("6"));
        assert!(!linux.is_series("6.1"));
    }

    #[test]
    fn a_program_sees_its_packet_and_its_map() {
        let Some(linux) = or_skip("a_program_sees_its_packet_and_its_map") else {
            return;
        };
        let map = linux
            .create_map(&MapSpec::new(MapType::Array, 4, 16, 1))
            .unwrap();
        map.update(&[0; 4], &(42u128 << 64).to_le_bytes(), 0)
            .unwrap();
        // r0 = second word of the map's value + skb->len
        let with_map = |src, imm| {
            [
                Insn::new(0xbf, 6, 1, 0, 0),
                Insn::new(0x18, 7, src, 0, imm),
                Insn::new(0, 0, 0, 0, 8),
                Insn::new(0x79, 0, 7, 0, 0),
                Insn::new(0x61, 1, 6, 0, 0),
                Insn::new(0x0f, 0, 1, 0, 0),
                Insn::new(0x95, 0, 0, 0, 0),
            ]
        };
        let insns = with_map(uapi::BPF_PSEUDO_MAP_VALUE, map.fd());
        let loaded = linux.load(&ProgSpec::new(ProgType::SchedCls, &insns).log());
        assert!(loaded.log.contains("processed 6 insns"), "{}", loaded.log);
        let prog = loaded.result.unwrap();
        let ran = prog.test_run(&Input::packet(&[0; 100])).unwrap();
        assert_eq!(ran.retval, 142);
        assert_eq!(ran.data_out, [0; 100]);
        assert_eq!(prog.info().unwrap().verified_insns, 6);

        // The same by index.
        let insns = with_map(uapi::BPF_PSEUDO_MAP_IDX_VALUE, 1);
        let fd_array = [-1, map.fd()];
        let spec = ProgSpec::new(ProgType::SchedCls, &insns);
        let spec = ProgSpec {
            fd_array: &fd_array,
            ..spec
        };
        let prog = linux.load(&spec).result.unwrap();
        assert_eq!(
            prog.test_run(&Input::packet(&[0; 100])).unwrap().retval,
            142
        );
    }

    #[test]
    fn a_refusal_comes_with_its_log() {
        let Some(linux) = or_skip("a_refusal_comes_with_its_log") else {
            return;
        };
        let loaded = linux
            .load(&ProgSpec::new(ProgType::SocketFilter, &[Insn::new(0x95, 0, 0, 0, 0)]).log());
        assert_eq!(loaded.result.unwrap_err(), Errno::EACCES);
        assert!(loaded.log.contains("R0 !read_ok"), "{}", loaded.log);
    }

    #[test]
    fn maps_are_read_and_written_one_by_one_and_in_batches() {
        let Some(linux) = or_skip("maps_are_read_and_written_one_by_one_and_in_batches") else {
            return;
        };
        let map = linux
            .create_map(&MapSpec::new(MapType::Hash, 4, 8, 16))
            .unwrap();
        assert_eq!(map.lookup(&[0; 4]).unwrap_err(), Errno::ENOENT);
        let keys: Vec<u8> = (0..5u32).flat_map(u32::to_le_bytes).collect();
        let values: Vec<u8> = (0..5u64).flat_map(|n| (n * n).to_le_bytes()).collect();
        assert_eq!(map.update_batch(&keys, &values).unwrap(), 5);
        assert_eq!(
            map.update(&keys[..4], &[0; 8], 1).unwrap_err(),
            Errno::EEXIST
        );

        let mut all = map.entries().unwrap();
        all.sort();
        assert_eq!(all.len(), 5);
        assert_eq!(
            all[3],
            (3u32.to_le_bytes().to_vec(), 9u64.to_le_bytes().to_vec())
        );
        let (batch, _) = map.lookup_batch(None, 16).unwrap();
        assert_eq!(batch.len(), 5);
        map.delete(&3u32.to_le_bytes()).unwrap();
        assert_eq!(map.entries().unwrap().len(), 4);

        let percpu = linux
            .create_map(&MapSpec::new(MapType::PercpuArray, 4, 4, 1))
            .unwrap();
        let value = percpu.lookup(&[0; 4]).unwrap();
        assert_eq!(value.len(), 8 * linux.possible_cpus());
    }
}
