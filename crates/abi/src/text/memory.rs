//! Maps' values, packets, the stack, contexts, the kernel's own structures.

super::rules! {
    "every access to a map's value lies within it, for each value that the index can have",
    "compare the index with the value's size just before the access, in the register that is used for it; an unsigned index needs no comparison from below" => {
        EACCES "invalid access to map value, value_size={limit} off={off} size={size}";
        EACCES "invalid access to map key, key_size={limit} off={off} size={size}";
        EACCES "invalid access to memory, mem_size={limit} off={off} size={size}";
        EACCES "R{reg} unbounded memory access, make sure to bounds check any such access";
        EACCES "R{reg} min value is negative, either use unsigned index or do a if (index >=0) check.";
        EACCES "invalid access to flow keys off={off} size={size}";
        also "R{reg} min value is outside of the allowed memory range";
        also "R{reg} max value is outside of the allowed memory range";
    }
    "packet bytes are accessed only where a comparison with the packet's end has shown that they are there",
    "compare `data + offset + size > data_end` and leave if it holds, on this very pointer, after the last helper that changes packets" => {
        EACCES "invalid access to packet, off={off} size={size}, R{reg}(id={id},off={at},r={limit})";
        quiet EINVAL "a packet pointer that is at the packet's end or beyond it";
        also "R{reg} offset is outside of the packet";
    }
    "programs of this type do not write to packets directly",
    "use bpf_skb_store_bytes where the program type has it, or another program type" => {
        EACCES "cannot write into packet";
        EACCES "helper access to the packet is not allowed";
        EINVAL "the prog does not allow writes to packet data";
    }
    "only bytes of the stack that were written on this way are read",
    "initialise the variable or the whole struct, padding included, such as with `= {}` and memset, before it is read or passed to a helper" => {
        EACCES "invalid read from stack off {off}+{byte} size {size}";
        EACCES "invalid read from stack R{reg} off {off}+{byte} size {size}";
        EACCES "invalid read from stack R{reg} var_off {off}+{byte} size {size}";
    }
    "accesses to the stack lie within the 512 bytes below the frame pointer, at offsets with bounds",
    "make local variables smaller; compare the index of a local array with its length before it is used" => {
        EACCES|EINVAL|EFAULT "invalid{what} stack R{reg} off={off} size={size}";
        EACCES|EINVAL|EFAULT "invalid variable-offset{what} stack R{reg} var_off={var_off} off={off} size={size}";
        EACCES "invalid unbounded variable-offset{what} stack R{reg}";
        EACCES "variable offset stack pointer cannot be passed into helper function; var_off={var_off} off={off} size={size}";
        EFAULT "allocated_stack too small";
    }
    "pointers are spilled to the stack and filled from it whole, and stay in the frame that they point into",
    "store pointers with 8 aligned bytes; return numbers rather than pointers to local variables" => {
        EACCES "invalid size of register fill";
        EACCES "invalid size of register spill";
        EINVAL "cannot spill pointers to stack into stack frame of the caller";
    }
    "memory of no size is not read",
    "pass a size of at least 1, and say so with a comparison where it is computed" => {
        EACCES "invalid zero-sized read";
        EACCES "R{reg} invalid zero-sized read: u64=[{min},{max}]";
        quiet EACCES "a context of no bytes as memory";
    }
    "the stack slots of a dynptr are changed only by helpers and kfuncs for dynptrs",
    "let no other variable share its memory, and do not write through variable offsets near it" => {
        EACCES "potential write to dynptr at off={off} disallowed";
    }
    "contexts are accessed as their program type lays down: whole fields, at constant offsets, written only where the field may be",
    "access the field by its name in the type's context struct, with its own size; look the program type up in its documentation for which fields it has" => {
        EACCES "invalid bpf_context access off={off} size={size}";
        EACCES "BPF_ATOMIC {access} R{reg} {type} is not allowed";
        also "func '{function}' offset {off} is not multiple of 8";
        also "func '{function}' doesn't have {arg}-th argument";
        also "func '{function}' arg{arg} '{type}' has type {kind}. Only pointer access is allowed";
        also "func '{function}' size {size} must be 8";
        also "func '{function}' arg{arg} has btf_id {id} type {kind} '{name}'";
        also "func '{function}' arg{arg} type {kind} is not a struct";
        also "ret type {kind} not allowed for fmod_ret";
    }
    "what a context's field led to is not read again once its reference was given back",
    "copy what is needed before the release" => {
        EACCES "invalid bpf_context access off={off}. Reference may already be released";
    }
    "pointers of this kind are passed on as they were handed out, without an offset",
    "pass the object itself, not the address of one of its members; keep the original in a variable of its own" => {
        EACCES "negative offset {type} ptr R{reg} off={off} disallowed";
        EACCES "dereference of modified {type} ptr R{reg} off={off} disallowed";
        EACCES "variable {type} access var_off={var_off} disallowed";
    }
    "programs write to maps and read from them only as the map's flags permit",
    "leave BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG away, or keep to reading or writing; .rodata and frozen maps are written by user space before they are loaded" => {
        EACCES "write into map forbidden, value_size={limit} off={off} size={size}";
        EACCES "read from map forbidden, value_size={limit} off={off} size={size}";
        EACCES "write into map forbidden";
    }
    "memory that is read-only is not written to",
    "copy it to the stack or into a map first" => {
        EACCES "R{reg} cannot write into {type}";
        EACCES "write to change key R{reg} not allowed";
        EACCES "{helper}() may write into memory pointed by R{reg} type={type}";
    }
    "special fields of values, such as locks and timers, are touched only by their helpers",
    "keep the field out of assignments and copies; pass its address to its helpers and kfuncs" => {
        EACCES "{field} cannot be accessed directly by load/store";
        EACCES "{field} cannot be accessed indirectly by helper";
        EACCES "direct access to {field} is disallowed";
    }
    "a kptr in a map is loaded and stored whole, at its own constant offset",
    "name the field itself; exchange a referenced kptr with bpf_kptr_xchg, and store only NULL as a constant" => {
        EACCES "{field} access cannot have variable offset";
        EACCES "{field} access misaligned expected={expected} off={off}";
        EACCES "{field} access size must be BPF_DW";
        EACCES "kptr in map can only be accessed using BPF_MEM instruction mode";
        EACCES "kptr in map can only be accessed using BPF_LDX/BPF_STX/BPF_ST";
        EACCES "store to referenced kptr disallowed";
        EACCES "store to uptr disallowed";
        EACCES "BPF_ST imm must be 0 when storing to kptr at off={off}";
        EACCES|EINVAL "invalid kptr access, R{reg} type={type}{name} expected=ptr_{expected}{or}";
    }
    "sockets and other objects of the kernel are read at their documented fields",
    "read a whole field by its name; of a bpf_sock only some fields are there" => {
        EACCES "R{reg} invalid {type} access off={off} size={size}";
    }
    "buffers are accessed at constant offsets that are not negative",
    "use a constant offset, and let the reader of iterators and raw tracepoints do without arithmetic on the buffer" => {
        EACCES "R{reg} invalid {access} buffer access: off={off}, size={size}";
        EACCES "R{reg} invalid variable buffer offset: off={off}, var_off={var_off}";
    }
    "accesses are aligned to their size where the machine or the load asks for it",
    "align the struct's members, or read bytes; do not load with BPF_F_STRICT_ALIGNMENT" => {
        EACCES "misaligned packet access off 2+{var_off}+{fixed}+{off} size {size}";
        EACCES "misaligned {what}access off {var_off}+{fixed}+{off} size {size}";
    }
    "one instruction accesses one kind of memory on all ways that lead to it",
    "access the memory on each branch by itself rather than through one variable for both; barrier_var keeps compilers from joining them" => {
        EINVAL "same insn cannot be used with different pointers";
    }
    "accesses through a pointer to a kernel structure lie within it and name one member",
    "name the member, with its own type; for what is behind the structure use bpf_probe_read_kernel or bpf_core_cast" => {
        EACCES "access beyond struct {struct} at off {off} size {size}";
        EACCES "cannot access ptr member {member} with moff {member_off} in struct {struct} with off {off} size {size}";
        EACCES "access beyond the end of member {member} (mend:{end}) in struct {struct} with off {off} size {size}";
        EINVAL "struct {struct} doesn't have field at offset {off}";
        EINVAL "Type '{struct}' is not a struct";
        EFAULT "field {member} doesn't have size";
        EACCES "R{reg} is ptr_{struct} invalid negative access: off={off}";
        EACCES "R{reg} is ptr_{struct} invalid variable offset: off={off}, var_off={var_off}";
        EACCES "R{reg} is {struct} invalid negative access: off={off}";
        quiet EINVAL "structures nested too deep for the walk";
    }
    "pointers into user space and into per-CPU variables are not followed directly",
    "use bpf_probe_read_user, or bpf_per_cpu_ptr and bpf_this_cpu_ptr" => {
        EACCES "R{reg} is ptr_{struct} access user memory: off={off}";
        EACCES "R{reg} is ptr_{struct} access percpu memory: off={off}";
    }
    "the kernel's structures are read, not written, but for the members that a program type may set",
    "leave the write away; use a helper or kfunc that does it" => {
        EACCES "only read is supported";
        EACCES "only read from {struct} is supported";
        EACCES "no write support to nf_conn at off {off}";
        EACCES "write access at off {off} with size {size} beyond the member of nf_conn ended at {end}";
        EACCES "write access at off {off} with size {size} beyond the member of tcp_sock ended at {end}";
        EACCES "no write support to tcp_sock at off {off}";
        EACCES "only access to bpf_dummy_ops_state is supported";
        quiet EACCES "a write to what sched_ext programs only read";
        EACCES "write access at off {off} with size {size}";
    }
    "only programs with a licence that is compatible with the GPL look into the kernel's structures",
    "declare the licence that the program has, such as \"GPL\" or \"Dual MIT/GPL\", in the section `license`" => {
        EINVAL "Cannot access kernel 'struct {struct}' from non-GPL compatible program";
    }
}
