//! Access strings: `0:1:2:3` against a type, and the same access found again in another type.

use std::fmt;

use super::compat::fields_are_compat;
use super::matches::types_match;
use super::{Budget, CoreError, compat, skip};
use crate::btf::Btf;
use crate::ext::{CoreRelo, CoreReloKind};
use crate::index::essential_name;
use crate::types::{Array, Composite, Enumeration, Type, TypeId};

/// `BPF_CORE_SPEC_MAX_LEN`.
const MAX_LEN: usize = 64;

/// What a relocation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Field,
    Type,
    Enumval,
}

pub(crate) fn family(kind: CoreReloKind) -> Family {
    use CoreReloKind as K;
    match kind {
        K::FieldByteOffset
        | K::FieldByteSize
        | K::FieldExists
        | K::FieldSigned
        | K::FieldLshiftU64
        | K::FieldRshiftU64 => Family::Field,
        K::TypeIdLocal | K::TypeIdTarget | K::TypeExists | K::TypeSize | K::TypeMatches => {
            Family::Type
        }
        K::EnumvalExists | K::EnumvalValue => Family::Enumval,
    }
}

/// A step that means something in C: a named field, an enumerator, or an index (`name` is none).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accessor<'a> {
    /// The struct that has the field, the enum, or the type of the element.
    pub(crate) type_id: TypeId,
    pub(crate) idx: u32,
    pub(crate) name: Option<&'a str>,
}

/// `struct bpf_core_spec`: an access against one type.
#[derive(Clone, Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) btf: &'a Btf,
    pub(crate) root: TypeId,
    pub(crate) kind: CoreReloKind,
    pub(crate) steps: Vec<Accessor<'a>>,
    /// Every step, those into anonymous members too.
    pub(crate) raw: Vec<u32>,
    pub(crate) bit_offset: u32,
}

impl Spec<'_> {
    fn push_raw(&mut self, index: u32) -> Result<(), CoreError> {
        if self.raw.len() == MAX_LEN {
            return Err(CoreError::SpecTooDeep);
        }
        self.raw.push(index);
        Ok(())
    }

    fn advance(&mut self, bits: u64) -> Result<(), CoreError> {
        let sum = bits.checked_add(u64::from(self.bit_offset));
        let sum = sum.and_then(|s| u32::try_from(s).ok());
        self.bit_offset = sum.ok_or(CoreError::OutOfRange)?;
        Ok(())
    }

    /// Moves over `index` elements of type `elem`.
    fn advance_elements(&mut self, index: u32, elem: TypeId) -> Result<(), CoreError> {
        let size = u64::from(self.btf.size_of(elem)?);
        let bits = size
            .checked_mul(8)
            .and_then(|b| b.checked_mul(u64::from(index)));
        self.advance(bits.ok_or(CoreError::OutOfRange)?)
    }

    /// Whether the array is the flexible one at the end of the struct that the last step led into.
    fn is_flexible(&self, array: &Array) -> bool {
        let Some(Accessor {
            type_id,
            idx,
            name: Some(_),
        }) = self.steps.last()
        else {
            return false;
        };
        let members = self.btf.ty(*type_id).and_then(|t| t.composite());
        array.nelems == 0 && members.is_some_and(|c| *idx as usize + 1 == c.members.len())
    }
}

/// A spec against the object's own types.
pub(crate) type LocalSpec<'a> = Spec<'a>;

/// Numbers of `"0:1:2"`.
fn numbers(access: &str) -> Result<Vec<u32>, &'static str> {
    let number = |text: &str| -> Result<u32, &'static str> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let value = text.parse::<i32>().ok().filter(|_| digits);
        Ok(value.ok_or("access string is malformed")? as u32)
    };
    let all: Vec<u32> = access.split(':').map(number).collect::<Result<_, _>>()?;
    match all.len() {
        0..=MAX_LEN => Ok(all),
        _ => Err("access string has more than 64 steps"),
    }
}

