//! Checked mode: what hardware would hide.
//!
//! Memory that is [checked](GuestMem::check) keeps, beside its bytes, which allocations there are
//! and what became of each, and which bytes of stacks were written. Registers and spilled slots
//! that hold pointers have a [`Tag`]: the allocation, and its generation when the pointer was made.
//! Linux recycles the memory of elements at once, so an address alone cannot tell whose it is.
//!
//! A register's tag means something only while its value is near guest memory, so instructions
//! that make numbers need not touch it: only moves, additions, loads, calls and returns do.

mod checker;

pub(crate) use checker::Checker;
use checker::fits;

use crate::activation::{FRAME_SIZE, MAX_FRAMES, STACK_SIZE};
use crate::host::FaultKind;
use crate::kept::{Kept, KeptNumbers, KeptRows, Numbers, Rows, Watched};
use crate::mem::{Area, BASE, GuestMem};
use std::hash::Hasher;
use std::ops::Range;
use std::rc::Rc;

/// Where a pointer came from: number and generation of an allocation. The first allocation is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    index: u32,
    generation: u32,
}

/// Who did something: an execution, by the host's name of it, and the instruction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Site {
    /// The execution, as the host numbers them.
    pub ctx: u64,
    /// The host's number of the CPU.
    pub cpu: u32,
    /// The program, as in [`Activation::prog`](crate::Activation::prog).
    pub prog: u32,
    /// Instruction index.
    pub pc: u32,
}

/// An access by a pointer to an element that is gone, of a kind that Linux lets happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stale {
    /// Who accessed.
    pub by: Site,
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub size: u32,
    /// A store or an atomic.
    pub write: bool,
    /// The memory is another element's by now.
    pub recycled: bool,
    /// Where the element began.
    pub start: u64,
    /// Who freed it.
    pub freed: Site,
}

/// How the elements of a table lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elements {
    /// From one element to the next.
    pub stride: u64,
    /// Bytes of the key, which comes first.
    pub key: u64,
    /// Where the first value is.
    pub value: u64,
    /// Bytes of a value.
    pub size: u64,
    /// From one value of the element to the next.
    pub each: u64,
}

/// The hot half of an allocation.
#[derive(Clone, Copy, Default, Debug)]
struct Alloc {
    base: u64,
    size: u32,
    generation: u32,
}

/// The other half.
#[derive(Clone, Copy, Default, Debug)]
struct Fate {
    dead: bool,
    /// An element of a map, or an object, which Linux frees or recycles while others may look at it.
    element: bool,
    freed: Site,
}

/// What a stretch of guest memory is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Whole(u32),
    Elements(Elements),
    /// Only what was placed in it.
    Records,
    /// The allocations of a stack's frames begin with this one.
    Stack(u32),
}

#[derive(Clone, Copy, Debug)]
struct Region {
    start: u64,
    end: u64,
    kind: Kind,
}

/// Bytes of a stack that are tracked: frames, and what the host puts beside them.
const OWN: u64 = STACK_SIZE + 64;
const SLOTS: usize = OWN as usize / 8;
/// Elements of an array that are known before anybody points to them.
const FIRST_ELEMENTS: u64 = 16;
/// Allocations of a stack: its frames and what is beside them.
const PARTS: u32 = MAX_FRAMES as u32 + 1;

/// What is known of the run that has a stack.
#[derive(Debug)]
pub(crate) struct StackShadow {
    pub base: u64,
    /// A run has it. What is left of one that ended means nothing, and is not copied.
    live: bool,
    /// Runs had it before: there may be pointers to its frames.
    used: bool,
    /// Number of the outermost frame's allocation.
    first: u32,
    /// Callers of the furthest frame that the run entered, or that something points into. No byte of those
    /// beyond was written.
    reached: u32,
    pub tags: [Tag; 16],
    /// Of r6 to r9, of the callers.
    saved: [[Tag; 4]; MAX_FRAMES],
    /// A bit for each byte that was written.
    init: [u8; SLOTS + 1],
    /// Slots that hold pointers.
    spills: Vec<(u16, Tag)>,
}

impl Clone for StackShadow {
    fn clone(&self) -> StackShadow {
        StackShadow {
            spills: self.spills.clone(),
            ..*self
        }
    }

