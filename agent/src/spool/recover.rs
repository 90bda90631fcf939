//! Reading the spool's folder back after a restart, and putting it aside when it cannot be trusted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::disk::{Place, Segment};
use super::record::{self, Acked, End, Header, Record};
use crate::state::{open_own, read_own};

/// A segment ends with the report that fills it; a longer file is none.
const MOST_BYTES: u64 = 64 << 20;

/// Why the folder cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// The file system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something unreadable lies before good records.
    #[error("{path} is corrupt at byte {offset}")]
    Corrupt {
        /// Which segment.
        path: PathBuf,
        /// Where in it.
        offset: usize,
    },
}

/// A report that nobody acknowledged.
#[derive(Debug)]
pub(super) struct Found {
    /// The scope it belongs to.
    pub(super) scope: Arc<Header>,
    /// Its number there.
    pub(super) number: u64,
    /// CLOCK_BOOTTIME of the observation, milliseconds.
    pub(super) at_boottime_ms: u64,
    /// Where it lies.
    pub(super) place: Place,
}

/// What was found in the folder.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Reports that nobody acknowledged, oldest first.
    pub(super) reports: Vec<Found>,
    /// The files.
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The file that can be gone on with.
    pub(super) active: Option<u64>,
    /// Scope of that file and the last number given in it.
    pub(super) scope: Option<(Arc<Header>, u64)>,
    /// Bytes that were cut off because a crash left them unfinished.
    pub(super) torn_bytes: usize,
    /// Highest number that the server has, by scope.
    acked: BTreeMap<String, u64>,
}

/// Reads all segments in their order.
///
/// # Errors
/// When one cannot be read, or holds damage that no crash explains.
pub(super) fn read_folder(dir: &Path) -> Result<Recovered, DiskError> {
    let mut recovered = Recovered::default();
    let files = segment_files(dir)?;
    let last = files.last_key_value().map(|(number, _)| *number);
    for (number, path) in files {
        recovered.read_segment(number, path, last == Some(number))?;
    }
    let acked = std::mem::take(&mut recovered.acked);
    recovered.reports.retain(|report| {
        let mark = acked.get(&report.scope.spool_id);
        mark.is_none_or(|acked| report.number > *acked)
    });
    for report in &recovered.reports {
        if let Some(segment) = recovered.segments.get_mut(&report.place.segment) {
            segment.reports += 1;
        }
    }
    Ok(recovered)
}

/// Moves a damaged folder out of the way, for a person to look at. Only the newest one is kept.
///
/// # Errors
/// When the file system says no.
pub(super) fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let aside = dir.with_extension("damaged");
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(dir, &aside).map(|()| aside),
    }
}

impl Recovered {
    /// The scopes of everything that is still of use.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &Header> {
        let reports = self.reports.iter().map(|report| &*report.scope);
        reports.chain(self.scope.iter().map(|(scope, _)| &**scope))
    }

    fn read_segment(&mut self, number: u64, path: PathBuf, last: bool) -> Result<(), DiskError> {
        let bytes = read_own(&path, MOST_BYTES)?;
        let (records, end) = record::scan(&bytes);
        let good = match end {
            End::Clean => bytes.len(),
            End::Torn(offset) if last => offset,
            End::Torn(offset) | End::Corrupt(offset) => {
                return Err(DiskError::Corrupt { path, offset });
            }
        };
        let corrupt_at = |offset| DiskError::Corrupt {
            path: path.clone(),
            offset,
        };
        let before = self.scope.take();
        let mut scope: Option<(Arc<Header>, u64)> = None;
        for (record, span) in records {
            match (record, &mut scope) {
                (Record::Header(header), None) => {
                    let last_number = header.first_number.saturating_sub(1);
                    // A segment missing between two of one scope would leave a gap in its numbers.
                    if before.as_ref().is_some_and(|(before, last)| {
                        before.spool_id == header.spool_id && *last != last_number
                    }) {
                        return Err(corrupt_at(0));
                    }
                    scope = Some((Arc::new(header), last_number));
                }
                (Record::Stored(stored), Some((header, last))) if stored.number == *last + 1 => {
                    *last = stored.number;
                    let place = Place {
                        segment: number,
                        offset: span.offset as u64,
                        bytes: span.bytes,
                    };
                    self.reports.push(Found {
                        scope: Arc::clone(header),
                        number: stored.number,
                        at_boottime_ms: stored.at_boottime_ms,
                        place,
                    });
                }
                (Record::Acked(Acked { spool_id, number }), Some(_)) => {
                    let highest = self.acked.entry(spool_id).or_default();
                    *highest = number.max(*highest);
                }
                _ => return Err(corrupt_at(span.offset)),
            }
        }
        let file = open_own(&path, OFlags::RDWR | OFlags::APPEND)?;
        if good < bytes.len() {
            file.set_len(good as u64)?;
        }
        self.torn_bytes = bytes.len() - good;
        // After a cut the scope is over: a number of what was cut off may have been sent.
        self.scope = scope.filter(|_| self.torn_bytes == 0);
        self.active = self.scope.is_some().then_some(number);
        let segment = Segment {
            path,
            file: Arc::new(file),
            bytes: good as u64,
            reports: 0,
        };
        self.segments.insert(number, segment);
        Ok(())
    }
}

fn segment_files(dir: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|e| e == "segment")
        {
            files.insert(number, path);
        }
    }
    Ok(files)
}
