//! Tells another system of steps that agents took, and of those that wait for a person.
//!
//! Told by the server that has the node's session, in order, at most once or a little more: an answer that is lost brings the
//! same events again. What cannot be told is counted and left out; the journal has all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use gpuquota_core::State;
use gpuquota_core::command::EndStep;
use gpuquota_core::id::{NodeName, TenantName, Timestamp};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Webhook;
use crate::outbound::{Bounds, Outbound};
use crate::rest::time;

/// Events that wait, at most.
const WAITING: usize = 4096;
/// Events in one request, at most.
const TOGETHER: usize = 128;
const BOUNDS: Bounds = Bounds {
    deadline: Duration::from_secs(10),
    largest: 64 * 1024,
};
/// Between attempts; after the last one the events are left out.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Notice {
    /// A step ended, or people were warned.
    Step {
        node: String,
        /// `None`: nobody that the agent's rules know.
        tenant: Option<String>,
        device: String,
        class: &'static str,
        rung: &'static str,
        result: &'static str,
        detail: String,
        /// Version of the policy that the agent acted by.
        policy: u64,
        at: String,
    },
    /// Steps against a tenant, or against processes of nobody, wait for a person.
    StepsHeld {
        node: String,
        /// `None`: nobody that the agents' rules know.
        tenant: Option<String>,
        /// Processes that would have been ended in one minute.
        processes: u64,
        /// Devices that would have been acted upon in one minute.
        devices: u64,
        /// Devices that the tenant held.
        of: u64,
        at: String,
    },
}

impl Notice {
    pub(crate) fn step(end: &EndStep, now: Timestamp) -> Self {
        Self::Step {
            node: end.node.to_string(),
            tenant: end.step.tenant.as_ref().map(ToString::to_string),
            device: end.step.device.to_string(),
            class: end.step.class.as_str(),
            rung: end.step.rung.as_str(),
            result: end.result.as_str(),
            detail: end.detail.clone(),
            policy: end.version.0,
            at: time::format(now.before(end.age_ms)),
        }
    }

    /// Of those against whom steps wait for a person in this state.
    pub(crate) fn held(
        state: &State,
        node: &NodeName,
        tenant: Option<&TenantName>,
    ) -> Option<Self> {
        let hold = state.hold(tenant)?;
        Some(Self::StepsHeld {
            node: node.to_string(),
            tenant: tenant.map(ToString::to_string),
            processes: hold.processes,
            devices: hold.devices,
            of: hold.of,
            at: time::format(hold.since),
        })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    events: &'a [Notice],
}

/// What became of events.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) told: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// Where events are put; without a webhook they go nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices {
    to: Option<mpsc::Sender<Notice>>,
    pub(crate) figures: Arc<Figures>,
}

impl Notices {
    /// Whether somebody is told.
    pub(crate) fn wanted(&self) -> bool {
        self.to.is_some()
    }

    /// Without waiting.
    pub(crate) fn put(&self, notice: Notice) {
        if let Some(to) = &self.to
            && to.try_send(notice).is_err()
        {
            self.figures.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Posts what is put.
pub(crate) struct Teller {
    server: Outbound,
    authorization: Option<HeaderValue>,
    from: mpsc::Receiver<Notice>,
    figures: Arc<Figures>,
}

/// Both ends. Errors say what is wrong in the configuration.
pub(crate) fn webhook(config: &Webhook) -> anyhow::Result<(Notices, Teller)> {
    let server = Outbound::new(&config.url, config.ca_file.as_deref());
    let server = server.map_err(|error| anyhow::anyhow!("webhook: {error}"))?;
    let token = config.token_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        let text =
            text.with_context(|| format!("cannot read webhook.token_file {}", path.display()))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let mut bearer =
            bearer.with_context(|| format!("{} holds no token of one line", path.display()))?;
        bearer.set_sensitive(true);
        anyhow::Ok(bearer)
    });
    let (to, from) = mpsc::channel(WAITING);
    let figures = Arc::<Figures>::default();
    let notices = Notices {
        to: Some(to),
        figures: Arc::clone(&figures),
    };
    let teller = Teller {
        server,
        authorization: token.transpose()?,
        from,
        figures,
    };
    Ok((notices, teller))
}

impl Teller {
    /// Until `stop`; what waits then is left out.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut events = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                count = self.from.recv_many(&mut events, TOGETHER) => if count == 0 {
                    stop.cancelled().await;
                    return;
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                told = self.tell(&events) => {
                    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
                    let counter = if told { &self.figures.told } else { &self.figures.lost };
                    counter.fetch_add(count, Ordering::Relaxed);
                }
            }
            events.clear();
        }
    }

    async fn tell(&self, events: &[Notice]) -> bool {
        let Ok(body) = serde_json::to_vec(&Body { events }).map(Bytes::from) else {
            return false;
        };
        let mut pauses = PAUSES.into_iter();
        loop {
            let Err(error) = self.post(body.clone()).await else {
                return true;
            };
            let Some(pause) = pauses.next() else {
                tracing::error!(error, events = events.len(), "the webhook was not told");
                return false;
            };
            tracing::warn!(
                error,
                "the webhook does not answer as it should; it is told again"
            );
            tokio::time::sleep(pause).await;
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let mut request = Request::post(self.server.target())
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        if let Some(bearer) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let (status, _) = self.server.send(request, BOUNDS).await?;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("it answers {status}")),
        }
    }
}

#[cfg(test)]
mod tests;
