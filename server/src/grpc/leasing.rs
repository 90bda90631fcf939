//! Leases that nodes take of their own devices, for processes that are about to start there.
//!
//! A node gets nothing but what is on it, renews and gives back nothing but what it took, and has so many at most. For whom
//! it may ask is what its rules of attribution say of the user, which the server believes of that node alone, or a token.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use gpuquota_core::command::{Command, Outcome, RequestLease};
use gpuquota_core::id::{
    DisplayName, GpuModel, LabelName, LeaseId, NodeName, OpId, TenantName, Timestamp,
};
use gpuquota_core::lease::{Lease, LeasePlacement, MOST_LEASED};
use gpuquota_core::{Denied, State};
use gpuquota_proto::agent_v1::lease_answer::Is;
use gpuquota_proto::agent_v1::leasing_server::Leasing;
use gpuquota_proto::agent_v1::{LeaseAnswer, Leased, NamedLease, TakeLease};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::peer::{Caller, Peer};
use super::policy_wire::device;
use super::reasons::lines;
use super::refusal::{admitted, left, status, trusted};
use super::trust::Trusting;
use crate::auth::{Access, Authenticator, Limiter, Principal};
use crate::clock::Clock;
use crate::service::audit::{Denial, Last};
use crate::service::{Ledger, LedgerError, Origin};

/// Which node took a lease; a label of ours ([`gpuquota_core::lease::OWN_LABELS`]).
const TAKEN_BY: &str = "gpuquota/taken-by-node";
/// For which user of it.
const TAKEN_FOR: &str = "gpuquota/taken-for-uid";

/// What leasing needs.
#[derive(Clone)]
pub struct LeaseService {
    /// The ledger.
    pub ledger: Ledger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who says whose a token is.
    pub tokens: Arc<Authenticator>,
    /// Who gave how many wrong tokens, and wrote how much.
    pub limiter: Arc<Limiter>,
    /// Whose certificates count.
    pub trusting: Trusting,
    /// Leases that one node may have taken at a time.
    pub most: u32,
    /// How long one lasts unless it is renewed, milliseconds.
    pub life_ms: u64,
}

#[tonic::async_trait]
impl Leasing for LeaseService {
    async fn take(&self, request: Request<TakeLease>) -> Result<Response<LeaseAnswer>, Status> {
        let caller = self.caller(&request)?;
        let asked = request.into_inner();
        let node = &caller.node;
        let tenant = TenantName::new(&asked.tenant).map_err(|e| invalid(&e))?;
        let by = self.principal(&asked, &tenant, &caller).await?;
        let op = op(node, &asked.ask)?;
        let origin = Origin {
            actor: by.map_or_else(|| format!("node:{node}"), |by| by.actor()),
            from: Some(caller.address.ip().to_string()),
            op: Some(op.clone()),
            fingerprint: Some(fingerprint(&asked)),
            ..Origin::server()
        };
        let now = self.now()?;
        let committed = self.ledger.read();
        let state = &committed.state;
        let request = match self.request(state, node, tenant, &asked)? {
            Ok(request) => Command::RequestLease(request),
            Err(why) => return Ok(denied(why)),
        };
        // What it would deny is not written: whoever asks in a loop fills no journal.
        if state.operation(&op, now).is_none() {
            if asked.only_if_taken {
                return Ok(denied("nothing was leased for this asking".to_owned()));
            }
            if self.taken(state, node) >= self.most as usize {
                return Ok(denied(format!(
                    "node {node} has taken as many leases as it may at a time ({}, `agents.leases_per_node` of the server)",
                    self.most
                )));
            }
            if let Err(LedgerError::Denied(why)) = self.ledger.preview(&request, now) {
                return Ok(self.turned_away(&asked, &origin, &why, now));
            }
        }
        self.submit(request, origin, now).await
    }

    async fn renew(&self, request: Request<NamedLease>) -> Result<Response<LeaseAnswer>, Status> {
        let command = |lease| Command::RenewLease {
            lease,
            ttl_ms: Some(self.life_ms),
            expected: None,
        };
        self.change(&request, command).await
    }

    async fn release(&self, request: Request<NamedLease>) -> Result<Response<LeaseAnswer>, Status> {
        let command = |lease| Command::ReleaseLease {
            lease,
            forced: false,
            expected: None,
        };
        self.change(&request, command).await
    }
}

