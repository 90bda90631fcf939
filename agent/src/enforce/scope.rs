//! Ends all that is in a scope of our own making.

use std::fs;
use std::path::{Path, PathBuf};

use super::group::hierarchy;
use super::protocol::Reply;

/// Kills all that is in a scope of this agent's making (cgroup.kill, Linux 5.14).
pub(super) fn kill_scope(scope: &str) -> Reply {
    let named = |rest: &str| {
        let stem = rest.strip_suffix(".scope").unwrap_or("");
        !stem.is_empty()
            && stem
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if !scope.strip_prefix("gpuquota-").is_some_and(named) {
        return Reply::Refused {
            detail: format!("{scope:?} is no scope of the agent's"),
        };
    }
    let hierarchy = match hierarchy() {
        Ok(hierarchy) => hierarchy,
        Err(detail) => return Reply::Impossible { detail },
    };
    let Some(folder) = find_scope(&hierarchy, scope) else {
        return Reply::Gone {
            detail: format!("{scope} is no more"),
        };
    };
    match fs::write(folder.join("cgroup.kill"), "1") {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed {
            detail: format!("{scope}: {error}"),
        },
    }
}

/// Slices in slices at most.
const DEEPEST: usize = 8;

// Scopes are in slices of the system manager; what its units make below themselves is not looked at.
fn find_scope(folder: &Path, scope: &str) -> Option<PathBuf> {
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let here = folder.join(scope);
        if here.is_dir() {
            return Some(here);
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let slices =
            entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".slice"));
        if depth < DEEPEST {
            folders.extend(slices.map(|slice| (slice.path(), depth + 1)));
        }
    }
    None
}
