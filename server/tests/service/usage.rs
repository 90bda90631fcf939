//! GPU-seconds: hours that are over are stored once, whoever does it, and answered with what is still in the ledger.

use std::sync::atomic::Ordering;

use gpuquota_core::Command;
use gpuquota_core::limit::Limit;
use gpuquota_core::meter::{Hour, Metered};
use gpuquota_server::auth::Role;
use gpuquota_server::service::{UsageKeeping, drop_usage_once, store_usage_once};
use gpuquota_server::store::{UsageBy, UsageHours, UsageKept, UsageQuery};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::databases::both;
use crate::declared::{declared, facts, gpu, quota};
use crate::rest::{Rest, token};
use crate::running::{HOUR, Running, START, SetClock};

// Tokens are of START, so what they are asked about lies before it, on the hour.
const BASE: i64 = START - 5 * HOUR;
const MODEL: &str = "nvidia.com/gpu";

/// In hour 0: one GPU is free and one is shared by a and b for a third of it; later nothing changes.
async fn meter(running: &Running) {
    running.clock.set(BASE);
    let quotas = ["a", "b"].map(|who| quota(who, "=US, west", MODEL, Limit::Finite(4)));
    running.told([declared("n0", "=US, west", &[], None)]).await;
    running.told(quotas.map(Command::SetQuota)).await;
    let free = vec![gpu("GPU-1", MODEL, &[]), gpu("GPU-2", MODEL, &[])];
    running.reported("n0", facts(None, None), free).await;
    running.clock.set(BASE + 1_200_001);
    let shared = vec![gpu("GPU-1", MODEL, &[]), gpu("GPU-2", MODEL, &["a", "b"])];
    running.reported("n0", facts(None, None), shared).await;
    running.clock.set(BASE + 2 * HOUR + 5);
    running.told([Command::Sweep]).await;
}

async fn stored(running: &Running) -> Vec<(i64, Vec<String>, u64)> {
    let all = UsageQuery {
        from: Hour::default(),
        to: Hour(i64::MAX / 10_000_000),
        period: 1,
        by: UsageBy::ALL.into(),
        only: [].into(),
        most: 1000,
    };
    let rows = running.store.usage(&all).await.unwrap();
    let base = BASE / HOUR;
    let row = |row: gpuquota_server::store::UsageSum| (row.period.0 - base, row.of, row.ms);
    rows.into_iter().map(row).collect()
}

fn hours(running: &Running) -> (Hour, Hour, Metered) {
    let committed = running.ledger.read();
    let state = &committed.state;
    let (from, to) = (state.stored_before(), state.closed_before());
    (from, to, state.metered(from, to, state.at()))
}

#[tokio::test]
async fn hours_are_stored_once_though_the_first_who_did_it_died_before_it_was_noted() {
    for base in both("hours are stored once") {
        let running = Running::of(&base, SetClock::new(BASE)).await;
        meter(&running).await;
        let before = running.ledger.read().state.stored_before();
        let (from, to, metered) = hours(&running);
        let rows = UsageHours::of(from, to, &metered);
        for _ in 0..2 {
            assert_eq!(
                running.store.put_usage(&rows).await.unwrap(),
                UsageKept::Same
            );
        }
        assert_eq!(running.ledger.read().state.stored_before(), before);
        running.end().await;

        let one = Running::of(&base, SetClock::new(BASE + 2 * HOUR + 5)).await;
        let two = Running::of(&base, SetClock::new(BASE + 2 * HOUR + 5)).await;
        assert!(store_usage_once(&one.ledger).await);
        // The other may have heard of it by now.
        let _ = store_usage_once(&two.ledger).await;
        for running in [&one, &two] {
            while store_usage_once(&running.ledger).await {}
            running.told([Command::Sweep]).await;
            assert_eq!(
                running
                    .ledger
                    .counters()
                    .usage_conflicts
                    .load(Ordering::Relaxed),
                0
            );
        }
        let state = one.ledger.read().state.clone();
        assert_eq!(state.stored_before(), Hour(BASE / HOUR + 2));
        assert_eq!(state.first_unstored(), None);
        let rows = stored(&one).await;
        let of = |who: &str, class: &str, device: &str| {
            [who, "=US, west", MODEL, class, "n0", device]
                .map(str::to_owned)
                .to_vec()
        };
        assert_eq!(
            rows,
            [
                (0, of("", "free", "GPU-1"), 3_600_000),
                (0, of("", "free", "GPU-2"), 1_200_001),
                (0, of("a", "busy", "GPU-2"), 1_200_000),
                (0, of("b", "busy", "GPU-2"), 1_199_999),
                (1, of("", "free", "GPU-1"), 3_600_000),
                (1, of("a", "busy", "GPU-2"), 1_800_000),
                (1, of("b", "busy", "GPU-2"), 1_800_000),
            ]
        );
        let bytes = one.bytes();
        one.end().await;
        two.end().await;
        let again = Running::of(&base, SetClock::new(BASE + 2 * HOUR + 5)).await;
        assert_eq!(again.bytes(), bytes, "two folds differ");
        again.end().await;
    }
}

