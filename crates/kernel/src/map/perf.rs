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
/// `PERF_RECORD_LOST`: header, id, number.
const LOST: usize = 24;

/// A record of a perf ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PerfRecord {
    /// `PERF_RECORD_SAMPLE`: what a program wrote, filled up so that it ends 4 bytes after a
    /// multiple of 8.
    Sample(Vec<u8>),
    /// `PERF_RECORD_LOST`: so many samples found no room before the next one.
    Lost(u64),
}

impl PerfRecord {
    /// What it takes of the ring.
    fn size(&self) -> usize {
        match self {
            PerfRecord::Sample(sample) => HEADER + sample.len(),
            PerfRecord::Lost(_) => LOST,
        }
    }
}

/// An event and its ring.
#[derive(Clone, Default)]
pub(crate) struct Perf {
    cpu: Cpu,
    records: VecDeque<PerfRecord>,
    bytes: usize,
    /// Samples for which there was no room, since the last one for which there was.
    lost: u64,
}

impl Perf {
    pub fn new(cpu: Cpu) -> Perf {
        Perf {
            cpu,
            ..Perf::default()
        }
    }

    /// `perf_event_output` of an event that counts on its own CPU only. That samples were lost is
    /// said before the next one that fits; none does where the ring is to be `full`.
    pub fn output(&mut self, cpu: Cpu, mut sample: Vec<u8>, full: bool) -> Result<(), Errno> {
        if self.cpu != cpu {
            return Err(Errno::EOPNOTSUPP);
        }
        let whole = (HEADER + sample.len()).next_multiple_of(8);
        sample.resize(whole - HEADER, 0);
        let lost = (self.lost > 0).then_some(PerfRecord::Lost(self.lost));
        let sample = PerfRecord::Sample(sample);
        let len = sample.size() + lost.as_ref().map_or(0, PerfRecord::size);
        // `CIRC_SPACE`: a ring is never quite full.
        if full || self.bytes + len >= RING {
            self.lost += 1;
            return Err(Errno::ENOSPC);
        }
        self.bytes += len;
        self.lost = 0;
        self.records.extend(lost);
        self.records.push_back(sample);
        Ok(())
    }

    /// The oldest record.
    pub fn read(&mut self) -> Option<PerfRecord> {
        let record = self.records.pop_front()?;
        self.bytes -= record.size();
        Some(record)
    }
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
        assert_eq!(perf.output(Cpu(0), vec![1], false), Err(Errno::EOPNOTSUPP));
        let sample = |n: u8| vec![n; 4096 - HEADER];
        let read = |n: u8| Some(PerfRecord::Sample(sample(n)));
        for n in 0..63 {
            perf.output(Cpu(1), sample(n), false).unwrap();
        }
        // One byte of the ring stays free.
        assert_eq!(perf.output(Cpu(1), sample(63), false), Err(Errno::ENOSPC));
        assert_eq!(perf.output(Cpu(1), sample(63), false), Err(Errno::ENOSPC));
        assert_eq!(perf.read(), read(0));
        perf.output(Cpu(1), sample(64), false).unwrap();
        for n in 1..63 {
            assert_eq!(perf.read(), read(n));
        }
        assert_eq!(perf.read(), Some(PerfRecord::Lost(2)));
        assert_eq!(perf.read(), read(64));
        assert_eq!((perf.read(), perf.bytes), (None, 0));
        perf.output(Cpu(1), vec![7; 10], false).unwrap();
        let mut padded = vec![7; 10];
        padded.extend([0; 2]);
        assert_eq!(perf.read(), Some(PerfRecord::Sample(padded)));
    }
}
