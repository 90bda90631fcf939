//! What a crash or a bad disk leaves of snapshots.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dice::Dice;

/// Harms the newest snapshot in `dir`, if there is one; says how.
pub(crate) fn tear(dir: &Path, dice: &mut Dice) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?;
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    let newest = files.pop()?;
    let name = newest.file_name()?.to_string_lossy().into_owned();
    match dice.below(6) {
        0 => {
            fs::remove_file(&newest).unwrap();
            Some(format!("{name} is gone"))
        }
        1 => {
            let bytes = fs::read(&newest).unwrap();
            let left = dice.index(bytes.len());
            fs::write(&newest, &bytes[..left]).unwrap();
            Some(format!("{name} is torn"))
        }
        2 => {
            // Still a readable snapshot, of something that never happened.
            let text = fs::read_to_string(&newest).unwrap();
            let other = text.replace("\"red\"", "\"rot\"");
            fs::write(&newest, other).unwrap();
            Some(format!("{name} says something else"))
        }
        _ => None,
    }
}
