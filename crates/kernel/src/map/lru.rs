//! Which element an LRU map gives up: `kernel/bpf/bpf_lru_list.c` of 6.18.
//!
//! Usually there is one LRU list of three parts (active, inactive, free) for all CPUs, and each
//! CPU has a free and a pending list of its own, so that the common one is touched once in a
//! batch of elements. With `BPF_F_NO_COMMON_LRU` each CPU has an LRU list of its own instead.

use super::paged::Paged;

/// `LOCAL_FREE_TARGET`, also `LOCAL_NR_SCANS`.
const LOCAL_TARGET: u32 = 128;
/// `PERCPU_FREE_TARGET`, also `PERCPU_NR_SCANS`.
const PERCPU_TARGET: u32 = 4;

/// Where a node is (`enum bpf_lru_list_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Active,
    Inactive,
    Free,
    LocalFree,
    LocalPending,
}

/// Nodes are slots of the map; ids from here on are list heads.
const HEADS: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Links {
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    links: Links,
    cpu: u32,
    kind: Kind,
    /// Used since it was looked at last (`bpf_lru_node.ref`).
    referenced: bool,
}

/// An LRU list (`struct bpf_lru_list`), of which there is one, or one for each CPU.
#[derive(Clone, Debug)]
struct List {
    active: u32,
    inactive: u32,
    free: u32,
    /// Nodes never used so far: those that come last in the free list, in falling order.
    fresh: (u32, u32),
    n_active: u32,
    n_inactive: u32,
    /// `next_inactive_rotation`
    rotation: u32,
}

/// A CPU's own lists (`struct bpf_lru_locallist`).
#[derive(Clone, Debug)]
struct Local {
    free: u32,
    pending: u32,
    next_steal: usize,
}

/// The lists of a map (`struct bpf_lru`).
#[derive(Clone, Debug)]
pub(crate) struct Lru {
    nodes: Paged<Node>,
    heads: Vec<Links>,
    lists: Vec<List>,
    /// Empty with `BPF_F_NO_COMMON_LRU`.
    locals: Vec<Local>,
    target_free: u32,
}

/// Takes a node's element out of the map; false where it is not in it.
type Evict<'a> = dyn FnMut(u32) -> bool + 'a;

impl Lru {
    /// Lists of `entries` nodes, all free (`bpf_lru_init`, `bpf_lru_populate`).
    pub fn new(entries: u32, cpus: u32, per_cpu: bool) -> Lru {
        let none = Node {
            links: Links { prev: 0, next: 0 },
            cpu: 0,
            kind: Kind::Free,
            referenced: false,
        };
        let mut lru = Lru {
            nodes: Paged::new(none),
            heads: Vec::new(),
            lists: Vec::new(),
            locals: Vec::new(),
            target_free: (entries / cpus / 2).clamp(1, LOCAL_TARGET),
        };
        if per_cpu {
            let each = entries / cpus;
            for cpu in 0..cpus {
                lru.add_list((cpu * each, (cpu + 1) * each));
            }
        } else {
            lru.add_list((0, entries));
            for cpu in 0..cpus as usize {
                let (free, pending) = (lru.add_head(), lru.add_head());
                lru.locals.push(Local {
                    free,
                    pending,
                    next_steal: cpu,
                });
            }
        }
        lru
    }

    fn add_head(&mut self) -> u32 {
        let id = HEADS + self.heads.len() as u32;
        self.heads.push(Links { prev: id, next: id });
        id
    }

    fn add_list(&mut self, fresh: (u32, u32)) {
        let (active, inactive, free) = (self.add_head(), self.add_head(), self.add_head());
        self.lists.push(List {
            active,
            inactive,
            free,
            fresh,
            n_active: 0,
            n_inactive: 0,
            rotation: inactive,
        });
    }

    /// A look-up by a program, or an update of an existing key (`bpf_lru_node_set_ref`).
    pub fn set_ref(&mut self, node: u32) {
        self.nodes.at_mut(node).referenced = true;
    }

    /// A node for a new element (`bpf_lru_pop_free`).
    pub fn pop(&mut self, cpu: usize, evict: &mut Evict<'_>) -> Option<u32> {
        if self.locals.is_empty() {
            self.pop_percpu(cpu, evict)
        } else {
            self.pop_common(cpu, evict)
        }
    }

    /// Takes a node back (`bpf_lru_push_free`).
    pub fn push(&mut self, node: u32) {
        let n = self.nodes.get(node);
        match n.kind {
            Kind::LocalPending => {
                let free = self.locals[n.cpu as usize].free;
                let n = self.nodes.at_mut(node);
                (n.kind, n.referenced) = (Kind::LocalFree, false);
                self.move_to(node, free);
            }
            Kind::LocalFree | Kind::Free => {}
            Kind::Active | Kind::Inactive => {
                let list = if self.locals.is_empty() {
                    n.cpu as usize
                } else {
                    0
                };
                self.shift(list, node, Kind::Free);
            }
        }
    }