#[tokio::test]
async fn other_usage_than_the_journals_is_counted_and_neither_is_changed() {
    for base in both("other usage is counted") {
        let running = Running::of(&base, SetClock::new(BASE)).await;
        meter(&running).await;
        let (from, to, mut metered) = hours(&running);
        metered.rows[0].ms -= 1;
        let wrong = UsageHours::of(from, to, &metered);
        assert_eq!(
            running.store.put_usage(&wrong).await.unwrap(),
            UsageKept::Same
        );
        let (there, seq) = (stored(&running).await, running.ledger.read().state.seq());
        assert!(!store_usage_once(&running.ledger).await);
        assert_eq!(
            running
                .ledger
                .counters()
                .usage_conflicts
                .load(Ordering::Relaxed),
            1
        );
        assert_eq!(
            (stored(&running).await, running.ledger.read().state.seq()),
            (there, seq)
        );
        // Nor may there be rows of which the journal knows nothing.
        let (from, to, mut metered) = hours(&running);
        metered.rows.pop();
        let fewer = UsageHours::of(from, to, &metered);
        assert_eq!(
            running.store.put_usage(&fewer).await.unwrap(),
            UsageKept::Differs
        );
        running.end().await;
    }
}

#[tokio::test]
async fn usage_is_the_same_before_and_after_it_is_stored_and_adds_up_to_the_wall() {
    for base in both("usage adds up") {
        let running = Running::of(&base, SetClock::new(BASE)).await;
        meter(&running).await;
        let rest = Rest::on(&running);
        let admin = token(Role::Admin, &[], &[]);
        let get = async |query: &str, token: &str| {
            let bearer = format!("Bearer {token}");
            let target = format!("/api/v1/usage?{query}");
            rest.told("GET", &target, &[("authorization", &bearer)])
                .await
        };
        let all = "group_by=tenant,class,device&limit=100";
        let before = get(all, &admin).await;
        assert_eq!(before.status, 200, "{before:?}");
        while store_usage_once(&running.ledger).await {}
        let after = get(all, &admin).await;
        let (before, after) = (before.json(), after.json());
        assert_eq!(
            (&before["usage"], &before["totals"]),
            (&after["usage"], &after["totals"])
        );
        let rows = after["usage"].as_array().unwrap();
        // Two whole hours, and five milliseconds of the one that is open.
        let sum = |of: &dyn Fn(&Value) -> bool| -> u64 {
            let rows = rows.iter().filter(|row| of(row));
            rows.map(|row| row["milliseconds"].as_u64().unwrap()).sum()
        };
        assert_eq!(sum(&|_| true), 2 * (7_200_000 + 5));
        assert_eq!(sum(&|row| row["open"] == json!(true)), 10);
        assert_eq!(after["totals"]["wall"], json!(14_400_010));
        let seconds: u64 = rows
            .iter()
            .map(|row| row["seconds"].as_u64().unwrap())
            .sum();
        assert_eq!(seconds, 14_400);

        let day = get("by=day&group_by=", &admin).await.json();
        let row = &day["usage"][0];
        let (day_ms, expected) = (row["milliseconds"].clone(), json!(14_400_010));
        assert_eq!(
            (day_ms, row["class"].clone(), day["rows"].clone()),
            (expected, json!(null), json!(1))
        );
        assert_eq!(
            day["totals"],
            json!({"busy": 5_999_999 + 5, "leased_idle": 0, "free": 8_400_001 + 5, "squatter": 0, "unknown": 0,
               "wall": 14_400_010})
        );

        // A tenant sees its own, and another's reads like nobody's.
        let own = token(Role::Viewer, &["a"], &[]);
        let seen = get("", &own).await.json();
        let seen_rows = seen["usage"].as_array().unwrap();
        assert!(
            seen_rows
                .iter()
                .all(|row| row["tenant"] == "a" && row["class"] == "busy")
        );
        assert_eq!(seen["totals"]["busy"], json!(3_000_000 + 3));
        assert_eq!(
            (&seen["totals"]["free"], &seen["totals"]["wall"]),
            (&json!(null), &json!(null))
        );
        assert_eq!(get("tenant=b", &own).await.json()["rows"], json!(0));
        assert_eq!(get("class=free", &own).await.json()["rows"], json!(0));
        assert_eq!(get("group_by=device", &own).await.status, 403);

        // One page after the other is all of it.
        let first = get("limit=1&offset=1", &admin).await.json();
        assert_eq!(first["usage"].as_array().unwrap().len(), 1);
        assert_eq!(first["next_offset"], json!(2));
        for bad in [
            "by=week",
            "limit=0",
            "offset=x",
            "from=yesterday",
            "group_by=user",
            "from=2030-01-01",
            "to=2020-01-01&from=2018-01-01",
        ] {
            assert_eq!(get(bad, &admin).await.status, 400, "{bad}");
        }

        let csv = get("format=csv&group_by=region,class&class=free", &admin).await;
        assert_eq!(
            csv.headers["content-type"],
            "text/csv; charset=utf-8; header=present"
        );
        let lines: Vec<&str> = csv.text.split("\r\n").collect();
        assert_eq!(
            lines[0],
            "from,to,open,tenant,region,gpu_model,class,node,device,milliseconds,seconds"
        );
        assert!(
            lines[1].ends_with(",false,,\"'=US, west\",,free,,,4800001,4800"),
            "{}",
            lines[1]
        );
        assert_eq!(
            lines.len(),
            5,
            "three hours, and no wall of one class: {lines:?}"
        );
        let bearer = format!("Bearer {admin}");
        let headers = [("authorization", bearer.as_str()), ("accept", "text/csv")];
        let csv = rest.told("GET", "/api/v1/usage", &headers).await;
        let wall = csv.text.trim_end().lines().last().unwrap();
        assert!(wall.ends_with(",true,,,,wall,,,14400010,14400"), "{wall}");
        running.end().await;
    }
}

