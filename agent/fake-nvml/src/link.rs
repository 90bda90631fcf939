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

/// Takes a symbol out of a copy of the library, so that no program finds it: as with a driver that is older than the function.
/// The name stays as long as it was, because only its first letter changes.
pub fn without(library: &Path, symbol: &str) -> io::Result<()> {
    let unknown = || {
        let text = format!("{} exports no {symbol}", library.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    let mut bytes = fs::read(library)?;
    // An entry of the table of dynamic names stands between two zeros.
    let entry: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let places: Vec<usize> = bytes
        .windows(entry.len())
        .enumerate()
        .filter_map(|(at, window)| {
            (symbol.starts_with("nvml") && window == entry).then_some(at + 1)
        })
        .collect();
    if places.is_empty() {
        return Err(unknown());
    }
    for place in places {
        *bytes.get_mut(place).ok_or_else(unknown)? = b'-';
    }
    // A new file: programs that run have the old one mapped.
    let fresh = library.with_extension("fresh");
    fs::write(&fresh, bytes)?;
    fs::rename(fresh, library)
}