    fn pop_percpu(&mut self, cpu: usize, evict: &mut Evict<'_>) -> Option<u32> {
        self.rotate(cpu, PERCPU_TARGET);
        let free = self.lists[cpu].free;
        if self.first_free(cpu).is_none() {
            self.shrink(cpu, PERCPU_TARGET, PERCPU_TARGET, (free, Kind::Free), evict);
        }
        let node = self.first_free(cpu)?;
        self.unfresh(cpu, node);
        self.nodes.at_mut(node).cpu = cpu as u32;
        self.shift(cpu, node, Kind::Inactive);
        Some(node)
    }

    fn pop_common(&mut self, cpu: usize, evict: &mut Evict<'_>) -> Option<u32> {
        let mut node = self.pop_local_free(cpu);
        if node.is_none() {
            self.refill(cpu, evict);
            node = self.pop_local_free(cpu);
        }
        if node.is_none() {
            node = self.steal(cpu, evict);
        }
        let node = node?;
        let pending = self.locals[cpu].pending;
        *self.nodes.at_mut(node) = Node {
            links: Links {
                prev: node,
                next: node,
            },
            cpu: cpu as u32,
            kind: Kind::LocalPending,
            referenced: false,
        };
        self.add(node, pending);
        Some(node)
    }

    /// From the CPUs' own lists, this CPU's among them, beginning where the last theft ended.
    fn steal(&mut self, cpu: usize, evict: &mut Evict<'_>) -> Option<u32> {
        let first = self.locals[cpu].next_steal;
        let mut from = first;
        loop {
            let node = self
                .pop_local_free(from)
                .or_else(|| self.pop_pending(from, evict));
            from = (from + 1) % self.locals.len();
            if node.is_some() || from == first {
                self.locals[cpu].next_steal = from;
                return node;
            }
        }
    }

    fn pop_local_free(&mut self, cpu: usize) -> Option<u32> {
        let head = self.locals[cpu].free;
        let node = Some(self.links(head).next).filter(|&n| n != head)?;
        self.remove(node);
        Some(node)
    }

    /// The oldest pending node, rather one that was not used since.
    fn pop_pending(&mut self, cpu: usize, evict: &mut Evict<'_>) -> Option<u32> {
        let head = self.locals[cpu].pending;
        for force in [false, true] {
            let mut at = self.links(head).prev;
            while at != head {
                if (force || !self.nodes.get(at).referenced) && evict(at) {
                    self.remove(at);
                    return Some(at);
                }
                at = self.links(at).prev;
            }
        }
        None
    }

    /// `bpf_lru_list_pop_free_to_local`: flushes this CPU's pending nodes to the common list and
    /// takes a batch of free ones.
    fn refill(&mut self, cpu: usize, evict: &mut Evict<'_>) {
        let pending = self.locals[cpu].pending;
        let mut at = self.links(pending).prev;
        while at != pending {
            let before = self.links(at).prev;
            let kind = if self.nodes.get(at).referenced {
                Kind::Active
            } else {
                Kind::Inactive
            };
            self.count(0, kind, 1);
            let n = self.nodes.at_mut(at);
            (n.kind, n.referenced) = (kind, false);
            let head = self.head(0, kind);
            self.move_to(at, head);
            at = before;
        }
        self.rotate(0, LOCAL_TARGET);
        let to = (self.locals[cpu].free, Kind::LocalFree);
        let mut taken = 0;
        while taken < self.target_free {
            let Some(node) = self.first_free(0) else {
                break;
            };
            self.unfresh(0, node);
            self.retire(0, node, to);
            taken += 1;
        }
        if taken < self.target_free {
            self.shrink(0, self.target_free - taken, LOCAL_TARGET, to, evict);
        }
    }

    fn first_free(&self, list: usize) -> Option<u32> {
        let l = &self.lists[list];
        let first = self.links(l.free).next;
        if first != l.free {
            return Some(first);
        }
        let (start, end) = l.fresh;
        (start < end).then(|| end - 1)
    }

    /// The node that [`Lru::first_free`] gave is used from now on: gives it links.
    fn unfresh(&mut self, list: usize, node: u32) {
        let l = &mut self.lists[list];
        if l.fresh.0 < l.fresh.1 && node == l.fresh.1 - 1 {
            l.fresh.1 -= 1;
            let links = Links {
                prev: node,
                next: node,
            };
            self.nodes.at_mut(node).links = links;
        }
    }

    /// `__bpf_lru_list_rotate`
    fn rotate(&mut self, list: usize, scans: u32) {
        let l = &self.lists[list];
        if l.n_inactive < l.n_active {
            self.rotate_active(list, scans);
        }
        self.rotate_inactive(list, scans);
    }

    fn rotate_active(&mut self, list: usize, scans: u32) {
        let head = self.lists[list].active;
        let first = self.links(head).next;
        let mut at = self.links(head).prev;
        for _ in 0..scans {
            if at == head {
                break;
            }
            let before = self.links(at).prev;
            let kind = if self.nodes.get(at).referenced {
                Kind::Active
            } else {
                Kind::Inactive
            };
            self.shift(list, at, kind);
            if at == first {
                break;
            }
            at = before;
        }
    }

