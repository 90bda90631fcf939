//! The ledger against a naive telling of it: random histories, properties of usage, and the documents' examples.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod admission;
mod advice;
mod bounds;
mod broken;
mod changes;
mod charge;
mod coming;
mod compare;
mod declared;
mod displaced;
mod drain;
mod drain_plan;
mod earlier;
mod examples;
mod formula;
mod generations;
mod ghosts;
mod history;
mod incarnation;
mod kept_promises;
mod laying;
mod lease_history;
mod lease_rules;
mod leases;
mod meter;
mod metered;
mod moved;
mod notices;
mod overlap;
mod policies;
mod promised;
mod properties;
mod reference;
mod releases;
mod retire;
mod rules;
mod saying;
mod settled;
mod steps;
mod steps_kept;
mod switched;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::event::{Event, Replay};
use gpuquota_core::id::{NodeName, OpId, QuotaId, Seq, TenantName, Timestamp};
use gpuquota_core::usage::usage;
use gpuquota_core::{Answer, Command, Denied, Outcome, Record, State};
use proptest::prelude::*;
use proptest::test_runner::Config;

use compare::{compare, report_stays_home};
use history::{Step, history};
use kept_promises::Witness;
use lease_history::patient;
use reference::{Charged, DAY, Naive, Said};

const START: Timestamp = Timestamp(1_700_000_000_000);

/// So many cases, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn cases(usual: u32) -> Config {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let cases = wanted.and_then(|text| text.parse().ok()).unwrap_or(usual);
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

/// The ledger with everything that was journalled, as its one writer keeps it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) state: State,
    pub(crate) journal: Vec<(Seq, Timestamp, Option<OpId>, Record)>,
    policies: policies::Policies,
}

impl Ledger {
    /// One that goes on from a state.
    pub(crate) fn of(state: State) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    pub(crate) fn write(
        &mut self,
        now: Timestamp,
        op: Option<OpId>,
        answer: Answer,
        events: Vec<Event>,
    ) {
        let replay = op
            .is_some()
            .then(|| Replay::of("f".into(), &answer, &events));
        let record = Record {
            actor: "server".into(),
            request_id: None,
            from: None,
            reason: None,
            tenants: Default::default(),
            replay,
            events,
        };
        let seq = self.state.seq().next();
        let before = self.state.clone();
        self.state.apply(seq, now, op.as_ref(), &record);
        changes::kept(&before, &self.state);
        self.policies.follow(&self.state, now);
        self.journal.push((seq, now, op, record));
    }

    /// Journals what is due by time alone.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        if self.state.next_due().is_some_and(|due| due <= now) {
            let sweep = self.state.decide(&Command::Sweep, now).unwrap();
            assert!(!sweep.events.is_empty(), "something was due");
            self.write(now, None, Answer::Granted(sweep.outcome), sweep.events);
        }
    }

    /// Sweeps what is due, then decides and journals.
    pub(crate) fn ask(&mut self, command: &Command, now: Timestamp, op: Option<OpId>) -> Answer {
        self.sweep(now);
        let before = self.state.clone();
        let decided = self.state.decide(command, now);
        assert!(before == self.state, "decide changed the state");
        let (answer, events) = match decided {
            Ok(decision) => (Answer::Granted(decision.outcome), decision.events),
            Err(denied) => (Answer::Denied(denied), Vec::new()),
        };
        if op.is_some() || !events.is_empty() {
            self.write(now, op, answer.clone(), events);
        }
        answer
    }

    pub(crate) fn refold(&self) -> State {
        let text = serde_json::to_string(&self.journal).unwrap();
        let journal: Vec<(Seq, Timestamp, Option<OpId>, Record)> =
            serde_json::from_str(&text).unwrap();
        assert!(
            journal == self.journal,
            "a journal row changes on its way through its text"
        );
        let mut state = State::default();
        for (seq, at, op, record) in &journal {
            state.apply(*seq, *at, op.as_ref(), record);
        }
        state
    }
}

/// An answer in the words of the naive telling.
pub(crate) fn said(answer: &Answer) -> Said {
    match answer {
        // The row itself is compared.
        Answer::Granted(Outcome::Lease(_)) => Ok(Outcome::Done),
        Answer::Granted(outcome) => Ok(outcome.clone()),
        Answer::Denied(Denied::Lease { because }) => {
            let rule = serde_json::to_value(because.rule).unwrap();
            Err(format!("lease: {}", rule.as_str().unwrap_or_default()))
        }
        Answer::Denied(Denied::BelowUse { excess, .. }) => Err(format!("below_use by {excess}")),
        Answer::Denied(Denied::InUse { used, .. }) => Err(format!("in_use by {used}")),
        Answer::Denied(denied) => {
            let json = serde_json::to_value(denied).unwrap();
            Err(json["rule"].as_str().unwrap_or_default().to_owned())
        }
    }
}

pub(crate) fn charged(state: &State, tenant: &TenantName) -> Charged {
    let usage = usage(state, tenant);
    let violations = usage.violations.iter();
    let listed: BTreeSet<_> = violations
        .map(|v| (v.class.as_str(), v.node.clone(), v.device.clone()))
        .collect();
    assert_eq!(
        listed.len(),
        usage.violations.len(),
        "a violation is listed twice"
    );
    Charged {
        excess: usage.excess(),
        used: usage.used,
        leased: usage.leased,
        observed: usage.observed,
        violations: listed,
        over: BTreeSet::new(),
    }
}

