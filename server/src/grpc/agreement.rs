//! Whether a node and the ledger agree on who holds what, by the heartbeats' digests.

use gpuquota_core::State;
use gpuquota_core::id::{NodeName, Seq};
use gpuquota_proto::agent_v1::Heartbeat;
use gpuquota_proto::digest::{DigestRow, HolderDigest};

/// Heartbeats in a row after which a report that did not come is asked for.
const ASTRAY: u8 = 3;

/// What one heartbeat says of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The node is as the ledger has it.
    Agrees,
    /// It speaks of another state; reports may be under way.
    Unsettled,
    /// Something was lost; a full report is needed, and why.
    Differs(&'static str),
}

/// What one session's heartbeats said so far.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// The ledger's digest after the report (spool, number). Besides its own reports only what an operator takes away
    /// changes a node's rows, and that moves the mark of all nodes.
    known: Option<(Said, Seq, Vec<u8>)>,
    /// A report that heartbeats speak of and the journal does not have, and how often in a row.
    astray: Option<(Said, u8)>,
}

/// Spool and number of a report.
type Said = (String, u64);

impl Agreement {
    /// A report arrived, so others may be under way.
    pub(super) fn report_came(&mut self) {
        self.astray = None;
    }

    /// Whether the node and the ledger agree.
    pub(super) fn check(
        &mut self,
        state: &State,
        node: &NodeName,
        heartbeat: &Heartbeat,
    ) -> Verdict {
        let said = (heartbeat.spool_id.clone(), heartbeat.last_number);
        let mark = state.node(node).and_then(|known| known.spool.as_ref());
        if mark.is_none_or(|mark| mark.spool != said.0 || mark.number != said.1) {
            return self.went_astray(said);
        }
        self.astray = None;
        let digest = match self.known.take() {
            Some((of, since, digest)) if of == said && since == state.changes().of_nodes() => {
                digest
            }
            _ => holder_digest(state, node),
        };
        let agree = digest == heartbeat.holder_digest;
        self.known = Some((said, state.changes().of_nodes(), digest));
        if agree {
            Verdict::Agrees
        } else {
            Verdict::Differs("the holder digests differ")
        }
    }

    // Reports may be under way, so one heartbeat that speaks of another state says nothing. When the same is said again
    // and again and no report comes, the journal went back, as after a restore.
    fn went_astray(&mut self, said: Said) -> Verdict {
        let times = match &self.astray {
            Some((before, times)) if *before == said => times + 1,
            _ => 1,
        };
        if times < ASTRAY {
            self.astray = Some((said, times));
            return Verdict::Unsettled;
        }
        self.astray = None;
        Verdict::Differs("the journal does not have the node's last report")
    }
}

fn holder_digest(state: &State, node: &NodeName) -> Vec<u8> {
    let keys = state.node(node).map(|known| &known.devices);
    let mut rows: Vec<(String, _)> = keys
        .into_iter()
        .flatten()
        .filter_map(|key| Some((key.digest_text(), state.device(key)?)))
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut digest = HolderDigest::default();
    for (key, device) in &rows {
        let report = &device.report;
        digest.push(DigestRow {
            key,
            kind: report.key.kind().as_str(),
            gpu_model: report.gpu_model.as_str(),
            health: report.health.as_str(),
            partitioned: report.partitioned,
            unattributed: report.unattributed,
            tenants: &report.tenants,
            licence: report.licence.map(|licence| licence.as_str()),
        });
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_that_stays_away_is_asked_for() {
        let (state, node) = (State::default(), NodeName::new("n").unwrap());
        let mut agreement = Agreement::default();
        let check = |agreement: &mut Agreement, number| {
            let heartbeat = Heartbeat {
                spool_id: "s".into(),
                last_number: number,
                ..Default::default()
            };
            agreement.check(&state, &node, &heartbeat) != Verdict::Unsettled
        };
        assert_eq!(
            [1, 1, 2, 2, 2, 2].map(|n| check(&mut agreement, n)),
            [false, false, false, false, true, false]
        );
        assert!(!check(&mut agreement, 2));
        agreement.report_came();
        assert_eq!(
            [2, 2, 2].map(|n| check(&mut agreement, n)),
            [false, false, true]
        );
    }
}
