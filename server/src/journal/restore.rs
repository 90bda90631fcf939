//! `restore`: puts a backup in place of the ledger, under agents that may go on running.
//!
//! The backup's copy is checked and begins its next incarnation under another name first; one rename then makes it the
//! ledger, so an interrupted run leaves the old one or the new one, whole. Nothing is deleted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gpuquota_core::archive::Head;
use gpuquota_core::id::{Incarnation, Seq};
use gpuquota_core::{Command, Event, Record, State};

use super::backup::{self, LEDGER, Manifest};
use super::draft::sync_parent;
use super::{Damage, Held, ledger_file, stamp, submit};
use crate::clock::Clock;
use crate::config::{Config, FILE};
use crate::open;
use crate::service::{self, Committed, Origin, Snapshots};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

const PAGE: u32 = 10_000;
/// What SQLite keeps beside a file.
const SIDES: [&str; 2] = ["-wal", "-shm"];

/// Puts the backup `from` in place of the ledger of `dir`; files of the backup that `dir` lacks are put there too. The new
/// incarnation is at least `at_least`. What was done.
///
/// # Errors
/// When a server runs, the backup is damaged, or files cannot be written; the ledger is then what it was.
pub async fn restore(
    dir: &Path,
    from: &Path,
    at_least: Incarnation,
    clock: Arc<dyn Clock>,
    by: Origin,
) -> anyhow::Result<String> {
    let source = from.join(LEDGER);
    if !source.exists() {
        bail!(
            "there is no {LEDGER} in {}; name the folder that `gpuquota-server backup` wrote",
            from.display()
        );
    }
    let manifest = backup::check(from)?;
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make {}", dir.display()))?;
    let _lock = open::lock(dir)?;
    let taken = take_missing(dir, from, manifest.as_ref())?;
    let config = Config::read(dir)?;
    let ledger = &ledger_file(&config)?;
    let old = End::of(&open::snapshots(dir, &config), ledger).await?;
    let staged = beside(ledger, ".restoring");
    let restored = stage(
        &source,
        &staged,
        manifest.as_ref(),
        &old,
        at_least,
        clock.clone(),
        by,
    );
    let committed = match restored.await {
        Ok(committed) => committed,
        Err(error) => {
            remove(&staged)?;
            return Err(error.context("nothing was restored"));
        }
    };
    let mut lines = vec![format!(
        "restored journal rows up to {}, head {}, from {}",
        committed.state.seq(),
        committed.head,
        from.display()
    )];
    let suffix = free_suffix(&[ledger, &open::snapshot_folder(dir)], &stamp(clock.wall()));
    if let Some(aside) = replace(ledger, &staged, &suffix)? {
        lines.push(format!(
            "the ledger that it replaces is {}",
            aside.display()
        ));
    }
    let snapshots = open::snapshot_folder(dir);
    if snapshots.exists() {
        let aside = beside(&snapshots, &suffix);
        fs::rename(&snapshots, &aside).with_context(|| {
            format!(
                "the journal is restored, but {} is still there; move it away",
                snapshots.display()
            )
        })?;
        lines.push(format!("its snapshots are in {}", aside.display()));
    }
    if let Some(reason) = &old.unreadable {
        lines.push(format!(
            "the replaced ledger could not be read to its end ({reason}): if it had been restored before, restore again with --incarnation above {}",
            old.incarnation
        ));
    }
    if !taken.is_empty() {
        lines.push(format!("taken from the backup too: {}", taken.join(", ")));
    }
    lines.push("start the server; agents reconnect and report what they hold".into());
    Ok(lines.join("\n"))
}

/// Begins the next incarnation, at least this one, on a ledger that was put back by other means. What was done.
///
/// # Errors
/// When a server runs, or the journal does not fold or cannot be written to.
pub async fn begin(
    dir: &Path,
    at_least: Incarnation,
    clock: Arc<dyn Clock>,
    by: Origin,
) -> anyhow::Result<String> {
    let held = Held::take(dir).await?;
    let begun = async {
        let committed = service::whole(&*held.store, |_, _| {}).await?.committed;
        let command = Command::Restore(at_least, None);
        submit(held.store.clone(), clock, committed, command, by).await?;
        let committed = service::whole(&*held.store, |_, _| {}).await?.committed;
        anyhow::Ok(committed.state.incarnation())
    }
    .await;
    held.store.close().await;
    Ok(format!("incarnation {} begins; start the server", begun?))
}

// On a new machine the backup brings its configuration; what is there is never overwritten.
fn take_missing(
    dir: &Path,
    from: &Path,
    manifest: Option<&Manifest>,
) -> anyhow::Result<Vec<String>> {
    if manifest.is_none() && !dir.join(FILE).exists() {
        bail!(
            "{} has no {FILE}, and the backup brings none; make one with `gpuquota-server init`",
            dir.display()
        );
    }
    let files = manifest
        .into_iter()
        .flat_map(|manifest| manifest.files.keys());
    let mut taken = Vec::new();
    for name in files.filter(|name| *name != LEDGER) {
        let (source, to) = (from.join(name), dir.join(name));
        if !to.exists() {
            let mode = fs::metadata(&source)?.permissions().mode() & 0o777;
            backup::copy_file(&source, &to, mode)?;
            taken.push(name.clone());
        }
    }
    Ok(taken)
}

