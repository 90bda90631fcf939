//! That the driver is to be left alone, kept on disk: an agent that restarts meanwhile must not open it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "quiesced";

/// Until when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// The boot in which it counts: after a restart of the machine the driver is another one.
    pub boot_id: String,
    /// CLOCK_BOOTTIME, milliseconds.
    pub until_boottime_ms: u64,
    /// For people.
    pub reason: String,
}

impl Quiet {
    /// What is kept in the state directory, if it still counts.
    #[must_use]
    pub fn load(state: &Path, boot_id: &str, now_boottime_ms: u64) -> Option<Self> {
        let bytes = fs::read(state.join(FILE)).ok()?;
        let quiet: Self = serde_json::from_slice(&bytes).ok()?;
        let counts = quiet.boot_id == boot_id && now_boottime_ms < quiet.until_boottime_ms;
        counts.then_some(quiet)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn save(&self, state: &Path) -> io::Result<()> {
        let fresh = state.join("quiesced.new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, state.join(FILE))
    }

    /// Forgets it. That there is none is no failure.
    pub fn clear(state: &Path) {
        if let Err(error) = fs::remove_file(state.join(FILE))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, "the file `quiesced` in the state directory cannot be removed");
        }
    }

    /// As NVML's state says it.
    #[must_use]
    pub fn text(&self) -> String {
        if self.reason.is_empty() {
            "on request".to_owned()
        } else {
            self.reason.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_13_it_counts_in_its_boot_and_until_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let quiet = Quiet {
            boot_id: "b1".to_owned(),
            until_boottime_ms: 1000,
            reason: String::new(),
        };
        assert_eq!(Quiet::load(dir.path(), "b1", 0), None);
        quiet.save(dir.path()).unwrap();
        assert_eq!(Quiet::load(dir.path(), "b1", 999), Some(quiet));
        assert_eq!(Quiet::load(dir.path(), "b1", 1000), None);
        assert_eq!(Quiet::load(dir.path(), "b2", 0), None);
        Quiet::clear(dir.path());
        Quiet::clear(dir.path());
        assert_eq!(Quiet::load(dir.path(), "b1", 0), None);
    }
}
