//! An asking from its first word to the end of its lease, with a server and a privileged half of the test's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::book::Book;
use super::lessor::NoLease;
use super::{Answer, Ask};
use crate::enforce::protocol::Order;
use crate::policy::Version;

mod site;

use site::{GROUP, Half, Site};

fn why(answer: &Answer) -> (&'static str, &str) {
    match answer {
        Answer::Go { .. } => ("go", ""),
        Answer::Denied { why } => ("denied", why),
        Answer::Refused { why } => ("refused", why),
        Answer::Busy { why } => ("busy", why),
        Answer::Away { why } => ("away", why),
    }
}

fn text_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("leases.json")).unwrap_or_default()
}

#[tokio::test]
async fn a_command_starts_with_its_devices_alone_and_its_lease_ends_with_its_last_process() {
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    let answer = site.ask("", None).await;
    let Answer::Go {
        lease,
        tenant,
        environment,
    } = &answer
    else {
        unreachable!("{answer:?}")
    };
    assert_eq!((*lease, tenant.as_str()), (7, "mine"));
    assert_eq!(environment["CUDA_VISIBLE_DEVICES"], "GPU-b");
    let orders = site.half.orders.lock().unwrap().clone();
    let Some(Order::Enclose {
        who, lease, allow, ..
    }) = orders.last()
    else {
        unreachable!("{orders:?}")
    };
    assert_eq!((who.pid, *lease), (std::process::id(), 7));
    assert_eq!(allow, &["/dev/nvidia1"]);
    let membership = crate::process::cgroup::membership(format!("0::{GROUP}\n").as_bytes());
    assert_eq!(site.leased.tenant(&membership).as_deref(), Some("mine"));
    // It runs: the next agent renews. It has ended: it is given back.
    site.populated(true);
    let renewed = |_: &Book| site.server.asked().last().is_some_and(|it| it == "renew 7");
    let next = site.reopened();
    site.kept_in(&next, "a renewal", renewed).await;
    site.populated(false);
    site.kept_in(&next, "the end", Book::is_empty).await;
    let asked: BTreeSet<_> = site.server.asked().into_iter().skip(1).collect();
    assert_eq!(
        asked,
        ["release 7", "renew 7"].map(ToOwned::to_owned).into()
    );
}

