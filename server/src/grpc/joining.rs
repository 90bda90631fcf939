//! Joining and renewing: a node's key is signed once the ledger has it in the journal, so two servers on one journal never
//! take one token from two keys.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use gpuquota_core::id::NodeName;
use gpuquota_core::join::{Certified, Digest, Proof};
use gpuquota_core::{Command, Denied};
use gpuquota_proto::agent_v1::joining_server::Joining;
use gpuquota_proto::agent_v1::{JoinAnswer, JoinRequest, RenewRequest};
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::{TlsFiles, chain};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::peer::Caller;
use super::refusal::{left, status, trusted};
use super::trust::Trusting;
use crate::auth::Limiter;
use crate::clock::Clock;
use crate::pki::{Authority, PkiError};
use crate::service::authorities::Given;
use crate::service::liveness::Liveness;
use crate::service::{Ledger, Origin};

/// Longest join token, in bytes; ours have 43.
const LONGEST_TOKEN: usize = 256;

/// What joining needs.
#[derive(Clone)]
pub struct JoinService {
    /// The ledger.
    pub ledger: Ledger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who gave how many wrong tokens.
    pub limiter: Arc<Limiter>,
    /// The authorities' certificates; the others' paths are not read.
    pub files: TlsFiles,
    /// The authority's key; where there is none, nothing is signed.
    pub authority_key: std::path::PathBuf,
    /// How long certificates last, seconds.
    pub life_s: i64,
    /// Nodes for which one is being signed.
    pub signing: Signing,
    /// Whose certificates count.
    pub trusting: Trusting,
    /// Who was given what.
    pub liveness: Arc<Liveness>,
}

/// Nodes for which a certificate is being signed.
#[derive(Clone, Debug, Default)]
pub struct Signing(Arc<Mutex<BTreeSet<NodeName>>>);

struct Turn {
    all: Signing,
    node: NodeName,
}

impl Signing {
    fn begin(&self, node: &NodeName) -> Result<Turn, Status> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.insert(node.clone()) {
            true => Ok(Turn {
                all: self.clone(),
                node: node.clone(),
            }),
            false => Err(Status::resource_exhausted(
                "a certificate is being signed for this node; try again",
            )),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.node);
    }
}

#[tonic::async_trait]
impl Joining for JoinService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinAnswer>, Status> {
        let caller = caller(&request)?;
        let JoinRequest { token, csr_der } = request.into_inner();
        // Looked up by its digest, which tells nothing of a token to whoever measures how long that takes.
        let hash = HEXLOWER.encode(&Sha256::digest(token.as_bytes()));
        let hash = Digest::new(&hash).map_err(|e| Status::internal(e.to_string()))?;
        let fits = token.len() <= LONGEST_TOKEN;
        let known = fits.then(|| {
            let committed = self.ledger.read();
            let known = committed.state.joining(&hash, self.clock.wall());
            known.map(|(node, _)| node.clone())
        });
        let Some(node) = known.flatten() else {
            return Err(self.wrong(&caller));
        };
        self.certify(node, &csr_der, Proof::Token(hash), &caller)
            .await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<JoinAnswer>, Status> {
        let caller = caller(&request)?;
        let peer = caller.peer.clone();
        let peer = peer.ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        left(&peer, self.clock.wall())?;
        trusted(&peer, &self.trusting)?;
        let csr = request.into_inner().csr_der;
        let proof = Proof::Serial(peer.serial);
        self.certify(peer.node, &csr, proof, &caller).await
    }
}

impl JoinService {
    fn wrong(&self, caller: &Caller) -> Status {
        tracing::warn!(peer.address = %caller.address, "a join token that does not count");
        match self.limiter.count(caller.address.ip()) {
            true => Status::permission_denied(Denied::JoinRefused.to_string()),
            false => Status::resource_exhausted("too many wrong join tokens; try again later"),
        }
    }

    async fn certify(
        &self,
        node: NodeName,
        csr: &[u8],
        by: Proof,
        caller: &Caller,
    ) -> Result<Response<JoinAnswer>, Status> {
        let _turn = self.signing.begin(&node)?;
        let (authority, trust) = self.authority()?;
        let signed = authority.sign_request(&node, csr, self.clock.wall(), self.life_s);
        let signed = signed.map_err(|error| match error {
            PkiError::Request | PkiError::Asked => Status::invalid_argument(error.to_string()),
            _ => Status::internal(error.to_string()),
        })?;
        let command = Command::Certify(Certified {
            node: node.clone(),
            serial: signed.serial.clone(),
            key: signed.key,
            not_after: signed.not_after,
            by,
        });
        let pins = trust
            .iter()
            .map(|der| Pin::of(&CertificateDer::from(der.as_slice())));
        let pins: Vec<Pin> = pins.filter_map(Result::ok).collect();
        let origin = Origin {
            actor: format!("node:{node}"),
            from: Some(caller.address.ip().to_string()),
            ..Origin::server()
        };
        let receipt = self.ledger.submit(command, origin).await;
        receipt.map_err(|error| match error {
            crate::service::LedgerError::Denied(Denied::JoinRefused) => self.wrong(caller),
            error => status(error),
        })?;
        if let Some(by) = pins.first().copied() {
            let given = Given {
                by,
                serial: signed.serial.clone(),
                until: signed.not_after,
            };
            self.liveness.authorities.gave(&node, given, pins);
        }
        tracing::info!(
            node.name = %node, certificate.serial = signed.serial, peer.address = %caller.address,
            "a certificate was given to a node"
        );
        Ok(Response::new(JoinAnswer {
            chain: vec![signed.certificate.to_vec()],
            trust,
        }))
    }

    // Read for each: rare, and renewed files count at once.
    fn authority(&self) -> Result<(Authority, Vec<Vec<u8>>), Status> {
        if !self.authority_key.exists() {
            return Err(Status::failed_precondition(
                "this server has no key of the authority (agents.ca_key) and signs nothing; \
                 put a certificate that your own authority made for this node where agent.toml says",
            ));
        }
        let internal = |error: &dyn std::fmt::Display| {
            tracing::error!(error = %error, "the authority cannot be used");
            Status::internal("the server's authority cannot be used; see its log")
        };
        let authority = Authority::of_files(&self.files.ca, &self.authority_key);
        let authority = authority.map_err(|error| internal(&error))?;
        let trust = chain(&self.files.ca).map_err(|error| internal(&error))?;
        let trust = trust.iter().map(|der| der.to_vec()).collect();
        Ok((authority, trust))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("a call without a connection"))
}
