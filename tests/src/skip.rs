//! What cannot be tested here is said aloud; `tests/run` counts these lines.

/// Says that a check was left out. The line goes around the capture of test output.
pub fn skipped(what: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// A measured figure for the record, never asserted tightly.
pub fn measured(what: &str, value: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "MEASURED {what}: {value}");
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
