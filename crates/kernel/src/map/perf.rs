//! What `bpf_perf_event_output` writes to: one software event (`PERF_COUNT_SW_BPF_OUTPUT`) for
//! each CPU, with a ring of 64 pages as libbpf makes it.

use super::{Map, Storage};
use crate::ids::Cpu;
use bpfsim_abi::{Errno, MapType};
use std::collections::VecDeque;

/// Bytes of a ring.
const RING: usize = 64 * 4096;
/// `struct perf_event_header`, and the size before the data.
const HEADER: usize = 12;

/// An event and its ring.
#[derive(Clone, Default)]
pub(crate) struct Perf {
    cpu: Cpu,
    records: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Records for which there was no room, since they were asked for last.
    lost: u64,
}

impl Perf {
    pub fn new(cpu: Cpu) -> Perf {
        Perf {
            cpu,
            ..Perf::default()
        }
    }

    /// `perf_event_output` of an event that counts on its own CPU only.
    pub fn output(&mut self, cpu: Cpu, sample: Vec<u8>) -> Result<(), Errno> {
        if self.cpu != cpu {
            return Err(Errno::EOPNOTSUPP);
        }
        let len = size(&sample);
        if self.bytes + len > RING {
            self.lost += 1;
            return Err(Errno::ENOSPC);
        }
        self.bytes += len;
        self.records.push_back(sample);
        Ok(())
    }

    /// The oldest record.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let sample = self.records.pop_front()?;
        self.bytes -= size(&sample);
        Some(sample)
    }

    /// How many records were lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// What a record takes of the ring.
fn size(sample: &[u8]) -> usize {
    (HEADER + sample.len()).next_multiple_of(8)
}

impl Map {
    /// The event at an index of a perf event array; `None` for another map.
    pub fn perf(&mut self, index: u32) -> Option<Result<&mut Perf, Errno>> {
        if self.spec.map_type != MapType::PerfEventArray {
            return None;
        }
        self.dirty = true;
        let max_entries = self.spec.max_entries;
        let Storage::FdArray(array) = &mut self.storage else {
            return None;
        };
        if index >= max_entries {
            return Some(Err(Errno::E2BIG));
        }
        let Some(cpu) = array.get(index).map(|handle| Cpu(handle as u32 - 1)) else {
            return Some(Err(Errno::ENOENT));
        };
        let found = array.perf.iter().position(|p| p.cpu == cpu);
        let at = found.unwrap_or_else(|| {
            array.perf.push(Perf::new(cpu));
            array.perf.len() - 1
        });
        Some(Ok(&mut array.perf[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_loses_the_newest_and_says_so() {
        let mut perf = Perf::new(Cpu(1));
        assert_eq!(perf.output(Cpu(0), vec![1]), Err(Errno::EOPNOTSUPP));
        let sample = |n: u8| vec![n; 4096 - HEADER];
        for n in 0..64 {
            perf.output(Cpu(1), sample(n)).unwrap();
        }
        assert_eq!(perf.output(Cpu(1), vec![]), Err(Errno::ENOSPC));
        assert_eq!(perf.take_lost(), 1);
        assert_eq!(perf.read(), Some(sample(0)));
        perf.output(Cpu(1), sample(64)).unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| perf.read()).collect();
        assert_eq!(rest, (1..=64).map(sample).collect::<Vec<_>>());
        assert_eq!(perf.take_lost(), 0);
    }
}
