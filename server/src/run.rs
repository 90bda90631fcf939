//! `serve`: opens the ledger, starts every part, and ends them in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, Limiter};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::grpc::{
    self, AgentListener, AgentService, JoinService, LeaseService, SessionSettings, Sessions,
    Signing, Trusting,
};
use crate::metrics::{self, Metrics};
use crate::open::Opened;
use crate::rest::{self, Api, HttpListener, Kept, ServeLimits};
use crate::rotation::{self, Places, Which};
use crate::service::liveness::Liveness;
use crate::service::{self, Ledger, Replicas};
use crate::tls::Certificates;
use crate::webhook::{self, Notices};

/// File in the server directory that holds the address of the running server's REST listener.
pub const REST_ADDRESS: &str = "rest.address";
const MINUTE: Duration = Duration::from_secs(60);

/// Serves until `stop` is cancelled or the storage fails.
///
/// # Errors
/// When something cannot be opened at start, or the storage failed.
pub async fn serve(dir: &Path, config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    config.check_listeners().map_err(anyhow::Error::msg)?;
    config.check_authority().map_err(anyhow::Error::msg)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let tokens = Arc::new(Authenticator::open(&config.tokens, &clock)?);
    let metrics_token = match &config.metrics.token_file {
        Some(path) => Some(read_token(path)?),
        None => None,
    };
    let https = |listener, files: Option<_>| {
        let certificates = files.map(|files| Certificates::https(listener, files));
        anyhow::Ok(certificates.transpose()?.map(Arc::new))
    };
    let rest_certificates = https("rest", config.rest.https())?;
    let metrics_certificates = https("metrics", config.metrics.https())?;
    let (notices, teller) = match config.webhook.as_ref().map(webhook::webhook).transpose()? {
        Some((notices, teller)) => (notices, Some(teller)),
        None => (Notices::default(), None),
    };
    let Opened {
        lock: _lock,
        store,
        ledger,
        mut batcher,
        stop: ledger_stop,
    } = Opened::open(dir, &config, clock.clone()).await?;
    rotation::mend(dir, &config)?;
    let places = Places::of(dir, &config);
    let others = [Which::Old, Which::New].map(|which| places.server(which));
    let certificates = Certificates::mutual("agents", config.tls_files(), others.into());
    let agents_certificates = Arc::new(certificates?);
    let trusting = Trusting::new(places);
    let listen = |address| async move {
        let listener = TcpListener::bind(address).await;
        listener.with_context(|| format!("cannot listen on {address}"))
    };
    let rest_listener = listen(config.rest.listen).await?;
    let agents_listener = listen(config.agents.listen).await?;
    let metrics_listener = listen(config.metrics.listen).await?;

    let liveness = Arc::new(Liveness::new(clock.boot_ms()));
    let sessions = Sessions::default();
    let limiter = Limiter::new(config.tokens.wrong_per_second, config.tokens.wrong_burst);
    let limiter = Arc::new(limiter);
    let mut parts = JoinSet::new();
    let api = Arc::new(Api {
        ledger: ledger.clone(),
        clock: clock.clone(),
        liveness: liveness.clone(),
        tokens: tokens.clone(),
        dialects: config.dialects.clone(),
        limiter: limiter.clone(),
        kept: Kept::default(),
    });
    let limits = ServeLimits {
        connections: config.rest.connections,
        ..ServeLimits::default()
    };
    let rest_address = rest_listener.local_addr()?;
    // Where the commands that work beside a running server find it, whatever the configuration says.
    std::fs::write(dir.join(REST_ADDRESS), format!("{rest_address}\n"))
        .with_context(|| format!("cannot write {REST_ADDRESS} in {}", dir.display()))?;
    let at = HttpListener {
        listener: rest_listener,
        certificates: rest_certificates.clone(),
    };
    parts.spawn(rest::serve(at, rest::router(api), limits, stop.clone()));
    let metrics = Arc::new(Metrics {
        ledger: ledger.clone(),
        clock: clock.clone(),
        liveness: liveness.clone(),
        sessions: sessions.clone(),
        trusting: trusting.clone(),
        notices: notices.clone(),
        token: metrics_token,
        certificates: [&rest_certificates, &metrics_certificates]
            .into_iter()
            .flatten()
            .chain([&agents_certificates])
            .cloned()
            .collect(),
    });
    let limits = ServeLimits {
        connections: 64,
        ..ServeLimits::default()
    };
    let metrics_address = metrics_listener.local_addr()?;
    let at = HttpListener {
        listener: metrics_listener,
        certificates: metrics_certificates,
    };
    parts.spawn(rest::serve(
        at,
        metrics::router(metrics),
        limits,
        stop.clone(),
    ));
    let agents_address = agents_listener.local_addr()?;
    let service = AgentService {
        ledger: ledger.clone(),
        clock: clock.clone(),
        liveness: liveness.clone(),
        sessions: sessions.clone(),
        trusting: trusting.clone(),
        settings: SessionSettings {
            default_region: config.default_region.clone(),
            heartbeat: config.heartbeat(),
        },
        notices: notices.clone(),
        stop: stop.clone(),
    };
    if let Some(teller) = teller {
        parts.spawn(teller.run(stop.clone()));
    }
    let joining = JoinService {
        ledger: ledger.clone(),
        clock: clock.clone(),
        limiter: limiter.clone(),
        files: config.tls_files(),
        authority_key: config.agents.ca_key.clone(),
        life_s: config.agents.certificate_life.seconds(),
        signing: Signing::default(),
        trusting: trusting.clone(),
        liveness: liveness.clone(),
    };
    let leasing = LeaseService {
        ledger: ledger.clone(),
        clock: clock.clone(),
        tokens: tokens.clone(),
        limiter: limiter.clone(),
        trusting: trusting.clone(),
        most: config.agents.leases_per_node,
        life_ms: config.agents.lease_life.milliseconds(),
    };
    let opened = ledger.shared().opened_elsewhere();
    let telling = sessions.clone();
    parts.spawn(telling.clone().tell(ledger.clone(), stop.clone()));
    parts.spawn(telling.tell_policies(ledger.clone(), stop.clone()));
    parts.spawn(trusting.run(sessions.clone(), stop.clone()));
    parts.spawn(sessions.follow(ledger.clone(), opened, stop.clone()));
    let agents = AgentListener {
        listener: agents_listener,
        certificates: agents_certificates,
        form: config.agents.node_identity.clone(),
    };
    let mut grpc = tokio::spawn(grpc::serve(
        agents,
        service,
        (joining, leasing),
        stop.clone(),
    ));
    let silent_after = config.silent_after();
    let replicas = Replicas::new(store.clone(), ledger.shared().writer(), silent_after);
    parts.spawn(service::sweep::sweep(
        ledger.clone(),
        clock.clone(),
        liveness,
        replicas,
        silent_after,
        stop.clone(),
    ));
    parts.spawn(service::store_usage(
        ledger.clone(),
        config.ledger.usage_keeping(),
        stop.clone(),
    ));
    parts.spawn(each_minute(
        limiter,
        ledger.clone(),
        clock.clone(),
        stop.clone(),
    ));
    parts.spawn(tokens.refresh(stop.clone()));

    tracing::info!(
        rest.address = %rest_address, agents.address = %agents_address, metrics.address = %metrics_address,
        "serving"
    );
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::spawn(watchdog(stop.clone()));

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = ledger.fatal().cancelled() => Err(anyhow::anyhow!("the ledger's storage failed; a restart replays what is durable")),
        ended = &mut grpc => match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.context("the agents' listener failed")),
            Err(error) => Err(error.into()),
        },
        _ = &mut batcher => Err(anyhow::anyhow!("the ledger's writer ended; see the log")),
        // None of them ends before `stop`; whoever lives on without one of them only looks alive.
        _ = parts.join_next() => match stop.is_cancelled() {
            true => Ok(()),
            false => Err(anyhow::anyhow!("a part of the server ended; see the log")),
        },
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    while parts.join_next().await.is_some() {}
    // Open streams end by themselves when the server stops; one that does not is not waited for.
    if !grpc.is_finished() {
        let _ = tokio::time::timeout(Duration::from_secs(5), grpc).await;
    }
    ledger_stop.cancel();
    if !batcher.is_finished() {
        let _ = batcher.await;
    }
    store.close().await;
    ended
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the metrics token {}", path.display()))?;
    let token = text.trim();
    if token.len() < 16 {
        bail!(
            "the metrics token in {} must have at least 16 characters",
            path.display()
        );
    }
    Ok(token.to_owned())
}

async fn each_minute(
    limiter: Arc<Limiter>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(MINUTE);
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            _ = tick.tick() => false,
        };
        limiter.forget_idle();
        if stopped {
            // The last minute's, which would be in no log.
            ledger.denials().flush();
            return;
        }
        ledger.denials().pass(clock.wall());
    }
}

// Under systemd with WatchdogSec: as long as the runtime turns, the service lives.
async fn watchdog(stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = tokio::time::interval(limit / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
        }
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(error = %error, "cannot notify systemd");
    }
}
