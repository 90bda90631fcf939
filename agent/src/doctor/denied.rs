//! Processes that have open what their control group is denied: a restriction denies opens, and closes nothing.

use std::path::{Path, PathBuf};

use super::{About, Finding, Grade};
use crate::config::Config;
use crate::enforce::client::Enforcer;
use crate::enforce::protocol::{Order, Reply, Restriction};
use crate::enforce::{cgroup_root, has_open};
use crate::process::group::pids_below;

const ID: &str = "open_descriptors";
/// Processes that are named, at most.
const NAMED: usize = 8;

pub(super) async fn examine(config: Option<&Config>) -> Option<Finding> {
    let socket = config?.enforcement.socket.clone();
    let answer = Enforcer::new(socket).order(&Order::Restrictions).await;
    // That nobody answers, or not this user, is another finding.
    let Ok(Reply::Restricted { groups }) = answer else {
        return None;
    };
    Some(graded(&cgroup_root()?, &groups))
}

fn graded(root: &Path, groups: &[Restriction]) -> Finding {
    let (mut open, mut unseen) = (Vec::new(), 0_usize);
    for group in groups {
        let folder: PathBuf = root.join(group.group.trim_start_matches('/'));
        let Some(pids) = pids_below(&folder) else {
            unseen += 1;
            continue;
        };
        for pid in pids {
            match has_open(pid, &group.nodes) {
                Some(true) => open.push(format!("process {pid} in {}", group.group)),
                Some(false) => {}
                None => unseen += 1,
            }
        }
    }
    if !open.is_empty() {
        let more = open.len().saturating_sub(NAMED);
        open.truncate(NAMED);
        let mut text = format!("a denied GPU is still open: {}", open.join(", "));
        if more > 0 {
            text += &format!(", and {more} more");
        }
        return found(Grade::Warn, text).advise(
            "what was open before a restriction goes on being used: end it, or say mode `evict` on the server",
        );
    }
    if unseen > 0 {
        let text = format!(
            "what {unseen} processes or groups that are denied a GPU have open cannot be seen"
        );
        return found(Grade::Unknown, text).advise("run doctor as root");
    }
    let text = format!(
        "none of what {} control groups are denied is open there",
        groups.len()
    );
    found(Grade::Ok, text)
}

fn found(grade: Grade, text: String) -> Finding {
    Finding::new(ID, About::Bypass, grade, text)
}
