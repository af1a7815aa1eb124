//! Who keeps maps and programs: SEMANTICS 0.3, 0.4 and 0.7.
//!
//! A map has two counts. User references (`map->usercnt`, [`Map::uref`](crate::map::Map)) are
//! file descriptions and pins; without any, asynchronous fields are freed. All references
//! together (`map->refcnt`) also count programs; without any the map is gone.

use crate::asynch::Callback;
use crate::ids::{MapId, ProgId};
use crate::state::State;
use crate::touch::Touch;
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;
use std::rc::Rc;

/// A file descriptor of a map. Duplicates share one file description.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MapFd(pub(crate) u32);

/// The references of a simulation.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Refs {
    progs: Vec<ProgRefs>,
    /// All references of each map.
    maps: Vec<u32>,
    /// The descriptor that making each map left open.
    first: Vec<MapFd>,
    /// File descriptions: the map, and how many descriptors are open.
    files: Vec<(MapId, u32)>,
    /// What each descriptor is of.
    fds: Vec<Option<u32>>,
    /// Maps whose last reference is gone, and whose elements still own what they own.
    gone: Vec<MapId>,
}

#[derive(Clone)]
struct ProgRefs {
    refs: u32,
    fd_open: bool,
    maps: Rc<[MapId]>,
}

impl Refs {
    /// The elements of some map are to give up what they own.
    pub fn has_gone_maps(&self) -> bool {
        !self.gone.is_empty()
    }

    /// The map that was just made, the last one, and its first descriptor.
    pub fn add_map(&mut self, map: MapId) {
        self.maps.push(0);
        let fd = self.open(map);
        self.first.push(fd);
    }

    /// The descriptor that making a map left open.
    pub fn first_fd(&self, map: MapId) -> MapFd {
        self.first.get(map.at()).copied().unwrap_or(MapFd(u32::MAX))
    }

    fn open(&mut self, map: MapId) -> MapFd {
        self.maps[map.at()] += 1;
        self.files.push((map, 1));
        self.fds.push(Some(self.files.len() as u32 - 1));
        MapFd(self.fds.len() as u32 - 1)
    }

    /// A program that was just loaded, its descriptor open.
    pub fn add_prog(&mut self, maps: impl Iterator<Item = MapId>) {
        let mut used: Vec<MapId> = maps.collect();
        used.sort_unstable();
        used.dedup();
        for map in &used {
            if let Some(refs) = self.maps.get_mut(map.at()) {
                *refs += 1;
            }
        }
        self.progs.push(ProgRefs {
            refs: 1,
            fd_open: true,
            maps: used.into(),
        });
    }

    /// The maps that a program uses.
    pub fn maps_of(&self, prog: ProgId) -> &[MapId] {
        self.progs.get(prog.at()).map_or(&[], |p| &p.maps)
    }

    fn put_map(&mut self, map: MapId) {
        if let Some(refs) = self.maps.get_mut(map.at()) {
            let last = *refs == 1;
            *refs = refs.saturating_sub(1);
            if last {
                self.gone.push(map);
            }
        }
    }

    /// True until the last reference is gone.
    pub fn map_exists(&self, map: MapId) -> bool {
        self.maps.get(map.at()).is_some_and(|&refs| refs > 0)
    }

    /// True until the last reference is gone.
    pub fn prog_exists(&self, prog: ProgId) -> bool {
        self.progs.get(prog.at()).is_some_and(|p| p.refs > 0)
    }

    /// `bpf_prog_inc_not_zero`
    pub fn get_prog(&mut self, prog: ProgId) -> bool {
        match self.progs.get_mut(prog.at()) {
            Some(p) if p.refs > 0 => {
                p.refs += 1;
                true
            }
            _ => false,
        }
    }

    /// `bpf_prog_put`: with the last reference the program lets go of its maps.
    pub fn put_prog(&mut self, prog: ProgId) {
        let Some(p) = self.progs.get_mut(prog.at()) else {
            return;
        };
        p.refs = p.refs.saturating_sub(1);
        if p.refs == 0 {
            for &map in &*std::mem::take(&mut p.maps) {
                self.put_map(map);
            }
        }
    }

