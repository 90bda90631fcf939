//! Durable admissions per second: leases of one device, granted against one hot quota and against a thousand, by 1 to 128
//! clients, on SQLite and PostgreSQL, in process and over REST. Beside each, in the same run on the same disk, what a
//! program without a batcher reaches: a plain loop of SQLite transactions, pgbench, a bare axum echo; and three replicas
//! that all write to one PostgreSQL beside one alone. Only ratios mean something; the disk's fsync rate moves within
//! hours, and server and load share the cores.
//!
//! `cargo bench -p gpuquota-server --bench admissions [-- --seconds 3] [--only sqlite|postgres|replicas] [--clients 1,32]`
//! With `--rest` only REST is run, for a profiler.

#[path = "../../../tests/src/postgres.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the tests' own PostgreSQL"
)]
mod postgres;

mod asked;
mod ceilings;
#[path = "../dialects/load.rs"]
mod load;
mod measured;
mod rest;
mod workload;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gpuquota_server::store::Place;
use gpuquota_server::store::postgres::Address;

use asked::memory;
use measured::Measured;
use postgres::Cluster;
use workload::{Opened, Spread};

// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

struct Wanted {
    time: Duration,
    clients: Vec<usize>,
    only: Option<String>,
    rest: bool,
}

impl Wanted {
    fn read() -> Result<Self, Failure> {
        let after = |flag: &str| std::env::args().skip_while(|arg| arg != flag).nth(1);
        let seconds = after("--seconds").map_or(Ok(3), |text| text.parse())?;
        let clients = after("--clients").unwrap_or_else(|| "1,8,32,128".into());
        let clients: Result<_, _> = clients.split(',').map(str::parse).collect();
        Ok(Self {
            time: Duration::from_secs(seconds),
            clients: clients?,
            only: after("--only"),
            rest: std::env::args().any(|arg| arg == "--rest"),
        })
    }

    fn ceilings(&self) -> Duration {
        if self.rest {
            Duration::from_secs(1)
        } else {
            self.time
        }
    }

    fn runs(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wanted = Wanted::read()?;
    // On the disk of the build, not on a memory file system.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    if wanted.runs("sqlite") {
        sqlite(&wanted, dir.path()).await?;
    }
    if wanted.runs("postgres") {
        postgres(&wanted).await?;
    }
    if wanted.runs("replicas") {
        replicas(&wanted).await?;
    }
    Ok(())
}

async fn sqlite(wanted: &Wanted, dir: &Path) -> Result<(), Failure> {
    let mut file = 0;
    let mut next = || {
        file += 1;
        dir.join(format!("{file}.db"))
    };
    for spread in [Spread::Hot, Spread::Thousand] {
        println!("\nSQLite, {spread}");
        for &clients in &wanted.clients {
            let time = wanted.ceilings();
            let plain = ceilings::sqlite_loop(&next(), spread, time).await?;
            plain.line("one transaction each, plain loop", None);
            row(wanted, spread, clients, Place::File(next()), &plain).await?;
        }
    }
    Ok(())
}

async fn postgres(wanted: &Wanted) -> Result<(), Failure> {
    let cluster = Cluster::start()?;
    for spread in [Spread::Hot, Spread::Thousand] {
        println!("\nPostgreSQL, {spread}");
        for &clients in &wanted.clients {
            let bench = ceilings::pgbench(&cluster, spread, clients, wanted.ceilings())?;
            bench.line(&format!("pgbench, {clients} clients"), None);
            let place = Place::Database(Address::parse(&cluster.database())?);
            row(wanted, spread, clients, place, &bench).await?;
        }
    }
    Ok(())
}

// One server alone and three on one database, with as many clients each.
async fn replicas(wanted: &Wanted) -> Result<(), Failure> {
    let cluster = Cluster::start()?;
    for spread in [Spread::Hot, Spread::Thousand] {
        println!("\nReplicas on one PostgreSQL, {spread}");
        for &clients in &wanted.clients {
            let mut alone = None;
            for servers in [1, 3] {
                let place = Place::Database(Address::parse(&cluster.database())?);
                let mut opened = Vec::new();
                for _ in 0..servers {
                    opened.push(Opened::at(&place, spread).await?);
                }
                let ledgers: Vec<_> = opened.iter().map(|it| &it.ledger).collect();
                let measured = workload::run(&ledgers, spread, clients, wanted.time).await?;
                let what = format!("{servers} writing, {clients} clients each");
                measured.line(&what, alone.as_ref());
                alone.get_or_insert(measured);
                for opened in opened {
                    opened.close().await?;
                }
            }
        }
    }
    Ok(())
}

// In process and over REST on one ledger, each beside its ceiling.
async fn row(
    wanted: &Wanted,
    spread: Spread,
    clients: usize,
    place: Place,
    ceiling: &Measured,
) -> Result<(), Failure> {
    let opened = Opened::at(&place, spread).await?;
    if wanted.rest {
        let (ours, _) = rest::run(&opened, spread, clients, wanted.time, 0).await?;
        ours.line(&format!("REST, {clients} connections"), None);
        batches(&opened);
        return opened.close().await;
    }
    let before = memory()?;
    let inside = workload::run(&[&opened.ledger], spread, clients, wanted.time).await?;
    inside.line(&format!("in process, {clients} clients"), Some(ceiling));
    batches(&opened);
    let grown = memory()?.saturating_sub(before);
    if let Some(each) = (grown * 100_000).checked_div(inside.answers()) {
        println!("    memory: {} MiB per 100,000 leases", each >> 10);
    }
    let (ours, echo) = rest::run(&opened, spread, clients, wanted.time, 1).await?;
    echo.line(&format!("bare axum echo, {clients} connections"), None);
    ours.line(&format!("REST, {clients} connections"), Some(&echo));
    opened.close().await
}

fn batches(opened: &Opened) {
    let counters = opened.ledger.counters();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    if let Some(each) = of(&counters.rows).checked_div(of(&counters.appends)) {
        println!("    {each} rows a transaction");
    }
}