    fn clone_from(&mut self, from: &StackShadow) {
        (self.base, self.live, self.used) = (from.base, from.live, from.used);
        self.first = from.first;
        // One by one: together they would be copied twice.
        self.tags = from.tags;
        let callers = 1..from.reached as usize + 1;
        self.saved[callers.clone()].copy_from_slice(&from.saved[callers]);
        let frames = StackShadow::frames(self.reached.max(from.reached));
        self.init[frames.clone()].copy_from_slice(&from.init[frames]);
        self.reached = from.reached;
        if !(self.spills.is_empty() && from.spills.is_empty()) {
            self.spills.clone_from(&from.spills);
        }
    }
}

/// For keys that are addresses: multiply and be done. What comes out depends on the key alone.
#[derive(Clone, Copy, Default, Debug)]
pub struct ByWord(u64);

impl Hasher for ByWord {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(*b as u64);
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }
    fn write_u64(&mut self, word: u64) {
        let x = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ x >> 32;
    }
}

/// The state of checked memory beside its bytes.
#[derive(Debug)]
pub(crate) struct Shadow {
    tables: Watched<Tables>,
    /// The tables when they were last kept or brought back.
    kept: Option<Rc<KeptTables>>,
    /// By address; none while a loop has it.
    stacks: Vec<(u64, Option<Kept<StackShadow>>)>,
    rest: Rest,
}

/// What of a [`Shadow`] few steps change.
#[derive(Debug)]
struct Tables {
    allocs: Rows<Alloc>,
    fates: Rows<Fate>,
    /// Of each area, by address.
    regions: [Rows<Region>; Area::ALL.len()],
    /// Allocations that are no whole region, by where they begin.
    by_base: Numbers,
}

/// What a [`Shadow`] has of other things.
#[derive(Default, Debug)]
struct Rest {
    /// Who executes.
    site: Site,
    /// Of the arguments of the call that is being made.
    args: [Tag; 5],
    stale: Vec<Stale>,
    blamed: Option<Site>,
}

impl Clone for Rest {
    fn clone(&self) -> Rest {
        let stale = self.stale.clone();
        Rest { stale, ..*self }
    }

    #[inline]
    fn clone_from(&mut self, from: &Rest) {
        (self.site, self.args, self.blamed) = (from.site, from.args, from.blamed);
        // Mostly there are none.
        if !(self.stale.is_empty() && from.stale.is_empty()) {
            self.stale.clone_from(&from.stale);
        }
    }
}

/// A [`Shadow`] as it was at one moment.
#[derive(Clone)]
pub(crate) struct KeptShadow {
    tables: Rc<KeptTables>,
    stacks: Vec<KeptStack>,
    rest: Rest,
}

/// What [`Tables`] were.
#[derive(Debug)]
struct KeptTables {
    allocs: Rc<KeptRows<Alloc>>,
    fates: Rc<KeptRows<Fate>>,
    regions: [Rc<KeptRows<Region>>; Area::ALL.len()],
    by_base: KeptNumbers,
}

#[derive(Clone)]
struct KeptStack {
    base: u64,
    first: u32,
    /// Of what no run has any more, all that there is to know.
    used: bool,
    reached: u32,
    /// What is known of it, if a run has it.
    own: Option<Rc<StackShadow>>,
}

impl KeptStack {
    fn of((base, own): &mut (u64, Option<Kept<StackShadow>>)) -> KeptStack {
        KeptStack {
            base: *base,
            first: own.as_ref().map_or(0, |own| own.first),
            used: own.as_ref().is_some_and(|own| own.used),
            reached: own.as_ref().map_or(0, |own| own.reached),
            own: own.as_mut().filter(|own| own.live).map(Kept::keep),
        }
    }

    /// [`KeptStack::of`] in the memory of another.
    #[inline]
    fn again(&mut self, stack: &mut (u64, Option<Kept<StackShadow>>)) {
        match (stack, &mut self.own) {
            ((base, Some(own)), Some(old)) if own.live => {
                (self.base, self.first, self.used) = (*base, own.first, own.used);
                own.keep_in(old);
            }
            ((base, Some(own)), None) if !own.live => {
                (self.base, self.first) = (*base, own.first);
                (self.used, self.reached) = (own.used, own.reached);
            }
            (stack, _) => *self = KeptStack::of(stack),
        }
    }
}