impl<'a> LocalSpec<'a> {
    /// `bpf_core_parse_spec`.
    pub(crate) fn parse(
        btf: &'a Btf,
        relo: &CoreRelo,
        budget: &mut Budget,
    ) -> Result<LocalSpec<'a>, CoreError> {
        let access = btf.str_at(relo.access_str_off);
        let root = btf.get(relo.type_id)?;
        let bad = |why| CoreError::BadSpec {
            id: relo.type_id,
            kind: root.kind(),
            name: match root.name() {
                "" => "<anon>".to_owned(),
                name => name.to_owned(),
            },
            access: access.chars().take(256).collect(),
            why,
        };
        let mut spec = Spec {
            btf,
            root: relo.type_id,
            kind: relo.kind,
            steps: Vec::new(),
            raw: Vec::new(),
            bit_offset: 0,
        };
        if family(relo.kind) == Family::Type {
            return match access {
                "0" => Ok(spec),
                _ => Err(bad("a type relocation has the access string 0")),
            };
        }
        spec.raw = numbers(access).map_err(bad)?;
        let (id, ty) = skip(btf, relo.type_id, budget)?;
        let first = spec.raw[0];
        let mut step = Accessor {
            type_id: id,
            idx: first,
            name: None,
        };
        if family(relo.kind) == Family::Enumval {
            let value = ty.enumeration().and_then(|e| e.values.get(first as usize));
            step.name = match value.filter(|_| spec.raw.len() == 1) {
                Some(value) => Some(value.name),
                None => return Err(bad("no such enumerator")),
            };
            spec.steps.push(step);
            return Ok(spec);
        }
        spec.steps.push(step);
        spec.advance_elements(first, id)?;
        spec.walk(id, bad, budget)?;
        Ok(spec)
    }

    /// Follows the access string from its second number on.
    fn walk(
        &mut self,
        mut id: TypeId,
        bad: impl Fn(&'static str) -> CoreError,
        budget: &mut Budget,
    ) -> Result<(), CoreError> {
        for i in 1..self.raw.len() {
            let index = self.raw[i];
            let (at, ty) = skip(self.btf, id, budget)?;
            match ty {
                Type::Struct(c) | Type::Union(c) => {
                    let member = c.members.get(index as usize);
                    let member = member.ok_or_else(|| bad("no such member"))?;
                    self.advance(u64::from(member.bit_offset))?;
                    if !member.name.is_empty() {
                        self.steps.push(Accessor {
                            type_id: at,
                            idx: index,
                            name: Some(member.name),
                        });
                    }
                    id = member.ty;
                }
                Type::Array(array) => {
                    let (elem, _) = skip(self.btf, array.elem, budget)?;
                    if index >= array.nelems && !self.is_flexible(&array) {
                        return Err(bad("index is beyond the end of the array"));
                    }
                    self.steps.push(Accessor {
                        type_id: elem,
                        idx: index,
                        name: None,
                    });
                    self.advance_elements(index, elem)?;
                    id = elem;
                }
                _ => return Err(bad("a step leads into what has no parts")),
            }
        }
        Ok(())
    }
}

/// Finds a local access in a candidate (`bpf_core_spec_match`).
pub(crate) struct Matcher<'s, 'a, 'b> {
    local: &'s Spec<'a>,
    target: &'a Btf,
    budget: &'b mut Budget,
}

impl<'s, 'a, 'b> Matcher<'s, 'a, 'b> {
    pub(crate) fn new(local: &'s Spec<'a>, target: &'a Btf, budget: &'b mut Budget) -> Self {
        Matcher {
            local,
            target,
            budget,
        }
    }

