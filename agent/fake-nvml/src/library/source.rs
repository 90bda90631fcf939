//! The scenario file as a running program sees it: read again whenever it changes.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{env, fs};

use crate::scenario::Scenario;
use crate::{SCENARIO_VARIABLE, file};

use super::hold;

#[derive(Default)]
pub(super) struct Source {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    path: Option<PathBuf>,
    seen: Option<Stamp>,
    scenario: Option<Arc<Scenario>>,
    complaint: Option<String>,
}

/// Enough to tell one version of the file from the next without opening it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Source {
    /// Looks up which file to play; called when nobody has initialised the library yet.
    pub(super) fn open(&self) {
        let path = env::var_os(SCENARIO_VARIABLE)
            .filter(|value: &OsString| !value.is_empty())
            .map(PathBuf::from);
        let mut state = hold(&self.state);
        if state.path != path {
            *state = State {
                path,
                ..State::default()
            };
        }
    }

    /// Which file is played.
    pub(super) fn path(&self) -> Option<PathBuf> {
        hold(&self.state).path.clone()
    }

    /// The newest good version of the file; `None` when there never was one.
    pub(super) fn current(&self) -> Option<Arc<Scenario>> {
        let mut state = hold(&self.state);
        state.refresh();
        state.scenario.clone()
    }
}

impl State {
    fn refresh(&mut self) {
        let Some(path) = &self.path else {
            self.complain(format!("{SCENARIO_VARIABLE} names no scenario file"));
            return;
        };
        let stamp = match fs::metadata(path) {
            Ok(about) => Stamp {
                inode: about.ino(),
                size: about.size(),
                seconds: about.mtime(),
                nanoseconds: about.mtime_nsec(),
            },
            Err(error) => {
                let complaint = format!("{}: {error}", path.display());
                // Whatever comes back under this name is new.
                self.seen = None;
                self.complain(complaint);
                return;
            }
        };
        if self.seen.as_ref() == Some(&stamp) {
            return;
        }
        match file::read(path) {
            Ok(scenario) => {
                self.scenario = Some(Arc::new(scenario));
                self.complaint = None;
            }
            Err(error) => self.complain(error.to_string()),
        }
        self.seen = Some(stamp);
    }

    /// Once per fault, or a polling program would fill its log with the same line.
    fn complain(&mut self, complaint: String) {
        if self.complaint.as_ref() == Some(&complaint) {
            return;
        }
        let keeps = if self.scenario.is_some() {
            "; the last good scenario stays"
        } else {
            ""
        };
        eprintln!("gpuquota-fake-nvml: {complaint}{keeps}");
        self.complaint = Some(complaint);
    }
}
