//! NVIDIA's own Grafana dashboard over agents: each panel shows what the driver says, or is empty where the driver says nothing.

use gpuquota_fake_nvml::file;
use gpuquota_fake_nvml::scenario::{Architecture, Gpu, Process, Scenario};
use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::program::Workload;
use gpuquota_tests::prometheus::Prometheus;
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::{SOON, until};

/// Title and expression of each panel, word for word as `grafana/dcgm-exporter-dashboard.json` of NVIDIA/dcgm-exporter has them at
/// commit d5e5f510a1b6b393f39a43293ccd9dc985defc79 (12 May 2026; the file last changed in cffaeb8102bc).
const PANELS: [(&str, &str); 8] = [
    (
        "GPU Temperature",
        r#"DCGM_FI_DEV_GPU_TEMP{instance=~"$instance", gpu=~"$gpu"}"#,
    ),
    (
        "GPU Avg. Temp",
        r#"avg(DCGM_FI_DEV_GPU_TEMP{instance=~"$instance", gpu=~"$gpu"})"#,
    ),
    (
        "GPU Power Usage",
        r#"DCGM_FI_DEV_POWER_USAGE{instance=~"$instance", gpu=~"$gpu"}"#,
    ),
    (
        "GPU Power Total",
        r#"sum(DCGM_FI_DEV_POWER_USAGE{instance=~"$instance", gpu=~"$gpu"})"#,
    ),
    (
        "GPU SM Clocks",
        r#"DCGM_FI_DEV_SM_CLOCK{instance=~"$instance", gpu=~"$gpu"} * 1000000"#,
    ),
    (
        "GPU Utilization",
        r#"DCGM_FI_DEV_GPU_UTIL{instance=~"$instance", gpu=~"$gpu"}"#,
    ),
    (
        "GPU Framebuffer Mem Used",
        r#"DCGM_FI_DEV_FB_USED{instance=~"$instance", gpu=~"$gpu"}"#,
    ),
    (
        "Tensor Core Utilization",
        r#"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{instance=~"$instance", gpu=~"$gpu"}"#,
    ),
];

/// The queries of its variables `instance` and `gpu`.
const VARIABLES: [&str; 2] = [
    "label_values(DCGM_FI_DEV_GPU_TEMP, instance)",
    "label_values(DCGM_FI_DEV_GPU_TEMP, gpu)",
];

/// `gpu`, `GPU_I_ID` (empty on a whole GPU) and the value. Aggregates have neither label.
type Row = (String, String, f64);

/// What a panel must show of a node, by the scenario alone.
fn expected(title: &str, scenario: &Scenario) -> Vec<Row> {
    let indexed = || (0..).zip(&scenario.gpus);
    let whole = |value: &dyn Fn(usize, &Gpu) -> Option<f64>| -> Vec<Row> {
        let row = |(index, gpu)| {
            let value = value(index, gpu)?;
            Some((index.to_string(), String::new(), value))
        };
        indexed().filter_map(row).collect()
    };
    let instances = |value: &dyn Fn(&Gpu, u32) -> f64| -> Vec<Row> {
        let rows = indexed().flat_map(|(index, gpu): (usize, &Gpu)| {
            let row = move |gi| (index.to_string(), format!("{gi}"), value(gpu, gi));
            gpu.mig.iter().map(move |mig| row(mig.gi))
        });
        rows.collect()
    };
    let alone = |value: f64| vec![(String::new(), String::new(), value)];
    let values = |rows: Vec<Row>| rows.into_iter().map(|row| row.2).collect::<Vec<f64>>();
    let used = |gpu: &Gpu, gi: Option<u32>| {
        let here = |process: &&Process| process.gpu == gpu.uuid && process.gi == gi;
        let mib = |process: &Process| process.memory_mib.unwrap_or(0);
        let sum: u64 = scenario.processes.iter().filter(here).map(mib).sum();
        f64::from(u32::try_from(sum).unwrap())
    };
    let uncut = |gpu: &Gpu| gpu.mig.is_empty();
    match title {
        "GPU Temperature" => {
            let celsius = |gpu: &Gpu| gpu.temperature_c.map(f64::from);
            let mut rows = whole(&|_, gpu| celsius(gpu));
            // The GPU's, once more on each instance.
            rows.extend(instances(&|gpu, _| celsius(gpu).unwrap()));
            rows
        }
        "GPU Avg. Temp" => {
            let all = values(expected("GPU Temperature", scenario));
            let count = f64::from(u32::try_from(all.len()).unwrap());
            alone(all.iter().sum::<f64>() / count)
        }
        "GPU Power Usage" => whole(&|_, gpu| Some(f64::from(gpu.power_mw?) / 1000.0)),
        "GPU Power Total" => alone(values(expected("GPU Power Usage", scenario)).iter().sum()),
        "GPU SM Clocks" => whole(&|_, gpu| Some(f64::from(gpu.clocks_mhz?.sm) * 1e6)),
        "GPU Utilization" => whole(&|_, gpu| {
            let percent = gpu.utilization_gpu.map(f64::from);
            percent.filter(|_| uncut(gpu))
        }),
        "GPU Framebuffer Mem Used" => {
            let mut rows = whole(&|_, gpu| uncut(gpu).then(|| used(gpu, None)));
            rows.extend(instances(&|gpu, gi| used(gpu, Some(gi))));
            rows
        }
        "Tensor Core Utilization" => whole(&|_, gpu| {
            let measured = gpu.architecture == Some(Architecture::Hopper);
            let here = |process: &&Process| process.gpu == gpu.uuid;
            let busy = scenario.processes.iter().filter(here);
            let percent: u32 = busy.filter_map(|process| process.tensor_percent).sum();
            measured.then(|| f64::from(percent) / 100.0)
        }),
        _ => unreachable!("{title} is no panel"),
    }
}

