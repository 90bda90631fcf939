//! Reads of the five dialects over HTTP at 32 connections, with 10,000 quotas and 10,000 licence quotas of 1,000 tenants
//! in the ledger; each beside a bare axum route that returns a JSON text of the same size, in the same run. Server and
//! load share the cores, so only the ratio means something.
//!
//! `cargo bench -p gpuquota-server --bench dialects [-- --seconds 2]`

mod ledger;
mod load;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gpuquota_core::id::Timestamp;
use gpuquota_server::auth::token::TokenKey;
use gpuquota_server::auth::{Authenticator, Limiter};
use gpuquota_server::clock::{Clock as _, SystemClock};
use gpuquota_server::config::Dialects;
use gpuquota_server::rest::{Api, Kept, ServeLimits, router, serve};
use gpuquota_server::service::liveness::Liveness;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use load::{Target, admin, measure, once};

// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

const CONNECTIONS: usize = 32;

/// What is read, and the header that carries the token there.
const READS: &[(&str, &str, &str)] = &[
    (
        "000 quotas",
        "Authorization: Bearer ",
        "/api/v1/quota/user-quotas",
    ),
    (
        "000 quotas, 100 tenants",
        "Authorization: Bearer ",
        "/api/v1/quota/user-quotas?page=5&page_size=100",
    ),
    ("001 workspace", "X-Auth-Token: ", "/v2/project-500/quotas"),
    (
        "002 instance",
        "token: ",
        "/ai/openapi/v2/instance-service/resources?resourceGroup=TeslaM40&acceleratorType=gpu",
    ),
    (
        "003 licences",
        "Authorization: Bearer ",
        "/api/v1/licenses/admin/quotas/",
    ),
    (
        "003 licences by rate",
        "Authorization: Bearer ",
        "/api/v1/licenses/admin/quotas/?ordering=-usage_rate&usage_rate_gte=0.1",
    ),
    (
        "003 licences, a tenant",
        "Authorization: Bearer ",
        "/api/v1/licenses/admin/quotas/?tenant=500",
    ),
    (
        "003 statistics",
        "Authorization: Bearer ",
        "/api/v1/licenses/admin/quotas/usage_statistics/",
    ),
    (
        "004 quota sets",
        "X-Auth-Token: ",
        "/v1.0/project-500/quota-sets/tenant-500",
    ),
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let time = Duration::from_secs(seconds.map_or(Ok(2), |text| text.parse())?);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let clock = Arc::new(SystemClock::default());
    let opened = ledger::filled(&dir.path().join("ledger.db"), clock.clone()).await?;
    let tokens = TokenKey::new(&[7; 32]).ok_or("a key is 32 bytes")?;
    let token = tokens.issue(&admin(), "bench", now(&clock), 3600)?;
    let api = Api {
        ledger: opened.clone(),
        clock,
        liveness: Arc::new(Liveness::new(0)),
        tokens: Arc::new(Authenticator::own(tokens)),
        dialects: Dialects::default(),
        limiter: Arc::new(Limiter::default()),
        kept: Kept::default(),
    };
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(
        listener.into(),
        router(Arc::new(api)),
        ServeLimits::default(),
        stop.clone(),
    ));
    println!(
        "{:<26} {:>9} {:>10} {:>10} {:>6} {:>9} {:>9}",
        "", "bytes", "/s", "bare /s", "ratio", "p99", "bare p99"
    );
    for (name, header, path) in READS {
        let target = get(address, path, &format!("{header}{token}"));
        let (status, body) = once(&target).await?;
        if status != 200 {
            return Err(format!("{name}: {status}: {body}").into());
        }
        let bare = bare(body.clone()).await?;
        // Turn and turn about, so that a slow moment of the machine hits both.
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            ours.extend(measure(&target, CONNECTIONS, time / 4).await?);
            theirs.extend(measure(&bare, CONNECTIONS, time / 4).await?);
        }
        let (rate, p99) = summary(&mut ours, time);
        let (bare_rate, bare_p99) = summary(&mut theirs, time);
        println!(
            "{name:<26} {:>9} {rate:>10.0} {bare_rate:>10.0} {:>6.2} {p99:>6.2} ms {bare_p99:>6.2} ms",
            body.len(),
            rate / bare_rate,
        );
    }
    println!("memory of server and load together: {}", peak_memory()?);
    stop.cancel();
    Ok(())
}

fn now(clock: &SystemClock) -> Timestamp {
    clock.wall()
}

/// A route that does nothing but answer this text.
async fn bare(body: String) -> Result<Target, Failure> {
    let body = axum::body::Bytes::from(body);
    let answer = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(
        listener.into(),
        Router::new().fallback(answer),
        ServeLimits::default(),
        CancellationToken::new(),
    ));
    Ok(get(address, "/", "X-None: none"))
}

fn get(address: SocketAddr, path: &str, header: &str) -> Target {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n\r\n");
    let request: Arc<str> = request.into();
    Target::made(address, move || request.clone())
}

fn summary(latencies: &mut [Duration], time: Duration) -> (f64, f64) {
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied();
    let rate = latencies.len() as f64 / time.as_secs_f64();
    (rate, p99.unwrap_or_default().as_secs_f64() * 1000.0)
}

fn peak_memory() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.ok_or("no VmHWM")?.trim().to_owned())
}
