//! One GET of a key set.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use http::{Request, StatusCode};

use super::key_set::LARGEST;
use crate::outbound::{Bounds, Outbound};

/// For all of a fetch, from the name's address to the last byte.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Where and how to fetch.
pub(super) struct Fetcher(Outbound);

impl Fetcher {
    /// For an address that the configuration's check let through.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        let server = Outbound::new(url, ca).map_err(|e| format!("jwks_url or jwks_ca_file: {e}"));
        Ok(Self(server?))
    }

    /// The set's text. The error says what happened, for the log.
    pub(super) async fn fetch(&self) -> Result<Bytes, String> {
        let request = Request::get(self.0.target()).body(Bytes::new());
        let bounds = Bounds {
            deadline: DEADLINE,
            largest: LARGEST,
        };
        let answer = self.0.send(request.map_err(|e| e.to_string())?, bounds);
        match answer.await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(format!(
                "it answers {status}; it must be 200, redirects are not followed"
            )),
        }
    }
}
