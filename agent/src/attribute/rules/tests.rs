//! From evidence to owners.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::attribute::creators::Nobody;
use crate::process::cgroup::membership;
use crate::process::workload::{Container, Job, PodUid, workload};

fn ids(real: u32, effective: u32) -> Ids {
    let uids = Uids { real, effective };
    Ids { uids, gid: 7 }
}

const NOTHING: Workload = Workload {
    job: None,
    container: None,
    pod: None,
    contained: false,
};

fn attributor(text: &str) -> Attributor {
    let config: AttributionConfig = toml::from_str(text).unwrap();
    let uid_of = |name: &str| (name == "alice").then_some(1000);
    let gid_of = |name: &str| (name == "lab").then_some(500);
    let names = HostNames {
        uid_of: &uid_of,
        gid_of: &gid_of,
    };
    Attributor::with_names(&config, names).unwrap()
}

fn owner(attributor: &Attributor, path: &str, uid: u32) -> Owner {
    let membership = membership(format!("0::{path}\n").as_bytes());
    attributor.attribute(&Evidence {
        ids: ids(uid, uid),
        lent: Lent::default(),
        login_uid: None,
        workload: &NOTHING,
        creators: &Nobody,
        membership: &membership,
        host_executable: None,
        registered: None,
        leased: None,
    })
}

fn of(name: &str, source: Source) -> Owner {
    Owner::Tenant {
        name: name.to_owned(),
        source,
    }
}

const NOBODY: Owner = Owner::Unattributed(Reason::NoRule);

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = attributor(
        "[[rule]]\nslice = \"tenant-{tenant}.slice\"\n[[rule]]\nunit = \"gpu-job-{tenant}@*.service\"\n\
         [[rule]]\nuser = \"alice\"\ntenant = \"x\"\n[[rule]]\nuid_range = [2000, 2999]\ntenant = \"y\"\n",
    );
    let job = "gpu-job-b@1.service";
    for (path, uid, expected) in [
        (
            format!("/tenant.slice/tenant-a.slice/{job}"),
            1000,
            of("a", Source::Slice),
        ),
        (
            r"/tenant.slice/tenant-my\x2dteam.slice".to_owned(),
            1,
            of("my-team", Source::Slice),
        ),
        (format!("/system.slice/{job}"), 1000, of("b", Source::Unit)),
        (
            "/user.slice/user-1000.slice/session-1.scope".to_owned(),
            1000,
            of("x", Source::User),
        ),
        ("/".to_owned(), 2999, of("y", Source::User)),
        ("/".to_owned(), 3000, NOBODY),
        ("/tenant.slice".to_owned(), 3000, NOBODY),
    ] {
        assert_eq!(owner(&rules, &path, uid), expected, "{path} {uid}");
    }
    // No tenant can be called so; falling through to a user's rule would be a guess.
    assert_eq!(
        owner(&rules, r"/tenant.slice/tenant-a\x2fb.slice", 1000),
        NOBODY
    );
}

/// Case 70: slices inside the tenant's slice, and groups inside its unit, do not make it another tenant.
#[test]
fn a_tenant_cannot_become_another_one() {
    let rules = attributor(
        "[[rule]]\nslice = \"tenant-{tenant}.slice\"\n[[rule]]\nunit = \"job-{tenant}.service\"\n",
    );
    for below in [
        "/tenant-a-b.slice",
        "/x.service/tenant.slice/tenant-b.slice",
        "/tenant-b.slice",
        "/x.scope/job-b.service",
    ] {
        let path = format!("/tenant.slice/tenant-a.slice{below}");
        assert_eq!(owner(&rules, &path, 1), of("a", Source::Slice), "{path}");
    }
    let path = "/user.slice/user-1.slice/user@1.service/tenant.slice/tenant-b.slice/job-b.service";
    assert_eq!(owner(&rules, path, 1), NOBODY);
}

