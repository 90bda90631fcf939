//! What is accepted and what is refused, with which words.

use super::*;
use crate::uplink::fake_server::Authority;

fn load(text: &str, overrides: Overrides) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    load_in(dir.path(), text, overrides)
}

fn load_in(dir: &Path, text: &str, overrides: Overrides) -> Result<Config, ConfigError> {
    fs::write(dir.join("agent.toml"), text).unwrap();
    Config::load(dir, overrides)
}

fn standalone() -> Overrides {
    Overrides {
        standalone: true,
        ..Default::default()
    }
}

fn secret(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_default_file_says_the_defaults() {
    let config = load(DEFAULT_FILE, standalone()).unwrap();
    let bare = load("", standalone()).unwrap();
    assert_eq!(format!("{:?}", config.spool), format!("{:?}", bare.spool));
    assert_eq!(
        (config.interval, config.call_deadline),
        (bare.interval, bare.call_deadline)
    );
    assert_eq!(
        (config.metrics, config.metrics.port()),
        (bare.metrics, 9401)
    );
    // What is commented out in the manual is a setting, too.
    let all: String = DEFAULT_FILE
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|l| !l.starts_with(' '))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let file: File = toml::from_str(&all).unwrap();
    assert!(file.server.is_some() && file.node.is_some() && file.nvml_library.is_some());
    assert!(file.metrics.bearer_token_file.is_some());
    assert_eq!(
        (
            file.attribution.rules.len(),
            file.attribution.gpu_model.len()
        ),
        (14, 3)
    );
    let mut attribution = file.attribution;
    let creators = &mut attribution.creators;
    for runtime in [
        &mut creators.docker,
        &mut creators.podman,
        &mut creators.cri,
    ] {
        assert!(runtime.socket.is_some() && !runtime.trust_labels);
        runtime.trust_labels = true;
    }
    assert!(creators.kubelet.pod_resources.is_some() && !creators.slurm.job_command.is_empty());
    assert!(Attributor::new(&attribution).is_ok());
    creators_need_sense(&attribution);
    assert_eq!(attribution.vms.len(), 1);
    assert!(VmRules::new(&attribution.vms).is_ok());
}

fn creators_need_sense(good: &AttributionConfig) {
    let wrong: [fn(&mut AttributionConfig); 4] = [
        |config| config.creators.cri.socket = Some("run/x.sock".into()),
        |config| config.creators.kubelet.pod_logs = "pods".into(),
        |config| config.creators.slurm.job_command = vec!["squeue".into(), "{job}".into()],
        |config| config.creators.slurm.job_command = vec!["/usr/bin/squeue".into()],
    ];
    for break_it in wrong {
        let mut config = good.clone();
        break_it(&mut config);
        let error = Attributor::new(&config).unwrap_err().to_string();
        assert!(error.starts_with("attribution.creators."), "{error}");
    }
}

#[test]
fn unknown_names_and_odd_values_are_refused() {
    for text in [
        "intervall = \"1s\"",
        "interval = 1",
        "interval = \"1h\"",
        "interval = \"1ms\"",
        "interval = \"90s\"",
        "call_deadline = \"0s\"",
        "call_deadline = \"31s\"",
        "[metrics]\nlisten = \"9401\"",
        "[spool]\nmax_bytes = 1",
        "[spool]\nmax_records = -1",
        "[attribution]\nnope = 1",
        "[attribution.creators.nope]",
        "[attribution.creators.docker]\nnope = 1",
        "[[attribution.rule]]\ncontainer_label = \"a={tenant}\"",
        "[[attribution.rule]]\nuid = 7",
        "[[attribution.vm]]\nvm = \"17\"",
        "[[attribution.vm]]\ntenant = \"a\"",
        "nvml_library = \"not-there.so\"",
        "interval = \"1s\"\ninterval = \"1s\"",
    ] {
        assert!(load(text, standalone()).is_err(), "{text}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let overrides = Overrides {
        interval: Some(Duration::from_millis(200)),
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        ..standalone()
    };
    let config = load("interval = \"5s\"", overrides).unwrap();
    assert_eq!(
        (config.interval.as_millis(), config.metrics.port()),
        (200, 0)
    );
    assert!(config.uplink.is_none());
}

#[test]
fn case_66_metrics_off_loopback_need_a_token_that_is_secret() {
    let dir = tempfile::tempdir().unwrap();
    let open = "[metrics]\nlisten = \"0.0.0.0:9401\"\n";
    let error = load_in(dir.path(), open, standalone()).unwrap_err();
    assert!(matches!(error, ConfigError::OpenMetrics(_)), "{error}");
    let closed = format!("{open}bearer_token_file = \"token\"\n");
    let token = dir.path().join("token");
    secret(&token, "0123456789abcdef\n", 0o644);
    let error = load_in(dir.path(), &closed, standalone()).unwrap_err();
    assert!(matches!(error, ConfigError::Exposed(_)), "{error}");
    secret(&token, "short\n", 0o600);
    let error = load_in(dir.path(), &closed, standalone()).unwrap_err();
    assert!(matches!(error, ConfigError::BadToken(_)), "{error}");
    secret(&token, "0123456789abcdef\n", 0o600);
    let config = load_in(dir.path(), &closed, standalone()).unwrap();
    assert_eq!(config.metrics_token.as_deref(), Some("0123456789abcdef"));
}

#[test]
fn the_server_and_who_this_node_is_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let server = "server = \"https://[::1]:8443\"\n";
    let load = |text: &str| load_in(dir.path(), text, Overrides::default());
    assert!(matches!(load("").unwrap_err(), ConfigError::NoServer(_)));
    assert!(matches!(
        load(server).unwrap_err(),
        ConfigError::Read { .. }
    ));
    let files = Authority::new().agent(dir.path(), "node1", 2);
    let target = load(server).unwrap().uplink.unwrap();
    assert_eq!(target.credentials.node, "node1");
    assert_eq!(
        (target.server.host.as_str(), target.server.port),
        ("::1", 8443)
    );
    assert!(load(&format!("{server}node = \"node1\"")).is_ok());
    let error = load(&format!("{server}node = \"node2\"")).unwrap_err();
    assert!(
        error.to_string().contains("names node node1, not node2"),
        "{error}"
    );
    for bad in [
        "http://x:1",
        "https://x",
        "x:1",
        "https://x:1/path",
        "https://u@x:1",
        "https://x:99999",
    ] {
        let error = load(&format!("server = {bad:?}")).unwrap_err();
        assert!(matches!(error, ConfigError::BadServer(_)), "{bad}: {error}");
    }
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(load(server).unwrap_err(), ConfigError::Exposed(_)));
}

#[test]
fn durations_have_a_unit() {
    assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    for bad in ["", "1", "s", "-1s", "1.5s", "1 s", "99999999999s"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}
