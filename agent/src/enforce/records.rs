//! What is written down of programs on control groups, so that they are known after a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bpf;
use super::denylist::Number;
use super::group::{is_bpf, open_group};

/// Largest record that is read, bytes.
const LIMIT: u64 = 1 << 16;

/// Why a program is on a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The ledger does not justify a holder there.
    #[default]
    Restriction,
    /// What runs there runs under a lease, and gets its devices alone.
    Enclosure,
}

/// One program on one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) group: String,
    /// What it denies, as far as it is there.
    pub(super) nodes: Vec<Node>,
    /// The kernel's number of it.
    pub(super) program: u32,
    #[serde(default)]
    pub(super) kind: Kind,
}

/// A device node as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: String,
    major: u32,
    minor: u32,
}

impl Node {
    pub(super) fn new(path: &str, number: Number) -> Self {
        Self {
            path: path.to_owned(),
            major: number.major,
            minor: number.minor,
        }
    }

    pub(super) fn number(&self) -> Number {
        Number {
            major: self.major,
            minor: self.minor,
        }
    }
}

/// All records, and the programs that they are about.
#[derive(Debug)]
pub(super) struct Records {
    /// Folder of records; nobody but root writes there.
    records: PathBuf,
    /// Folder of pinned programs in a bpf file system.
    pub(super) pins: PathBuf,
}

impl Records {
    pub(super) fn new(records: PathBuf, pins: PathBuf) -> Self {
        Self { records, pins }
    }

    /// Makes the folders; the text says what is not there.
    pub(super) fn ready(&self) -> Result<(), String> {
        let above = self.pins.parent().unwrap_or(&self.pins);
        if !is_bpf(above) {
            return Err(format!(
                "no bpf file system is mounted on {}: mount -t bpf bpf {0}",
                above.display()
            ));
        }
        for folder in [&self.pins, &self.records] {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(format!("{}: {error}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn all(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.records).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            let small = fs::metadata(&path).ok()?.len() <= LIMIT;
            let text = small.then(|| fs::read(&path).ok())??;
            serde_json::from_slice::<Record>(&text).ok()
        };
        entries.filter_map(|entry| read(entry.path())).collect()
    }

    pub(super) fn of(&self, group: &str, kind: Kind) -> Vec<Record> {
        let mut records = self.all();
        records.retain(|record| record.group == group && record.kind == kind);
        records
    }

    /// Those whose programs are on their groups; what went with its group is forgotten, and what cannot be told is left out.
    pub(super) fn standing(&self, hierarchy: &Path) -> Vec<Record> {
        let mut records = self.all();
        records.retain(|record| match stands(hierarchy, record) {
            Some(true) => true,
            Some(false) => {
                self.forget(record.program);
                false
            }
            None => false,
        });
        records
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.record(record.program);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        fs::rename(fresh, path)
    }

    pub(super) fn forget(&self, program: u32) {
        let _ = fs::remove_file(self.record(program));
        let _ = fs::remove_file(self.pin(program));
    }

    pub(super) fn pin(&self, program: u32) -> PathBuf {
        self.pins.join(program.to_string())
    }

    fn record(&self, program: u32) -> PathBuf {
        self.records.join(format!("{program}.json"))
    }
}

// Whether the program of a record is on its group; `None`: the kernel does not say.
fn stands(hierarchy: &Path, record: &Record) -> Option<bool> {
    let group = hierarchy.join(record.group.trim_start_matches('/'));
    match fs::symlink_metadata(group) {
        // With the group its programs went.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
        about => about.ok()?,
    };
    let folder = open_group(hierarchy, &record.group).ok()?;
    let ids = bpf::attached(&folder).ok()?;
    Some(ids.contains(&record.program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_program_is_a_restriction_and_kinds_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().to_owned(), dir.path().join("pins"));
        let old =
            r#"{"group":"/a","nodes":[{"path":"/dev/nvidia0","major":195,"minor":0}],"program":3}"#;
        fs::write(dir.path().join("3.json"), old).unwrap();
        let enclosure = Record {
            group: "/a".to_owned(),
            nodes: Vec::new(),
            program: 4,
            kind: Kind::Enclosure,
        };
        records.write(&enclosure).unwrap();
        let programs = |kind| -> Vec<u32> {
            let of = records.of("/a", kind);
            of.iter().map(|record| record.program).collect()
        };
        assert_eq!(programs(Kind::Restriction), [3]);
        assert_eq!(programs(Kind::Enclosure), [4]);
        // Their group is no more.
        assert!(records.standing(dir.path()).is_empty());
        assert!(records.all().is_empty());
    }
}
