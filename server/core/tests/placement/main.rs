//! Placement against brute force on small clusters, and its rules one by one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod cluster;
mod devices;
mod examples;
mod nodes;

use proptest::test_runner::Config;

/// So many cases, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn cases(usual: u32) -> Config {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let cases = wanted.and_then(|text| text.parse().ok()).unwrap_or(usual);
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}
