//! Containers, pods and jobs: real processes in real groups, and real servers that know whose they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::observation::{Owner, Reason, Source};
use gpuquota_proto::cri_v1::{ContainerMetadata, ContainerStatus};
use gpuquota_proto::pod_resources_v1::PodResources;

use gpuquota_agent::process::facts::{FactsCache, Told};

use crate::cgroup::Cgroup;
use crate::look::{Look, fresh_id};
use crate::node::Node;
use crate::runtimes::{Cri, Kubelet, docker, hostile};
use crate::skip::skipped;

fn of(name: &str, source: Source) -> Owner {
    Owner::Tenant {
        name: name.to_owned(),
        source,
    }
}

fn nobodys(reason: Reason) -> Owner {
    Owner::Unattributed(reason)
}

fn socket_rules(node: &Node, table: &str, rule: &str) -> String {
    let socket = node.path().join("socket");
    format!(
        "[creators.{table}]\nsocket = {socket:?}\ntrust_labels = true\n[[rule]]\n{rule}\n[[rule]]\nuid_range = [0, 4294967295]\ntenant = \"by-uid\"\nalso_in_containers = true\n"
    )
}

#[tokio::test]
async fn a_docker_container_is_whose_its_label_says_and_nobodys_until_that_is_known() {
    let id = fresh_id();
    let rule = "container_label = \"org/tenant={tenant}\"";
    let look = Look::at(&format!("/docker/{id}"), |node| {
        socket_rules(node, "docker", rule)
    });
    let Some(mut look) = look else { return };
    let socket = look.node.path().join("socket");
    assert_eq!(look.owner().await, nobodys(Reason::Pending));
    look.until(&nobodys(Reason::RuntimeUnreachable)).await;
    let other = docker(&socket, &fresh_id(), &[]);
    look.until(&nobodys(Reason::ContainerUnknown)).await;
    drop(other);
    let _docker = docker(&socket, &id, &[("org/tenant", "team-a"), ("tenant", "x")]);
    look.until(&of("team-a", Source::ContainerLabel)).await;
    drop(_docker);
    // The id is never another container's, so what is known stays.
    assert_eq!(look.owner().await, of("team-a", Source::ContainerLabel));
}

#[tokio::test]
async fn rule_08_hostile_answers_name_nobody_and_a_good_one_heals() {
    let id = fresh_id();
    let rule = "container_label = \"tenant={tenant}\"";
    let look = Look::at(&format!("/docker/{id}"), |node| {
        socket_rules(node, "docker", rule)
    });
    let Some(mut look) = look else { return };
    let socket = look.node.path().join("socket");
    let unreachable = nobodys(Reason::RuntimeUnreachable);
    let unreadable = nobodys(Reason::AnswerUnreadable);
    for (once, again, told) in [
        (&b""[..], &b""[..], &unreachable),
        (b"\x00\xff\x00 garbage\r\n\r\n", b"", &unreachable),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"Id\":1}\n",
            b"",
            &unreadable,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            &[b' '; 65536],
            &unreadable,
        ),
        (b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 65536], &unreachable),
        (
            b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            b"",
            &unreachable,
        ),
    ] {
        let hostile = hostile(&socket, once, again);
        assert_eq!(look.owner_by(&hostile).await, *told);
    }
    let _docker = docker(&socket, &id, &[("tenant", "../x")]);
    look.until(&nobodys(Reason::NoRule)).await;
}

/// Slurm, CRI and kubelet answers in garbage or without end do not name anybody either.
#[tokio::test]
async fn hostile_grpc_answers_name_nobody() {
    let uid = uuid::Uuid::new_v4().to_string();
    let rule = "pod_namespace = \"{tenant}\"";
    let look = Look::at(&format!("/kubepods/pod{uid}"), |node| {
        socket_rules(node, "cri", rule)
    });
    let Some(mut look) = look else { return };
    let socket = look.node.path().join("socket");
    let unreachable = nobodys(Reason::RuntimeUnreachable);
    for (once, again) in [
        (&b"HTTP/1.1 400 no\r\n\r\n"[..], &b""[..]),
        (b"", b""),
        (&[0; 9], &[0xff; 65536]),
    ] {
        let hostile = hostile(&socket, once, again);
        assert_eq!(look.owner_by(&hostile).await, unreachable);
    }
    let huge = "x".repeat(2 << 20);
    let cri = Cri {
        sandboxes: vec![Cri::sandbox(&uid, &huge, &[])],
        ..Cri::default()
    };
    let cri = cri.serve(&socket);
    let unreadable = nobodys(Reason::AnswerUnreadable);
    assert_eq!(look.owner_by(&cri).await, unreadable);
}