/// Whether a value may be an address in guest memory, with room for what is added and taken
/// away again.
#[inline(always)]
pub(crate) fn near(value: u64) -> bool {
    value.wrapping_sub(BASE - (1 << 31)) < 1 << 33
}

impl Shadow {
    fn new() -> Shadow {
        Shadow {
            tables: Watched::new(Tables {
                allocs: Rows::new(Alloc::default()),
                fates: Rows::new(Fate::default()),
                regions: Default::default(),
                by_base: Numbers::default(),
            }),
            kept: None,
            stacks: Vec::new(),
            rest: Rest::default(),
        }
    }

    /// Everything as it is now; with `copies`, for others that are told from it.
    pub fn keep(&mut self, copies: bool) -> KeptShadow {
        if copies && self.tables.is_changed() {
            let now = self.tables.known();
            now.allocs.copy();
            now.fates.copy();
            now.regions.iter_mut().for_each(Rows::copy);
            self.kept = None;
        }
        KeptShadow {
            tables: self.keep_tables(),
            stacks: self.stacks.iter_mut().map(KeptStack::of).collect(),
            rest: self.rest.clone(),
        }
    }

    /// [`Shadow::keep`] in the place, and the memory, of what was kept before.
    pub fn keep_in(&mut self, old: &mut KeptShadow) {
        old.tables = self.keep_tables();
        old.stacks.truncate(self.stacks.len());
        for (old, stack) in old.stacks.iter_mut().zip(&mut self.stacks) {
            old.again(stack);
        }
        let new = self.stacks[old.stacks.len()..].iter_mut();
        old.stacks.extend(new.map(KeptStack::of));
        old.rest.clone_from(&self.rest);
    }

    fn keep_tables(&mut self) -> Rc<KeptTables> {
        match &self.kept {
            Some(kept) if !self.tables.is_changed() => Rc::clone(kept),
            _ => {
                let now = self.tables.known();
                let kept = Rc::new(KeptTables {
                    allocs: now.allocs.keep(),
                    fates: now.fates.keep(),
                    regions: now.regions.each_mut().map(Rows::keep),
                    by_base: now.by_base.keep(),
                });
                self.kept = Some(Rc::clone(&kept));
                kept
            }
        }
    }

    #[inline]
    fn bring_tables_back(&mut self, kept: &Rc<KeptTables>) {
        let same = self.kept.as_ref().is_some_and(|k| Rc::ptr_eq(k, kept));
        if !same || self.tables.is_changed() {
            self.bring_changed_back(kept);
        }
    }

    #[inline(never)]
    fn bring_changed_back(&mut self, kept: &Rc<KeptTables>) {
        let now = self.tables.known();
        now.allocs.bring_back(&kept.allocs);
        now.fates.bring_back(&kept.fates);
        for (now, then) in now.regions.iter_mut().zip(&kept.regions) {
            now.bring_back(then);
        }
        now.by_base.bring_back(&kept.by_base);
        self.kept = Some(Rc::clone(kept));
    }

    /// Everything as it was. Takes no memory where there is some already.
    pub fn bring_back(&mut self, kept: &KeptShadow) {
        self.bring_tables_back(&kept.tables);
        let alike = |(s, k): (&(u64, _), &KeptStack)| s.0 == k.base;
        let mut both = self.stacks.iter().zip(&kept.stacks);
        if self.stacks.len() != kept.stacks.len() || !both.all(alike) {
            self.bring_stacks_back(&kept.stacks);
        }
        for ((_, mine), theirs) in self.stacks.iter_mut().zip(&kept.stacks) {
            match (mine, &theirs.own) {
                (Some(mine), Some(own)) => mine.bring_back(own),
                (Some(mine), None) if mine.live || mine.is_unlike(theirs) => {
                    (mine.live, mine.first, mine.used) = (false, theirs.first, theirs.used);
                    // What is left there is forgotten by who has it next.
                    mine.reached = mine.reached.max(theirs.reached);
                }
                _ => {}
            }
        }
        self.rest.clone_from(&kept.rest);
    }

