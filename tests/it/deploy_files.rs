//! What lies under deploy/ for Prometheus, compose and Kubernetes is well formed and refers to what there is.

use std::collections::BTreeMap;
use std::process::Command;

use gpuquota_tests::program::succeed;
use gpuquota_tests::python::Python;
use gpuquota_tests::repository::{root, sources};
use serde_json::json;

#[test]
fn alerts_are_rules_about_metrics_that_the_programs_have() {
    let folder = root().join("deploy/prometheus");
    for (what, file) in [
        ("rules", "gpuquota.rules.yml"),
        ("config", "prometheus.yml"),
    ] {
        let mut promtool = Command::new("promtool");
        promtool.arg("check").arg(what);
        if what == "config" {
            // The token is on the operator's machine.
            promtool.arg("--syntax-only");
        }
        succeed(promtool.arg(folder.join(file)));
    }
    let rules = std::fs::read_to_string(folder.join("gpuquota.rules.yml")).unwrap();
    let sources = sources();
    let mut asked = 0;
    for line in rules.lines().filter(|line| line.contains("expr:")) {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("gpuquota_")) {
            let named = |(path, text): &(String, String)| {
                (path.starts_with("server/src/")
                    || path.starts_with("agent/src/")
                    || path.starts_with("proto/"))
                    && text.contains(&format!("\"{metric}\""))
            };
            assert!(sources.iter().any(named), "no program has {metric}");
            asked += 1;
        }
    }
    assert!(asked >= 9, "{asked} metrics");
}

#[test]
fn manifests_and_compose_files_refer_to_what_they_define() {
    let Some(python) = Python::found("manifests and compose files") else {
        return;
    };
    let paths = [
        "compose/compose.yml",
        "kubernetes/agent.yml",
        "kubernetes/namespace.yml",
        "kubernetes/server.yml",
    ];
    let read = |path: &&str| std::fs::read_to_string(root().join("deploy").join(path)).unwrap();
    let texts: BTreeMap<&str, String> = paths.iter().map(|path| (*path, read(path))).collect();
    assert_eq!(python.run("manifests.py", &json!(texts)), json!({}));
    // It would notice.
    let broken =
        texts["kubernetes/server.yml"].replace("secret: {secretName", "other: {secretName");
    let broken = broken.replace("- name: secret\n", "- name: others\n");
    let said = python.run("manifests.py", &json!({"server": broken}));
    assert!(
        said["server"][0].as_str().unwrap().contains("others"),
        "{said}"
    );
}