#[tokio::test]
async fn usage_by_device_is_dropped_after_its_days_and_who_asks_for_it_is_told_so() {
    const DAY: i64 = 24 * HOUR;
    let keeping = UsageKeeping { days: 2 };
    let stop = CancellationToken::new();
    for base in both("usage by device is dropped") {
        // Midnight, and three whole days before a day that has begun.
        let first = BASE - BASE % DAY - 3 * DAY;
        let running = Running::of(&base, SetClock::new(first)).await;
        running.told([declared("n0", "US", &[], None)]).await;
        let free = |count: usize| {
            let names = (0..count).map(|at| format!("GPU-{at}"));
            names.map(|name| gpu(&name, MODEL, &[])).collect::<Vec<_>>()
        };
        // More devices than are dropped with one statement.
        running.reported("n0", facts(None, None), free(501)).await;
        running.clock.set(first + HOUR);
        running.reported("n0", facts(None, None), free(1)).await;
        running.clock.set(first + 3 * DAY + 1);
        running.told([Command::Sweep]).await;
        while store_usage_once(&running.ledger).await {}
        let rest = Rest::on(&running);
        let admin = token(Role::Admin, &[], &[]);
        let get = async |query: &str| {
            let bearer = format!("Bearer {admin}");
            let target = format!("/api/v1/usage?{query}");
            let headers = [("authorization", bearer.as_str())];
            rest.told("GET", &target, &headers).await
        };
        let date = |days: i64| {
            let at = first + days * DAY;
            let at = jiff::Timestamp::from_millisecond(at).unwrap();
            at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        let whole = format!("from={}&to={}&by=day", date(0), date(3));
        let by_device = format!("{whole}&group_by=device&limit=100000");
        let all = get(&by_device).await.json();
        assert_eq!(all["totals"]["free"], json!(3 * DAY + 500 * HOUR));

        drop_usage_once(&running.ledger, UsageKeeping { days: 3 }, &stop).await;
        assert_eq!(get(&by_device).await.json(), all, "nothing is older");
        drop_usage_once(&running.ledger, keeping, &stop).await;
        let refused = get(&by_device).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(
            refused.text.contains(&date(1)) && refused.text.contains("without node and device"),
            "{}",
            refused.text
        );
        let node = get(&format!("{whole}&node=n0&group_by=class")).await;
        assert_eq!(node.status, 400);
        let kept = format!("from={}&to={}&by=day&group_by=device", date(1), date(3));
        assert_eq!(get(&kept).await.json()["totals"]["free"], json!(2 * DAY));
        let sums = get(&format!("{whole}&group_by=region")).await.json();
        assert_eq!(sums["totals"], all["totals"], "sums stay");
        assert!(
            stored(&running)
                .await
                .iter()
                .all(|row| row.0 * HOUR + BASE >= first + DAY)
        );
        // Keeping more from now on brings nothing back.
        drop_usage_once(&running.ledger, UsageKeeping { days: 3 }, &stop).await;
        assert_eq!(get(&by_device).await.status, 400);
        running.end().await;
    }
}
