//! Programs of the running kernel: loading and `BPF_PROG_TEST_RUN`.
#![allow(unsafe_code)] // `bpf_prog_info` holds an address

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_isa::Insn;

use crate::map::kernel_name;
use crate::sys::{self, ProgParts, TestData};

/// Words of `BPF_PROG_TEST_RUN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestRunAs {
    /// How often it is run; 0 is once.
    pub repeat: u32,
    /// `BPF_F_TEST_*`.
    pub flags: u32,
    /// On which CPU, with `BPF_F_TEST_RUN_ON_CPU`.
    pub cpu: u32,
    /// With `BPF_F_TEST_XDP_LIVE_FRAMES`, frames a batch.
    pub batch_size: u32,
}

/// Enough for what verifier logs are read for; a longer one is cut at its start.
const LOG_BYTES: usize = 1 << 24;
/// `BPF_LOG_STATS`, with which every log ends in the verifier's own counts.
const LOG_STATS: u32 = 4;

/// What program to load (`BPF_PROG_LOAD`).
#[derive(Clone, Debug)]
pub struct ProgSpec<'a> {
    /// Type.
    pub prog_type: ProgType,
    /// Slots, maps' and BTFs' descriptors filled in.
    pub insns: &'a [Insn],
    /// `GPL` unless said otherwise.
    pub license: &'a CStr,
    /// At most 15 bytes of it are given.
    pub name: &'a str,
    /// `BPF_F_*`.
    pub prog_flags: u32,
    /// What it is made for, if its type has several.
    pub expected_attach_type: Option<AttachType>,
    /// Of a struct_ops program the member that it is for, in place of that.
    pub struct_ops_member: Option<u32>,
    /// Id in kernel BTF of what it is made for.
    pub attach_btf_id: u32,
    /// BTF descriptor and a pair of first instruction and `FUNC` for each function.
    pub btf: Option<(i32, &'a [(u32, u32)])>,
    /// `bpf_line_info`s in the BTF's strings: instruction, file, text, line and column.
    pub line_info: &'a [[u32; 4]],
    /// Descriptors that instructions of `BPF_PSEUDO_MAP_IDX` and kfunc calls name by index.
    pub fd_array: &'a [i32],
    /// `log_level`: 0 none, 1 what the verifier does, 2 more, 4 its counts.
    pub log_level: u32,
}

impl<'a> ProgSpec<'a> {
    /// A GPL program without a name, BTF or log.
    pub fn new(prog_type: ProgType, insns: &'a [Insn]) -> ProgSpec<'a> {
        ProgSpec {
            prog_type,
            insns,
            license: c"GPL",
            name: "",
            prog_flags: 0,
            expected_attach_type: None,
            struct_ops_member: None,
            attach_btf_id: 0,
            btf: None,
            line_info: &[],
            fd_array: &[],
            log_level: 0,
        }
    }

    /// The same with the verifier's log and counts.
    #[must_use]
    pub fn log(self) -> ProgSpec<'a> {
        ProgSpec {
            log_level: 1 | LOG_STATS,
            ..self
        }
    }
}

/// What became of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The program, or the errno with which it was refused.
    pub result: Result<Prog, Errno>,
    /// The verifier's log, if one was asked for.
    pub log: String,
}

/// A program that this process loaded.
#[derive(Debug)]
pub struct Prog {
    fd: OwnedFd,
}

/// What the kernel knows of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgInfo {
    /// Number.
    pub id: u32,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// Instructions that the verifier went through.
    pub verified_insns: u32,
    /// Bytes of native code; 0 where it is interpreted.
    pub jited_prog_len: u32,
    /// Slots after the verifier's rewrites.
    pub xlated: Vec<Insn>,
}

/// What a program is run on.
#[derive(Clone, Debug, Default)]
pub struct Input<'a> {
    /// A packet; empty for program types that have none.
    pub data: &'a [u8],
    /// The context, or none.
    pub ctx: &'a [u8],
    /// How many times; 0 for types that cannot repeat.
    pub repeat: u32,
    /// `BPF_F_TEST_*`.
    pub flags: u32,
    /// For `BPF_F_TEST_RUN_ON_CPU`.
    pub cpu: u32,
}

