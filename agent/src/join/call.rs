//! The calls of joining, over a connection that trusts one key, and of renewing, over one as the node that this is.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_proto::agent_v1::joining_client::JoiningClient;
use gpuquota_proto::agent_v1::{JoinAnswer, JoinRequest, RenewRequest};
use gpuquota_proto::pinned::{Pin, join_config};
use tonic::{Response, Status};

use super::JoinError;
use crate::uplink::dial::{Credentials, Server, channel_of, connect, shake};

/// The server must answer within this; it writes to its journal before.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Sends token and request to the server whose authority has this key, and to no other.
pub(super) async fn join(
    server: &Server,
    pin: Pin,
    token: &str,
    csr_der: Vec<u8>,
) -> Result<JoinAnswer, JoinError> {
    let connection = |error: &dyn std::fmt::Display| JoinError::Connection(error.to_string());
    let config = join_config(pin).map_err(|error| connection(&error))?;
    let stream = shake(server, Arc::new(config)).await;
    let stream = stream.map_err(|error| connection(&error))?;
    let channel = channel_of(server, stream).await;
    let channel = channel.map_err(|error| connection(&error))?;
    let request = JoinRequest {
        token: token.to_owned(),
        csr_der,
    };
    answered(JoiningClient::new(channel).join(request)).await
}

/// Asks for a certificate for the key of this request, as the node that the present certificate names.
pub(super) async fn renew(
    server: &Server,
    credentials: &Credentials,
    csr_der: Vec<u8>,
) -> Result<JoinAnswer, JoinError> {
    let channel = connect(server, credentials).await;
    let channel = channel.map_err(|error| JoinError::Unreached(error.to_string()))?;
    answered(JoiningClient::new(channel).renew(RenewRequest { csr_der })).await
}

async fn answered(
    call: impl Future<Output = Result<Response<JoinAnswer>, Status>>,
) -> Result<JoinAnswer, JoinError> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, call).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(JoinError::Refused(status.message().to_owned())),
    }
}
