//! What cannot be tested here is said aloud; `tests/run` counts these lines.

use std::fmt::Display;
use std::io::Write as _;

/// Says that a test was left out. One write of one line, around the capture of test output.
pub(crate) fn skipped(what: &str, why: impl Display) {
    let line = format!("SKIPPED {what}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
