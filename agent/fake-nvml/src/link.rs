//! Putting the library where programs look for NVML.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The name under which every program loads NVML.
pub const SONAME: &str = "libnvidia-ml.so.1";

const BUILT: &str = "libgpuquota_fake_nvml.so";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Follows rebuilds of the library.
    Symlink,
    /// Can be given another owner and outlives the build folder.
    Copy,
}

/// The built library: beside the running program or, for a test program, one folder up. Cargo renews one of the two
/// places or both, depending on what was asked of it, so the newest counts.
pub fn built_library() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let missing = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no {BUILT} near {}", program.display()),
        )
    };
    let age = |path: PathBuf| Some((fs::metadata(&path).ok()?.modified().ok()?, path));
    let places = program.ancestors().skip(1).take(2);
    places
        .flat_map(|folder| [folder.join(BUILT), folder.join("deps").join(BUILT)])
        .filter_map(age)
        .max()
        .map(|(_, path)| path)
        .ok_or_else(missing)
}

/// Makes `folder` contain the library under NVML's name and returns its path.
pub fn link(folder: &Path, how: How) -> io::Result<PathBuf> {
    let library = built_library()?;
    fs::create_dir_all(folder)?;
    let target = folder.join(SONAME);
    match fs::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match how {
        How::Symlink => symlink(&library, &target)?,
        How::Copy => {
            fs::copy(&library, &target)?;
        }
    }
    Ok(target)
}
