//! The ledger with one quota or a thousand, and clients that lease one device after the other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::command::RequestLease;
use gpuquota_server::clock::SystemClock;
use gpuquota_server::service::{self, BatcherSettings, Ledger, Origin};
use gpuquota_server::store::{self, Place};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::asked::{lease, quota};
use crate::measured::Measured;

/// How many quotas the admissions are spread over.
#[derive(Clone, Copy)]
pub(crate) enum Spread {
    Hot,
    Thousand,
}

impl Spread {
    pub(crate) fn quotas(self) -> u32 {
        match self {
            Self::Hot => 1,
            Self::Thousand => 1000,
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hot => "one hot quota",
            Self::Thousand => "1,000 quotas",
        })
    }
}

/// A ledger that runs.
pub(crate) struct Opened {
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<SystemClock>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Opened {
    pub(crate) async fn at(place: &Place, spread: Spread) -> Result<Self, Failure> {
        let store = store::open(place).await?;
        let committed = service::fold(&*store, None).await?;
        let settings = BatcherSettings {
            queue: 4096,
            batch: 512,
            writer: "bench".into(),
        };
        let (clock, stop) = (Arc::new(SystemClock::default()), CancellationToken::new());
        let (ledger, task) = service::start(
            store,
            clock.clone(),
            None,
            committed,
            settings,
            stop.clone(),
        );
        for number in 0..spread.quotas() {
            ledger.submit(quota(number)?, Origin::server()).await?;
        }
        Ok(Self {
            ledger,
            clock,
            task,
            stop,
        })
    }

    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// So many clients in the process of each ledger; the ledgers are replicas of one.
pub(crate) async fn run(
    ledgers: &[&Ledger],
    spread: Spread,
    clients: usize,
    time: Duration,
) -> Result<Measured, Failure> {
    let mut requests = Vec::new();
    for number in 0..spread.quotas() {
        requests.push(lease(number)?);
    }
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicU32::new(0)));
    let newest = || {
        let rows = ledgers.iter().map(|ledger| ledger.read().state.seq().0);
        rows.max().unwrap_or_default()
    };
    let (rows, begin) = (newest(), Instant::now());
    let each = ledgers.iter().cycle().take(clients * ledgers.len());
    let clients: Vec<_> = each
        .map(|ledger| {
            let (ledger, requests, next) = (Ledger::clone(ledger), requests.clone(), next.clone());
            tokio::spawn(client(ledger, requests, next, begin + time))
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let time = begin.elapsed();
    assert_eq!(
        newest() - rows,
        latencies.len() as u64,
        "every answer is one durable row"
    );
    Ok(Measured::of(latencies, time))
}

async fn client(
    ledger: Ledger,
    requests: Arc<Vec<RequestLease>>,
    next: Arc<AtomicU32>,
    end: Instant,
) -> Result<Vec<Duration>, String> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let number = next.fetch_add(1, Ordering::Relaxed) as usize % requests.len();
        let request = requests.get(number).cloned().ok_or("no request")?;
        let begin = Instant::now();
        let answer = ledger.submit(Command::RequestLease(request), Origin::server());
        answer.await.map_err(|e| e.to_string())?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}
