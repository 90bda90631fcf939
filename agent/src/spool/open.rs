//! Opening the spool: what an earlier run left is sent first, and what cannot be trusted is put aside.

use std::path::Path;

use super::disk::Disk;
use super::numbering::Numbering;
use super::queue::{Entry, Queue};
use super::recover::{DiskError, Recovered, set_aside};
use super::{Limits, Spool};

impl Spool {
    /// Opens the folder. What goes wrong is logged and leaves a spool that works in memory.
    #[must_use]
    pub fn open(dir: &Path, node: &str, boot_id: &str, limits: Limits) -> Self {
        let mut spool = Self {
            dir: dir.to_owned(),
            limits,
            disk: None,
            writable: false,
            numbering: Numbering::new(node, boot_id),
            queue: Queue::default(),
            retry_at_ms: None,
        };
        if let Err(error) = spool.open_disk() {
            tracing::error!(%error, spool.dir = %dir.display(), "spool not usable, reports are kept in memory only");
        }
        spool
    }

    fn open_disk(&mut self) -> Result<(), DiskError> {
        let (mut disk, mut recovered) = match Disk::open(&self.dir) {
            Err(DiskError::Corrupt { path, offset }) => {
                let aside = set_aside(&self.dir)?;
                tracing::error!(
                    file.path = %path.display(), file.offset = offset, moved.to = %aside.display(),
                    "spool is corrupt and set aside; the server gets a full report"
                );
                Disk::open(&self.dir)?
            }
            other => other?,
        };
        if recovered.torn_bytes > 0 {
            tracing::warn!(
                torn.bytes = recovered.torn_bytes,
                "spool ended in an unfinished record, which was cut off"
            );
        }
        let node = &self.numbering.scope().node;
        if recovered.scopes().any(|scope| scope.node != *node) {
            tracing::warn!("spool is of a node with another name and given up");
            disk.wipe();
            recovered = Recovered::default();
        }
        for report in recovered.reports {
            self.queue.push(Entry {
                scope: report.scope,
                number: report.number,
                at_boottime_ms: report.at_boottime_ms,
                place: Some(report.place),
                cached: None,
            });
        }
        self.disk = Some(disk);
        self.writable = true;
        match recovered.scope {
            Some((scope, last)) if scope.boot_id == self.numbering.scope().boot_id => {
                self.numbering = Numbering::resume(scope, last);
            }
            _ => self.begin_segment(),
        }
        Ok(())
    }
}