#[tokio::test]
async fn who_may_ask_for_whom_is_never_said_by_the_caller_alone() {
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine"), (8, 3, "theirs")]);
    let answer = site.ask("theirs", None).await;
    let (is, text) = why(&answer);
    assert_eq!(is, "refused");
    assert!(
        text.contains("tenant mine's") && text.contains("--token-file"),
        "{text}"
    );
    assert!(site.server.asked().is_empty() && site.desk.book.is_empty());
    // With a token the server says; the token is kept nowhere.
    let refused = NoLease::Refused("the token takes no leases for theirs".to_owned());
    let site = Site::new(Half::default(), &[refused], &[]);
    assert_eq!(why(&site.ask("theirs", Some("secret")).await).0, "refused");
    assert_eq!(
        site.server.asked(),
        ["take name-of-this-asking for theirs by token"]
    );
    assert!(site.desk.book.is_empty());
    let site = Site::new(Half::default(), &[], &[(7, 3, "theirs")]);
    assert_eq!(why(&site.ask("theirs", Some("secret")).await).0, "go");
    let kept = text_of(site.dir.path());
    assert!(
        kept.contains("theirs") && !kept.contains("secret"),
        "{kept}"
    );
    // No rule knows the caller.
    let mut site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    site.desk.attribution = toml::from_str("").unwrap();
    let answer = site.ask("mine", None).await;
    assert_eq!(why(&answer).0, "refused");
    assert!(
        why(&answer).1.contains("belongs to no tenant"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn nothing_starts_before_a_policy_knows_the_lease_and_what_was_leased_is_given_back() {
    // Unknown, another epoch, another tenant's.
    for grants in [&[][..], &[(7, 2, "mine")], &[(7, 3, "theirs")]] {
        let site = Site::new(Half::default(), &[], grants);
        let answer = site.ask("mine", None).await;
        assert_eq!(why(&answer).0, "away", "{answer:?}");
        let orders = site.half.orders.lock().unwrap().clone();
        assert_eq!(orders, [Order::Can]);
        site.kept_until("it is given back", Book::is_empty).await;
        assert_eq!(site.server.asked().last().unwrap(), "release 7");
    }
    // It is known and not acted by yet; meanwhile nobody gives the lease back, for somebody waits for it.
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    let act_by = |row| {
        site.desk.dialogue.act_by(Version {
            incarnation: 0,
            row,
        });
    };
    act_by(4);
    let acted = std::cell::Cell::new(false);
    let later = async {
        while site.server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        let looked = tokio::time::timeout(
            Duration::from_millis(60),
            site.kept_until("never", |_| false),
        );
        assert!(looked.await.is_err());
        acted.set(true);
        act_by(5);
    };
    let asking = async {
        let answer = site.ask("mine", None).await;
        assert!(acted.get(), "it started too early");
        answer
    };
    let (answer, ()) = tokio::join!(asking, later);
    assert_eq!(why(&answer).0, "go");
    assert_eq!(site.server.asked().len(), 1, "{:?}", site.server.asked());
}

#[tokio::test]
async fn what_cannot_be_kept_to_its_gpus_leases_nothing_or_gives_it_back() {
    let unable = Half {
        unable: true,
        ..Half::default()
    };
    let site = Site::new(unable, &[], &[(7, 3, "mine")]);
    let answer = site.ask("mine", None).await;
    assert_eq!(why(&answer).0, "away");
    assert!(why(&answer).1.contains("no bus"), "{answer:?}");
    assert!(site.server.asked().is_empty());
    let refuses = Half {
        refuses: true,
        ..Half::default()
    };
    let site = Site::new(refuses, &[], &[(7, 3, "mine")]);
    assert_eq!(why(&site.ask("mine", None).await).0, "refused");
    site.kept_until("it is given back", Book::is_empty).await;
    let full = NoLease::Denied("8 of 8 are used".to_owned());
    let site = Site::new(Half::default(), &[full], &[]);
    assert_eq!(
        why(&site.ask("mine", None).await),
        ("denied", "8 of 8 are used")
    );
    assert!(site.desk.book.is_empty());
    assert_eq!(site.desk.figures.answered(), [0, 1, 0, 0]);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_by_its_name_and_given_back() {
    let lost = NoLease::Away("cut".to_owned());
    let site = Site::new(Half::default(), &[lost], &[(7, 3, "mine")]);
    assert_eq!(why(&site.ask("mine", None).await).0, "away");
    assert_eq!(site.desk.book.len(), 1);
    site.kept_until("it is settled", Book::is_empty).await;
    let name = "take name-of-this-asking for mine";
    let again = format!("{name} if it was");
    assert_eq!(site.server.asked(), [name, &again, "release 7"]);
}

/// Whoever asks with a token that does not count, and lets the answer be lost, has nothing leased by that.
#[tokio::test]
async fn what_a_token_may_have_taken_is_asked_for_and_never_taken_anew() {
    let lost = NoLease::Away("too many wrong tokens".to_owned());
    let barred = NoLease::Barred("not now".to_owned());
    let none = NoLease::Denied("nothing was leased for this asking".to_owned());
    let site = Site::new(Half::default(), &[lost, none], &[]);
    assert_eq!(why(&site.ask("theirs", Some("x")).await).0, "away");
    site.kept_until("it is settled", Book::is_empty).await;
    let name = "take name-of-this-asking for theirs";
    let asked = [format!("{name} by token"), format!("{name} if it was")];
    assert_eq!(site.server.asked(), asked);
    // A node that is let in by nobody for a moment loses nothing that runs.
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    site.populated(true);
    assert!(matches!(site.ask("", None).await, Answer::Go { .. }));
    *site.server.script.lock().unwrap() = vec![barred];
    let next = site.reopened();
    let asked = |_: &Book| site.server.asked().last().is_some_and(|it| it == "renew 7");
    site.kept_in(&next, "a renewal that is refused", asked)
        .await;
    assert_eq!(next.entries()[0].1.lease, Some(7));
}

#[tokio::test]
async fn a_unit_that_is_started_anew_does_not_live_under_the_lease_of_before() {
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    site.populated(true);
    assert!(matches!(site.ask("", None).await, Answer::Go { .. }));
    let folder = site.dir.path().join(site::GROUP.trim_start_matches('/'));
    fs::rename(&folder, site.dir.path().join("gone")).unwrap();
    site.populated(true);
    site.kept_until("the old lease is given back", Book::is_empty)
        .await;
    assert_eq!(site.server.asked().last().unwrap(), "release 7");
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_asked_for() {
    let site = Site::new(Half::default(), &[], &[(7, 3, "mine")]);
    let long = Ask {
        tenant: None,
        gpus: 1,
        model: Some("m".repeat(60_000)),
        cpu_cores: None,
        memory_bytes: None,
        token: Some("x".to_owned()),
    };
    let answer = site.asks(long).await;
    assert_eq!(why(&answer).0, "refused");
    assert!(site.server.asked().is_empty() && text_of(site.dir.path()).is_empty());
}
