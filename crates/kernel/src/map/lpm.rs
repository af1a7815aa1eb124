//! `BPF_MAP_TYPE_LPM_TRIE`: longest prefix match, as in `kernel/bpf/lpm_trie.c` of 6.18.

use super::paged::Slab;
use super::{Cx, MapOps, MapSpec, update};
use bpfsim_abi::Errno;
use bpfsim_vm::{Elements, GuestMem};
use std::cmp::min;
use std::collections::VecDeque;

/// No node; others are numbered from 1.
const NONE: u32 = 0;

/// A node of the trie; key and value are in guest memory.
#[derive(Clone, Copy, Default)]
struct Node {
    child: [u32; 2],
    prefixlen: u32,
    /// Holds no element: it is only where its children part.
    intermediate: bool,
}

#[derive(Clone)]
pub(crate) struct Lpm {
    slab: Slab,
    nodes: Vec<Node>,
    /// Freed nodes. Linux frees them a grace period later: the oldest is taken first.
    free: VecDeque<u32>,
    root: u32,
    len: u32,
    max_entries: u32,
    /// Bytes of a key but for its prefix length.
    data: u32,
    value_at: u64,
}

/// Where a node hangs: a child of a node, or of none: the root.
type Edge = (u32, usize);

impl Lpm {
    pub fn create(spec: &MapSpec) -> Lpm {
        let data = spec.key_size - 4;
        let value_at = (data as u64 + 4).next_multiple_of(8);
        let each = (spec.value_size as u64).next_multiple_of(8);
        let elements = Elements {
            stride: value_at + each,
            key: data as u64 + 4,
            value: value_at,
            size: spec.value_size as u64,
            each,
        };
        Lpm {
            slab: Slab::new(elements, u32::MAX),
            nodes: vec![Node::default()],
            free: VecDeque::new(),
            root: NONE,
            len: 0,
            max_entries: spec.max_entries,
            data,
            value_at,
        }
    }

    fn max_prefixlen(&self) -> u32 {
        self.data * 8
    }

    fn node(&self, n: u32) -> Node {
        self.nodes[n as usize]
    }

    fn at(&self, (parent, side): Edge) -> u32 {
        match parent {
            NONE => self.root,
            _ => self.nodes[parent as usize].child[side],
        }
    }

    fn set(&mut self, (parent, side): Edge, to: u32) {
        match parent {
            NONE => self.root = to,
            _ => self.nodes[parent as usize].child[side] = to,
        }
    }

