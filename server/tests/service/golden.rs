//! Journals of earlier versions fold for ever: each `golden/NAME.jsonl` is one that some version exported, and
//! `golden/NAME.state.json` is what that version folded it to.
//!
//! When a test here fails, the program is wrong and not the fixture: an event's meaning changed, and the journals that
//! people have would become other ledgers. Never write an existing fixture anew. What is allowed:
//! - A state that says more than before: members that a fixture's state does not have are not compared.
//! - A state that says the same in other words: change those members of `NAME.state.json` by hand, and nothing else.
//! - Events that no fixture has: add a fixture beside the others, by
//!   `GPUQUOTA_GOLDEN=NAME cargo test -p gpuquota-server --test service golden -- --ignored`,
//!   after `golden_story.rs` tells of them. An existing name is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gpuquota_core::id::{OpId, Seq, Timestamp};
use gpuquota_core::{Event, Record, State};
use gpuquota_server::journal::export;
use gpuquota_server::service;
use gpuquota_server::store::sqlite::SqliteStore;
use gpuquota_server::store::{Hash, Row, Store as _};
use serde_json::Value;

use crate::golden_story::tell;
use crate::journals::directory;

const WHAT_TO_DO: &str =
    "read the head of server/tests/service/golden.rs before you change anything";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service/golden")
}

fn rows(text: &str) -> Vec<Row> {
    let mut head = Hash::EMPTY;
    let lines = text.lines().skip(1);
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().map(str::to_owned);
            let op = text("op").map(|op| OpId::new(&op).unwrap());
            let row = Row::new(
                head,
                Seq(line["seq"].as_u64().unwrap()),
                Timestamp(line["at"].as_i64().unwrap()),
                &text("writer").unwrap(),
                op,
                text("body").unwrap(),
            );
            assert_eq!(Some(row.hash.to_string()), text("hash"), "{WHAT_TO_DO}");
            head = row.hash;
            row
        })
        .collect()
}

async fn folded(rows: &[Row]) -> State {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("ledger.db"))
        .await
        .unwrap();
    store.append(rows).await.unwrap();
    let folded = service::fold(&store, None).await;
    store.close().await;
    folded
        .unwrap_or_else(|error| unreachable!("{error}; {WHAT_TO_DO}"))
        .state
}

// Where `now` does not say what was said; what it says beside that is new.
fn differences(path: &str, then: &Value, now: &Value, found: &mut Vec<String>) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (name, then) in then {
                let now = now.get(name).unwrap_or(&Value::Null);
                differences(&format!("{path}/{name}"), then, now, found);
            }
        }
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => {
            for (at, (then, now)) in then.iter().zip(now).enumerate() {
                differences(&format!("{path}/{at}"), then, now, found);
            }
        }
        _ if then == now => {}
        _ => found.push(format!("{path} was {then} and is {now}")),
    }
}

fn fixtures() -> Vec<(String, Vec<Row>)> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    names.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, rows(&fs::read_to_string(path).unwrap()))
    };
    names.into_iter().map(read).collect()
}

#[tokio::test]
async fn case_47_journals_of_earlier_versions_fold_to_what_they_folded_to() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for (name, rows) in fixtures {
        let state = folded(&rows).await;
        state.verify().unwrap();
        let then = fs::read_to_string(folder().join(format!("{name}.state.json"))).unwrap();
        let then: Value = serde_json::from_str(&then).unwrap();
        let now = serde_json::to_value(&state).unwrap();
        let mut found = Vec::new();
        differences("", &then, &now, &mut found);
        assert!(
            found.is_empty(),
            "{name}: {}\n{WHAT_TO_DO}",
            found.join("\n")
        );
        // A row is not read into less than it says.
        for row in &rows {
            let record: Record = serde_json::from_str(&row.body).unwrap();
            let again = serde_json::to_string(&record).unwrap();
            assert_eq!(again, row.body, "{name}, row {}; {WHAT_TO_DO}", row.seq);
        }
    }
}

#[test]
fn every_event_stands_in_a_fixture() {
    let refused = serde_json::from_str::<Event>(r#"{"type":"?"}"#).unwrap_err();
    let refused = refused.to_string();
    let known: BTreeSet<&str> = refused.split('`').skip(3).step_by(2).collect();
    assert!(known.contains("tenant_created") && known.contains("restored"));
    let told: BTreeSet<String> = fixtures()
        .iter()
        .flat_map(|(_, rows)| rows)
        .flat_map(|row| {
            let record: Value = serde_json::from_str(&row.body).unwrap();
            let events = record["events"].as_array().unwrap().clone();
            events
                .into_iter()
                .map(|event| event["type"].as_str().unwrap().to_owned())
        })
        .collect();
    let missing: Vec<_> = known
        .into_iter()
        .filter(|name| !told.contains(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "no fixture has {missing:?}; {WHAT_TO_DO}"
    );
}

#[tokio::test]
#[ignore = "it writes a new fixture"]
async fn write_a_new_fixture() {
    let name = std::env::var("GPUQUOTA_GOLDEN").expect("GPUQUOTA_GOLDEN names the new fixture");
    let journal = folder().join(format!("{name}.jsonl"));
    assert!(!journal.exists(), "{name} is there already; {WHAT_TO_DO}");
    let dir = directory().await;
    tell(dir.path()).await;
    fs::create_dir_all(folder()).unwrap();
    export::export(dir.path(), None, None, Some(&journal))
        .await
        .unwrap();
    let state = folded(&rows(&fs::read_to_string(&journal).unwrap())).await;
    let text = serde_json::to_string_pretty(&state).unwrap();
    fs::write(folder().join(format!("{name}.state.json")), text + "\n").unwrap();
}
