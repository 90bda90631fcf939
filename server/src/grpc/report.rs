//! One session's reports: each goes into the ledger once, and is acknowledged when it is in the journal.

use gpuquota_core::id::{OpId, Timestamp};
use gpuquota_core::{Command, Outcome};
use gpuquota_proto::agent_v1::server_message::Body as ToAgent;
use gpuquota_proto::agent_v1::{Ack, Report, SendFull};
use tonic::Status;

use super::convert;
use super::refusal::{Refusal, same_node};
use super::stream::Conversation;

/// Spools in one session; an agent begins one for each full report that it is asked for. Beyond, it connects anew.
const SPOOLS: usize = 1024;

impl Conversation {
    pub(super) async fn report(
        &mut self,
        report: Report,
        heard_at: Timestamp,
    ) -> Result<(), Status> {
        same_node(&self.peer.node, &report.node)?;
        let read_after = self.read_after(report.read_after);
        let node = &self.peer.node;
        let report = convert::report(node, self.session, heard_at, read_after, report)?;
        let spool_id = report.spool.clone();
        self.follow_spool(&spool_id)?;
        let op = format!(
            "agent/{}/{}/{spool_id}/{}",
            self.peer.node, self.session.0, report.number
        );
        let op = OpId::new(&op).map_err(|e| Status::internal(e.to_string()))?;
        let answer = match self.submit(Command::Report(report), Some(op)).await {
            Ok(Outcome::Reported(number)) => ToAgent::Ack(Ack { spool_id, number }),
            Ok(_) => return Err(Status::internal("the ledger took no report")),
            Err(Refusal::Gap(reason)) => ToAgent::SendFull(SendFull { reason }),
            Err(Refusal::End(status)) => return Err(status),
        };
        self.send(answer).await
    }

    // An agent finishes one spool before it begins another, so (session, spool, number) never comes back.
    fn follow_spool(&mut self, spool: &str) -> Result<(), Status> {
        if self.spools.last().is_some_and(|last| last == spool) {
            return Ok(());
        }
        if self.spools.len() >= SPOOLS || self.spools.iter().any(|left| left == spool) {
            return Err(Status::invalid_argument(
                "a session goes through its spools once and in order",
            ));
        }
        self.spools.push(spool.to_owned());
        Ok(())
    }
}
