//! Which device nodes orders may be about, and which numbers they have.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use rustix::fs::{major, minor};

use super::denylist::Number;

/// Whether a path is that of a GPU's or a MIG capability's node: `/dev/nvidiaN` or `/dev/nvidia-caps/nvidia-capN`.
pub(super) fn is_gpu_node(path: &str) -> bool {
    let number =
        |rest: &str| (1..=5).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_digit());
    let gpu = path.strip_prefix("/dev/nvidia").is_some_and(number);
    gpu || path
        .strip_prefix("/dev/nvidia-caps/nvidia-cap")
        .is_some_and(number)
}

/// The numbers of the node at that path now; the text says why there are none.
pub(super) fn number_of(path: &str) -> Result<Number, String> {
    if !is_gpu_node(path) {
        return Err(format!("{path} is no node of a GPU or of a MIG capability"));
    }
    let about = fs::symlink_metadata(path).map_err(|error| format!("{path}: {error}"))?;
    if !about.file_type().is_char_device() {
        return Err(format!("{path} is no character device"));
    }
    Ok(Number {
        major: major(about.rdev()),
        minor: minor(about.rdev()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_69_orders_are_about_nodes_of_gpus_and_of_nothing_else() {
        for node in [
            "/dev/nvidia0",
            "/dev/nvidia15",
            "/dev/nvidia-caps/nvidia-cap22",
        ] {
            assert!(is_gpu_node(node), "{node}");
        }
        for other in [
            "/dev/null",
            "/dev/nvidia",
            "/dev/nvidiactl",
            "/dev/nvidia-uvm",
            "/dev/nvidia0/../sda",
            "/dev/nvidia-caps/nvidia-cap",
            "/dev/nvidia-1",
            "nvidia0",
            "/dev/nvidia123456",
        ] {
            assert!(!is_gpu_node(other), "{other}");
        }
        assert!(number_of("/dev/null").is_err());
    }
}
