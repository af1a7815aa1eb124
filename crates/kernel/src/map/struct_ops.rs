//! `BPF_MAP_TYPE_STRUCT_OPS`: a struct of the kernel whose functions are programs.
//!
//! Its only value is `struct bpf_struct_ops_NAME`: a reference count, a state and the struct. User
//! space puts descriptors of programs where the struct has pointers. What the kernel would do with
//! the functions is left to whoever calls them.

use super::{Cx, MapOps, MapSpec};
use crate::ids::{MapId, ProgId};
use crate::kernel::Kernel;
use crate::prog::{descriptor_of, program_of};
use crate::state::State;
use crate::types::member_of;
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, ProgType};
use bpfsim_btf::{Btf, Kind, Type, TypeId};
use bpfsim_vm::GuestMem;
use std::sync::Arc;

/// Where `enum bpf_struct_ops_state` is in a value, after the reference count.
const STATE_AT: usize = 4;
/// `BPF_STRUCT_OPS_STATE_*`
const INIT: u32 = 0;
const INUSE: u32 = 1;
const READY: u32 = 3;

#[derive(Clone)]
pub(crate) struct StructOps {
    layout: Arc<Layout>,
    state: u32,
    value: Vec<u8>,
    /// What libbpf would write: the object's struct, its programs in place.
    initial: Vec<u8>,
    /// Its link exists.
    linked: bool,
}

/// A struct_ops struct of the kernel, in its value.
#[derive(Debug)]
struct Layout {
    ops: TypeId,
    size: usize,
    functions: Vec<Function>,
    /// Bytes that are not functions of the struct, and may be set.
    data: Vec<std::ops::Range<usize>>,
}

#[derive(Debug)]
struct Function {
    name: String,
    number: u32,
    at: usize,
}

/// A function of a struct_ops map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructOpsMember {
    /// Name of the member.
    pub name: String,
    /// The program that stands for it, if one does.
    pub prog: Option<ProgId>,
}

impl Layout {
    fn new(kernel: &Btf, value: TypeId) -> Option<Layout> {
        let outer = kernel.ty(value)?.composite()?;
        let name = outer.name.strip_prefix("bpf_struct_ops_")?;
        let ops = kernel.find(name, Kind::Struct)?;
        let holder = outer.members.iter().find(|m| m.ty == ops)?;
        let start = holder.bit_offset / 8;
        let mut layout = Layout {
            ops,
            size: outer.size as usize,
            functions: Vec::new(),
            data: Vec::new(),
        };
        let members = kernel.ty(ops)?.composite()?.members;
        for (number, member) in members.iter().enumerate() {
            let at = (start + member.bit_offset / 8) as usize;
            if is_function(kernel, member.ty) {
                layout.functions.push(Function {
                    name: member.name.to_string(),
                    number: number as u32,
                    at,
                });
            } else if member.bitfield_size == 0 {
                let size = kernel.size_of(member.ty).ok()? as usize;
                layout.data.push(at..at + size);
            }
        }
        Some(layout)
    }
}

fn is_function(btf: &Btf, id: TypeId) -> bool {
    match btf.resolve(id) {
        Ok((_, Type::Ptr { to })) => matches!(btf.resolve(to), Ok((_, Type::FuncProto(_)))),
        _ => false,
    }
}

/// `bpf_struct_ops_map_alloc_check`
pub(super) fn check(spec: &MapSpec) -> Result<(), Errno> {
    let shaped = spec.key_size == 4 && spec.max_entries == 1 && spec.btf.is_some();
    if shaped && MapFlags::LINK.contains(spec.flags()) {
        return Ok(());
    }
    Err(Errno::EINVAL)
}

impl StructOps {
    /// `bpf_struct_ops_map_alloc`: `ENOTSUPP` for a struct that the kernel does not have.
    pub fn create(spec: &MapSpec) -> Result<StructOps, Errno> {
        let types = spec.btf.as_ref().ok_or(Errno::EINVAL)?;
        let layout = Layout::new(&types.btf, types.value).ok_or(Errno::ENOTSUPP)?;
        if layout.size != spec.value_size as usize {
            return Err(Errno::EINVAL);
        }
        Ok(StructOps {
            value: vec![0; layout.size],
            initial: vec![0; layout.size],
            layout: Arc::new(layout),
            state: INIT,
            linked: false,
        })
    }