    /// There are those stacks that there were.
    #[cold]
    fn bring_stacks_back(&mut self, kept: &[KeptStack]) {
        let there = |at: u64| kept.binary_search_by_key(&at, |s| s.base).is_ok();
        self.stacks.retain(|s| there(s.0));
        for (i, k) in kept.iter().enumerate() {
            if self.stacks.get(i).is_none_or(|s| s.0 != k.base) {
                let new = StackShadow::new(k.base, k.first);
                self.stacks.insert(i, (k.base, Some(Kept::new(new))));
            }
        }
    }

    fn add(&mut self, base: u64, size: u64, element: bool) -> u32 {
        self.tables.allocs.push(Alloc {
            base,
            size: size.min(u32::MAX as u64) as u32,
            generation: 0,
        });
        self.tables.fates.push(Fate {
            element,
            ..Fate::default()
        });
        self.tables.allocs.len() as u32 - 1
    }

    fn tag(&self, index: u32) -> Tag {
        let generation = self.tables.allocs[index as usize].generation;
        Tag { index, generation }
    }

    /// All that is there is one allocation. Areas are given out from their beginning on.
    fn whole(&mut self, start: u64, size: u64) {
        let Some(area) = Area::of(start) else {
            return;
        };
        let index = self.add(start, size, false);
        self.tables.regions[area as usize].push(Region {
            start,
            end: start + size,
            kind: Kind::Whole(index),
        });
    }

    fn region_at(&self, addr: u64) -> Option<(usize, usize)> {
        let area = Area::of(addr)? as usize;
        let regions = self.tables.regions[area].all();
        let at = regions
            .partition_point(|r| r.start <= addr)
            .checked_sub(1)?;
        (addr < regions[at].end).then_some((area, at))
    }

    fn region(&self, addr: u64) -> Option<Region> {
        self.region_at(addr)
            .map(|(area, at)| self.tables.regions[area][at])
    }

    /// The stretch that begins there is of this kind.
    fn set_kind(&mut self, addr: u64, kind: Kind) {
        if let Some((area, at)) = self.region_at(addr) {
            self.tables.regions[area].change(at).kind = kind;
        }
    }

    /// The allocation that an address belongs to, as it is now.
    fn find(&mut self, addr: u64) -> Option<Tag> {
        let region = self.region(addr)?;
        let index = match region.kind {
            Kind::Whole(index) => index,
            Kind::Records => self.tables.by_base.get(addr)?,
            Kind::Stack(first) => match (addr - region.start).checked_sub(STACK_SIZE) {
                Some(_) => first + PARTS - 1,
                None => first + ((region.start + STACK_SIZE - 1 - addr) / FRAME_SIZE) as u32,
            },
            Kind::Elements(e) => {
                let (base, size) = e.part(region.start, addr);
                match self.tables.by_base.get(base) {
                    Some(index) => index,
                    None => {
                        let index = self.add(base, size, true);
                        self.tables.by_base.add(base, index);
                        index
                    }
                }
            }
        };
        Some(self.tag(index))
    }

    fn kill(&mut self, index: u32) {
        if !self.tables.fates[index as usize].dead {
            let site = self.rest.site;
            let fate = self.tables.fates.change(index as usize);
            (fate.dead, fate.freed) = (true, site);
            self.age(index);
        }
    }

    fn revive(&mut self, index: u32) {
        self.kill(index);
        self.tables.fates.change(index as usize).dead = false;
        self.age(index);
    }

    /// Pointers that there are point to what is no more.
    #[inline]
    fn age(&mut self, index: u32) {
        let generation = &mut self.tables.allocs.change(index as usize).generation;
        *generation = generation.wrapping_add(1);
    }

    /// Calls `f` with every allocation of the element that an address lies in, as far as anybody
    /// ever had a pointer to it.
    fn each_part(&mut self, addr: u64, f: fn(&mut Shadow, u32)) {
        let Some(region) = self.region(addr) else {
            return;
        };
        match region.kind {
            Kind::Whole(index) => f(self, index),
            Kind::Elements(e) => {
                let element = addr - (addr - region.start) % e.stride;
                if let Some(index) = self.tables.by_base.get(element).filter(|_| e.key > 0) {
                    f(self, index);
                }
                let mut value = e.value;
                while e.each > 0 && value + e.size <= e.stride {
                    if let Some(index) = self.tables.by_base.get(element + value) {
                        f(self, index);
                    }
                    value += e.each;
                }
            }
            Kind::Records => {
                if let Some(index) = self.tables.by_base.get(addr) {
                    f(self, index);
                }
            }
            Kind::Stack(_) => {}
        }
    }

