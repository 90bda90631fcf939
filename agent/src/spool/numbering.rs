//! Which number the next report gets, and of which scope.

use std::sync::Arc;

use gpuquota_proto::agent_v1::{Mark, Report};
use prost::Message as _;

use crate::report::Contents;

use super::record::Header;

/// The scope that is open. Its first report must be a full one, and so must the first one of each run.
#[derive(Debug)]
pub(super) struct Numbering {
    scope: Arc<Header>,
    last: u64,
    needs_full: bool,
}

impl Numbering {
    /// A new scope of this node and boot.
    pub(super) fn new(node: &str, boot_id: &str) -> Self {
        Self {
            scope: Arc::new(Header {
                spool_id: uuid::Uuid::new_v4().to_string(),
                boot_id: boot_id.to_owned(),
                first_number: 1,
                node: node.to_owned(),
            }),
            last: 0,
            needs_full: true,
        }
    }

    /// A new scope of the same node and boot.
    pub(super) fn anew(&self) -> Self {
        Self::new(&self.scope.node, &self.scope.boot_id)
    }

    /// An earlier run of this boot is gone on with.
    pub(super) fn resume(scope: Arc<Header>, last: u64) -> Self {
        Self {
            scope,
            last,
            needs_full: true,
        }
    }

    /// For a segment that begins with the next report.
    pub(super) fn header(&self) -> Header {
        Header {
            first_number: self.last + 1,
            ..Header::clone(&self.scope)
        }
    }

    /// The next number was given to a report.
    pub(super) fn given(&mut self) {
        self.last += 1;
        self.needs_full = false;
    }

    /// The next report as it is stored.
    pub(super) fn encode(&self, contents: &Contents, read_after: Option<Mark>) -> Vec<u8> {
        let report = Report {
            node: self.scope.node.clone(),
            boot_id: self.scope.boot_id.clone(),
            spool_id: self.scope.spool_id.clone(),
            number: self.last + 1,
            age_ms: None,
            full: contents.full,
            devices: contents.devices.clone(),
            gone: contents.gone.clone(),
            facts: contents.facts.clone(),
            read_after,
        };
        report.encode_to_vec()
    }

    pub(super) fn scope(&self) -> &Arc<Header> {
        &self.scope
    }

    /// 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn needs_full(&self) -> bool {
        self.needs_full
    }
}
