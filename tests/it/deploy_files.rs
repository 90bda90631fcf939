//! What lies under deploy/ for Prometheus, compose and Kubernetes is well formed and refers to what there is.

use std::collections::BTreeMap;
use std::process::Command;

use gpuquota_tests::program::{program, succeed};
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

/// Minutes 0 to 10 of five nodes: `lost` has a GPU that hangs from minute 2 and one that nobody could name; `away` has GPUs that are
/// passed through or excluded, and one that is lost for a moment; `quiet` is quiesced, and `broken` has another library than driver.
const NODES: &str = r#"
evaluation_interval: 15s
tests:
- interval: 15s
  input_series:
  - {series: 'gpuquota_gpu_state{job="a", instance="lost", uuid="GPU-1", pci_bus_id="00000000:1A:00.0", state="ok"}', values: '1x7 stale'}
  - {series: 'gpuquota_gpu_state{job="a", instance="lost", uuid="GPU-1", pci_bus_id="00000000:1A:00.0", state="hung"}', values: '_x8 1x32'}
  - {series: 'gpuquota_gpu_state{job="a", instance="lost", uuid="", pci_bus_id="", state="lost"}', values: '1x40'}
  - {series: 'gpuquota_nvml_state{job="a", instance="lost", state="quiesced"}', values: '0x40'}
  - {series: 'gpuquota_gpu_state{job="a", instance="away", uuid="", pci_bus_id="00000000:2B:00.0", state="passthrough"}', values: '1x40'}
  - {series: 'gpuquota_gpu_state{job="a", instance="away", uuid="GPU-2", pci_bus_id="00000000:3C:00.0", state="excluded"}', values: '1x40'}
  - {series: 'gpuquota_gpu_state{job="a", instance="away", uuid="GPU-3", pci_bus_id="00000000:4D:00.0", state="lost"}', values: '_x10 1x2 stale'}
  - {series: 'gpuquota_gpu_state{job="a", instance="quiet", uuid="GPU-4", pci_bus_id="00000000:1A:00.0", state="unknown"}', values: '1x40'}
  - {series: 'gpuquota_nvml_state{job="a", instance="quiet", state="quiesced"}', values: '1x40'}
  - {series: 'gpuquota_gpu_state{job="a", instance="broken", uuid="GPU-5", pci_bus_id="00000000:1A:00.0", state="unknown"}', values: '_x20 1x20'}
  - {series: 'gpuquota_nvml_state{job="a", instance="broken", state="quiesced"}', values: '0x40'}
  alert_rule_test:
  - {alertname: GpuquotaGpuNotOk, eval_time: 45s, exp_alerts: []}
  - alertname: GpuquotaGpuNotOk
    eval_time: 2m45s
    exp_alerts:
    - exp_labels: {job: a, instance: lost, state: lost}
      exp_annotations: {summary: GPU without a name of lost is lost}
  - alertname: GpuquotaGpuNotOk
    eval_time: 10m
    exp_alerts:
    - exp_labels: {job: a, instance: lost, state: lost}
      exp_annotations: {summary: GPU without a name of lost is lost}
    - exp_labels: {job: a, instance: lost, uuid: GPU-1, pci_bus_id: "00000000:1A:00.0", state: hung}
      exp_annotations: {summary: GPU GPU-1 of lost is hung}
    - exp_labels: {job: a, instance: broken, uuid: GPU-5, pci_bus_id: "00000000:1A:00.0", state: unknown}
      exp_annotations: {summary: GPU GPU-5 of broken is unknown}
"#;

#[test]
fn an_alert_names_each_gpu_that_does_not_answer_and_none_that_is_away_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let rules = root().join("deploy/prometheus/gpuquota.rules.yml");
    let tests = folder.path().join("nodes.yml");
    let text = format!("rule_files: [{:?}]\n{NODES}", rules.display().to_string());
    std::fs::write(&tests, text).unwrap();
    let mut promtool = Command::new("promtool");
    succeed(promtool.args(["test", "rules"]).arg(&tests));
}

#[test]
fn manual_pages_have_every_command_and_every_exit_status_of_its_own() {
    for (part, own) in [
        ("agent", &["devices", "doctor", "exec"][..]),
        ("server", &[]),
    ] {
        let name = format!("gpuquota-{part}");
        let help = succeed(Command::new(program(&name)).arg("--help"));
        let listed = help.split("Commands:\n").nth(1).unwrap();
        let listed = listed.split("\n\n").next().unwrap();
        let commands = listed.lines().filter(|line| line.starts_with("  "));
        let mut commands: Vec<_> = commands
            .filter_map(|line| line.split_whitespace().next())
            .filter(|command| *command != "help")
            .collect();
        assert!(commands.len() > 9, "{help}");
        let page = root().join(format!("deploy/deb/{part}/{name}.1"));
        let page = std::fs::read_to_string(page).unwrap().replace('\\', "");
        let bold = |text: &str, word: &str| {
            let mut words = text
                .lines()
                .filter(|line| line.starts_with(".B"))
                .flat_map(|line| line.split([' ', ',', '"']));
            words.any(|other| other == word)
        };
        commands.retain(|command| !bold(&page, command));
        assert_eq!(commands, [""; 0], "{name} does not explain them");
        let ends = page.split(".SH EXIT STATUS").nth(1).unwrap_or_default();
        for command in own {
            assert!(bold(ends, command), "how does `{command}` end?");
        }
    }
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