    fn set_site(&mut self, ctx: u64, cpu: u32) {
        self.rest.site = Site {
            ctx,
            cpu,
            prog: u32::MAX,
            pc: 0,
        };
    }

    /// The place of a stack in `stacks`, which may be `hint`.
    #[inline]
    fn stack_from(&mut self, base: u64, hint: usize) -> usize {
        match self.stacks.get(hint) {
            Some((at, _)) if *at == base => hint,
            _ => self.stack(base),
        }
    }

    /// The place of a stack in `stacks`.
    fn stack(&mut self, base: u64) -> usize {
        match self.stacks.binary_search_by_key(&base, |s| s.0) {
            Ok(at) => at,
            Err(at) => {
                let first = self.tables.allocs.len() as u32;
                for depth in 1..=MAX_FRAMES as u64 {
                    self.add(base + STACK_SIZE - depth * FRAME_SIZE, FRAME_SIZE, false);
                }
                self.add(base + STACK_SIZE, OWN - STACK_SIZE, false);
                self.set_kind(base, Kind::Stack(first));
                let new = StackShadow::new(base, first);
                self.stacks.insert(at, (base, Some(Kept::new(new))));
                at
            }
        }
    }

    fn stack_around(&mut self, addr: u64) -> Option<&mut StackShadow> {
        let at = self.stacks.partition_point(|s| s.0 <= addr);
        let (base, own) = &mut self.stacks[at.checked_sub(1)?];
        let own = own.as_mut().filter(|own| own.live && addr - *base < OWN);
        own.map(|own| &mut **own)
    }

    /// The host wrote there.
    fn written(&mut self, addr: u64, len: u64) {
        if let Some(own) = self.stack_around(addr) {
            own.fill(addr, len);
        }
    }

    fn report(&mut self, stale: Stale) {
        let same = |s: &Stale| {
            let place = |s: &Stale| (s.by.prog, s.by.pc, s.write, s.recycled);
            place(s) == place(&stale)
        };
        if !self.rest.stale.iter().any(same) {
            self.rest.stale.push(stale);
        }
    }

    /// Whether an access by a pointer from `tag` is to its allocation, and the allocation is there.
    /// Without a tag the address decides, and the tag is set.
    fn judge(
        &mut self,
        tag: &mut Tag,
        (prog, pc): (u32, u32),
        (addr, size, write): (u64, u64, bool),
    ) -> Result<(), FaultKind> {
        if tag.index == 0 {
            match self.find(addr) {
                Some(found) => *tag = found,
                None => {
                    // What the kernel keeps there for itself, or nothing at all.
                    let between = self.region(addr).is_none();
                    let object = Area::of(addr) == Some(Area::Object);
                    return match between && (write || !object) {
                        true => Err(FaultKind::OutOfBounds {
                            addr,
                            size: size as u32,
                            write,
                            start: addr,
                            len: 0,
                        }),
                        false => Ok(()),
                    };
                }
            }
        }
        let Alloc {
            base,
            size: len,
            generation,
        } = self.tables.allocs[tag.index as usize];
        let (fate, size32) = (self.tables.fates[tag.index as usize], size as u32);
        let stale = tag.generation != generation || fate.dead;
        // Where it was and how long is known no more.
        if stale && !fate.element {
            self.rest.blamed = Some(fate.freed);
            return Err(FaultKind::UseAfterFree {
                addr,
                size: size32,
                write,
                start: base,
            });
        }
        if addr.wrapping_sub(base).saturating_add(size) > len as u64 {
            if fate.element || write || Area::of(addr) != Some(Area::Object) {
                return Err(FaultKind::OutOfBounds {
                    addr,
                    size: size32,
                    write,
                    start: base,
                    len,
                });
            }
            return Ok(());
        }
        if !stale {
            return Ok(());
        }
        self.rest.blamed = Some(fate.freed);
        if write && !fate.dead {
            return Err(FaultKind::StaleWrite {
                addr,
                size: size32,
                start: base,
            });
        }
        self.stale(tag.index, (prog, pc), (addr, size32, write));
        Ok(())
    }

