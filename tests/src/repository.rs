//! The repository itself as an object of tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::succeed;

/// Root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Files that belong to the repository (tracked, or new and not ignored), relative to its root.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root());
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let paths = succeed(&mut git);
    let paths = paths.lines().map(PathBuf::from);
    paths.filter(|path| root().join(path).is_file()).collect()
}

/// Rust sources of the repository with their text.
#[must_use]
pub fn sources() -> Vec<(String, String)> {
    let rust = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        (path.display().to_string(), text)
    })
    .collect()
}

/// Output of `cargo` in the repository, without touching the lock file or the network.
#[must_use]
pub fn cargo(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    succeed(
        command
            .current_dir(root())
            .args(args)
            .args(["--offline", "--locked"]),
    )
}
