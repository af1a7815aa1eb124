//! Linked lists and red-black trees of programs (`bpf_list_head`, `bpf_rb_root`).
//!
//! Programs see heads and nodes as opaque bytes, so that who is linked to whom need not be there:
//! it is kept here, by the addresses of heads and nodes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// All lists and trees.
#[derive(Clone, Default, Debug)]
pub(crate) struct Graph {
    lists: BTreeMap<u64, VecDeque<u64>>,
    /// Topmost node of each tree.
    roots: BTreeMap<u64, u64>,
    nodes: BTreeMap<u64, Link>,
}

/// Where a node is (`bpf_list_node_kern::owner`, `bpf_rb_node_kern`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link {
    /// The list's head or the tree's root; 0 for one that is gone, whose nodes nobody can link
    /// again.
    owner: u64,
    tree: Place,
}

/// A node's place in its tree; addresses of other nodes, or 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Place {
    parent: u64,
    child: [u64; 2],
    red: bool,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

impl Graph {
    /// Adds a node to the front or back of a list; false when it is in some list or tree already.
    pub fn push(&mut self, head: u64, node: u64, back: bool) -> bool {
        if self.nodes.contains_key(&node) {
            return false;
        }
        let link = Link {
            owner: head,
            tree: Place::default(),
        };
        self.nodes.insert(node, link);
        let list = self.lists.entry(head).or_default();
        match back {
            true => list.push_back(node),
            false => list.push_front(node),
        }
        true
    }

    /// Takes the first or last node out of a list; 0 when there is none.
    pub fn pop(&mut self, head: u64, back: bool) -> u64 {
        let list = self.lists.get_mut(&head);
        let node = list.and_then(|l| if back { l.pop_back() } else { l.pop_front() });
        node.map_or(0, |n| {
            self.nodes.remove(&n);
            n
        })
    }

    /// The first or last node of a list; 0 when there is none.
    pub fn peek(&self, head: u64, back: bool) -> u64 {
        let list = self.lists.get(&head);
        let node = list.and_then(|l| if back { l.back() } else { l.front() });
        node.copied().unwrap_or(0)
    }

    /// True when a node is in a list or tree, or was in one that is gone.
    pub fn is_linked(&self, node: u64) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Topmost node of a tree.
    pub fn root(&self, root: u64) -> u64 {
        self.roots.get(&root).copied().unwrap_or(0)
    }

    /// A node's left or right child; 0 for a node that is not in this tree.
    pub fn child(&self, root: u64, node: u64, right: bool) -> u64 {
        let link = self.nodes.get(&node).filter(|l| l.owner == root);
        link.map_or(0, |l| l.tree.child[right as usize])
    }

    /// The leftmost node of a tree.
    pub fn first(&self, root: u64) -> u64 {
        let mut at = self.root(root);
        while at != 0 && self.at(at).child[LEFT] != 0 {
            at = self.at(at).child[LEFT];
        }
        at
    }

    fn at(&self, node: u64) -> Place {
        self.nodes.get(&node).map_or(Place::default(), |l| l.tree)
    }

    fn set(&mut self, node: u64, change: impl FnOnce(&mut Place)) {
        if let Some(link) = self.nodes.get_mut(&node) {
            change(&mut link.tree);
        }
    }

    /// What hangs below `parent`, or the whole tree below 0, in `old`'s place.
    fn replace(&mut self, root: u64, parent: u64, old: u64, new: u64) {
        if parent == 0 {
            self.roots.insert(root, new);
            return;
        }
        self.set(parent, |p| {
            let side = (p.child[RIGHT] == old) as usize;
            p.child[side] = new;
        });
    }

    /// The child on the other side of `side` takes the node's place.
    fn rotate(&mut self, root: u64, node: u64, side: usize) {
        let up = self.at(node).child[1 - side];
        let inner = self.at(up).child[side];
        let parent = self.at(node).parent;
        self.set(node, |p| {
            p.child[1 - side] = inner;
            p.parent = up;
        });
        self.set(inner, |p| p.parent = node);
        self.set(up, |p| {
            p.child[side] = node;
            p.parent = parent;
        });
        self.replace(root, parent, node, up);
    }

