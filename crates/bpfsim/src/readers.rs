//! Ring buffers and perf buffers as their readers see them: records of a type, what was lost.

use crate::{Error, Map, Result};
use bpfsim_abi::{Errno, MapType};
use bpfsim_kernel::PerfRecord;
use std::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The reader of a `BPF_MAP_TYPE_RINGBUF`: records are `T`, which may be shorter than what a program
/// wrote.
///
/// ```
/// use bpfsim::{Ebpf, ProgramInput, RingBuf, Sim};
///
/// let sim = Sim::new()?;
/// let mut bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/map_helpers.bpf.o"))?;
/// let ring: RingBuf<u64> = bpf.map("ring")?.try_into()?;
/// bpf.program_mut("records")?.test_run(ProgramInput::packet(&[0; 64]))?;
/// assert!(ring.unread()? > 0);
/// assert_eq!(ring.next()?, Some(0));
/// assert_eq!(ring.records()?[2..], [42, 42, 42]);
/// assert_eq!((ring.unread()?, ring.next()?), (0, None));
/// # Ok::<(), bpfsim::Error>(())
/// ```
#[derive(Clone)]
pub struct RingBuf<T> {
    map: Map,
    records: PhantomData<fn() -> T>,
}

/// The producer of a `BPF_MAP_TYPE_USER_RINGBUF`: samples are `T`.
#[derive(Clone)]
pub struct UserRingBuf<T> {
    map: Map,
    samples: PhantomData<fn(T)>,
}

/// The reader of a `BPF_MAP_TYPE_PERF_EVENT_ARRAY`, as libbpf's `perf_buffer` is: an event for each
/// CPU. Samples are `T`, which may be shorter than what a program wrote.
#[derive(Clone)]
pub struct PerfBuffer<T> {
    map: Map,
    samples: PhantomData<fn() -> T>,
}

/// What a perf buffer's reader gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PerfEvent<T> {
    /// A program wrote this.
    Sample(T),
    /// So many samples found no room before the next one (`PERF_RECORD_LOST`).
    Lost(u64),
}

/// A map of the type that a reader is for.
fn of_type(map: Map, map_type: MapType, op: &'static str) -> Result<Map> {
    match map.spec().map_type == map_type {
        true => Ok(map),
        false => Err(map.refused(op)(Errno::EINVAL)),
    }
}

fn read<T: FromBytes>(map: &Map, bytes: &[u8]) -> Result<T> {
    let read = T::read_from_prefix(bytes).map(|(value, _)| value);
    read.map_err(|_| Error::Size {
        what: format!("record of map `{}`", map.spec().name),
        want: bytes.len(),
        got: size_of::<T>(),
    })
}

impl<T> TryFrom<Map> for RingBuf<T> {
    type Error = Error;

    fn try_from(map: Map) -> Result<RingBuf<T>> {
        Ok(RingBuf {
            map: of_type(map, MapType::Ringbuf, "ring_buffer__new")?,
            records: PhantomData,
        })
    }
}

impl<T: FromBytes> RingBuf<T> {
    /// Takes the oldest record out, if it is complete; discarded ones are passed over.
    ///
    /// # Errors
    /// [`Error::Size`] for one that is shorter than `T`.
    pub fn next(&self) -> Result<Option<T>> {
        Ok(match self.next_bytes()? {
            Some(bytes) => Some(read(&self.map, &bytes)?),
            None => None,
        })
    }

    /// Takes all complete records out.
    pub fn records(&self) -> Result<Vec<T>> {
        std::iter::from_fn(|| self.next().transpose()).collect()
    }
}

impl<T> RingBuf<T> {
    /// As [`RingBuf::next`], in bytes.
    pub fn next_bytes(&self) -> Result<Option<Vec<u8>>> {
        let id = self.map.id();
        let next = self.map.sim().kernel_mut().ringbuf_read(id);
        next.map_err(self.map.refused("ring_buffer__consume"))
    }

    /// How often programs have woken up who polls it: by the oldest record that was not read, and
    /// where `BPF_RB_FORCE_WAKEUP` says so.
    pub fn wakeups(&self) -> Result<u64> {
        let wakeups = self.map.sim().kernel_mut().ringbuf_wakeups(self.map.id());
        wakeups.map_err(self.map.refused("poll"))
    }

    /// How many records programs could not put in because there was no room: `bpf_ringbuf_output`
    /// gave `-EAGAIN`, `bpf_ringbuf_reserve` null. Linux leaves counting them to programs.
    pub fn dropped(&self) -> Result<u64> {
        let dropped = self.map.sim().kernel_mut().ringbuf_dropped(self.map.id());
        dropped.map_err(self.map.refused("ring_buffer__new"))
    }

    /// Bytes that wait to be read, headers included (`ring__avail_data_size`).
    pub fn unread(&self) -> Result<u64> {
        let unread = self.map.sim().kernel_mut().ringbuf_unread(self.map.id());
        unread.map_err(self.map.refused("ring__avail_data_size"))
    }
}

impl<T> TryFrom<Map> for UserRingBuf<T> {
    type Error = Error;

    fn try_from(map: Map) -> Result<UserRingBuf<T>> {
        Ok(UserRingBuf {
            map: of_type(map, MapType::UserRingbuf, "user_ring_buffer__new")?,
            samples: PhantomData,
        })
    }
}

impl<T: IntoBytes + Immutable> UserRingBuf<T> {
    /// Puts a sample in, for `bpf_user_ringbuf_drain`. `ENOSPC` while there is no room.
    pub fn submit(&self, sample: &T) -> Result<()> {
        self.map.write_record(sample.as_bytes())
    }
}

impl<T> UserRingBuf<T> {
    /// Bytes that programs have not drained, headers included.
    pub fn undrained(&self) -> Result<u64> {
        let unread = self.map.sim().kernel_mut().ringbuf_unread(self.map.id());
        unread.map_err(self.map.refused("user_ring_buffer__new"))
    }
}

impl<T> PerfBuffer<T> {
    /// Opens an event for each CPU, with a ring of 64 pages each (`perf_buffer__new`).
    pub fn open(map: Map) -> Result<PerfBuffer<T>> {
        let map = of_type(map, MapType::PerfEventArray, "perf_buffer__new")?;
        map.perf_open()?;
        Ok(PerfBuffer {
            map,
            samples: PhantomData,
        })
    }
}

impl<T: FromBytes> PerfBuffer<T> {
    /// Takes the oldest record of a CPU's ring out.
    ///
    /// # Errors
    /// [`Error::Size`] for a sample that is shorter than `T`.
    pub fn next(&self, cpu: u32) -> Result<Option<PerfEvent<T>>> {
        let next = self.map.sim().kernel_mut().perf_read(self.map.id(), cpu);
        Ok(
            match next.map_err(self.map.refused("perf_buffer__consume"))? {
                Some(PerfRecord::Sample(bytes)) => {
                    Some(PerfEvent::Sample(read(&self.map, &bytes)?))
                }
                Some(PerfRecord::Lost(n)) => Some(PerfEvent::Lost(n)),
                None => None,
            },
        )
    }

    /// Takes all records of a CPU's ring out.
    pub fn records(&self, cpu: u32) -> Result<Vec<PerfEvent<T>>> {
        std::iter::from_fn(|| self.next(cpu).transpose()).collect()
    }
}
