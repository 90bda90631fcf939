//! `journal rebuild`: folds all rows anew and compares with what snapshots say, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_core::{Command, Event};

use super::difference::difference;
use super::draft::sync_parent;
use super::{Damage, Held, look, stamp, submit};
use crate::clock::Clock;
use crate::config::Config;
use crate::open;
use crate::service::{self, Committed, Origin, Snapshots};
use crate::store::Store;

const PAGE: u32 = 10_000;

enum Verdict {
    /// It says what the rows say.
    Right,
    /// Nobody would use it.
    Unused(String),
    /// It is not what it must be.
    Wrong(String),
}

/// What the rows say, where a snapshot could say something else.
struct Fold {
    last: Committed,
    /// First row that there is.
    first: Seq,
    /// After the rows at which files call themselves snapshots.
    at: BTreeMap<Seq, Committed>,
    /// Digests that the journal notes, by last row.
    noted: BTreeMap<Seq, Vec<String>>,
}

/// Compares the snapshots of a directory with the journal and changes nothing, also beside a running server.
///
/// # Errors
/// [`Damage`] when one of them differs from what the rows fold to, with the rows of the state that do.
pub async fn check(dir: &Path) -> anyhow::Result<String> {
    let config = Config::read(dir)?;
    let store = look(&config).await?;
    let compared = compare(&*store, &open::snapshots(dir, &config)).await;
    store.close().await;
    let (fold, verdicts) = compared?;
    let mut lines = vec![format!("the journal folds: {} rows", fold.last.state.seq())];
    let mut wrong = false;
    for (path, verdict) in &verdicts {
        lines.push(line(path, verdict));
        wrong |= matches!(verdict, Verdict::Wrong(_));
    }
    if wrong {
        lines.push(
            "`gpuquota-server journal rebuild` without --check moves it aside and writes a new one"
                .into(),
        );
        return Err(Damage(lines.join("\n")).into());
    }
    Ok(lines.join("\n"))
}

/// Moves snapshots aside that differ or are of no use, writes a new one of all rows and notes it in the journal. What was
/// done.
///
/// # Errors
/// When a server runs, the journal does not fold, or files cannot be written.
pub async fn rebuild(dir: &Path, clock: Arc<dyn Clock>, by: Origin) -> anyhow::Result<String> {
    let held = Held::take(dir).await?;
    let rebuilt = renew(dir, &held, clock, by).await;
    held.store.close().await;
    rebuilt
}

async fn renew(
    dir: &Path,
    held: &Held,
    clock: Arc<dyn Clock>,
    by: Origin,
) -> anyhow::Result<String> {
    let snapshots = open::snapshots(dir, &held.config);
    let (fold, verdicts) = compare(&*held.store, &snapshots).await?;
    let mut lines = Vec::new();
    for (path, verdict) in &verdicts {
        let mut text = line(path, verdict);
        if !matches!(verdict, Verdict::Right) {
            let aside = aside(path, clock.wall());
            fs::rename(path, &aside).with_context(|| format!("cannot move {}", path.display()))?;
            sync_parent(&aside)?;
            text += &format!("; moved aside to {}", aside.display());
        }
        lines.push(text);
    }
    let written = snapshots.write_file(&fold.last);
    let (seq, digest) = written.context("cannot write the new snapshot")?;
    let command = Command::NoteSnapshot { seq, digest };
    submit(held.store.clone(), clock, fold.last, command, by).await?;
    lines.push(format!(
        "a snapshot of rows up to {seq} was written and noted in the journal"
    ));
    Ok(lines.join("\n"))
}

fn line(path: &Path, verdict: &Verdict) -> String {
    let path = path.display();
    match verdict {
        Verdict::Right => format!("{path}: says what the rows say"),
        Verdict::Unused(why) => format!("{path}: not used, {why}"),
        Verdict::Wrong(why) => format!("{path}: WRONG, {why}"),
    }
}

