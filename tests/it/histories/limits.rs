//! Limits that change while many ask for leases: whoever is granted one stays within what the limit says at that row.

use std::sync::Arc;

use gpuquota_tests::journal::exported;
use gpuquota_tests::quota::{GPU, purchase, with};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::slow;
use gpuquota_tests::wait::{SOON, until, wall_ms};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::recorder::{Recorder, Write};
use super::world::none_broken;
use crate::checker::{Reply, Told};

const LEASES: &str = "/api/v1/leases";
const ASK: usize = 24;
const LIMIT: u64 = 8;

struct Race {
    server: Server,
    admin: Rest,
    recorder: Arc<Recorder>,
}

impl Race {
    async fn new() -> Self {
        let server = Server::start().await;
        Self {
            admin: server.admin(),
            recorder: Arc::default(),
            server,
        }
    }

    async fn ask(&self, write: &Write) -> Reply {
        let to = (&self.admin, "server");
        self.recorder.ask(to, "caller", write, 0).await
    }

    fn put(body: &Value) -> Write {
        Write {
            method: "PUT",
            pattern: "/api/v1/quotas/{tenant}",
            target: "/api/v1/quotas/a".to_owned(),
            body: body.to_string(),
            key: None,
        }
    }

    /// Many ask for one each; what `change` is answered that comes after `ahead` of them, and who was granted a lease.
    async fn run(&self, change: &Write, ahead: usize) -> (Reply, Vec<u64>) {
        let mut asked = JoinSet::new();
        let ask = |asked: &mut JoinSet<Reply>| {
            let (admin, recorder) = (self.admin.clone(), self.recorder.clone());
            asked.spawn(async move {
                let body = json!({
                    "tenant": "a", "region": "default", "gpu_model": GPU, "count": 1, "placement": "count_only"
                });
                let write = Write {
                    method: "POST",
                    pattern: LEASES,
                    target: LEASES.to_owned(),
                    body: body.to_string(),
                    key: None,
                };
                recorder.ask((&admin, "server"), "caller", &write, 0).await
            });
        };
        (0..ahead).for_each(|_| ask(&mut asked));
        // Their requests are on the way when the change goes out.
        tokio::task::yield_now().await;
        let (admin, recorder, change) = (self.admin.clone(), self.recorder.clone(), change.clone());
        let changed =
            tokio::spawn(
                async move { recorder.ask((&admin, "server"), "caller", &change, 0).await },
            );
        (ahead..ASK).for_each(|_| ask(&mut asked));
        let replies = asked.join_all().await;
        let granted = replies.into_iter().filter_map(|reply| match reply {
            Reply::Decided {
                told: Some(Told::Lease { lease, .. }),
                ..
            } => Some(lease),
            _ => None,
        });
        let granted = granted.collect();
        (changed.await.unwrap(), granted)
    }

    async fn live(&self) -> usize {
        let list = self.admin.get(&format!("{LEASES}?limit=1000")).await.json();
        list["leases"].as_array().unwrap().len()
    }

    async fn release(&self, leases: Vec<u64>) {
        for lease in leases {
            let path = format!("{LEASES}/{lease}?force=true");
            self.admin.send("DELETE", &path, &[], "").await;
        }
    }

    fn judged(self) {
        let rows = exported(&self.server.dir);
        let recorder = Arc::into_inner(self.recorder).unwrap();
        none_broken(&recorder.with_rows(&rows));
    }
}

fn done(reply: &Reply) -> bool {
    matches!(reply, Reply::Decided { told: None, .. })
}

fn rounds() -> usize {
    if slow() { 500 } else { 18 }
}

#[tokio::test]
async fn case_37_a_limit_is_lowered_while_grants_race_or_is_refused() {
    let race = Race::new().await;
    let (mut lowered, mut refused) = (0, 0);
    for round in 0..rounds() {
        assert!(done(
            &race.ask(&Race::put(&purchase("default", LIMIT))).await
        ));
        // Sometimes so low that it is surely below what runs.
        let low = [7, 4, 1][round % 3];
        // Whoever is ahead may be served before the change; where nobody is, the change mostly comes first.
        let ahead = ASK / 2 * (round / 3 % 3);
        let change = Race::put(&purchase("default", low));
        let (changed, granted) = race.run(&change, ahead).await;
        let limit = match &changed {
            reply if done(reply) => {
                lowered += 1;
                low
            }
            Reply::Decided {
                told: Some(Told::Denied),
                ..
            } => {
                refused += 1;
                LIMIT
            }
            other => unreachable!("{other:?}"),
        };
        assert_eq!(
            (granted.len() as u64, race.live().await),
            (limit, granted.len())
        );
        race.release(granted).await;
    }
    assert!(
        lowered > 0 && refused > 0,
        "{lowered} lowered, {refused} refused"
    );
    race.judged();
}

#[tokio::test]
async fn case_38_after_a_forced_release_no_lease_lives_without_a_quota() {
    let race = Race::new().await;
    let mut before = 0;
    for _ in 0..rounds() {
        assert!(done(
            &race.ask(&Race::put(&purchase("default", LIMIT))).await
        ));
        let (changed, granted) = race.run(&Race::put(&purchase("default", 0)), ASK / 2).await;
        assert!(done(&changed), "{changed:?}");
        before += granted.len();
        assert_eq!(race.live().await, 0, "{granted:?}");
        assert!(race.admin.quotas().await.0.is_empty());
    }
    assert!(before > 0, "nobody was granted anything");
    race.judged();
}

#[tokio::test]
async fn case_45_nothing_is_granted_from_the_instant_on_at_which_a_quota_expires() {
    let race = Race::new().await;
    // Whole seconds are what the dialect takes.
    let end = (wall_ms() / 1000 + 4) * 1000;
    let text = rfc3339(end);
    let body = with(purchase("default", 1000), "expired_at", text.as_str());
    assert!(done(&race.ask(&Race::put(&body)).await));
    let mut granted = 0;
    let nothing = Race::put(&purchase("other", 1));
    until("the quota has expired", SOON, async || {
        let (_, leases) = race.run(&nothing, ASK / 2).await;
        granted += leases.len();
        match leases.is_empty() && wall_ms() >= end {
            true => Ok(()),
            false => Err(format!("{granted} were granted")),
        }
    })
    .await;
    assert!(granted > 0, "nobody was granted anything");
    let rows = exported(&race.server.dir);
    let late = rows.iter().filter(|row| {
        let body = row["body"].as_str().unwrap();
        row["at"].as_i64().unwrap() >= end && body.contains("\"lease_granted\"")
    });
    assert_eq!(late.count(), 0);
    race.judged();
}

// A time in UTC, by the calendar of `date`.
fn rfc3339(at_ms: i64) -> String {
    let mut date = std::process::Command::new("date");
    date.args([
        "-u",
        "-d",
        &format!("@{}", at_ms / 1000),
        "+%Y-%m-%dT%H:%M:%SZ",
    ]);
    gpuquota_tests::program::succeed(&mut date)
        .trim()
        .to_owned()
}
