//! References, locks, sections, timers and their like, kptrs, dynptrs, iterators.

super::rules! {
    "every reference that was acquired is given back, or stored, before the program ends, on every way out",
    "call the matching release (such as bpf_sk_release, bpf_ringbuf_submit or _discard, bpf_obj_drop) on each branch, early returns included" => {
        EINVAL "Unreleased reference id={id} alloc_insn={alloc_insn}";
        also "{what} would lead to reference leak";
    }
    "locks and sections that were entered are left before the function ends, and before calls that leave it",
    "unlock on every branch, early returns included; take and give a lock back in the same function" => {
        EINVAL "{what} cannot be used inside bpf_spin_lock-ed region";
        EINVAL "{what} cannot be used inside {section}-ed region";
    }
    "only references that were acquired, and not yet given back, are released, each once",
    "release the very pointer that the acquiring call returned, after comparing it with NULL, and do not use it afterwards" => {
        EINVAL "func {helper}#{id} reference has not been acquired before";
        EINVAL "kfunc {kfunc}#{id} reference has not been acquired before";
        EINVAL "R{reg} must be referenced when passed to release function";
        EINVAL "arg {arg} is an unacquired reference";
        EINVAL "cannot release unowned const bpf_dynptr";
        EINVAL "allocated object must be referenced";
        EINVAL "release kernel function {kfunc} expects refcounted PTR_TO_BTF_ID";
        EINVAL "R{reg} must have zero offset when passed to release func or trusted arg to kfunc";
        EACCES "more than one arg with ref_obj_id R{reg} {first} {second}";
    }
    "one spin lock is held at a time, and it is given back by the function that took it, last taken first",
    "unlock before the next lock; bpf_res_spin_lock can be nested" => {
        EINVAL "Locking two bpf_spin_locks are not allowed";
        EINVAL "Acquiring the same lock again, AA deadlock detected";
        EINVAL "{lock}_unlock without taking a lock";
        EINVAL "{lock}_unlock of different lock";
        EINVAL "{lock}_unlock cannot be out of order";
        EACCES "can't spin_{{lock,unlock}} in rbtree cb";
    }
    "a lock, timer, workqueue, task work, kptr, list or tree is found, by BTF, at the constant offset that is passed",
    "pass the address of that member of the map's value; declare the map with BTF types (__type(value, struct ...)) and the member with its own struct type" => {
        EINVAL "R{reg} doesn't have constant offset. kptr has to be at the constant offset";
        EINVAL "R{reg} doesn't have constant offset. {field} has to be at the constant offset";
        EINVAL "R{reg} doesn't have constant offset. {lock}_lock has to be at the constant offset";
        EINVAL "map '{map}' has to have BTF in order to use bpf_kptr_xchg";
        EINVAL "map '{map}' has to have BTF in order to use {field}";
        EINVAL "map '{map}' has to have BTF in order to use {lock}_lock";
        EINVAL "{of} '{name}' has no valid {lock}_lock";
        EINVAL "off {off} doesn't point to 'struct {lock}_lock' that is at {at}";
        EINVAL "map '{map}' has no valid {field}";
        EINVAL "off {off} doesn't point to 'struct {field}' that is at {at}";
        EINVAL "{field} not found at offset={off}";
        EINVAL "R{reg} has no valid kptr";
        EACCES "off={off} doesn't point to kptr";
        EACCES "off={off} kptr isn't referenced kptr";
        EINVAL "arg#{arg} doesn't point to a map value";
        EINVAL "arg#{arg} doesn't point to map value or allocated object";
        EINVAL "arg#{arg} expected pointer to map value or allocated object";
    }
    "a timer, workqueue or task work is armed together with the map that it lies in",
    "pass the map that the value was looked up in, by the same look-up in an inner map" => {
        EINVAL "timer pointer in R1 map_uid={uid} doesn't match map pointer in R2 map_uid={map_uid}";
        EINVAL "workqueue pointer in R1 map_uid={uid} doesn't match map pointer in R2 map_uid={map_uid}";
        EINVAL "bpf_task_work pointer in R2 map_uid={uid} doesn't match map pointer in R3 map_uid={map_uid}";
        EINVAL "pointer in R{reg} isn't map pointer";
    }
    "dynptrs live in 16 aligned bytes of the stack at a constant offset, initialised once and then used as what they are",
    "declare `struct bpf_dynptr` as a local variable, initialise it with bpf_dynptr_from_... or bpf_ringbuf_reserve_dynptr before use, and do not reuse one that still holds a reference" => {
        EINVAL "cannot overwrite referenced dynptr";
        EINVAL "arg#{arg} expected pointer to stack or const struct bpf_dynptr";
        EINVAL "Dynptr has to be an uninitialized dynptr";
        EINVAL "cannot pass pointer to const bpf_dynptr, the helper mutates it";
        EINVAL "Expected an initialized dynptr as arg #{arg}";
        EINVAL "Expected a dynptr of type {kind} as arg #{arg}";
        quiet ERANGE "a dynptr below what the stack holds";
        quiet EINVAL "a dynptr where none can be";
        quiet EINVAL "a dynptr of no kind";
        quiet EFAULT "bpf_dynptr_write into no dynptr";
        also "{what} has to be at a constant offset";
        also "cannot pass in {what} at an offset={off}";
    }
    "open-coded iterators live on the stack: made by their _new, used by _next while they are, ended by _destroy",
    "use bpf_for_each, which does all three; call _new once on uninitialised memory and _destroy on every way out" => {
        EINVAL "expected uninitialized iter_{iter} as arg #{arg}";
        EINVAL "expected an initialized iter_{iter} as arg #{arg}";
        EINVAL "arg#{arg} expected pointer to an iterator on stack";
        EINVAL "expected valid iter pointer as arg #{arg}";
        EINVAL "css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs";
        EPROTO "expected an RCU CS when using {kfunc}";
        quiet EINVAL "an iterator where none can be";
    }
    "an interrupt flag is saved into 8 bytes of the stack and restored once, by the same kind of call, in reverse order",
    "declare one `unsigned long` for each save, and restore in reverse order with the counterpart of the call that saved" => {
        EINVAL "arg#{arg} doesn't point to an irq flag on stack";
        EINVAL "expected uninitialized irq flag as arg#{arg}";
        EINVAL "expected an initialized irq flag as arg#{arg}";
        EINVAL "irq flag acquired by {kind} kfuncs cannot be restored with {other} kfuncs";
        EACCES "cannot restore irq state out of order, expected id={id} acquired at insn_idx={alloc_insn}";
        quiet EINVAL "an interrupt flag where none can be";
    }
    "RCU and preemption sections are entered and left in pairs; RCU sections of a program do not nest",
    "pair each lock with one unlock on every branch" => {
        EINVAL "nested rcu read lock (kernel function {kfunc})";
        EINVAL "unmatched rcu read unlock (kernel function {kfunc})";
        EINVAL "unmatched attempt to enable preemption (kernel function {kfunc})";
        EACCES "Calling bpf_rcu_read_{{lock,unlock}} in unnecessary rbtree callback";
    }
    "nodes are added to and taken from a list or tree of their own type, while the lock beside its root is held",
    "lock the bpf_spin_lock of the same map value or object around the call; pass nodes that bpf_obj_new gave, at the member that __contains names" => {
        EINVAL "bpf_spin_lock at off={off} must be held for {field}";
        EINVAL "operation on {head} expects arg#1 {node} at offset={at} in struct {struct}, but arg is at offset={off} in struct {other}";
        EINVAL "arg#1 offset={off}, but expected {node} at offset={at} in struct {struct}";
        EINVAL "arg#{arg} expected pointer to allocated object";
        EINVAL "arg#{arg} expected for {kfunc}()";
        EINVAL "{kfunc} can only take non-owning or refcounted bpf_rb_node pointer";
        EINVAL "{kfunc} not allowed in rbtree cb";
        EINVAL "arg#{arg} is neither owning or non-owning ref";
        EINVAL "arg#{arg} doesn't point to a type with bpf_refcount field";
        quiet EFAULT "a tree that has no root";
        also "held lock and object are not in the same allocation";
    }
}
