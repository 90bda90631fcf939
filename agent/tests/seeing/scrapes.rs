//! Scrapes of a running agent: rows with DCGM's names, and what they make it read.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use gpuquota_agent::clock::boottime_ms;

use crate::node::{Node, PATIENCE};
use crate::program::agent;
use crate::runtimes::Kubelet;

/// An agent without a server, and where it answers.
struct Running(Child, String);

impl Running {
    fn start(node: &Node, config: &str) -> Self {
        let dir = node.path().join("agent");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("agent.toml"), config).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let arguments = [
            "run",
            "--standalone",
            "--interval",
            "100ms",
            "--metrics",
            "127.0.0.1:0",
            "--dir",
        ];
        let mut child = agent(node)
            .args(arguments)
            .arg(&dir)
            .arg("--nvml-library")
            .arg(node.library())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("metrics.address=")?;
            rest.split_whitespace().next().map(str::to_owned)
        });
        // Whoever writes to a pipe that nobody reads is ended.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, address.unwrap())
    }

    fn scrape(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn scrape_until(&self, target: &str, wanted: impl Fn(&str) -> bool) -> String {
        for _ in 0..PATIENCE.as_millis() / 20 {
            let answer = self.scrape(target);
            if wanted(&answer) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{}", self.scrape(target));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rule 20: whoever scrapes DCGM's names gets them, and the calls for them are made for nobody else.
#[test]
fn rule_20_dcgm_rows_come_from_what_the_driver_says() {
    let node = Node::new("h100x4");
    let agent = Running::start(&node, "");
    let path = "/metrics?compat=dcgm";
    agent.scrape_until("/metrics", |text| text.contains("gpuquota_up 1"));
    let text = agent.scrape_until(path, |text| text.contains("DCGM_FI_DEV_SM_CLOCK"));
    for index in 0..4 {
        let row = format!("DCGM_FI_DEV_SM_CLOCK{{gpu=\"{index}\",UUID=\"GPU-");
        assert!(text.contains(&row), "{text}");
    }
    for family in [
        "GPU_TEMP",
        "POWER_USAGE",
        "FB_FREE",
        "FB_USED",
        "GPU_UTIL",
        "TOTAL_ENERGY_CONSUMPTION",
        "MEMORY_TEMP",
        "ENC_UTIL",
    ] {
        assert!(
            text.contains(&format!("\nDCGM_FI_DEV_{family}{{gpu=\"0\"")),
            "{family}\n{text}"
        );
    }
    let pid = node.run_on("1", None);
    node.edit(|scenario| {
        let mut own = scenario
            .processes
            .iter_mut()
            .filter(|process| process.pid == pid);
        own.next().unwrap().sm_percent = Some(40);
        Ok(())
    });
    agent.scrape_until(path, |text| {
        let mut rows = text
            .lines()
            .filter(|line| line.starts_with("DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu=\"1\""));
        rows.any(|row| row.ends_with(" 0.4"))
    });
    node.edit(|scenario| {
        scenario.gpus[0].clocks_mhz.as_mut().unwrap().sm = 1234;
        Ok(())
    });
    agent.scrape_until(path, |text| {
        let mut rows = text
            .lines()
            .filter(|line| line.starts_with("DCGM_FI_DEV_SM_CLOCK{gpu=\"0\""));
        rows.any(|row| row.ends_with(" 1234"))
    });
}

/// The kubelet says who was given a device: a label of these rows, and no evidence of who uses it.
#[test]
fn rule_20_dcgm_rows_name_the_pod_that_was_given_the_device() {
    let node = Node::new("t4x1");
    let socket = node.path().join("kubelet.sock");
    let config = format!("[attribution.creators.kubelet]\npod_resources = {socket:?}\n");
    let mut uuid = String::new();
    node.edit(|scenario| {
        uuid.clone_from(&scenario.gpus[0].uuid);
        Ok(())
    });
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let pod = Kubelet::pod("ml", "train-0", &format!("{uuid}::3"));
            let _kubelet = Kubelet(vec![pod]).serve(&socket);
            std::future::pending::<()>().await;
        });
    });
    let agent = Running::start(&node, &config);
    let labels = "container=\"main\",namespace=\"ml\",pod=\"train-0\"}";
    agent.scrape_until("/metrics?compat=dcgm", |text| {
        let mut rows = text
            .lines()
            .filter(|line| line.starts_with("DCGM_FI_DEV_GPU_TEMP{"));
        rows.any(|row| row.contains(labels))
    });
}

#[tokio::test]
async fn what_few_ask_for_is_read_only_then() {
    let node = Node::new("a100-mig");
    let mut sampler = node.sampler();
    sampler.sample(boottime_ms()).await;
    let before = sampler.stats().nvml_calls;
    let plain = sampler.sample(boottime_ms()).await.reading.unwrap();
    let usual = sampler.stats().nvml_calls - before;
    assert!(plain.gpus.iter().all(|gpu| gpu.gauges.is_none()));
    sampler.want_more(true);
    sampler.sample(boottime_ms()).await;
    let before = sampler.stats().nvml_calls;
    let more = sampler.sample(boottime_ms()).await.reading.unwrap();
    // Two clocks and the field values; what a cut GPU lacks is not asked again.
    let gpus = u64::try_from(more.gpus.len()).unwrap();
    let cut = u64::try_from(
        more.gpus
            .iter()
            .filter(|gpu| gpu.mig_enabled == Some(true))
            .count(),
    )
    .unwrap();
    assert_eq!(
        sampler.stats().nvml_calls - before,
        usual + 5 * gpus - 2 * cut
    );
    let gauges = more.gpus[0].gauges.unwrap();
    assert!(gauges.sm_clock_mhz.is_some() && gauges.energy_millijoules.is_some());
    sampler.want_more(false);
    let plain = sampler.sample(boottime_ms()).await.reading.unwrap();
    assert!(plain.gpus.iter().all(|gpu| gpu.gauges.is_none()));
    sampler.shutdown().await;
}
