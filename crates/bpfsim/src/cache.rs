//! Objects that were read and verified, for simulations that load the same ones.

use crate::EbpfLoader;
use bpfsim_kernel::{Config, KernelBtf, Prepared};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Objects that were prepared for loading. Simulations that are given the same cache
/// ([`Sim::use_cache`](crate::Sim::use_cache)) read and verify an object once.
#[derive(Clone, Default)]
pub struct Cache(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    loader: EbpfLoader,
    bytes: Box<[u8]>,
    cpus: u32,
    btf: Option<KernelBtf>,
    prepared: Arc<Prepared>,
}

/// Objects that a cache holds at most; beyond that the oldest goes.
const MOST: usize = 32;

impl Cache {
    /// What `loader` made of these bytes before, or what `make` makes of them now.
    pub(crate) fn get<E>(
        &self,
        loader: &EbpfLoader,
        bytes: &[u8],
        config: &Config,
        make: impl FnOnce() -> Result<Arc<Prepared>, E>,
    ) -> Result<Arc<Prepared>, E> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cpus = config.cpus;
        let known = entries.iter().find(|e| {
            e.cpus == cpus && e.btf == config.btf && e.loader == *loader && *e.bytes == *bytes
        });
        if let Some(known) = known {
            return Ok(Arc::clone(&known.prepared));
        }
        let prepared = make()?;
        if entries.len() == MOST {
            entries.remove(0);
        }
        entries.push(Entry {
            loader: loader.clone(),
            bytes: bytes.into(),
            cpus,
            btf: config.btf.clone(),
            prepared: Arc::clone(&prepared),
        });
        Ok(prepared)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Cache of {} objects", entries.len())
    }
}
