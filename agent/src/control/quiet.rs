//! That the driver is to be left alone, kept on disk: an agent that restarts meanwhile must not open it.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LONGEST_MS;
use crate::state::{read_own, write_for_this_boot};

const FILE: &str = "quiesced";
/// A longer file is none of ours.
const MOST_BYTES: u64 = 4096;

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
    /// From now on for this long, at most a day.
    #[must_use]
    pub fn begin(boot_id: String, for_ms: u64, reason: String, now_boottime_ms: u64) -> Self {
        Self {
            boot_id,
            until_boottime_ms: now_boottime_ms.saturating_add(for_ms.min(LONGEST_MS)),
            reason,
        }
    }

    /// What is kept in the state directory, if it still counts. A file that is there and cannot be believed is logged.
    #[must_use]
    pub fn load(state: &Path, boot_id: &str, now_boottime_ms: u64) -> Option<Self> {
        let path = state.join(FILE);
        let read = read_own(&path, MOST_BYTES)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        let mut quiet: Self = match read {
            Ok(quiet) => quiet,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(%error, file.path = %path.display(), "an order to leave the driver alone is not understood; give it again");
                return None;
            }
        };
        let longest = now_boottime_ms.saturating_add(LONGEST_MS);
        quiet.until_boottime_ms = quiet.until_boottime_ms.min(longest);
        let counts = quiet.boot_id == boot_id && now_boottime_ms < quiet.until_boottime_ms;
        counts.then_some(quiet)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn save(&self, state: &Path) -> io::Result<()> {
        write_for_this_boot(&state.join(FILE), &serde_json::to_vec(self)?)
    }

    /// Forgets it; says whether there was one.
    ///
    /// # Errors
    /// When the file system says no: it still counts then.
    pub fn clear(state: &Path) -> io::Result<bool> {
        match fs::remove_file(state.join(FILE)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As NVML's state says it: why, and until when by the wall clock (seconds since 1970).
    #[must_use]
    pub fn text(&self, now_boottime_ms: u64, now_unix_s: i64) -> String {
        let left_s = self.until_boottime_ms.saturating_sub(now_boottime_ms) / 1000;
        let reason = if self.reason.is_empty() {
            "on request"
        } else {
            &self.reason
        };
        let end = i64::try_from(left_s)
            .ok()
            .and_then(|left| now_unix_s.checked_add(left));
        match end.and_then(|end| Timestamp::from_second(end).ok()) {
            Some(end) => format!("{reason}, until {end}"),
            None => reason.to_owned(),
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
        assert_eq!(quiet.text(0, 60), "on request, until 1970-01-01T00:01:01Z");
        assert_eq!(Quiet::load(dir.path(), "b1", 999), Some(quiet));
        assert_eq!(Quiet::load(dir.path(), "b1", 1000), None);
        assert_eq!(Quiet::load(dir.path(), "b2", 0), None);
        assert!(Quiet::clear(dir.path()).unwrap());
        assert!(!Quiet::clear(dir.path()).unwrap());
        assert_eq!(Quiet::load(dir.path(), "b1", 0), None);
        // No end is further away than a day, whoever wrote it.
        let endless = Quiet::begin("b1".to_owned(), u64::MAX, String::new(), 7);
        assert_eq!(endless.until_boottime_ms, 86_400_007);
        let forged = Quiet {
            until_boottime_ms: u64::MAX,
            ..endless
        };
        forged.save(dir.path()).unwrap();
        let end = Quiet::load(dir.path(), "b1", 7).unwrap().until_boottime_ms;
        assert_eq!(end, 86_400_007);
    }
}
