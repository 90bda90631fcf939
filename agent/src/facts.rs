//! What the node is: processors and memory by sysinfo, the boot it is in. Read once at start.

use std::fs;
use std::io;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Facts of the node that do not change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Logical CPUs; `None` when the kernel does not say.
    pub cpu_cores: Option<u32>,
    /// Installed memory, bytes; `None` when the kernel does not say.
    pub memory_bytes: Option<u64>,
}

impl Node {
    /// Asks the kernel.
    #[must_use]
    pub fn read() -> Self {
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let Ok(system) = System::new_with_specifics(wanted) else {
            return Self {
                cpu_cores: None,
                memory_bytes: None,
            };
        };
        Self {
            cpu_cores: u32::try_from(system.cpus().len())
                .ok()
                .filter(|cores| *cores > 0),
            memory_bytes: Some(system.total_memory()).filter(|bytes| *bytes > 0),
        }
    }
}

/// The kernel's random id of this boot.
///
/// # Errors
/// When `/proc` is not there or its text is not an id.
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let id = text.trim();
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/sys/kernel/random/boot_id holds no boot id",
        ));
    }
    Ok(id.to_owned())
}

/// This host's name (uname(2)).
#[must_use]
pub fn host_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_its_size_and_its_boot() {
        let node = Node::read();
        assert!(node.cpu_cores.is_some_and(|cores| cores >= 1));
        assert!(node.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
