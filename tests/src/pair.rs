//! A server with two tenants, `a` and `b`, who may hold four full GPUs each.

use crate::quota::{GPU, purchase};
use crate::server::Server;
use crate::wait::{SOON, until};

const TENANTS: [&str; 2] = ["a", "b"];

/// Starts it with these edits of its configuration.
pub async fn server(edits: &[(&str, &str)]) -> Server {
    let server = Server::with(edits).await;
    for tenant in TENANTS {
        server
            .admin()
            .put(tenant, purchase("default", 4))
            .await
            .expect_done();
    }
    server
}

/// What the two use now.
pub async fn used(server: &Server) -> [u64; 2] {
    let quotas = server.admin().quotas().await;
    TENANTS.map(|tenant| quotas.used(tenant, "flexible", GPU))
}

/// Waits until the two use so much.
pub async fn uses(server: &Server, expected: [u64; 2]) {
    until(&format!("a and b use {expected:?}"), SOON, async || {
        let seen = used(server).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
}
