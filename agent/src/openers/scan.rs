//! Who has NVIDIA's device nodes open, from `/proc` alone: what is left to tell holders by while NVML cannot be asked.
//!
//! A node is known by its device number, never by its name: a process may have any file under any name in a mount namespace of
//! its own, and a container's node is not the host's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

/// Processes that one scan looks at.
const MOST_PROCESSES: usize = 65_536;
/// Descriptors that one scan looks at, over all processes.
const MOST_DESCRIPTORS: usize = 4_000_000;
/// Descriptors of one process that are looked at: no process uses up what there is for all.
const MOST_OF_ONE: usize = 16_384;
/// Bytes of one process's memory map that are read: 65,530 mappings (Linux's `vm.max_map_count`) with paths of 900 bytes.
const MOST_MAP: u64 = 64 << 20;
/// Major number of NVIDIA's nodes, fixed in Linux's devices.txt.
const MAJOR: u32 = 195;
/// Above it are nodes that belong to no GPU (nv.h of the open module: 254 is nvidia-modeset, 255 nvidiactl).
const LAST_GPU: u32 = 247;

/// What one scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openers {
    /// Minor numbers of the GPUs that each process has open, by pid.
    pub minors: BTreeMap<u32, BTreeSet<u32>>,
    /// Processes that may have more open than that.
    pub missed: Missed,
}

/// Processes that were not looked at, or not at all of what they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Into these this process may not look.
    pub denied: usize,
    /// These have more open or mapped than a scan looks at, or came after its end.
    pub cut: usize,
}

impl Missed {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What one process has, and whether that is all.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    minors: BTreeSet<u32>,
    cut: bool,
}

/// Looks at every process below `root`, usually `/proc`: its open files, and where those are not shown to this user, its memory map,
/// in which a CUDA process has the nodes as well.
#[must_use]
pub fn scan(root: &Path) -> Openers {
    scan_within(root, &LIMITS)
}

#[derive(Debug)]
struct Limits {
    processes: usize,
    descriptors: usize,
    of_one: usize,
    map: u64,
}

const LIMITS: Limits = Limits {
    processes: MOST_PROCESSES,
    descriptors: MOST_DESCRIPTORS,
    of_one: MOST_OF_ONE,
    map: MOST_MAP,
};

fn scan_within(root: &Path, limits: &Limits) -> Openers {
    let mut found = Openers::default();
    let mut left = limits.descriptors;
    let major = major(root);
    let mut processes = 0;
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if processes >= limits.processes || left == 0 {
            found.missed.cut += 1;
            continue;
        }
        processes += 1;
        let path = entry.path();
        let held = match descriptors(&path, major, limits.of_one, &mut left) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                mapped(&path, major, limits.map)
            }
            Ok(mut held) if held.cut => {
                let map = mapped(&path, major, limits.map);
                held.minors.extend(map.unwrap_or_default().minors);
                Ok(held)
            }
            held => held,
        };
        match held {
            Ok(held) => {
                found.missed.cut += usize::from(held.cut);
                if !held.minors.is_empty() {
                    found.minors.insert(pid, held.minors);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.missed.denied += 1;
            }
            // It has ended.
            Err(_) => {}
        }
    }
    found
}

fn descriptors(process: &Path, major: u32, most: usize, left: &mut usize) -> io::Result<Held> {
    let mut held = Held::default();
    for (looked, entry) in fs::read_dir(process.join("fd"))?.enumerate() {
        if *left == 0 || looked >= most {
            held.cut = true;
            break;
        }
        *left -= 1;
        if let Some(open) = node(&entry?.path()) {
            held.minors.extend(minor_of(&open, major));
        }
    }
    Ok(held)
}

/// What a path leads to now, without asking a file server that may be away.
fn node(path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::INO).ok()
}

fn mapped(process: &Path, major: u32, most: u64) -> io::Result<Held> {
    let mut maps = BufReader::new(fs::File::open(process.join("maps"))?.take(most));
    let root = process.join("root");
    let minor = |map: &Mapping<'_>| {
        let found = node(&root.join(OsStr::from_bytes(map.path.strip_prefix(b"/")?)))?;
        let same = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino) == map.file;
        minor_of(&found, major).filter(|_| same)
    };
    let mut held = Held::default();
    // One node is mapped many times in a row.
    let (mut line, mut before) = (Vec::new(), None);
    while maps.read_until(b'\n', &mut line)? > 0 {
        if let Some(map) = mapping(line.strip_suffix(b"\n").unwrap_or(&line)) {
            let this = Some((map.file, map.path.to_vec()));
            if this != before {
                held.minors.extend(minor(&map));
                before = this;
            }
        }
        line.clear();
    }
    held.cut = maps.get_ref().limit() == 0;
    Ok(held)
}

/// A shared mapping of what is called something below `/dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mapping<'m> {
    /// The file system's device number and the inode in it: what is mapped, whatever lies at the path now.
    file: (u32, u32, u64),
    path: &'m [u8],
}

/// `ADDRESS PERMISSIONS OFFSET MAJOR:MINOR INODE PATH` (proc(5)).
fn mapping(line: &[u8]) -> Option<Mapping<'_>> {
    let slash = line.iter().position(|b| *b == b'/')?;
    let (fields, path) = line.split_at_checked(slash)?;
    let mut fields = std::str::from_utf8(fields).ok()?.split_ascii_whitespace();
    let shared = fields.nth(1)?.ends_with('s');
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let file = (number(major)?, number(minor)?, fields.next()?.parse().ok()?);
    (shared && path.starts_with(b"/dev/")).then_some(Mapping { file, path })
}

/// The GPU that a node is of.
fn minor_of(open: &Statx, major: u32) -> Option<u32> {
    let is_node = FileType::from_raw_mode(open.stx_mode.into()) == FileType::CharacterDevice;
    let of_gpu = open.stx_rdev_major == major && open.stx_rdev_minor <= LAST_GPU;
    (is_node && of_gpu).then_some(open.stx_rdev_minor)
}

/// As the kernel lists it below `/proc/devices`.
fn major(root: &Path) -> u32 {
    let text = fs::read_to_string(root.join("devices")).unwrap_or_default();
    let of_module = |line: &str| {
        let (number, name) = line.trim().split_once(' ')?;
        let number = number.parse().ok()?;
        ["nvidia", "nvidia-frontend"]
            .contains(&name)
            .then_some(number)
    };
    text.lines().find_map(of_module).unwrap_or(MAJOR)
}

/// UUIDs of the GPUs by minor number, as the kernel module itself tells below `/proc/driver/nvidia/gpus`.
#[must_use]
pub fn uuids(root: &Path) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(root.join("driver/nvidia/gpus"));
    let texts = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok());
    texts.filter_map(|text| identity(&text)).collect()
}

fn identity(text: &str) -> Option<(u32, String)> {
    let field = |name: &str| {
        let value = |line: &str| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .to_owned(),
            )
        };
        text.lines().find_map(value)
    };
    let uuid = field("GPU UUID").filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'))?;
    Some((field("Device Minor")?.parse().ok()?, uuid))
}

#[cfg(test)]
mod tests;
