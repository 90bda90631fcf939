//! What changed after a caller read it is not written over.

use gpuquota_core::command::RequestLease;
use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_core::lease::{Lease, LeasePlacement};
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::examples::{GPU, bought, put};
use crate::world::{model, region, tenant};
use crate::{Ledger, START};

impl Ledger {
    // The lease as it is afterwards, which must be the row.
    fn change(&mut self, command: &Command, ms: i64) -> Result<Lease, Denied> {
        match self.ask(command, Timestamp(START.0 + ms), None) {
            Answer::Granted(Outcome::Lease(lease)) => {
                assert_eq!(self.state.lease(lease.id), Some(&*lease));
                assert_eq!(lease.changed, self.state.seq());
                Ok(*lease)
            }
            Answer::Denied(denied) => Err(denied),
            Answer::Granted(other) => unreachable!("{other:?}"),
        }
    }
}

#[test]
fn case_41_a_lease_that_changed_since_it_was_read_is_not_written_over() {
    let mut ledger = Ledger::default();
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    let (who, place, gpus) = (tenant("a"), region("bj"), model(GPU));
    let request = RequestLease::of(who, place, gpus, 1, LeasePlacement::CountOnly);
    let lease = ledger.change(&Command::RequestLease(request), 0).unwrap();
    let renew = |ttl, expected: Seq| Command::RenewLease {
        lease: lease.id,
        ttl_ms: Some(ttl),
        expected: Some(expected),
    };
    let release = |expected: Seq| Command::ReleaseLease {
        lease: lease.id,
        forced: false,
        expected: Some(expected),
    };
    let renewed = ledger.change(&renew(200, lease.changed), 1).unwrap();
    assert!(renewed.changed > lease.changed);
    let changed = Denied::Changed {
        what: "lease".into(),
    };
    for late in [renew(300, lease.changed), release(lease.changed)] {
        assert_eq!(ledger.change(&late, 1), Err(changed.clone()));
    }
    assert_eq!(ledger.state.lease(lease.id), Some(&renewed));
    let ended = ledger.change(&release(renewed.changed), 2).unwrap();
    assert_eq!(ended.state(), "ended");
}
