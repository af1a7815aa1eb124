//! Struct_ops values as a kernel has them: members moved to where its own struct has them.

use std::collections::HashMap;

use bpfsim_abi::ProgType;
use bpfsim_btf::{Btf, Composite, Kind, Member, Type, TypeId};

use crate::error::{LoadError, LoadErrorKind as K};
use crate::object::{MapDef, Object, StructOps};

/// What the kernel's type of a struct_ops map's value is called before its struct's name.
const VALUE_PREFIX: &str = "bpf_struct_ops_";

/// A struct_ops map in a kernel's terms (`struct bpf_struct_ops` after
/// `bpf_map__init_kern_struct_ops`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernStructOps {
    /// Index of the map.
    pub map: usize,
    /// `struct bpf_struct_ops_*` in the kernel's BTF: the map's value
    /// (`btf_vmlinux_value_type_id`).
    pub value_type: TypeId,
    /// The struct itself in the kernel's BTF: what programs attach to (`attach_btf_id`).
    pub type_id: TypeId,
    /// Initial bytes of the value. Function pointers are zero.
    pub value: Vec<u8>,
    /// Function pointers.
    pub progs: Vec<KernMember>,
}

/// A function pointer of a struct_ops map that a program fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernMember {
    /// Index of the program.
    pub program: usize,
    /// Number of the member in the kernel's struct (`expected_attach_type` of the program).
    pub member: u32,
    /// Where the pointer lies in the value.
    pub offset: u32,
}

fn bad(why: impl Into<String>) -> LoadError {
    K::BadStructOps(why.into()).err()
}

fn unsupported(why: impl Into<String>) -> LoadError {
    K::UnsupportedStructOps(why.into()).err()
}

impl Object {
    /// `bpf_object__init_kern_struct_ops_maps`: all struct_ops maps that are to be made.
    ///
    /// # Errors
    /// A struct that the kernel does not have, members that it lacks or has otherwise, a program
    /// that two maps use for different things.
    pub fn kern_struct_ops(&self, kernel: &Btf) -> Result<Vec<KernStructOps>, LoadError> {
        let mut used: HashMap<usize, (TypeId, u32)> = HashMap::new();
        let mut all = Vec::new();
        let mut members_left = MAX_MEMBERS;
        for (index, map) in self
            .maps
            .iter()
            .enumerate()
            .filter(|(_, map)| map.autocreate)
        {
            let Some(ops) = &map.struct_ops else { continue };
            let here = |e: LoadError| e.section(&map.section).symbol(&map.name);
            let members = self
                .btf
                .as_deref()
                .and_then(|btf| btf.ty(ops.type_id)?.composite());
            members_left = members_left
                .checked_sub(members.map_or(0, |c| c.members.len()))
                .ok_or_else(|| {
                    let limit = MAX_MEMBERS as u64;
                    here(
                        K::TooLarge {
                            what: "members of struct_ops structs",
                            limit,
                        }
                        .err(),
                    )
                })?;
            let kern = self.kern_value(kernel, index, map, ops).map_err(here)?;
            for prog in &kern.progs {
                let use_ = (kern.type_id, prog.member);
                if *used.entry(prog.program).or_insert(use_) != use_ {
                    let name = &self.programs[prog.program].name;
                    return Err(here(bad(format!(
                        "program '{name}' already stands for another member"
                    ))));
                }
            }
            all.push(kern);
        }
        Ok(all)
    }

    fn kern_value(
        &self,
        kernel: &Btf,
        map: usize,
        def: &MapDef,
        ops: &StructOps,
    ) -> Result<KernStructOps, LoadError> {
        let local = self.btf.as_deref().ok_or(K::NoBtf.err())?;
        let types = KernTypes::find(kernel, &ops.type_name)?;
        let Some(Type::Struct(ours)) = local.ty(ops.type_id) else {
            return Err(bad("not a struct"));
        };
        let size = types.value.size as usize;
        let mut kern = KernStructOps {
            map,
            value_type: types.value_id,
            type_id: types.id,
            value: vec![0; size.min(MAX_VALUE)],
            progs: Vec::new(),
        };
        if size > MAX_VALUE {
            let limit = MAX_VALUE as u64;
            return Err(K::TooLarge {
                what: "bytes of a struct_ops value",
                limit,
            }
            .err());
        }
        let programs: HashMap<usize, usize> = ops.progs.iter().copied().collect();
        for (index, member) in ours.members.iter().enumerate() {
            let program = programs.get(&index).copied();
            let at = |e: LoadError| match e.kind {
                K::UnsupportedStructOps(why) => {
                    unsupported(format!("member '{}': {why}", member.name))
                }
                _ => e,
            };
            self.kern_member(&types, (local, &member), program, &def.data, &mut kern)
                .map_err(at)?;
        }
        Ok(kern)
    }

