//! What agents are told of the authorities, followed from the files: whoever changes them changes it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gpuquota_proto::AUTHORITIES;
use gpuquota_proto::agent_v1::server_message::Body as ToAgent;
use gpuquota_proto::agent_v1::{Trust, TrustHeld};
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::sessions::Sessions;
use super::stream::Conversation;
use crate::pki::key_pin;
use crate::rotation::{Phase, Places};
use crate::tls::{Stamp, stamp};

/// The files are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// What the files say.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// For agents; `None` where this server signs nothing.
    pub told: Option<Trust>,
    /// Whose certificates count, with the end of each, seconds since 1970 (UTC).
    pub trusted: Vec<(Pin, i64)>,
    /// Who signs.
    pub signer: Option<Pin>,
    /// How far a rotation is.
    pub phase: Phase,
}

/// Follows them.
#[derive(Clone, Debug)]
pub struct Trusting {
    places: Places,
    now: watch::Sender<Arc<Authority>>,
}

impl Trusting {
    /// As the files are now.
    #[must_use]
    pub fn new(places: Places) -> Self {
        let now = Authority::read(&places);
        let (now, _) = watch::channel(Arc::new(now));
        Self { places, now }
    }

    /// What they say.
    #[must_use]
    pub fn now(&self) -> Arc<Authority> {
        self.now.borrow().clone()
    }

    pub(super) fn follow(&self) -> watch::Receiver<Arc<Authority>> {
        self.now.subscribe()
    }

    /// Whether this authority's certificates count.
    pub(super) fn counts(&self, authority: Option<Pin>) -> bool {
        let now = self.now.borrow();
        // Nothing that can be read says nothing about anybody.
        let known = authority.filter(|_| !now.trusted.is_empty());
        known.is_none_or(|pin| now.trusted.iter().any(|(trusted, _)| *trusted == pin))
    }

    /// Tells of changes, and ends the streams of those whose authority counts no more, until `stop`.
    pub async fn run(self, sessions: Sessions, stop: CancellationToken) {
        let mut seen = self.stamps();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let stamps = self.stamps();
            if stamps == seen {
                continue;
            }
            let next = Authority::read(&self.places);
            // In the middle of a change it is read again.
            if next.trusted.is_empty() {
                continue;
            }
            seen = stamps;
            let changed = self.now.send_if_modified(|now| {
                let changed = **now != next;
                *now = Arc::new(next);
                changed
            });
            if changed {
                let now = self.now();
                tracing::info!(
                    authority.phase = now.phase.word(),
                    authority.trusted = now.trusted.len(),
                    authority.signer = now.signer.map(|pin| pin.to_string()),
                    "the authorities changed; agents are told"
                );
                sessions.end_of_authorities(|authority| !self.counts(authority));
            }
        }
    }

    fn stamps(&self) -> [Stamp; 3] {
        let state: PathBuf = self.places.state();
        [&self.places.ca, &self.places.ca_key, &state].map(|path| stamp(path))
    }
}

impl Conversation {
    pub(super) async fn tell_trust(&self, told: Option<Trust>) -> Result<(), Status> {
        match told {
            Some(told) => self.send(ToAgent::Trust(told)).await,
            None => Ok(()),
        }
    }

    // What the agent says that it trusts counts for nothing but the operator's figures.
    pub(super) fn trust_held(&self, held: &TrustHeld) -> Result<(), Status> {
        let pins: Option<Vec<Pin>> = held
            .authorities
            .iter()
            .map(|it| Pin::from_bytes(it))
            .collect();
        let pins = pins.filter(|pins| (1..=AUTHORITIES).contains(&pins.len()));
        let pins = pins.ok_or_else(|| Status::invalid_argument("no digests of keys"))?;
        let known = &self.service.liveness.authorities;
        known.trusts(&self.peer.node, pins);
        Ok(())
    }
}

impl Authority {
    fn read(places: &Places) -> Self {
        let authorities = chain(&places.ca).unwrap_or_default();
        let pins = authorities.iter().filter_map(|der| {
            let end = gpuquota_proto::authorities::not_after_unix_s(der)?;
            Some((Pin::of(der).ok()?, end))
        });
        let trusted: Vec<(Pin, i64)> = pins.collect();
        let signer = key_pin(&places.ca_key);
        let signer = signer.filter(|pin| trusted.iter().any(|(trusted, _)| trusted == pin));
        let kept = places.read().ok().flatten();
        let within = kept.as_ref().map(|kept| kept.renew_within_ms);
        let fits = authorities.len() <= AUTHORITIES;
        let told = signer.filter(|_| fits).map(|signer| Trust {
            authorities: authorities.iter().map(|der| der.to_vec()).collect(),
            signer: signer.bytes().to_vec(),
            // Where no rotation says so, an agent with another signer's certificate waits for its own time.
            renew_within_ms: within.unwrap_or(0),
        });
        Self {
            told,
            trusted,
            signer,
            phase: kept.map_or(Phase::Standby, |kept| kept.phase),
        }
    }
}
