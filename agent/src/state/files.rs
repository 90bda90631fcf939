//! Files in the state folder, opened so that nobody else decides what is read or written: no link is followed, and a folder or file
//! of another user is refused. What root writes there belongs to the folder's owner, or the agent could not read it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};

const OWN_ONLY: u32 = 0o700;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is another user's.
    #[error("it belongs to uid {owner}, not to the agent or root")]
    Foreign {
        /// Whose.
        owner: u32,
    },
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes the folder if it is not there, for nobody but its owner, who is the agent that calls this.
///
/// # Errors
/// When it is another user's, or the file system says no.
pub fn make_folder(path: &Path) -> Result<(), FolderError> {
    make_folder_as(path, rustix::process::geteuid().as_raw())
}

/// The same for a command that leaves something there for the agent. Root may do that in everybody's folder, and a new one
/// belongs to whom the folder above it belongs.
///
/// # Errors
/// As those of [`make_folder`].
pub fn enter_folder(path: &Path) -> Result<(), FolderError> {
    if !rustix::process::geteuid().is_root() {
        return make_folder(path);
    }
    if !path.exists() {
        DirBuilder::new().mode(OWN_ONLY).create(path)?;
        inherit(&open(path, OFlags::RDONLY | OFlags::DIRECTORY)?, path)?;
    }
    let owner = fs::metadata(path)?.uid();
    make_folder_as(path, owner)
}

/// `own`: whose it is to be.
pub(super) fn make_folder_as(path: &Path, own: u32) -> Result<(), FolderError> {
    let mut make = DirBuilder::new();
    make.recursive(true).mode(OWN_ONLY).create(path)?;
    // `state` may name a link; what it leads to is checked once it is open.
    let folder = File::open(path)?;
    let about = folder.metadata()?;
    if about.uid() != own && about.uid() != 0 {
        return Err(FolderError::Foreign { owner: about.uid() });
    }
    if about.mode() & 0o077 != 0 {
        folder.set_permissions(fs::Permissions::from_mode(OWN_ONLY))?;
    }
    Ok(())
}

/// Opens a file of the state folder without following a link and without waiting for a pipe's other end; a new one is for its
/// owner only.
///
/// # Errors
/// When it is a link, or the file system says no.
pub fn open_own(path: &Path, how: OFlags) -> io::Result<File> {
    open(path, how | OFlags::NONBLOCK)
}

/// Reads a file that nobody but its folder's owner, the agent or root can have written, at most `limit` bytes.
///
/// # Errors
/// When it is not there, a link, no regular file, another user's, or longer.
pub fn read_own(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_own(path, OFlags::RDONLY)?;
    let about = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    let folder = fs::metadata(path.parent().unwrap_or(path))?.uid();
    let trusted = about.uid() == own || about.uid() == 0 || (own == 0 && about.uid() == folder);
    if !about.is_file() || !trusted || about.mode() & 0o022 != 0 {
        let text = "not a file that only the agent can have written";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if about.size() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a file in place of the one before, whole or not at all, for the folder's owner; it outlives a power failure.
///
/// # Errors
/// When the file system says no; what was there stays.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, true)
}

/// The same for what counts in this boot only: the disk is not waited for.
///
/// # Errors
/// When the file system says no; what was there stays.
pub fn write_for_this_boot(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, false)
}

fn replace(path: &Path, bytes: &[u8], lasting: bool) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // One left behind, or put there by somebody else.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_own(&fresh, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    inherit(&file, path)?;
    file.write_all(bytes)?;
    if lasting {
        file.sync_all()?;
    }
    fs::rename(&fresh, path)?;
    if lasting {
        File::open(path.parent().unwrap_or(path))?.sync_all()?;
    }
    Ok(())
}

fn open(path: &Path, how: OFlags) -> io::Result<File> {
    let how = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, how, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

// What root makes in somebody's folder is for that one to read.
fn inherit(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let above = fs::metadata(path.parent().unwrap_or(path))?;
    if above.uid() != 0 {
        let (uid, gid) = (Uid::from_raw(above.uid()), Gid::from_raw(above.gid()));
        fchown(file, Some(uid), Some(gid))?;
    }
    Ok(())
}
