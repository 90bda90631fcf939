//! `journal archive`: old rows leave the journal for a file, and the chain of hashes stays whole.
//!
//! In this order, each step repeatable, so that an interrupted run leaves a journal that folds and another run finishes:
//! 1. the rows are written to the file, which is read back and checked,
//! 2. the state after the last of them is put into the database as a base,
//! 3. a journal row notes row, hash, file and base,
//! 4. the rows are deleted.
//!
//! The base is used only when its rows are gone, and only as the journal row notes it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gpuquota_core::archive::Archive;
use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_core::{Command, Event};

use super::draft::Draft;
use super::{Damage, Held, export, files, submit};
use crate::clock::Clock;
use crate::rest;
use crate::service::{self, Committed, Origin};
use crate::store::{Hash, Store};

const PAGE: u32 = 10_000;

/// Which rows are old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Those before this row.
    Row(Seq),
    /// Those of before this time.
    Time(Timestamp),
}

impl FromStr for Before {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(seq) = text.parse() {
            return Ok(Self::Row(Seq(seq)));
        }
        rest::parse_time(text).map(Self::Time).ok_or(
            "a date such as 2026-01-31, a time such as 2026-01-31T12:00:00Z, or a row number",
        )
    }
}

/// Archives the rows of a directory's journal. What was done.
///
/// # Errors
/// When a server runs, the journal is damaged, or `out` exists with something else in it or cannot be written.
pub async fn archive(
    dir: &Path,
    before: Before,
    out: &Path,
    clock: Arc<dyn Clock>,
    by: Origin,
) -> anyhow::Result<String> {
    let held = Held::take(dir).await?;
    let archived = archive_rows(held.store.clone(), before, out, clock, by).await;
    held.store.close().await;
    archived
}

/// The same on an open journal that nobody else writes to.
///
/// # Errors
/// As [`archive`].
pub async fn archive_rows(
    store: Arc<dyn Store>,
    before: Before,
    out: &Path,
    clock: Arc<dyn Clock>,
    by: Origin,
) -> anyhow::Result<String> {
    let Some(through) = last_before(&*store, before).await? else {
        return Ok("no rows are that old; nothing was changed".to_owned());
    };
    let (old, last, noted) = fold(&*store, through).await?;
    let base = service::base_of(&old)?;
    let file = write(&*store, through, out).await?;
    let note = Archive {
        through,
        head: base.head.to_string(),
        file: file.to_string(),
        base: base.digest.to_string(),
    };
    store.put_base(&base).await?;
    if !noted.contains(&note) {
        submit(store.clone(), clock, last, Command::NoteArchive(note), by).await?;
    }
    let rows = store.drop_archived(&base).await?;
    if rows == 0 {
        bail!("the base of row {through} is not in the database; run the same command again");
    }
    Ok(format!(
        "{rows} rows up to {through} are in {} (SHA-256 {file}) and no longer in the journal; keep that file",
        out.display()
    ))
}

// The last row that is old; `None` when no row is.
async fn last_before(store: &dyn Store, before: Before) -> anyhow::Result<Option<Seq>> {
    let mut seq = store.base().await?.map_or(Seq(0), |base| base.seq);
    let mut found = None;
    loop {
        let rows = store.rows_after(seq, PAGE).await?;
        let old = rows.iter().take_while(|row| match before {
            Before::Row(seq) => row.seq < seq,
            Before::Time(time) => row.at < time,
        });
        found = old.last().map(|row| row.seq).or(found);
        match rows.last() {
            Some(last) if found == Some(last.seq) => seq = last.seq,
            _ => return Ok(found),
        }
    }
}

// The ledger after the last old row and after the last of all, and the archives of that row that are noted.
async fn fold(
    store: &dyn Store,
    through: Seq,
) -> anyhow::Result<(Committed, Committed, Vec<Archive>)> {
    let (mut old, mut noted) = (None, Vec::new());
    let whole = service::whole(store, |committed, record| {
        if committed.state.seq() == through {
            old = Some(committed.clone());
        }
        noted.extend(record.events.iter().filter_map(|event| match event {
            Event::Archived(archive) if archive.through == through => Some(archive.clone()),
            _ => None,
        }));
    })
    .await?;
    let old = old.ok_or_else(|| Damage(format!("journal row {through} is missing")))?;
    Ok((old, whole.committed, noted))
}

// Writes the rows, reads them back, and only then gives the file its name; its digest.
async fn write(store: &dyn Store, through: Seq, out: &Path) -> anyhow::Result<Hash> {
    let header = export::header(store, None, Some(through)).await?;
    let mut draft = Draft::begin(out)?;
    export::write(store, &header, &mut draft).await?;
    let digest = draft.sync()?;
    let written: PathBuf = draft.temporary().to_owned();
    files::read(&[written], |_| Ok(()))
        .context("the archive does not read back as it was written; nothing was changed")?;
    if out.exists() {
        let there = std::fs::read(out).with_context(|| format!("cannot read {}", out.display()))?;
        if Hash::of(&there) != digest {
            bail!(
                "{} exists and holds something else; name another file",
                out.display()
            );
        }
        return Ok(digest);
    }
    draft.name()
}
