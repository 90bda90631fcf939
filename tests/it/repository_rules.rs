//! Rules of the repository that no compiler keeps: who may know whom, what stands where, how large a file may be.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_tests::repository::{cargo, files, root, sources};
use serde_json::Value;

const FOLDERS: [&str; 6] = ["agent", "deploy", "proto", "server", "systemd", "tests"];
const ROOT_FILES: [&str; 12] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];
const MOST_LINES: usize = 400;

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

// Sources with this text in them, except where it belongs.
fn holding(text: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let found = sources()
        .into_iter()
        .filter(|(path, source)| source.contains(text) && !allowed(path));
    found.map(|(path, _)| path).collect()
}

#[test]
fn the_visible_top_level_is_closed() {
    let mut strangers = BTreeSet::new();
    for path in files() {
        let mut parts = path
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned());
        let first = parts.next().unwrap();
        let known = if parts.next().is_some() {
            &FOLDERS[..]
        } else {
            &ROOT_FILES[..]
        };
        if !first.starts_with('.') && !known.contains(&first.as_str()) {
            strangers.insert(first);
        }
    }
    none("not part of the layout", strangers.into_iter().collect());
}

#[test]
fn files_are_small_say_what_they_are_and_have_a_name_that_means_something() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            wrong.push(format!("{path} has {lines} lines, more than {MOST_LINES}"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not begin with what it is"));
        }
        // Put together here, so that this file does not hold it.
        if text.contains(&["[all", "ow("].concat()) {
            wrong.push(format!("{path} allows where it should expect"));
        }
        let stem = path
            .trim_end_matches(".rs")
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        if [
            "util", "utils", "helper", "helpers", "common", "manager", "misc",
        ]
        .contains(&stem.as_str())
        {
            wrong.push(format!("{path} has a name that says nothing"));
        }
    }
    none("house rules", wrong);
}

#[test]
fn routes_stand_in_one_table_and_nvml_in_one_folder() {
    let router = |path: &str| path == "server/src/rest/front.rs" || path.starts_with("tests/");
    none("routes outside the table", holding(".route(", router));
    let gpu = |path: &str| {
        ["agent/src/gpu/", "agent/fake-nvml/", "tests/"]
            .iter()
            .any(|folder| path.starts_with(folder))
    };
    none("NVML outside its folder", holding("nvml_wrapper", gpu));
}

#[test]
fn the_core_is_pure() {
    let manifest = std::fs::read_to_string(root().join("server/core/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let dependencies: Vec<&String> = manifest["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .collect();
    for dependency in &dependencies {
        let known = ["imbl", "serde", "thiserror"];
        assert!(
            known.contains(&dependency.as_str()),
            "the core depends on {dependency}"
        );
    }
    for text in [
        "tokio",
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "SystemTime",
        "Instant",
        "HashMap",
        "async fn",
    ] {
        let elsewhere = |path: &str| !path.starts_with("server/core/src/");
        none(&format!("{text} in the core"), holding(text, elsewhere));
    }
}

#[test]
fn no_crate_knows_one_that_it_must_not() {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap().to_owned();
        let ours = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| {
                dependency["kind"] != "dev"
                    && dependency["name"]
                        .as_str()
                        .unwrap()
                        .starts_with("gpuquota-")
            });
        let ours = ours.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        arrows.insert(name, ours.collect());
    }
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("gpuquota-proto", &[][..]),
        ("gpuquota-core", &[]),
        ("gpuquota-fake-nvml", &[]),
        ("gpuquota-agent", &["gpuquota-proto"]),
        ("gpuquota-server", &["gpuquota-core", "gpuquota-proto"]),
        ("gpuquota-demo", &["gpuquota-fake-nvml"]),
        ("gpuquota-tests", &["gpuquota-fake-nvml", "gpuquota-proto"]),
    ]);
    for (name, known) in arrows {
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is no crate of the layout"));
        for other in known {
            assert!(
                may.contains(&other.as_str()),
                "{name} must not know {other}"
            );
        }
    }
}

#[test]
fn dialects_do_not_know_each_other_and_the_service_no_database() {
    let rest = root().join("server/src/rest");
    let folders = std::fs::read_dir(rest)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir());
    let dialects: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(dialects.len() >= 2, "{dialects:?}");
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for dialect in &dialects {
            let inside = path
                .strip_prefix("server/src/rest/")
                .and_then(|rest| rest.split_once('/'));
            // The OpenAPI document describes them all.
            let other = inside.is_some_and(|(folder, _)| folder != dialect && folder != "openapi");
            if other
                && (text.contains(&format!("rest::{dialect}"))
                    || text.contains(&format!("super::{dialect}")))
            {
                wrong.push(format!("{path} knows {dialect}"));
            }
        }
        let service = path.starts_with("server/src/service/")
            || path.starts_with("server/src/rest/")
            || path.starts_with("server/src/grpc/");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if service
            && ["sqlite", "sqlx", "postgres"]
                .iter()
                .any(|name| code.contains(name))
        {
            wrong.push(format!("{path} knows which database there is"));
        }
        for (folder, stranger) in [
            ("agent/src/", "gpuquota_server::"),
            ("server/src/", "gpuquota_agent::"),
        ] {
            if path.starts_with(folder) && text.contains(stranger) {
                wrong.push(format!("{path} knows {stranger}"));
            }
        }
    }
    none("module arrows", wrong);
}

#[test]
fn there_is_one_crypto_provider() {
    let tree = cargo(&[
        "tree",
        "--workspace",
        "--edges",
        "all",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        names.contains("aws-lc-rs") && names.contains("rustls"),
        "{names:?}"
    );
    let banned = [
        "ring",
        "openssl",
        "openssl-sys",
        "native-tls",
        "rustls-platform-verifier",
        "boring",
        "hmac-sha256",
    ];
    none(
        "banned crates",
        banned
            .into_iter()
            .filter(|name| names.contains(name))
            .map(ToOwned::to_owned)
            .collect(),
    );
}
