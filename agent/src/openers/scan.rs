//! Who has NVIDIA's device nodes open, from `/proc` alone: what is left to tell holders by while NVML cannot be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

/// Processes that one scan looks at.
const MOST_PROCESSES: usize = 65_536;
/// Descriptors that one scan looks at, over all processes.
const MOST_DESCRIPTORS: usize = 1_000_000;
/// Bytes of one process's memory map that are read.
const MOST_MAP: u64 = 4 << 20;

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
        let minors = match descriptors(&path, &mut left) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => mapped(&path),
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

fn descriptors(process: &Path, left: &mut usize) -> io::Result<BTreeSet<u32>> {
    let mut minors = BTreeSet::new();
    for entry in fs::read_dir(process.join("fd"))? {
        if *left == 0 {
            break;
        }
        *left -= 1;
        if let Ok(target) = fs::read_link(entry?.path()) {
            minors.extend(target.to_str().and_then(minor_of));
        }
    }
    Ok(minors)
}

fn mapped(process: &Path) -> io::Result<BTreeSet<u32>> {
    let mut bytes = Vec::new();
    fs::File::open(process.join("maps"))?
        .take(MOST_MAP)
        .read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let path = |line: &str| line.get(line.find('/')?..).and_then(minor_of);
    Ok(text.lines().filter_map(path).collect())
}

/// N of `/dev/nvidiaN`; not the nodes that belong to no GPU, such as `/dev/nvidiactl`.
fn minor_of(path: &str) -> Option<u32> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let digits = path.strip_prefix("/dev/nvidia")?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
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
        process(
            "10",
            &["/dev/nvidia0", "/dev/nvidia3", "/dev/nvidia0", "socket:[1]"],
        );
        process(
            "11",
            &[
                "/dev/nvidiactl",
                "/dev/nvidia-uvm",
                "/dev/nvidia-caps/nvidia-cap1",
            ],
        );
        process(
            "12",
            &["/home/a/dev/nvidia0", "/dev/nvidia0x", "/dev/nvidia+1"],
        );
        process("self", &["/dev/nvidia0"]);
        fs::create_dir(root.path().join("13")).unwrap();
        let found = scan(root.path());
        assert_eq!(found.minors, BTreeMap::from([(10, BTreeSet::from([0, 3]))]));
        assert!(!found.cut && found.denied == 0);
        assert_eq!(scan(&root.path().join("none")), Openers::default());

        fs::write(
            root.path().join("13/maps"),
            "7f-80 rw-s 0 00:06 1   /dev/nvidia1\n7f-80 rw-s 0 00:06 1   /dev/nvidiactl\n",
        )
        .unwrap();
        assert_eq!(
            mapped(&root.path().join("13")).unwrap(),
            BTreeSet::from([1])
        );

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
}
