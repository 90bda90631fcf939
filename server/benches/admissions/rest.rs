//! Admissions over HTTP on kept connections, beside an axum route that reads the same text and answers one as long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use gpuquota_server::auth::token::TokenKey;
use gpuquota_server::auth::{Authenticator, Limiter};
use gpuquota_server::clock::Clock as _;
use gpuquota_server::config::Dialects;
use gpuquota_server::rest::{Api, Kept, ServeLimits, router, serve};
use gpuquota_server::service::liveness::Liveness;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::load::{Target, admin, measure, once};
use crate::measured::Measured;
use crate::workload::{Opened, Spread};

/// Slices of time in which the two are asked in turn, so that a slow moment of the machine hits both.
const TURNS: u32 = 4;

/// Ours and the echo's, which is asked `echoes` times as long.
pub(crate) async fn run(
    opened: &Opened,
    spread: Spread,
    connections: usize,
    time: Duration,
    echoes: u32,
) -> Result<(Measured, Measured), Failure> {
    let stop = CancellationToken::new();
    let tokens = TokenKey::new(&[7; 32]).ok_or("a key is 32 bytes")?;
    let token = tokens.issue(&admin(), "bench", opened.clock.wall(), 3600)?;
    let api = Api {
        ledger: opened.ledger.clone(),
        clock: opened.clock.clone(),
        liveness: Arc::new(Liveness::new(0)),
        tokens: Arc::new(Authenticator::own(tokens)),
        dialects: Dialects::default(),
        limiter: Arc::new(Limiter::default()),
        kept: Kept::default(),
    };
    let ours = listening(router(Arc::new(api)), &stop).await?;
    let ours = leases(ours, &token, u64::from(spread.quotas()));
    let (status, body) = once(&ours).await?;
    if status != 201 {
        return Err(format!("{status}: {body}").into());
    }
    let body = Bytes::from(body);
    let echo = Router::new().fallback(move |asked: Bytes| {
        let body = body.clone();
        async move {
            assert!(!asked.is_empty());
            ([(CONTENT_TYPE, "application/json")], body)
        }
    });
    let theirs = listening(echo, &stop).await?;
    let theirs = leases(theirs, &token, u64::from(spread.quotas()));
    let (mut mine, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        mine.extend(measure(&ours, connections, time / TURNS).await?);
        bare.extend(measure(&theirs, connections, echoes * time / TURNS).await?);
    }
    stop.cancel();
    Ok((Measured::of(mine, time), Measured::of(bare, time)))
}

async fn listening(router: Router, stop: &CancellationToken) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let limits = ServeLimits::default();
    tokio::spawn(serve(listener.into(), router, limits, stop.clone()));
    Ok(address)
}

// Each asks for one more lease.
fn leases(address: SocketAddr, token: &str, quotas: u64) -> Target {
    let (token, next) = (token.to_owned(), AtomicU64::new(0));
    Target::made(address, move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let body = format!(
            r#"{{"tenant":"tenant-{}","region":"US","gpu_model":"nvidia.com/gpu","count":1,"placement":"count_only"}}"#,
            number % quotas
        );
        let request = format!(
            "POST /api/v1/leases HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Idempotency-Key: job-{number}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        request.into()
    })
}