    /// A node's key in guest memory: prefix length, then data.
    fn key<'m>(&self, mem: &'m GuestMem, n: u32) -> &'m [u8] {
        mem.slice(self.slab.addr(n), self.data as u64 + 4)
            .unwrap_or(&[0; 4])
    }

    /// How many leading bits a node and a key share, at most as many as either has.
    fn matches(&self, mem: &GuestMem, n: u32, key: &[u8]) -> u32 {
        let limit = min(self.node(n).prefixlen, prefixlen(key));
        let mut bits = 0;
        for (a, b) in self.key(mem, n)[4..].iter().zip(&key[4..]) {
            let same = (a ^ b).leading_zeros();
            bits += same;
            if same < 8 || bits >= limit {
                break;
            }
        }
        min(bits, limit)
    }

    /// Goes down as long as nodes are prefixes of the key and shorter. Gives the edges gone
    /// over, the last of which leads to where the key is or would be, and the bits shared there.
    fn walk(&self, mem: &GuestMem, key: &[u8]) -> (Vec<Edge>, u32) {
        let mut edges = vec![(NONE, 0)];
        let mut shared = 0;
        loop {
            let n = self.at(edges[edges.len() - 1]);
            if n == NONE {
                return (edges, shared);
            }
            shared = self.matches(mem, n, key);
            let len = self.node(n).prefixlen;
            if len != shared || len == prefixlen(key) {
                return (edges, shared);
            }
            edges.push((n, bit(key, len)));
        }
    }

    fn alloc(&mut self, mem: &mut GuestMem, key: &[u8]) -> Result<u32, Errno> {
        // Whatever the limit on entries, numbers of nodes and their memory have one.
        let n = match self.free.pop_front() {
            Some(n) => {
                self.slab.make(mem, n)?;
                n
            }
            None => {
                let n = u32::try_from(self.nodes.len()).map_err(|_| Errno::ENOMEM)?;
                self.slab.make(mem, n)?;
                self.nodes.push(Node::default());
                n
            }
        };
        let to = mem.slice_mut(self.slab.addr(n), key.len() as u64);
        to.ok_or(Errno::ENOMEM)?.copy_from_slice(key);
        self.nodes[n as usize] = Node {
            prefixlen: prefixlen(key),
            ..Node::default()
        };
        Ok(n)
    }

    /// `trie_check_add_elem`
    fn add_one(&mut self, flags: u64) -> Result<(), Errno> {
        if flags == update::EXIST {
            return Err(Errno::ENOENT);
        }
        if self.len == self.max_entries {
            return Err(Errno::ENOSPC);
        }
        self.len += 1;
        Ok(())
    }

    /// Hangs a new node where [`Lpm::walk`] ended.
    fn insert(
        &mut self,
        mem: &mut GuestMem,
        new: u32,
        key: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let (edges, shared) = self.walk(mem, key);
        let edge = edges[edges.len() - 1];
        let old = self.at(edge);
        if old == NONE {
            self.add_one(flags)?;
            self.set(edge, new);
            return Ok(());
        }
        let there = self.node(old);
        if there.prefixlen == shared {
            if there.intermediate {
                self.add_one(flags)?;
            } else if flags == update::NOEXIST {
                return Err(Errno::EEXIST);
            }
            self.nodes[new as usize].child = there.child;
            self.set(edge, new);
            self.slab.retire(mem, old);
            self.free.push_back(old);
            return Ok(());
        }
        self.add_one(flags)?;
        let old_side = bit(self.key(mem, old), shared);
        if shared == prefixlen(key) {
            self.nodes[new as usize].child[old_side] = old;
            self.set(edge, new);
            return Ok(());
        }
        let mut common = self.key(mem, old).to_vec();
        common[..4].copy_from_slice(&shared.to_le_bytes());
        let fork = match self.alloc(mem, &common) {
            Ok(n) => n,
            Err(errno) => {
                self.len -= 1;
                return Err(errno);
            }
        };
        let node = &mut self.nodes[fork as usize];
        node.intermediate = true;
        node.child[old_side] = old;
        node.child[1 - old_side] = new;
        self.set(edge, fork);
        Ok(())
    }

    /// The node of exactly this key, and the edges to it.
    fn find(&self, mem: &GuestMem, key: &[u8]) -> Option<(u32, Vec<Edge>)> {
        let (edges, shared) = self.walk(mem, key);
        let n = self.at(edges[edges.len() - 1]);
        let node = self.node(n);
        let exact = n != NONE && node.prefixlen == prefixlen(key) && node.prefixlen == shared;
        (exact && !node.intermediate).then_some((n, edges))
    }

    /// The first element below a node in post-order.
    fn leftmost(&self, mut n: u32) -> Option<u32> {
        let mut found = None;
        while n != NONE {
            let node = self.node(n);
            if !node.intermediate {
                found = Some(n);
            }
            n = match node.child {
                [NONE, right] if !node.intermediate => right,
                [left, _] => left,
            };
        }
        found
    }

    /// The element after one in post-order: longer prefixes come before the shorter ones.
    fn following(&self, mut n: u32, edges: &[Edge]) -> Option<u32> {
        for &(parent, _) in edges.iter().rev() {
            if parent == NONE {
                return None;
            }
            let node = self.node(parent);
            if node.child[0] == n && node.child[1] != NONE {
                return self.leftmost(node.child[1]);
            }
            if !node.intermediate {
                return Some(parent);
            }
            n = parent;
        }
        None
    }
}

