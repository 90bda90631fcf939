//! What cannot be tested here is said aloud; `tests/run` counts these lines.

use std::fmt::{Display, Write as _};
use std::io::Write as _;

/// Says that a whole test was left out.
pub fn skipped(what: &str, why: &str) {
    aloud("SKIPPED", what, why);
}

/// Says that a part of a test was left out.
pub fn left_out(what: &str, why: &str) {
    aloud("LEFT OUT", what, why);
}

/// A measured figure for the record, never asserted tightly.
pub fn measured(what: &str, value: impl Display) {
    aloud("MEASURED", what, value);
}

// One write of one line, around the capture of test output.
fn aloud(word: &str, what: &str, value: impl Display) {
    let mut line = String::new();
    let _ = writeln!(line, "{word} {what}: {value}");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether the long versions of slow tests were asked for: `GPUQUOTA_SLOW=1`.
#[must_use]
pub fn slow() -> bool {
    std::env::var_os("GPUQUOTA_SLOW").is_some_and(|value| value == "1")
}

/// Whether this process may mount and change users.
#[must_use]
pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}