#[tokio::test]
async fn a_pod_is_its_namespaces_and_labels_as_the_runtime_has_them() {
    let (uid, id) = (uuid::Uuid::new_v4().to_string(), fresh_id());
    let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let path =
        format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{id}.scope");
    let other = uuid::Uuid::new_v4().to_string();
    let metadata = ContainerMetadata {
        name: "main".to_owned(),
        attempt: 0,
    };
    let cri = Cri {
        sandboxes: vec![
            Cri::sandbox(
                &other,
                "team-x",
                &[("io.kubernetes.pod.uid", &uid), ("owner", "x")],
            ),
            Cri::sandbox(&uid, "team-b", &[("owner", "c")]),
        ],
        containers: vec![ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            labels: [("owner".to_owned(), "d".to_owned())].into(),
        }],
        ..Cri::default()
    };
    for (rule, owner) in [
        (
            "pod_namespace = \"team-{tenant}\"",
            of("b", Source::PodNamespace),
        ),
        ("pod_label = \"owner={tenant}\"", of("c", Source::PodLabel)),
        (
            "container_label = \"owner={tenant}\"",
            of("d", Source::ContainerLabel),
        ),
        (
            "container_name = \"main\"\ntenant = \"m\"",
            of("m", Source::ContainerName),
        ),
    ] {
        let Some(mut look) = Look::at(&path, |node| socket_rules(node, "cri", rule)) else {
            return;
        };
        let asked = std::sync::Arc::clone(&cri.asked);
        let _cri = cri.clone().serve(&look.node.path().join("socket"));
        look.until(&owner).await;
        let before = *asked.lock().unwrap();
        assert_eq!(look.owner().await, owner);
        assert_eq!(
            *asked.lock().unwrap(),
            before,
            "what is known is not asked again"
        );
    }
}

#[tokio::test]
async fn a_pod_is_its_namespaces_by_the_kubelet_and_its_folder_of_logs() {
    let uid = uuid::Uuid::new_v4().to_string();
    let logs = tempfile::tempdir().unwrap();
    let rules = |node: &Node| {
        let socket: PathBuf = node.path().join("socket");
        let logs = logs.path();
        format!(
            "[creators.kubelet]\npod_resources = {socket:?}\npod_logs = {logs:?}\n[[rule]]\npod_namespace = \"team-{{tenant}}\"\n"
        )
    };
    let Some(mut look) = Look::at(
        &format!("/kubepods/burstable/pod{uid}/{}", fresh_id()),
        rules,
    ) else {
        return;
    };
    let socket = look.node.path().join("socket");
    let gpu = look
        .sampler
        .sample(boottime_ms())
        .await
        .reading
        .unwrap()
        .gpus[0]
        .uuid
        .clone();
    // Who was given the device is not who uses it.
    let pods: Vec<PodResources> = vec![
        Kubelet::pod("team-x", "train-0", &gpu),
        Kubelet::pod("team-b", "train-0", &format!("{gpu}::1")),
        Kubelet::pod("..", "train-0", &gpu),
    ];
    let _kubelet = Kubelet(pods).serve(&socket);
    look.until(&nobodys(Reason::PodUnknown)).await;
    fs::write(
        logs.path().join(format!("team-x_train-0_{uid}")),
        "no folder",
    )
    .unwrap();
    fs::create_dir(logs.path().join(format!("team-b_train-0_{uid}"))).unwrap();
    look.until(&of("b", Source::PodNamespace)).await;
}

