//! The Slurm job, container and Kubernetes pod of a process, from `/proc/PID/cgroup` (cgroups(7)). Pure.
//!
//! Whom to believe: only what a manager that runs as root made in a place where nobody else can make groups. These are units
//! in slices of the system manager, and `/docker`, `/libpod_parent`, `/kubepods` and `/slurm` at the root of a hierarchy. Of
//! each such path only the part that names the job, container or pod is read; below it whoever runs there may make groups
//! with any name. A rootless container lives below `user@UID.service`, so its path is its user's and says nothing here.
//!
//! With cgroup v1 each controller has a path of its own. All are read; where two of them name different jobs, containers or
//! pods, that kind is not believed at all.

mod strange;

use super::cgroup::{self, Believed};
use super::group::GroupId;
use strange::{kubepods_below, of_strange_maker};

/// What root's managers say of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The Slurm job.
    pub job: Option<Job>,
    /// The container; inside another container it is the outer one.
    pub container: Option<Container>,
    /// The Kubernetes pod, also where no container is named.
    pub pod: Option<PodUid>,
    /// Some path is that of a container or pod, also where it cannot be told which, or of which kind: whoever made it chose
    /// the users in it.
    pub contained: bool,
}

/// A Slurm job on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number or SLUID.
    pub id: JobId,
    /// Its user where the path says so, as slurmd's cgroup v1 layout does.
    pub uid: Option<u32>,
    /// Its group, where somebody has looked: numbers of jobs are given again.
    pub group: Option<GroupId>,
}

/// Where the group of a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFolder {
    /// The controllers of the hierarchy as the kernel writes them; empty: the unified one.
    pub controllers: String,
    /// The path in it, down to the job.
    pub path: String,
}

/// A job's number, or the SLUID by which Slurm 26.05 and later names the folders: `s` and 13 letters or digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

/// 64 hexadecimal digits that are never given to another container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// A pod's UID in lower case: a UUID, or 32 hexadecimal digits for a static pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(String);

/// A container and who made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Who made it.
    pub runtime: Runtime,
}

/// What made a container, and so who can be asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// Podman as root.
    Podman,
    /// containerd, CRI-O or another one that a kubelet drives.
    Cri,
}

impl JobId {
    fn parse(folder: &str) -> Option<Self> {
        if let Some(number) = folder.strip_prefix("job_") {
            let is_number = (1..=10).contains(&number.len()) && all_digits(number);
            return is_number.then(|| Self(number.to_owned()));
        }
        let tail = folder.strip_prefix('s')?;
        let letters = |b: u8| b.is_ascii_digit() || b.is_ascii_uppercase();
        (tail.len() == 13 && tail.bytes().all(letters)).then(|| Self(folder.to_owned()))
    }

    /// As Slurm's commands take it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    fn parse(text: &str) -> Option<Self> {
        (text.len() == 64 && lower_hex(text)).then(|| Self(text.to_owned()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PodUid {
    /// With `_` for `-`, as systemd's names need it, or with `-`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.replace('_', "-");
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        let formed = groups == [8, 4, 4, 4, 12] || groups == [32];
        let digits = text.split('-').all(lower_hex);
        (formed && digits).then_some(Self(text))
    }

    /// With `-`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the text of `/proc/PID/cgroup`.
#[must_use]
pub fn workload(text: &[u8]) -> Workload {
    let (mut job, mut container, mut pod) = (Said::default(), Said::default(), Said::default());
    let mut contained = false;
    for line in text.split(|byte| *byte == b'\n') {
        let Some(path) = path_of(line) else { continue };
        let found = of_path(path);
        job.hear(found.job);
        container.hear(found.container);
        contained |= found.contained;
        pod.hear(found.pod);
    }
    Workload {
        contained,
        job: job.agreed(),
        container: container.agreed(),
        pod: pod.agreed(),
    }
}

/// The folder of the job that [`workload`] tells of.
#[must_use]
pub fn job_folder(text: &[u8]) -> Option<JobFolder> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let job = of_path(path).job?;
        let ends = (1..=path.len()).filter(|end| matches!(path.get(*end), None | Some(b'/')));
        let mut outer = ends.filter_map(|end| path.get(..end));
        let folder = outer.find(|outer| of_path(outer).job.as_ref() == Some(&job))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).ok();
        Some(JobFolder {
            controllers: text(controllers)?,
            path: text(folder)?,
        })
    })
}

