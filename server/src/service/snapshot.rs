//! Snapshots: the state in a file, so that a restart folds only what came after it.
//!
//! A file is one line of header and one of state, both JSON, named by its last row. It is written to a temporary name,
//! synced, renamed, and then noted in the journal with its digest; a file that the journal does not note is not used.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gpuquota_core::id::{Incarnation, Seq};
use gpuquota_core::{Event, Record, State};
use serde::{Deserialize, Serialize};

use super::Committed;
use crate::store::Hash;

/// Grows with every change of what a state's JSON means, and of what a row makes of a state.
pub(crate) const FORMAT: u32 = 8;
const KEEP: usize = 3;

/// Where snapshots are kept and how often one is due.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
    every_rows: u64,
    /// Last row of the snapshot that was begun last, whatever became of it.
    begun: Arc<AtomicU64>,
    writing: Arc<AtomicBool>,
    in_place: bool,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    seq: Seq,
    head: String,
}

/// A readable snapshot, not yet vouched for.
pub(crate) struct Candidate {
    pub(crate) path: PathBuf,
    pub(crate) committed: Committed,
    pub(crate) digest: String,
}

impl Candidate {
    /// Whether a journal row notes this very file.
    pub(crate) fn noted_by(&self, record: &Record) -> bool {
        record.events.iter().any(|event| match event {
            Event::SnapshotTaken { seq, digest } => {
                *seq == self.committed.state.seq() && *digest == self.digest
            }
            _ => false,
        })
    }
}

impl Snapshots {
    /// Snapshots in `dir`, one due every `every_rows` rows.
    #[must_use]
    pub fn new(dir: PathBuf, every_rows: u64) -> Self {
        Self {
            dir,
            every_rows,
            begun: Arc::default(),
            writing: Arc::default(),
            in_place: false,
        }
    }

    /// Writes without a thread of its own, for a runtime in which everything happens in one order.
    #[must_use]
    pub fn in_place(mut self) -> Self {
        self.in_place = true;
        self
    }

    /// Whether one is due; whoever hears so writes it. One that failed or is not noted yet is tried again only when the
    /// next is due, for a full disk would get fuller with each attempt.
    pub(super) fn due(&self, state: &State) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        let last = state.snapshot().map_or(0, |seq| seq.0).max(begun);
        let due = state.seq().0.saturating_sub(last) >= self.every_rows
            && !self.writing.swap(true, Ordering::AcqRel);
        if due {
            self.begun.store(state.seq().0, Ordering::Release);
        }
        due
    }

    /// Writes one; its last row and digest. Failure costs only start-up time, so it is logged and over.
    pub(super) async fn write(&self, committed: Arc<Committed>) -> Option<(Seq, String)> {
        let snapshots = self.clone();
        let write = move || {
            let written = snapshots.write_file(&committed);
            snapshots.writing.store(false, Ordering::Release);
            written
        };
        let written = if self.in_place {
            Ok(write())
        } else {
            tokio::task::spawn_blocking(write).await
        };
        match written {
            Ok(Ok(written)) => Some(written),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "cannot write a snapshot");
                None
            }
            Err(_) => None,
        }
    }

    /// Writes one now; its last row and digest.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub(crate) fn write_file(&self, committed: &Committed) -> io::Result<(Seq, String)> {
        fs::create_dir_all(&self.dir)?;
        let seq = committed.state.seq();
        let header = Header {
            format: FORMAT,
            seq,
            head: committed.head.to_string(),
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, &committed.state)?;
        let path = self.dir.join(format!("{:020}.snapshot", seq.0));
        let temporary = path.with_extension("writing");
        put(&temporary, &bytes, &path).inspect_err(|_| {
            // What is half written only takes space.
            let _ = fs::remove_file(&temporary);
        })?;
        fs::File::open(&self.dir)?.sync_all()?;
        for old in self.files().into_iter().skip(KEEP) {
            fs::remove_file(old)?;
        }
        Ok((seq, Hash::of(&bytes).to_string()))
    }

    /// Readable snapshots, newest first, read one by one.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Candidate> + Send {
        self.files()
            .into_iter()
            .filter_map(|path| match read(&path) {
                Ok(candidate) => Some(candidate),
                Err(error) => {
                    tracing::warn!(
                        snapshot.path = %path.display(), error = %error,
                        "a snapshot cannot be read; it is left aside"
                    );
                    None
                }
            })
    }

    /// All files that are called snapshots, newest first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
            .collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        files
    }
}

