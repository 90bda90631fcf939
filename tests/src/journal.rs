//! The journal's file, looked at and damaged from outside.

use std::path::Path;
use std::process::{Command, Output};

use crate::program::{output, program, succeed};

/// Runs one SQL statement on a journal by the `sqlite3` program; its rows, columns parted by `|`.
pub fn sql(ledger: &Path, statement: &str) -> String {
    let mut command = Command::new("sqlite3");
    command.arg("-bail").arg(ledger).arg(statement);
    succeed(&mut command).trim_end().to_owned()
}

/// `gpuquota-server journal verify`.
#[must_use]
pub fn verify(dir: &Path) -> Output {
    let mut command = Command::new(program("gpuquota-server"));
    output(command.args(["journal", "verify", "--dir"]).arg(dir))
}

/// The same, which must find the journal whole; what it says.
pub fn verified(dir: &Path) -> String {
    let verdict = verify(dir);
    let text = String::from_utf8_lossy(&verdict.stdout).into_owned();
    let errors = String::from_utf8_lossy(&verdict.stderr);
    assert!(verdict.status.success(), "journal verify: {text}{errors}");
    assert!(text.starts_with("journal is whole"), "{text}");
    text
}

/// `gpuquota-server journal export`: the rows as JSON objects, in order.
#[must_use]
pub fn exported(dir: &Path) -> Vec<serde_json::Value> {
    let mut command = Command::new(program("gpuquota-server"));
    let text = succeed(command.args(["journal", "export", "--dir"]).arg(dir));
    // The first line says which rows there are.
    let rows = text.lines().skip(1);
    rows.map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// All files of a folder with their bytes, by name; what must not change.
#[must_use]
pub fn bytes_of(dir: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    files
}