    /// A load by a pointer from `tag` that may be to anything: that it is stale is worth knowing.
    fn probed(&mut self, tag: &mut Tag, place: (u32, u32), (addr, size): (u64, u32)) {
        if tag.index == 0 {
            *tag = self.find(addr).unwrap_or_default();
        }
        let index = tag.index as usize;
        let (alloc, fate) = (self.tables.allocs[index], self.tables.fates[index]);
        if tag.generation != alloc.generation || fate.dead {
            self.stale(tag.index, place, (addr, size, false));
        }
    }

    /// An access by a stale pointer that Linux lets happen.
    fn stale(&mut self, index: u32, (prog, pc): (u32, u32), (addr, size, write): (u64, u32, bool)) {
        let fate = self.tables.fates[index as usize];
        let by = Site {
            prog,
            pc,
            ..self.rest.site
        };
        self.report(Stale {
            by,
            addr,
            size,
            write,
            recycled: !fate.dead,
            start: self.tables.allocs[index as usize].base,
            freed: fate.freed,
        });
    }
}

impl Elements {
    /// Start and size of the key or value of the table at `start` that an address is nearest to.
    fn part(&self, start: u64, addr: u64) -> (u64, u64) {
        let within = (addr - start) % self.stride;
        let element = addr - within;
        match within.checked_sub(self.value) {
            None => (element, self.key),
            Some(v) => {
                let nth = v.checked_div(self.each).unwrap_or(0);
                (element + self.value + nth * self.each, self.size)
            }
        }
    }
}

impl StackShadow {
    fn new(base: u64, first: u32) -> StackShadow {
        let mut new = StackShadow {
            base,
            live: false,
            used: false,
            first,
            reached: 0,
            tags: [Tag::default(); 16],
            saved: [[Tag::default(); 4]; MAX_FRAMES],
            init: [0; SLOTS + 1],
            spills: Vec::new(),
        };
        // What is beside the frames is the host's to write.
        new.init[STACK_SIZE as usize / 8..].fill(u8::MAX);
        new
    }

    /// It is not as this was, which no run had.
    fn is_unlike(&self, dead: &KeptStack) -> bool {
        (self.first, self.used) != (dead.first, dead.used) || self.reached < dead.reached
    }

    #[inline(always)]
    fn mask(off: u64, size: usize) -> u16 {
        ((1_u16 << size) - 1) << (off & 7)
    }

    /// Marks bytes as written.
    #[cold]
    fn fill(&mut self, addr: u64, len: u64) {
        let from = addr.saturating_sub(self.base).min(OWN);
        let to = (addr.saturating_add(len))
            .saturating_sub(self.base)
            .min(OWN);
        if from < to.min(STACK_SIZE) {
            let callers = (STACK_SIZE - 1 - from) / FRAME_SIZE;
            self.reached = self.reached.max(callers as u32);
        }
        for off in from..to {
            self.init[off as usize / 8] |= 1 << (off & 7);
        }
    }

    /// How many of these bytes were written.
    fn initialised(&self, addr: u64, len: u64) -> u64 {
        let from = addr.saturating_sub(self.base).min(OWN);
        let to = (addr.saturating_add(len))
            .saturating_sub(self.base)
            .min(OWN);
        let written = |off: &u64| self.init[*off as usize / 8] >> (off & 7) & 1 != 0;
        (from..to).filter(written).count() as u64
    }

    /// Slots of the frames with up to so many callers.
    fn frames(callers: u32) -> Range<usize> {
        let end = SLOTS - 8;
        end - (callers as usize + 1) * (FRAME_SIZE as usize / 8)..end
    }

    fn forget(&mut self, depth: usize) {
        let end = SLOTS - 8 - depth * (FRAME_SIZE as usize / 8);
        let start = end - FRAME_SIZE as usize / 8;
        self.init[start..end].fill(0);
        if !self.spills.is_empty() {
            let frame = start as u16..end as u16;
            self.spills.retain(|(slot, _)| !frame.contains(slot));
        }
    }

