//! What a process runs and has open, seen through all of its threads.
//!
//! The first thread may have ended while others run (pthread_exit(3)): then it shows no executable and no descriptors. A thread
//! may also have descriptors of its own (CLONE_FILES of unshare(2)).

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

use super::denylist::Number;

/// A file that a thread runs.
#[derive(Debug)]
pub(super) struct Executable {
    /// Where it was, as the kernel writes it.
    pub(super) link: PathBuf,
    /// The way to it, however it is called by now.
    pub(super) through: PathBuf,
}

/// What a process runs; `None`: no thread of it runs anything, as those of the kernel do not.
pub(super) fn executable(process: &Path) -> Option<Executable> {
    threads(process).find_map(|thread| {
        let through = thread.join("exe");
        let link = fs::read_link(&through).ok()?;
        Some(Executable { link, through })
    })
}

/// Whether any thread has one of these character devices open; `None` where the kernel shows descriptors of none.
pub(super) fn has_open(process: &Path, wanted: &[Number]) -> Option<bool> {
    let mut shown = None;
    for thread in threads(process) {
        let Ok(entries) = fs::read_dir(thread.join("fd")) else {
            continue;
        };
        shown = Some(false);
        // What was closed meanwhile is not there.
        let mut open = entries.flatten().filter_map(|entry| device(&entry.path()));
        if open.any(|number| wanted.contains(&number)) {
            return Some(true);
        }
    }
    shown
}

/// What the kernel knows of a file by itself: a file server that is away is not asked, so that nobody who waits for it makes
/// others wait.
pub(super) fn known(path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()
}

fn device(path: &Path) -> Option<Number> {
    let about = known(path)?;
    let kind = FileType::from_raw_mode(about.stx_mode.into());
    (kind == FileType::CharacterDevice).then_some(Number {
        major: about.stx_rdev_major,
        minor: about.stx_rdev_minor,
    })
}

fn threads(process: &Path) -> impl Iterator<Item = PathBuf> {
    let listed = fs::read_dir(process.join("task"));
    listed.into_iter().flatten().flatten().map(|it| it.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    const NULL: Number = Number { major: 1, minor: 3 };

    // A process whose second thread has `/dev/null` open, and is ready once it has said so.
    fn odd(body: &str) -> (tempfile::TempDir, Child) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("odd.c");
        let program = dir.path().join("odd");
        fs::write(&source, format!("{HEAD}{body}")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-pthread", "-o"]).arg(&program).arg(&source);
        assert!(cc.status().unwrap().success());
        let mut child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
        assert!(said.unwrap() > 0);
        (dir, child)
    }

    const HEAD: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static pthread_t first;
static void ready(void) { write(1, "ready\n", 6); for (;;) pause(); }
"#;

    #[test]
    fn rule_15_a_process_whose_first_thread_has_ended_is_seen_by_the_others() {
        let (_dir, mut child) = odd(r#"
static void *work(void *it) {
    pthread_join(first, NULL);
    if (open("/dev/null", O_RDONLY) < 0) return it;
    char state = 0; char path[64]; char text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", getpid());
    while (state != 'Z') {
        int stat = open(path, O_RDONLY);
        long length = read(stat, text, sizeof text - 1);
        close(stat);
        text[length > 0 ? length : 0] = 0;
        char *end = strrchr(text, ')');
        state = end ? end[2] : 0;
    }
    ready();
    return it;
}
int main(void) {
    pthread_t other;
    first = pthread_self();
    pthread_create(&other, NULL, work, NULL);
    pthread_exit(NULL);
}"#);
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let (runs, open) = (executable(&process), has_open(&process, &[NULL]));
        let gone = fs::read_link(process.join("exe"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(gone.is_err(), "its first thread still shows {gone:?}");
        assert!(runs.is_some_and(|it| it.link.ends_with("odd")));
        assert_eq!(open, Some(true));
    }

    #[test]
    fn rule_15_what_a_thread_opened_for_itself_is_open() {
        let (_dir, mut child) = odd(r#"
static void *work(void *it) {
    if (unshare(CLONE_FILES) || open("/dev/zero", O_RDONLY) < 0) return it;
    ready();
    return it;
}
int main(void) {
    pthread_t other;
    pthread_create(&other, NULL, work, NULL);
    pthread_join(other, NULL);
}"#);
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let zero = Number { major: 1, minor: 5 };
        let other = Number { major: 1, minor: 9 };
        let open = [has_open(&process, &[zero]), has_open(&process, &[other])];
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(open, [Some(true), Some(false)]);
        assert!(executable(Path::new("/proc/2147483647")).is_none());
    }
}
