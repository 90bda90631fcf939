//! A ledger that goes back to a backup under running agents: what nodes hold comes back by itself, and no number that
//! was given out since then is given out again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gpuquota_tests::journal::{sql, verified};
use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::program::{output, program, succeed};
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::wait::{SOON, until};

#[tokio::test]
async fn a_restored_ledger_learns_from_an_idle_agent_what_it_missed_and_repeats_no_number() {
    let mut server = Server::with(QUICK).await;
    let put = async |server: &Server, tenant: &str, num: u64| {
        let answer = server.admin().put(tenant, purchase("default", num)).await;
        answer.expect_done();
    };
    put(&server, "a", 4).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let agent = node.process().pid();
    let first = node.workload("a", Place::Gpu("0"));
    uses(&server, 1).await;
    let backup = server.home().join("backup");
    let text = succeed(on(&server, "backup").arg("--out").arg(&backup));
    assert!(text.contains("checked"), "{text}");

    put(&server, "lost", 2).await;
    let _second = node.workload("a", Place::Gpu("1"));
    uses(&server, 2).await;
    first.end();
    let _third = node.workload("a", Place::Gpu("2"));
    let _fourth = node.workload("a", Place::Gpu("3"));
    uses(&server, 3).await;
    // A session that the backup does not know.
    server.stop().await;
    server.serve().await;
    until("the agent is back", SOON, async || {
        let open = server.scrape().await.value("gpuquota_agent_sessions", &[]);
        if open == Some(1.0) {
            Ok(())
        } else {
            Err(format!("{open:?} sessions"))
        }
    })
    .await;

    let refused = restore(&server, &backup);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text.contains("another server runs"), "{text}");
    server.stop().await;
    let restored = restore(&server, &backup);
    assert!(restored.status.success(), "{restored:?}");
    server.serve().await;

    // Nothing changes on the node; only its heartbeats tell that the ledger is behind.
    uses(&server, 3).await;
    let quotas = server.admin().quotas().await;
    assert_eq!(quotas.total("lost"), 0);
    let held = server.admin().node("n1").await;
    let devices = held["devices"].as_array().unwrap();
    let holders: Vec<bool> = (0..4)
        .map(|index| {
            let uuid = node.uuid(index);
            let device = devices.iter().find(|it| it["device"] == uuid.as_str());
            device.unwrap()["tenants"] == serde_json::json!(["a"])
        })
        .collect();
    assert_eq!(holders, [false, true, true, true], "{held}");
    put(&server, "later", 2).await;
    assert_eq!(node.process().pid(), agent);
    assert!(node.process().lives(), "the agent was not touched");
    server.stop().await;
    let told = verified(&server.dir);
    assert!(told.contains("incarnation 1"), "{told}");

    let replaced = replaced(&server.dir);
    let since = sql(&replaced, "SELECT max(seq) FROM journal");
    assert!(since.parse::<u64>().unwrap() > 4);
    for (event, number) in [("quota_set", "quota"), ("session_opened", "session")] {
        let before = numbers(&replaced, event, number);
        let after = numbers(&server.ledger(), event, number);
        let new: Vec<u64> = after.iter().filter(|it| **it >= 1 << 32).copied().collect();
        let highest = before.iter().max().unwrap();
        assert!(!new.is_empty(), "{event}: {after:?}");
        assert!(new.iter().all(|it| it > highest), "{event}: {new:?}");
        let old = after.len() - new.len();
        assert!(old < before.len(), "{event} of the lost future: {before:?}");
    }
}

fn on(server: &Server, command: &str) -> Command {
    let mut program = Command::new(program("gpuquota-server"));
    program.arg(command).arg("--dir").arg(&server.dir);
    program
}

fn restore(server: &Server, backup: &Path) -> Output {
    output(on(server, "restore").arg("--from").arg(backup))
}

fn replaced(dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut replaced = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("ledger.db.replaced-") && name.ends_with('Z')
    });
    replaced.next().expect("the ledger that was replaced")
}

// What a kind of event numbered.
fn numbers(ledger: &Path, event: &str, number: &str) -> Vec<u64> {
    let statement = format!(
        "SELECT DISTINCT json_extract(e.value, '$.{number}') FROM journal, json_each(body, '$.events') AS e \
         WHERE json_extract(e.value, '$.type') = '{event}'"
    );
    let text = sql(ledger, &statement);
    text.lines().map(|line| line.parse().unwrap()).collect()
}

async fn uses(server: &Server, expected: u64) {
    until(&format!("a uses {expected}"), SOON, async || {
        let quotas = server.admin().quotas().await;
        let seen = quotas.used("a", "flexible", GPU);
        if seen == expected {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
}
