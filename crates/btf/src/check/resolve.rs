//! What types refer to: cycles, sizes, and that each reference leads to a kind that may stand there
//! (`btf_check_all_types`). A depth-first search with an explicit stack of 32, as in the kernel.

use super::member::{Fit, is_regular};
use crate::btf::Btf;
use crate::error::{BtfError, BtfErrorKind as E, Result};
use crate::types::{Array, Composite, Datasec, FuncProto, Kind, Type, TypeId};
use crate::walk::{MAX_RESOLVE_DEPTH, PTR_SIZE};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    OnStack,
    Resolved,
}

/// `enum resolve_mode`: what ends a search depends on what it started from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    ToBeDetermined,
    Ptr,
    StructOrArray,
}

struct Vertex {
    id: TypeId,
    /// Member or variable to go on with.
    next: usize,
}

struct Resolver<'a> {
    btf: &'a Btf,
    start: u32,
    visits: Vec<Visit>,
    /// What a modifier, pointer or variable leads to in the end.
    ids: Vec<TypeId>,
    /// Sizes of arrays.
    sizes: Vec<u32>,
    stack: Vec<Vertex>,
    mode: Mode,
}

/// Stands for an id that leads nowhere: like a tag, nothing may refer to it.
const MISSING: Type<'static> = Type::DeclTag {
    name: "",
    ty: TypeId::VOID,
    component_idx: -1,
    is_attr: false,
};

/// How a step of the search ends: resolved, or something else has to be first.
enum Step {
    Done(TypeId, u32),
    Push(TypeId),
}

type Stepped = std::result::Result<Step, E>;

pub(super) fn check_all(btf: &Btf) -> Result<()> {
    let count = btf.iter().len();
    let mut resolver = Resolver {
        btf,
        start: btf.start_id().0,
        visits: vec![Visit::New; count],
        ids: vec![TypeId::VOID; count],
        sizes: vec![0; count],
        stack: Vec::with_capacity(MAX_RESOLVE_DEPTH),
        mode: Mode::ToBeDetermined,
    };
    for id in (btf.start_id().0..btf.type_count()).map(TypeId) {
        let kind = resolver.kind(id);
        if needs_resolve(kind) && !resolver.is_resolved(id) {
            resolver.resolve(id)?;
        }
        if let (Kind::FuncProto, Type::FuncProto(proto)) = (kind, resolver.ty(id)) {
            resolver.func_proto(id, proto)?;
        }
    }
    Ok(())
}

/// `btf_type_is_modifier`, which counts typedefs.
fn is_modifier(kind: Kind) -> bool {
    kind.is_modifier() || kind == Kind::Typedef
}

fn is_composite(kind: Kind) -> bool {
    matches!(kind, Kind::Struct | Kind::Union)
}

/// `btf_type_needs_resolve`.
fn needs_resolve(kind: Kind) -> bool {
    is_modifier(kind)
        || is_composite(kind)
        || matches!(
            kind,
            Kind::Ptr | Kind::Array | Kind::Var | Kind::Func | Kind::DeclTag | Kind::Datasec
        )
}

/// `btf_type_is_resolve_source_only`: nothing may refer to these.
fn source_only(kind: Kind) -> bool {
    matches!(kind, Kind::Var | Kind::DeclTag | Kind::Datasec)
}

/// `btf_type_nosize`.
fn no_size(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Void | Kind::Fwd | Kind::Func | Kind::FuncProto | Kind::DeclTag
    )
}

/// Bytes of a kind that says them itself.
fn own_size(ty: &Type<'_>) -> Option<u32> {
    match *ty {
        Type::Int(int) => Some(int.size),
        Type::Struct(c) | Type::Union(c) => Some(c.size),
        Type::Enum(e) | Type::Enum64(e) => Some(e.size),
        Type::Datasec(d) => Some(d.size),
        Type::Float { size, .. } => Some(size),
        Type::Ptr { .. } => Some(PTR_SIZE),
        _ => None,
    }
}

