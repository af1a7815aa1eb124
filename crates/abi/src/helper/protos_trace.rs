//! Prototypes of `kernel/trace/bpf_trace.c`.
#![allow(non_upper_case_globals)] // The names are the kernel's symbols.
use super::Of::{Btf, Size};
use super::proto::protos;

protos! {
    // kernel/trace/bpf_trace.c
    bpf_get_func_ip_proto_tracing: GetFuncIp => RET_INTEGER, (ARG_PTR_TO_CTX), GPL_ONLY;
    bpf_probe_write_user_proto: ProbeWriteUser =>
        RET_INTEGER, (ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), GPL_ONLY;
    bpf_probe_read_compat_proto: ProbeRead =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_probe_read_compat_str_proto: ProbeReadStr =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_perf_event_output_proto: PerfEventOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_override_return_proto: OverrideReturn => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING), GPL_ONLY;
    bpf_get_func_ip_proto_kprobe_multi: GetFuncIp => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_func_ip_proto_uprobe_multi: GetFuncIp => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_func_ip_proto_kprobe: GetFuncIp => RET_INTEGER, (ARG_PTR_TO_CTX), GPL_ONLY;
    bpf_get_attach_cookie_proto_kmulti: GetAttachCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_attach_cookie_proto_umulti: GetAttachCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_attach_cookie_proto_trace: GetAttachCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_perf_event_output_proto_tp: PerfEventOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_get_stackid_proto_tp: GetStackid =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING), GPL_ONLY;
    bpf_get_stack_proto_tp: GetStack =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_perf_prog_read_value_proto: PerfProgReadValue =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE), GPL_ONLY;
    bpf_read_branch_records_proto: ReadBranchRecords =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM_OR_NULL | MEM_WRITE, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_get_attach_cookie_proto_pe: GetAttachCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_perf_event_output_proto_raw_tp: PerfEventOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_get_stackid_proto_raw_tp: GetStackid =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING), GPL_ONLY;
    bpf_get_stack_proto_raw_tp: GetStack =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_get_attach_cookie_proto_tracing: GetAttachCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_d_path_proto: DPath =>
        RET_INTEGER, (ARG_PTR_TO_BTF_ID(Btf("path")), ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO) if DPath;
    bpf_seq_printf_proto: SeqPrintf =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("seq_file")), ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_seq_write_proto: SeqWrite =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("seq_file")), ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_seq_printf_btf_proto: SeqPrintfBtf =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("seq_file")), ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_get_func_arg_proto: GetFuncArg =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_FIXED_SIZE_MEM(Size(8)) | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED);
    bpf_get_func_ret_proto: GetFuncRet =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_FIXED_SIZE_MEM(Size(8)) | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED);
    bpf_get_func_arg_cnt_proto: GetFuncArgCnt => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_trace_printk_proto: TracePrintk =>
        RET_INTEGER, (ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), GPL_ONLY;
    bpf_get_current_task_proto: GetCurrentTask => RET_INTEGER, (), GPL_ONLY;
    bpf_get_current_task_btf_proto: GetCurrentTaskBtf =>
        RET_PTR_TO_BTF_ID_TRUSTED(Btf("task_struct")), (), GPL_ONLY;
    bpf_probe_read_user_proto: ProbeReadUser =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_probe_read_user_str_proto: ProbeReadUserStr =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_snprintf_btf_proto: SnprintfBtf =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_task_pt_regs_proto: TaskPtRegs =>
        RET_PTR_TO_BTF_ID(Btf("pt_regs")), (ARG_PTR_TO_BTF_ID(Btf("task_struct"))), GPL_ONLY;
    bpf_probe_read_kernel_proto: ProbeReadKernel =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_probe_read_kernel_str_proto: ProbeReadKernelStr =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_trace_vprintk_proto: TraceVprintk =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_send_signal_proto: SendSignal => RET_INTEGER, (ARG_ANYTHING);
    bpf_send_signal_thread_proto: SendSignalThread => RET_INTEGER, (ARG_ANYTHING);
    bpf_perf_event_read_proto: PerfEventRead => RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_ANYTHING), GPL_ONLY;
    bpf_perf_event_read_value_proto: PerfEventReadValue =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE), GPL_ONLY;
    bpf_get_branch_snapshot_proto: GetBranchSnapshot =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
}
