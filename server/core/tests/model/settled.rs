//! What is known of a node from before its session, and what an old report may still do.

use gpuquota_core::command::NodeReport;
use gpuquota_core::event::SilenceReason;
use gpuquota_core::explanation::Rule;
use gpuquota_core::id::{SessionId, Timestamp};
use gpuquota_core::{Command, Outcome};

use crate::leases::{ask_for, at, four, free, number_for};
use crate::properties::{NOW, full_report, held_gpu};
use crate::world::{node, region};
use crate::{Ledger, said};

fn session(ledger: &mut Ledger, now: Timestamp) -> SessionId {
    let open = Command::OpenSession {
        node: node("n0"),
        default_region: region("bj"),
        boot_id: "b".into(),
        agent_version: "1".into(),
    };
    match said(&ledger.ask(&open, now, None)) {
        Ok(Outcome::Session(session)) => session,
        other => unreachable!("{other:?}"),
    }
}

fn refused(ledger: &mut Ledger, now: Timestamp) -> Option<Rule> {
    let mut ledger = Ledger::of(ledger.state.clone());
    let denied = ledger.lease(&ask_for("a", 1), now).err()?;
    Some(denied.because[0].rule)
}

#[test]
fn devices_of_a_node_that_has_not_spoken_in_its_session_are_not_given_away() {
    let mut ledger = four();
    assert_eq!(refused(&mut ledger, at(1)), None);
    let newer = session(&mut ledger, at(2));
    assert_eq!(refused(&mut ledger, at(2)), Some(Rule::NodeUnsettled));
    // A number is bounded by limits alone, as on a node that is not heard.
    ledger.lease(&number_for("a", 1), at(2)).unwrap();
    // What its spool kept from before the session says how it was then.
    let spooled = NodeReport {
        session: newer,
        read_after: None,
        ..full_report("n0", 2, free(0, 4))
    };
    ledger.ask(&Command::Report(spooled.clone()), at(3), None);
    assert_eq!(refused(&mut ledger, at(3)), Some(Rule::NodeUnsettled));
    let fresh = NodeReport {
        number: 3,
        read_after: Some(NOW),
        ..spooled
    };
    ledger.ask(&Command::Report(fresh), at(4), None);
    assert_eq!(refused(&mut ledger, at(4)), None);
    // Nothing changed while it was away: its word is enough.
    session(&mut ledger, at(5));
    ledger.settle("n0", at(6));
    assert_eq!(refused(&mut ledger, at(6)), None);
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn a_node_that_is_heard_again_says_first_who_is_on_it() {
    let mut ledger = four();
    let (name, one) = (node("n0"), SessionId(1));
    let silent = Command::MarkSilent {
        node: name.clone(),
        session: one,
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, at(1), None);
    ledger.say("n0", 2, free(0, 4), at(2));
    let heard = Command::MarkHeard {
        node: name,
        session: one,
    };
    ledger.ask(&heard, at(3), None);
    assert_eq!(refused(&mut ledger, at(3)), Some(Rule::NodeUnsettled));
    ledger.settle("n0", at(4));
    assert_eq!(refused(&mut ledger, at(4)), None);
}

#[test]
fn reports_of_spools_long_ended_do_not_count_again() {
    let mut ledger = four();
    let report = |session, spool: u64| {
        let tenants: &[&str] = if spool == 7 { &["a"] } else { &[] };
        Command::Report(NodeReport {
            session,
            spool: format!("boot-{spool}"),
            read_after: None,
            ..full_report("n0", 1, vec![held_gpu("GPU-0", tenants)])
        })
    };
    // Each boot begins a spool, and no acknowledgement ever came back.
    for boot in 0..8 {
        let session = session(&mut ledger, at(1));
        for spool in 0..=boot {
            let answer = ledger.ask(&report(session, spool), at(1), None);
            assert_eq!(said(&answer), Ok(Outcome::Reported(1)));
        }
    }
    assert_eq!(ledger.used("a"), [1]);
    let reported = ledger
        .journal
        .iter()
        .flat_map(|(.., record)| &record.events);
    let reported = reported.filter(
        |event| matches!(event, gpuquota_core::Event::NodeReported { spool, .. } if spool != "s"),
    );
    assert_eq!(reported.count(), 8, "each of them once");
}
