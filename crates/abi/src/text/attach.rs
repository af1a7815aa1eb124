//! What programs attach to, what global functions take, which maps go with which programs.

super::rules! {
    "programs that may sleep are of a type and at a place where the kernel can wait for them",
    "take the .s away from the section's name, or attach to a place where sleeping is allowed" => {
        EINVAL "Syscall programs can only be sleepable";
        EINVAL "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable";
        EINVAL "{function} is not sleepable";
    }
    "programs of this type name, by BTF, what they attach to, and the kernel has it",
    "name an existing function or tracepoint in the section, such as fentry/do_unlinkat or tp_btf/sched_switch" => {
        EINVAL "Cannot replace kernel functions";
        EINVAL "Tracing programs must provide btf_id";
        EINVAL "attach_btf_id {id} is not a typedef";
        EINVAL "attach_btf_id {id} points to wrong type name {name}";
        EINVAL "attach_btf_id {id} is not a function";
        quiet ENOTSUPP "a struct_ops program that names no member";
    }
    "the arguments of a function that programs are called around fit into registers: at most twelve of at most 16 bytes, and a result that is no structure",
    "attach a kprobe instead, or attach to a function that this one calls or is called by" => {
        EINVAL "The function {function} has {count} arguments. Too many.";
        EINVAL "The function {function} return type {type} is unsupported.";
        EINVAL "The function {function} with variable args is unsupported.";
        EINVAL "The function {function} has malformed void argument.";
        EINVAL "The function {function} arg{arg} type {type} is unsupported.";
        quiet EINVAL "a function without a prototype in the kernel's BTF";
    }
    "fmod_ret programs are for functions that let their result be replaced: ALLOW_ERROR_INJECTION, security_*, or those that the kernel registers for it",
    "use fexit to see the result without changing it, or attach to the security_* function on the way" => {
        EINVAL "{function}() is not modifiable";
    }
    "some functions are not traced: those that running a program needs, and after those that never return nothing runs",
    "attach to a function that calls this one; use fentry for functions that do not return" => {
        EINVAL "Attaching tracing programs to function '{function}' is rejected.";
        EINVAL "Attaching fexit/fmod_ret to __noreturn function '{function}' is rejected.";
    }
    "LSM programs have a GPL compatible license and are for hooks that the kernel lets programs decide",
    "declare `char LICENSE[] SEC(\"license\") = \"GPL\"`; attach to another hook of security/security.c" => {
        EINVAL "LSM programs must have a GPL compatible license";
        EINVAL "attach_btf_id {id} points to disabled hook {function}";
    }
    "struct_ops programs are for members of the structure that are functions and that the kernel lets programs provide",
    "initialise that member of the SEC(\".struct_ops\") variable with the program; leave members that the kernel keeps for itself away" => {
        EINVAL "struct ops programs must have a GPL compatible license";
        EINVAL "attach to invalid member idx {member} of struct {struct}";
        EINVAL "attach to invalid member {name}(@idx {member}) of struct {struct}";
        EINVAL|ENOTSUPP "attach to unsupported member {member} of struct {struct}";
        EINVAL "program with __ref argument cannot tail call";
    }
    "global functions return a number and take up to five numbers, contexts, or pointers to types of known size",
    "declare the function `static`, or change its prototype; mark pointers with __arg_ctx, __arg_nonnull, __arg_nullable, __arg_trusted, __arg_arena where they are that" => {
        EINVAL "Global function {function}() with {count} > 5 args. Buggy compiler.";
        EINVAL "Global function {function}() doesn't return scalar. Only those are supported.";
        EINVAL "Arg#{arg} type {type} in {function}() is not supported yet.";
        EINVAL "arg#{arg} should be {ctx}{type} *";
        EFAULT "Verifier bug in function {function}()";
        quiet EFAULT "a function without a prototype in BTF";
        quiet EINVAL "a static function with more than five arguments";
        quiet EINVAL "a static function that returns no number";
        quiet EINVAL "a static function with an argument that cannot be described";
    }
    "the tags of a global function's arguments fit their types and one another",
    "use one tag for each argument, on a pointer; trusted arguments point to structures of the kernel" => {
        EOPNOTSUPP "arg#{arg} type tag is not supported in static functions";
        EOPNOTSUPP "arg#{arg} has unsupported set of tags";
        EINVAL "arg#{arg} has pointer tag, but is not a pointer type";
        EINVAL "arg#{arg} has invalid combination of tags";
        EINVAL "arg#{arg} arena cannot be combined with any other tags";
        EINVAL "arg#{arg} type={type} is not a kernel type";
        ENOENT "arg#{arg} type={type} has no match in kernel BTF";
    }
    "maps with special fields are used by programs of types that can be trusted with them",
    "use another program type (of those that trace, tp_btf, fentry and fexit are not refused), or a map without the field" => {
        EINVAL "tracing progs cannot use bpf_{{list_head,rb_root}} yet";
        EINVAL "socket filter progs cannot use bpf_spin_lock yet";
        EINVAL "tracing progs cannot use bpf_spin_lock yet";
        EINVAL "tracing progs cannot use bpf_timer yet";
        EINVAL "tracing progs cannot use bpf_wq yet";
    }
    "a map goes with the program that uses it: its type, and how many of them",
    "use another map type, or one map of this type for each program" => {
        EINVAL "bpf_struct_ops map cannot be used in prog";
        EINVAL "Sleepable programs can only use array, hash, ringbuf and local storage maps";
        EBUSY "only one cgroup storage of each type is allowed";
        EBUSY "Only one arena per program";
        E2BIG "The total number of maps per program has reached the limit of 64";
        EBADF "fd {fd} is not pointing to valid bpf_map";
    }
    "the address of a map's value that a program holds as a constant lies within the value",
    "take the address of a variable of .data, .bss or .rodata; only arrays of one element and arenas have addresses that are constants" => {
        EINVAL "direct value offset of {off} is not allowed";
        EINVAL|EACCES|ENOTSUPP|ERANGE "invalid access to map value pointer, value_size={limit} off={off}";
    }
    "a kernel symbol whose address a program holds is a variable or function of the kernel, with BTF",
    "declare it `extern ... __ksym` with the kernel's own name and type; add __weak where a kernel may lack it" => {
        ENOENT "ldimm64 insn specifies invalid btf_id {id}.";
        EINVAL "pseudo btf_id {id} in ldimm64 isn't KIND_VAR or KIND_FUNC";
        ENOENT "ldimm64 failed to find the address for kernel symbol '{symbol}'.";
        EINVAL "ldimm64 unable to resolve the size of type '{type}': -22";
    }
}
