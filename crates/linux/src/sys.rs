//! The system call: one function per command, each with its part of `union bpf_attr`.
//!
//! This module alone is unsafe. Every attribute is a struct without padding, all of it initialised;
//! every address in it is that of a slice that outlives the call, with its length beside it.
#![allow(unsafe_code)] // `bpf(2)` has no safe wrapper

use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};

use bpfsim_abi::Errno;

/// Commands: `enum bpf_cmd`. None of those that attach anything.
#[derive(Clone, Copy)]
pub(crate) enum Cmd {
    MapCreate = 0,
    MapLookupElem = 1,
    MapUpdateElem = 2,
    MapDeleteElem = 3,
    MapGetNextKey = 4,
    ProgLoad = 5,
    ProgTestRun = 10,
    MapGetFdById = 14,
    ObjGetInfoByFd = 15,
    BtfLoad = 18,
    MapLookupAndDeleteElem = 21,
    MapFreeze = 22,
    MapLookupBatch = 24,
    MapLookupAndDeleteBatch = 25,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
}

/// `struct { __u32 map_type; ... }`: `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct MapCreate {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: i32,
    pub numa_node: u32,
    pub map_name: [u8; 16],
    pub map_ifindex: u32,
    pub btf_fd: i32,
    pub btf_key_type_id: u32,
    pub btf_value_type_id: u32,
    pub btf_vmlinux_value_type_id: u32,
    pub map_extra: u64,
}

/// `BPF_MAP_*_ELEM`, `BPF_MAP_GET_NEXT_KEY`, `BPF_MAP_FREEZE`.
#[repr(C)]
#[derive(Default)]
struct MapElem {
    map_fd: i32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_*_BATCH`.
#[repr(C)]
#[derive(Default)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: i32,
    elem_flags: u64,
    flags: u64,
}

/// `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct ProgLoad {
    pub prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    pub log_level: u32,
    log_size: u32,
    log_buf: u64,
    pub kern_version: u32,
    pub prog_flags: u32,
    pub prog_name: [u8; 16],
    pub prog_ifindex: u32,
    pub expected_attach_type: u32,
    pub prog_btf_fd: i32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    pub attach_btf_id: u32,
    pub attach_btf_obj_fd: i32,
    core_relo_cnt: u32,
    fd_array: u64,
    core_relos: u64,
    core_relo_rec_size: u32,
    log_true_size: u32,
}

/// `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct TestRun {
    pub prog_fd: i32,
    pub retval: u32,
    data_size_in: u32,
    pub data_size_out: u32,
    data_in: u64,
    data_out: u64,
    pub repeat: u32,
    pub duration: u32,
    ctx_size_in: u32,
    pub ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    pub flags: u32,
    pub cpu: u32,
    pub batch_size: u32,
    zero: u32,
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    bpf_fd: i32,
    info_len: u32,
    info: u64,
}

/// `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    btf_log_true_size: u32,
}

/// # Safety
/// `attr` is what the command takes, without padding, and each address in it is valid for what the
/// command does there, or null where it may be.
unsafe fn bpf<A>(cmd: Cmd, attr: &mut A) -> Result<i32, Errno> {
    let size = size_of::<A>();
    // SAFETY: the kernel reads and writes `size` bytes at `attr`, which is that large; the caller
    // answers for what `attr` points to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, cmd as i32, std::ptr::from_mut(attr), size) };
    if result >= 0 {
        return Ok(i32::try_from(result).unwrap_or(i32::MAX));
    }
    let code = std::io::Error::last_os_error().raw_os_error();
    Err(Errno(
        code.and_then(|n| u16::try_from(n).ok())
            .unwrap_or(Errno::EINVAL.0),
    ))
}

/// Takes a new descriptor into care.
fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address(bytes: &[u8]) -> u64 {
    if bytes.is_empty() {
        0
    } else {
        bytes.as_ptr() as u64
    }
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    if bytes.is_empty() {
        0
    } else {
        bytes.as_mut_ptr() as u64
    }
}

/// # Errors
/// `E2BIG` for more than the attribute can say.
fn len(bytes: &[u8]) -> Result<u32, Errno> {
    u32::try_from(bytes.len()).map_err(|_| Errno::E2BIG)
}