    /// Links a node below another, or as the first of an empty tree, and balances
    /// (`rb_link_node`, `rb_insert_color`).
    pub fn insert(&mut self, root: u64, node: u64, parent: u64, right: bool) {
        let tree = Place {
            parent,
            child: [0, 0],
            red: true,
        };
        self.nodes.insert(node, Link { owner: root, tree });
        match parent {
            0 => drop(self.roots.insert(root, node)),
            _ => self.set(parent, |p| p.child[right as usize] = node),
        }
        let mut node = node;
        loop {
            let parent = self.at(node).parent;
            if parent == 0 {
                return self.set(node, |p| p.red = false);
            }
            if !self.at(parent).red {
                return;
            }
            let grand = self.at(parent).parent;
            let side = (self.at(grand).child[RIGHT] == parent) as usize;
            let uncle = self.at(grand).child[1 - side];
            if uncle != 0 && self.at(uncle).red {
                self.set(uncle, |p| p.red = false);
                self.set(parent, |p| p.red = false);
                self.set(grand, |p| p.red = true);
                node = grand;
                continue;
            }
            let mut parent = parent;
            if self.at(parent).child[1 - side] == node {
                self.rotate(root, parent, side);
                parent = node;
            }
            self.rotate(root, grand, 1 - side);
            self.set(parent, |p| p.red = false);
            return self.set(grand, |p| p.red = true);
        }
    }

    /// Takes a node out of a tree; false for one that is not in it (`rb_erase`).
    pub fn erase(&mut self, root: u64, node: u64) -> bool {
        if self.nodes.get(&node).is_none_or(|l| l.owner != root) || root == 0 {
            return false;
        }
        let gone = self.at(node);
        let [left, right] = gone.child;
        // What moves up, below whom, and whether a black node is missing there.
        let (moved, below, short) = if left == 0 || right == 0 {
            let moved = left | right;
            self.set(moved, |p| p.parent = gone.parent);
            self.replace(root, gone.parent, node, moved);
            (moved, gone.parent, !gone.red)
        } else {
            let mut next = right;
            while self.at(next).child[LEFT] != 0 {
                next = self.at(next).child[LEFT];
            }
            let was = self.at(next);
            let moved = was.child[RIGHT];
            let below = if was.parent == node { next } else { was.parent };
            if below != next {
                self.set(below, |p| p.child[LEFT] = moved);
                self.set(moved, |p| p.parent = below);
                self.set(right, |p| p.parent = next);
                self.set(next, |p| p.child[RIGHT] = right);
            }
            self.set(left, |p| p.parent = next);
            self.set(next, |p| {
                p.child[LEFT] = left;
                p.parent = gone.parent;
                p.red = gone.red;
            });
            self.replace(root, gone.parent, node, next);
            (moved, below, !was.red)
        };
        self.nodes.remove(&node);
        if short {
            self.rebalance(root, moved, below);
        }
        true
    }

    /// `____rb_erase_color`: the subtree of `node`, below `parent`, lacks a black node.
    fn rebalance(&mut self, root: u64, mut node: u64, mut parent: u64) {
        loop {
            if node != 0 && self.at(node).red || parent == 0 {
                return self.set(node, |p| p.red = false);
            }
            let side = (self.at(parent).child[LEFT] != node) as usize;
            let mut sibling = self.at(parent).child[1 - side];
            if self.at(sibling).red {
                self.rotate(root, parent, side);
                self.set(sibling, |p| p.red = false);
                self.set(parent, |p| p.red = true);
                sibling = self.at(parent).child[1 - side];
            }
            let red = |g: &Graph, n: u64| n != 0 && g.at(n).red;
            let (near, far) = {
                let p = self.at(sibling);
                (p.child[side], p.child[1 - side])
            };
            if !red(self, near) && !red(self, far) {
                self.set(sibling, |p| p.red = true);
                node = parent;
                parent = self.at(node).parent;
                continue;
            }
            if !red(self, far) {
                self.rotate(root, sibling, 1 - side);
                self.set(near, |p| p.red = false);
                self.set(sibling, |p| p.red = true);
                sibling = near;
            }
            let was_red = self.at(parent).red;
            self.rotate(root, parent, side);
            let far = self.at(sibling).child[1 - side];
            self.set(sibling, |p| p.red = was_red);
            self.set(parent, |p| p.red = false);
            return self.set(far, |p| p.red = false);
        }
    }

