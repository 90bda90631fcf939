//! bpf(2), as far as programs on control groups need it. The structs are those of linux/bpf.h; the kernel takes shorter ones for
//! what their end leaves out.
#![expect(unsafe_code, reason = "a system call that nobody wraps")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::denylist::Instruction;

const PROG_LOAD: i64 = 5;
const OBJ_PIN: i64 = 6;
const OBJ_GET: i64 = 7;
const PROG_ATTACH: i64 = 8;
const PROG_DETACH: i64 = 9;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const PROG_QUERY: i64 = 16;

const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACH: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: it stands beside those of others.
const ALLOW_MULTI: u32 = 2;
/// Programs on one group that are looked through.
const PROGRAMS: usize = 64;
/// `bpf_attr.prog_name`, without its last byte.
const NAME: &[u8; 15] = b"gpuquota_denies";

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    program: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AskInfo {
    of: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);
const _: () = assert!(size_of::<Load>() == 64);
const _: () = assert!(size_of::<Attach>() == 20);
const _: () = assert!(size_of::<Object>() == 16);
const _: () = assert!(size_of::<AskInfo>() == 16);
const _: () = assert!(size_of::<Query>() == 32);

fn bpf<T>(command: i64, about: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: the kernel reads and writes at most `size` bytes of `about`, a plain struct of integers that lives for this call; the
    // memory that addresses in it point to is owned by the caller of this function for as long.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(about), size) };
    i32::try_from(done)
        .ok()
        .filter(|done| *done >= 0)
        .ok_or_else(io::Error::last_os_error)
}

fn raw(fd: impl AsFd) -> u32 {
    // No descriptor is negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn address<T>(of: *const T) -> u64 {
    u64::try_from(of.addr()).unwrap_or(0)
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a program (`BPF_PROG_LOAD`); needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN on older kernels.
pub(super) fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let licence = c"MIT";
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME);
    let mut about = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        instructions: u32::try_from(code.len()).map_err(io::Error::other)?,
        code: address(code.as_ptr()),
        licence: address(licence.as_ptr()),
        name,
        ..Load::default()
    };
    bpf(PROG_LOAD, &mut about).map(owned)
}

/// Attaches a program to an open control group, beside those that are there (`BPF_PROG_ATTACH`).
pub(super) fn attach(group: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut about = on(group, program);
    about.flags = ALLOW_MULTI;
    bpf(PROG_ATTACH, &mut about).map(drop)
}

/// Takes it off again (`BPF_PROG_DETACH`).
pub(super) fn detach(group: impl AsFd, program: impl AsFd) -> io::Result<()> {
    bpf(PROG_DETACH, &mut on(group, program)).map(drop)
}

fn on(group: impl AsFd, program: impl AsFd) -> Attach {
    Attach {
        target: raw(group),
        program: raw(program),
        kind: CGROUP_DEVICE_ATTACH,
        ..Attach::default()
    }
}

/// Numbers of the programs on a group itself (`BPF_PROG_QUERY`).
pub(super) fn attached(group: impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; PROGRAMS];
    let mut about = Query {
        target: raw(group),
        kind: CGROUP_DEVICE_ATTACH,
        ids: address(ids.as_mut_ptr()),
        count: u32::try_from(PROGRAMS).map_err(io::Error::other)?,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut about)?;
    let count = usize::try_from(about.count).map_err(io::Error::other)?;
    Ok(ids.into_iter().take(count).collect())
}

/// The number of a program (`BPF_OBJ_GET_INFO_BY_FD`).
pub(super) fn id(program: impl AsFd) -> io::Result<u32> {
    let mut info = Info::default();
    let mut about = AskInfo {
        of: raw(program),
        length: u32::try_from(size_of::<Info>()).map_err(io::Error::other)?,
        info: address(std::ptr::from_mut(&mut info)),
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut about)?;
    Ok(info.id)
}

/// Gives a program a name in a bpf file system, by which it outlives this process (`BPF_OBJ_PIN`).
pub(super) fn pin(program: impl AsFd, path: &Path) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut about = Object {
        path: address(text.as_ptr()),
        program: raw(program),
        ..Object::default()
    };
    bpf(OBJ_PIN, &mut about).map(drop)
}

/// Opens a program by that name (`BPF_OBJ_GET`).
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut about = Object {
        path: address(text.as_ptr()),
        ..Object::default()
    };
    bpf(OBJ_GET, &mut about).map(owned)
}