/// What the lines say so far.
#[derive(Debug, Default)]
enum Said<T> {
    #[default]
    Nothing,
    One(T),
    Contradiction,
}

impl<T: PartialEq> Said<T> {
    fn hear(&mut self, said: Option<T>) {
        let Some(said) = said else { return };
        match self {
            Self::Nothing => *self = Self::One(said),
            Self::One(before) if *before != said => *self = Self::Contradiction,
            Self::One(_) | Self::Contradiction => {}
        }
    }

    fn agreed(self) -> Option<T> {
        match self {
            Self::One(said) => Some(said),
            Self::Nothing | Self::Contradiction => None,
        }
    }
}

/// `number:controllers:path`; a path may hold colons.
fn path_of(line: &[u8]) -> Option<&[u8]> {
    line.splitn(3, |byte| *byte == b':').nth(2)
}

fn of_path(path: &[u8]) -> Workload {
    let Some(relative) = path.strip_prefix(b"/") else {
        return Workload::default();
    };
    // What is no text is what no manager writes, and stands for nothing.
    let text = |part| std::str::from_utf8(part).unwrap_or_default();
    let parts = relative.split(|byte| *byte == b'/').map(text);
    match parts.collect::<Vec<&str>>().as_slice() {
        ["docker", id, ..] => made_by(Runtime::Docker, ContainerId::parse(id)),
        ["libpod_parent", inner @ ..] => {
            // A pod of Podman's is a folder in between.
            let inner = match inner {
                [pod, inner, ..] if ContainerId::parse(pod).is_some() => Some(inner),
                [inner, ..] => Some(inner),
                [] => None,
            };
            let id = inner.and_then(|inner| inner.strip_prefix("libpod-"));
            made_by(Runtime::Podman, id.and_then(ContainerId::parse))
        }
        ["kubepods", "burstable" | "besteffort", pod, rest @ ..] | ["kubepods", pod, rest @ ..] => {
            in_pod(pod, rest.first().copied())
        }
        [root, user, job, ..] if *root == "slurm" || root.starts_with("slurm_") => Workload {
            job: slurm_v1(user, job),
            ..Workload::default()
        },
        [joined, ..] if joined.contains(".slice:") => joined_names(joined),
        // A kubelet with a root of its own (`--cgroup-root=/x` makes `/x/kubepods/…`).
        parts if kubepods_below(parts).is_some() => match kubepods_below(parts) {
            Some(["burstable" | "besteffort", pod, rest @ ..] | [pod, rest @ ..]) => {
                in_pod(pod, rest.first().copied())
            }
            Some([]) | None => made_by(Runtime::Cri, None),
        },
        parts => {
            let found = of_systemd(&cgroup::believe(path));
            Workload {
                contained: found.contained || of_strange_maker(parts),
                ..found
            }
        }
    }
}

fn made_by(runtime: Runtime, id: Option<ContainerId>) -> Workload {
    Workload {
        container: id.map(|id| Container { id, runtime }),
        contained: true,
        ..Workload::default()
    }
}

/// `kubepods/burstable/podUID/ID` of the kubelet's cgroupfs driver; CRI-O writes `crio-ID`.
fn in_pod(pod: &str, container: Option<&str>) -> Workload {
    let Some(pod) = pod.strip_prefix("pod").and_then(PodUid::parse) else {
        return made_by(Runtime::Cri, None);
    };
    let id = container.map(|name| name.strip_prefix("crio-").unwrap_or(name));
    Workload {
        pod: Some(pod),
        ..made_by(Runtime::Cri, id.and_then(ContainerId::parse))
    }
}