/// Where the ledger that goes ended, as far as it can be read; its rows need not match their hashes.
struct End {
    head: Option<Head>,
    incarnation: Incarnation,
    unreadable: Option<String>,
}

impl End {
    async fn of(snapshots: &Snapshots, ledger: &Path) -> anyhow::Result<Self> {
        let mut end = Self {
            head: None,
            incarnation: Incarnation(0),
            unreadable: None,
        };
        // A snapshot may know what a damaged journal does not say any more.
        for path in snapshots.files() {
            if let Some(incarnation) = service::incarnation_of(&path) {
                end.meet(incarnation);
            }
        }
        if !ledger.exists() {
            return Ok(end);
        }
        // For writing, so that what is in its log goes into the file that is put aside.
        match SqliteStore::open(ledger).await {
            Ok(store) => {
                if let Err(error) = end.read(&store).await {
                    end.unreadable = Some(format!("{error:#}"));
                }
                store.close().await;
            }
            Err(error) => end.unreadable = Some(error.to_string()),
        }
        Ok(end)
    }

    fn meet(&mut self, incarnation: Incarnation) {
        self.incarnation = self.incarnation.max(incarnation);
    }

    async fn read(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let mut seq = Seq(0);
        if let Some(base) = store.base().await? {
            let state: State = serde_json::from_str(&base.state)?;
            self.meet(state.incarnation());
            seq = base.seq;
        }
        loop {
            let rows = store.rows_after(seq, PAGE).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            for row in &rows {
                let record: Record = serde_json::from_str(&row.body)?;
                for event in &record.events {
                    if let Event::Restored { incarnation, .. } = event {
                        self.meet(*incarnation);
                    }
                }
            }
            seq = last.seq;
            self.head = Some(Head {
                seq,
                hash: last.hash.to_string(),
            });
        }
    }
}

// A copy of the backup's journal, checked, with the row that begins the next incarnation.
async fn stage(
    source: &Path,
    staged: &Path,
    manifest: Option<&Manifest>,
    old: &End,
    at_least: Incarnation,
    clock: Arc<dyn Clock>,
    by: Origin,
) -> anyhow::Result<Committed> {
    remove(staged)?;
    for side in ["", "-wal"] {
        let (source, to) = (beside(source, side), beside(staged, side));
        if side.is_empty() || source.exists() {
            backup::copy_file(&source, &to, 0o600)?;
        }
    }
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(staged).await?);
    let begun = async {
        let committed = service::whole(&*store, |_, _| {}).await?.committed;
        let (seq, head) = (committed.state.seq(), committed.head.to_string());
        if manifest.is_some_and(|it| (it.seq, &it.head) != (seq, &head)) {
            return Err(Damage(format!(
                "the backup's journal ends with row {seq}, which its manifest does not say"
            ))
            .into());
        }
        let at_least = at_least.max(old.incarnation.next());
        let command = Command::Restore(at_least, old.head.clone());
        submit(store.clone(), clock, committed, command, by).await?;
        anyhow::Ok(service::whole(&*store, |_, _| {}).await?.committed)
    }
    .await;
    store.close().await;
    let committed = begun?;
    if beside(staged, "-wal").exists() {
        bail!(
            "{} cannot be closed; is another program looking at it?",
            staged.display()
        );
    }
    let synced = File::open(staged).and_then(|file| file.sync_all());
    synced.with_context(|| format!("cannot sync {}", staged.display()))?;
    Ok(committed)
}

// Makes `staged` the ledger; where the old one is now.
fn replace(ledger: &Path, staged: &Path, suffix: &str) -> anyhow::Result<Option<PathBuf>> {
    let aside = ledger.exists().then(|| beside(ledger, suffix));
    if let Some(aside) = &aside {
        // A log that is left, because the old ledger could not be opened, would be read into the new one.
        for side in SIDES {
            let (log, to) = (beside(ledger, side), beside(aside, side));
            if log.exists() {
                fs::rename(&log, &to).with_context(|| format!("cannot move {}", log.display()))?;
            }
        }
        // Two names for a moment: at no time is there no ledger.
        fs::hard_link(ledger, aside)
            .with_context(|| format!("cannot keep {} as {}", ledger.display(), aside.display()))?;
    }
    fs::rename(staged, ledger)
        .with_context(|| format!("cannot put {} in place", ledger.display()))?;
    sync_parent(ledger)?;
    Ok(aside)
}

// Under which what is replaced is kept; a second restore within one second gets another.
fn free_suffix(files: &[&Path], stamp: &str) -> String {
    let mut suffix = format!(".replaced-{stamp}");
    let mut number = 1;
    while files.iter().any(|file| beside(file, &suffix).exists()) {
        number += 1;
        suffix = format!(".replaced-{stamp}-{number}");
    }
    suffix
}

fn remove(file: &Path) -> anyhow::Result<()> {
    for side in ["", "-wal", "-shm"] {
        let path = beside(file, side);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
