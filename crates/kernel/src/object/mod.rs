//! Objects that programs hold by pointer: what they allocate (`bpf_obj_new`, cpumasks) and what
//! they keep in kptrs, lists and trees.
//!
//! An object's bytes are in guest memory; that it lives, what it is and how many references there
//! are to it is the kernel's own, by address: a pointer that comes from a program counts only when
//! an object lives there.

pub(crate) mod graph;

use crate::asynch::Handle;
use crate::field::Fields;
use crate::ids::{Cpu, MapId, TaskId};
use crate::kernel::Kernel;
use crate::kfunc::crypto::Cipher;
use crate::state::State;
use crate::user_mem::Protection;
use bpfsim_btf::fields::{FieldKind, FieldMask, parse_fields_in};
use bpfsim_btf::{Btf, TypeId};
use bpfsim_vm::{Area, GuestMem};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Sizes that `bpf_mem_alloc` has caches for; each holds a list node of 8 bytes besides.
const CLASSES: [u32; 11] = [16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096];
/// `LLIST_NODE_SZ`
const NODE: u32 = 8;
/// Largest per-CPU object (`BPF_GLOBAL_PERCPU_MA_MAX_SIZE`).
const MAX_PERCPU: u32 = 512;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ObjectKind {
    /// A struct of a program: its number in [`Objects::types`].
    Struct(u32),
    /// `struct bpf_cpumask`
    Cpumask,
    /// `struct bpf_crypto_ctx`: its cipher is in [`Objects::ciphers`].
    Crypto,
    /// `struct nf_conn`: a connection of the world.
    Conn,
    /// Memory that the kernel itself uses: storage of a run, the state of an iterator.
    Buffer,
}

/// A live object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub kind: ObjectKind,
    /// There is one for each CPU, `stride` bytes apart; 0 for others.
    pub stride: u32,
    pub refs: u32,
    copies: u32,
    /// Bytes of memory.
    room: u32,
}

/// A struct that programs allocate, and its special fields.
#[derive(Clone)]
pub(crate) struct LocalType {
    btf: Arc<Btf>,
    id: TypeId,
    size: u32,
    fields: Arc<Fields>,
}

/// All objects, and the memory of those that were freed.
#[derive(Clone, Default)]
pub(crate) struct Objects {
    pub live: BTreeMap<u64, Object>,
    pub types: Vec<LocalType>,
    /// Free memory by CPU and size, taken from the end.
    free: BTreeMap<(u32, u32), Vec<u64>>,
    /// Freed memory that waits for programs to end which may still read it (`bpf_mem_free_rcu`).
    waiting: Vec<(u32, u32, u64)>,
    pub graph: graph::Graph,
    /// `sizeof(struct bpf_cpumask)`
    pub cpumask_size: u32,
    pub vma: VmaLayout,
    pub crypto: CryptoLayout,
    /// By address; programs may use those that wait for readers.
    ciphers: BTreeMap<u64, Arc<Cipher>>,
}

/// `struct bpf_crypto_ctx`
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct CryptoLayout {
    pub size: u32,
    pub siv_len: u32,
}

/// `struct vm_area_struct`: its size, and where members are that bpfsim fills in.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct VmaLayout {
    pub size: u32,
    start: u32,
    end: u32,
    flags: u32,
}

impl Objects {
    /// No program executes: what was freed can be used again.
    pub fn grace_period(&mut self) {
        for (cpu, class, addr) in self.waiting.drain(..) {
            self.ciphers.remove(&addr);
            self.free.entry((cpu, class)).or_default().push(addr);
        }
    }

    /// Some wait for readers.
    pub fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Memory for an object; none when it is used up.
    pub fn alloc(
        &mut self,
        mem: &mut GuestMem,
        cpu: Cpu,
        kind: ObjectKind,
        size: u32,
        copies: u32,
    ) -> Option<u64> {
        let class = match kind {
            ObjectKind::Buffer => size.next_multiple_of(64),
            _ => *CLASSES.iter().find(|&&c| size.saturating_add(NODE) <= c)?,
        };
        let stride = if copies > 1 {
            size.next_multiple_of(8)
        } else {
            0
        };
        let total = class.checked_mul(copies)?;
        let list = self.free.get_mut(&(cpu.0, total)).and_then(Vec::pop);
        let addr = match list {
            Some(addr) => {
                mem.renew(addr);
                addr
            }
            None => {
                let addr = mem.alloc(Area::Shared, total as u64, 8).ok()?;
                mem.linger(addr);
                addr
            }
        };
        mem.expose(addr, if copies > 1 { total } else { size } as u64);
        let object = Object {
            kind,
            stride,
            refs: 1,
            copies,
            room: total,
        };
        self.live.insert(addr, object);
        Some(addr)
    }

