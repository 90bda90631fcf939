//! A warning is told where the warned sit: on the terminals from which their processes were started.

use std::collections::BTreeSet;

use crate::observation::{Observation, Owner, Reason};
use crate::plan::step::Step;
use crate::policy::{Ladder, Mode, Policy, Whom};
use crate::process::procfs::ProcessFolder;
use crate::process::terminal::Terminal;

/// Terminals that one warning is told on, at most.
const MOST: usize = 16;

/// Tells it; on how many terminals.
pub(super) fn tell(seen: &Observation, policy: &Policy, most: Mode, step: &Step) -> usize {
    let Some(host) = ProcessFolder::open(1)
        .and_then(|init| init.mount_namespace())
        .ok()
    else {
        return 0;
    };
    let mut ladder = policy.ladder(&step.whom).unwrap_or(policy.others);
    ladder.mode = ladder.mode.min(most);
    let text = text(step, ladder);
    let mut told = 0;
    for terminal in terminals(seen, &step.whom, &host).into_iter().take(MOST) {
        told += usize::from(terminal.tell(&text));
    }
    told
}

fn terminals(seen: &Observation, whom: &Whom, host: &str) -> BTreeSet<Terminal> {
    let device = seen.devices.get(&whom.device);
    let processes = device.map(|device| &device.processes).into_iter().flatten();
    let theirs = processes.filter(|process| match &whom.tenant {
        Some(tenant) => process.owner.tenant() == Some(tenant),
        None => process.owner == Owner::Unattributed(Reason::NoRule),
    });
    let of = theirs.filter_map(|process| {
        let folder = ProcessFolder::open(process.pid?).ok()?;
        (folder.start_time().ok() == process.start_time)
            .then(|| Terminal::of(&folder, host))
            .flatten()
    });
    of.collect()
}

// Names come from the ledger and from rules; whatever they are, they move no cursor.
fn text(step: &Step, ladder: Ladder) -> String {
    let who = step
        .whom
        .tenant
        .as_deref()
        .unwrap_or("nobody that is known");
    let seconds = ladder.grace_ms.div_ceil(1000);
    let next = match ladder.mode {
        Mode::Observe | Mode::Warn => String::new(),
        Mode::Restrict => format!(" In {seconds} s it cannot be opened any more."),
        Mode::Evict => {
            format!(" In {seconds} s it cannot be opened any more, and its processes are ended.")
        }
    };
    let line = format!(
        "gpuquota: {who} uses {} without right ({}).{next} Ask for quota, or let go of it.",
        step.whom.device,
        step.class.as_str()
    );
    let plain: String = line.chars().filter(|c| !c.is_control()).collect();
    format!("\r\n{plain}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::DeviceKey;
    use crate::plan::step::Rung;
    use crate::policy::Class;

    #[test]
    fn a_warning_says_who_what_why_and_what_comes_and_moves_no_cursor() {
        let step = Step {
            rung: Rung::Warn,
            whom: Whom {
                tenant: Some("a\u{1b}[2J".to_owned()),
                device: DeviceKey::Gpu("GPU-1\n".to_owned()),
            },
            class: Class::OverQuota,
            process: None,
            group: String::new(),
            nodes: Vec::new(),
        };
        let ladder = |mode| Ladder {
            mode,
            grace_ms: 1500,
            term_grace_ms: 0,
        };
        let warn = text(&step, ladder(Mode::Warn));
        let expected = "\r\ngpuquota: a[2J uses GPU-1 without right (over_quota). Ask for quota, or let go of it.\r\n";
        assert_eq!(warn, expected);
        let evict = text(&step, ladder(Mode::Evict));
        assert!(
            evict.contains("In 2 s it cannot be opened any more, and its processes are ended.")
        );
    }
}
