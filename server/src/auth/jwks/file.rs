//! A key set in a file: looked at once a second, read again when it changed.

use std::fs::{self, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::key_set::{KeySet, LARGEST};
use crate::auth::Algorithm;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file and what it held when it was last good.
pub(in crate::auth) struct KeySetFile {
    issuer: String,
    path: PathBuf,
    algorithm: Algorithm,
    keys: ArcSwap<KeySet>,
    first: Option<Stamp>,
}

// Another file, another moment or another size is another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
        }
    }
}

impl KeySetFile {
    /// Reads the set, which must hold a key.
    pub(super) fn open(issuer: &str, path: &Path, algorithm: Algorithm) -> Result<Self, String> {
        let first = fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
        let keys = read(path, algorithm).map_err(|e| format!("{}: {e}", path.display()))?;
        if keys.len() == 0 {
            return Err(format!(
                "{} holds no key for {}",
                path.display(),
                algorithm.as_str()
            ));
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            path: path.to_owned(),
            algorithm,
            keys: ArcSwap::from_pointee(keys),
            first,
        })
    }

    pub(super) fn find(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        self.keys.load().find(kid)
    }

    /// Follows the file until `stop`. A set that cannot be read leaves the last good one in force.
    pub(super) async fn watch(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.first;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let stamp = tokio::fs::metadata(&self.path).await;
            let stamp = stamp.ok().map(|metadata| Stamp::of(&metadata));
            if stamp == seen {
                continue;
            }
            seen = stamp;
            let (path, algorithm) = (self.path.clone(), self.algorithm);
            let set = tokio::task::spawn_blocking(move || read(&path, algorithm)).await;
            match set.unwrap_or_else(|e| Err(e.to_string())) {
                Ok(set) => {
                    tracing::info!(
                        token.issuer = self.issuer,
                        jwks.keys = set.len(),
                        "the key set file was read again"
                    );
                    self.keys.store(Arc::new(set));
                }
                Err(error) => tracing::warn!(
                    token.issuer = self.issuer,
                    error,
                    "the key set file changed and cannot be used; the keys from before it still count"
                ),
            }
        }
    }
}

fn read(path: &Path, algorithm: Algorithm) -> Result<KeySet, String> {
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    // One byte more than may be there, so that too much is noticed.
    file.take(LARGEST as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|e| e.to_string())?;
    KeySet::parse(&text, algorithm)
}
