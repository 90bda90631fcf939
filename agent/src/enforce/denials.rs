//! Which control groups are denied which nodes: attached, written down, listed again after a restart, and taken off.
//!
//! The kernel is asked each time; what is written down only says which of its programs are ours, and by which names of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::bpf;
use super::denylist::{Instruction, Number, program};
use super::group::{Untouched, check, hierarchy, of_process, open_group};
use super::nodes::{is_gpu_node, number_of};
use super::probe::{Probed, Prober};
use super::protocol::{Reply, Restriction};
use super::records::{Kind, Node, Record, Records};

/// All of them.
#[derive(Debug)]
pub(super) struct Denials {
    records: Records,
    prober: Prober,
}

/// A program to be put on a group.
pub(super) struct Denial {
    pub(super) kind: Kind,
    /// What it denies, as far as it is there.
    pub(super) nodes: Vec<Node>,
    pub(super) code: Vec<Instruction>,
}

impl Denials {
    pub(super) fn new(records: PathBuf, pins: PathBuf, prober: Prober) -> Self {
        Self {
            records: Records::new(records, pins),
            prober,
        }
    }

    /// Whether this works here; the text says why not, and what to do.
    pub(super) fn can(&self) -> Result<(), String> {
        let hierarchy = hierarchy()?;
        self.records.ready()?;
        let code = program(&BTreeSet::new()).ok_or("no program")?;
        let loaded = bpf::load(&code).map_err(|error| {
            format!("the kernel takes no program for control groups ({error}); it needs CAP_BPF and CAP_NET_ADMIN")
        })?;
        // On the group of this process, where nobody else is and nothing is denied.
        let own = of_process(std::process::id())
            .ok_or("this process is in no control group of version 2")?;
        let group = open_group(&hierarchy, &own)
            .map_err(|why| format!("the own control group cannot be reached: {why:?}"))?;
        let attached = bpf::attach(&group, &loaded).and_then(|()| bpf::detach(&group, &loaded));
        attached.map_err(|error| {
            format!("the kernel attaches no program to a control group: {error}")
        })?;
        let place = self.records.pins.join("can");
        let _ = fs::remove_file(&place);
        bpf::pin(&loaded, &place)
            .and_then(|()| fs::remove_file(&place))
            .map_err(|error| {
                format!(
                    "no program can be kept in {}: {error}",
                    self.records.pins.display()
                )
            })
    }

    /// Denies these nodes to the group, and no others that it was denied before. `asking` gives the order.
    pub(super) fn restrict(&self, group: &str, nodes: &[String], asking: u32) -> Reply {
        match self.try_restrict(group, nodes, asking) {
            Ok(()) => Reply::Done,
            Err(reply) => reply,
        }
    }

    fn try_restrict(&self, group: &str, paths: &[String], asking: u32) -> Result<(), Reply> {
        may_touch(group, asking)?;
        if let Some(other) = paths.iter().find(|path| !is_gpu_node(path)) {
            return Err(Reply::Refused {
                detail: format!("{other} is no node of a GPU"),
            });
        }
        // One that is no more, as after a new division of a GPU, keeps nobody from what the others are denied for.
        let nodes: Vec<Node> = paths
            .iter()
            .filter_map(|path| Some(Node::new(path, number_of(path).ok()?)))
            .collect();
        if nodes.is_empty() {
            return Err(match paths {
                [] => Reply::Refused {
                    detail: "the order names no device node".to_owned(),
                },
                _ => Reply::Gone {
                    detail: "none of its device nodes is there any more".to_owned(),
                },
            });
        }
        let numbers: BTreeSet<Number> = nodes.iter().map(Node::number).collect();
        let code = program(&numbers).ok_or_else(|| Reply::Refused {
            detail: "too many device nodes".to_owned(),
        })?;
        let denial = Denial {
            kind: Kind::Restriction,
            nodes,
            code,
        };
        self.put_on(group, denial)
    }