    /// The name in a `tcp_congestion_ops`.
    fn congestion<'a>(&self, kernel: &Btf, value: &'a [u8]) -> Option<&'a [u8]> {
        const OPS: &str = "tcp_congestion_ops";
        if kernel.name_of(self.layout.ops) != OPS {
            return None;
        }
        let data = member_of(kernel, "bpf_struct_ops_tcp_congestion_ops", "data")?;
        let at = data + member_of(kernel, OPS, "name")?;
        value.get(at as usize..)?.split(|&b| b == 0).next()
    }

    /// True while a `tcp_congestion_ops` of this name is registered.
    fn is_congestion(&self, kernel: &Btf, name: &[u8]) -> bool {
        let registered = self.state == INUSE || self.linked;
        registered && self.congestion(kernel, &self.value) == Some(name)
    }

    /// Descriptors in a value: member number and descriptor.
    fn descriptors<'a>(&'a self, value: &'a [u8]) -> impl Iterator<Item = (&'a Function, u32)> {
        self.layout.functions.iter().filter_map(|f| {
            let bytes = value.get(f.at..f.at + 4)?.try_into().ok()?;
            let fd = u32::from_le_bytes(bytes);
            (fd != 0).then_some((f, fd))
        })
    }

    /// Whether each descriptor is of a program that was loaded for that member.
    pub fn check_programs(&self, st: &State, value: &[u8]) -> Result<(), Errno> {
        for (function, fd) in self.descriptors(value) {
            let prog = program_of(fd).filter(|&p| st.refs.prog_exists(p) && st.prog_fd_open(p));
            let prog = prog.ok_or(Errno::EBADF)?;
            let meta = &st.progs[prog.at()];
            let for_it = meta.struct_ops == Some((self.layout.ops, function.number));
            if meta.prog_type != ProgType::StructOps || !for_it {
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }
}

impl MapOps for StructOps {
    /// `bpf_struct_ops_map_sys_lookup_elem`
    fn copy(&mut self, _: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        if key != [0; 4] {
            return Err(Errno::ENOENT);
        }
        let mut value = self.value.clone();
        if self.state != INIT {
            value[STATE_AT..STATE_AT + 4].copy_from_slice(&self.state.to_le_bytes());
            value[..4].copy_from_slice(&(self.linked as u32).to_le_bytes());
        }
        Ok(value)
    }

    /// `bpf_struct_ops_map_update_elem`; programs are looked at before.
    fn update(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        if key != [0; 4] {
            return Err(Errno::E2BIG);
        }
        // What is neither a function nor data: holes, and the value's own head.
        let known = |at: usize| {
            let function = |f: &Function| (f.at..f.at + 8).contains(&at);
            let data = self.layout.data.iter().any(|r| r.contains(&at));
            data || self.layout.functions.iter().any(function)
        };
        let strays = value
            .iter()
            .enumerate()
            .any(|(at, &b)| b != 0 && !known(at));
        if strays || value.len() != self.layout.size {
            return Err(Errno::EINVAL);
        }
        if self.state != INIT {
            return Err(Errno::EBUSY);
        }
        self.value.copy_from_slice(value);
        let link = cx.spec.flags().contains(MapFlags::LINK);
        self.state = if link { READY } else { INUSE };
        Ok(())
    }

    /// `bpf_struct_ops_map_delete_elem`
    fn delete(&mut self, cx: &mut Cx<'_>, _: &[u8]) -> Result<(), Errno> {
        if cx.spec.flags().contains(MapFlags::LINK) {
            return Err(Errno::EOPNOTSUPP);
        }
        match self.state {
            INUSE => {
                self.state = INIT;
                self.value.fill(0);
                Ok(())
            }
            _ => Err(Errno::ENOENT),
        }
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        if key == Some(&[0; 4][..]) {
            return Err(Errno::ENOENT);
        }
        Ok(vec![0; 4])
    }

    fn len(&self) -> u32 {
        (self.state != INIT) as u32
    }
}

impl State {
    /// True while the kernel has a congestion control of this name: one of its own, or of a
    /// struct_ops map that is registered.
    pub fn registered_congestion(&self, name: &[u8]) -> bool {
        if matches!(name, b"cubic" | b"reno") {
            return true;
        }
        let maps = || self.maps.iter().filter_map(|m| m.struct_ops());
        let kernel = self.kernel_btf.as_ref();
        kernel.is_some_and(|btf| maps().any(|ops| ops.is_congestion(btf, name)))
    }
}

impl Kernel {
    fn struct_ops(&self, map: MapId) -> Result<&StructOps, Errno> {
        let map = self.st.maps.get(map.at()).ok_or(Errno::EBADF)?;
        map.struct_ops().ok_or(Errno::EINVAL)
    }

    /// What a struct_ops map starts with: the bytes of the object's struct, and its programs.
    pub(crate) fn struct_ops_fill(&mut self, map: MapId, bytes: &[u8], progs: &[(u32, ProgId)]) {
        if let Some(ops) = self.st.maps[map.at()].struct_ops_mut() {
            let n = bytes.len().min(ops.initial.len());
            ops.initial[..n].copy_from_slice(&bytes[..n]);
            for (at, prog) in progs {
                let at = *at as usize;
                if let Some(to) = ops.initial.get_mut(at..at + 4) {
                    to.copy_from_slice(&descriptor_of(*prog).to_le_bytes());
                }
            }
        }
    }

    /// The functions of a struct_ops map, in the order of the kernel's struct: which programs stand
    /// for them once it is attached, whatever its state.
    ///
    /// # Errors
    /// `EINVAL` for another kind of map.
    pub fn struct_ops_members(&self, map: MapId) -> Result<Vec<StructOpsMember>, Errno> {
        let ops = self.struct_ops(map)?;
        let value = match ops.state {
            INIT => &ops.initial,
            _ => &ops.value,
        };
        let members = ops.layout.functions.iter().map(|f| StructOpsMember {
            name: f.name.clone(),
            prog: ops
                .descriptors(value)
                .find(|(of, _)| of.number == f.number)
                .and_then(|(_, fd)| program_of(fd)),
        });
        Ok(members.collect())
    }

    /// Sets a member of an object's struct that is a number, before it is attached
    /// (`skel->struct_ops.NAME->member = value`).
    ///
    /// # Errors
    /// `EINVAL` for another kind of map, `ENOENT` for a member that there is not or that is no number,
    /// `EBUSY` once it is attached.
    pub fn struct_ops_set(&mut self, map: MapId, member: &str, value: u64) -> Result<(), Errno> {
        self.note_call(&(map, member, value));
        let ops = self.struct_ops(map)?;
        if ops.state != INIT {
            return Err(Errno::EBUSY);
        }
        let btf = &self.layouts.btf;
        let name = btf.name_of(ops.layout.ops).to_string();
        let found = btf.ty(ops.layout.ops).and_then(|t| t.composite());
        let found = found.and_then(|c| c.members.iter().find(|m| m.name == member));
        let found = found.ok_or(Errno::ENOENT)?;
        let size = btf.size_of(found.ty).unwrap_or(0) as usize;
        if !matches!(size, 1 | 2 | 4 | 8) || is_function(btf, found.ty) {
            return Err(Errno::ENOENT);
        }
        let data = member_of(btf, &format!("bpf_struct_ops_{name}"), "data");
        let at = (data.ok_or(Errno::ENOENT)? + found.bit_offset / 8) as usize;
        let ops = self.st.maps[map.at()].struct_ops_mut();
        let to = ops.and_then(|ops| ops.initial.get_mut(at..at + size));
        to.ok_or(Errno::ENOENT)?
            .copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    /// The bytes of the struct of a struct_ops map, which is to be of this name: `EINVAL` for another.
    pub(crate) fn struct_ops_data(&self, map: MapId, name: &str) -> Result<&[u8], Errno> {
        let ops = self.struct_ops(map)?;
        let btf = &self.layouts.btf;
        if btf.name_of(ops.layout.ops) != name {
            return Err(Errno::EINVAL);
        }
        let value = match ops.state {
            INIT => &ops.initial,
            _ => &ops.value,
        };
        let at = member_of(btf, &format!("bpf_struct_ops_{name}"), "data");
        let data = value.get(at.ok_or(Errno::EINVAL)? as usize..);
        data.ok_or(Errno::EINVAL)
    }

    /// `bpf_map__attach_struct_ops`: writes the object's struct into the map, and makes its link if
    /// it is to have one.
    ///
    /// # Errors
    /// Those of `BPF_MAP_UPDATE_ELEM`; `EBUSY` for one that is attached, `EEXIST` for a congestion
    /// control whose name another one has, `EINVAL` for another kind of map.
    pub fn struct_ops_attach(&mut self, map: MapId) -> Result<(), Errno> {
        let ops = self.struct_ops(map)?;
        let (value, ready) = (ops.initial.clone(), ops.state == READY);
        if ops.linked || ops.state == INUSE {
            return Err(Errno::EBUSY);
        }
        let name = ops.congestion(&self.layouts.btf, &value);
        if name.is_some_and(|name| self.st.registered_congestion(name)) {
            return Err(Errno::EEXIST);
        }
        if !ready {
            self.map_update(map, &[0; 4], &value, 0)?;
        }
        if let Some(ops) = self.st.maps[map.at()].struct_ops_mut() {
            ops.linked = ops.state == READY;
        }
        Ok(())
    }

    /// `bpf_link__update_map`: another map's functions are called in the place of one's.
    ///
    /// # Errors
    /// `ENOLINK` where there is no link, `EINVAL` for another kind of map, of struct or of name,
    /// `EOPNOTSUPP` for structs that the kernel does not replace; those of `BPF_MAP_UPDATE_ELEM`.
    pub fn struct_ops_replace(&mut self, old: MapId, new: MapId) -> Result<(), Errno> {
        let (was, ops) = (self.struct_ops(old)?, self.struct_ops(new)?);
        let link = self.st.maps[new.at()].spec.flags();
        if !was.linked {
            return Err(Errno::ENOLINK);
        }
        if !link.contains(MapFlags::LINK) || was.layout.ops != ops.layout.ops {
            return Err(Errno::EINVAL);
        }
        let (value, ready) = (ops.initial.clone(), ops.state == READY);
        // Of the structs that there are, congestion controls are replaced only, by one of the same
        // name.
        let names = (
            was.congestion(&self.layouts.btf, &was.value),
            ops.congestion(&self.layouts.btf, &value),
        );
        match names {
            (None, _) => return Err(Errno::EOPNOTSUPP),
            (was, new) if was != new => return Err(Errno::EINVAL),
            _ => {}
        }
        if !ready {
            self.map_update(new, &[0; 4], &value, 0)?;
        }
        for (map, linked) in [(old, false), (new, true)] {
            if let Some(ops) = self.st.maps[map.at()].struct_ops_mut() {
                ops.linked = linked;
            }
        }
        Ok(())
    }

    /// True while the kernel calls the map's functions.
    ///
    /// # Errors
    /// `EINVAL` for another kind of map.
    pub fn struct_ops_attached(&self, map: MapId) -> Result<bool, Errno> {
        let ops = self.struct_ops(map)?;
        Ok(ops.state == INUSE || ops.linked)
    }

    /// `bpf_link__destroy` of what [`Kernel::struct_ops_attach`] gave.
    ///
    /// # Errors
    /// `ENOENT` for one that is not attached, `EINVAL` for another kind of map.
    pub fn struct_ops_detach(&mut self, map: MapId) -> Result<(), Errno> {
        self.struct_ops(map)?;
        if let Some(ops) = self.st.maps[map.at()].struct_ops_mut()
            && std::mem::take(&mut ops.linked)
        {
            return Ok(());
        }
        match self.map_delete(map, &[0; 4]) {
            Err(Errno::EOPNOTSUPP) => Err(Errno::ENOENT),
            result => result,
        }
    }
}
