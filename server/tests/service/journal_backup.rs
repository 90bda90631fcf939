//! Backups beside a running ledger, and going back to one: no number is given out twice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gpuquota_core::id::{Incarnation, Timestamp};
use gpuquota_server::journal::{DAMAGED, backup, exit_status, restore, verify};
use gpuquota_server::open::{InUse, Opened};
use gpuquota_server::service::Origin;

use crate::journals::{directory, folded, plain, session, twelve_rows};
use crate::running::{Running, START, SetClock, set};

async fn take(dir: &Path, name: &str) -> PathBuf {
    let out = dir.join(name);
    let taken = backup::backup(dir, &out, false, Timestamp(START)).await;
    taken.unwrap();
    out
}

async fn put_back(dir: &Path, from: &Path, at_least: u32) -> anyhow::Result<String> {
    let clock = SetClock::new(START + 10);
    restore::restore(
        dir,
        from,
        Incarnation(at_least),
        clock,
        Origin::operator(None),
    )
    .await
}

/// The numbers of all quotas, of all tenants and of a new session.
async fn numbers(running: &Running) -> (Vec<u64>, Vec<u32>, u64) {
    let opened = session(running, "n0").await;
    let committed = running.ledger.read();
    let quotas = committed.state.quotas().map(|quota| quota.id.0).collect();
    let tenants = committed.state.tenants();
    let tenants = tenants.map(|(_, tenant)| tenant.profile.number.0);
    (quotas, tenants.collect(), opened)
}

async fn grow(dir: &Path, prefix: &str) -> (Vec<u64>, Vec<u32>, u64) {
    let running = Running::on(dir, SetClock::new(START + 20)).await;
    for turn in 0..3 {
        let command = set(&format!("{prefix}{turn}"), 1);
        running
            .ledger
            .submit(command, Origin::server())
            .await
            .unwrap();
    }
    let numbers = numbers(&running).await;
    running.end().await;
    numbers
}

#[tokio::test]
async fn after_each_restore_what_was_given_out_since_the_backup_is_never_given_out_again() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    // Beside a ledger that is written to.
    let running = Running::on(dir, SetClock::new(START)).await;
    let backup = take(dir, "backup").await;
    let (old_quotas, old_tenants, _) = numbers(&running).await;
    running.end().await;

    let (mut quotas, mut tenants) = (old_quotas.clone(), old_tenants.clone());
    let mut sessions = Vec::new();
    for (round, prefix) in ["a", "b", "c"].into_iter().enumerate() {
        let (now_quotas, now_tenants, opened) = grow(dir, prefix).await;
        let fresh = |old: &Vec<u64>, now: &Vec<u64>| {
            let fresh: Vec<u64> = now.iter().filter(|id| !old.contains(id)).copied().collect();
            fresh
        };
        let new = fresh(&old_quotas, &now_quotas);
        assert_eq!(new.len(), 3, "round {round}");
        assert!(
            new.iter().all(|id| !quotas.contains(id)),
            "round {round}: {new:?}"
        );
        quotas.extend(new);
        let new: Vec<u32> = now_tenants
            .into_iter()
            .filter(|it| !old_tenants.contains(it))
            .collect();
        assert_eq!(new.len(), 3, "round {round}");
        assert!(
            new.iter().all(|it| !tenants.contains(it)),
            "round {round}: {new:?}"
        );
        tenants.extend(new);
        assert!(
            sessions.iter().all(|before| *before < opened),
            "round {round}"
        );
        sessions.push(opened);

        let said = put_back(dir, &backup, 0).await.unwrap();
        assert!(said.contains("restored journal rows up to 13"), "{said}");
        let told = verify::verify(Some(dir), &[]).await.unwrap();
        assert!(
            told.contains(&format!("incarnation {}", round + 1)),
            "{told}"
        );
    }
    // Each ledger that was replaced is still there and whole, with its snapshots elsewhere.
    let replaced = fs::read_dir(dir).unwrap().flatten();
    let replaced = replaced.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("ledger.db.replaced-")
    });
    assert_eq!(replaced.count(), 3);
}