    /// Forgets the run that had it, for one that begins.
    fn forget_all(&mut self) {
        self.tags = [Tag::default(); 16];
        self.spills.clear();
        self.init[StackShadow::frames(self.reached)].fill(0);
        self.reached = 0;
    }

    /// There is a pointer to this.
    #[inline]
    fn points(&mut self, tag: Tag) {
        let depth = tag.index.wrapping_sub(self.first);
        if depth < MAX_FRAMES as u32 {
            self.reached = self.reached.max(depth);
        }
    }

    #[cold]
    #[inline(never)]
    fn spill(&mut self, off: u64, tag: Tag) {
        let slot = (off / 8) as u16;
        match self.spills.iter_mut().find(|s| s.0 == slot) {
            Some(s) => s.1 = tag,
            None => self.spills.push((slot, tag)),
        }
    }

    /// The fault, with the place as an offset from the frame's end, as in C lines of the verifier.
    fn uninitialised(&self, addr: u64, size: u64) -> FaultKind {
        let off = addr.wrapping_sub(self.base) as i64 % FRAME_SIZE as i64 - FRAME_SIZE as i64;
        FaultKind::Uninitialised {
            off: off as i32,
            size: size as u32,
        }
    }
}

/// What the host says of allocations. In memory that is not checked nothing happens.
impl GuestMem {
    /// From here on accesses of programs are checked. Call it before anything is allocated.
    pub fn check(&mut self) {
        self.shadow = Some(Box::new(Shadow::new()));
    }

    /// Whether accesses of programs are checked.
    #[inline]
    pub fn is_checked(&self) -> bool {
        self.shadow.is_some()
    }

    pub(crate) fn shadow_alloc(&mut self, addr: u64, size: u64) {
        if let Some(s) = &mut self.shadow {
            s.whole(addr, size);
        }
    }

    #[inline(always)]
    pub(crate) fn shadow_written(&mut self, addr: u64, len: u64) {
        if let Some(s) = &mut self.shadow
            && Area::Stack.has(addr)
        {
            s.written(addr, len);
        }
    }

    /// What was allocated at `addr` is a table of elements.
    pub fn divide(&mut self, addr: u64, elements: Elements) {
        if let Some(s) = &mut self.shadow
            && elements.stride > 0
        {
            s.set_kind(addr, Kind::Elements(elements));
            // Of the first that are always there executions soon have pointers: they find them known.
            if let (0, Some(region)) = (elements.key, s.region(addr)) {
                let all = (region.end - addr) / elements.stride;
                for nth in 0..all.min(FIRST_ELEMENTS) {
                    s.find(addr + nth * elements.stride + elements.value);
                }
            }
        }
    }

    /// What was allocated at `addr` holds records, each there only once it is
    /// [placed](GuestMem::place).
    pub fn hold_records(&mut self, addr: u64) {
        if let Some(s) = &mut self.shadow {
            s.set_kind(addr, Kind::Records);
        }
    }

    /// What was allocated at `addr`, [`STACK_SIZE`] bytes or more, is to be the stack of runs. Those
    /// that nobody said so of are found out when a run begins.
    pub fn hold_stack(&mut self, addr: u64) {
        if let Some(s) = &mut self.shadow {
            s.stack(addr);
        }
    }

    /// A record begins to exist.
    pub fn place(&mut self, addr: u64, size: u64) {
        let Some(s) = &mut self.shadow else { return };
        let index = match s.tables.by_base.get(addr) {
            Some(index) => {
                s.revive(index);
                index
            }
            None => {
                let index = s.add(addr, size, false);
                s.tables.by_base.add(addr, index);
                index
            }
        };
        s.tables.allocs.change(index as usize).size = size.min(u32::MAX as u64) as u32;
    }

    /// The element, record or allocation at `addr` is freed; pointers to it are stale.
    pub fn retire(&mut self, addr: u64) {
        if let Some(s) = &mut self.shadow {
            s.each_part(addr, Shadow::kill);
        }
    }

    /// The element or allocation at `addr` begins to exist, or is another one now.
    pub fn renew(&mut self, addr: u64) {
        if let Some(s) = &mut self.shadow {
            s.each_part(addr, Shadow::revive);
        }
    }

