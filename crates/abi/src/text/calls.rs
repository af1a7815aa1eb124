//! Helpers, their arguments, calls of functions, the stack that they take.

super::rules! {
    "helpers are called by programs of the types, and attached to the places, that they are there for",
    "use a helper that this program type has, or another program type; the number may be one that came with a later kernel" => {
        EINVAL "program of this type cannot use helper {helper}#{id}";
        EINVAL "invalid func unknown#{id}";
        EINVAL "helper call is not allowed in probe";
        ENOTSUPP "func {helper}#{id} supported only for fentry/fexit/fmod_ret programs";
        ENOTSUPP "func {helper}#{id} not supported for program type {type}";
        EINVAL "BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!";
    }
    "what a program reaches is there: members that CO-RE relocations name, weak kfuncs, maps that are made",
    "ask first: bpf_core_field_exists, bpf_core_type_exists or bpf_ksym_exists around it, so that no way leads here where it is missing" => {
        case "invalid func unknown#195896080";
        case "invalid func unknown#2001{map}";
        case "invalid func unknown#2002{kfunc}";
    }
    "helpers and kfuncs that are restricted to the GPL are called by programs with a licence that is compatible with it",
    "declare the licence that the program has, such as \"GPL\" or \"Dual MIT/GPL\", in the section `license`; else do without the call" => {
        EINVAL "cannot call GPL-restricted function from non-GPL compatible program";
        EINVAL "cannot call kernel function from non-GPL compatible program";
    }
    "what may sleep is called only by sleepable programs, outside of RCU, preemption and interrupt sections and locks",
    "make the program sleepable (a section such as fentry.s, lsm.s, uprobe.s), end the section before the call, or move the call into a bpf_wq or bpf_task_work callback" => {
        EINVAL "helper call might sleep in a non-sleepable prog";
        EINVAL "sleepable helper {helper}#{id} in {section} region";
        EACCES "program must be sleepable to call sleepable kfunc {kfunc}";
        EACCES "kernel func {kfunc} is sleepable within rcu_read_lock region";
        EACCES "kernel func {kfunc} is sleepable within non-preemptible region";
        EACCES "kernel func {kfunc} is sleepable within IRQ-disabled region";
        EINVAL "global functions that may sleep are not allowed in non-sleepable context,\ni.e., in a RCU/IRQ/preempt-disabled section, or in\na non-sleepable BPF program context";
    }
    "an argument is of a kind that the helper's prototype takes there",
    "pass what the helper's documentation names for this argument: a pointer to the stack, to a map's value or packet, a map, the context; look at what R{reg} was made from" => {
        EACCES "R{reg} type={type} expected={expected}";
        EACCES "R{reg} type={type} expected=fp";
        EACCES "R{reg} is of type {type} but {expected} is expected";
        EACCES "Helper has invalid btf_id in R{reg}";
        EACCES "Unsupported reg type {type} for bpf_dynptr_from_mem data";
        EINVAL "invalid arg_type for sockmap/sockhash";
    }
    "a pointer that is passed on is known not to be NULL, where the callee does not take NULL",
    "compare the pointer with NULL, and pass it on only on the branch where it is not" => {
        case "R{reg} type={type}_or_null expected={expected}";
        EACCES "Possibly NULL pointer passed to helper arg{arg}";
        EACCES "Possibly NULL pointer passed to trusted arg{arg}";
        EINVAL "arg#{arg} is expected to be non-NULL";
    }
    "the size of memory that is passed to a call has bounds, and is not negative",
    "make the size unsigned and compare it with the buffer's size, or mask it with a constant, just before the call" => {
        EACCES "R{reg} min value is negative, either use unsigned or 'var &= const'";
        EACCES "R{reg} unbounded memory access, use 'var &= const' or 'if (var < const)'";
        also "arg#{arg} arg#{size} memory, len pair leads to invalid memory access";
    }
    "an argument that the verifier computes with is a constant",
    "pass a literal, or a variable that has the same value on every way to the call" => {
        EACCES "R{reg} is not a known constant'";
        EINVAL "R{reg} must be a known constant";
        EINVAL "R{reg} is not a const";
        EINVAL "get_local_storage() doesn't support non-zero flags";
    }
    "format strings and other constant strings lie, terminated, in a read-only map such as .rodata",
    "declare the string as `static const char fmt[] = \"...\"`, and let the format have specifiers that the kernel knows, one for each argument" => {
        EACCES "R{reg} does not point to a readonly map'";
        EACCES "R{reg} is not a constant address'";
        EACCES|EINVAL "no direct value access support for this map type";
        EINVAL "string is not zero-terminated";
        EFAULT "failed to retrieve map value address";
        EINVAL "Invalid format string";
        EINVAL "arg#{arg} doesn't point to a const string";
        quiet EINVAL "the data of bpf_snprintf is no multiple of eight bytes";
        quiet EINVAL "a constant string that is in no map's value";
    }
    "a map is passed to the helpers that are made for its type",
    "look up which helpers the map's type has; tail calls want a BPF_MAP_TYPE_PROG_ARRAY that is named at the call" => {
        EINVAL "cannot pass map_type {type} into func {helper}#{id}";
        EINVAL "expected prog array map for tail call";
        ENOTSUPP "callback function not allowed for map";
        also "cannot update sockmap in this context";
    }
    "what a call returns is of a kind that the verifier knows",
    "use a helper that gives a number or a documented pointer; the kernel's types may lack what this one gives" => {
        EINVAL "invalid return type 8 of func {helper}#{id}";
        EINVAL "unable to resolve the size of type '{type}': -22";
    }
    "functions that are verified alone are called with what their prototype says",
    "pass arguments of the declared types; mark pointers that may be NULL with __arg_nullable, contexts with __arg_ctx, and say pointed-to sizes with types" => {
        also "Caller passes invalid args into func#{func} ('{function}')";
        quiet EINVAL "a function that no BTF describes, or whose BTF calls did not fit before";
        EINVAL "R{reg} is not a scalar";
        EINVAL "arg#{arg} expects pointer to ctx";
        EINVAL "R{reg} is not a pointer to arena or scalar.";
    }
    "while a spin lock is held nothing is called but what the kernel allows there",
    "give the lock back before the call, or do the work on copies; static functions may be called while a lock is held, global ones may not" => {
        EINVAL "function calls are not allowed while holding a lock";
        EINVAL "global function calls are not allowed while holding a lock,\nuse static function instead";
    }
    "no more than 8 functions call one another",
    "inline some of them (`static __always_inline`), or turn recursion into a loop" => {
        E2BIG "the call stack of {count} frames is too deep";
        E2BIG "the call stack of {count} frames is too deep !";
    }
    "the stacks of all functions that call one another take at most 512 bytes together, each rounded up to 16",
    "move large local variables into a per-CPU array of one element; split functions so that two large frames are not open at once" => {
        EACCES "combined stack size of {count} calls is {depth}. Too large";
        EACCES "stack size of subprog {func} is {depth}. Too large";
    }
    "a function that makes tail calls has at most 256 bytes of stack below it",
    "make the tail call in the main function, or in one whose callers have small stacks" => {
        EACCES "tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large";
    }
    "callbacks are static functions of the program, and their address is taken with BTF at hand",
    "declare the callback `static`, compile with -g" => {
        EINVAL "missing btf func_info";
        EINVAL "callback function not static";
        EINVAL "arg{arg} expected pointer to func";
        also "kfunc {kfunc}#{id} failed callback verification";
    }
    "exceptions are thrown and caught where the kernel can unwind",
    "throw from the main function or from what it calls, not from callbacks; do not call the exception callback; do not make tail calls in it" => {
        EINVAL "bpf_throw kfunc (insn {insn}) cannot be called from callback subprog {func}";
        EINVAL "insn {insn} cannot call exception cb directly";
        EINVAL "cannot tail call within exception cb";
        EINVAL "exception cb only supports single integer argument";
        EEXIST "multiple exception callback tags for main subprog";
        ENOENT "exception callback '{function}' could not be found in BTF";
        EINVAL "exception callback '{function}' must have global linkage";
        EINVAL "exception callback type id not found in func_info";
        EINVAL "invalid exception callback insn_off in func_info: 0";
    }
    "legacy packet loads are for socket filters and traffic control, with the context in R6",
    "use bpf_skb_load_bytes or direct packet access" => {
        EINVAL "BPF_LD_[ABS|IND] instructions not allowed for this program type";
        EINVAL "at the time of BPF_LD_ABS|IND R6 != pointer to skb";
        EINVAL "LD_ABS is not allowed in subprogs without BTF";
        EINVAL "LD_ABS is only allowed in functions that return 'int'.";
    }
    "functions that make tail calls return int, and have BTF",
    "declare them `int f(...)`, compile with -g" => {
        EINVAL "tail_call is not allowed in subprogs without BTF";
        EINVAL "tail_call is only allowed in functions that return 'int'.";
    }
    "loads with an atomic operation name one that the kernel has, on 4 or 8 bytes",
    "use the compiler's __sync and __atomic builtins on __u32 and __u64" => {
        EINVAL "BPF_ATOMIC uses invalid atomic opcode {opcode}";
        EINVAL "invalid atomic operand size";
    }
}