#[tokio::test]
async fn a_slurm_job_is_its_accounts_or_users() {
    let command = "#!/bin/sh\nd=${0%/*}\ncase $1 in --jobs=s5K1KKYAYG5D00) echo asked >> \"$d/asked\"; cat \"$d/told\";; *) exit 1;; esac\n";
    let rules = |node: &Node| {
        let (program, told) = (node.path().join("squeue"), node.path().join("told"));
        fs::write(told, "root phys\nroot phys\n").unwrap();
        fs::write(&program, command).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        format!(
            "[creators.slurm]\njob_command = [{program:?}, \"--jobs={{job}}\"]\n[[rule]]\nslurm_account = \"{{tenant}}\"\n"
        )
    };
    let scope = format!("gpuquota{}_slurmstepd.scope", std::process::id());
    let path = format!("/system.slice/{scope}/s5K1KKYAYG5D00/step_0/user/task_0");
    let Some(mut look) = Look::at(&path, rules) else {
        return;
    };
    look.until(&of("phys", Source::SlurmAccount)).await;
    drop(look);
    // The number is another user's job by what Slurm says.
    let contradicted = |node: &Node| {
        let rules = rules(node);
        fs::write(node.path().join("told"), "daemon phys\n").unwrap();
        rules
    };
    let Some(mut look) = Look::at(&path, contradicted) else {
        return;
    };
    look.until(&nobodys(Reason::JobContradicts)).await;
    drop(look);
    let Some(mut unknown) = Look::at(
        &format!("/system.slice/{scope}/job_9/step_0/user/task_0"),
        rules,
    ) else {
        return;
    };
    unknown.until(&nobodys(Reason::JobUnknown)).await;
    drop(unknown);
    // cgroup v1: slurmd itself wrote whose the job is.
    let by_user = |_: &Node| {
        "[[rule]]\nslurm_user = \"root\"\ntenant = \"r\"\n[[rule]]\nuid = 0\ntenant = \"by-uid\"\n"
            .to_owned()
    };
    let root = format!("/slurm_gpuquota{}", std::process::id());
    let Some(mut look) = Look::at(&format!("{root}/uid_0/job_9/step_0"), by_user) else {
        return;
    };
    look.until(&of("r", Source::SlurmUser)).await;
    drop(look);
    let Some(mut other) = Look::at(&format!("{root}/uid_1/job_9/step_0"), by_user) else {
        return;
    };
    other.until(&of("by-uid", Source::User)).await;
}

/// Case 70: who is at the other end of a socket is asked of the kernel.
#[tokio::test]
async fn rule_08_a_socket_that_another_user_listens_on_is_not_believed() {
    let id = fresh_id();
    let rule = "container_label = \"tenant={tenant}\"";
    let look = Look::at(&format!("/docker/{id}"), |node| {
        socket_rules(node, "docker", rule)
    });
    let Some(mut look) = look else { return };
    if !rustix::process::geteuid().is_root() {
        skipped(
            "a_socket_that_another_user_listens_on",
            "only root can listen as somebody else",
        );
        return;
    }
    let open = look.node.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let listening = open.join("socket");
    std::os::unix::fs::symlink(&listening, look.node.path().join("socket")).unwrap();
    // Of one thread only; the kernel keeps who it was when it began to listen.
    let listener = std::thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(64_321)).unwrap();
        std::os::unix::net::UnixListener::bind(listening).unwrap()
    });
    let listener = listener.join().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let body = format!(
                "{{\"Id\":\"{id}\",\"Name\":\"/x\",\"Config\":{{\"Labels\":{{\"tenant\":\"evil\"}}}}}}"
            );
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    look.until(&nobodys(Reason::RuntimeUnreachable)).await;
    assert_eq!(look.owner().await, nobodys(Reason::RuntimeUnreachable));
}

/// A job of the same number and path later on is another one, for as long as the process lives.
#[test]
fn rule_08_a_jobs_group_made_again_is_another_job() {
    let path = format!("/slurm_again{}/uid_0/job_9", std::process::id());
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let mut facts = FactsCache::new(Vec::new());
    let mut group = |now_ms| {
        let cgroup = Cgroup::new(&path)?;
        cgroup.take(child.id());
        let Told::Facts(told) = facts.ask(child.id(), u64::MAX, now_ms) else {
            panic!("it lives");
        };
        let job = told.workload.job.clone().unwrap();
        facts.end_look();
        Some(job.group.unwrap())
    };
    let (first, again) = (group(0), group(10_000));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.is_none() || first != again);
}
