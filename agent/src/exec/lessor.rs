//! Who gives leases: the server, over a connection of its own beside the session's.

use std::future::Future;
use std::time::Duration;

use gpuquota_proto::agent_v1::lease_answer::Is;
use gpuquota_proto::agent_v1::leasing_client::LeasingClient;
use gpuquota_proto::agent_v1::{LeaseAnswer, NamedLease, TakeLease};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::observation::DeviceKey;
use crate::report::wire::key_of;
use crate::uplink::dial::{Credentials, Server, connect};

/// Connecting and an answer take at most this long, together.
const PATIENCE: Duration = Duration::from_secs(12);

/// A lease as the server last said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub number: u64,
    /// Fencing epoch.
    pub epoch: u64,
    /// Its devices; none once it ends.
    pub devices: Vec<DeviceKey>,
    /// When it ends unless it is renewed, milliseconds from now.
    pub ends_in_ms: u64,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLease {
    /// The ledger says no. Nothing is leased.
    #[error("{0}")]
    Denied(String),
    /// What is asked for does not count. Nothing is leased.
    #[error("{0}")]
    Refused(String),
    /// The caller's token does not count, or this node is let in by nobody for now. Nothing is leased for this call.
    #[error("{0}")]
    Barred(String),
    /// Nobody answers, or not in a way that is understood: it may be leased or not.
    #[error("{0}")]
    Away(String),
}

/// Whoever gives leases; the server, or in a test somebody else.
pub trait Lessor: Send + Sync {
    /// Takes one. The same `ask` gives the same lease.
    fn take(&self, asked: TakeLease) -> impl Future<Output = Result<Lease, NoLease>> + Send;
    /// Makes one last its whole life again.
    fn renew(&self, lease: u64) -> impl Future<Output = Result<Lease, NoLease>> + Send;
    /// Gives one back.
    fn release(&self, lease: u64) -> impl Future<Output = Result<Lease, NoLease>> + Send;
}

/// The server.
#[derive(Debug)]
pub struct ByServer {
    /// Where it is.
    pub server: Server,
    /// Who this node is.
    pub credentials: Credentials,
}

impl Lessor for ByServer {
    async fn take(&self, asked: TakeLease) -> Result<Lease, NoLease> {
        self.call(|mut client| async move { client.take(asked).await })
            .await
    }

    async fn renew(&self, lease: u64) -> Result<Lease, NoLease> {
        self.call(|mut client| async move { client.renew(NamedLease { lease }).await })
            .await
    }

    async fn release(&self, lease: u64) -> Result<Lease, NoLease> {
        self.call(|mut client| async move { client.release(NamedLease { lease }).await })
            .await
    }
}

impl ByServer {
    async fn call<F>(
        &self,
        ask: impl FnOnce(LeasingClient<Channel>) -> F + Send,
    ) -> Result<Lease, NoLease>
    where
        F: Future<Output = Result<Response<LeaseAnswer>, Status>> + Send,
    {
        let answered = async {
            let channel = connect(&self.server, &self.credentials)
                .await
                .map_err(|error| NoLease::Away(error.to_string()))?;
            let answer = ask(LeasingClient::new(channel)).await;
            answer
                .map_err(of_status)
                .and_then(|it| read(it.into_inner()))
        };
        let late = || NoLease::Away("the server does not answer in time".to_owned());
        tokio::time::timeout(PATIENCE, answered)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

fn of_status(status: Status) -> NoLease {
    let text = status.message().to_owned();
    match status.code() {
        Code::InvalidArgument => NoLease::Refused(text),
        Code::PermissionDenied => NoLease::Barred(text),
        Code::Unimplemented => NoLease::Barred(
            "this server is older than `gpuquota-agent exec`: upgrade it".to_owned(),
        ),
        code => NoLease::Away(format!("{}: {text}", code.description())),
    }
}

fn read(answer: LeaseAnswer) -> Result<Lease, NoLease> {
    let odd = || NoLease::Away("the server's answer is not understood".to_owned());
    match answer.is.ok_or_else(odd)? {
        Is::Denied(why) => Err(NoLease::Denied(why)),
        Is::Leased(leased) => {
            let devices = leased.devices.iter().map(key_of);
            Ok(Lease {
                number: leased.lease,
                epoch: leased.epoch,
                devices: devices.collect::<Option<_>>().ok_or_else(odd)?,
                ends_in_ms: leased.ends_in_ms,
            })
        }
    }
}
