//! Objects that programs allocate, and the lists and trees that they put them in.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, begin_rb_add, ret};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_obj_new_impl", false, |st, mem, a| {
        obj_new(st, mem, a, false)
    }),
    row("bpf_percpu_obj_new_impl", false, |st, mem, a| {
        obj_new(st, mem, a, true)
    }),
    row("bpf_obj_drop_impl", true, obj_drop),
    row("bpf_percpu_obj_drop_impl", true, obj_drop),
    row("bpf_refcount_acquire_impl", true, |st, _, a| {
        st.obj_acquire(a.r[0]).map_or_else(|| a.bad(1), value)
    }),
    row("bpf_list_push_front_impl", true, |st, mem, a| {
        list_push(st, mem, a, false)
    }),
    row("bpf_list_push_back_impl", true, |st, mem, a| {
        list_push(st, mem, a, true)
    }),
    row("bpf_list_pop_front", true, |st, _, a| {
        value(st.objects.graph.pop(a.r[0], false))
    }),
    row("bpf_list_pop_back", true, |st, _, a| {
        value(st.objects.graph.pop(a.r[0], true))
    }),
    row("bpf_list_front", true, |st, _, a| {
        value(st.objects.graph.peek(a.r[0], false))
    }),
    row("bpf_list_back", true, |st, _, a| {
        value(st.objects.graph.peek(a.r[0], true))
    }),
    row("bpf_rbtree_add_impl", true, rbtree_add),
    row("bpf_rbtree_remove", true, |st, _, a| {
        let gone = st.objects.graph.erase(a.r[0], a.r[1]);
        value(if gone { a.r[1] } else { 0 })
    }),
    row("bpf_rbtree_first", true, |st, _, a| {
        value(st.objects.graph.first(a.r[0]))
    }),
    row("bpf_rbtree_root", true, |st, _, a| {
        value(st.objects.graph.root(a.r[0]))
    }),
    row("bpf_rbtree_left", true, |st, _, a| {
        value(st.objects.graph.child(a.r[0], a.r[1], false))
    }),
    row("bpf_rbtree_right", true, |st, _, a| {
        value(st.objects.graph.child(a.r[0], a.r[1], true))
    }),
];

fn value(value: u64) -> Arg<Flow> {
    Ok(Flow::Done(value))
}

/// `bpf_obj_new_impl`, `bpf_percpu_obj_new_impl`
fn obj_new(st: &mut State, mem: &mut GuestMem, a: &Args, percpu: bool) -> Arg<Flow> {
    let made = st.obj_new(mem, a.r[0], percpu);
    made.map_or_else(|| a.bad(1), value)
}

/// `bpf_obj_drop_impl`, `bpf_percpu_obj_drop_impl`
fn obj_drop(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let dropped = st.obj_drop(mem, a.r[0]);
    dropped.map_or_else(|| a.bad(1), |()| value(0))
}

/// The object that a node lies in. A node that is linked elsewhere costs its object the reference
/// that was to be given to the list: `EINVAL`.
fn node(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Result<u64, Errno>> {
    let node = a.r[1];
    let Some((object, _)) = st.objects.around(node) else {
        return a.bad(2);
    };
    if st.objects.graph.is_linked(node) {
        st.obj_drop(mem, object);
        return Ok(Err(Errno::EINVAL));
    }
    Ok(Ok(node))
}

/// `bpf_list_push_front_impl(head, node, meta, off)` and its like.
fn list_push(st: &mut State, mem: &mut GuestMem, a: &Args, back: bool) -> Arg<Flow> {
    let result = node(st, mem, a)?;
    let result = result.map(|node| st.objects.graph.push(a.r[0], node, back));
    value(ret(result.map(|_| 0)))
}

/// `bpf_rbtree_add_impl(root, node, less, meta, off)`
fn rbtree_add(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    match node(st, mem, a)? {
        Ok(node) => begin_rb_add(st, mem, a, node),
        Err(errno) => value(ret(Err(errno))),
    }
}
