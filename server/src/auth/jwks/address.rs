//! A key set at an address: fetched in the background, earlier when a token names a key that nobody knows.
//!
//! However many such tokens come there is one flight at a time, for which all of them wait, and one early flight in ten
//! seconds. A failed fetch leaves the last good set in force for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::fetch::{DEADLINE, Fetcher};
use super::key_set::KeySet;
use crate::auth::Algorithm;
use crate::clock::Clock;

const EARLY_EVERY_MS: u64 = 10_000;
const RETRY: Duration = Duration::from_secs(30);
/// A little more than a flight takes.
const LONGEST_WAIT: Duration = DEADLINE.saturating_add(Duration::from_secs(1));

/// The address and what it said when it last answered well.
pub(in crate::auth) struct KeySetAddress {
    issuer: String,
    algorithm: Algorithm,
    fetcher: Fetcher,
    refresh: Duration,
    keep: Duration,
    clock: Arc<dyn Clock>,
    last: ArcSwap<Fetched>,
    flights: watch::Sender<Flights>,
    wanted: Notify,
}

#[derive(Default)]
struct Fetched {
    keys: KeySet,
    /// By the boot clock; `None` before the first answer.
    at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flights {
    begun: u64,
    ended: u64,
    early_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// Fetches fail; the last good set counts.
    Failing,
    /// There is no set that counts.
    Without,
}

impl KeySetAddress {
    pub(super) fn new(
        issuer: &str,
        algorithm: Algorithm,
        fetcher: Fetcher,
        refresh: Duration,
        keep: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            issuer: issuer.to_owned(),
            algorithm,
            fetcher,
            refresh,
            keep,
            clock,
            last: ArcSwap::default(),
            flights: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }

    /// The key, if need be after a flight.
    pub(super) async fn find(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        if let Some(key) = self.look(kid) {
            return Some(key);
        }
        self.early().await;
        self.look(kid)
    }

    /// Fetches at once, then every `refresh`, and when asked; until `stop`.
    pub(super) async fn refresh(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.refresh);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = Health::Good;
        loop {
            let early = tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => false,
                () = self.wanted.notified() => true,
            };
            if early && self.lately(*self.flights.borrow()) {
                continue;
            }
            self.flights.send_modify(|flights| {
                flights.begun += 1;
                if early {
                    flights.early_at_ms = Some(self.clock.boot_ms());
                }
            });
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = self.fetch() => result,
            };
            let failed = result.is_err();
            self.log(&mut health, result);
            self.flights
                .send_modify(|flights| flights.ended = flights.begun);
            if failed {
                tick.reset_after(self.refresh.min(RETRY));
            } else {
                tick.reset();
            }
        }
    }

    fn look(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        let last = self.last.load();
        self.counts(&last).then(|| last.keys.find(kid))?
    }

    fn counts(&self, fetched: &Fetched) -> bool {
        fetched.at_ms.is_some_and(|at| {
            let age = Duration::from_millis(self.clock.boot_ms().saturating_sub(at));
            age < self.keep
        })
    }

    // Waits for the flight under way, or for one that is asked for; not at all when one was asked for lately.
    async fn early(&self) {
        let mut flights = self.flights.subscribe();
        let seen = *flights.borrow_and_update();
        if seen.begun == seen.ended {
            if self.lately(seen) {
                return;
            }
            self.wanted.notify_one();
        }
        let landed = flights.wait_for(|now| now.ended > seen.ended);
        let _ = tokio::time::timeout(LONGEST_WAIT, landed).await;
    }

    fn lately(&self, flights: Flights) -> bool {
        flights
            .early_at_ms
            .is_some_and(|at| self.clock.boot_ms().saturating_sub(at) < EARLY_EVERY_MS)
    }

    async fn fetch(&self) -> Result<usize, String> {
        let text = self.fetcher.fetch().await?;
        let keys = KeySet::parse(&text, self.algorithm)?;
        let count = keys.len();
        let at_ms = Some(self.clock.boot_ms());
        self.last.store(Arc::new(Fetched { keys, at_ms }));
        Ok(count)
    }

    // Once for each change, not for each fetch.
    fn log(&self, health: &mut Health, result: Result<usize, String>) {
        let now = match &result {
            Ok(0) => Health::Without,
            Ok(_) => Health::Good,
            Err(_) if self.counts(&self.last.load()) => Health::Failing,
            Err(_) => Health::Without,
        };
        if now == *health {
            return;
        }
        *health = now;
        let reason = result
            .err()
            .unwrap_or_else(|| format!("it holds no key for {}", self.algorithm.as_str()));
        let issuer = self.issuer.as_str();
        match now {
            Health::Good => tracing::info!(token.issuer = issuer, "the key set is there again"),
            Health::Failing => tracing::warn!(
                token.issuer = issuer,
                error = reason,
                "the key set cannot be fetched; the last good one counts for now"
            ),
            Health::Without => tracing::error!(
                token.issuer = issuer,
                error = reason,
                "there is no key set; tokens of this issuer are refused"
            ),
        }
    }
}
