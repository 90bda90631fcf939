//! One ledger under load: its servers, a node with GPUs, clients and readers; judged in the end.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpuquota_tests::journal::{exported, verified};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::server::{Place, Server};
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::wait::{SOON, until};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;

use super::load::{Client, DEVICES, LIMIT, TENANTS, Tally};
use super::recorder::Recorder;
use crate::checker::{Entry, check};

const CLIENTS: usize = 16;
/// The node says all it has at once, and nobody calls it silent for that.
pub(super) const PATIENT: (&str, &str) =
    ("silent_after_seconds = 10", "silent_after_seconds = 3600");

/// A server for such a load, with `more` of its configuration edited.
pub(super) async fn server(place: &Place, more: &[(&str, &str)]) -> Server {
    Server::at(place, &[&[PATIENT], more].concat()).await
}

/// The load of clients on servers.
pub(super) struct World {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
    /// Reads of each server's present process.
    readers: Vec<JoinHandle<()>>,
    processes: usize,
}

impl World {
    /// Gives the ledger of these servers its quotas and devices, and lets the clients begin.
    pub(super) async fn begin(servers: &[&Server], random: &mut StdRng) -> Self {
        let first = servers[0];
        for tenant in TENANTS {
            let put = first.admin().put(tenant, purchase("default", LIMIT)).await;
            put.expect_done();
        }
        let mut node = Session::of(first, "n1").await;
        let devices = (0..DEVICES).map(|n| gpu(&format!("GPU-{n}"), &[]));
        node.acked(full(1, devices.collect())).await;
        let (recorder, stop) = (Arc::<Recorder>::default(), Arc::<AtomicBool>::default());
        let clients = (0..CLIENTS).map(|number| {
            let named = servers.iter().enumerate();
            let client = Client {
                name: format!("client-{number}"),
                servers: named
                    .map(|(at, server)| (server.admin(), format!("server-{at}")))
                    .collect(),
                recorder: recorder.clone(),
                random: StdRng::seed_from_u64(random.random()),
                stop: stop.clone(),
            };
            tokio::spawn(client.run())
        });
        let clients = clients.collect();
        let mut world = Self {
            recorder,
            stop,
            clients,
            readers: Vec::new(),
            processes: 0,
        };
        for server in servers {
            world.follow(server);
        }
        world
    }

    /// Reads what this process of a server shows, as long as it lives.
    pub(super) fn follow(&mut self, server: &Server) {
        self.processes += 1;
        let (rest, process) = (server.admin(), format!("process-{}", self.processes));
        let (recorder, stop) = (self.recorder.clone(), self.stop.clone());
        self.readers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) && recorder.read(&rest, &process).await.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    /// Nobody reads from a process whose place the next one takes.
    pub(super) async fn unfollow(&mut self) {
        for reader in self.readers.drain(..) {
            reader.abort();
            let _ = reader.await;
        }
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        self.recorder.note(text);
    }

    /// Waits until clients are answered again.
    pub(super) async fn served(&self) {
        self.more("clients are answered again", Recorder::decided)
            .await;
    }

    /// Waits until clients are refused.
    pub(super) async fn refused(&self) {
        self.more("clients are refused", Recorder::refused).await;
    }

    async fn more(&self, what: &str, counted: impl Fn(&Recorder) -> u64) {
        // More than those that were on their way.
        let enough = counted(&self.recorder) + CLIENTS as u64 + 1;
        until(what, SOON, async || match counted(&self.recorder) {
            seen if seen >= enough => Ok(()),
            seen => Err(format!("{seen} of {enough}")),
        })
        .await;
    }

    /// All is calm: every client brings its last write to its end, everybody shows the same, the journal is whole, and
    /// no rule is broken.
    pub(super) async fn judged(mut self, servers: &[&Server]) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for client in self.clients.drain(..) {
            tally += client.await.unwrap();
        }
        self.unfollow().await;
        let rows = exported(&servers[0].dir);
        let last = rows.last().unwrap()["seq"].as_u64().unwrap();
        for (at, server) in servers.iter().enumerate() {
            let (rest, process) = (server.admin(), format!("last-{at}"));
            // Leases end by time meanwhile, so there may be rows by now that were not exported.
            until("the journal's end is shown", SOON, async || {
                let shown = rest.get("/api/v1/leases?limit=1").await.json()["seq"].as_u64();
                match shown >= Some(last) {
                    true => Ok(()),
                    false => Err(format!("{shown:?} of {last}")),
                }
            })
            .await;
            self.recorder.read(&rest, &process).await;
        }
        verified(&servers[0].dir);
        let rows = exported(&servers[0].dir);
        let recorder = Arc::into_inner(self.recorder).expect("nobody writes any more");
        none_broken(&recorder.with_rows(&rows));
        tally
    }
}

/// Fails with the rules that a history breaks, and leaves it where it can be looked at.
pub(super) fn none_broken(history: &[Entry]) {
    let found = check(history);
    let kept = (!found.is_empty()).then(|| keep(history));
    let first = found.iter().take(10).map(ToString::to_string);
    let first = first.collect::<Vec<_>>().join("\n  ");
    assert!(
        found.is_empty(),
        "{} rules are broken, the history is in {kept:?}:\n  {first}",
        found.len()
    );
}

// Writes a history down where it stays; where that is.
fn keep(history: &[Entry]) -> PathBuf {
    let (mut file, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
    for entry in history {
        writeln!(file, "{entry}").unwrap();
    }
    path
}
