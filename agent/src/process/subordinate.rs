//! Ids that this host lends its users for their own user namespaces (subuid(5), subgid(5)).
//!
//! Whoever was lent a range chooses ids from it for what runs in a rootless container. Where a range overlaps with ids of a
//! directory service, as the usual one from 100000 on does, such a process has the id of somebody else.

use std::fs;
use std::path::Path;

/// What is read of each file, bytes.
const FILE_LIMIT: usize = 4 << 20;

/// The ranges of both files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subordinate {
    uids: Vec<(u64, u64)>,
    gids: Vec<(u64, u64)>,
    /// `nsswitch.conf` asks somebody else for ranges (`subid: sss`): any id may be a lent one.
    elsewhere: bool,
}

/// Which ids of a process are lent ones: they do not say whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    /// Its user id.
    pub uid: bool,
    /// Its group id.
    pub gid: bool,
}

impl Subordinate {
    /// Reads `subuid` and `subgid` in this folder, usually `/etc`; one that is not there lends nothing.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let ranges = |name| {
            let text = fs::read(folder.join(name)).unwrap_or_default();
            parse(text.get(..text.len().min(FILE_LIMIT)).unwrap_or_default())
        };
        Self {
            uids: ranges("subuid"),
            gids: ranges("subgid"),
            elsewhere: asks_elsewhere(&fs::read(folder.join("nsswitch.conf")).unwrap_or_default()),
        }
    }

    /// For a process in a user namespace of its own.
    #[must_use]
    pub fn lent(&self, uid: u32, gid: u32) -> Lent {
        let within = |ranges: &[(u64, u64)], id: u32| {
            let id = u64::from(id);
            let mut ranges = ranges.iter();
            self.elsewhere || ranges.any(|(first, count)| id >= *first && id - *first < *count)
        };
        Lent {
            uid: within(&self.uids, uid),
            gid: within(&self.gids, gid),
        }
    }
}

/// `subid: files` or no such line: the two files say all.
fn asks_elsewhere(text: &[u8]) -> bool {
    let subid = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let line = line.split('#').next()?.trim();
        line.strip_prefix("subid:").map(str::to_owned)
    };
    let sources = text.split(|b| *b == b'\n').find_map(subid);
    sources.is_some_and(|sources| {
        sources
            .split_whitespace()
            .any(|source| source != "files" && !source.starts_with('['))
    })
}

/// `NAME:FIRST:COUNT`.
fn parse(text: &[u8]) -> Vec<(u64, u64)> {
    let range = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.trim().split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.split(|b| *b == b'\n').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_range_are_lent() {
        let folder = tempfile::tempdir().unwrap();
        let uids = "ann:100000:65536\n# x\nbob:200000:1\nbroken:1\nworse:x:2\n1000:300000:2\n";
        fs::write(folder.path().join("subuid"), uids).unwrap();
        let lent = Subordinate::read(folder.path());
        for (uid, expected) in [
            (99_999, false),
            (100_000, true),
            (165_535, true),
            (165_536, false),
            (200_000, true),
            (200_001, false),
            (300_001, true),
            (1, false),
        ] {
            assert_eq!(
                lent.lent(uid, 100_000),
                Lent {
                    uid: expected,
                    gid: false
                }
            );
        }
        for (text, elsewhere) in [
            ("passwd: files sss\n", false),
            ("subid: files # sss\n", false),
            ("subid: sss\n", true),
            ("subid:files [NOTFOUND=return] sss\n", true),
        ] {
            fs::write(folder.path().join("nsswitch.conf"), text).unwrap();
            let lent = Subordinate::read(folder.path()).lent(1, 1);
            assert_eq!((lent.uid, lent.gid), (elsewhere, elsewhere), "{text}");
        }
        fs::remove_file(folder.path().join("nsswitch.conf")).unwrap();
        fs::write(folder.path().join("subgid"), "ann:100000:1").unwrap();
        let lent = Subordinate::read(folder.path()).lent(1, 100_000);
        assert_eq!(
            lent,
            Lent {
                uid: false,
                gid: true
            }
        );
    }
}
