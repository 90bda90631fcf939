//! Sleeping until the scenario may have changed, as a driver's wait for events sleeps: without looking again and again.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// How often it is looked where the kernel gives no watch.
const LOOK: Duration = Duration::from_millis(100);
/// And where it does: a file that is a link changes elsewhere.
const LONGEST: Duration = Duration::from_secs(1);

/// The folder that a thread watches.
#[derive(Debug)]
struct Watch {
    path: PathBuf,
    inotify: Option<OwnedFd>,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Watches from now on; a change after this ends the next [`sleep`] of this thread at once.
pub(super) fn watch(path: &Path) {
    WATCH.with_borrow_mut(|watch| {
        if watch.as_ref().is_none_or(|watch| watch.path != path) {
            *watch = Some(Watch {
                path: path.to_owned(),
                inotify: open(path),
            });
        }
    });
}

/// Until the file may have changed, or `at_most` is over.
pub(super) fn sleep(at_most: Duration) {
    WATCH.with_borrow(|watch| {
        let Some(inotify) = watch.as_ref().and_then(|watch| watch.inotify.as_ref()) else {
            thread::sleep(at_most.min(LOOK));
            return;
        };
        let limit = Timespec::try_from(at_most.min(LONGEST)).ok();
        let news = poll(&mut [PollFd::new(inotify, PollFlags::IN)], limit.as_ref());
        match news {
            Ok(0) => {}
            Ok(_) => {
                // What changed does not matter, and what is left is read next time.
                let _ = rustix::io::read(inotify, &mut [0; 4096]);
            }
            // A signal, or no memory: no reason to spin.
            Err(_) => thread::sleep(at_most.min(LOOK)),
        }
    });
}

/// Edits put a new file under the name, so it is the folder that is watched.
fn open(path: &Path) -> Option<OwnedFd> {
    let folder = match path.parent()? {
        folder if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let kinds = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&inotify, folder, kinds).ok()?;
    Some(inotify)
}