impl<'a> Resolver<'a> {
    fn ty(&self, id: TypeId) -> Type<'a> {
        self.btf.ty(id).unwrap_or(MISSING)
    }

    fn kind(&self, id: TypeId) -> Kind {
        if id == TypeId::VOID {
            return Kind::Void;
        }
        let kind = self.btf.reference(id).and_then(|(k, _)| Kind::from_u8(k));
        kind.unwrap_or(MISSING.kind())
    }

    fn index(&self, id: TypeId) -> Option<usize> {
        id.0.checked_sub(self.start).map(|i| i as usize)
    }

    /// Types of a base count as resolved.
    fn is_resolved(&self, id: TypeId) -> bool {
        let visit = self.index(id).map(|i| self.visits.get(i));
        visit.is_none_or(|v| v == Some(&Visit::Resolved))
    }

    /// `env_type_is_resolve_sink`.
    fn is_sink(&self, kind: Kind) -> bool {
        match self.mode {
            Mode::ToBeDetermined => !needs_resolve(kind),
            Mode::Ptr => !is_modifier(kind) && kind != Kind::Ptr,
            Mode::StructOrArray => !is_modifier(kind) && kind != Kind::Array && !is_composite(kind),
        }
    }

    /// Whether the search has to go there first.
    fn must_visit(&self, id: TypeId) -> bool {
        !self.is_sink(self.kind(id)) && !self.is_resolved(id)
    }

    fn resolved_id(&self, id: TypeId) -> TypeId {
        match self.index(id) {
            Some(i) => self.ids.get(i).copied().unwrap_or_default(),
            None => self.btf.skip_mods_and_typedefs(id).unwrap_or_default(),
        }
    }

    /// `btf_type_id_size`: the type that has the size, and the size.
    fn type_id_size(&self, id: TypeId) -> Option<(TypeId, u32)> {
        let direct = |id: TypeId| {
            let ty = self.ty(id);
            let array = || match (ty, self.index(id)) {
                (Type::Array(_), Some(i)) => self.sizes.get(i).copied(),
                (Type::Array(_), None) => self.btf.size_of(id).ok(),
                _ => None,
            };
            own_size(&ty).or_else(array).map(|size| (id, size))
        };
        let kind = self.kind(id);
        match is_modifier(kind) || kind == Kind::Var {
            true => direct(self.resolved_id(id)),
            false => direct(id),
        }
    }

    /// `env_stack_push`.
    fn push(&mut self, id: TypeId) -> std::result::Result<(), E> {
        if self.stack.len() == MAX_RESOLVE_DEPTH {
            return Err(E::TooDeep(MAX_RESOLVE_DEPTH as u32));
        }
        let visit = self.index(id).and_then(|i| self.visits.get_mut(i));
        match visit {
            Some(visit @ Visit::New) => *visit = Visit::OnStack,
            _ => return Err(E::Loop),
        }
        self.stack.push(Vertex { id, next: 0 });
        if self.mode == Mode::ToBeDetermined {
            match self.kind(id) {
                Kind::Ptr => self.mode = Mode::Ptr,
                Kind::Struct | Kind::Union | Kind::Array => self.mode = Mode::StructOrArray,
                _ => {}
            }
        }
        Ok(())
    }

    /// `btf_resolve`: one type and all that it stands on.
    fn resolve(&mut self, root: TypeId) -> Result<()> {
        self.mode = Mode::ToBeDetermined;
        self.stack.clear();
        let at_root = |btf: &Btf, what| btf.error(root, what);
        self.push(root).map_err(|what| at_root(self.btf, what))?;
        while let Some(top) = self.stack.last() {
            let id = top.id;
            let stepped = self.step(id, top.next);
            let pushed = match stepped {
                Ok(Step::Push(next)) => self.push(next),
                Ok(Step::Done(to, size)) => {
                    self.pop(id, to, size);
                    Ok(())
                }
                Err(what) => Err(what),
            };
            pushed.map_err(|what| match what {
                // Linux reports these for the type that it started from.
                E::TooDeep(_) | E::Loop => at_root(self.btf, what),
                what => self.btf.error(id, what),
            })?;
        }
        match self.is_valid(root) {
            true => Ok(()),
            false => Err(at_root(self.btf, E::InvalidResolveState)),
        }
    }

    fn pop(&mut self, id: TypeId, to: TypeId, size: u32) {
        self.stack.pop();
        if let Some(i) = self.index(id) {
            self.visits[i] = Visit::Resolved;
            self.ids[i] = to;
            self.sizes[i] = size;
        }
    }

    /// `btf_resolve_valid`, the kernel's own doubt in the search.
    fn is_valid(&self, id: TypeId) -> bool {
        let kind = self.kind(id);
        if is_modifier(kind) || matches!(kind, Kind::Ptr | Kind::Var) {
            let end = self.kind(self.resolved_id(id));
            return !is_modifier(end) && !matches!(end, Kind::Var | Kind::Datasec);
        }
        match self.ty(id) {
            Type::Array(array) => match self.type_id_size(array.elem) {
                Some((elem, size)) => {
                    let total = self.type_id_size(id).map(|(_, s)| s);
                    !is_modifier(self.kind(elem)) && total == Some(size.wrapping_mul(array.nelems))
                }
                None => false,
            },
            _ => true,
        }
    }

    fn step(&mut self, id: TypeId, next: usize) -> Stepped {
        match self.ty(id) {
            Type::Ptr { to } => self.pointer(to),
            Type::Typedef { to, .. }
            | Type::Volatile { to }
            | Type::Const { to }
            | Type::Restrict { to }
            | Type::TypeTag { to, .. } => self.modifier(to),
            Type::Var { ty, .. } => self.var(ty),
            Type::Array(array) => self.array(array),
            Type::Struct(c) | Type::Union(c) => self.composite(c, next),
            Type::Datasec(d) => self.datasec(d, next),
            Type::DeclTag {
                ty, component_idx, ..
            } => self.decl_tag(ty, component_idx),
            Type::Func { proto, .. } => self.func(proto),
            _ => Err(E::UnsupportedResolve),
        }
    }

    /// Remembers where to go on, and asks for `id` first.
    fn visit_first(&mut self, id: TypeId, next: usize) -> Stepped {
        if let Some(top) = self.stack.last_mut() {
            top.next = next;
        }
        Ok(Step::Push(id))
    }

    fn modifier(&mut self, to: TypeId) -> Stepped {
        if source_only(self.kind(to)) {
            return Err(E::InvalidTypeId);
        }
        match self.must_visit(to) {
            true => Ok(Step::Push(to)),
            false => self.finish_reference(to),
        }
    }

    /// What has no size may be named by a modifier or a pointer if C has such a type.
    fn finish_reference(&self, to: TypeId) -> Stepped {
        if let Some((to, _)) = self.type_id_size(to) {
            return Ok(Step::Done(to, 0));
        }
        let mut to = to;
        if self.is_resolved(to) && needs_resolve(self.kind(to)) {
            to = self.resolved_id(to);
        }
        match self.kind(to) {
            Kind::Void | Kind::Fwd | Kind::FuncProto => Ok(Step::Done(to, 0)),
            _ => Err(E::InvalidTypeId),
        }
    }

    /// A modifier that stopped at a pointer, in a search that pointers end, leads further here.
    fn pointer_behind(&self, to: TypeId) -> Option<TypeId> {
        if !is_modifier(self.kind(to)) {
            return None;
        }
        let end = self.resolved_id(to);
        (self.kind(end) == Kind::Ptr && self.must_visit(end)).then_some(end)
    }

    fn pointer(&mut self, to: TypeId) -> Stepped {
        if source_only(self.kind(to)) {
            return Err(E::InvalidTypeId);
        }
        if self.must_visit(to) {
            return Ok(Step::Push(to));
        }
        match self.pointer_behind(to) {
            Some(end) => Ok(Step::Push(end)),
            None => self.finish_reference(to),
        }
    }

    fn var(&mut self, to: TypeId) -> Stepped {
        if source_only(self.kind(to)) {
            return Err(E::InvalidTypeId);
        }
        if self.must_visit(to) {
            return Ok(Step::Push(to));
        }
        if let Some(end) = self.pointer_behind(to) {
            return Ok(Step::Push(end));
        }
        match self.type_id_size(to) {
            Some((to, _)) => Ok(Step::Done(to, 0)),
            None => Err(E::InvalidTypeId),
        }
    }

    fn array(&mut self, array: Array) -> Stepped {
        let unsized_kind = |kind| no_size(kind) || source_only(kind);
        if unsized_kind(self.kind(array.index)) {
            return Err(E::InvalidIndex);
        }
        if self.must_visit(array.index) {
            return Ok(Step::Push(array.index));
        }
        let index = self.type_id_size(array.index).map(|(id, _)| self.ty(id));
        match index {
            Some(Type::Int(int)) if is_regular(&int) => {}
            _ => return Err(E::InvalidIndex),
        }
        if unsized_kind(self.kind(array.elem)) {
            return Err(E::InvalidElem);
        }
        if self.must_visit(array.elem) {
            return Ok(Step::Push(array.elem));
        }
        let (elem, size) = self.type_id_size(array.elem).ok_or(E::InvalidElem)?;
        if matches!(self.ty(elem), Type::Int(int) if !is_regular(&int)) {
            return Err(E::InvalidArrayOfInt);
        }
        let total = size.checked_mul(array.nelems).ok_or(E::ArrayTooLarge)?;
        Ok(Step::Done(elem, total))
    }

    fn composite(&mut self, owner: Composite<'a>, next: usize) -> Stepped {
        // The member that had to be visited first has been, but is not yet held to the struct.
        for i in next..owner.members.len() {
            let Some(member) = owner.members.get(i) else {
                break;
            };
            let index = i as u32;
            let kind = self.kind(member.ty);
            if no_size(kind) || source_only(kind) {
                return Err(E::InvalidMember(index));
            }
            if self.must_visit(member.ty) {
                return self.visit_first(member.ty, i);
            }
            let resolved = match is_modifier(kind) {
                true => self
                    .type_id_size(member.ty)
                    .ok_or(E::InvalidMember(index))?,
                false => (
                    member.ty,
                    self.type_id_size(member.ty).map_or(0, |(_, s)| s),
                ),
            };
            let fit = Fit {
                owner,
                member,
                index,
            };
            fit.check(&self.ty(resolved.0), resolved.1)?;
        }
        Ok(Step::Done(TypeId::VOID, 0))
    }

    fn datasec(&mut self, datasec: Datasec<'a>, next: usize) -> Stepped {
        self.mode = Mode::ToBeDetermined;
        for i in next..datasec.vars.len() {
            let Some(var) = datasec.vars.get(i) else {
                break;
            };
            let index = i as u32;
            let Type::Var { ty, .. } = self.ty(var.ty) else {
                return Err(E::NotAVar(index));
            };
            if self.must_visit(var.ty) {
                // The kernel does not come back to a variable that it had to visit first.
                return self.visit_first(var.ty, i + 1);
            }
            let (_, size) = self.type_id_size(ty).ok_or(E::InvalidVarType(index))?;
            if var.size < size {
                return Err(E::InvalidVarSize(index));
            }
        }
        Ok(Step::Done(TypeId::VOID, 0))
    }

    fn decl_tag(&mut self, to: TypeId, component_idx: i32) -> Stepped {
        let kind = self.kind(to);
        let target = is_composite(kind) || matches!(kind, Kind::Func | Kind::Var | Kind::Typedef);
        if !target {
            return Err(E::InvalidTypeId);
        }
        if self.must_visit(to) {
            return Ok(Step::Push(to));
        }
        if let Ok(component) = usize::try_from(component_idx) {
            let parts = match self.ty(to) {
                Type::Struct(c) | Type::Union(c) => c.members.len(),
                Type::Func { proto, .. } => match self.ty(proto) {
                    Type::FuncProto(p) => p.params.len(),
                    _ => 0,
                },
                _ => 0,
            };
            if component >= parts {
                return Err(E::InvalidComponentIdx);
            }
        }
        Ok(Step::Done(to, 0))
    }

    /// String offsets: one that leads to an empty string is a name, and a bad one.
    fn param_names(&self, proto: TypeId) -> impl Iterator<Item = u32> + use<'a> {
        let tail = self.btf.raw_type(proto).map_or(&[][..], |raw| raw.tail);
        (0..tail.len() / 8).filter_map(|i| crate::raw::u32_at(tail, 8 * i))
    }

    /// `btf_func_check`: a prototype whose arguments all have names.
    fn func(&mut self, proto: TypeId) -> Stepped {
        let Type::FuncProto(FuncProto { params, .. }) = self.ty(proto) else {
            return Err(E::InvalidTypeId);
        };
        let names = self.param_names(proto);
        let mut unnamed = params.iter().zip(names);
        match unnamed.position(|(p, name)| name == 0 && p.ty != TypeId::VOID) {
            Some(i) => Err(E::InvalidArg(i as u32 + 1)),
            None => Ok(Step::Done(proto, 0)),
        }
    }

    /// `btf_func_proto_check`.
    fn func_proto(&mut self, id: TypeId, proto: FuncProto<'a>) -> Result<()> {
        if proto.ret != TypeId::VOID {
            let bad = self.btf.error(id, E::InvalidReturnType);
            self.sized(proto.ret, bad)?;
        }
        let mut count = proto.params.len();
        let last = count.checked_sub(1).and_then(|i| proto.params.get(i));
        let names: Vec<u32> = self.param_names(id).collect();
        if last.is_some_and(|p| p.ty == TypeId::VOID) {
            if names.last() != Some(&0) {
                return Err(self.btf.error(id, E::InvalidArg(count as u32)));
            }
            count -= 1;
        }
        for (i, (param, name)) in proto.params.iter().zip(names).take(count).enumerate() {
            let bad = self.btf.error(id, E::InvalidArg(i as u32 + 1));
            if name != 0 && !super::meta::is_identifier(param.name) {
                return Err(bad);
            }
            self.sized(param.ty, bad)?;
        }
        Ok(())
    }

    /// A type that a function takes or gives back.
    fn sized(&mut self, id: TypeId, bad: BtfError) -> Result<()> {
        let kind = self.kind(id);
        if source_only(kind) {
            return Err(bad);
        }
        if needs_resolve(kind) && !self.is_resolved(id) {
            self.resolve(id)?;
        }
        match self.type_id_size(id) {
            Some(_) => Ok(()),
            None => Err(bad),
        }
    }
}
