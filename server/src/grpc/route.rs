//! The services on one listener, each with its own largest message.

use std::convert::Infallible;
use std::task::{Context, Poll};

use gpuquota_proto::agent_v1::agent_server::AgentServer;
use gpuquota_proto::agent_v1::joining_server::{self, JoiningServer};
use gpuquota_proto::agent_v1::leasing_server::{self, LeasingServer};
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};

use super::joining::JoinService;
use super::leasing::LeaseService;
use super::stream::AgentService;

/// What is served to agents.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) agents: AgentServer<AgentService>,
    pub(super) joining: JoiningServer<JoinService>,
    pub(super) leasing: LeasingServer<LeaseService>,
}

impl Service<Request<Body>> for Route {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    // They are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/');
        let service = path.and_then(|path| path.split_once('/'));
        match service {
            Some((joining_server::SERVICE_NAME, _)) => self.joining.call(request),
            Some((leasing_server::SERVICE_NAME, _)) => self.leasing.call(request),
            _ => self.agents.call(request),
        }
    }
}
