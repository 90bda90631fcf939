//! The spool's folder: segment files that are appended to, read back, and removed once nothing in them is needed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Acked, Header, Record, Stored};
use super::recover::{DiskError, Recovered, read_folder};
use crate::state::make_folder;

/// A segment is closed once it is larger than this, bytes.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Where a stored report lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
    /// Reports in it that nobody acknowledged.
    pub(super) reports: usize,
}

/// The open folder.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    segments: BTreeMap<u64, Segment>,
    active: Option<u64>,
    unsynced: bool,
}

/// Makes what was appended survive a power failure. Runs outside the loop, because a disk may take its time.
#[derive(Debug)]
pub struct SyncJob {
    file: Arc<File>,
    dir: PathBuf,
}

impl SyncJob {
    /// Waits for the disk.
    ///
    /// # Errors
    /// When the disk failed: what was written since the last success may be lost.
    pub fn run(&self) -> io::Result<()> {
        self.file.sync_data()?;
        File::open(&self.dir)?.sync_all()
    }
}

impl Disk {
    /// Opens or makes the folder and reads what is in it.
    ///
    /// # Errors
    /// When it cannot be read, or holds damage that no crash explains.
    pub(super) fn open(dir: &Path) -> Result<(Self, Recovered), DiskError> {
        make_folder(dir).map_err(io::Error::other)?;
        let mut recovered = read_folder(dir)?;
        let mut disk = Self {
            dir: dir.to_owned(),
            segments: std::mem::take(&mut recovered.segments),
            active: recovered.active,
            unsynced: false,
        };
        disk.remove_finished();
        Ok((disk, recovered))
    }

    /// Opens a new segment for reports from `header.first_number` on.
    ///
    /// # Errors
    /// When the file cannot be made; the disk is as before.
    pub(super) fn begin(&mut self, header: &Header) -> io::Result<()> {
        let number = self
            .segments
            .last_key_value()
            .map_or(1, |(number, _)| number + 1);
        let path = self.dir.join(format!("{number:010}.segment"));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let mut bytes = Vec::new();
        record::encode(&Record::Header(header.clone()), &mut bytes);
        if let Err(error) = (&file).write_all(&bytes) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let segment = Segment {
            path,
            file: Arc::new(file),
            bytes: bytes.len() as u64,
            reports: 0,
        };
        self.segments.insert(number, segment);
        self.active = Some(number);
        self.unsynced = true;
        self.remove_finished();
        Ok(())
    }

    /// Appends a report; a full segment is closed and a new one begun with `header`.
    ///
    /// # Errors
    /// When it could not be written whole; nothing of it stays.
    pub(super) fn append(&mut self, header: &Header, stored: &Stored) -> io::Result<Place> {
        let full = self
            .active_segment()
            .is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if full {
            self.begin(header)?;
        }
        let mut bytes = Vec::with_capacity(stored.report.len() + 64);
        record::encode(&Record::Stored(stored.clone()), &mut bytes);
        let (number, offset) = self.write(&bytes)?;
        self.unsynced = true;
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.reports += 1;
        }
        Ok(Place {
            segment: number,
            offset,
            bytes: bytes.len(),
        })
    }

    /// Notes what the server has. Losing the note only means sending again.
    pub(super) fn note_acked(&mut self, acked: &Acked) {
        let mut bytes = Vec::new();
        record::encode(&Record::Acked(acked.clone()), &mut bytes);
        if let Err(error) = self.write(&bytes) {
            tracing::debug!(%error, "acknowledgement not noted in the spool");
        }
    }

    /// Reads a report back.
    ///
    /// # Errors
    /// When the bytes are not there any more or are damaged.
    pub(super) fn read(&self, place: Place) -> io::Result<Stored> {
        let segment = self
            .segments
            .get(&place.segment)
            .ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; place.bytes];
        segment.file.read_exact_at(&mut bytes, place.offset)?;
        match record::decode(&bytes) {
            Some((Record::Stored(stored), _)) => Ok(stored),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// A report that is not needed any more. Its segment goes with its last one.
    pub(super) fn release(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.reports = segment.reports.saturating_sub(1);
        }
        self.remove_finished();
    }

    /// Goes on with no segment: each one goes with its last report, because nothing can be noted in it any more.
    pub(super) fn close(&mut self) {
        self.active = None;
        self.remove_finished();
    }

    /// Removes everything.
    pub(super) fn wipe(&mut self) {
        self.active = None;
        for segment in self.segments.values_mut() {
            segment.reports = 0;
        }
        self.remove_finished();
    }

    /// Bytes of all segments.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Bytes of the segment that is being written.
    #[must_use]
    pub(super) fn active_bytes(&self) -> u64 {
        self.active_segment().map_or(0, |segment| segment.bytes)
    }

    /// What has to reach the disk; `None` when everything has.
    pub(super) fn sync_job(&mut self) -> Option<SyncJob> {
        if !std::mem::take(&mut self.unsynced) {
            return None;
        }
        let file = Arc::clone(&self.active_segment()?.file);
        let dir = self.dir.clone();
        Some(SyncJob { file, dir })
    }

    fn active_segment(&self) -> Option<&Segment> {
        self.segments.get(&self.active?)
    }

    // A write that fails half-way is taken back, so that the file stays readable.
    fn write(&mut self, bytes: &[u8]) -> io::Result<(u64, u64)> {
        let number = self.active.ok_or(io::ErrorKind::NotFound)?;
        let segment = self
            .segments
            .get_mut(&number)
            .ok_or(io::ErrorKind::NotFound)?;
        let offset = segment.bytes;
        if let Err(error) = segment.file.as_ref().write_all(bytes) {
            let _ = segment.file.set_len(offset);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        Ok((number, offset))
    }

    fn remove_finished(&mut self) {
        let active = self.active;
        self.segments.retain(|number, segment| {
            let keep = segment.reports > 0 || active == Some(*number);
            if !keep && let Err(error) = fs::remove_file(&segment.path) {
                tracing::debug!(%error, file.path = %segment.path.display(), "segment not removed");
            }
            keep
        });
    }
}