#[tokio::test]
async fn a_restored_ledger_is_that_of_the_backup_and_a_lost_one_is_outnumbered_by_hand() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let before = folded(dir).await;
    let backup = take(dir, "backup").await;
    grow(dir, "a").await;
    fs::create_dir(dir.join("snapshots")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let new = elsewhere.path().join("new");
    // A machine that never had this server: the backup brings its configuration, but no secrets.
    let said = put_back(&new, &backup, 7).await.unwrap();
    assert!(
        said.contains("taken from the backup too: ca.crt, server.crt, server.toml"),
        "{said}"
    );
    assert!(!new.join("ca.key").exists() && !new.join("token.key").exists());
    let told = verify::verify(Some(&new), &[]).await.unwrap();
    assert!(told.contains("incarnation 7"), "{told}");

    put_back(dir, &backup, 0).await.unwrap();
    assert!(
        !dir.join("snapshots").exists(),
        "snapshots of rows that are gone"
    );
    let running = Running::on(dir, SetClock::new(START + 30)).await;
    let mut now = plain(&running.ledger.read().state);
    assert_eq!(now["incarnation"], 1);
    // Only what numbers the next ones differs.
    let counters = ["incarnation", "last_epoch"];
    for (name, value) in now.as_object_mut().unwrap() {
        if name.starts_with("next_") || counters.contains(&name.as_str()) {
            *value = before[name].clone();
        }
    }
    // There were no steps, so there was no number of theirs either.
    let steps = now.as_object_mut().unwrap().remove("steps").unwrap();
    assert!(before.get("steps").is_none() && steps["rows"].as_array().unwrap().is_empty());
    assert_eq!(now, before);
    running.end().await;
}

#[tokio::test]
async fn a_damaged_ledger_can_be_replaced_and_a_damaged_backup_replaces_nothing() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let backup = take(dir, "backup").await;
    let before = folded(dir).await;
    let ledger = backup.join("ledger.db");
    let good = fs::read(&ledger).unwrap();
    let manifest = fs::read_to_string(backup.join("backup.json")).unwrap();
    // Everywhere, for a page may hold a text where nothing reads it.
    let mut bad = good.clone();
    for place in 0..bad.len() - 4 {
        if &bad[place..place + 4] == b"\"t3\"" {
            bad[place + 1] = b'x';
        }
    }
    assert_ne!(bad, good);
    // Without the manifest the journal itself still tells.
    for (bytes, with) in [
        (&bad, true),
        (&bad, false),
        (&good[..good.len() / 2].to_vec(), true),
    ] {
        fs::write(&ledger, bytes).unwrap();
        if with {
            fs::write(backup.join("backup.json"), &manifest).unwrap();
        } else {
            fs::remove_file(backup.join("backup.json")).unwrap();
        }
        let refused = put_back(dir, &backup, 0).await.unwrap_err();
        assert_eq!(exit_status(&refused), DAMAGED, "{refused:#}");
        assert_eq!(folded(dir).await, before);
        assert!(!dir.join("ledger.db.restoring").exists());
    }
    fs::write(&ledger, &good).unwrap();
    for broken in [b"this is no database".to_vec(), Vec::new(), bad] {
        let mine = dir.join("ledger.db");
        for side in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.join(format!("ledger.db{side}")));
        }
        fs::write(&mine, &broken).unwrap();
        put_back(dir, &backup, 0).await.unwrap();
        assert!(
            verify::verify(Some(dir), &[])
                .await
                .unwrap()
                .contains("13 rows")
        );
        let aside = dir.join("ledger.db.replaced-20270115T080000Z");
        if !broken.is_empty() {
            assert_eq!(fs::read(&aside).unwrap().len(), broken.len());
        }
        fs::remove_file(aside).unwrap();
    }
}

#[tokio::test]
async fn a_backup_is_private_where_it_must_be_and_nothing_is_overwritten_or_put_back_under_a_server()
 {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let config = gpuquota_server::config::Config::read(dir).unwrap();
    let server = Opened::open(dir, &config, SetClock::new(START))
        .await
        .unwrap();
    let plain = take(dir, "plain").await;
    let again = backup::backup(dir, &plain, false, Timestamp(START)).await;
    assert!(again.unwrap_err().to_string().contains("exists"));
    let refused = put_back(dir, &plain, 0).await.unwrap_err();
    assert!(refused.is::<InUse>(), "{refused:#}");
    let all = dir.join("all");
    backup::backup(dir, &all, true, Timestamp(START))
        .await
        .unwrap();
    server.close().await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(all.clone()), 0o700);
    for secret in ["ledger.db", "ca.key", "server.key", "token.key"] {
        assert_eq!(mode(all.join(secret)), 0o600, "{secret}");
        assert_eq!(
            plain.join(secret).exists(),
            secret == "ledger.db",
            "{secret}"
        );
    }
    for name in fs::read_dir(dir).unwrap().flatten() {
        assert!(!name.file_name().to_string_lossy().contains(".writing"));
    }
}

#[tokio::test]
async fn a_database_that_was_put_back_by_other_means_begins_an_incarnation_by_command() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    for (at_least, begun) in [(0, 1), (5, 5), (2, 6)] {
        let clock = SetClock::new(START);
        let said = restore::begin(dir, Incarnation(at_least), clock, Origin::operator(None)).await;
        let said = said.unwrap();
        assert!(
            said.contains(&format!("incarnation {begun} begins")),
            "{said}"
        );
    }
    let (quotas, _, _) = grow(dir, "a").await;
    let new: Vec<u64> = quotas.into_iter().filter(|id| *id > 8).collect();
    assert_eq!(new, [6 << 32, (6 << 32) + 1, (6 << 32) + 2]);
}
