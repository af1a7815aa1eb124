//! The form of programs: instructions, jumps, functions, their records in BTF.

super::rules! {
    "every instruction is reached on some way from the start of its function",
    "take the code away that nothing jumps to; compilers do, so this is mostly hand-written or damaged code" => {
        EINVAL "unreachable insn {insn}";
    }
    "jumps stay within their function, and lead to the start of an instruction",
    "correct the jump's target; functions end in exit or in a jump" => {
        EINVAL "jump out of range from insn {insn} to {to}";
        EINVAL "jump into the middle of ldimm64 insn {insn}";
        EINVAL "last insn is not an exit or jmp";
        EFAULT "invalid insn idx {insn} insn_cnt {count}";
        quiet E2BIG "a walk through the program's jumps that holds more instructions than there are";
        quiet EINVAL "an unconditional jump with a register";
    }
    "programs have at least one instruction and at most a million",
    "split the program, by tail calls or into several" => {
        quiet E2BIG "no instructions, or more than a million";
    }
    "functions begin where something calls them, up to 256 of them",
    "make fewer functions; static inline ones count for nothing" => {
        EINVAL "call to invalid destination";
        E2BIG "too many subprograms";
    }
    "func_info has one record for each function, in the order of their instructions",
    "load the object as the compiler made it: tools that change instructions must change .BTF.ext too" => {
        EINVAL "nonzero insn_off {off} for the first func info record";
        EINVAL "same or smaller insn offset ({off}) than previous func info record ({previous})";
        EINVAL "invalid type id {id} in func info";
        EINVAL "number of funcs in func_info doesn't match number of subprogs";
        EINVAL "func_info BTF section doesn't match subprog layout in BPF program";
    }
    "instructions have a form that the kernel knows, and leave the fields that they do not use 0",
    "compile for an instruction set that the kernel has (-mcpu); hand-written instructions must leave unused fields 0" => {
        EINVAL "instruction past the end of the program";
        EINVAL "unknown opcode {opcode}";
        EINVAL "BPF_LDX uses reserved fields";
        EINVAL "invalid bpf_ld_imm64 insn";
        EINVAL "unrecognized bpf_ld_imm64 insn";
        EINVAL "BPF_LD_IMM64 uses reserved fields";
        EINVAL "BPF_LD_[ABS|IND] uses reserved fields";
        EINVAL "BPF_NEG uses reserved fields";
        EINVAL "BPF_END uses reserved fields";
        EINVAL "BPF_MOV uses reserved fields";
        EINVAL "addr_space_cast insn can only convert between address space 1 and 0";
        EINVAL "BPF_ALU uses reserved fields";
        EINVAL "BPF_STX uses reserved fields";
        EINVAL "BPF_ST uses reserved fields";
        EINVAL "BPF_CALL uses reserved fields";
        EINVAL "BPF_JA uses reserved fields";
        EINVAL "BPF_EXIT uses reserved fields";
        EINVAL "BPF_JMP/JMP32 uses reserved fields";
        EINVAL "invalid may_goto imm {imm}";
    }
    "the verifier's own knowledge is in order",
    "nothing that programs do wrong is known to lead here: it is a defect of the verifier; report it with the program" => {
        EFAULT "verifier bug: {what}";
        EFAULT "verifier bug: REG INVARIANTS VIOLATION ({when}): {what} u64=[{umin}, {umax}] s64=[{smin}, {smax}] u32=[{u32min}, {u32max}] s32=[{s32min}, {s32max}] var_off=({value}, {mask})";
    }
}