/// As Grafana writes the values of a variable into an expression.
fn alternatives(values: &[String]) -> String {
    let escaped: Vec<String> = values
        .iter()
        .map(|value| value.replace('.', "\\\\."))
        .collect();
    format!("({})", escaped.join("|"))
}

async fn rows(prometheus: &Prometheus, expression: &str) -> Result<Vec<Row>, String> {
    let answer = prometheus.ask(expression).await?;
    let row = |(labels, value): &(serde_json::Value, String)| {
        let label = |name: &str| labels[name].as_str().unwrap_or("").to_owned();
        Ok((label("gpu"), label("GPU_I_ID"), value.parse::<f64>()?))
    };
    let read: Result<Vec<Row>, std::num::ParseFloatError> = answer.iter().map(row).collect();
    read.map_err(|error| format!("{answer:?}: {error}"))
}

/// Sorted, and with three decimals, which every value here has at most.
fn comparable(rows: Vec<Row>) -> Vec<String> {
    let mut lines: Vec<String> = rows
        .into_iter()
        .map(|(gpu, instance, value)| format!("gpu {gpu:?} instance {instance:?} {value:.3}"))
        .collect();
    lines.sort();
    lines
}

/// A node whose GPUs differ in everything that is shown, with a process on the first and the last device.
async fn busy_node(server: &Server, name: &str, preset: &str) -> (Node, [Workload; 2]) {
    let node = Node::start(server, name, preset).await;
    let work = [Workload::start(), Workload::start()];
    let gpus = file::read(&node.scenario).unwrap().gpus;
    let last = (gpus.len() - 1).to_string();
    match gpus[0].mig.first() {
        Some(mig) => node.place(&work[0], Place::Mig("0", mig.gi)),
        None => node.place(&work[0], Place::Gpu("0")),
    }
    node.place(&work[1], Place::Gpu(&last));
    node.edit(|scenario| {
        for (index, gpu) in (0..).zip(&mut scenario.gpus) {
            gpu.utilization_gpu = Some(10 * index + 7);
        }
        for (count, process) in (0..).zip(&mut scenario.processes) {
            process.memory_mib = Some(512 + 100 * u64::from(count));
            process.tensor_percent = Some(25 + count);
        }
        Ok(())
    });
    (node, work)
}

/// Panels that are empty on a node.
fn empty(scenario: &Scenario) -> Vec<&'static str> {
    let titles = PANELS.iter().map(|(title, _)| *title);
    titles
        .filter(|title| expected(title, scenario).is_empty())
        .collect()
}

#[tokio::test]
async fn each_panel_of_nvidias_dashboard_shows_what_the_driver_says() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for (name, preset) in [("n1", "h100x8"), ("n2", "a100-mig"), ("n3", "t4x1")] {
        nodes.push(busy_node(&server, name, preset).await);
    }
    let targets: Vec<String> = nodes
        .iter()
        .map(|(node, _)| format!("'{}'", node.metrics))
        .collect();
    let job = format!(
        "- job_name: dcgm\n  params: {{compat: [dcgm]}}\n  static_configs:\n  - targets: [{}]\n",
        targets.join(", ")
    );
    let prometheus = Prometheus::start(server.home(), &job);
    let mut choices = Vec::new();
    for (query, count) in VARIABLES.into_iter().zip([nodes.len(), 8]) {
        let asked = query.strip_prefix("label_values(").unwrap();
        let (series, label) = asked.strip_suffix(')').unwrap().split_once(", ").unwrap();
        let values = until(query, SOON, async || {
            let values = prometheus.label_values(series, label).await?;
            (values.len() == count)
                .then_some(values.clone())
                .ok_or_else(|| format!("{values:?}"))
        });
        choices.push(values.await);
    }
    let every_gpu = alternatives(&choices[1]);
    for (node, _) in &nodes {
        let scenario = file::read(&node.scenario).unwrap();
        let this = node.metrics.to_string();
        assert!(choices[0].contains(&this), "{choices:?}");
        for (title, expression) in PANELS {
            let expression = expression
                .replace("$instance", &alternatives(std::slice::from_ref(&this)))
                .replace("$gpu", &every_gpu);
            let wanted = comparable(expected(title, &scenario));
            until(&format!("{title}: {wanted:#?}"), SOON, async || {
                let seen = comparable(rows(&prometheus, &expression).await?);
                if seen == wanted {
                    Ok(())
                } else {
                    Err(format!("{seen:#?}"))
                }
            })
            .await;
        }
    }
    // As the guide says under "Watch it".
    let scenarios = nodes.iter().map(|(node, _)| file::read(&node.scenario));
    let blank: Vec<_> = scenarios.map(|read| empty(&read.unwrap())).collect();
    let tensor = vec!["Tensor Core Utilization"];
    assert_eq!(blank, [vec![], tensor.clone(), tensor]);
    // All nodes and GPUs at once, as the dashboard opens.
    let (title, expression) = PANELS[0];
    let open = expression
        .replace("$instance", &alternatives(&choices[0]))
        .replace("$gpu", &every_gpu);
    let temperatures = rows(&prometheus, &open).await.unwrap();
    let of_all: usize = nodes
        .iter()
        .map(|(node, _)| expected(title, &file::read(&node.scenario).unwrap()).len())
        .sum();
    assert_eq!(temperatures.len(), of_all);
}
