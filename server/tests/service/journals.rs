//! A server directory with a journal of some variety, and its state without what every further row changes.

use std::path::Path;

use gpuquota_core::id::{NodeName, Region, Timestamp};
use gpuquota_core::{Command, Outcome, State};
use gpuquota_server::init;
use gpuquota_server::service::{self, Origin};
use gpuquota_server::store::Store as _;
use gpuquota_server::store::sqlite::SqliteStore;
use serde_json::Value;

use crate::running::{HOUR, Running, START, SetClock, keyed, set, set_until};

/// A directory as `init` makes it.
pub(crate) async fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let hosts = ["localhost".to_owned()];
    let made = init::init(dir.path(), &hosts, Timestamp(START));
    made.await.unwrap();
    dir
}

/// Opens a session of a node; its number.
pub(crate) async fn session(running: &Running, node: &str) -> u64 {
    let command = Command::OpenSession {
        node: NodeName::new(node).unwrap(),
        default_region: Region::new("US").unwrap(),
        boot_id: "b".into(),
        agent_version: "1".into(),
    };
    let answer = running.ledger.submit(command, Origin::server()).await;
    let Outcome::Session(session) = answer.unwrap().outcome else {
        unreachable!("another answer than a session");
    };
    session.0
}

/// Twelve rows: quotas, one that ends, a session, an operation id, a revoked token.
pub(crate) async fn twelve_rows(dir: &Path) {
    let running = Running::on(dir, SetClock::new(START)).await;
    let ledger = &running.ledger;
    for turn in 0..7 {
        let command = set(&format!("t{turn}"), turn + 1);
        ledger.submit(command, Origin::server()).await.unwrap();
    }
    let end = Some(START + HOUR);
    let ends = ledger.submit(set_until("ends", 4, end), Origin::server());
    ends.await.unwrap();
    session(&running, "n0").await;
    let once = ledger.submit(set("once", 1), keyed("key ä\"", "f")).await;
    once.unwrap();
    let revoke = Command::RevokeToken {
        token: "stolen".into(),
        until: Timestamp(START + 1000 * HOUR),
    };
    ledger.submit(revoke, Origin::server()).await.unwrap();
    ledger.submit(set("t0", 9), Origin::server()).await.unwrap();
    assert_eq!(ledger.read().state.seq().0, 12);
    running.end().await;
}

/// What the whole journal of a directory folds to, without the last row's number and time.
pub(crate) async fn folded(dir: &Path) -> Value {
    let path = dir.join("ledger.db");
    let store = SqliteStore::open_read_only(&path);
    let store = store.await.unwrap();
    let whole = service::whole(&store, |_, _| {}).await;
    store.close().await;
    plain(&whole.unwrap().committed.state)
}

/// A state without the last row's number and time.
pub(crate) fn plain(state: &State) -> Value {
    let mut value = serde_json::to_value(state).unwrap();
    for name in ["seq", "at", "snapshot"] {
        value.as_object_mut().unwrap().remove(name).unwrap();
    }
    value
}
