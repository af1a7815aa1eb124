//! Maps that are pinned by name (`LIBBPF_PIN_BY_NAME`): objects of one simulation share them.

use crate::field::Fields;
use crate::ids::MapId;
use crate::kernel::Kernel;
use crate::map::{Map, MapSpec, value_fields};
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, MapType};

/// Where libbpf pins a map of this name.
pub(crate) fn path(name: &str) -> String {
    format!("/sys/fs/bpf/{}", name.replace('.', "_"))
}

/// `map_is_reuse_compat`: the first thing in which a map differs from the one that an object wants.
pub(crate) fn mismatch(wanted: &MapSpec, map: &Map) -> Option<String> {
    let there = &map.spec;
    // Linux adds this one to maps of devices itself.
    let flags = |spec: &MapSpec| match spec.map_type {
        MapType::Devmap | MapType::DevmapHash => spec.flags & !MapFlags::RDONLY_PROG.bits(),
        _ => spec.flags,
    };
    let name = |spec: &MapSpec| u64::from(spec.map_type.number());
    let members = [
        ("type", name(wanted), name(there)),
        ("key_size", wanted.key_size.into(), there.key_size.into()),
        (
            "value_size",
            wanted.value_size.into(),
            there.value_size.into(),
        ),
        (
            "max_entries",
            wanted.max_entries.into(),
            there.max_entries.into(),
        ),
        ("map_flags", flags(wanted).into(), flags(there).into()),
        ("map_extra", wanted.map_extra, there.map_extra),
    ];
    let differs = members.iter().find(|(_, want, got)| want != got);
    if let Some((what, want, got)) = differs {
        return Some(format!("{what} {want}, not {got}"));
    }
    // Programs were verified with the fields that their object says.
    let fields = value_fields(wanted).map(|found| Fields::new(&found));
    let same = fields.unwrap_or_default() == *map.fields;
    (!same).then(|| "special fields of the value".to_string())
}

impl Kernel {
    /// `BPF_OBJ_PIN` at a path. `EEXIST` where something is pinned.
    pub fn pin(&mut self, map: MapId, path: &str) -> Result<(), Errno> {
        if self.st.pins.contains_key(path) {
            return Err(Errno::EEXIST);
        }
        self.st.map_pin(map)?;
        self.st.pins.insert(path.to_string(), map);
        Ok(())
    }

    /// The map that is pinned under a name or at a path.
    pub fn pinned(&self, name: &str) -> Option<MapId> {
        let pins = &self.st.pins;
        pins.get(name).or_else(|| pins.get(&path(name))).copied()
    }

    /// Names of all pins.
    pub fn pins(&self) -> impl Iterator<Item = &str> {
        self.st.pins.keys().map(String::as_str)
    }

    /// The pin's name is free again: its reference is to be given back (`SysOp::MapUnpin`).
    pub fn take_pin(&mut self, name: &str) -> Option<MapId> {
        let pins = &mut self.st.pins;
        pins.remove(name).or_else(|| pins.remove(&path(name)))
    }
}