// What is so already is granted again and adds nothing to the journal.
fn said_again(state: &State, command: &Command, answer: &Said, now: Timestamp) {
    let once = match command {
        Command::OpenSession { .. } | Command::NoteSnapshot { .. } => true,
        Command::ReleaseQuota(release) => release.must_exist,
        Command::RequestLease(_) => true,
        _ => false,
    };
    if answer.is_ok() && !once {
        let again = state.decide(command, now);
        assert!(
            again.is_ok_and(|again| again.events.is_empty()),
            "{command:?} twice"
        );
    }
}

/// The model does what the ledger did and answers what it answered.
pub(crate) fn follow(
    naive: &mut Naive,
    after: &State,
    command: &Command,
    answer: &Answer,
    now: Timestamp,
) {
    let told = match command {
        Command::RequestLease(asked) => naive.admit(asked, answer, now),
        command => naive.obey(command, now),
    };
    assert_eq!(said(answer), told, "{command:?}");
    if let Command::ReleaseQuota(release) = command {
        naive.revoked_as_in(after, &release.name.tenant, now);
    }
}

fn live(steps: &[Step]) {
    let (mut ledger, mut naive, mut now) = (Ledger::default(), Naive::default(), START);
    let settings = Command::SetSettings(patient());
    ledger.ask(&settings, START, None);
    naive.obey(&settings, START).unwrap();
    let mut answered: BTreeMap<u8, (Timestamp, Said)> = BTreeMap::new();
    let mut counted: BTreeSet<(NodeName, String, u64)> = BTreeSet::new();
    let mut given: BTreeSet<QuotaId> = BTreeSet::new();
    let mut witness = Witness::default();
    for step in steps {
        now = Timestamp(now.0 + step.wait);
        let op = step.op.map(|op| OpId::new(&format!("PUT k{op}")).unwrap());
        if let (Some(number), Some(op)) = (step.op, &op) {
            let kept = answered.get(&number).filter(|(at, _)| now.0 - at.0 < DAY);
            let known = ledger
                .state
                .operation(op, now)
                .map(|known| (known.at, said(&known.answer)));
            assert_eq!(known.as_ref(), kept, "what is kept of {op}");
            if kept.is_some() {
                continue;
            }
        }
        let command = step.command(&naive, now);
        let before = ledger.state.clone();
        ledger.sweep(now);
        if let Some((seq, .., record)) = ledger.journal.last()
            && *seq > before.seq()
        {
            witness.judge(&before, &ledger.state, &Command::Sweep, &record.events, now);
        }
        naive.row = ledger.state.seq();
        naive.pass(now);
        let before = ledger.state.clone();
        naive.row = before.seq().next();
        let answered_now = ledger.ask(&command, now, op);
        let answer = said(&answered_now);
        follow(&mut naive, &ledger.state, &command, &answered_now, now);
        if let (Command::RequestLease(asked), Answer::Denied(Denied::Lease { because })) =
            (&command, &answered_now)
        {
            advice::judge(&ledger.state, asked, because, now);
        }
        if let (Command::SetQuota(set), Answer::Denied(Denied::BelowUse { because, .. })) =
            (&command, &answered_now)
        {
            let because = because.as_deref().unwrap();
            advice::judge_limit(&ledger.state, set, because, now);
        }
        if let Answer::Granted(Outcome::Lease(lease)) = &answered_now {
            assert_eq!(
                ledger.state.lease(lease.id),
                Some(&**lease),
                "the answer is the row"
            );
        }
        if let Some(number) = step.op {
            answered.insert(number, (now, answer.clone()));
        }
        naive.row = ledger.state.seq();
        compare(&ledger.state, &naive, now);
        ledger.state.verify().unwrap();
        let last = ledger
            .journal
            .last()
            .filter(|(seq, ..)| *seq > before.seq());
        if let Some((.., record)) = last {
            witness.judge(&before, &ledger.state, &command, &record.events, now);
        }
        for event in last.iter().flat_map(|(.., record)| &record.events) {
            if let Event::NodeReported {
                node,
                spool,
                number,
                ..
            } = event
            {
                assert!(
                    counted.insert((node.clone(), spool.clone(), *number)),
                    "counted twice"
                );
                report_stays_home(&before, &ledger.state, node);
            }
        }
        if let (Command::OpenSession { node, .. }, Some((.., record))) = (&command, last) {
            let known = &ledger.state.node(node).unwrap().region;
            let told =
                |e: &Event| matches!(e, Event::SessionOpened { region, .. } if region == known);
            assert!(record.events.first().is_some_and(told), "{record:?}");
        }
        said_again(&ledger.state, &command, &answer, now);
        if let (Command::SetQuota(set), Ok(Outcome::Quota(id))) = (&command, &answer) {
            let tenant = &set.name.tenant;
            let fresh = before.quota(*id).is_none();
            assert!(
                !fresh || given.insert(*id),
                "quota id {id:?} given out again"
            );
            let less = usage(&ledger.state, tenant).excess() <= usage(&before, tenant).excess();
            assert!(!fresh || less, "a new quota made an excess");
        }
        let text = serde_json::to_string(&ledger.state).unwrap();
        let read: State = serde_json::from_str(&text).unwrap();
        assert!(read == ledger.state, "a snapshot differs from its state");
    }
    let again = ledger.refold();
    assert!(again == ledger.state, "a second fold differs");
    assert_eq!(
        serde_json::to_vec(&again).unwrap(),
        serde_json::to_vec(&ledger.state).unwrap()
    );
    let operations = serde_json::to_value(&again).unwrap()["operations"]
        .as_object()
        .map(|o| o.len());
    let kept = answered
        .values()
        .filter(|(at, _)| again.at().0 - at.0 < DAY);
    assert_eq!(operations, Some(kept.count()), "operations that are kept");
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn the_ledger_answers_as_its_naive_telling(steps in history(50)) {
        live(&steps);
    }
}
