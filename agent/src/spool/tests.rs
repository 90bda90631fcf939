//! Numbers, order and loss: what the spool promises over restarts, damage and a disk that does not take writes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    records: 1000,
};

fn open(dir: &Path, boot: &str) -> Spool {
    Spool::open(&dir.join("spool"), "node1", boot, LIMITS)
}

fn full() -> Contents {
    Contents {
        full: true,
        ..Default::default()
    }
}

fn change() -> Contents {
    Contents::default()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir.join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn drain(spool: &mut Spool) -> Vec<Report> {
    spool.rewind();
    std::iter::from_fn(|| spool.take_next(usize::MAX, 1000)).collect()
}

#[test]
fn the_first_report_is_full_and_a_restart_goes_on_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    assert_eq!(spool.append(&change(), 5, None), Err(NeedsFull));
    assert_eq!(spool.append(&full(), 5, None), Ok(1));
    assert_eq!(spool.append(&change(), 400, None), Ok(2));
    let id = spool.spool_id().to_owned();
    drop(spool);
    let mut spool = open(dir.path(), "boot");
    assert_eq!((spool.spool_id(), spool.last_number()), (id.as_str(), 2));
    assert!(spool.needs_full());
    let reports = drain(&mut spool);
    assert_eq!(reports.iter().map(|r| r.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(reports[1].age_ms, Some(600));
    assert_eq!(reports[0].node, "node1");
    spool.acked(&id, 2);
    assert_eq!((spool.records(), spool.in_flight()), (0, 0));
    drop(spool);
    let mut spool = open(dir.path(), "boot");
    assert_eq!((spool.records(), spool.last_number()), (0, 2));
    assert_eq!(spool.append(&full(), 0, None), Ok(3));
}

/// The server would refuse them for ever, and everything behind them.
#[test]
fn reports_of_a_node_of_another_name_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    spool.append(&full(), 0, None).unwrap();
    let before = spool.spool_id().to_owned();
    drop(spool);
    let mut spool = Spool::open(&dir.path().join("spool"), "node2", "boot", LIMITS);
    assert_ne!(spool.spool_id(), before);
    spool.append(&full(), 0, None).unwrap();
    let reports = drain(&mut spool);
    let told: Vec<_> = reports
        .iter()
        .map(|r| (r.node.as_str(), r.number))
        .collect();
    assert_eq!(told, [("node2", 1)]);
    assert_eq!(segments(dir.path()).len(), 1);
}

#[test]
fn a_new_boot_sends_the_old_one_first_without_ages() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot1");
    spool.append(&full(), 7, None).unwrap();
    let old = spool.spool_id().to_owned();
    drop(spool);
    let mut spool = open(dir.path(), "boot2");
    assert_ne!(spool.spool_id(), old);
    spool.append(&full(), 8, None).unwrap();
    let reports = drain(&mut spool);
    assert_eq!(
        (reports[0].boot_id.as_str(), reports[0].age_ms),
        ("boot1", None)
    );
    assert_eq!((reports[1].number, reports[1].age_ms), (1, Some(992)));
    spool.acked(&old, 1);
    assert_eq!((spool.records(), spool.in_flight()), (1, 1));
    assert_eq!(segments(dir.path()).len(), 1);
}

#[test]
fn a_window_bounds_what_is_in_flight_and_odd_acks_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    spool.append(&full(), 0, None).unwrap();
    for _ in 0..4 {
        spool.append(&change(), 0, None).unwrap();
    }
    assert!(spool.take_next(2, 0).is_some() && spool.take_next(2, 0).is_some());
    assert_eq!(spool.take_next(2, 0), None);
    let id = spool.spool_id().to_owned();
    spool.acked("another", 99);
    spool.acked(&id, 0);
    assert_eq!(spool.records(), 5);
    spool.acked(&id, 1);
    assert_eq!((spool.records(), spool.in_flight()), (4, 1));
    assert_eq!(spool.take_next(2, 0).unwrap().number, 3);
    spool.acked(&id, 1_000_000);
    assert_eq!((spool.records(), spool.in_flight()), (0, 0));
}

/// A note of the acknowledgement cannot be written, so the file itself has to go.
#[test]
fn what_is_acknowledged_while_the_disk_fails_is_not_sent_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    spool.append(&full(), 0, None).unwrap();
    let before = spool.spool_id().to_owned();
    spool.sync_failed(&std::io::ErrorKind::StorageFull.into());
    assert!(spool.in_memory_only());
    assert_eq!(drain(&mut spool).len(), 1);
    spool.acked(&before, 1);
    assert_eq!(spool.append(&full(), 5, None), Ok(1));
    drop(spool);
    let mut spool = open(dir.path(), "boot");
    assert_eq!(drain(&mut spool), []);
    assert_ne!(spool.spool_id(), before);
}