impl LeaseService {
    fn caller<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let caller = request.extensions().get::<Caller>();
        let peer = caller.and_then(|caller| caller.peer.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        left(&peer, self.clock.wall())?;
        trusted(&peer, &self.trusting)?;
        admitted(&peer, &self.ledger.read().state)?;
        match self.limiter.write(&format!("node:{}", peer.node)) {
            true => Ok(peer),
            false => Err(Status::resource_exhausted(
                "more than 20 calls a second of one node are not taken; wait",
            )),
        }
    }

    // Of what the node took itself.
    async fn change(
        &self,
        request: &Request<NamedLease>,
        command: impl FnOnce(LeaseId) -> Command,
    ) -> Result<Response<LeaseAnswer>, Status> {
        let caller = self.caller(request)?;
        let lease = LeaseId(request.get_ref().lease);
        if taken_by(&self.ledger.read().state, lease, &caller.node).is_none() {
            return Ok(denied(format!(
                "lease {} is none that this node took",
                lease.0
            )));
        }
        self.submit(command(lease), origin(&caller), self.now()?)
            .await
    }

    fn now(&self) -> Result<Timestamp, Status> {
        let now = self.clock.now();
        now.map_err(|jump| Status::unavailable(jump.to_string()))
    }

    // Whose the token is, which must be for the tenant; none where there is no token.
    async fn principal(
        &self,
        asked: &TakeLease,
        tenant: &TenantName,
        caller: &Peer,
    ) -> Result<Option<Principal>, Status> {
        if asked.token.is_empty() {
            return Ok(None);
        }
        let verified = self.tokens.token(&asked.token, self.clock.wall()).await;
        let known = verified.ok().filter(|verified| {
            let state = &self.ledger.read().state;
            !verified.ids.iter().any(|id| state.revoked(id))
        });
        let Some(verified) = known else {
            tracing::warn!(node.name = %caller.node, "a token that does not count");
            return Err(match self.limiter.count(caller.address.ip()) {
                true => Status::permission_denied(
                    "the token is not accepted, has expired or was revoked",
                ),
                false => Status::resource_exhausted("too many wrong tokens; try again later"),
            });
        };
        let principal = verified.principal;
        if !Access::Manager.allows(&principal) || !principal.sees(tenant) {
            return Err(Status::permission_denied(format!(
                "the token takes no leases for {tenant}"
            )));
        }
        Ok(Some(principal))
    }

    // What is asked of the ledger; the inner error is for whoever asked.
    fn request(
        &self,
        state: &State,
        node: &NodeName,
        tenant: TenantName,
        asked: &TakeLease,
    ) -> Result<Result<RequestLease, String>, Status> {
        if !(1..=MOST_LEASED).contains(&asked.count) {
            return Err(Status::invalid_argument(format!(
                "count must be 1 to {MOST_LEASED}"
            )));
        }
        let Some(known) = state.node(node) else {
            return Ok(Err(format!(
                "the server has heard nothing of node {node} yet"
            )));
        };
        let gpu_model = match asked.gpu_model.as_str() {
            "" => match only_model(state, node) {
                Ok(model) => model,
                Err(why) => return Ok(Err(why)),
            },
            named => GpuModel::new(named).map_err(|e| invalid(&e))?,
        };
        let label = |name: &str, text: &str| {
            let name = LabelName::new(name).map_err(|e| Status::internal(e.to_string()))?;
            let text = DisplayName::new(text).map_err(|e| Status::internal(e.to_string()))?;
            Ok::<_, Status>((name, text))
        };
        let labels = [
            label(TAKEN_BY, node.as_str())?,
            label(TAKEN_FOR, &asked.uid.to_string())?,
        ];
        Ok(Ok(RequestLease {
            ttl_ms: Some(self.life_ms),
            nodes: BTreeSet::from([node.clone()]),
            cpu_cores: asked.cpu_cores,
            memory_bytes: asked.memory_bytes,
            labels: BTreeMap::from(labels),
            ..RequestLease::of(
                tenant,
                known.region.clone(),
                gpu_model,
                asked.count,
                LeasePlacement::Devices,
            )
        }))
    }