    /// The cipher of a `struct bpf_crypto_ctx`.
    pub fn cipher(&self, addr: u64) -> Option<&Arc<Cipher>> {
        self.ciphers.get(&addr)
    }

    pub fn set_cipher(&mut self, addr: u64, cipher: Cipher) {
        self.ciphers.insert(addr, Arc::new(cipher));
    }

    /// True for memory that [`State::buffer`] gave.
    pub fn is_buffer(&self, addr: u64) -> bool {
        let object = self.live.get(&addr);
        object.is_some_and(|o| o.kind == ObjectKind::Buffer)
    }

    /// The object that an address lies in.
    pub fn around(&self, addr: u64) -> Option<(u64, &Object)> {
        let (&at, object) = self.live.range(..=addr).next_back()?;
        (addr - at < object.room as u64).then_some((at, object))
    }

    /// The object's memory goes to whoever allocates next, once no program can have it.
    pub fn free(&mut self, mem: &mut GuestMem, cpu: Cpu, addr: u64) {
        if let Some(object) = self.live.remove(&addr) {
            mem.retire(addr);
            self.graph.forget(addr..addr + object.room as u64);
            self.waiting.push((cpu.0, object.room, addr));
        }
    }

    /// The number of a struct of a program.
    fn local_type(&mut self, btf: &Arc<Btf>, id: TypeId) -> Option<u32> {
        let known = |t: &LocalType| t.id == id && Arc::ptr_eq(&t.btf, btf);
        if let Some(n) = self.types.iter().position(known) {
            return Some(n as u32);
        }
        btf.ty(id)?.composite()?;
        let size = btf.size_of(id).ok()?;
        let fields = parse_fields_in(btf, id, FieldMask::ALLOCATED, None).unwrap_or_default();
        self.types.push(LocalType {
            btf: Arc::clone(btf),
            id,
            size,
            fields: Arc::new(Fields::new(&fields)),
        });
        Some(self.types.len() as u32 - 1)
    }

    fn fields(&self, kind: ObjectKind) -> Arc<Fields> {
        match kind {
            ObjectKind::Struct(n) => Arc::clone(&self.types[n as usize].fields),
            _ => Arc::default(),
        }
    }
}

impl Kernel {
    /// Learns from the kernel's types how large its objects are.
    pub(crate) fn lay_out_objects(&mut self) {
        let at = |member| self.layouts.member("vm_area_struct", member).unwrap_or(0) as u32;
        let vma = VmaLayout {
            size: self.layouts.size_of("vm_area_struct") as u32,
            start: at("vm_start"),
            end: at("vm_end"),
            flags: at("vm_flags"),
        };
        self.st.objects.cpumask_size = self.layouts.size_of("bpf_cpumask") as u32;
        self.st.objects.vma = vma;
        self.st.objects.crypto = CryptoLayout {
            size: self.layouts.size_of("bpf_crypto_ctx") as u32,
            siv_len: self
                .layouts
                .member("bpf_crypto_ctx", "siv_len")
                .unwrap_or(0) as u32,
        };
    }
}

impl State {
    /// Memory for the kernel's own use, to be given back by [`State::obj_drop`].
    pub fn buffer(&mut self, mem: &mut GuestMem, size: u32) -> Option<u64> {
        let cpu = self.cur.cpu;
        self.objects.alloc(mem, cpu, ObjectKind::Buffer, size, 1)
    }

    /// Writes a `struct vm_area_struct`.
    pub fn fill_vma(&self, mem: &mut GuestMem, at: u64, area: &Range<u64>, may: Protection) {
        // `VM_MAYREAD | VM_MAYWRITE`, and `VM_READ`, `VM_WRITE` before them.
        let flags = 0x30
            | match may {
                Protection::None => 0,
                Protection::Read => 1,
                Protection::ReadWrite => 3,
            };
        let vma = self.objects.vma;
        mem.write_u64(at + vma.start as u64, area.start);
        mem.write_u64(at + vma.end as u64, area.end);
        mem.write_u64(at + vma.flags as u64, flags);
    }

