//! What a rule may say and what is refused.

use super::*;
use crate::attribute::AttributionConfig;

fn first_error(text: &str) -> Option<ConfigError> {
    let config: AttributionConfig = toml::from_str(text).unwrap();
    let checked = config
        .rules
        .iter()
        .zip(1..)
        .map(|(rule, number)| rule.check(number, &config.creators));
    checked.filter_map(Result::err).next()
}

#[test]
fn the_documented_rules_are_accepted() {
    let text = r#"
        registered = true
        [[rule]]
        slice = "tenant-{tenant}.slice"
        [[rule]]
        slice = "render.slice"
        tenant = "render"
        [[rule]]
        unit = "gpu-job-{tenant}@*.service"
        [[rule]]
        user = "alice"
        tenant = "x"
        [[rule]]
        uid = 1000
        tenant = "x"
        also_in_containers = true
        [[rule]]
        uid_range = [1000, 1999]
        tenant = "y"
        [[rule]]
        gid_range = [1, 2]
        tenant = "y"
        [[rule]]
        login_user = "alice"
        tenant = "y"
        [[rule]]
        slurm_user = "{tenant}"
        [[rule]]
        slurm_account = "{tenant}"
        [[rule]]
        pod_namespace = "ml-{tenant}"
        [[rule]]
        pod_label = "example.org/tenant={tenant}"
        [[rule]]
        container_label = "example.org/tenant={tenant}"
        [[rule]]
        container_name = "render-*"
        tenant = "render"
        [creators.cri]
        socket = "/run/containerd/containerd.sock"
        trust_labels = true
        [creators.slurm]
        job_command = ["/usr/bin/squeue", "--jobs={job}"]
        [gpu_model]
        "NVIDIA H100 80GB HBM3" = "nvidia.com/h100"
    "#;
    assert_eq!(first_error(text), None);
    let config: AttributionConfig = toml::from_str("").unwrap();
    assert!(!config.registered && config.rules.is_empty());
    assert!(config.system.executables.len() > 5);
}

#[test]
fn what_is_unclear_is_refused_with_the_rule() {
    use ConfigError as E;
    let is = |text: &str, expected: fn(&E) -> bool| {
        let error = first_error(&format!(
            "[[rule]]\nuid = 1\ntenant = \"a\"\n[[rule]]\n{text}"
        ))
        .unwrap();
        assert!(expected(&error), "{error}");
        assert!(
            matches!(error, E::GpuModel(_)) || error.to_string().contains("rule 2"),
            "{error}"
        );
    };
    is("tenant = \"x\"", |e| {
        matches!(e, E::NotOne { found: 0, .. })
    });
    is("uid = 1\nuser = \"a\"\ntenant = \"x\"", |e| {
        matches!(e, E::NotOne { found: 2, .. })
    });
    is("uid = 1", |e| matches!(e, E::NoTenant { .. }));
    is("uid = 1\ntenant = \"../x\"", |e| {
        matches!(e, E::TenantName { .. })
    });
    is("uid_range = [2, 1]\ntenant = \"x\"", |e| {
        matches!(e, E::Range { .. })
    });
    for (text, what) in [
        ("slurm_account = \"{tenant}\"", "slurm.job_command"),
        ("pod_namespace = \"{tenant}\"", "kubelet.pod_resources"),
        (
            "pod_label = \"a={tenant}\"\n[creators.cri]\nsocket = \"/x\"",
            "trust_labels",
        ),
        (
            "container_name = \"{tenant}\"\n[creators.docker]\nsocket = \"/x\"",
            "trust_labels",
        ),
        (
            "container_label = \"a={tenant}\"\n[creators.docker]\ntrust_labels = true",
            "socket",
        ),
        ("container_label = \"a\"\ntenant = \"x\"", "KEY=VALUE"),
        ("container_label = \"=a\"\ntenant = \"x\"", "KEY=VALUE"),
        ("login_uid_range = [3, 2]\ntenant = \"x\"", "3 is above 2"),
        ("gid_range = [2, 3]", "tenant"),
        (
            "slice = \"a.slice\"\ntenant = \"x\"\nalso_in_containers = true",
            "also_in_containers",
        ),
        (
            "login_user = \"a\"\ntenant = \"x\"\nalso_in_containers = true",
            "also_in_containers",
        ),
    ] {
        let error = first_error(&format!(
            "[[rule]]\nuid = 1\ntenant = \"a\"\n[[rule]]\n{text}"
        ));
        let error = error.unwrap().to_string();
        assert!(error.contains("rule 2") && error.contains(what), "{error}");
    }
    is("slice = \"tenant-*.slice\"", |e| {
        matches!(e, E::Pattern { .. })
    });
    for unknown in [
        "[[rule]]\nslise = \"x\"",
        "registerd = true",
        "[[rule]]\nuid = -1",
        "[[rule]]\nuid_range = [1]",
    ] {
        assert!(
            toml::from_str::<AttributionConfig>(unknown).is_err(),
            "{unknown}"
        );
    }
}