impl<'a> Input<'a> {
    /// One run on a packet.
    pub fn packet(data: &'a [u8]) -> Input<'a> {
        Input {
            data,
            repeat: 1,
            ..Input::default()
        }
    }

    /// One run of a `syscall` program with this context.
    pub fn ctx(ctx: &'a [u8]) -> Input<'a> {
        Input {
            ctx,
            ..Input::default()
        }
    }
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned.
    pub retval: u32,
    /// The packet after it.
    pub data_out: Vec<u8>,
    /// The context after it.
    pub ctx_out: Vec<u8>,
    /// Average time of one run, ns.
    pub duration: u32,
}

/// A log up to its NUL.
pub(super) fn text_of(log: &[u8]) -> String {
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

fn bytes_of(insns: &[Insn]) -> Vec<u8> {
    insns.iter().flat_map(|insn| insn.to_le_bytes()).collect()
}

pub(super) fn load(spec: &ProgSpec<'_>) -> Loaded {
    let mut log = vec![0; if spec.log_level == 0 { 0 } else { LOG_BYTES }];
    let (prog_btf_fd, funcs) = spec.btf.unwrap_or_default();
    let func_info: Vec<u8> = funcs
        .iter()
        .flat_map(|&(insn, type_id)| [insn, type_id])
        .flat_map(u32::to_le_bytes)
        .collect();
    let mut attr = sys::ProgLoad::default();
    attr.prog_type = spec.prog_type.number();
    attr.log_level = spec.log_level;
    attr.prog_flags = spec.prog_flags;
    attr.prog_name = kernel_name(spec.name);
    let attach_type = spec.expected_attach_type.map_or(0, AttachType::number);
    attr.expected_attach_type = spec.struct_ops_member.unwrap_or(attach_type);
    attr.attach_btf_id = spec.attach_btf_id;
    attr.prog_btf_fd = prog_btf_fd;
    let fd_array: Vec<u8> = spec
        .fd_array
        .iter()
        .flat_map(|fd| fd.to_le_bytes())
        .collect();
    let words = spec.line_info.iter().flatten();
    let line_info: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    let parts = ProgParts {
        insns: &bytes_of(spec.insns),
        license: spec.license,
        func_info: &func_info,
        line_info: &line_info,
        fd_array: &fd_array,
        log: &mut log,
    };
    let result = sys::prog_load(&mut attr, parts).map(|fd| Prog { fd });
    Loaded {
        result,
        log: text_of(&log),
    }
}

impl Prog {
    /// Its descriptor, for a program array.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Runs it once, or as often as the input says (`BPF_PROG_TEST_RUN`). When this returns, the
    /// soft interrupts and the task work that the run left to the calling task have run too.
    ///
    /// # Errors
    /// The kernel's: `ENOTSUPP` or `EOPNOTSUPP` for a program type that cannot be run so.
    pub fn test_run(&self, input: &Input<'_>) -> Result<Ran, Errno> {
        // A program may make a packet longer by what its driver would leave room for.
        let room = if input.data.is_empty() {
            0
        } else {
            input.data.len() + 4096
        };
        let (mut data_out, mut ctx_out) = (vec![0; room], vec![0; input.ctx.len()]);
        let mut attr = sys::TestRun::default();
        attr.prog_fd = self.fd();
        attr.repeat = input.repeat;
        attr.flags = input.flags;
        attr.cpu = input.cpu;
        // A syscall program's context comes back where it was given, and nowhere else.
        let mut ctx_in = input.ctx.to_vec();
        let in_place = input.data.is_empty();
        let data = TestData {
            data_in: input.data,
            data_out: &mut data_out,
            ctx_in: &mut ctx_in,
            ctx_out: if in_place { &mut [] } else { &mut ctx_out },
        };
        sys::test_run(&mut attr, data)?;
        data_out.truncate(attr.data_size_out as usize);
        if in_place {
            ctx_out = ctx_in;
        } else {
            ctx_out.truncate(attr.ctx_size_out as usize);
        }
        Ok(Ran {
            retval: attr.retval,
            data_out,
            ctx_out,
            duration: attr.duration,
        })
    }

    /// `BPF_PROG_TEST_RUN` with just these words and buffers; gives the return value, and how much
    /// was written of `data_out` and `ctx_out`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn test_run_as(&self, how: TestRunAs, data: TestData<'_>) -> Result<[u32; 3], Errno> {
        let mut attr = sys::TestRun::default();
        attr.prog_fd = self.fd();
        (attr.repeat, attr.flags) = (how.repeat, how.flags);
        (attr.cpu, attr.batch_size) = (how.cpu, how.batch_size);
        sys::test_run(&mut attr, data)?;
        Ok([attr.retval, attr.data_size_out, attr.ctx_size_out])
    }

    /// What the kernel knows of it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn info(&self) -> Result<ProgInfo, Errno> {
        // Offsets in `struct bpf_prog_info`.
        const ID: usize = 4;
        const TAG: usize = 8;
        const JITED_LEN: usize = 16;
        const XLATED_LEN: usize = 20;
        const XLATED_INSNS: usize = 32;
        const VERIFIED_INSNS: usize = 216;
        const SIZE: usize = 232;

        let word = |info: &[u8; SIZE], at: usize| {
            u32::from_le_bytes(info[at..at + 4].try_into().unwrap_or_default())
        };
        let mut info = [0; SIZE];
        // SAFETY: no address and no count in it.
        unsafe { sys::object_info(self.fd(), &mut info) }?;
        let mut xlated = vec![0u8; word(&info, XLATED_LEN) as usize];
        let mut again = [0; SIZE];
        again[XLATED_LEN..XLATED_LEN + 4].copy_from_slice(&info[XLATED_LEN..XLATED_LEN + 4]);
        let address = xlated.as_mut_ptr() as u64;
        again[XLATED_INSNS..XLATED_INSNS + 8].copy_from_slice(&address.to_le_bytes());
        // SAFETY: the one address is that of `xlated`, with its length.
        unsafe { sys::object_info(self.fd(), &mut again) }?;

        let slots = xlated.chunks_exact(Insn::SIZE);
        Ok(ProgInfo {
            id: word(&info, ID),
            tag: info[TAG..TAG + 8].try_into().unwrap_or_default(),
            verified_insns: word(&info, VERIFIED_INSNS),
            jited_prog_len: word(&info, JITED_LEN),
            xlated: slots
                .map(|slot| Insn::from_le_bytes(slot.try_into().unwrap_or_default()))
                .collect(),
        })
    }
}
