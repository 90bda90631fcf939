//! Exports: they can be checked without a server, and not one byte of them can change unseen.

use std::fs;
use std::path::{Path, PathBuf};

use gpuquota_core::id::Seq;
use gpuquota_server::journal::{DAMAGED, exit_status, export, verify};
use gpuquota_server::service::Origin;
use proptest::prelude::*;

use crate::journals::{directory, twelve_rows};
use crate::running::{Running, START, SetClock, set};

async fn export(dir: &Path, from: u64, to: u64, name: &str) -> PathBuf {
    let out = dir.join(name);
    let done = export::export(dir, Some(Seq(from)), Some(Seq(to)), Some(&out)).await;
    done.unwrap();
    out
}

async fn refused(dir: Option<&Path>, files: &[PathBuf]) -> String {
    let error = verify::verify(dir, files).await.unwrap_err();
    assert_eq!(exit_status(&error), DAMAGED, "{error:#}");
    format!("{error:#}")
}

#[tokio::test]
async fn exports_follow_each_other_and_the_journal_and_what_does_not_is_named() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    // A server may run meanwhile; what it writes later is not in the export.
    let running = Running::on(dir, SetClock::new(START)).await;
    let whole = dir.join("whole.jsonl");
    let said = export::export(dir, None, None, Some(&whole)).await.unwrap();
    assert!(said.starts_with("exported journal rows 1 to 12"), "{said}");
    let after = running.ledger.submit(set("after", 1), Origin::server());
    after.await.unwrap();
    let one = export(dir, 1, 4, "one").await;
    let two = export(dir, 5, 9, "two").await;
    let three = export(dir, 10, 99, "three").await;
    let files = |paths: &[&PathBuf]| paths.iter().map(|path| (*path).clone()).collect::<Vec<_>>();

    let told = verify::verify(Some(dir), std::slice::from_ref(&whole))
        .await
        .unwrap();
    assert!(told.contains("nothing is missing since row 1"), "{told}");
    let all = files(&[&one, &two, &three]);
    verify::verify(Some(dir), &all).await.unwrap();
    let alone = verify::verify(None, &all).await.unwrap();
    assert!(
        alone.starts_with("files are whole: rows 1 to 13"),
        "{alone}"
    );
    verify::verify(Some(dir), &files(&[&two])).await.unwrap();

    for wrong in [
        files(&[&two, &one]),
        files(&[&one, &three]),
        files(&[&whole, &one]),
    ] {
        let text = refused(None, &wrong).await;
        assert!(text.contains("does not follow the file before"), "{text}");
    }
    running.end().await;
    let nothing = export::export(dir, Some(Seq(14)), None, Some(&one)).await;
    let nothing = nothing.unwrap_err().to_string();
    assert!(nothing.contains("holds 1 to 13"), "{nothing}");

    // Rows of another history: the same numbers, other rows.
    let other = directory().await;
    let running = Running::on(other.path(), SetClock::new(START)).await;
    for turn in 0..12 {
        let command = set(&format!("u{turn}"), 1);
        let done = running.ledger.submit(command, Origin::server()).await;
        done.unwrap();
    }
    running.end().await;
    let text = refused(Some(other.path()), &files(&[&whole])).await;
    assert!(text.contains("another history"), "{text}");
    let text = refused(Some(other.path()), &all).await;
    assert!(text.contains("the journal ends with row 12"), "{text}");
}

#[tokio::test]
async fn an_export_stops_at_a_row_that_was_changed_and_leaves_no_file() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let url = format!("sqlite://{}", dir.join("ledger.db").display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    let change = sqlx::query("UPDATE journal SET body = body || ' ' WHERE seq = 7");
    change.execute(&other).await.unwrap();
    other.close().await;
    let out = dir.join("out");
    let error = export::export(dir, None, None, Some(&out)).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("row 7 "), "{error}");
    assert_eq!(exit_status(&error), DAMAGED);
    assert!(!out.exists() && !dir.join("out.writing").exists());
}

#[tokio::test]
async fn every_byte_of_an_export_counts() {
    let dir = directory().await;
    let dir = dir.path();
    twelve_rows(dir).await;
    let path = export(dir, 8, 12, "file").await;
    let bytes = fs::read(&path).unwrap();
    let lines: Vec<usize> = line_ends(&bytes);
    assert_eq!(lines.len(), 6);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 7);
        fs::write(&path, &changed).unwrap();
        let text = refused(None, std::slice::from_ref(&path)).await;
        // A wrong hash in the first line is noticed at the row that does not follow from it, or at the end.
        let line = lines.iter().filter(|end| **end < at).count() + 1;
        if line > 1 {
            let here = format!("{}:{line}: ", path.display());
            assert!(text.starts_with(&here), "byte {at}: {text}");
        }
    }
    for end in [
        0,
        1,
        lines[0],
        lines[3],
        lines[3] + 1,
        lines[4] + 9,
        bytes.len() - 1,
    ] {
        fs::write(&path, &bytes[..end]).unwrap();
        refused(None, std::slice::from_ref(&path)).await;
    }
    // What reads the same is still not what was written.
    let text = String::from_utf8(bytes.clone()).unwrap();
    for (from, to) in [(",\"at\"", ", \"at\""), ("ä", "\\u00e4"), ("\n", "\r\n")] {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        refused(None, std::slice::from_ref(&path)).await;
    }
    let mut more = bytes.clone();
    more.extend_from_slice(&bytes[lines[4] + 1..]);
    fs::write(&path, &more).unwrap();
    refused(None, std::slice::from_ref(&path)).await;
    fs::write(&path, &bytes).unwrap();
    verify::verify(None, &[path]).await.unwrap();
}

fn line_ends(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_part_of_any_journal_verifies_and_no_change_of_a_few_bytes_does(
        turns in prop::collection::vec((0..5_u32, 1..9_u32), 1..20),
        cut in any::<prop::sample::Index>(),
        places in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = directory().await;
            let dir = dir.path();
            let running = Running::on(dir, SetClock::new(START)).await;
            for (tenant, limit) in &turns {
                let command = set(&format!("t{tenant}"), *limit);
                running.ledger.submit(command, Origin::server()).await.unwrap();
            }
            let last = running.ledger.read().state.seq().0;
            running.end().await;
            let first = cut.index(usize::try_from(last).unwrap()) as u64 + 1;
            let path = export(dir, first, last, "part").await;
            verify::verify(Some(dir), std::slice::from_ref(&path)).await.unwrap();
            let bytes = fs::read(&path).unwrap();
            let mut changed = bytes.clone();
            for (place, flip) in &places {
                let at = place.index(changed.len());
                changed[at] ^= flip;
            }
            if changed != bytes {
                fs::write(&path, &changed).unwrap();
                refused(None, &[path]).await;
            }
        });
    }
}
