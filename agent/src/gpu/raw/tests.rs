//! Process lists as drivers leave them in the buffer.

use super::*;

/// What a driver with rows of `size` words leaves in the buffer.
fn driver(size: usize, pids: &[u32]) -> Vec<u64> {
    let mut words = vec![MARK; 64 * LARGEST_ROW];
    for (row, pid) in words.chunks_exact_mut(size).zip(pids) {
        // The upper half of the first word is padding that a driver may leave alone.
        row[0] = (MARK & 0xFFFF_FFFF_0000_0000) | u64::from(*pid);
        row[1] = 4096;
        if size > 2 {
            row[2] = (7_u64 << 32) | 1;
        }
        if size > 3 {
            row[3] = 0;
        }
    }
    words
}

fn read(words: &[u64], rows: usize) -> Option<(Layout, Vec<Row>)> {
    let mut read = Vec::new();
    let layout = decode(words, rows, |row| read.push(row)).ok()?;
    Some((layout, read))
}

#[test]
fn rows_of_16_24_and_32_bytes_are_told_apart() {
    for (size, gi, ci) in [
        (2, None, None),
        (3, Some(1), Some(7)),
        (4, Some(1), Some(7)),
    ] {
        for pids in [&[1000][..], &[1000, 0, 1002], &[1, 2, 3, 4, 5, 6, 7]] {
            let rows = read(&driver(size, pids), pids.len()).unwrap();
            let expected = pids.iter().map(|pid| Row {
                pid: Some(*pid).filter(|pid| *pid != 0),
                gi,
                ci,
                used_memory_bytes: Some(4096),
            });
            let expected = (Layout::Proven, expected.collect::<Vec<_>>());
            assert_eq!(rows, expected, "{size} words");
        }
    }
}

#[test]
fn rule_04_the_drivers_with_wrong_rows_are_known() {
    for (version, expected) in [
        ("535.43", true),
        ("535.54.03", true),
        ("535.98", true),
        ("535.104.05", false),
        ("535", false),
        ("550.54.15", false),
        ("junk", false),
    ] {
        assert_eq!(misleads(version), expected, "{version}");
    }
}

#[test]
fn what_no_layout_explains_is_refused() {
    let mut words = driver(3, &[1000, 1001]);
    words[9] = 1;
    assert_eq!(
        read(&words, 2).map(|(layout, rows)| (layout, rows.len())),
        Some((Layout::Guessed, 2)),
        "scribble behind sensible rows"
    );
    // Three rows of 24 bytes and what stands behind them are as long as three of 32.
    words = driver(3, &[1000, 1001, 1002]);
    words[11] = 1;
    let told = read(&words, 3).map(|(layout, rows)| (layout, rows[2].pid));
    assert_eq!(told, Some((Layout::Guessed, Some(1002))));
    words = driver(2, &[1000, u32::MAX]);
    assert_eq!(read(&words, 2), None, "no such pid");
    let mut words = driver(4, &[1000, 1001, 1002]);
    words[20] = 1;
    assert_eq!(read(&words, 3), None, "scribble behind rows of 32 bytes");
    assert_eq!(read(&[MARK; 8], 2), None, "nothing written at all");
    assert_eq!(read(&driver(3, &[1, 2]), usize::MAX), None);
    assert_eq!(read(&[MARK; 8], 0), Some((Layout::Proven, Vec::new())));
}
