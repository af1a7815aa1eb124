//! Kfuncs and their arguments.

super::rules! {
    "kfuncs are called by programs of the types that they are registered for",
    "use a kfunc that this program type has, or another program type; look the name up in `bpfsim features`" => {
        EACCES "calling kernel function {kfunc} is not allowed";
        EINVAL "metadata kfuncs require device-bound program";
        EINVAL "invalid kernel function call not eliminated in verifier pass";
    }
    "a kfunc's declaration leads to a function of the kernel that has a prototype",
    "declare the kfunc `extern ... __ksym` as the kernel does; for one that older kernels lack add __weak and ask bpf_ksym_exists" => {
        EINVAL "kernel btf_id {id} is not a function";
        EINVAL "kernel function btf_id {id} does not have a valid func_proto";
        E2BIG "too many different kernel function calls";
        also "negative offset disallowed for kernel module function call";
        also "kfunc offset > 0 without fd_array is invalid";
        EINVAL|EPROTO "failed to find BTF for kernel function";
        EINVAL "Function {kfunc} has {count} > 5 args";
    }
    "compilers put a trap where they know that a variable has no value: it is not reached",
    "initialise the variable on every way; -Wuninitialized names it" => {
        EFAULT "unexpected __bpf_trap() due to uninitialized variable?";
    }
    "kfuncs that are marked for it are called within an RCU section",
    "call bpf_rcu_read_lock before and bpf_rcu_read_unlock after, or use a program that does not sleep" => {
        EACCES "kernel func {kfunc} requires RCU critical section protection";
    }
    "a pointer argument points to the type that the kfunc's prototype names",
    "pass the object itself as the kernel handed it out; a cast in C changes nothing of what the verifier knows" => {
        EINVAL "kernel function {kfunc} args#{arg} expected pointer to {kind} {expected} but R{reg} has a pointer to {other_kind} {type}";
        EINVAL "kernel function {kfunc} args#{arg} pointer type {kind} {type} is not supported";
        EINVAL "arg#{arg} pointer type {kind} {type} must point to {what}scalar, or struct with scalar";
        EINVAL "arg#{arg} is {type} expected {expected} or socket";
        EINVAL "arg#{arg} expected pointer to ctx, but got {type}";
        EINVAL "Unrecognized arg#{arg} type {type}";
        EINVAL|EACCES "arg#{arg} reference type('{kind} {type}') size cannot be determined: -22";
        EINVAL "acquire kernel function does not return PTR_TO_BTF_ID";
        EINVAL "kernel function {kfunc} returns pointer type {kind} {type} is not supported";
        quiet EINVAL "bpf_cast_to_kern_ctx in a program whose context the kernel has no struct for";
    }
    "objects are passed only by pointers that are known to be valid: acquired, given by the hook itself, or protected by RCU",
    "acquire the object first (such as bpf_task_acquire), or use the hook's own argument; what was read out of another structure may be gone" => {
        EINVAL "R{reg} must be referenced or trusted";
        EINVAL "R{reg} must be a rcu pointer";
    }
    "bpf_obj_new and its relatives are given, as a constant, the id of a struct of the program",
    "use the macros of bpf_experimental.h, compile with -g; per-CPU objects are of at most 512 bytes and without special fields" => {
        EINVAL "local type ID argument must be in range [0, U32_MAX]";
        EINVAL "bpf_obj_new/bpf_percpu_obj_new requires prog BTF";
        EINVAL "bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct";
        EINVAL "bpf_percpu_obj_new type size ({size}) is greater than 512";
        EINVAL "bpf_percpu_obj_new type ID argument must be of a struct of scalars";
        EINVAL "bpf_percpu_obj_new type ID argument must not contain special fields";
    }
    "bpf_rdonly_cast is given the id of a struct of the kernel, or of void",
    "use bpf_core_cast with a type of vmlinux.h" => {
        EINVAL "Unknown type ID {id} passed to kfunc bpf_rdonly_cast";
        EINVAL "kfunc bpf_rdonly_cast type ID argument must be of a struct or void";
    }
}
