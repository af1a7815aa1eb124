//! Numbers that bound programs and maps, with the kernel's names.

/// `BPF_COMPLEXITY_LIMIT_INSNS`: instructions that the verifier processes before "BPF program is
/// too large. Processed %d insn" (`E2BIG`); also the most that a privileged program may have.
pub const BPF_COMPLEXITY_LIMIT_INSNS: u32 = 1_000_000;
/// `BPF_MAXINSNS`: the most instructions of a program loaded without `CAP_BPF`.
pub const BPF_MAXINSNS: u32 = 4096;
/// `BPF_COMPLEXITY_LIMIT_JMP_SEQ`: branches put aside before "The sequence of %d jumps is too
/// complex."
pub const BPF_COMPLEXITY_LIMIT_JMP_SEQ: u32 = 8192;
/// `BPF_COMPLEXITY_LIMIT_STATES`: states kept for one instruction without `CAP_PERFMON`.
pub const BPF_COMPLEXITY_LIMIT_STATES: u32 = 64;
/// `MAX_BPF_STACK`: a frame's stack, and the combined one of a chain of calls, bytes.
pub const MAX_BPF_STACK: u32 = 512;
/// `MAX_CALL_FRAMES`: frames of a chain of calls, the main one included.
pub const MAX_CALL_FRAMES: u32 = 8;
/// `BPF_MAX_SUBPROGS`: subprograms, the main one included.
pub const BPF_MAX_SUBPROGS: u32 = 256;
/// `MAX_USED_MAPS`: maps that one program refers to.
pub const MAX_USED_MAPS: u32 = 64;
/// `MAX_USED_BTFS`: kernel modules' BTF that one program refers to.
pub const MAX_USED_BTFS: u32 = 64;
/// `MAX_KFUNC_DESCS`: kfuncs that one program calls.
pub const MAX_KFUNC_DESCS: u32 = 256;
/// `MAX_TAIL_CALL_CNT`: tail calls in a row that succeed.
pub const MAX_TAIL_CALL_CNT: u32 = 33;
/// `BPF_MAX_LOOPS`: iterations that `bpf_loop` and `may_goto` permit.
pub const BPF_MAX_LOOPS: u32 = 8 * 1024 * 1024;
/// `BPF_MAX_VAR_OFF`: a variable offset of a pointer stays below this.
pub const BPF_MAX_VAR_OFF: u32 = 1 << 29;
/// `BPF_MAX_VAR_SIZ`: a variable size of an argument stays below this.
pub const BPF_MAX_VAR_SIZ: u32 = 1 << 29;
/// `MAX_PACKET_OFF`: an offset into a packet is at most this.
pub const MAX_PACKET_OFF: u32 = 0xffff;
/// `MAX_BPF_FUNC_ARGS`: arguments of a traced function.
pub const MAX_BPF_FUNC_ARGS: u32 = 12;
/// `MAX_BPF_FUNC_REG_ARGS`: arguments of a call by a program.
pub const MAX_BPF_FUNC_REG_ARGS: u32 = 5;
/// `BTF_FIELDS_MAX`: special fields of one structure.
pub const BTF_FIELDS_MAX: u32 = 11;
/// `MAX_RESOLVE_DEPTH`: how deep BTF types, and special fields in structures, may lie.
pub const MAX_RESOLVE_DEPTH: u32 = 32;
/// `BPF_OBJ_NAME_LEN`: a program's or map's name, its final NUL included, bytes.
pub const BPF_OBJ_NAME_LEN: usize = 16;
/// `DYNPTR_MAX_SIZE`: a dynptr's size stays at or below this, bytes.
pub const DYNPTR_MAX_SIZE: u32 = (1 << 24) - 1;
/// `BITS_ITER_NR_WORDS_MAX`: 64-bit words that `bpf_iter_bits` goes through.
pub const BITS_ITER_NR_WORDS_MAX: u32 = 511;
/// `BPF_MAX_USER_RINGBUF_SAMPLES`: samples that one drain takes.
pub const BPF_MAX_USER_RINGBUF_SAMPLES: u32 = 128 * 1024;
/// `MAX_BPRINTF_VARARGS`: arguments of `bpf_snprintf` and its like.
pub const MAX_BPRINTF_VARARGS: u32 = 12;
/// `MAX_TRACE_PRINTK_VARARGS`: arguments of `bpf_trace_printk`.
pub const MAX_TRACE_PRINTK_VARARGS: u32 = 3;
/// `MAX_ERRNO`: the largest errno that a pointer or return value can carry.
pub const MAX_ERRNO: u32 = 4095;
