//! Commands that write into a server's folder do it as its owner: root would follow wherever that user's links lead.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Where root runs this on a folder of somebody else's, starts the program anew as that one (execve(2), with none of root's
/// groups), and does not come back. `arguments` are those of this program, without its name.
///
/// # Errors
/// When the folder cannot be looked at, or the program not be started as its owner.
pub(crate) fn become_owner(
    folder: &Path,
    arguments: impl Iterator<Item = OsString>,
) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let about = fs::metadata(folder).with_context(|| folder.display().to_string())?;
    if about.uid() == 0 {
        return Ok(());
    }
    let mut again = Command::new("/proc/self/exe");
    again.args(arguments).uid(about.uid()).gid(about.gid());
    // What root's HOME holds is not this user's.
    again.env_remove("HOME");
    let error = again.exec();
    Err(error).with_context(|| {
        format!(
            "{} belongs to user {}, and this cannot go on as that user; say: runuser -u '#{}' -- gpuquota-server …",
            folder.display(),
            about.uid(),
            about.uid()
        )
    })
}
