//! The whole exposition of every scenario, as a strict reader takes it: Prometheus refuses a scrape with one series twice.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_fake_nvml::preset;
use gpuquota_fake_nvml::scenario::Process;

use crate::node::Node;
use crate::running::Running;

/// Labels of a row `name{a="b",...} value`, in their order.
fn labels(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.extend(letters.next().map(|(_, letter)| letter)),
                (_, letter) => value.push(letter),
            }
        };
        let twice = found.insert(name.to_owned(), value);
        assert_eq!(twice, None, "label {name} twice in {text}");
        rest = after[end + 1..].trim_start_matches(',');
    }
    assert_eq!(rest, "", "{text}");
    found
}

/// Refuses a series that stands there twice, a family that is described twice, and a row of no family. How many rows there are.
fn strict(answer: &str) -> usize {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in body.lines().filter(|line| !line.is_empty()) {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, _) = of.split_once(' ').unwrap();
            assert!(
                families.insert(name.to_owned()),
                "{name} is described twice"
            );
        }
        if line.starts_with('#') {
            continue;
        }
        let (what, value) = line.rsplit_once(' ').unwrap();
        let (name, inner) = match what.split_once('{') {
            Some((name, inner)) => (name, inner.strip_suffix('}').unwrap()),
            None => (what, ""),
        };
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(
            families.contains(name) || families.contains(family),
            "{line}"
        );
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(
            series.insert((name.to_owned(), labels(inner))),
            "twice: {line}"
        );
    }
    series.len()
}

fn check(node: &Node, name: &str) {
    let agent: Running = node.run_agent("");
    agent.wait_for(&["gpuquota_up 1"]);
    assert!(strict(&agent.ask("/metrics", "text/plain")) > 30, "{name}");
    let open = "application/openmetrics-text; version=1.0.0";
    assert!(strict(&agent.ask("/metrics", open)) > 30, "{name}");
    strict(&agent.ask("/metrics?compat=dcgm", "text/plain"));
}

#[test]
fn no_series_stands_twice_in_any_scenario() {
    for name in preset::NAMES {
        let node = Node::new(name);
        let pid = node.workload();
        node.register(pid, "one");
        node.edit(|scenario| {
            for gpu in scenario.gpus.clone() {
                let places: Vec<_> = gpu.mig.iter().map(|mig| (mig.gi, mig.ci)).collect();
                let whole = places.is_empty().then_some(None);
                for place in whole.into_iter().chain(places.into_iter().map(Some)) {
                    let (gi, ci) = place.unzip();
                    let process = Process {
                        gi,
                        ci,
                        ..Process::new(&gpu.uuid, pid)
                    };
                    scenario.processes.push(process);
                }
            }
            Ok(())
        });
        check(&node, name);
        // Processes stand on instances that the driver does not show.
        if name.contains("mig") {
            node.answer("nvmlDeviceGetMigDeviceHandleByIndex", None, 6);
            check(&node, "unseen instances");
        }
    }
}