fn aside(path: &Path, now: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".aside-{}", stamp(now)));
    PathBuf::from(name)
}

async fn compare(
    store: &dyn Store,
    snapshots: &Snapshots,
) -> anyhow::Result<(Fold, Vec<(PathBuf, Verdict)>)> {
    let files = snapshots.files();
    let fold = fold(store, &files).await?;
    let mut verdicts = Vec::new();
    for path in files {
        let verdict = judge(store, &fold, &path).await?;
        verdicts.push((path, verdict));
    }
    Ok((fold, verdicts))
}

fn named(path: &Path) -> Option<Seq> {
    path.file_stem()?.to_str()?.parse().ok().map(Seq)
}

async fn fold(store: &dyn Store, files: &[PathBuf]) -> anyhow::Result<Fold> {
    let wanted: Vec<Seq> = files.iter().filter_map(|path| named(path)).collect();
    let mut at = BTreeMap::new();
    let mut noted: BTreeMap<Seq, Vec<String>> = BTreeMap::new();
    let whole = service::whole(store, |committed, record| {
        if wanted.contains(&committed.state.seq()) {
            at.insert(committed.state.seq(), committed.clone());
        }
        for event in &record.events {
            if let Event::SnapshotTaken { seq, digest } = event {
                noted.entry(*seq).or_default().push(digest.clone());
            }
        }
    })
    .await?;
    Ok(Fold {
        last: whole.committed,
        first: whole.base.map_or(Seq(1), |base| base.seq.next()),
        at,
        noted,
    })
}

async fn judge(store: &dyn Store, fold: &Fold, path: &Path) -> anyhow::Result<Verdict> {
    let candidate = match service::read_snapshot(path) {
        Ok(candidate) => candidate,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            return Ok(Verdict::Unused("another version wrote it".into()));
        }
        Err(error) => return Ok(Verdict::Wrong(format!("it cannot be read: {error}"))),
    };
    let seq = candidate.committed.state.seq();
    let Some(folded) = fold.at.get(&seq) else {
        let why = if seq < fold.first {
            "the rows that it follows are archived"
        } else if seq > fold.last.state.seq() {
            "it is of rows that the journal does not have"
        } else {
            return Ok(Verdict::Wrong(
                "its name is not that of its last row".into(),
            ));
        };
        return Ok(Verdict::Unused(why.into()));
    };
    let Some(noted) = fold.noted.get(&seq) else {
        return Ok(Verdict::Unused("the journal does not note it".into()));
    };
    let lines = difference(&folded.state, &candidate.committed.state)?;
    if !lines.is_empty() {
        return Ok(Verdict::Wrong(format!(
            "it differs from the rows up to {seq} in {}",
            lines.join("; ")
        )));
    }
    if !noted.contains(&candidate.digest) || folded.head != candidate.committed.head {
        return Ok(Verdict::Wrong(
            "its digest is not the one that the journal notes".into(),
        ));
    }
    let onwards = onwards(store, candidate.committed, fold.last.state.seq()).await?;
    let lines = difference(&fold.last.state, &onwards.state)?;
    if !lines.is_empty() || onwards.state != fold.last.state {
        return Ok(Verdict::Wrong(format!(
            "with the rows after it, it differs from all rows in {}",
            lines.join("; ")
        )));
    }
    Ok(Verdict::Right)
}

// A server may append meanwhile; what is compared ends at the same row.
async fn onwards(
    store: &dyn Store,
    mut committed: Committed,
    last: Seq,
) -> anyhow::Result<Committed> {
    while committed.state.seq() < last {
        let rows = store.rows_after(committed.state.seq(), PAGE).await?;
        anyhow::ensure!(
            !rows.is_empty(),
            "journal rows went away while they were read"
        );
        for row in rows.iter().take_while(|row| row.seq <= last) {
            service::step(&mut committed, row)?;
        }
    }
    Ok(committed)
}
