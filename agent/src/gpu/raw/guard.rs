//! The buffer of a process list right before a page that nobody may touch, and drivers that use all of the room they are given. A
//! write beyond it ends the test's process with SIGSEGV.

use std::slice;

use super::*;

/// A page is 4 KiB here and up to 64 KiB elsewhere; two of either.
const MAPPED: usize = 128 * 1024;

/// `words` words whose end is the beginning of a page without any access.
fn before_a_guard_page(words: usize) -> &'static mut [u64] {
    let half = MAPPED / 2;
    let bytes = words * size_of::<u64>();
    assert!(bytes <= half);
    // SAFETY: a new mapping of its own, and never unmapped. Its second half is made inaccessible; the words that are handed out lie
    // in the first one, are aligned because its end is, and start as zeroes.
    unsafe {
        let all = libc::mmap(
            std::ptr::null_mut(),
            MAPPED,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(all, libc::MAP_FAILED);
        let guard = all.cast::<u8>().add(half);
        assert_eq!(libc::mprotect(guard.cast(), half, libc::PROT_NONE), 0);
        slice::from_raw_parts_mut(guard.sub(bytes).cast::<u64>(), words)
    }
}

/// Fills every row that it is told there is room for, `SIZE` words each: pid, memory, instances, protected memory.
unsafe extern "C" fn full<const SIZE: usize>(
    _: nvmlDevice_t,
    count: *mut c_uint,
    rows: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: the caller passes a place for the number, and so many rows of at least this size.
    unsafe {
        let room = usize::try_from(*count).unwrap();
        for at in 0..room {
            let row = [at as u64 + 1, 4096, (7 << 32) | 1, 0];
            let place = rows.cast::<u64>().add(at * SIZE);
            place.copy_from_nonoverlapping(row.as_ptr(), SIZE);
        }
    }
    0
}

#[test]
fn fault_f_rule_04_a_driver_that_fills_all_of_the_room_stays_in_it_at_any_row_size() {
    let drivers: [(usize, ListCall); 3] = [(4, full::<4>), (3, full::<3>), (2, full::<2>)];
    // As large as at first, as after a list that grew, and no multiple of a row.
    for words in [ROWS * LARGEST_ROW, 97 * LARGEST_ROW, 10 * LARGEST_ROW + 3] {
        for (size, driver) in drivers {
            let buffer = before_a_guard_page(words);
            // SAFETY: the driver above uses no handle and keeps to the largest row.
            let (code, rows) = unsafe { ask(driver, std::ptr::null_mut(), buffer) };
            assert_eq!((code, rows), (0, words / LARGEST_ROW), "{size} words");
            let mut pids = Vec::new();
            let layout = decode(buffer, rows, |row| pids.extend(row.pid)).unwrap();
            assert_eq!(layout, Layout::Proven, "{size} words");
            let expected = 1..=u32::try_from(rows).unwrap();
            assert_eq!(pids, expected.collect::<Vec<_>>(), "{size} words");
        }
    }
}