    /// True when what was allocated at `addr` has been freed and allocated again.
    pub fn is_reused(&self, addr: u64) -> bool {
        let generation =
            |s: &Shadow| Some(s.tables.allocs[s.tables.by_base.get(addr)? as usize].generation);
        let generation = self.shadow.as_ref().and_then(|s| generation(s));
        generation.is_some_and(|g| g > 1)
    }

    /// What was allocated at `addr` is freed once nobody looks at it any more, as elements of maps
    /// are: others may still do when it is [retired](GuestMem::retire).
    pub fn linger(&mut self, addr: u64) {
        if let Some(s) = &mut self.shadow {
            s.each_part(addr, |s, index| {
                s.tables.fates.change(index as usize).element = true
            });
        }
    }

    /// Of the allocation around `addr`, programs may have `len` bytes from `addr` on, by pointers
    /// made from here on.
    pub fn expose(&mut self, addr: u64, len: u64) {
        let Some(s) = &mut self.shadow else { return };
        if let Some(Region {
            kind: Kind::Whole(index),
            ..
        }) = s.region(addr)
        {
            s.revive(index);
            let a = s.tables.allocs.change(index as usize);
            (a.base, a.size) = (addr, len.min(u32::MAX as u64) as u32);
        }
    }

    /// Says who executes from here on; program and instruction are known once it makes a call.
    pub fn set_site(&mut self, ctx: u64, cpu: u32) {
        if let Some(s) = &mut self.shadow {
            s.set_site(ctx, cpu);
        }
    }

    /// Who makes the call that is being made.
    pub fn site(&self) -> Site {
        self.shadow
            .as_ref()
            .map_or(Site::default(), |s| s.rest.site)
    }

    /// There were accesses by stale pointers since the last time.
    pub fn has_stale(&self) -> bool {
        self.shadow
            .as_ref()
            .is_some_and(|s| !s.rest.stale.is_empty())
    }

    /// Accesses by stale pointers since the last time; the first of each instruction.
    pub fn take_stale(&mut self) -> Vec<Stale> {
        match &mut self.shadow {
            Some(s) if !s.rest.stale.is_empty() => std::mem::take(&mut s.rest.stale),
            _ => Vec::new(),
        }
    }

    /// Who freed what a [`FaultKind::UseAfterFree`] or [`FaultKind::StaleWrite`] is about.
    pub fn blamed(&self) -> Option<Site> {
        self.shadow.as_ref()?.rest.blamed
    }

    /// Checks memory that argument `n`, from 1, of the call being made points to. True when some
    /// bytes that are to be read were never written.
    ///
    /// # Errors
    /// What such an access by the program itself would be.
    #[inline]
    pub fn check_arg(
        &mut self,
        n: u8,
        addr: u64,
        len: u64,
        write: bool,
    ) -> Result<bool, FaultKind> {
        let Some(s) = &self.shadow else {
            return Ok(false);
        };
        if len == 0 || !near(addr) {
            return Ok(false);
        }
        let tag = s.rest.args.get(n as usize - 1).copied().unwrap_or_default();
        match write && fits(s, tag, addr, len) && !s.tables.fates[tag.index as usize].dead {
            true => Ok(false),
            false => self.judge_arg(n, addr, len, write),
        }
    }

    /// As [`GuestMem::check_arg`], where there is something to say.
    #[inline(never)]
    fn judge_arg(&mut self, n: u8, addr: u64, len: u64, write: bool) -> Result<bool, FaultKind> {
        let Some(s) = &mut self.shadow else {
            return Ok(false);
        };
        let mut tag = s.rest.args.get(n as usize - 1).copied().unwrap_or_default();
        if !fits(s, tag, addr, len) || s.tables.fates[tag.index as usize].dead {
            let place = (s.rest.site.prog, s.rest.site.pc);
            s.judge(&mut tag, place, (addr, len, write))?;
        }
        if write {
            return Ok(false);
        }
        match s.stack_around(addr) {
            None => Ok(false),
            Some(own) => match own.initialised(addr, len) {
                0 => Err(own.uninitialised(addr, len)),
                written => Ok(written < len),
            },
        }
    }
}