fn prefixlen(key: &[u8]) -> u32 {
    key.first_chunk().map_or(0, |&len| u32::from_le_bytes(len))
}

/// A bit of a key's data, the first being the highest of the first byte.
fn bit(key: &[u8], at: u32) -> usize {
    let byte = key.get(4 + at as usize / 8).copied().unwrap_or(0);
    (byte >> (7 - at % 8) & 1) as usize
}

impl MapOps for Lpm {
    fn lookup(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Option<u64> {
        if prefixlen(key) > self.max_prefixlen() {
            return None;
        }
        let (mut n, mut found) = (self.root, None);
        while n != NONE {
            let node = self.node(n);
            let shared = self.matches(cx.mem, n, key);
            if shared == self.max_prefixlen() {
                found = Some(n);
                break;
            }
            if shared < node.prefixlen {
                break;
            }
            if !node.intermediate {
                found = Some(n);
            }
            n = node.child[bit(key, node.prefixlen)];
        }
        found.map(|n| self.slab.addr(n) + self.value_at)
    }

    fn update(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        if flags > update::EXIST || prefixlen(key) > self.max_prefixlen() {
            return Err(Errno::EINVAL);
        }
        if cx.fails {
            return Err(Errno::ENOMEM);
        }
        let new = self.alloc(cx.mem, key)?;
        let at = self.slab.addr(new) + self.value_at;
        let filled = match cx.mem.slice_mut(at, value.len() as u64) {
            Some(to) => {
                to.copy_from_slice(value);
                self.insert(cx.mem, new, key, flags)
            }
            None => Err(Errno::ENOMEM),
        };
        if filled.is_err() {
            self.free.push_front(new);
        }
        filled
    }

    /// `trie_delete_elem`: no intermediate node is left with fewer than two children.
    fn delete(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<(), Errno> {
        if prefixlen(key) > self.max_prefixlen() {
            return Err(Errno::EINVAL);
        }
        let (n, edges) = self.find(cx.mem, key).ok_or(Errno::ENOENT)?;
        self.len -= 1;
        let [left, right] = self.node(n).child;
        if left != NONE && right != NONE {
            self.nodes[n as usize].intermediate = true;
            return Ok(());
        }
        let edge = edges[edges.len() - 1];
        let (parent, side) = edge;
        if parent != NONE && self.node(parent).intermediate && left == NONE && right == NONE {
            let other = self.node(parent).child[1 - side];
            self.set(edges[edges.len() - 2], other);
            self.free.push_back(parent);
        } else {
            self.set(edge, if left != NONE { left } else { right });
        }
        self.slab.retire(cx.mem, n);
        self.free.push_back(n);
        Ok(())
    }

    /// `trie_get_next_key`
    fn next_key(&self, mem: &GuestMem, _: &MapSpec, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        let exact = key
            .filter(|k| prefixlen(k) <= self.max_prefixlen())
            .and_then(|k| self.find(mem, k));
        let next = match exact {
            Some((n, edges)) => self.following(n, &edges),
            None => self.leftmost(self.root),
        };
        Ok(self.key(mem, next.ok_or(Errno::ENOENT)?).to_vec())
    }

    fn key_addr(&self, value_addr: u64) -> Option<u64> {
        self.slab.slot_of(value_addr).map(|n| self.slab.addr(n))
    }

    fn owns(&self, addr: u64) -> bool {
        self.slab.slot_of(addr).is_some()
    }

    fn value_around(&self, addr: u64) -> Option<u64> {
        let value = self.slab.addr(self.slab.slot_of(addr)?) + self.value_at;
        (addr >= value).then_some(value)
    }

    fn len(&self) -> u32 {
        self.len
    }

    fn values(&self) -> Vec<u64> {
        let mut all = Vec::new();
        let mut below = vec![self.root];
        while let Some(n) = below.pop().filter(|&n| n != NONE) {
            if !self.node(n).intermediate {
                all.push(self.slab.addr(n) + self.value_at);
            }
            below.extend(self.node(n).child.iter().filter(|&&c| c != NONE));
        }
        all
    }
}
