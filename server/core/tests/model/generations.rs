//! What changed after a caller read it is not written over.

use std::collections::BTreeSet;

use gpuquota_core::command::RequestLease;
use gpuquota_core::id::{HostResourceName, Seq, Timestamp};
use gpuquota_core::lease::{Lease, LeasePlacement};
use gpuquota_core::object::Object;
use gpuquota_core::pool::HostResource;
use gpuquota_core::{Answer, Command, Denied, Outcome, State};

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
                Ok(Lease::clone(&lease))
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

#[test]
fn a_thing_that_came_back_is_another_one() {
    let mut ledger = Ledger::default();
    let (host, object) = (
        HostResource {
            resource: HostResourceName::new("c4").unwrap(),
            groups: BTreeSet::new(),
        },
        Object::HostResource(HostResourceName::new("c4").unwrap()),
    );
    let set = Command::SetHostResource(host.clone());
    let remove = Command::RemoveHostResource(host.resource.clone());
    let over = |expected, command: &Command| Command::IfUnchanged {
        object: object.clone(),
        expected,
        command: Box::new(command.clone()),
    };
    let changed = Answer::Denied(Denied::Changed {
        what: "host resource".into(),
    });
    // Not there: a write is refused as of something else, taking it away as of nothing.
    assert_eq!(ledger.ask(&over(Seq(0), &set), START, None), changed);
    let none = ledger.ask(&over(Seq(0), &remove), START, None);
    assert!(
        matches!(none, Answer::Denied(Denied::Unknown { .. })),
        "{none:?}"
    );
    ledger.ask(&set, START, None);
    let first = ledger.state.generation(&object).unwrap();
    assert_eq!(first, ledger.state.seq());
    ledger.ask(&over(first, &remove), START, None);
    assert_eq!(ledger.state.generation(&object), None);
    ledger.ask(&set, START, None);
    assert_eq!(ledger.ask(&over(first, &remove), START, None), changed);
    // Saying what is so already changes nothing.
    let second = ledger.state.generation(&object).unwrap();
    ledger.ask(&set, START, None);
    assert_eq!(ledger.state.generation(&object), Some(second));
    assert!(ledger.refold() == ledger.state);
    let text = serde_json::to_string(&ledger.state).unwrap();
    assert!(serde_json::from_str::<State>(&text).unwrap() == ledger.state);
}
