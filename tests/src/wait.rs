//! Waiting for something to become true, with an end and with what was last seen. No test sleeps for a fixed time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);
/// Long enough for anything that should happen soon on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// This moment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock of the tests")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall time, milliseconds since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock of the tests")]
pub fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// Looks until the answer is `Ok`; the `Err` of the last look is part of the failure.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let begin = now();
    loop {
        let seen = match look().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(
            begin.elapsed() < within,
            "{what}: not within {within:?}; last seen: {seen}"
        );
        tokio::time::sleep(EVERY).await;
    }
}

/// Looks all the while and fails as soon as the answer is `Err`: for what must not happen.
pub async fn throughout(
    what: &str,
    time: Duration,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) {
    let begin = now();
    while begin.elapsed() < time {
        if let Err(seen) = look().await {
            panic!("{what}: after {:?}: {seen}", begin.elapsed());
        }
        tokio::time::sleep(EVERY).await;
    }
}