/// Case 70: neither root without the executable, nor the executable without root, is the driver's daemon.
#[test]
fn a_system_daemon_is_known_by_user_and_executable() {
    let rules = attributor("[[rule]]\nuid_range = [0, 9999]\ntenant = \"t\"\n");
    let none = Membership::default();
    let mps = PathBuf::from("/usr/bin/nvidia-cuda-mps-server");
    let other = PathBuf::from("/home/x/nvidia-cuda-mps-server");
    for (real, effective, executable, system) in [
        (0, 0, Some(&mps), true),
        (0, 0, Some(&other), false),
        (0, 0, None, false),
        (1000, 1000, Some(&mps), false),
        (1000, 0, Some(&mps), false),
    ] {
        let owner = rules.attribute(&Evidence {
            ids: ids(real, effective),
            lent: Lent::default(),
            login_uid: None,
            workload: &NOTHING,
            creators: &Nobody,
            membership: &none,
            host_executable: executable,
            registered: None,
            leased: None,
        });
        assert_eq!(
            owner == Owner::System,
            system,
            "{real} {effective} {executable:?}"
        );
    }
}

#[test]
fn the_registered_table_counts_only_when_configured() {
    let membership = Membership::default();
    let evidence = |registered| Evidence {
        ids: ids(1, 1),
        lent: Lent::default(),
        login_uid: None,
        workload: &NOTHING,
        creators: &Nobody,
        membership: &membership,
        host_executable: None,
        registered,
        leased: None,
    };
    let on = attributor("registered = true\n[[rule]]\nuid = 1\ntenant = \"u\"\n");
    assert_eq!(
        on.attribute(&evidence(Some("r"))),
        of("r", Source::Registered)
    );
    assert_eq!(on.attribute(&evidence(Some("../r"))), NOBODY);
    assert_eq!(on.attribute(&evidence(None)), of("u", Source::User));
    let off = attributor("[[rule]]\nuid = 1\ntenant = \"u\"\n");
    assert_eq!(off.attribute(&evidence(Some("r"))), of("u", Source::User));
}

/// Answers as it is told.
struct Told(Known);

impl Creators for Told {
    fn job(&self, _: &Job, _: u32) -> Known {
        self.0.clone()
    }

    fn pod(&self, _: &PodUid) -> Known {
        self.0.clone()
    }

    fn container(&self, _: &Container) -> Known {
        self.0.clone()
    }
}

const ID: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
const CREATORS: &str = "[creators.docker]\nsocket = \"/d\"\ntrust_labels = true\n\
    [creators.cri]\nsocket = \"/c\"\ntrust_labels = true\n[creators.slurm]\njob_command = [\"/s\", \"{job}\"]\n";

fn made(rule: &str, path: &str, known: Known) -> Owner {
    let text = format!(
        "{CREATORS}[[rule]]\n{rule}\n[[rule]]\nuid = 1\ntenant = \"by-uid\"\nalso_in_containers = true\n"
    );
    let cgroup = format!("0::{path}\n");
    attributor(&text).attribute(&Evidence {
        ids: ids(1, 1),
        lent: Lent::default(),
        login_uid: None,
        membership: &membership(cgroup.as_bytes()),
        workload: &workload(cgroup.as_bytes()),
        creators: &Told(known),
        host_executable: None,
        registered: None,
        leased: None,
    })
}

fn facts() -> Known {
    let text = |text: &str| Some(text.to_owned());
    Some(Ok(Arc::new(Facts {
        user: text("ann"),
        uid: None,
        account: text("phys"),
        namespace: text("team-b"),
        name: text("web-1"),
        labels: BTreeMap::from([("org/owner".to_owned(), "c".to_owned())]),
    })))
}

