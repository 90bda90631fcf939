//! `backup`: a folder with the journal as it is at one moment, and the small files that a server needs.
//!
//! The folder gets its name when everything in it is checked and on the disk.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use gpuquota_core::id::{Incarnation, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use super::draft::sync_parent;
use super::{Damage, ledger_file, stamp};
use crate::config::{Config, FILE};
use crate::service;
use crate::store::sqlite::SqliteStore;
use crate::store::{Hash, Store as _};

/// The journal in a backup, whatever it is called where it came from.
pub(super) const LEDGER: &str = "ledger.db";
const MANIFEST: &str = "backup.json";
const FORMAT: u32 = 1;
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    gpuquota_backup: u32,
    /// When it was made: `20261122T113000Z`.
    pub made_at: String,
    /// Version of the program that made it.
    pub version: String,
    /// Last row of the journal.
    pub seq: Seq,
    /// Its hash.
    pub head: String,
    /// How often that journal had been restored.
    pub incarnation: Incarnation,
    /// SHA-256 of each file, hexadecimal.
    pub files: BTreeMap<String, String>,
}

/// Writes a backup of a server directory, also beside a running server. What was done.
///
/// # Errors
/// When `out` exists or cannot be written, or the journal is damaged.
pub async fn backup(
    dir: &Path,
    out: &Path,
    with_secrets: bool,
    now: Timestamp,
) -> anyhow::Result<String> {
    let config = Config::read(dir)?;
    if out.exists() {
        bail!(
            "{} exists; a backup is written to a new folder",
            out.display()
        );
    }
    let mut name = out.as_os_str().to_owned();
    name.push(".writing");
    let staged = PathBuf::from(name);
    let written = write(dir, &config, &staged, with_secrets, now).await;
    let written = written.and_then(|text| {
        fs::rename(&staged, out).with_context(|| format!("cannot name {}", out.display()))?;
        sync_parent(out)?;
        Ok(text)
    });
    if written.is_err() {
        // What is not whole must not be taken for a backup.
        let _ = fs::remove_dir_all(&staged);
    }
    Ok(format!("{}: {}", out.display(), written?))
}

async fn write(
    dir: &Path,
    config: &Config,
    out: &Path,
    with_secrets: bool,
    now: Timestamp,
) -> anyhow::Result<String> {
    if out.exists() {
        // Of a run that was interrupted.
        fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(out);
    made.with_context(|| format!("cannot make {}", out.display()))?;
    let copy = out.join(LEDGER);
    let mut manifest = copy_ledger(config, &copy, now).await?;
    let digest = digest_of(&copy)?.to_string();
    manifest.files.insert(LEDGER.into(), digest);
    let mut left_out = Vec::new();
    for (path, secret) in small_files(dir, config) {
        let name = inside(dir, &path);
        match name {
            Some(_) if secret && !with_secrets => left_out.push(path.display().to_string()),
            None => left_out.push(path.display().to_string()),
            Some(name) => {
                let mode = if secret { SECRET } else { PUBLIC };
                let digest = copy_file(&path, &out.join(name), mode)?;
                manifest
                    .files
                    .insert(name.display().to_string(), digest.to_string());
            }
        }
    }
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    let path = out.join(MANIFEST);
    let mut file = create(&path, PUBLIC)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))?;
    check(out)?;
    let left_out = match left_out.as_slice() {
        [] => String::new(),
        files => format!("; not in it: {}", files.join(", ")),
    };
    Ok(format!(
        "journal rows up to {}, head {}, checked{left_out}",
        manifest.seq, manifest.head
    ))
}

async fn copy_ledger(config: &Config, copy: &Path, now: Timestamp) -> anyhow::Result<Manifest> {
    let path = &ledger_file(config)?;
    anyhow::ensure!(path.exists(), "there is no journal at {}", path.display());
    // Made before, so that nobody else may read it at any moment.
    create(copy, SECRET)?;
    let store = SqliteStore::open_read_only(path).await?;
    let copied = store.copy_to(copy).await;
    store.close().await;
    copied?;
    let synced = File::open(copy).and_then(|file| file.sync_all());
    synced.with_context(|| format!("cannot sync {}", copy.display()))?;
    let store = SqliteStore::open_read_only(copy).await?;
    let whole = service::whole(&store, |_, _| {}).await;
    store.close().await;
    let committed = whole?.committed;
    Ok(Manifest {
        gpuquota_backup: FORMAT,
        made_at: stamp(now),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seq: committed.state.seq(),
        head: committed.head.to_string(),
        incarnation: committed.state.incarnation(),
        files: BTreeMap::new(),
    })
}

// Files beside the journal, and whether whoever has them can do harm.
fn small_files(dir: &Path, config: &Config) -> Vec<(PathBuf, bool)> {
    let mut files = vec![
        (dir.join(FILE), false),
        (dir.join("ca.crt"), false),
        (dir.join("ca.key"), true),
    ];
    files.extend(config.files());
    // Of a rotation that is under way; without its keys the rest of it is worth nothing.
    let rotation = std::fs::read_dir(dir.join(crate::rotation::FOLDER));
    let rotation = rotation.into_iter().flatten().flatten();
    files.extend(rotation.map(|entry| (entry.path(), true)));
    files.sort();
    files.dedup();
    files.retain(|(path, _)| path.exists());
    files
}

/// The name of a file in a backup: where it is in the server's directory; `None` when it is elsewhere.
fn inside<'a>(dir: &Path, path: &'a Path) -> Option<&'a Path> {
    path.strip_prefix(dir).ok().filter(|name| plain(name))
}

fn plain(name: &Path) -> bool {
    let mut parts = name.components();
    parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Copies a file with its folders to a new one; SHA-256 of it.
pub(super) fn copy_file(from: &Path, to: &Path, mode: u32) -> anyhow::Result<Hash> {
    if let Some(folder) = to.parent() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut source = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut file = create(to, mode)?;
    let copied = io::copy(&mut source, &mut file).and_then(|_| file.sync_all());
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    digest_of(to)
}

fn create(path: &Path, mode: u32) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.with_context(|| format!("cannot make {}", path.display()))
}

fn digest_of(path: &Path) -> anyhow::Result<Hash> {
    let file = File::open(path).and_then(Hash::of_all);
    file.with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a backup's manifest and checks each of its files; `None` for a folder that only holds a journal.
///
/// # Errors
/// [`Damage`] when a file is missing or is not the one that was written.
pub(super) fn check(backup: &Path) -> anyhow::Result<Option<Manifest>> {
    let path = backup.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let damaged = |what: String| anyhow::Error::from(Damage(what));
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("{} cannot be read: {error}", path.display())))?;
    if manifest.gpuquota_backup != FORMAT {
        bail!(
            "{} has another format; a newer program may read it",
            path.display()
        );
    }
    for (name, digest) in &manifest.files {
        let file = backup.join(name);
        if !plain(Path::new(name)) || !file.exists() || digest_of(&file)?.to_string() != *digest {
            return Err(damaged(format!(
                "{} is not the file that was backed up; take another backup",
                file.display()
            )));
        }
    }
    Ok(Some(manifest))
}
