//! What the kernel says of GPUs on the PCI bus, whether NVML sees them or not.

use std::fs;
use std::path::{Path, PathBuf};

/// The kernel's list of PCI devices.
#[derive(Clone, Debug)]
pub struct PciBus {
    devices: PathBuf,
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new(Path::new("/sys"))
    }
}

impl PciBus {
    /// The list below this mount of sysfs.
    #[must_use]
    pub fn new(sysfs: &Path) -> Self {
        Self {
            devices: sysfs.join("bus/pci/devices"),
        }
    }

    /// The NUMA node nearest to the device with this PCI bus id, as NVML writes it. `None`: there is no such device, or the
    /// machine has no NUMA nodes or does not tell (-1).
    #[must_use]
    pub fn numa_node(&self, pci_bus_id: &str) -> Option<u32> {
        let path = self.devices.join(address(pci_bus_id)?).join("numa_node");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

/// NVML writes eight digits of the domain, the kernel at least four, in small letters.
fn address(pci_bus_id: &str) -> Option<String> {
    let (domain, rest) = pci_bus_id.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let plain = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
    if rest.len() != "18:00.0".len() || !rest.bytes().all(plain) {
        return None;
    }
    Some(format!("{domain:04x}:{}", rest.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_number_and_minus_one_is_none() {
        let root = tempfile::tempdir().unwrap();
        let device = |name: &str, node: &str| {
            let folder = root.path().join("bus/pci/devices").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("numa_node"), node).unwrap();
        };
        device("0000:9a:00.0", "1\n");
        device("10000:01:00.0", "3\n");
        device("0000:18:00.0", "-1\n");
        let bus = PciBus::new(root.path());
        assert_eq!(bus.numa_node("00000000:9A:00.0"), Some(1));
        assert_eq!(bus.numa_node("00010000:01:00.0"), Some(3));
        for none in [
            "00000000:18:00.0",
            "00000000:2A:00.0",
            "x",
            "0:../../../etc",
        ] {
            assert_eq!(bus.numa_node(none), None, "{none}");
        }
    }
}