pub(crate) fn map_create(attr: &mut MapCreate) -> Result<OwnedFd, Errno> {
    // Up to and with `map_extra`, which ends where the struct does: no padding.
    const { assert!(size_of::<MapCreate>() == 72) };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(Cmd::MapCreate, attr) }.map(own)
}

/// `BPF_*_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

pub(crate) fn map_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = ById {
        id,
        ..ById::default()
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(Cmd::MapGetFdById, &mut attr) }.map(own)
}

/// Looks up, or looks up and deletes. The caller has made `value` as large as the map's value,
/// `key` as large as its key.
///
/// # Safety
/// They are so large.
pub(crate) unsafe fn map_lookup(
    cmd: Cmd,
    fd: i32,
    key: &[u8],
    value: &mut [u8],
    flags: u64,
) -> Result<(), Errno> {
    let (key, value) = (address(key), address_mut(value));
    let mut attr = MapElem {
        map_fd: fd,
        zero: 0,
        key,
        value,
        flags,
    };
    // SAFETY: the caller's promise.
    unsafe { bpf(cmd, &mut attr) }.map(drop)
}

/// # Safety
/// `key` and `value` are as large as the map's.
pub(crate) unsafe fn map_update(
    fd: i32,
    key: &[u8],
    value: &[u8],
    flags: u64,
) -> Result<(), Errno> {
    let (key, value) = (address(key), address(value));
    let mut attr = MapElem {
        map_fd: fd,
        zero: 0,
        key,
        value,
        flags,
    };
    // SAFETY: the caller's promise; the kernel only reads there.
    unsafe { bpf(Cmd::MapUpdateElem, &mut attr) }.map(drop)
}

/// # Safety
/// `key` is as large as the map's.
pub(crate) unsafe fn map_delete(fd: i32, key: &[u8]) -> Result<(), Errno> {
    let mut attr = MapElem {
        map_fd: fd,
        key: address(key),
        ..MapElem::default()
    };
    // SAFETY: the caller's promise; the kernel only reads there.
    unsafe { bpf(Cmd::MapDeleteElem, &mut attr) }.map(drop)
}

/// # Safety
/// `key`, if any, and `next` are as large as the map's key.
pub(crate) unsafe fn map_next_key(
    fd: i32,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> Result<(), Errno> {
    let (key, value) = (key.map_or(0, address), address_mut(next));
    let mut attr = MapElem {
        map_fd: fd,
        key,
        value,
        ..MapElem::default()
    };
    // SAFETY: the caller's promise.
    unsafe { bpf(Cmd::MapGetNextKey, &mut attr) }.map(drop)
}

pub(crate) fn map_freeze(fd: i32) -> Result<(), Errno> {
    let mut attr = MapElem {
        map_fd: fd,
        ..MapElem::default()
    };
    // SAFETY: the command takes no address.
    unsafe { bpf(Cmd::MapFreeze, &mut attr) }.map(drop)
}

/// What a batch works on.
pub(crate) struct Batch<'a> {
    pub from: Option<&'a [u8]>,
    pub next: &'a mut [u8],
    pub keys: &'a mut [u8],
    pub values: &'a mut [u8],
    pub count: u32,
    pub elem_flags: u64,
}

/// Gives how many elements were done, also where it failed.
///
/// # Safety
/// `keys` and `values` hold `count` of the map's keys and values; `from` and `next` are as large as
/// the map's key, and at least 4 bytes.
pub(crate) unsafe fn map_batch(cmd: Cmd, fd: i32, batch: Batch<'_>) -> (u32, Result<(), Errno>) {
    let mut attr = MapBatch {
        in_batch: batch.from.map_or(0, address),
        out_batch: address_mut(batch.next),
        keys: address_mut(batch.keys),
        values: address_mut(batch.values),
        count: batch.count,
        map_fd: fd,
        elem_flags: batch.elem_flags,
        ..MapBatch::default()
    };
    // SAFETY: the caller's promise.
    let result = unsafe { bpf(cmd, &mut attr) }.map(drop);
    (attr.count, result)
}