/// `uid_N/job_M`.
fn slurm_v1(user: &str, job: &str) -> Option<Job> {
    let uid = user.strip_prefix("uid_").filter(|uid| all_digits(uid))?;
    let id = JobId::parse(job)?;
    Some(Job {
        id,
        uid: Some(uid.parse().ok()?),
        group: None,
    })
}

/// `kubepods-burstable-podUID.slice:cri-containerd:ID`: what containerd makes when only the kubelet was told of systemd.
fn joined_names(name: &str) -> Workload {
    let mut names = name.splitn(3, ':');
    let (slice, maker, id) = (names.next(), names.next(), names.next());
    let pod = slice.and_then(pod_of_slice);
    if pod.is_none() || !matches!(maker, Some("cri-containerd" | "crio")) {
        return made_by(Runtime::Cri, None);
    }
    Workload {
        pod,
        ..made_by(Runtime::Cri, id.and_then(ContainerId::parse))
    }
}

fn of_systemd(believed: &Believed<'_>) -> Workload {
    let membership = &believed.membership;
    let pod = membership
        .slices
        .last()
        .and_then(|slice| pod_of_slice(slice));
    let outermost = membership.slices.first().map(String::as_str);
    let in_pods = pod.is_some() || outermost == Some("kubepods.slice");
    let Some(unit) = membership.unit.as_deref() else {
        return Workload {
            pod,
            contained: in_pods,
            ..Workload::default()
        };
    };
    let below = |at: usize| {
        let part = believed.below.get(at)?;
        std::str::from_utf8(part).ok()
    };
    if unit == "slurmstepd.scope" || unit.ends_with("_slurmstepd.scope") {
        // Its own daemon sits in a folder `system`, which names no job.
        let id = below(0).and_then(JobId::parse);
        return Workload {
            job: id.map(|id| Job {
                id,
                uid: None,
                group: None,
            }),
            ..Workload::default()
        };
    }
    if unit == "containerd.service" || unit == "crio.service" {
        return match below(0) {
            Some(name) if name.contains(".slice:") => joined_names(name),
            _ => Workload::default(),
        };
    }
    let makers = [
        ("docker-", Runtime::Docker),
        ("libpod-", Runtime::Podman),
        ("cri-containerd-", Runtime::Cri),
        ("crio-", Runtime::Cri),
    ];
    let found = makers.into_iter().find_map(|(prefix, runtime)| {
        let id = unit.strip_prefix(prefix)?.strip_suffix(".scope")?;
        // What a kubelet has made, through whichever runtime, it knows itself.
        let runtime = if pod.is_some() { Runtime::Cri } else { runtime };
        Some(made_by(runtime, ContainerId::parse(id)))
    });
    let found = found.unwrap_or_default();
    // systemd-nspawn, also by machined; a VM's process is its user's.
    let of_machine = unit.starts_with("systemd-nspawn@")
        || unit.starts_with("machine-") && !unit.starts_with("machine-qemu");
    Workload {
        pod,
        contained: found.contained || in_pods || of_machine,
        ..found
    }
}

/// `kubepods-burstable-podUID.slice`, also below a `--cgroup-root` of the kubelet.
fn pod_of_slice(slice: &str) -> Option<PodUid> {
    let (home, pod) = slice.strip_suffix(".slice")?.rsplit_once('-')?;
    let home = home
        .strip_suffix("-burstable")
        .or_else(|| home.strip_suffix("-besteffort"))
        .unwrap_or(home);
    let of_kubelet = home == "kubepods" || home.ends_with("-kubepods");
    let uid = pod.strip_prefix("pod").filter(|_| of_kubelet)?;
    PodUid::parse(uid)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn lower_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