    fn rotate_inactive(&mut self, list: usize, scans: u32) {
        let head = self.lists[list].inactive;
        if self.links(head).next == head {
            return;
        }
        let mut at = self.lists[list].rotation;
        let mut last = self.links(at).next;
        if last == head {
            last = self.links(last).next;
        }
        let mut next = head;
        let mut i = 0;
        while i < scans {
            if at == head {
                at = self.links(at).prev;
                continue;
            }
            next = self.links(at).prev;
            if self.nodes.get(at).referenced {
                self.shift(list, at, Kind::Active);
            }
            if at == last {
                break;
            }
            at = next;
            i += 1;
        }
        self.lists[list].rotation = next;
    }

    /// `__bpf_lru_list_shrink`: evicts up to `target` inactive nodes, or else one node whatever
    /// its reference says.
    fn shrink(
        &mut self,
        list: usize,
        target: u32,
        scans: u32,
        to: (u32, Kind),
        evict: &mut Evict<'_>,
    ) {
        if self.shrink_inactive(list, target, scans, to, evict) > 0 {
            return;
        }
        let l = &self.lists[list];
        let head = if self.links(l.inactive).next != l.inactive {
            l.inactive
        } else {
            l.active
        };
        let mut at = self.links(head).prev;
        while at != head {
            let before = self.links(at).prev;
            if evict(at) {
                return self.retire(list, at, to);
            }
            at = before;
        }
    }

    fn shrink_inactive(
        &mut self,
        list: usize,
        target: u32,
        scans: u32,
        to: (u32, Kind),
        evict: &mut Evict<'_>,
    ) -> u32 {
        let head = self.lists[list].inactive;
        let mut at = self.links(head).prev;
        let mut shrunk = 0;
        for _ in 0..scans {
            if at == head {
                break;
            }
            let before = self.links(at).prev;
            if self.nodes.get(at).referenced {
                self.shift(list, at, Kind::Active);
            } else if evict(at) {
                self.retire(list, at, to);
                shrunk += 1;
                if shrunk == target {
                    break;
                }
            }
            at = before;
        }
        shrunk
    }

    /// `__bpf_lru_node_move`: within one LRU list, to the head of one of its parts.
    fn shift(&mut self, list: usize, node: u32, kind: Kind) {
        let was = self.nodes.get(node).kind;
        if was != kind {
            self.count(list, was, -1);
            self.count(list, kind, 1);
        }
        let n = self.nodes.at_mut(node);
        (n.kind, n.referenced) = (kind, false);
        self.leave_rotation(list, node);
        let head = self.head(list, kind);
        self.move_to(node, head);
    }

    /// `__bpf_lru_node_move_to_free`
    fn retire(&mut self, list: usize, node: u32, (head, kind): (u32, Kind)) {
        self.leave_rotation(list, node);
        self.count(list, self.nodes.get(node).kind, -1);
        self.nodes.at_mut(node).kind = kind;
        self.move_to(node, head);
    }

    fn leave_rotation(&mut self, list: usize, node: u32) {
        if self.lists[list].rotation == node {
            self.lists[list].rotation = self.links(node).prev;
        }
    }

    fn head(&self, list: usize, kind: Kind) -> u32 {
        let l = &self.lists[list];
        match kind {
            Kind::Active => l.active,
            Kind::Inactive => l.inactive,
            _ => l.free,
        }
    }

    fn count(&mut self, list: usize, kind: Kind, by: i32) {
        let l = &mut self.lists[list];
        match kind {
            Kind::Active => l.n_active = l.n_active.wrapping_add_signed(by),
            Kind::Inactive => l.n_inactive = l.n_inactive.wrapping_add_signed(by),
            _ => {}
        }
    }

    fn links(&self, id: u32) -> Links {
        match id.checked_sub(HEADS) {
            Some(head) => self.heads[head as usize],
            None => self.nodes.get(id).links,
        }
    }

    fn links_mut(&mut self, id: u32) -> &mut Links {
        match id.checked_sub(HEADS) {
            Some(head) => &mut self.heads[head as usize],
            None => &mut self.nodes.at_mut(id).links,
        }
    }

    /// `list_del`; the node is then a list of its own.
    fn remove(&mut self, node: u32) {
        let Links { prev, next } = self.links(node);
        self.links_mut(prev).next = next;
        self.links_mut(next).prev = prev;
        *self.links_mut(node) = Links {
            prev: node,
            next: node,
        };
    }

    /// `list_add`: behind the head.
    fn add(&mut self, node: u32, head: u32) {
        let first = self.links(head).next;
        *self.links_mut(node) = Links {
            prev: head,
            next: first,
        };
        self.links_mut(first).prev = node;
        self.links_mut(head).next = node;
    }

    fn move_to(&mut self, node: u32, head: u32) {
        self.remove(node);
        self.add(node, head);
    }
}
