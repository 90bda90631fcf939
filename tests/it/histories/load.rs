//! Clients that ask for leases, renew them and give them back, and repeat under the same key what was not answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpuquota_tests::quota::GPU;
use gpuquota_tests::rest::Rest;
use gpuquota_tests::wait::{SOON, now};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::time::sleep;

use super::recorder::{Recorder, Write};
use crate::checker::{Reply, Told};

const LEASES: &str = "/api/v1/leases";
pub(super) const TENANTS: [&str; 2] = ["a", "b"];
/// What each tenant may hold at first.
pub(super) const LIMIT: u64 = 10;
/// GPUs of the one node: fewer than the tenants may hold together.
pub(super) const DEVICES: usize = 16;
/// Leases that a client wants at once; together the clients want more than there is.
const WANTED: usize = 3;

/// A client of one or several servers.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) servers: Vec<(Rest, String)>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) random: StdRng,
    pub(super) stop: Arc<AtomicBool>,
}

/// What became of a client's writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) granted: u64,
    pub(super) denied: u64,
    pub(super) lost: u64,
    pub(super) refused: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.granted += other.granted;
        self.denied += other.denied;
        self.lost += other.lost;
        self.refused += other.refused;
    }
}

impl Client {
    /// Asks until it is told to stop; then brings the last write to its end.
    pub(super) async fn run(mut self) -> Tally {
        let (mut tally, mut held, mut seen) = (Tally::default(), Vec::new(), 0);
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let (write, touched) = self.draw(number, &held);
            let told = self.pursue(&write, &mut seen, &mut tally).await;
            // Given back, or given up: whatever became of it, nobody touches it again.
            if write.method == "DELETE" {
                held.retain(|lease| Some(*lease) != touched);
            } else if let (None, Some(Told::Lease { lease, .. })) = (touched, &told) {
                held.push(*lease);
            } else if let (Some(lease), Some(Told::Denied)) = (touched, &told) {
                // Its time was over.
                held.retain(|other| *other != lease);
            }
            let thinks = self.random.random_range(2..25);
            sleep(Duration::from_millis(thinks)).await;
        }
        tally
    }

    // The next write and the lease that it touches.
    fn draw(&mut self, number: u64, held: &[u64]) -> (Write, Option<u64>) {
        let random = &mut self.random;
        let tenant = TENANTS[random.random_range(0..TENANTS.len())];
        let keyed = random.random_bool(0.85);
        let key = keyed.then(|| format!("{}-{number}", self.name));
        let write = |method, pattern, target: String, body: String| Write {
            method,
            pattern,
            target,
            body,
            key: key.clone(),
        };
        if random.random_bool(0.05) {
            let num = random.random_range(LIMIT - 3..=LIMIT + 3);
            let body = json!({"region": "default", "quota_source": "purchase", "gpu_model": GPU, "num": num});
            let target = format!("/api/v1/quotas/{tenant}");
            let body = body.to_string();
            return (write("PUT", "/api/v1/quotas/{tenant}", target, body), None);
        }
        let lease = (!held.is_empty()).then(|| held[random.random_range(0..held.len())]);
        let (renews, ends) = (random.random_bool(0.25), random.random_bool(0.4));
        match lease {
            Some(lease) if renews => {
                let body = json!({"ttl_seconds": random.random_range(1..100)}).to_string();
                let target = format!("{LEASES}/{lease}/renew");
                (
                    write("POST", "/api/v1/leases/{id}/renew", target, body),
                    Some(lease),
                )
            }
            Some(lease) if ends || held.len() >= WANTED => {
                let target = format!("{LEASES}/{lease}?force=true");
                (
                    write("DELETE", "/api/v1/leases/{id}", target, String::new()),
                    Some(lease),
                )
            }
            Some(_) | None => {
                let placement = ["devices", "count_only"][usize::from(random.random_bool(0.5))];
                let mut body = json!({
                    "tenant": tenant, "region": "default", "gpu_model": GPU, "placement": placement,
                    "count": random.random_range(1..=3)
                });
                // What nobody can ask for again must end by itself.
                if !keyed || random.random_bool(0.3) {
                    body["ttl_seconds"] = json!(random.random_range(1..4));
                }
                (
                    write("POST", LEASES, LEASES.to_owned(), body.to_string()),
                    None,
                )
            }
        }
    }

    /// Asks until it is decided, as far as a repetition can do no harm.
    async fn pursue(&mut self, write: &Write, seen: &mut u64, tally: &mut Tally) -> Option<Told> {
        let mut last = None;
        loop {
            let (rest, server) = &self.servers[self.random.random_range(0..self.servers.len())];
            let asked = self.recorder.ask((rest, server), &self.name, write, *seen);
            let reply = asked.await;
            match reply {
                Reply::Decided { seq, told, .. } => {
                    *seen = seq.unwrap_or(0).max(*seen);
                    match told {
                        Some(Told::Denied) => tally.denied += 1,
                        Some(Told::Lease { .. }) | None => tally.granted += 1,
                    }
                    return told;
                }
                Reply::Lost => tally.lost += 1,
                Reply::Refused { .. } => tally.refused += 1,
            }
            write.key.as_ref()?;
            // Once all is calm there is an answer.
            if self.stop.load(Ordering::Relaxed) {
                let since = *last.get_or_insert_with(now);
                if since.elapsed() > SOON {
                    let text = format!("{} is never answered: {write:?}", self.name);
                    self.recorder.alarm(text);
                    return None;
                }
            }
            let pause = self.random.random_range(5..40);
            sleep(Duration::from_millis(pause)).await;
        }
    }
}