    // The audit knows of it as of every denial, though the journal does not.
    fn turned_away(
        &self,
        asked: &TakeLease,
        origin: &Origin,
        why: &Denied,
        now: Timestamp,
    ) -> Response<LeaseAnswer> {
        let rule = why
            .because()
            .and_then(|it| serde_json::to_value(it.rule).ok());
        let rule = rule.as_ref().and_then(|rule| rule.as_str());
        let denial = Denial {
            actor: origin.actor.clone(),
            rule: rule.unwrap_or("lease_denied").to_owned(),
            tenant: TenantName::new(&asked.tenant).ok(),
            from: origin.from.clone(),
        };
        let last = Last {
            request_id: asked.ask.clone(),
            message: why.to_string(),
            route: Some("gRPC Leasing.Take".to_owned()),
            reason: None,
        };
        self.ledger.denials().count(now, denial, last);
        denied(lines(why))
    }

    fn taken(&self, state: &State, node: &NodeName) -> usize {
        let leases = state.leases_at(node);
        leases.filter(|lease| is_taken_by(lease, node)).count()
    }

    async fn submit(
        &self,
        command: Command,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Response<LeaseAnswer>, Status> {
        match self.ledger.submit(command, origin).await {
            Ok(receipt) => match receipt.outcome {
                Outcome::Lease(lease) => Ok(answer(Is::Leased(leased(&lease, now)))),
                _ => Err(Status::internal("the ledger took no lease")),
            },
            Err(LedgerError::Denied(Denied::OperationReused)) => Err(Status::invalid_argument(
                "this asking was another one before",
            )),
            Err(LedgerError::Denied(why)) => Ok(denied(lines(&why))),
            Err(error) => Err(status(error)),
        }
    }
}

// The name of the only kind of device that can be held there.
fn only_model(state: &State, node: &NodeName) -> Result<GpuModel, String> {
    let devices = state.node(node).into_iter().flat_map(|node| &node.devices);
    let reports = devices.filter_map(|key| Some(&state.device(key)?.report));
    let models: BTreeSet<&GpuModel> = reports
        .filter(|report| !report.partitioned)
        .map(|report| &report.gpu_model)
        .collect();
    let mut all = models.iter();
    match (all.next(), all.next()) {
        (Some(only), None) => Ok((*only).clone()),
        (None, _) => Err(format!("node {node} has no GPU that could be leased")),
        (Some(_), Some(_)) => {
            let names: Vec<&str> = models.iter().map(|model| model.as_str()).collect();
            Err(format!(
                "node {node} has {}: say which with --model",
                names.join(", ")
            ))
        }
    }
}

fn is_taken_by(lease: &Lease, node: &NodeName) -> bool {
    let by = |(name, text): (&LabelName, &DisplayName)| {
        name.as_str() == TAKEN_BY && text.as_str() == node.as_str()
    };
    lease.terms.labels.iter().any(by)
}

fn taken_by<'s>(state: &'s State, lease: LeaseId, node: &NodeName) -> Option<&'s Lease> {
    state.lease(lease).filter(|lease| is_taken_by(lease, node))
}

fn leased(lease: &Lease, now: Timestamp) -> Leased {
    let ends = lease.ends_at().map(|end| end.0.saturating_sub(now.0));
    Leased {
        lease: lease.id.0,
        epoch: lease.epoch.0,
        devices: match lease.active() {
            true => lease.devices.keys().map(device).collect(),
            false => Vec::new(),
        },
        ends_in_ms: ends.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
    }
}

fn op(node: &NodeName, ask: &str) -> Result<OpId, Status> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(16..=64).contains(&ask.len()) || !ask.bytes().all(plain) {
        return Err(Status::invalid_argument(
            "ask must be 16 to 64 of a-z 0-9 -",
        ));
    }
    OpId::new(&format!("lease/{node}/{ask}")).map_err(|e| invalid(&e))
}

// The token is no part of it: it may be another one when it is asked again.
fn fingerprint(asked: &TakeLease) -> String {
    let mut digest = Sha256::new();
    for text in [&asked.tenant, &asked.gpu_model] {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    let numbers = (asked.count, asked.cpu_cores, asked.memory_bytes, asked.uid);
    digest.update(format!("{numbers:?}"));
    HEXLOWER.encode(&digest.finalize())
}

fn origin(caller: &Peer) -> Origin {
    Origin {
        actor: format!("node:{}", caller.node),
        ..Origin::server()
    }
}

fn denied(why: String) -> Response<LeaseAnswer> {
    answer(Is::Denied(why))
}

fn answer(is: Is) -> Response<LeaseAnswer> {
    Response::new(LeaseAnswer { is: Some(is) })
}

fn invalid(error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}
