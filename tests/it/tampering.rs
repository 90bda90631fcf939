//! A journal that was changed behind the server's back is noticed, named, and left as it is (cases 43, 47).

use std::path::Path;

use gpuquota_tests::journal::{bytes_of, sql, verified, verify};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::{SOON, until};

async fn journal_of_ten() -> Server {
    let mut server =
        Server::with(&[("snapshot_every_rows = 50000", "snapshot_every_rows = 4")]).await;
    let admin = server.admin();
    for number in 1..=10 {
        admin
            .put(&format!("t{number}"), purchase("TW", number))
            .await
            .expect_done();
    }
    // Snapshots are written beside the rows; one counts once the journal notes it.
    let ledger = server.ledger();
    until("a snapshot is noted", SOON, async || {
        noted_snapshot(&ledger).ok_or_else(|| "none is noted".to_owned())
    })
    .await;
    server.stop().await;
    server
}

// Last row of the newest snapshot that the journal notes.
fn noted_snapshot(ledger: &Path) -> Option<u64> {
    let noted = "SELECT max(json_extract(event.value, '$.seq')) FROM journal, \
                 json_each(journal.body, '$.events') AS event \
                 WHERE json_extract(event.value, '$.type') = 'snapshot_taken'";
    sql(ledger, noted).parse().ok()
}

#[tokio::test]
async fn case_43_a_changed_row_is_named_and_nothing_starts_over_it() {
    let mut server = journal_of_ten().await;
    std::fs::remove_dir_all(server.dir.join("snapshots")).unwrap();
    let ledger = server.ledger();
    let intact = bytes_of(&server.dir);
    let restore = |server: &Server| {
        for name in bytes_of(&server.dir).keys() {
            if !intact.contains_key(name) {
                std::fs::remove_file(server.dir.join(name)).unwrap();
            }
        }
        for (name, bytes) in &intact {
            std::fs::write(server.dir.join(name), bytes).unwrap();
        }
    };
    let last: u64 = sql(&ledger, "SELECT max(seq) FROM journal")
        .parse()
        .unwrap();
    let tampering = [
        // Which command row 5 holds varies, because a snapshot is noted whenever it is written.
        ("UPDATE journal SET body = body || ' ' WHERE seq = 5", 5),
        ("UPDATE journal SET at = at + 1 WHERE seq = 2", 2),
        ("UPDATE journal SET writer = 'x' WHERE seq = 1", 1),
        ("UPDATE journal SET op = 'x' WHERE seq = 3", 3),
        (
            "UPDATE journal SET hash = (SELECT hash FROM journal WHERE seq = 4) WHERE seq = 6",
            6,
        ),
        ("DELETE FROM journal WHERE seq = 7", 8),
        (
            "UPDATE journal SET body = 'null' WHERE seq = (SELECT max(seq) FROM journal)",
            last,
        ),
    ];
    for (statement, row) in tampering {
        sql(&ledger, statement);
        let rows = sql(&ledger, "SELECT * FROM journal");
        let reason = server.refused_start().await;
        assert!(
            reason.contains(&format!("row {row} ")),
            "{statement}: {reason}"
        );
        let verdict = verify(&server.dir);
        let text = String::from_utf8_lossy(&verdict.stderr).into_owned();
        assert!(!verdict.status.success(), "{statement}: verified");
        assert!(text.contains(&format!("row {row} ")), "{statement}: {text}");
        assert_eq!(
            sql(&ledger, "SELECT * FROM journal"),
            rows,
            "{statement}: something was changed"
        );
        restore(&server);
    }
    verified(&server.dir);
    server.serve().await;
    assert_eq!(server.admin().quotas().await.0.len(), 10);
}

#[tokio::test]
async fn case_47_a_journal_of_a_newer_program_is_refused_with_its_row() {
    let server = journal_of_ten().await;
    let last = sql(&server.ledger(), "SELECT max(seq) FROM journal");
    // Rightly chained, but unknown: only a program can do that, so it is done with a program's words alone.
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of a newer program', 1, x'00', 0)";
    sql(&server.ledger(), newer);
    let reason = server.refused_start().await;
    assert!(reason.contains("newer program"), "{reason}");
    assert_eq!(sql(&server.ledger(), "SELECT max(seq) FROM journal"), last);
}

#[tokio::test]
async fn a_snapshot_is_used_at_start_and_a_damaged_one_is_left_aside() {
    let mut server = journal_of_ten().await;
    let noted = noted_snapshot(&server.ledger()).unwrap();
    let snapshots = server.dir.join("snapshots");
    let snapshot = snapshots.join(format!("{noted:020}.snapshot"));
    let only_older = || {
        for file in std::fs::read_dir(&snapshots).unwrap().flatten() {
            if file.path() > snapshot {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    };
    only_older();
    let bytes = std::fs::read(&snapshot).unwrap();
    // It is really read: what it says and the journal does not vouch for must not be believed.
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains("\"t1\""), "{text}");
    let cut = bytes[..bytes.len() / 2].to_vec();
    for damaged in [
        text.replace("\"t1\"", "\"x1\"").into_bytes(),
        cut,
        Vec::new(),
        b"\xff\n{}".to_vec(),
    ] {
        std::fs::write(&snapshot, damaged).unwrap();
        server.serve().await;
        let log = server.process().log().join("\n");
        assert!(log.contains("left aside"), "{log}");
        let quotas = server.admin().quotas().await;
        assert_eq!(quotas.0.len(), 10, "{quotas:?}");
        assert_eq!(quotas.total("t1"), 1);
        server.stop().await;
        only_older();
    }
    std::fs::write(&snapshot, &bytes).unwrap();
    // Rows before the snapshot are not read again at start; verify reads them all.
    sql(
        &server.ledger(),
        "UPDATE journal SET body = '{}' WHERE seq = 1",
    );
    server.serve().await;
    assert_eq!(server.admin().quotas().await.0.len(), 10);
    let verdict = verify(&server.dir);
    assert!(!verdict.status.success(), "verify did not read row 1");
}