    /// The nodes of a list or tree that is gone. They stay linked to nothing, as in Linux.
    pub fn drain(&mut self, owner: u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.lists.remove(&owner).unwrap_or_default().into();
        let top = self.roots.remove(&owner).filter(|&n| n != 0);
        let mut down: Vec<u64> = top.into_iter().collect();
        while let Some(node) = down.pop() {
            all.push(node);
            down.extend(self.at(node).child.into_iter().filter(|&c| c != 0));
        }
        for node in &all {
            if let Some(link) = self.nodes.get_mut(node) {
                link.owner = 0;
            }
        }
        all
    }

    /// Memory is freed: nodes and heads in it are no more.
    pub fn forget(&mut self, range: Range<u64>) {
        let nodes: Vec<u64> = self.nodes.range(range.clone()).map(|(&n, _)| n).collect();
        for node in nodes {
            let owner = self.nodes[&node].owner;
            if let Some(list) = self.lists.get_mut(&owner) {
                list.retain(|&n| n != node);
            } else {
                self.erase(owner, node);
            }
            self.nodes.remove(&node);
        }
        let lists: Vec<u64> = self.lists.range(range.clone()).map(|(&h, _)| h).collect();
        let roots: Vec<u64> = self.roots.range(range).map(|(&h, _)| h).collect();
        for head in lists.into_iter().chain(roots) {
            self.drain(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u64 = 1 << 40;

    fn insert(g: &mut Graph, node: u64) {
        let (mut parent, mut at, mut right) = (0, g.root(ROOT), false);
        while at != 0 {
            right = node >= at;
            parent = at;
            at = g.child(ROOT, at, right);
        }
        g.insert(ROOT, node, parent, right);
    }

    /// Black height, when the rules of red-black trees hold and nodes are in order.
    fn check(g: &Graph, node: u64, range: Range<u64>) -> u32 {
        if node == 0 {
            return 1;
        }
        let p = g.at(node);
        assert!(range.contains(&node));
        for child in p.child.into_iter().filter(|&c| c != 0) {
            assert_eq!(g.at(child).parent, node);
            assert!(!(p.red && g.at(child).red));
        }
        let left = check(g, p.child[LEFT], range.start..node);
        assert_eq!(left, check(g, p.child[RIGHT], node + 1..range.end));
        left + !p.red as u32
    }

    #[test]
    fn trees_stay_balanced_and_in_order() {
        let mut g = Graph::default();
        let mut x = 1u64;
        let mut inside = std::collections::BTreeSet::new();
        for _ in 0..5_000 {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let node = (x >> 33) % 200 + 1;
            if inside.insert(node) {
                insert(&mut g, node);
            } else {
                inside.remove(&node);
                assert!(g.erase(ROOT, node));
                assert!(!g.erase(ROOT, node));
            }
            assert!(!g.at(g.root(ROOT)).red);
            check(&g, g.root(ROOT), 1..1 << 32);
            assert_eq!(g.first(ROOT), inside.first().copied().unwrap_or(0));
            assert_eq!(g.nodes.len(), inside.len());
        }
        assert_eq!(g.drain(ROOT).len(), inside.len());
        g.forget(0..1 << 32);
        assert!(g.nodes.is_empty());
    }

    #[test]
    fn a_node_is_in_one_list() {
        let mut g = Graph::default();
        assert!(g.push(8, 100, false) && g.push(8, 101, true) && g.push(8, 99, false));
        assert!(!g.push(16, 100, true));
        assert_eq!([g.peek(8, false), g.peek(8, true)], [99, 101]);
        assert_eq!(
            [g.pop(8, true), g.pop(8, false), g.pop(8, false)],
            [101, 99, 100]
        );
        assert_eq!(g.pop(8, false), 0);
        assert!(g.push(16, 100, true));
        g.forget(100..101);
        assert_eq!(g.pop(16, true), 0);
    }
}
