//! Writes down what happens.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::checker::{Entry, Invoke, Reply, What};

/// The record of one run.
#[derive(Clone)]
pub(crate) struct History {
    begin: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl History {
    pub(crate) fn new(begin: Instant) -> Self {
        Self {
            begin,
            entries: Arc::default(),
        }
    }

    pub(crate) fn push(&self, what: What) {
        let t = i64::try_from(self.begin.elapsed().as_millis()).unwrap();
        self.entries.lock().unwrap().push(Entry { t, what });
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.push(What::Note { text: text.into() });
    }

    pub(crate) fn alarm(&self, text: impl Into<String>) {
        self.push(What::Alarm { text: text.into() });
    }

    /// Gives the call its number and request id.
    pub(crate) fn invoke(&self, mut invoke: Invoke) -> u64 {
        let call = self.entries.lock().unwrap().len() as u64;
        invoke.call = call;
        invoke.request = Some(request_id(call));
        self.push(What::Invoke(invoke));
        call
    }

    pub(crate) fn answer(&self, call: u64, reply: Reply) {
        self.push(What::Answer { call, reply });
    }

    pub(crate) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().unwrap())
    }
}

/// Request id of a call.
pub(crate) fn request_id(call: u64) -> String {
    format!("request-{call}")
}
