//! Which control groups are denied which nodes: attached, written down, listed again after a restart, and taken off.
//!
//! The kernel is asked each time; what is written down only says which of its programs are ours, and by which names of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bpf;
use super::denylist::{Number, program};
use super::group::{Untouched, check, hierarchy, is_bpf, of_process, open_group};
use super::nodes::{is_gpu_node, number_of};
use super::probe::{Probed, Prober};
use super::protocol::{Reply, Restriction};

/// Largest record that is read, bytes.
const LIMIT: u64 = 1 << 16;

/// All of them.
#[derive(Debug)]
pub(super) struct Denials {
    /// Folder of records; nobody but root writes there.
    records: PathBuf,
    /// Folder of pinned programs in a bpf file system.
    pins: PathBuf,
    prober: Prober,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    group: String,
    nodes: Vec<Node>,
    program: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    path: String,
    major: u32,
    minor: u32,
}

impl Node {
    fn number(&self) -> Number {
        Number {
            major: self.major,
            minor: self.minor,
        }
    }
}

impl Denials {
    pub(super) fn new(records: PathBuf, pins: PathBuf, prober: Prober) -> Self {
        Self {
            records,
            pins,
            prober,
        }
    }

    /// Whether this works here; the text says why not, and what to do.
    pub(super) fn can(&self) -> Result<(), String> {
        let hierarchy = hierarchy()?;
        self.ready()?;
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
        let place = self.pins.join("can");
        let _ = fs::remove_file(&place);
        bpf::pin(&loaded, &place)
            .and_then(|()| fs::remove_file(&place))
            .map_err(|error| format!("no program can be kept in {}: {error}", self.pins.display()))
    }

    fn ready(&self) -> Result<(), String> {
        let above = self.pins.parent().unwrap_or(&self.pins);
        if !is_bpf(above) {
            return Err(format!(
                "no bpf file system is mounted on {}: mount -t bpf bpf {0}",
                above.display()
            ));
        }
        for folder in [&self.pins, &self.records] {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(format!("{}: {error}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Denies these nodes to the group, and no others that it was denied before. `asking` gives the order.
    pub(super) fn restrict(&self, group: &str, nodes: &[String], asking: u32) -> Reply {
        match self.try_restrict(group, nodes, asking) {
            Ok(()) => Reply::Done,
            Err(reply) => reply,
        }
    }

    fn try_restrict(&self, group: &str, paths: &[String], asking: u32) -> Result<(), Reply> {
        let own: Vec<String> = [std::process::id(), asking]
            .into_iter()
            .filter_map(of_process)
            .collect();
        check(group, &own).map_err(untouched)?;
        let mut nodes = Vec::new();
        if let Some(other) = paths.iter().find(|path| !is_gpu_node(path)) {
            return Err(Reply::Refused {
                detail: format!("{other} is no node of a GPU"),
            });
        }
        // One that is no more, as after a new division of a GPU, keeps nobody from what the others are denied for.
        for (path, number) in paths
            .iter()
            .filter_map(|path| Some((path, number_of(path).ok()?)))
        {
            nodes.push(Node {
                path: path.clone(),
                major: number.major,
                minor: number.minor,
            });
        }
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
        let impossible = |detail| Reply::Impossible { detail };
        let hierarchy = hierarchy().map_err(impossible)?;
        self.ready().map_err(impossible)?;
        let folder = open_group(&hierarchy, group).map_err(untouched)?;
        let before = self.of(group);
        let numbers: BTreeSet<Number> = nodes.iter().map(Node::number).collect();
        let code = program(&numbers).ok_or_else(|| Reply::Refused {
            detail: "too many device nodes".to_owned(),
        })?;
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
        };
        // Known before it acts: a program that nobody remembers could not be taken off.
        bpf::pin(&loaded, &self.pin(number))
            .map_err(|error| failed("the program is not kept", &error))?;
        self.write(&record)
            .map_err(|error| failed("the restriction is not written down", &error))?;
        if let Err(error) = bpf::attach(&folder, &loaded) {
            self.forget(number);
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
        let records = self.of(group);
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
                        .for_each(|record| self.forget(record.program));
                }
                return untouched(why);
            }
        };
        for record in &records {
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

    /// What the kernel denies by programs of ours.
    pub(super) fn list(&self) -> Vec<Restriction> {
        let Ok(hierarchy) = hierarchy() else {
            return Vec::new();
        };
        let mut found = BTreeMap::<String, BTreeSet<String>>::new();
        for record in self.records() {
            match stands(&hierarchy, &record) {
                Some(true) => {}
                Some(false) => {
                    self.forget(record.program);
                    continue;
                }
                None => continue,
            }
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
        let lifted = self.list().into_iter().map(|it| self.lift(&it.group));
        let failed = lifted.filter(|reply| !matches!(reply, Reply::Done | Reply::Gone { .. }));
        failed
            .inspect(|reply| tracing::error!(?reply, "a restriction stays"))
            .count()
    }

    fn take_off(&self, folder: &OwnedFd, program: u32) {
        let done = bpf::pinned(&self.pin(program)).and_then(|loaded| bpf::detach(folder, &loaded));
        match done {
            Ok(()) => self.forget(program),
            Err(error) => tracing::error!(%error, program, "a program is not taken off"),
        }
    }

    fn of(&self, group: &str) -> Vec<Record> {
        self.records()
            .into_iter()
            .filter(|record| record.group == group)
            .collect()
    }

    fn records(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.records).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            let small = fs::metadata(&path).ok()?.len() <= LIMIT;
            let text = small.then(|| fs::read(&path).ok())??;
            serde_json::from_slice::<Record>(&text).ok()
        };
        entries.filter_map(|entry| read(entry.path())).collect()
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.record(record.program);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        fs::rename(fresh, path)
    }

    fn forget(&self, program: u32) {
        let _ = fs::remove_file(self.record(program));
        let _ = fs::remove_file(self.pin(program));
    }

    fn record(&self, program: u32) -> PathBuf {
        self.records.join(format!("{program}.json"))
    }

    fn pin(&self, program: u32) -> PathBuf {
        self.pins.join(program.to_string())
    }
}

// Whether the program of a record is on its group; `None`: the kernel does not say.
fn stands(hierarchy: &Path, record: &Record) -> Option<bool> {
    let group = hierarchy.join(record.group.trim_start_matches('/'));
    match fs::symlink_metadata(group) {
        // With the group its programs went.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
        about => about.ok()?,
    };
    let folder = open_group(hierarchy, &record.group).ok()?;
    let ids = bpf::attached(&folder).ok()?;
    Some(ids.contains(&record.program))
}

fn untouched(why: Untouched) -> Reply {
    match why {
        Untouched::Refused(detail) => Reply::Refused { detail },
        Untouched::Managed(detail) => Reply::Impossible { detail },
        Untouched::Gone(detail) => Reply::Gone { detail },
        Untouched::Failed(detail) => Reply::Failed { detail },
    }
}
