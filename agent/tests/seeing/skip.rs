//! What cannot be tested here is said aloud; `tests/run` counts these lines.

use std::fmt::Display;
use std::io::Write as _;

/// Says that a test was left out.
pub(crate) fn skipped(what: &str, why: impl Display) {
    aloud("SKIPPED", what, why);
}

/// Says that a part of a test was left out, which did the rest.
pub(crate) fn left_out(what: &str, why: impl Display) {
    aloud("LEFT OUT", what, why);
}

/// One write of one line, around the capture of test output.
fn aloud(which: &str, what: &str, why: impl Display) {
    let line = format!("{which} {what}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