#[test]
fn too_much_becomes_one_full_report_of_a_new_scope() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    spool.append(&full(), 0, None).unwrap();
    let id = spool.spool_id().to_owned();
    for _ in 1..LIMITS.records {
        spool.append(&change(), 0, None).unwrap();
    }
    assert_eq!(spool.append(&change(), 0, None), Err(NeedsFull));
    assert_ne!(spool.spool_id(), id);
    assert_eq!(spool.append(&full(), 0, None), Ok(1));
    assert_eq!((spool.records(), segments(dir.path()).len()), (1, 1));
}

#[test]
fn case_60_a_corrupt_spool_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    for _ in 0..3 {
        spool.append(&full(), 0, None).unwrap();
    }
    let id = spool.spool_id().to_owned();
    drop(spool);
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[100] ^= 1;
    fs::write(path, bytes).unwrap();
    let mut spool = open(dir.path(), "boot");
    assert_ne!(spool.spool_id(), id);
    assert_eq!((spool.records(), spool.in_memory_only()), (0, false));
    assert_eq!(spool.append(&full(), 0, None), Ok(1));
    assert!(dir.path().join("spool.damaged").is_dir());
}

#[test]
fn case_60_without_a_disk_it_goes_on_in_memory_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spool"), "in the way").unwrap();
    let mut spool = open(dir.path(), "boot");
    assert!(spool.in_memory_only());
    assert_eq!(spool.append(&full(), 0, None), Ok(1));
    assert_eq!(spool.append(&change(), 0, None), Ok(2));
    assert_eq!(drain(&mut spool).len(), 2);
    let id = spool.spool_id().to_owned();
    fs::remove_file(dir.path().join("spool")).unwrap();
    spool.tend(1000);
    assert!(spool.in_memory_only());
    spool.tend(1000 + RETRY_MS);
    assert!(!spool.in_memory_only());
    assert_ne!(spool.spool_id(), id);
    assert_eq!(spool.append(&full(), 0, None), Ok(1));
    let numbers: Vec<u64> = drain(&mut spool).iter().map(|r| r.number).collect();
    assert_eq!(numbers, [1, 2, 1]);
}

#[test]
fn a_failed_sync_ends_the_scope() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    spool.append(&full(), 0, None).unwrap();
    spool.sync_job().unwrap().run().unwrap();
    assert!(spool.sync_job().is_none());
    spool.sync_failed(&std::io::ErrorKind::StorageFull.into());
    assert!(spool.in_memory_only() && spool.needs_full());
    assert_eq!(spool.append(&full(), 0, None), Ok(1));
    assert_eq!(drain(&mut spool).len(), 2);
}

#[test]
fn memory_is_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    spool.sync_failed(&std::io::ErrorKind::StorageFull.into());
    spool.limits.records = usize::MAX;
    let mut wide = full();
    wide.devices = vec![gpuquota_proto::agent_v1::DeviceState {
        model: "x".repeat(60_000),
        ..Default::default()
    }];
    for _ in 0..40 {
        spool.append(&wide, 0, None).unwrap();
        assert!(spool.queue.cached_bytes() <= MEMORY_BYTES);
    }
    assert!(spool.records() < 20);
}

#[test]
fn nobody_else_can_read_it_and_drained_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), "boot");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("spool")), 0o700);
    for _ in 0..900 {
        let number = spool.append(&full(), 0, None).unwrap();
        let id = spool.spool_id().to_owned();
        spool.take_next(9, 0).unwrap();
        spool.acked(&id, number);
    }
    let paths = segments(dir.path());
    assert_eq!((paths.len(), mode(&paths[0])), (1, 0o600));
    assert!(spool.bytes() <= DRAINED_BYTES + 1024, "{}", spool.bytes());
    drop(spool);
    assert_eq!(open(dir.path(), "boot").last_number(), 900);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_crash_at_any_byte_loses_only_the_tail(
        reports in 1..12_u64,
        acked in 0..12_u64,
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), "boot");
        for _ in 0..reports {
            spool.append(&full(), 0, None).unwrap();
        }
        let id = spool.spool_id().to_owned();
        spool.acked(&id, acked.min(reports - 1));
        drop(spool);
        let path = &segments(dir.path())[0];
        let bytes = fs::read(path).unwrap();
        let cut = cut.index(bytes.len());
        fs::write(path, &bytes[..cut]).unwrap();

        let mut spool = open(dir.path(), "boot");
        prop_assert!(!spool.in_memory_only());
        let kept = drain(&mut spool);
        // What is left is a part without gaps, and a number that was cut off is never given again in its scope.
        for pair in kept.windows(2) {
            prop_assert_eq!(pair[0].number + 1, pair[1].number);
        }
        let number = spool.append(&full(), 0, None).unwrap();
        if spool.spool_id() == id {
            prop_assert_eq!(number, kept.last().map_or(number, |r| r.number + 1));
        } else {
            prop_assert_eq!(number, 1);
        }
        prop_assert_eq!(drain(&mut spool).len(), kept.len() + 1);
        drop(spool);
        prop_assert_eq!(open(dir.path(), "boot").records(), kept.len() + 1);
    }
}
