//! Policies, steps and outcomes over a stream that breaks.

use gpuquota_proto::agent_v1 as wire;

use super::*;
use crate::clock::boottime_ms;
use crate::policy::{Standing, Version};

fn policy(version: u64) -> wire::Policy {
    wire::Policy {
        incarnation: 1,
        version,
        valid_for_ms: 60_000,
        ..Default::default()
    }
}

fn version(row: u64) -> Version {
    Version {
        incarnation: 1,
        row,
    }
}

async fn followed(bench: &Bench, row: u64) {
    let wait = async {
        loop {
            match bench.dialogue.standing(boottime_ms()) {
                Standing::Valid(policy) if policy.version == version(row) => return,
                _ => bench.dialogue.came().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait)
        .await
        .expect("the policy comes");
}

#[tokio::test]
async fn case_49_an_outcome_is_told_until_it_is_taken_and_an_intent_only_in_its_session() {
    let bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    server.book().policy = Some(policy(5));
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    followed(&bench, 5).await;
    bench.dialogue.act_by(version(5));
    server
        .until("the policy is held", |book| book.held.len() == 1)
        .await;
    // An answer comes once, and to what was asked.
    let id = bench
        .dialogue
        .ask(version(5), vec![wire::Step::default(); 2]);
    let go = loop {
        bench.dialogue.came().await;
        if let Some(go) = bench.dialogue.take_go() {
            break go;
        }
    };
    assert_eq!((go.id, go.allowed), (id, vec![0, 1]));
    assert!(bench.dialogue.take_go().is_none() && !bench.dialogue.asked(id));
    // The server hears and does not answer; then the connection breaks.
    server.book().mute = true;
    let lost = bench.dialogue.ask(version(5), vec![wire::Step::default()]);
    bench.dialogue.tell(wire::Outcome::default(), boottime_ms());
    server
        .until("both came", |book| {
            book.intents.len() == 2 && book.outcomes.len() == 1
        })
        .await;
    assert!(bench.dialogue.asked(lost));
    {
        let mut book = server.book();
        book.mute = false;
        book.policy = Some(policy(4));
    }
    server.cut();
    server
        .until("the outcome comes again", |book| book.outcomes.len() == 2)
        .await;
    // The other server noticed the same change a row earlier; it is told that its policy is acted by.
    followed(&bench, 4).await;
    bench.dialogue.act_by(version(4));
    server
        .until("the policy is held again", |book| {
            book.held.last().is_some_and(|held| held.version == 4)
        })
        .await;
    {
        let book = server.book();
        assert_eq!((book.intents.len(), bench.dialogue.asked(lost)), (2, false));
        assert_eq!(book.outcomes[0].number, book.outcomes[1].number);
        assert_eq!(book.outcomes[0].boot_id, "boot");
    }
    let taken = async {
        while bench.dialogue.figures(boottime_ms()).waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), taken)
        .await
        .expect("it is taken");
}

#[tokio::test]
async fn a_policy_that_breaks_the_protocol_is_refused_whole_and_the_one_before_stays() {
    let bench = Bench::new();
    let dialogue = &bench.dialogue;
    dialogue.policy(policy(5), 0);
    let odd = [
        wire::Policy {
            version: 0,
            ..policy(6)
        },
        wire::Policy {
            valid_for_ms: 0,
            ..policy(6)
        },
        wire::Policy {
            verdicts: vec![wire::Verdict {
                tenant: "../b".into(),
                ..Default::default()
            }],
            ..policy(6)
        },
        wire::Policy {
            cards: vec![
                wire::CardRule {
                    tenant: "a".into(),
                    most: 1
                };
                1025
            ],
            ..policy(6)
        },
    ];
    for odd in odd {
        dialogue.policy(odd, 0);
    }
    assert_eq!(dialogue.figures(0).refused, 4);
    assert!(matches!(dialogue.standing(0), Standing::Valid(known) if known.version == version(5)));
}

#[test]
fn case_60_outcomes_beyond_the_bound_are_counted_together_and_none_is_told_twice() {
    let dialogue = Dialogue::new("boot");
    let step = |tenant: String| {
        let step = wire::Step {
            tenant,
            ..Default::default()
        };
        wire::Outcome {
            step: Some(step),
            ..Default::default()
        }
    };
    for turn in 0..1024 {
        dialogue.tell(step(format!("t{turn}")), 0);
    }
    dialogue.tell(step("t7".to_owned()), 0);
    dialogue.tell(step("new".to_owned()), 0);
    let figures = dialogue.figures(0);
    assert_eq!((figures.waiting, figures.lost), (1024, 1));
    let mut sent = Vec::new();
    while let Some(wire::agent_message::Body::Outcome(outcome)) = dialogue.take_next(3) {
        sent.push((
            outcome.number,
            outcome.step.unwrap().tenant,
            outcome.beside,
            outcome.age_ms,
        ));
    }
    assert!(sent.is_sorted() && sent.len() == 1024);
    assert_eq!((sent[6].1.as_str(), sent[6].2, sent[6].3), ("t7", 1, 3));
    assert_eq!(sent[1023].1, "new");
}

#[tokio::test]
async fn case_74_a_policy_knows_of_what_was_taken_before_it() {
    let dialogue = crate::uplink::dialogue::Dialogue::new("boot");
    let number = dialogue.tell(wire::Outcome::default(), 1);
    let of = |number| wire::OutcomeTaken {
        boot_id: "boot".into(),
        number,
    };
    dialogue.policy(policy(5), 1);
    assert!(dialogue.settled() < number, "it was made without it");
    dialogue.taken(&of(number));
    assert!(dialogue.settled() < number, "nothing was said since");
    dialogue.stands(
        wire::PolicyStands {
            incarnation: 1,
            version: 5,
            valid_for_ms: 1,
        },
        2,
    );
    assert_eq!(dialogue.settled(), number);
    let next = dialogue.tell(wire::Outcome::default(), 3);
    dialogue.taken(&of(next));
    dialogue.policy(policy(6), 4);
    assert_eq!(dialogue.settled(), next);
}

#[tokio::test]
async fn case_49_what_came_of_a_step_is_told_before_the_agent_stops() {
    let bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    server.book().policy = Some(policy(5));
    let (task, stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    followed(&bench, 5).await;
    bench.dialogue.act_by(version(5));
    server
        .until("the policy is held", |book| book.held.len() == 1)
        .await;
    for _ in 0..3 {
        bench.dialogue.tell(wire::Outcome::default(), boottime_ms());
    }
    stop.cancel();
    let _ = task.await;
    assert_eq!(server.book().outcomes.len(), 3);
}