#[test]
fn who_made_it_names_the_tenant_and_what_is_not_known_is_no_guess() {
    let job = "/slurm/uid_1/job_7";
    let docker = format!("/docker/{ID}");
    let pod = format!("/kubepods/pod0123456789abcdef0123456789abcdef/{ID}");
    for (rule, path, expected) in [
        (
            "slurm_user = \"{tenant}\"",
            job,
            of("ann", Source::SlurmUser),
        ),
        (
            "slurm_account = \"phys\"\ntenant = \"p\"",
            job,
            of("p", Source::SlurmAccount),
        ),
        (
            "pod_namespace = \"team-{tenant}\"",
            &pod,
            of("b", Source::PodNamespace),
        ),
        (
            "pod_label = \"org/owner={tenant}\"",
            &pod,
            of("c", Source::PodLabel),
        ),
        (
            "container_label = \"org/owner={tenant}\"",
            &docker,
            of("c", Source::ContainerLabel),
        ),
        (
            "container_name = \"{tenant}-*\"",
            &docker,
            of("web", Source::ContainerName),
        ),
    ] {
        assert_eq!(made(rule, path, facts()), expected, "{rule}");
        // The answer is another one: the next rule decides.
        let other = Some(Ok(Arc::default()));
        assert_eq!(
            made(rule, path, other),
            of("by-uid", Source::User),
            "{rule}"
        );
        // Not in such a thing at all, or nobody who could know.
        assert_eq!(made(rule, "/x.slice", facts()), of("by-uid", Source::User));
        assert_eq!(made(rule, path, None), of("by-uid", Source::User));
        for reason in [
            Reason::Pending,
            Reason::RuntimeUnreachable,
            Reason::JobUnknown,
        ] {
            let owner = made(rule, path, Some(Err(reason)));
            assert_eq!(owner, Owner::Unattributed(reason), "{rule}");
        }
    }
    let strange = made("pod_namespace = \"{tenant}-b\"", &pod, facts());
    assert_eq!(strange, of("team", Source::PodNamespace));
}

proptest! {
    /// Whatever somebody writes into a label, no name comes out that no tenant can have, and no later rule decides.
    #[test]
    fn no_label_names_what_is_no_tenant(value in "\\PC{0,40}") {
        let labels = BTreeMap::from([("t".to_owned(), value.clone())]);
        let facts = Facts { labels, ..Facts::default() };
        let path = format!("/docker/{ID}");
        let owner = made("container_label = \"t={tenant}\"", &path, Some(Ok(Arc::new(facts))));
        match owner {
            Owner::Tenant { name, source: Source::ContainerLabel } => {
                prop_assert!(is_tenant_name(&name) && name == value);
            }
            // An empty label fits no pattern, so it says nothing.
            Owner::Tenant { name, .. } => prop_assert!(name == "by-uid" && value.is_empty()),
            other => prop_assert_eq!(other, NOBODY),
        }
    }
}

#[test]
fn groups_are_real_ones_and_logins_count_where_logins_are() {
    let rules = attributor(
        "[[rule]]\nlogin_user = \"alice\"\ntenant = \"l\"\n[[rule]]\ngid_range = [7, 8]\ntenant = \"g\"\n",
    );
    let owner = |path: &str, login_uid| {
        let membership = membership(format!("0::{path}\n").as_bytes());
        rules.attribute(&Evidence {
            ids: ids(0, 0),
            lent: Lent::default(),
            login_uid,
            membership: &membership,
            workload: &NOTHING,
            creators: &Nobody,
            host_executable: None,
            registered: None,
            leased: None,
        })
    };
    let session = "/user.slice/user-1000.slice/session-4.scope";
    for path in [
        session,
        "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
    ] {
        assert_eq!(owner(path, Some(1000)), of("l", Source::Login), "{path}");
    }
    // Case 70: a service's process may write its own loginuid as long as it has none.
    for (path, uid) in [
        ("/system.slice/x.service", Some(1000)),
        ("/", Some(1000)),
        (session, None),
        (session, Some(1)),
        // What the two do not say alike is no login.
        ("/user.slice/user-2000.slice/session-4.scope", Some(1000)),
        (
            "/user.slice/user-2000.slice/user@2000.service/app.slice/x.service",
            Some(1000),
        ),
        ("/user.slice/own.service", Some(1000)),
        ("/user.slice", Some(1000)),
        ("/user.slice/user-1000.service", Some(1000)),
    ] {
        assert_eq!(owner(path, uid), of("g", Source::Group), "{path} {uid:?}");
    }
}

mod doubt;
