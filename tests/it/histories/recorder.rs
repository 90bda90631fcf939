//! Writes down what clients ask a real server and hear, as the checker reads it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::wait::wall_ms;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::checker::{Entry, Invoke, Reply, RowEntry, Told, What};

/// Subject of the tokens that `gpuquota-server token` makes.
const SUBJECT: &str = "cli";
const LEASES: &str = "/api/v1/leases";

/// One write, the same however often it is asked.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) method: &'static str,
    /// Path as the table of routes has it.
    pub(super) pattern: &'static str,
    /// Path and query.
    pub(super) target: String,
    pub(super) body: String,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
}

impl Write {
    /// Operation id in the journal.
    fn op(&self) -> Option<String> {
        let key = self.key.as_ref()?;
        let (method, pattern) = (self.method, self.pattern);
        Some(format!("rest/{SUBJECT}/{method} {pattern}/{key}"))
    }

    // Which request a kept answer belongs to, as the journal has it.
    fn fingerprint(&self) -> Option<String> {
        self.key.as_ref()?;
        let mut digest = Sha256::new();
        for part in [self.method, &self.target, &self.body] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let digest = digest.finalize();
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The record of one run; entries in the order in which their moments were taken.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    entries: Mutex<Vec<Entry>>,
    calls: AtomicU64,
    decided: AtomicU64,
    refused: AtomicU64,
}

impl Recorder {
    pub(super) fn push(&self, what: What) {
        let mut entries = self.entries.lock().unwrap();
        entries.push(Entry { t: wall_ms(), what });
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        self.push(What::Note { text: text.into() });
    }

    pub(super) fn alarm(&self, text: impl Into<String>) {
        self.push(What::Alarm { text: text.into() });
    }

    /// How many calls were decided so far.
    pub(super) fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// How many calls a server refused so far, saying that nothing was done.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Asks a server, which need not be there; what it answers must be later than the row `seen`.
    pub(super) async fn ask(
        &self,
        (rest, server): (&Rest, &str),
        caller: &str,
        write: &Write,
        seen: u64,
    ) -> Reply {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let request = format!("{caller}.{call}");
        let seen = seen.to_string();
        let mut headers = vec![
            ("content-type", "application/json"),
            ("x-request-id", request.as_str()),
            ("gpuquota-seq", seen.as_str()),
        ];
        if let Some(key) = &write.key {
            headers.push(("idempotency-key", key));
        }
        self.push(What::Invoke(Invoke {
            call,
            caller: caller.to_owned(),
            server: server.to_owned(),
            request: Some(request.clone()),
            op: write.op(),
            fingerprint: write.fingerprint(),
            command: format!("{} {} {}", write.method, write.target, write.body),
        }));
        let answer = rest.try_send(write.method, &write.target, &headers, write.body.clone());
        let reply = match answer.await {
            Ok(answer) => self.understood(&answer),
            // Never connected, so it heard nothing.
            Err(error) if error.contains("ConnectionRefused") => Reply::Refused { reason: error },
            Err(_) => Reply::Lost,
        };
        self.push(What::Answer {
            call,
            reply: reply.clone(),
        });
        reply
    }

    fn understood(&self, answer: &Answer) -> Reply {
        let told = match answer.status {
            200 | 201 => lease(&answer.json()),
            409 | 412 => Some(Told::Denied),
            // The GPU quota dialect says 500 for it.
            429 | 500 | 503 if refuses(answer) => {
                return match answer.text.contains("may be done or not") {
                    true => Reply::Lost,
                    false => {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        Reply::Refused {
                            reason: answer.text.clone(),
                        }
                    }
                };
            }
            _ => {
                self.alarm(format!("nobody should be answered {answer:?}"));
                return Reply::Lost;
            }
        };
        self.decided.fetch_add(1, Ordering::Relaxed);
        Reply::Decided {
            answer: format!(
                "{} {} {}",
                answer.status,
                answer.header("etag"),
                answer.text
            ),
            seq: answer.header("gpuquota-seq").parse().ok(),
            told,
        }
    }

    /// Reads all leases that have not ended, if the server is there; up to which row.
    pub(super) async fn read(&self, rest: &Rest, process: &str) -> Option<u64> {
        let target = format!("{LEASES}?limit=1000");
        let answer = rest.try_send("GET", &target, &[], "").await.ok()?;
        if answer.status != 200 {
            self.alarm(format!("a read is answered {answer:?}"));
            return None;
        }
        let body = answer.json();
        let leases = body["leases"].as_array().unwrap().iter();
        let leases: BTreeMap<u64, u64> = leases.map(number).collect();
        let seq = body["seq"].as_u64().unwrap();
        self.push(What::Read {
            process: process.to_owned(),
            seq,
            head: None,
            digest: None,
            leases: body["next"].is_null().then_some(leases),
        });
        Some(seq)
    }

    /// The history with the journal's rows in it: each where it was decided, after the calls and before the answers of
    /// that millisecond.
    pub(super) fn with_rows(self, rows: &[Value]) -> Vec<Entry> {
        let mut entries = self.entries.into_inner().unwrap();
        entries.extend(rows.iter().map(|row| {
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            let at = row["at"].as_i64().unwrap();
            let row = RowEntry {
                seq: row["seq"].as_u64().unwrap(),
                at,
                writer: text("writer"),
                op: row["op"].as_str().map(ToOwned::to_owned),
                body: text("body"),
                hash: text("hash"),
            };
            Entry {
                t: at,
                what: What::Row(row),
            }
        }));
        entries.sort_by_key(|entry| (entry.t, place(&entry.what)));
        entries
    }
}

fn place(what: &What) -> u8 {
    match what {
        What::Invoke(_) => 0,
        What::Row(_) => 1,
        What::Answer { .. }
        | What::Read { .. }
        | What::Truth { .. }
        | What::Alarm { .. }
        | What::Note { .. } => 2,
    }
}

fn refuses(answer: &Answer) -> bool {
    answer.status != 500 || answer.json()["code"] == 50_002
}

fn number(lease: &Value) -> (u64, u64) {
    (
        lease["id"].as_u64().unwrap(),
        lease["epoch"].as_u64().unwrap(),
    )
}

// Of an answer that shows one.
fn lease(body: &Value) -> Option<Told> {
    let devices = body["devices"].as_array()?.iter();
    let (lease, epoch) = number(body);
    Some(Told::Lease {
        lease,
        epoch,
        devices: devices
            .map(|device| device["id"].as_str().unwrap().to_owned())
            .collect(),
    })
}
