//! Evidence that is not known yet, or that others choose, names nobody.

use super::*;

/// A directory service that is away does not make one tenant's process another's: until a name is known, what its rule may be
/// about is nobody's, and rules before it go on.
#[test]
fn rule_08_a_user_or_group_that_is_not_known_yet_decides_for_nobody() {
    let mut rules = attributor(
        "[[rule]]\nslice = \"tenant-{tenant}.slice\"\n[[rule]]\nlogin_user = \"ann\"\ntenant = \"l\"\n\
         [[rule]]\nuser = \"ann\"\ntenant = \"u\"\n[[rule]]\ngroup = \"crew\"\ntenant = \"g\"\n\
         [[rule]]\nuid_range = [0, 4294967295]\ntenant = \"rest\"\n",
    );
    let (ann, crew) = (NamedId::user("ann"), NamedId::group("crew"));
    assert_eq!(
        rules.unresolved(),
        BTreeSet::from([ann.clone(), crew.clone()])
    );
    let as_of = |rules: &Attributor, path: &str, uid, login_uid| {
        let text = format!("0::{path}\n");
        rules.attribute(&Evidence {
            ids: ids(uid, uid),
            lent: Lent::default(),
            login_uid,
            workload: &workload(text.as_bytes()),
            creators: &Nobody,
            membership: &membership(text.as_bytes()),
            host_executable: None,
            registered: None,
            leased: None,
        })
    };
    let session = "/user.slice/user-3000.slice/session-4.scope";
    let unknown = |name: &NamedId| Owner::Unresolved(name.clone());
    for uid in [3000, 7] {
        assert_eq!(as_of(&rules, "/", uid, None), unknown(&ann), "{uid}");
    }
    assert_eq!(as_of(&rules, session, 0, Some(3000)), unknown(&ann));
    assert_eq!(unknown(&ann).reason(), Some(Reason::Unresolved));
    let slice = "/tenant.slice/tenant-a.slice/x.service";
    assert_eq!(as_of(&rules, slice, 3000, None), of("a", Source::Slice));
    // Neither of these rules can be about it.
    let docker = format!("/docker/{ID}");
    assert_eq!(as_of(&rules, &docker, 3000, None), NOBODY);
    rules.resolve(&ann, 3000);
    assert_eq!(as_of(&rules, "/", 3000, None), of("u", Source::User));
    assert_eq!(
        as_of(&rules, session, 0, Some(3000)),
        of("l", Source::Login)
    );
    assert_eq!(as_of(&rules, "/", 1, None), unknown(&crew));
    rules.resolve(&crew, 7);
    assert_eq!(as_of(&rules, "/", 1, None), of("g", Source::Group));
    rules.resolve(&NamedId::group("ann"), 1);
    assert!(rules.unresolved().is_empty());
}

/// Case 70: `docker run --user` does not choose the tenant, unless the configuration says that it may.
#[test]
fn rule_08_ids_inside_of_containers_are_their_makers_choice() {
    let rules = "[[rule]]\nuser = \"alice\"\ntenant = \"u\"\nFLAG\n[[rule]]\ngid_range = [7, 7]\ntenant = \"g\"\nFLAG\n";
    let owner_in = |path: &str, flag: &str, uid| {
        let text = format!("0::{path}\n");
        attributor(&rules.replace("FLAG", flag)).attribute(&Evidence {
            ids: ids(uid, uid),
            lent: Lent::default(),
            login_uid: None,
            workload: &workload(text.as_bytes()),
            creators: &Nobody,
            membership: &membership(text.as_bytes()),
            host_executable: None,
            registered: None,
            leased: None,
        })
    };
    for path in [
        format!("/docker/{ID}"),
        format!("/system.slice/docker-{ID}.scope"),
        "/kubepods/pod0123456789abcdef0123456789abcdef".to_owned(),
        format!("/mine/{ID}"),
    ] {
        let flag = "also_in_containers = true";
        assert_eq!(owner_in(&path, "", 1000), NOBODY, "{path}");
        assert_eq!(owner_in(&path, flag, 1000), of("u", Source::User), "{path}");
        assert_eq!(owner_in(&path, flag, 1), of("g", Source::Group), "{path}");
    }
    assert_eq!(owner_in("/", "", 1000), of("u", Source::User));
}

/// Case 70: in a rootless container its maker chooses among the ids that the host lent it, which may be other users' ids too.
#[test]
fn rule_08_ids_that_the_host_lends_are_nobodys_own() {
    let rules = attributor(
        "[[rule]]\nslurm_user = \"{tenant}\"\n[[rule]]\nuid_range = [100000, 100999]\ntenant = \"u\"\n\
         [[rule]]\ngid_range = [7, 7]\ntenant = \"g\"\n[[rule]]\nuser = \"ann\"\ntenant = \"a\"\n",
    );
    let owner_of = |path: &str, uid, gid| {
        let text = format!("0::{path}\n");
        rules.attribute(&Evidence {
            ids: ids(100_005, 100_005),
            lent: Lent { uid, gid },
            login_uid: None,
            workload: &workload(text.as_bytes()),
            creators: &Told(facts()),
            membership: &membership(text.as_bytes()),
            host_executable: None,
            registered: None,
            leased: None,
        })
    };
    let own = "/user.slice/user-1000.slice/user@1000.service/x.scope";
    assert_eq!(owner_of(own, false, false), of("u", Source::User));
    assert_eq!(owner_of(own, true, false), of("g", Source::Group));
    assert_eq!(owner_of(own, true, true), NOBODY);
    let job = "/system.slice/slurmstepd.scope/job_7/step_0";
    assert_eq!(owner_of(job, false, false), of("ann", Source::SlurmUser));
    let contradicts = Owner::Unattributed(Reason::JobContradicts);
    assert_eq!(owner_of(job, true, false), contradicts);
    let told = "/slurm/uid_1/job_7";
    assert_eq!(owner_of(told, true, false), of("ann", Source::SlurmUser));
}