/// What a program is made of, besides numbers.
pub(crate) struct ProgParts<'a> {
    /// `struct bpf_insn`s.
    pub insns: &'a [u8],
    pub license: &'a std::ffi::CStr,
    /// `struct bpf_func_info`s: pairs of `u32`.
    pub func_info: &'a [u8],
    /// `struct bpf_line_info`s: fours of `u32`.
    pub line_info: &'a [u8],
    /// Descriptors, as `i32`s.
    pub fd_array: &'a [u8],
    pub log: &'a mut [u8],
}

pub(crate) fn prog_load(attr: &mut ProgLoad, parts: ProgParts<'_>) -> Result<OwnedFd, Errno> {
    const { assert!(size_of::<ProgLoad>() == 144) };
    (attr.insns, attr.insn_cnt) = (address(parts.insns), len(parts.insns)? / 8);
    attr.license = address(parts.license.to_bytes_with_nul());
    if !parts.func_info.is_empty() {
        attr.func_info_rec_size = 8;
        (attr.func_info, attr.func_info_cnt) =
            (address(parts.func_info), len(parts.func_info)? / 8);
    }
    if !parts.line_info.is_empty() {
        attr.line_info_rec_size = 16;
        (attr.line_info, attr.line_info_cnt) =
            (address(parts.line_info), len(parts.line_info)? / 16);
    }
    // How many there are is not said: the kernel reads only those that instructions name.
    attr.fd_array = address(parts.fd_array);
    (attr.log_size, attr.log_buf) = (len(parts.log)?, address_mut(parts.log));
    // SAFETY: each address is that of a borrowed slice, with how many records fit into it; the
    // kernel writes only the log, no more than its size. Of `fd_array` it reads what instructions
    // index, past its end too, and finds there only numbers that are descriptors or are not.
    unsafe { bpf(Cmd::ProgLoad, attr) }.map(own)
}

/// The bytes that a program is run on.
pub struct TestData<'a> {
    /// The packet.
    pub data_in: &'a [u8],
    /// Room for what is left of it.
    pub data_out: &'a mut [u8],
    /// The context, in which some programs are given it back, too.
    pub ctx_in: &'a mut [u8],
    /// Room for what is left of it.
    pub ctx_out: &'a mut [u8],
}

pub(crate) fn test_run(attr: &mut TestRun, data: TestData<'_>) -> Result<(), Errno> {
    const { assert!(size_of::<TestRun>() == 80) };
    (attr.data_in, attr.data_size_in) = (address(data.data_in), len(data.data_in)?);
    (attr.data_size_out, attr.data_out) = (len(data.data_out)?, address_mut(data.data_out));
    (attr.ctx_in, attr.ctx_size_in) = (address_mut(data.ctx_in), len(data.ctx_in)?);
    (attr.ctx_size_out, attr.ctx_out) = (len(data.ctx_out)?, address_mut(data.ctx_out));
    // SAFETY: each address is that of a borrowed slice with its length; the kernel writes only those
    // that are borrowed mutably, no more than their lengths.
    unsafe { bpf(Cmd::ProgTestRun, attr) }.map(drop)
}

/// Fills `info` with the object's `struct bpf_*_info`; gives how many bytes it has.
///
/// # Safety
/// Where `info` holds addresses on entry, they are valid for as many bytes as its counts say.
pub(crate) unsafe fn object_info(fd: i32, info: &mut [u8]) -> Result<usize, Errno> {
    let mut attr = Info {
        bpf_fd: fd,
        info_len: len(info)?,
        info: address_mut(info),
    };
    // SAFETY: `info` is borrowed, with its length; the rest is the caller's promise.
    unsafe { bpf(Cmd::ObjGetInfoByFd, &mut attr) }?;
    Ok(attr.info_len as usize)
}

pub(crate) fn btf_load(btf: &[u8], log: &mut [u8]) -> Result<OwnedFd, Errno> {
    let mut attr = BtfLoad {
        btf: address(btf),
        btf_size: len(btf)?,
        btf_log_size: len(log)?,
        btf_log_buf: if log.is_empty() { 0 } else { address_mut(log) },
        btf_log_level: u32::from(!log.is_empty()),
        btf_log_true_size: 0,
    };
    // SAFETY: both addresses are of borrowed slices with their lengths; only the log is written.
    unsafe { bpf(Cmd::BtfLoad, &mut attr) }.map(own)
}
