//! The last reported view, kept for the next run of this boot: a restart while NVML is silent must not make devices
//! that are in use look as if they were gone. It is lost with the boot, as the processes are.

use std::io;
use std::path::Path;

use gpuquota_proto::agent_v1::{DeviceState, Report};
use prost::Message as _;

use super::record::{self, Record, Stored};
use crate::state::{read_own, write_for_this_boot};

/// More than the view of a node can be.
const MOST_BYTES: u64 = 16 << 20;

/// Replaces what is remembered.
///
/// # Errors
/// When the file cannot be written; what was there before stays.
pub fn save(path: &Path, boot_id: &str, devices: Vec<DeviceState>) -> io::Result<()> {
    let report = Report {
        boot_id: boot_id.to_owned(),
        full: true,
        devices,
        ..Report::default()
    };
    let stored = Stored {
        report: report.encode_to_vec(),
        ..Stored::default()
    };
    let mut bytes = Vec::new();
    record::encode(&Record::Stored(stored), &mut bytes);
    write_for_this_boot(path, &bytes)
}

/// What an earlier run of this boot reported last; empty when there is none or it cannot be trusted.
#[must_use]
pub fn load(path: &Path, boot_id: &str) -> Vec<DeviceState> {
    let bytes = match read_own(path, MOST_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, file.path = %path.display(), "last view cannot be read");
            }
            return Vec::new();
        }
    };
    let report = match record::decode(&bytes) {
        Some((Record::Stored(stored), _)) => Report::decode(stored.report.as_slice()).ok(),
        _ => None,
    };
    match report {
        Some(report) if report.boot_id == boot_id => report.devices,
        Some(_) => Vec::new(),
        None => {
            tracing::warn!(file.path = %path.display(), "last view is corrupt and not used");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_kept_for_this_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-view");
        assert!(load(&path, "boot").is_empty());
        let row = DeviceState {
            tenants: vec!["a".into()],
            ..Default::default()
        };
        save(&path, "boot", vec![row.clone()]).unwrap();
        assert_eq!(load(&path, "boot"), [row]);
        assert!(load(&path, "other").is_empty());
        fs::write(&path, b"junk").unwrap();
        assert!(load(&path, "boot").is_empty());
    }
}
