//! What ends a session or stands against a report, as gRPC says it.

use std::time::Duration;

use gpuquota_core::id::{NodeName, Timestamp};
use gpuquota_core::object::Object;
use gpuquota_core::{Command, Denied, State};
use tonic::Status;

use super::peer::Peer;
use super::trust::Trusting;
use crate::service::LedgerError;

// How long the peer's certificate is still valid.
pub(super) fn left(peer: &Peer, now: Timestamp) -> Result<Duration, Status> {
    let seconds = peer.not_after_unix_s.saturating_sub(now.0.div_euclid(1000));
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(expired()),
    }
}

// Whether the authority behind its certificate still counts: a connection outlives the handshake that looked at it.
pub(super) fn trusted(peer: &Peer, trusting: &Trusting) -> Result<(), Status> {
    match trusting.counts(peer.authority) {
        true => Ok(()),
        false => Err(Status::unauthenticated(
            "the authority of the client certificate is trusted no more; join again",
        )),
    }
}

pub(super) fn expired() -> Status {
    Status::unauthenticated("the client certificate has expired; renew it")
}

// Whether the ledger lets this certificate speak for its node.
pub(super) fn admitted(peer: &Peer, state: &State) -> Result<(), Status> {
    match state.barred(&peer.node, &peer.serial) {
        None => Ok(()),
        Some(barred) => Err(Status::permission_denied(barred.to_string())),
    }
}

// A node that is retired in this very moment must not be made anew by its old certificate.
pub(super) fn unless_retired(state: &State, node: &NodeName, command: Command) -> Command {
    let object = Object::Node(node.clone());
    match state.generation(&object) {
        Some(expected) => Command::IfUnchanged {
            object,
            expected,
            command: Box::new(command),
        },
        None => command,
    }
}

pub(super) enum Refusal {
    Gap(String),
    End(Status),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Gap(reason) => Self::failed_precondition(reason),
            Refusal::End(status) => status,
        }
    }
}

pub(super) fn same_node(node: &NodeName, claimed: &str) -> Result<(), Status> {
    if claimed.is_empty() || claimed == node.as_str() {
        return Ok(());
    }
    Err(Status::permission_denied(
        "the message names another node than the certificate",
    ))
}

pub(super) fn status(error: LedgerError) -> Status {
    let text = error.to_string();
    match error {
        LedgerError::Overloaded => Status::resource_exhausted(text),
        LedgerError::Unavailable(_) | LedgerError::Unknown => Status::unavailable(text),
        LedgerError::Denied(Denied::Changed { .. }) => Status::unavailable(text),
        LedgerError::Denied(Denied::StaleSession) => Status::aborted(text),
        LedgerError::Denied(Denied::JoinRefused | Denied::Barred(_)) => {
            Status::permission_denied(text)
        }
        LedgerError::Denied(Denied::DeviceOfOtherNode { .. }) => Status::failed_precondition(text),
        LedgerError::Denied(_) => Status::invalid_argument(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn case_3_no_session_outlives_its_certificate() {
        let peer = Peer {
            node: NodeName::new("n").unwrap(),
            serial: String::new(),
            not_after_unix_s: 100,
            authority: None,
            address: ([127, 0, 0, 1], 1).into(),
        };
        let left = |ms| left(&peer, Timestamp(ms)).map_err(|status| status.code());
        assert_eq!(left(98_999), Ok(Duration::from_secs(2)));
        assert_eq!(left(99_999), Ok(Duration::from_secs(1)));
        for late in [100_000, 1_000_000, i64::MAX] {
            assert_eq!(left(late), Err(Code::Unauthenticated));
        }
    }
}
