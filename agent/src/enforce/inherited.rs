//! The socket that the service manager made and passes on (sd_listen_fds(3)): it stays while this program is restarted.
#![expect(
    unsafe_code,
    reason = "a descriptor that is told by its number has no owner yet"
)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

/// The socket, if this process was started with one; to be asked once.
///
/// # Errors
/// When what was passed is not one that can be used.
pub(super) fn listener() -> io::Result<Option<UnixListener>> {
    let mut passed = sd_notify::listen_fds()?;
    let Some(number) = passed.next() else {
        return Ok(None);
    };
    // It is closed in children already.
    // SAFETY: the manager passed this descriptor to this very process, as LISTEN_PID says, and nothing else here takes it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    let listener = UnixListener::from(descriptor);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
