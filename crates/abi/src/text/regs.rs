//! Registers, arithmetic, pointers that may be NULL, what functions return.

super::rules! {
    "a register that is read holds something on every way that leads here",
    "give the variable a value on every branch; what a call leaves in R1 to R5 is gone, and R0 holds what it returned" => {
        EACCES "R{reg} !read_ok";
    }
    "instructions name the registers R0 to R10",
    "compile with a supported compiler; assembly must not name R11 and above" => {
        EINVAL "R{reg} is invalid";
    }
    "R10, the frame pointer, is never written to",
    "copy R10 to another register and change that one" => {
        EACCES "frame pointer is read only";
    }
    "memory is accessed through a pointer of a kind that leads to memory",
    "a map, a function or a packet's end is no pointer to access memory through: look its value up, call it, compare with it" => {
        EACCES "R{reg} invalid mem access '{type}'";
    }
    "memory is accessed only through a pointer that is known not to be NULL",
    "compare the pointer with NULL, and access it only on the branch where it is not" => {
        case "R{reg} invalid mem access '{type}_or_null'";
        case "R{reg} invalid mem access '{type}or_null_'";
    }
    "memory is accessed through a pointer, not a number",
    "keep what was handed out in a variable of pointer type: stored as a number, or after arithmetic that the verifier does not follow, it is a pointer no more; the kernel's own memory is read with bpf_probe_read_kernel" => {
        case "R{reg} invalid mem access 'scalar'";
    }
    "arithmetic is done on pointers only once they are known not to be NULL",
    "move the comparison with NULL before the arithmetic" => {
        EACCES "R{reg} pointer arithmetic on {type} prohibited, null-check it first";
    }
    "pointers of this kind are used as they are: nothing is added to or taken from them",
    "keep the pointer unchanged; take offsets from the object that it leads to" => {
        EACCES "R{reg} pointer arithmetic on {type} prohibited";
        EACCES "R{reg} pointer {operator} pointer prohibited";
    }
    "only addition and subtraction of 64 bits are done with pointers",
    "do masking, shifting and arithmetic of 32 bits on the offset, as a number, before it is added to the pointer" => {
        EACCES "R{reg} 32-bit pointer arithmetic prohibited";
        EACCES "R{reg} bitwise operator {operator} on pointer prohibited";
        EACCES "R{reg} pointer arithmetic with {operator} operator prohibited";
        EACCES "R{reg} tried to subtract pointer from scalar";
        EACCES "R{reg} subtraction from stack pointer prohibited";
    }
    "what is added to a pointer has bounds, and keeps it within 512 MiB of where it began",
    "compare the number with a limit, from below too if it is signed, or mask it, before it is added" => {
        EINVAL "math between {type} pointer and {value} is not allowed";
        EINVAL "{type} pointer offset {offset} is not allowed";
        EINVAL "math between {type} pointer and register with unbounded min value is not allowed";
        EINVAL "value {value} makes {type} pointer be out of bounds";
    }
    "a division by a constant is not one by zero",
    "divide by another constant" => {
        EINVAL "div by zero";
    }
    "a shift by a constant is by less than the operand's width",
    "shift by 0 to 31, or to 63 for 64 bits" => {
        EINVAL "invalid shift {by}";
    }
    "addresses are cast between address spaces only where the program uses an arena",
    "declare a map of type BPF_MAP_TYPE_ARENA and refer to it in the program" => {
        EINVAL "addr_space_cast insn can only be used in a program that has an associated arena";
    }
    "a function's result is a number within the range that its caller takes",
    "return a constant of that range on every way out; compare or mask a computed value before it is returned" => {
        EINVAL "{when} the register {reg} has{known} should have been in [{min}, {max}]";
        EINVAL "{when} the register R{reg} is not a known value ({type})";
        also "Note, BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!";
    }
    "a callback of a timer, a workqueue or task work returns 0",
    "return 0 on every way out: nobody reads the result" => {
        case "At async callback return the register {reg} has{known} should have been in [{min}, {max}]";
    }
    "functions return numbers, not pointers",
    "return a number; hand a pointer over in a map or in memory of the caller" => {
        EINVAL "At subprogram exit the register R{reg} is not a scalar value ({type})";
        EINVAL "cannot return stack pointer to the caller";
        EACCES "R0 not a scalar value";
    }
    "the walk over a program comes to its end: no state comes back unchanged to an instruction that it was seen at",
    "give the loop a counter that changes in each round and a constant bound, or use bpf_loop, bpf_for or can_loop, whose rounds are not followed one by one" => {
        EINVAL "infinite loop detected at insn {insn}\ncur state:{cur}\nold state:{old}";
    }
    "the ways through a program are walked within a million instructions and 8,192 branches that wait",
    "make loops shorter or use bpf_loop; put parts into global functions, which are verified once; test less at a time" => {
        E2BIG "BPF program is too large. Processed {count} insn";
        EFAULT|ENOMEM "The sequence of {count} jumps is too complex.";
        EFAULT|E2BIG "The sequence of {count} jumps is too complex for async cb.";
    }
}
