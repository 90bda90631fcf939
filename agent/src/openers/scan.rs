//! Who has NVIDIA's device nodes open, from `/proc` alone: what is left to tell holders by while NVML cannot be asked.
//!
//! A node is known by its device number, never by its name: a process may have any file under any name in a mount namespace of
//! its own, and a container's node is not the host's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

/// Processes that one scan looks at.
const MOST_PROCESSES: usize = 65_536;
/// Descriptors that one scan looks at, over all processes.
const MOST_DESCRIPTORS: usize = 1_000_000;
/// Bytes of one process's memory map that are read.
const MOST_MAP: u64 = 4 << 20;
/// Major number of NVIDIA's nodes, fixed in Linux's devices.txt.
const MAJOR: u32 = 195;
/// Above it are nodes that belong to no GPU (nv.h of the open module: 254 is nvidia-modeset, 255 nvidiactl).
const LAST_GPU: u32 = 247;

/// What one scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openers {
    /// Minor numbers of the GPUs that each process has open, by pid.
    pub minors: BTreeMap<u32, BTreeSet<u32>>,
    /// Processes into which this one may not look.
    pub denied: usize,
    /// A limit was reached: there may be more.
    pub cut: bool,
}

/// Looks at every process below `root`, usually `/proc`: its open files, and where those are not shown to this user, its memory map,
/// in which a CUDA process has the nodes as well.
#[must_use]
pub fn scan(root: &Path) -> Openers {
    let mut found = Openers::default();
    let mut left = MOST_DESCRIPTORS;
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
        if processes >= MOST_PROCESSES || left == 0 {
            found.cut = true;
            break;
        }
        processes += 1;
        let path = entry.path();
        let minors = match descriptors(&path, major, &mut left) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => mapped(&path, major),
            minors => minors,
        };
        match minors {
            Ok(minors) if minors.is_empty() => {}
            Ok(minors) => {
                found.minors.insert(pid, minors);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.denied += 1,
            // It has ended.
            Err(_) => {}
        }
    }
    found
}

fn descriptors(process: &Path, major: u32, left: &mut usize) -> io::Result<BTreeSet<u32>> {
    let mut minors = BTreeSet::new();
    for entry in fs::read_dir(process.join("fd"))? {
        if *left == 0 {
            break;
        }
        *left -= 1;
        if let Some(open) = node(&entry?.path()) {
            minors.extend(minor_of(&open, major));
        }
    }
    Ok(minors)
}

/// What a path leads to now, without asking a file server that may be away.
fn node(path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::INO).ok()
}

fn mapped(process: &Path, major: u32) -> io::Result<BTreeSet<u32>> {
    let mut bytes = Vec::new();
    fs::File::open(process.join("maps"))?
        .take(MOST_MAP)
        .read_to_end(&mut bytes)?;
    let maps: BTreeSet<Mapping<'_>> = bytes.split(|b| *b == b'\n').filter_map(mapping).collect();
    let root = process.join("root");
    let minor = |map: &Mapping<'_>| {
        let found = node(&root.join(OsStr::from_bytes(map.path.strip_prefix(b"/")?)))?;
        let same = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino) == map.file;
        minor_of(&found, major).filter(|_| same)
    };
    Ok(maps.iter().filter_map(minor).collect())
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
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn rule_14_open_nodes_are_found_and_the_rest_is_not() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: &str, targets: &[&str]| {
            let fd = root.path().join(pid).join("fd");
            fs::create_dir_all(&fd).unwrap();
            for (number, target) in targets.iter().enumerate() {
                symlink(target, fd.join(number.to_string())).unwrap();
            }
        };
        // Nodes that every host has stand for NVIDIA's: by their numbers, 1:3 and 1:7.
        let own = tempfile::tempdir().unwrap();
        let named_so = own.path().join("nvidia0");
        fs::write(&named_so, "").unwrap();
        let named_so = named_so.to_str().unwrap();
        let other_name = own.path().join("x");
        symlink("/dev/full", &other_name).unwrap();
        process(
            "10",
            &["/dev/null", other_name.to_str().unwrap(), "socket:[1]"],
        );
        process("11", &["/dev/tty", "/dev/nvidia0", "/"]);
        process("12", &[named_so]);
        process("self", &["/dev/null"]);
        fs::create_dir(root.path().join("13")).unwrap();
        assert_eq!(scan(root.path()).minors, BTreeMap::new());
        let devices = "Character devices:\n  4 tty\n  1 nvidia-frontend\n235 nvidia-caps\n";
        fs::write(root.path().join("devices"), devices).unwrap();
        let found = scan(root.path());
        assert_eq!(found.minors, BTreeMap::from([(10, BTreeSet::from([3, 7]))]));
        assert!(!found.cut && found.denied == 0);
        assert_eq!(scan(&root.path().join("none")), Openers::default());

        let gpu = root.path().join("driver/nvidia/gpus/0000:18:00.0");
        fs::create_dir_all(&gpu).unwrap();
        let text = "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-1-2\nBus Location: \t 0000:18:00.0\nDevice Minor: \t 3\n";
        fs::write(gpu.join("information"), text).unwrap();
        assert_eq!(
            uuids(root.path()),
            BTreeMap::from([(3, "GPU-1-2".to_owned())])
        );
        assert_eq!(
            identity(&text.replace("GPU-1-2", "GPU-????????-????")),
            None
        );
    }

    /// What is mapped is known by its inode; the path only leads to it, in the process's own tree.
    #[test]
    fn rule_14_a_mapped_node_is_known_by_what_is_mapped() {
        let process = tempfile::tempdir().unwrap();
        symlink("/", process.path().join("root")).unwrap();
        let null = node(Path::new("/dev/null")).unwrap();
        let line = |permissions: &str, inode: u64, path: &str| {
            let (major, minor) = (null.stx_dev_major, null.stx_dev_minor);
            format!("7f00-8000 {permissions} 00000000 {major:02x}:{minor:02x} {inode} {path}\n")
        };
        let minors = |text: String| {
            fs::write(process.path().join("maps"), text).unwrap();
            mapped(process.path(), 1).unwrap()
        };
        let inode = null.stx_ino;
        let good = line("rw-s", inode, "          /dev/null");
        assert_eq!(minors(good.clone() + &good), BTreeSet::from([3]));
        for other in [
            line("rw-p", inode, "/dev/null"),
            line("rw-s", inode + 1, "/dev/null"),
            line("rw-s", inode, "/dev/nvidia0"),
            line("rw-s", inode, "/dev/null (deleted)"),
            line("rw-s", inode, "/etc/passwd"),
            "7f00-8000 rw-s /dev/null\n\n".to_owned(),
        ] {
            assert_eq!(minors(other.clone()), BTreeSet::new(), "{other}");
        }
    }
}