    /// `bpf_obj_new`, and with `percpu` `bpf_percpu_obj_new`: the address or 0. `None` for a type
    /// that is no struct.
    pub fn obj_new(&mut self, mem: &mut GuestMem, id: u64, percpu: bool) -> Option<u64> {
        let btf = self.progs[self.cur.prog.at()].btf.clone()?;
        let id = TypeId(u32::try_from(id).ok()?);
        let number = self.objects.local_type(&btf, id)?;
        let size = self.objects.types[number as usize].size;
        let copies = if percpu { self.cpus.len() as u32 } else { 1 };
        if percpu && size > MAX_PERCPU {
            return Some(0);
        }
        let kind = ObjectKind::Struct(number);
        let made = self.objects.alloc(mem, self.cur.cpu, kind, size, copies);
        let Some(addr) = made else {
            return Some(0);
        };
        // What is recycled is not cleared, but for its special fields (`bpf_obj_init`).
        let fields = self.objects.fields(kind);
        for range in fields.ranges() {
            let len = (range.end - range.start) as u64;
            if let Some(bytes) = mem.slice_mut(addr + range.start as u64, len) {
                bytes.fill(0);
            }
        }
        Some(addr)
    }

    /// `bpf_refcount_acquire`: the object again. `None` where none lives.
    pub fn obj_acquire(&mut self, addr: u64) -> Option<u64> {
        let object = self.objects.live.get_mut(&addr)?;
        object.refs += 1;
        Some(addr)
    }

    /// `bpf_obj_drop`, `bpf_cpumask_release`: the last reference frees what the object holds, then
    /// the object. `None` where none lives.
    ///
    /// What an object holds may hold more: they are taken one after another, not by recursion.
    pub fn obj_drop(&mut self, mem: &mut GuestMem, addr: u64) -> Option<()> {
        self.objects.live.get(&addr)?;
        let mut todo = vec![addr];
        while let Some(addr) = todo.pop() {
            self.put(mem, addr, &mut todo);
        }
        Some(())
    }

    /// A pointer that an owner gives up: a kptr, a node.
    fn put(&mut self, mem: &mut GuestMem, addr: u64, more: &mut Vec<u64>) {
        if let Some(object) = self.objects.live.get_mut(&addr) {
            object.refs -= 1;
            if object.refs == 0 {
                let (kind, copies) = (object.kind, object.copies as u64);
                let stride = object.stride as u64;
                let fields = self.objects.fields(kind);
                for copy in 0..copies {
                    self.free_owned(mem, &fields, addr + copy * stride, more);
                }
                self.objects.free(mem, self.cur.cpu, addr);
            }
            return;
        }
        if let Some(task) = self.tasks.iter().position(|t| t.addr == addr) {
            self.task_release(TaskId(task as u32));
        }
    }

    /// `bpf_obj_free_fields` for what a value owns: pointers, lists, trees. What these held joins
    /// `more`.
    fn free_owned(&mut self, mem: &mut GuestMem, fields: &Fields, at: u64, more: &mut Vec<u64>) {
        for (kind, range) in fields.iter() {
            let field = at + range.start as u64;
            match kind {
                FieldKind::KptrRef | FieldKind::KptrPercpu | FieldKind::KptrUnref => {
                    let held = mem.read_u64(field).unwrap_or(0);
                    mem.write_u64(field, 0);
                    if held != 0 && kind != FieldKind::KptrUnref {
                        more.push(held);
                    }
                }
                FieldKind::ListHead | FieldKind::RbRoot => {
                    for node in self.objects.graph.drain(field) {
                        if let Some((object, _)) = self.objects.around(node) {
                            more.push(object);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// What a value of a map owns is given up: the element is out of use.
    pub fn free_owned_by(&mut self, mem: &mut GuestMem, map: MapId, value: u64) {
        let fields = &self.maps[map.at()].fields;
        if !fields.owns() {
            return;
        }
        let fields = fields.clone();
        let mut todo = Vec::new();
        self.free_owned(mem, &fields, value, &mut todo);
        while let Some(addr) = todo.pop() {
            self.put(mem, addr, &mut todo);
        }
    }

    /// `bpf_obj_free_fields`: what a value owns, then what it has armed. Returns a timer whose
    /// callback runs on another CPU, when the caller must wait for it.
    pub fn free_fields(&mut self, mem: &mut GuestMem, map: MapId, value: u64) -> Option<Handle> {
        // Maybe in the last step of many of an update.
        self.touch_map(map);
        self.free_owned_by(mem, map, value);
        self.free_armed(mem, map, value)
    }
}
