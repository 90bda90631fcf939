//! A scenario file that several programs read and several edit at the same time.
//!
//! Readers never see half a file: each edit writes a new one beside it and renames. Editors take turns through a lock
//! on `FILE.lock`, so that no edit is lost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::clock;
use crate::scenario::{Scenario, ScenarioError};

/// What is wrong with a file. The text tells the whole of it, so there is no source besides to print a second time.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {why}")]
    Io { path: PathBuf, why: io::Error },
    #[error("{path}: {why}")]
    Scenario { path: PathBuf, why: ScenarioError },
}

/// Reads and checks a scenario file.
pub fn read(path: &Path) -> Result<Scenario, FileError> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    Scenario::parse(&text).map_err(|why| FileError::Scenario {
        path: path.to_owned(),
        why,
    })
}

/// Writes a scenario in place of whatever the file held.
pub fn write(path: &Path, scenario: &Scenario) -> Result<(), FileError> {
    let _turn = turn(path)?;
    replace(path, scenario)
}

/// Changes a scenario file. The change is all or nothing, and no other edit gets in between.
pub fn edit<R>(
    path: &Path,
    change: impl FnOnce(&mut Scenario) -> Result<R, ScenarioError>,
) -> Result<R, FileError> {
    let _turn = turn(path)?;
    let mut scenario = read(path)?;
    let result = change(&mut scenario)
        .and_then(|result| scenario.settle().map(|()| result))
        .map_err(|why| FileError::Scenario {
            path: path.to_owned(),
            why,
        })?;
    replace(path, &scenario)?;
    Ok(result)
}

/// The lock lives as long as the file that is returned.
fn turn(path: &Path) -> Result<File, FileError> {
    let lock = beside(path, "lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&lock)
        .map_err(at(&lock))?;
    file.lock().map_err(at(&lock))?;
    Ok(file)
}

fn replace(path: &Path, scenario: &Scenario) -> Result<(), FileError> {
    let text = scenario.render().map_err(|why| FileError::Scenario {
        path: path.to_owned(),
        why,
    })?;
    let new = beside(path, "new");
    let mut file = File::create(&new).map_err(at(&new))?;
    file.write_all(text.as_bytes()).map_err(at(&new))?;
    // File systems stamp with a clock of some milliseconds and reuse inode numbers at once: without a stamp of our own
    // two quick edits could look like none to a reader.
    file.set_modified(clock::wall()).map_err(at(&new))?;
    fs::rename(&new, path).map_err(at(path))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |why| FileError::Io { path, why }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::preset;
    use crate::scenario::Process;

    #[test]
    fn concurrent_edits_do_not_lose_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scenario.toml");
        write(&path, &preset::build("t4x1", "t").unwrap()).unwrap();
        thread::scope(|scope| {
            for first in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..25 {
                        let pid = 1000 + first * 100 + number;
                        edit(path, |scenario| {
                            scenario.add_process(Process::new("0", pid))
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&path).unwrap().processes.len(), 100);
    }

    #[test]
    fn a_refused_edit_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scenario.toml");
        write(&path, &preset::build("t4x1", "t").unwrap()).unwrap();
        let before = fs::read(&path).unwrap();
        edit(&path, |scenario| scenario.add_process(Process::new("5", 1))).unwrap_err();
        edit(&path, |scenario| {
            scenario.process_element_bytes = 1;
            Ok(())
        })
        .unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