fn put(temporary: &Path, bytes: &[u8], path: &Path) -> io::Result<()> {
    let mut file = fs::File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// Reads a snapshot.
///
/// # Errors
/// When it cannot be read, or is none that this program understands.
pub(crate) fn read(path: &Path) -> io::Result<Candidate> {
    let bytes = fs::read(path)?;
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, state) = bytes.split_at(end.ok_or_else(|| broken("no header"))?);
    let header: Header = serde_json::from_slice(header)?;
    if header.format != FORMAT {
        let reason = "it has another format";
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    let state: State = serde_json::from_slice(state)?;
    if state.seq() != header.seq {
        return Err(broken("header and state differ"));
    }
    let head: Hash = header.head.parse().map_err(|_| broken("no hash"))?;
    Ok(Candidate {
        path: path.to_owned(),
        committed: Committed { state, head },
        digest: Hash::of(&bytes).to_string(),
    })
}

/// The incarnation that a snapshot of any version knows; `None`: it tells none.
pub(crate) fn incarnation_of(path: &Path) -> Option<Incarnation> {
    #[derive(Deserialize)]
    struct Told {
        incarnation: Incarnation,
    }
    let bytes = fs::read(path).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let told: Told = serde_json::from_slice(bytes.get(end..)?).ok()?;
    Some(told.incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_core::Record;
    use gpuquota_core::id::Timestamp;

    #[tokio::test]
    async fn case_56_one_that_cannot_be_written_leaves_nothing_and_is_not_tried_for_every_row() {
        let dir = tempfile::tempdir().unwrap();
        // A directory stands where the file should be.
        let place = dir.path().join(format!("{:020}.snapshot", 2));
        fs::create_dir(&place).unwrap();
        let snapshots = Snapshots::new(dir.path().to_owned(), 2);
        let mut committed = Committed::empty();
        let record = Record {
            actor: "server".into(),
            request_id: None,
            from: None,
            reason: None,
            tenants: Default::default(),
            replay: None,
            events: Vec::new(),
        };
        let mut tried = Vec::new();
        for seq in 1..=4 {
            committed.state.apply(Seq(seq), Timestamp(1), None, &record);
            if snapshots.due(&committed.state) {
                let written = snapshots.write(Arc::new(committed.clone())).await;
                tried.push((seq, written.is_some()));
            }
        }
        assert_eq!(tried, [(2, false), (4, true)]);
        let names = fs::read_dir(dir.path()).unwrap();
        let left = names.map(|entry| entry.unwrap().path());
        let half: Vec<_> = left
            .filter(|path| path.extension().is_some_and(|end| end == "writing"))
            .collect();
        assert!(half.is_empty(), "{half:?}");
    }

    #[test]
    fn one_of_another_format_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(dir.path().to_owned(), 1);
        snapshots.write_file(&Committed::empty()).unwrap();
        assert_eq!(snapshots.candidates().count(), 1);
        // The first format knew no tenants' numbers, models of the catalogue, or licences.
        let path = snapshots.files().remove(0);
        let text = fs::read_to_string(&path).unwrap();
        let earlier = text.replacen(&format!("\"format\":{FORMAT}"), "\"format\":1", 1);
        assert_ne!(earlier, text);
        fs::write(&path, earlier).unwrap();
        assert_eq!(snapshots.candidates().count(), 0);
    }
}