    /// Moves a callback's program reference: takes that of the new one, if it is another, and
    /// gives back the old one's.
    pub fn move_to(&mut self, from: Option<Callback>, to: Callback) -> Result<(), Errno> {
        if from.is_some_and(|c| c.prog == to.prog) {
            return Ok(());
        }
        if !self.get_prog(to.prog) {
            return Err(Errno::ENOENT);
        }
        self.drop_callback(from);
        Ok(())
    }

    pub fn drop_callback(&mut self, callback: Option<Callback>) {
        if let Some(c) = callback {
            self.put_prog(c.prog);
        }
    }
}

impl State {
    /// `BPF_MAP_GET_FD_BY_ID`
    pub fn map_open(&mut self, map: MapId) -> Result<MapFd, Errno> {
        if !self.refs.map_exists(map) {
            return Err(Errno::ENOENT);
        }
        self.maps[map.at()].uref_get();
        Ok(self.refs.open(map))
    }

    /// `dup(2)`: no user reference of its own.
    pub fn map_dup(&mut self, fd: MapFd) -> Result<MapFd, Errno> {
        let file = self.refs.fds.get(fd.0 as usize).copied().flatten();
        let file = file.ok_or(Errno::EBADF)?;
        self.refs.files[file as usize].1 += 1;
        self.refs.fds.push(Some(file));
        Ok(MapFd(self.refs.fds.len() as u32 - 1))
    }

    /// `close(2)` of a map's descriptor. Gives the map when this was the last user reference, so
    /// that its asynchronous fields are to be freed.
    pub fn map_fd_close(&mut self, fd: MapFd) -> Result<Option<MapId>, Errno> {
        let slot = self.refs.fds.get_mut(fd.0 as usize);
        let file = slot.and_then(Option::take).ok_or(Errno::EBADF)?;
        let (map, open) = &mut self.refs.files[file as usize];
        *open -= 1;
        let map = *map;
        if *open > 0 {
            return Ok(None);
        }
        self.refs.put_map(map);
        Ok(self.uref_put(map))
    }

    /// `bpf_map_free_deferred`: elements of maps that are gone give up the objects that they own.
    #[inline]
    pub fn free_gone_maps(&mut self, mem: &mut GuestMem) {
        if self.refs.has_gone_maps() {
            self.free_gone(mem);
        }
    }

    #[inline(never)]
    fn free_gone(&mut self, mem: &mut GuestMem) {
        self.touch(Touch::All);
        for map in std::mem::take(&mut self.refs.gone) {
            if !self.maps[map.at()].fields.owns() {
                continue;
            }
            for value in self.maps[map.at()].values() {
                self.free_owned_by(mem, map, value);
            }
        }
    }

    /// `BPF_OBJ_PIN`
    pub fn map_pin(&mut self, map: MapId) -> Result<(), Errno> {
        if !self.refs.map_exists(map) {
            return Err(Errno::ENOENT);
        }
        self.maps[map.at()].uref_get();
        self.refs.maps[map.at()] += 1;
        Ok(())
    }

    /// The pin is unlinked; as [`State::map_fd_close`].
    pub fn map_unpin(&mut self, map: MapId) -> Option<MapId> {
        self.refs.put_map(map);
        self.uref_put(map)
    }

    fn uref_put(&mut self, map: MapId) -> Option<MapId> {
        let m = &mut self.maps[map.at()];
        (m.uref, m.dirty) = (m.uref.saturating_sub(1), true);
        if m.uref == 0 {
            m.release_uref();
        }
        (m.uref == 0 && !m.fields.is_empty()).then_some(map)
    }

    /// `close(2)` of a program's descriptor.
    pub fn prog_close(&mut self, prog: ProgId) -> Result<(), Errno> {
        let p = self.refs.progs.get_mut(prog.at()).ok_or(Errno::EBADF)?;
        if !std::mem::take(&mut p.fd_open) {
            return Err(Errno::EBADF);
        }
        self.refs.put_prog(prog);
        Ok(())
    }

    /// True while user space can name the program by its descriptor.
    pub fn prog_fd_open(&self, prog: ProgId) -> bool {
        self.refs.progs.get(prog.at()).is_some_and(|p| p.fd_open)
    }
}
