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

    /// PCI bus ids, as NVML writes them, of NVIDIA's GPUs that are bound to vfio: virtual machines have them, or may.
    pub fn passthrough(&self) -> impl Iterator<Item = String> {
        self.gpus(|driver| driver.ends_with("vfio_pci"))
    }

    /// PCI bus ids, as NVML writes them, of the GPUs that NVIDIA's driver has, in the order of the bus.
    pub fn held(&self) -> impl Iterator<Item = String> {
        let mut held: Vec<_> = self.gpus(|driver| driver == "nvidia").collect();
        held.sort_unstable();
        held.into_iter()
    }

    /// NVIDIA's GPUs by the name of their driver, `-` written as `_`. No virtual functions: those are vGPUs.
    fn gpus(&self, bound_to: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.devices).into_iter().flatten().flatten();
        entries
            .filter(move |entry| {
                let device = entry.path();
                is_nvidia_gpu(&device)
                    && driver(&device).is_some_and(|driver| bound_to(&driver))
                    && !device.join("physfn").exists()
            })
            .filter_map(|entry| nvml_bus_id(entry.file_name().to_str()?))
    }
}

/// Vendor, and a display controller of any kind (VGA, 3D, other).
fn is_nvidia_gpu(device: &Path) -> bool {
    let starts = |file: &str, with: &str| {
        let text = fs::read_to_string(device.join(file));
        text.is_ok_and(|text| text.trim().starts_with(with))
    };
    starts("vendor", "0x10de") && starts("class", "0x03")
}

/// vfio-pci and its vendors' variants are spelt in both ways.
fn driver(device: &Path) -> Option<String> {
    let driver = fs::read_link(device.join("driver")).ok()?;
    let name = driver.file_name()?.to_string_lossy();
    Some(name.replace('-', "_"))
}

/// `0000:9a:00.0` as NVML writes it.
fn nvml_bus_id(address: &str) -> Option<String> {
    let (domain, rest) = address.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    Some(format!("{domain:08X}:{}", rest.to_ascii_uppercase()))
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
    fn gpus_are_given_away_or_the_drivers_and_virtual_functions_are_neither() {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("bus/pci/devices");
        let device = |name: &str, vendor: &str, class: &str, driver: &str| {
            let folder = devices.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("vendor"), vendor).unwrap();
            fs::write(folder.join("class"), class).unwrap();
            if !driver.is_empty() {
                let target = format!("../../../bus/pci/drivers/{driver}");
                std::os::unix::fs::symlink(target, folder.join("driver")).unwrap();
            }
        };
        assert_eq!(PciBus::new(root.path()).passthrough().count(), 0);
        device("0000:9a:00.0", "0x10de\n", "0x030200\n", "vfio-pci");
        device(
            "0001:01:00.0",
            "0x10de\n",
            "0x030000\n",
            "nvgrace_gpu_vfio_pci",
        );
        device("0000:18:00.0", "0x10de\n", "0x030200\n", "nvidia");
        device("0000:19:00.0", "0x10de\n", "0x030200\n", "");
        device("0000:9a:00.1", "0x10de\n", "0x040300\n", "vfio-pci");
        device("0000:1a:00.0", "0x1002\n", "0x030000\n", "vfio-pci");
        device("0000:1b:00.4", "0x10de\n", "0x030200\n", "vfio-pci");
        fs::create_dir(devices.join("0000:1b:00.4/physfn")).unwrap();
        device("0000:18:00.4", "0x10de\n", "0x030200\n", "nvidia");
        fs::create_dir(devices.join("0000:18:00.4/physfn")).unwrap();
        device("0000:0a:00.0", "0x10de\n", "0x030000\n", "nvidia");
        let mut found: Vec<_> = PciBus::new(root.path()).passthrough().collect();
        found.sort_unstable();
        assert_eq!(found, ["00000000:9A:00.0", "00000001:01:00.0"]);
        let held: Vec<_> = PciBus::new(root.path()).held().collect();
        assert_eq!(held, ["00000000:0A:00.0", "00000000:18:00.0"]);
    }

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
