//! Paths as the managers really make them, and what a tenant could make to look like them.

use proptest::prelude::*;

use super::*;

const ID: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const UID: &str = "1b2c3d4e-0a1b-4c2d-8e3f-a0b1c2d3e4f5";
const UID_: &str = "1b2c3d4e_0a1b_4c2d_8e3f_a0b1c2d3e4f5";

fn of(path: &str) -> Workload {
    workload(format!("0::{path}\n").as_bytes())
}

fn job(id: &str, uid: Option<u32>) -> Workload {
    Workload {
        job: Some(Job {
            id: JobId(id.to_owned()),
            uid,
            group: None,
        }),
        ..Workload::default()
    }
}

fn container(runtime: Runtime) -> Workload {
    made_by(runtime, ContainerId::parse(ID))
}

fn pod(container: Workload) -> Workload {
    Workload {
        pod: PodUid::parse(UID),
        contained: true,
        ..container
    }
}

#[test]
fn slurm_jobs_of_all_layouts() {
    for (path, expected) in [
        (
            "/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0",
            job("4711", None),
        ),
        (
            "/system.slice/gpu01_slurmstepd.scope/job_4711/step_extern/user/task_special",
            job("4711", None),
        ),
        ("/hpc.slice/slurmstepd.scope/job_4711", job("4711", None)),
        (
            "/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_batch/user/task_0",
            job("s5K1KKYAYG5D00", None),
        ),
        (
            "/slurm/uid_1000/job_4711/step_batch/task_0",
            job("4711", Some(1000)),
        ),
        (
            "/slurm_gpu01/uid_1000/job_4711/step_extern",
            job("4711", Some(1000)),
        ),
        ("/system.slice/slurmstepd.scope/system", Workload::default()),
        ("/system.slice/slurmd.service", Workload::default()),
        ("/slurm/system", Workload::default()),
    ] {
        assert_eq!(of(path), expected, "{path}");
    }
}

#[test]
fn containers_and_pods_of_all_layouts() {
    use Runtime::{Cri, Docker, Podman};
    for (path, expected) in [
        (
            format!("/system.slice/docker-{ID}.scope"),
            container(Docker),
        ),
        (format!("/gpu.slice/docker-{ID}.scope/x"), container(Docker)),
        (format!("/docker/{ID}"), container(Docker)),
        (
            format!("/machine.slice/libpod-{ID}.scope/container"),
            container(Podman),
        ),
        (
            format!("/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{OTHER}.scope"),
            made_by(Podman, ContainerId::parse(OTHER)),
        ),
        (format!("/libpod_parent/libpod-{ID}"), container(Podman)),
        (
            format!("/libpod_parent/{OTHER}/libpod-{ID}"),
            container(Podman),
        ),
        (
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            pod(container(Cri)),
        ),
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container"),
            pod(container(Cri)),
        ),
        (
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{ID}.scope"
            ),
            pod(container(Cri)),
        ),
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            pod(container(Cri)),
        ),
        (
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            pod(container(Cri)),
        ),
        (format!("/kubepods/pod{UID}/crio-{ID}"), pod(container(Cri))),
        (format!("/kubepods/pod{UID}"), pod(Workload::default())),
        (
            format!(
                "/system.slice/containerd.service/kubepods-pod{UID_}.slice:cri-containerd:{ID}"
            ),
            pod(container(Cri)),
        ),
        (
            format!("/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}"),
            pod(container(Cri)),
        ),
    ] {
        assert_eq!(of(&path), expected, "{path}");
    }
    let mirror = "/kubepods/pod0123456789abcdef0123456789abcdef";
    assert_eq!(
        of(mirror).pod.unwrap().as_str(),
        "0123456789abcdef0123456789abcdef"
    );
}

/// Case 70: who may make groups only below a unit, or in a place of its own, is nobody's job, container or pod.
#[test]
fn what_a_tenant_can_name_is_not_believed() {
    let user = "/user.slice/user-1000.slice/user@1000.service";
    for path in [
        format!("{user}/user.slice/libpod-{ID}.scope"),
        format!("{user}/slurmstepd.scope/job_1/step_0"),
        format!("{user}/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope"),
        format!("{user}/docker/{ID}"),
        format!("/../docker/{ID}"),
        format!("//docker/{ID}"),
        format!("/x/docker/{ID}"),
        format!("/docker/{ID}0"),
        format!("/docker/{}", ID.to_uppercase()),
        format!("/docker/buildkit/{ID}"),
        format!("/tenant-pod{UID_}.slice/crio-{ID}.scope"),
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        "/system.slice/x.service/slurm/uid_1/job_1".to_owned(),
        "/system.slice/slurmstepd.scope/job_1x/step_0".to_owned(),
        "/system.slice/slurmstepd.scope/job_/step_0".to_owned(),
        "/system.slice/slurmstepd.scope/s5k1kkyayg5d00".to_owned(),
        "/slurm/uid_-1/job_1".to_owned(),
        "/slurm/uid_1/step_1".to_owned(),
    ] {
        let nothing_named = Workload {
            contained: false,
            ..of(&path)
        };
        assert_eq!(nothing_named, Workload::default(), "{path}");
    }
    // A container's own groups, and those of a job, do not make it another one.
    let nested = format!("/docker/{ID}/docker/{OTHER}");
    assert_eq!(of(&nested), container(Runtime::Docker));
    let nested = "/slurm/uid_1/job_1/step_0/task_0/slurm/uid_2/job_2";
    assert_eq!(of(nested), job("1", Some(1)));
}