    /// One member: a program, or bytes to copy.
    fn kern_member(
        &self,
        types: &KernTypes<'_>,
        (local, ours): (&Btf, &Member<'_>),
        program: Option<usize>,
        data: &[u8],
        kern: &mut KernStructOps,
    ) -> Result<(), LoadError> {
        let broken = |e: bpfsim_btf::BtfError| bad(e.to_string());
        let size = local.size_of(ours.ty).map_err(broken)? as usize;
        let start = ours.bit_offset as usize / 8;
        let bytes = data.get(start..).and_then(|rest| rest.get(..size));
        let bytes = bytes.ok_or_else(|| bad("a member reaches past its struct"))?;
        let Some(&(number, theirs)) = types.members.get(ours.name) else {
            // What an older kernel lacks may be left empty.
            return match program.is_none() && bytes.iter().all(|&b| b == 0) {
                true => Ok(()),
                false => Err(unsupported("the kernel has no such member")),
            };
        };
        if ours.bitfield_size != 0 || theirs.bitfield_size != 0 {
            return Err(unsupported("a bit-field"));
        }
        let (_, our_type) = local.resolve(ours.ty).map_err(broken)?;
        let (_, their_type) = types.kernel.resolve(theirs.ty).map_err(broken)?;
        if our_type.kind() != their_type.kind() {
            return Err(unsupported("the kernel's is of another kind"));
        }
        let offset = types.data_offset + theirs.bit_offset / 8;
        if let Type::Ptr { to } = their_type {
            let Some(program) = program else {
                return Ok(());
            };
            if self
                .programs
                .get(program)
                .is_none_or(|p| p.spec.prog_type != ProgType::StructOps)
            {
                return Err(unsupported("not a struct_ops program"));
            }
            if !matches!(types.kernel.resolve(to), Ok((_, Type::FuncProto(_)))) {
                return Err(unsupported("the kernel's is no function pointer"));
            }
            kern.progs.push(KernMember {
                program,
                member: number,
                offset,
            });
            return Ok(());
        }
        if types.kernel.size_of(theirs.ty).map_err(broken)? as usize != size {
            return Err(unsupported("the kernel's is of another size"));
        }
        let start = offset as usize;
        let place = kern
            .value
            .get_mut(start..)
            .and_then(|rest| rest.get_mut(..size));
        let place = place.ok_or_else(|| bad("the kernel's member reaches past its struct"))?;
        place.copy_from_slice(bytes);
        Ok(())
    }
}

/// Members of all struct_ops maps together.
const MAX_MEMBERS: usize = 1 << 20;
/// A struct_ops value that a kernel has is a few hundred bytes.
const MAX_VALUE: usize = 1 << 20;

/// A struct_ops struct of a kernel, and the value that wraps it.
struct KernTypes<'k> {
    kernel: &'k Btf,
    id: TypeId,
    value_id: TypeId,
    value: Composite<'k>,
    /// Bytes from the start of the value to the struct.
    data_offset: u32,
    /// Members of the struct by name.
    members: HashMap<&'k str, (u32, Member<'k>)>,
}

impl<'k> KernTypes<'k> {
    /// `find_struct_ops_kern_types`.
    fn find(kernel: &'k Btf, name: &str) -> Result<KernTypes<'k>, LoadError> {
        let find = |name: &str| {
            let id = kernel.find(name, Kind::Struct);
            let found = id.and_then(|id| Some((id, kernel.ty(id)?.composite()?)));
            found.ok_or_else(|| K::NoKernelType(name.to_owned()).err())
        };
        let (value_id, value) = find(&format!("{VALUE_PREFIX}{name}"))?;
        let (id, ops) = find(name)?;
        let data = value.members.iter().find(|member| member.ty == id);
        let data = data.ok_or_else(|| bad("the kernel's value does not hold the struct"))?;
        let mut members = HashMap::new();
        for (number, member) in ops.members.iter().enumerate() {
            members
                .entry(member.name)
                .or_insert((number as u32, member));
        }
        let data_offset = data.bit_offset / 8;
        Ok(KernTypes {
            kernel,
            id,
            value_id,
            value,
            data_offset,
            members,
        })
    }
}