    /// The same access in this type; none if it does not match.
    pub(crate) fn run(&mut self, id: TypeId) -> Result<Option<Spec<'a>>, CoreError> {
        self.budget.spend(1)?;
        let mut spec = Spec {
            btf: self.target,
            root: id,
            kind: self.local.kind,
            steps: Vec::new(),
            raw: Vec::new(),
            bit_offset: 0,
        };
        let (local, root) = (self.local.btf, self.local.root);
        let found = match (family(self.local.kind), self.local.kind) {
            (Family::Type, CoreReloKind::TypeMatches) => {
                types_match(local, root, self.target, id, self.budget)?
            }
            (Family::Type, _) => {
                compat::types_are_compat(local, root, self.target, id, self.budget)?
            }
            (Family::Enumval, _) => self.find_enumerator(&mut spec, id)?,
            (Family::Field, _) => self.find_field(&mut spec, id)?,
        };
        Ok(found.then_some(spec))
    }

    fn find_enumerator(&mut self, spec: &mut Spec<'a>, id: TypeId) -> Result<bool, CoreError> {
        let (id, ty) = skip(self.target, id, self.budget)?;
        let Some(Enumeration { values, .. }) = ty.enumeration() else {
            return Ok(false);
        };
        let wanted = self.local.steps[0].name.map_or("", essential_name);
        self.budget.spend(values.len() as u64)?;
        let found = values
            .iter()
            .enumerate()
            .find(|(_, v)| essential_name(v.name) == wanted);
        let Some((i, value)) = found else {
            return Ok(false);
        };
        spec.steps.push(Accessor {
            type_id: id,
            idx: i as u32,
            name: Some(value.name),
        });
        spec.push_raw(i as u32)?;
        Ok(true)
    }

    fn find_field(&mut self, spec: &mut Spec<'a>, id: TypeId) -> Result<bool, CoreError> {
        let mut at = id;
        for (i, step) in self.local.steps.iter().enumerate() {
            let (here, ty) = skip(self.target, at, self.budget)?;
            at = here;
            if step.name.is_some() {
                match self.find_member(spec, step, at)? {
                    Some(next) => at = next,
                    None => return Ok(false),
                }
                continue;
            }
            // The first index is over the root type itself.
            if i > 0 {
                let Type::Array(array) = ty else {
                    return Ok(false);
                };
                if step.idx >= array.nelems && !spec.is_flexible(&array) {
                    return Ok(false);
                }
                at = skip(self.target, array.elem, self.budget)?.0;
            }
            spec.push_raw(step.idx)?;
            spec.steps.push(Accessor {
                type_id: at,
                idx: step.idx,
                name: None,
            });
            spec.advance_elements(step.idx, at)?;
        }
        Ok(true)
    }

    /// Looks for a member of the same name, in anonymous structs and unions too
    /// (`bpf_core_match_member`). Gives its type; none if it is not there or not compatible.
    fn find_member(
        &mut self,
        spec: &mut Spec<'a>,
        step: &Accessor<'a>,
        id: TypeId,
    ) -> Result<Option<TypeId>, CoreError> {
        let wanted = self.local.btf.ty(step.type_id).and_then(|t| t.composite());
        let wanted = wanted.and_then(|c| c.members.get(step.idx as usize));
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        Ok(match self.search(spec, wanted.name, wanted.ty, id)? {
            Search::Found(ty) => Some(ty),
            Search::Incompatible | Search::Absent => None,
        })
    }

    /// Depth-first; nesting is bounded by the length of a spec.
    fn search(
        &mut self,
        spec: &mut Spec<'a>,
        name: &str,
        local_ty: TypeId,
        id: TypeId,
    ) -> Result<Search, CoreError> {
        let (id, ty) = skip(self.target, id, self.budget)?;
        let Some(Composite { members, .. }) = ty.composite() else {
            return Ok(Search::Absent);
        };
        for (i, member) in members.iter().enumerate() {
            self.budget.spend(1)?;
            let before = spec.bit_offset;
            spec.push_raw(i as u32)?;
            spec.advance(u64::from(member.bit_offset))?;
            if member.name.is_empty() {
                match self.search(spec, name, local_ty, member.ty)? {
                    Search::Absent => {}
                    // There is no second member of that name to look for.
                    found => return Ok(found),
                }
            } else if member.name == name {
                let local = self.local.btf;
                if !fields_are_compat(local, local_ty, self.target, member.ty, self.budget)? {
                    return Ok(Search::Incompatible);
                }
                spec.steps.push(Accessor {
                    type_id: id,
                    idx: i as u32,
                    name: Some(member.name),
                });
                return Ok(Search::Found(member.ty));
            }
            spec.raw.pop();
            spec.bit_offset = before;
        }
        Ok(Search::Absent)
    }
}

/// How a search for a member ended.
enum Search {
    Found(TypeId),
    Incompatible,
    Absent,
}

impl fmt::Display for Spec<'_> {
    /// `bpf_core_format_spec`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(root) = self.btf.ty(self.root) else {
            return Ok(());
        };
        let name = match root.name() {
            "" => "<anon>",
            name => name,
        };
        let kind = root.kind().c_word();
        write!(f, "<{}> {} {kind} {name}", self.kind.as_str(), self.root)?;
        match family(self.kind) {
            Family::Type => Ok(()),
            Family::Enumval => {
                let Some(step) = self.steps.first() else {
                    return Ok(());
                };
                let ty = self.btf.ty(step.type_id).and_then(|t| t.enumeration());
                let value = ty.and_then(|e| Some((e.signed, e.values.get(step.idx as usize)?)));
                match value {
                    Some((true, v)) => write!(f, "::{} = {}", v.name, v.value),
                    Some((false, v)) => write!(f, "::{} = {}", v.name, v.value as u64),
                    None => Ok(()),
                }
            }
            Family::Field => {
                for (i, step) in self.steps.iter().enumerate() {
                    match step.name {
                        Some(name) => write!(f, ".{name}")?,
                        None if i > 0 || step.idx > 0 => write!(f, "[{}]", step.idx)?,
                        None => {}
                    }
                }
                let raw: Vec<String> = self.raw.iter().map(u32::to_string).collect();
                let (byte, bit) = (self.bit_offset / 8, self.bit_offset % 8);
                write!(f, " ({} @ offset {byte}", raw.join(":"))?;
                match bit {
                    0 => write!(f, ")"),
                    bit => write!(f, ".{bit})"),
                }
            }
        }
    }
}