#[test]
fn controllers_that_contradict_each_other_are_not_believed() {
    let v1 = format!(
        "11:freezer:/slurm/uid_7/job_1/step_0\n10:memory,cpu:/slurm/uid_7/job_1/step_0/task_0\n\
         4:devices:/docker/{ID}\n1:name=systemd:/system.slice/slurmd.service\n0::/system.slice/slurmd.service\n"
    );
    let both = Workload {
        job: job("1", Some(7)).job,
        ..container(Runtime::Docker)
    };
    assert_eq!(workload(v1.as_bytes()), both);
    let apart = format!("{v1}3:cpuset:/slurm/uid_8/job_2\n");
    assert_eq!(workload(apart.as_bytes()), container(Runtime::Docker));
}

#[test]
fn the_folder_of_a_job_ends_with_the_job() {
    let folder = |text: &str| {
        let folder = job_folder(text.as_bytes())?;
        Some((folder.controllers, folder.path))
    };
    for (text, controllers, path) in [
        (
            "3:x:/a\n2:cpu,memory:/slurm_gpu01/uid_1/job_7/step_0/task_0\n0::/\n",
            "cpu,memory",
            "/slurm_gpu01/uid_1/job_7",
        ),
        (
            "0::/system.slice/slurmstepd.scope/job_7/step_0/job_8\n",
            "",
            "/system.slice/slurmstepd.scope/job_7",
        ),
        (
            "0::/system.slice/gpu_slurmstepd.scope/s5K1KKYAYG5D00\n",
            "",
            "/system.slice/gpu_slurmstepd.scope/s5K1KKYAYG5D00",
        ),
    ] {
        let expected = (controllers.to_owned(), path.to_owned());
        assert_eq!(folder(text), Some(expected), "{text}");
    }
    for none in ["", "0::/", "0::/x.slice/job_7", "/slurm/uid_1/job_7"] {
        assert_eq!(folder(none), None, "{none}");
    }
}

/// Whoever made it chose the users in it, also where nothing tells which container it is.
#[test]
fn what_is_in_some_container_is_known_to_be() {
    let lxc_and_own_parents = [
        "/lxc.payload.web/x".to_owned(),
        "/lxc/web".to_owned(),
        format!("/mine/{ID}"),
        format!("/mine/deeper/libpod-{ID}"),
        format!("/a/b/c/d/e/{ID}"),
        format!("/machine.slice/own/{ID}"),
        "/docker/short".to_owned(),
        "/kubepods/podnone/x".to_owned(),
        "/kubepods.slice/x.scope".to_owned(),
        "/system.slice/docker-short.scope".to_owned(),
        "/machine.slice/systemd-nspawn@web.service/payload".to_owned(),
        "/machine.slice/machine-web.scope".to_owned(),
        format!("/system.slice/containerd.service/kubepods-pod{UID_}.slice:other:{ID}"),
    ];
    for path in lxc_and_own_parents {
        let found = of(&path);
        assert!(found.contained && found.container.is_none(), "{path}");
    }
    for path in [
        "/".to_owned(),
        "/system.slice/docker.service".to_owned(),
        "/system.slice/containerd.service".to_owned(),
        "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator".to_owned(),
        format!("/user.slice/user-1.slice/user@1.service/user.slice/libpod-{ID}.scope"),
        format!("/tenant.slice/tenant-a.slice/job.service/{ID}"),
        "/system.slice/slurmstepd.scope/job_4711/step_0".to_owned(),
    ] {
        assert!(!of(&path).contained, "{path}");
    }
    let apart = format!("2:x:/docker/{ID}\n1:y:/docker/{OTHER}\n");
    let found = workload(apart.as_bytes());
    assert!(found.contained && found.container.is_none());
}

proptest! {
    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = workload(&text);
    }

    /// Of hostile paths built from the managers' own words, none below a user's manager or a service is believed.
    #[test]
    fn nothing_below_a_tenants_unit_counts(
        words in proptest::collection::vec(
            prop_oneof![
                Just("docker".to_owned()), Just(ID.to_owned()), Just("slurm".to_owned()), Just("uid_0".to_owned()),
                Just("job_1".to_owned()), Just("slurmstepd.scope".to_owned()), Just("kubepods.slice".to_owned()),
                Just(format!("kubepods-pod{UID_}.slice")), Just(format!("crio-{ID}.scope")), Just("..".to_owned()),
                Just(format!("kubepods-pod{UID_}.slice:cri-containerd:{ID}")), "[ -~]{0,20}",
            ],
            0..8,
        ),
        unit in prop_oneof![
            Just("user.slice/user-1.slice/user@1.service"), Just("user.slice/user-1.slice/session-3.scope"),
            Just("tenant.slice/tenant-a.slice/job.service"),
        ],
    ) {
        let path = format!("0::/{unit}/{}\n", words.join("/").replace('\n', ""));
        prop_assert_eq!(workload(path.as_bytes()), Workload::default());
    }

    /// What runs in a container or job may make any groups below: the answer stays that of the container or job.
    #[test]
    fn nothing_below_the_container_or_job_counts(
        below in proptest::collection::vec(any::<u8>().prop_filter("a line", |b| *b != b'\n'), 0..60),
    ) {
        for own in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            "/slurm/uid_5/job_9".to_owned(),
            "/system.slice/slurmstepd.scope/job_9".to_owned(),
        ] {
            let path = [b"0::", own.as_bytes(), b"/", &below, b"\n"].concat();
            prop_assert_eq!(workload(&path), of(&own));
        }
    }
}
