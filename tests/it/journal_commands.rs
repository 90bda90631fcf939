//! The operator's journal commands on a real server's directory: what they say, and the status that they end with.

use std::path::Path;
use std::process::{Command, Output};

use gpuquota_tests::journal::{sql, verified};
use gpuquota_tests::program::{output, program, succeed};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::repository::root;
use gpuquota_tests::server::Server;

const DAMAGED: i32 = 3;

fn journal(server: &Server, command: &str) -> Command {
    let mut program = Command::new(program("gpuquota-server"));
    program.args(["journal", command, "--dir"]).arg(&server.dir);
    program
}

fn text(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    text.concat()
}

async fn grown(server: &Server, from: u64, to: u64) {
    for number in from..=to {
        let answer = server
            .admin()
            .put(&format!("t{number}"), purchase("TW", number))
            .await;
        answer.expect_done();
    }
}

#[tokio::test]
async fn an_archived_journal_is_served_checked_with_its_archive_and_exported() {
    let mut server =
        Server::with(&[("snapshot_every_rows = 50000", "snapshot_every_rows = 4")]).await;
    grown(&server, 1, 10).await;
    let archive = server.home().join("old.jsonl");
    let archived = |server: &Server| {
        output(
            journal(server, "archive")
                .args(["--before", "8", "--reason", "ticket 4", "--out"])
                .arg(&archive),
        )
    };
    let refused = archived(&server);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("another server runs"),
        "{refused:?}"
    );
    let checked = succeed(journal(&server, "rebuild").arg("--check"));
    assert!(!checked.contains("WRONG"), "{checked}");
    let before = server.admin().quotas().await;
    server.stop().await;
    let done = archived(&server);
    assert!(text(&done).contains("7 rows up to 7 are in"), "{done:?}");
    assert_eq!(sql(&server.ledger(), "SELECT min(seq) FROM journal"), "8");

    server.serve().await;
    let audit = server.admin().get("/api/v1/audit").await.json();
    let changes = audit["changes"].as_array().unwrap();
    let by = format!("operator:{}", rustix::process::getuid().as_raw());
    let its = |row: &&serde_json::Value| row["actor"] == by.as_str() && row["reason"] == "ticket 4";
    assert_eq!(changes.iter().filter(its).count(), 1, "{audit}");
    assert_eq!(server.admin().quotas().await, before);
    grown(&server, 11, 12).await;
    let told = verified(&server.dir);
    assert!(told.contains("rows 1 to 7 are archived"), "{told}");
    let whole = succeed(journal(&server, "verify").arg("--file").arg(&archive));
    assert!(whole.contains("nothing is missing since row 1"), "{whole}");
    // All of it from the beginning, checked by a program of a few lines that is in the manual.
    let export = output(&mut journal(&server, "export"));
    let said = String::from_utf8_lossy(&export.stderr).into_owned();
    assert!(said.contains("exported journal rows 8 to"), "{said}");
    let all = server.home().join("all.jsonl");
    let rows = [std::fs::read(&archive).unwrap(), export.stdout].concat();
    std::fs::write(&all, rows).unwrap();
    let script = in_the_manual("```python\n");
    let mut python = Command::new("python3");
    let python = python.arg("-c").arg(script).arg(&all);
    let head = format!("{}\n", head(&server.ledger()));
    assert_eq!(succeed(python), head);

    server.stop().await;
    std::fs::remove_dir_all(server.dir.join("snapshots")).unwrap();
    server.serve().await;
    assert_eq!(server.admin().quotas().await.0.len(), 12, "from the base");
    server.stop().await;
    let rebuilt = succeed(&mut journal(&server, "rebuild"));
    assert!(rebuilt.contains("written and noted"), "{rebuilt}");
    succeed(journal(&server, "rebuild").arg("--check"));

    std::fs::remove_dir_all(server.dir.join("snapshots")).unwrap();
    sql(
        &server.ledger(),
        "UPDATE base SET state = replace(state, 't3', 'x3')",
    );
    for command in ["verify", "rebuild"] {
        let verdict = output(&mut journal(&server, command));
        assert_eq!(verdict.status.code(), Some(DAMAGED), "{}", text(&verdict));
    }
    let reason = server.refused_start().await;
    let named = "the base that stands for the journal rows up to 7 does not match";
    assert!(reason.contains(named), "{reason}");
}

fn head(ledger: &Path) -> String {
    sql(ledger, "SELECT hash FROM journal ORDER BY seq DESC LIMIT 1")
}

fn in_the_manual(fence: &str) -> String {
    let guide = std::fs::read_to_string(root().join("deploy/GUIDE.md")).unwrap();
    let (_, rest) = guide.split_once(fence).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}