    /// Puts a program on a group that was checked, in the place of those of its kind that are there, and sees that it holds.
    pub(super) fn put_on(&self, group: &str, denial: Denial) -> Result<(), Reply> {
        let Denial { kind, nodes, code } = denial;
        let impossible = |detail| Reply::Impossible { detail };
        let hierarchy = hierarchy().map_err(impossible)?;
        self.records.ready().map_err(impossible)?;
        let folder = open_group(&hierarchy, group).map_err(untouched)?;
        let before = self.records.of(group, kind);
        let failed = |what: &str, error: &io::Error| Reply::Failed {
            detail: format!("{what}: {error}"),
        };
        let loaded =
            bpf::load(&code).map_err(|error| failed("the program is not taken", &error))?;
        let number =
            bpf::id(&loaded).map_err(|error| failed("the program has no number", &error))?;
        let record = Record {
            group: group.to_owned(),
            nodes,
            program: number,
            kind,
        };
        // Known before it acts: a program that nobody remembers could not be taken off.
        bpf::pin(&loaded, &self.records.pin(number))
            .map_err(|error| failed("the program is not kept", &error))?;
        self.records
            .write(&record)
            .map_err(|error| failed("the restriction is not written down", &error))?;
        if let Err(error) = bpf::attach(&folder, &loaded) {
            self.records.forget(number);
            return Err(failed("the program is not attached", &error));
        }
        // The new one denies all that stays denied, so nothing opens in between.
        for old in before {
            self.take_off(&folder, old.program);
        }
        let seen = bpf::attached(&folder).is_ok_and(|ids| ids.contains(&number));
        if !seen {
            return Err(Reply::Failed {
                detail: "the program is attached and not there".to_owned(),
            });
        }
        let paths: Vec<&str> = record.nodes.iter().map(|node| node.path.as_str()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        match self
            .prober
            .probe(&hierarchy.join(group.trim_start_matches('/')), &paths)
        {
            Probed::Denied => Ok(()),
            // Whoever owns the group can keep a probe from it; the kernel lists the program all the same.
            Probed::Unsure(detail) => {
                tracing::warn!(group, detail, "denied by the kernel's word, but not tried");
                Ok(())
            }
            Probed::Opened(detail) => Err(Reply::Failed { detail }),
        }
    }

    /// Takes away what was denied to the group.
    pub(super) fn lift(&self, group: &str) -> Reply {
        self.lift_those(group, &self.records.of(group, Kind::Restriction))
    }

    fn lift_those(&self, group: &str, records: &[Record]) -> Reply {
        if records.is_empty() {
            return Reply::Gone {
                detail: format!("{group} is denied nothing"),
            };
        }
        let hierarchy = match hierarchy() {
            Ok(hierarchy) => hierarchy,
            Err(detail) => return Reply::Impossible { detail },
        };
        let folder = match open_group(&hierarchy, group) {
            Ok(folder) => folder,
            Err(why) => {
                // With the group its programs went.
                if matches!(why, Untouched::Gone(_)) {
                    records
                        .iter()
                        .for_each(|record| self.records.forget(record.program));
                }
                return untouched(why);
            }
        };
        for record in records {
            self.take_off(&folder, record.program);
        }
        let left = bpf::attached(&folder);
        let gone =
            left.is_ok_and(|ids| records.iter().all(|record| !ids.contains(&record.program)));
        match gone {
            true => Reply::Done,
            false => Reply::Failed {
                detail: format!("{group} is still denied its devices"),
            },
        }
    }

    /// What the kernel denies by programs of ours to whom the ledger does not justify.
    pub(super) fn list(&self) -> Vec<Restriction> {
        let Ok(hierarchy) = hierarchy() else {
            return Vec::new();
        };
        let mut found = BTreeMap::<String, BTreeSet<String>>::new();
        let standing = self.records.standing(&hierarchy).into_iter();
        for record in standing.filter(|record| record.kind == Kind::Restriction) {
            // A node that was made anew with other numbers is not denied.
            let same = |node: &Node| number_of(&node.path) == Ok(node.number());
            let nodes = record.nodes.into_iter().filter(same).map(|node| node.path);
            found.entry(record.group).or_default().extend(nodes);
        }
        let restriction = |(group, nodes): (String, BTreeSet<String>)| Restriction {
            group,
            nodes: nodes.into_iter().collect(),
        };
        found.into_iter().map(restriction).collect()
    }

    /// Takes away all that is denied by programs of ours; how many groups were not set free, with the reasons in the log.
    pub(super) fn lift_all(&self) -> usize {
        let mut groups = BTreeMap::<String, Vec<Record>>::new();
        for record in self.records.all() {
            groups.entry(record.group.clone()).or_default().push(record);
        }
        let lifted = groups
            .iter()
            .map(|(group, records)| self.lift_those(group, records));
        let failed = lifted.filter(|reply| !matches!(reply, Reply::Done | Reply::Gone { .. }));
        failed
            .inspect(|reply| tracing::error!(?reply, "a restriction stays"))
            .count()
    }

    fn take_off(&self, folder: &OwnedFd, program: u32) {
        let done =
            bpf::pinned(&self.records.pin(program)).and_then(|loaded| bpf::detach(folder, &loaded));
        match done {
            Ok(()) => self.records.forget(program),
            Err(error) => tracing::error!(%error, program, "a program is not taken off"),
        }
    }
}

/// Whether a program may be put on this group by order of `asking`, a process.
pub(super) fn may_touch(group: &str, asking: u32) -> Result<(), Reply> {
    let own: Vec<String> = [std::process::id(), asking]
        .into_iter()
        .filter_map(of_process)
        .collect();
    check(group, &own).map_err(untouched)
}

fn untouched(why: Untouched) -> Reply {
    match why {
        Untouched::Refused(detail) => Reply::Refused { detail },
        Untouched::Managed(detail) => Reply::Impossible { detail },
        Untouched::Gone(detail) => Reply::Gone { detail },
        Untouched::Failed(detail) => Reply::Failed { detail },
    }
}
