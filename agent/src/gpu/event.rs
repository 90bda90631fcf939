//! Driver events on their way from the worker to the agent: what they are, and counted, so that a burst stays small. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Different events that one answer carries; more are only counted.
const MOST_KINDS: usize = 256;

/// What a driver event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// `nvmlEventTypeXidCriticalError` with this number.
    Xid(u64),
    /// `nvmlEventMigConfigChange`: instances were made or destroyed.
    MigChange,
    /// Another kind, by its bit (`nvmlEventType...` in nvml.h).
    Other(u64),
}

/// Events of one kind on one GPU or instance since the answer before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverEvent {
    /// UUID of the GPU.
    pub uuid: String,
    /// What happened.
    pub what: Happening,
    /// GPU instance that it is about; `None` outside MIG or when the driver does not say.
    pub gi: Option<u32>,
    /// Compute instance that it is about; `None` likewise.
    pub ci: Option<u32>,
    /// How often, at least 1.
    pub count: u64,
}

/// Whether driver events are heard. It says nothing of readings, which go on without them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventsState {
    /// Nobody listens.
    #[default]
    Off,
    /// No GPU is registered yet.
    Starting,
    /// Every GPU that is read and has events is registered.
    Listening,
    /// Some are, and at least one could not be registered ([`News::gpus`]).
    Partly,
    /// Neither the library nor any GPU has events.
    Unsupported,
    /// A call failed; it is tried again.
    Failing {
        /// C name of the function.
        call: String,
        /// NVML's return code, where there was one.
        code: Option<u32>,
    },
    /// A call does not come back.
    Hung {
        /// C name of the function.
        call: String,
    },
}

impl EventsState {
    /// All names, as in the label `state` of `gpuquota_events_state`.
    pub const NAMES: [&'static str; 7] = [
        "off",
        "starting",
        "listening",
        "partly",
        "unsupported",
        "failing",
        "hung",
    ];

    /// One of [`Self::NAMES`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Listening => "listening",
            Self::Partly => "partly",
            Self::Unsupported => "unsupported",
            Self::Failing { .. } => "failing",
            Self::Hung { .. } => "hung",
        }
    }
}

/// Whether one GPU's events are heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ear {
    /// The driver tells them.
    Registered,
    /// It has none.
    Unsupported,
    /// It could not be registered; that is tried again.
    Failed {
        /// C name of the function.
        call: String,
        /// NVML's return code, where there was one.
        code: Option<u32>,
    },
}

impl Ear {
    /// All names, as in the label `state` of `gpuquota_gpu_events_state`.
    pub const NAMES: [&'static str; 3] = ["registered", "unsupported", "failed"];

    /// One of [`Self::NAMES`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Unsupported => "unsupported",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Of each GPU that is read, by UUID.
pub type Ears = Arc<BTreeMap<String, Ear>>;

/// All that happened since the answer before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Whether events are heard now.
    pub state: EventsState,
    /// Whose events are; empty while the channel as a whole is not there.
    #[serde(default)]
    pub gpus: Ears,
    /// Each kind once.
    pub events: Vec<DriverEvent>,
    /// Events that had no room in `events`.
    pub dropped: u64,
}

/// Events that are kept until somebody takes them.
const MOST_KEPT: usize = 4096;

impl News {
    /// Adds what came later.
    pub fn join(&mut self, later: Self) {
        self.state = later.state;
        self.gpus = later.gpus;
        let room = MOST_KEPT.saturating_sub(self.events.len());
        let over = later.events.iter().skip(room).map(|event| event.count);
        self.dropped = over.fold(self.dropped, u64::saturating_add);
        self.dropped = self.dropped.saturating_add(later.dropped);
        self.events.extend(later.events.into_iter().take(room));
    }
}

type Kind = (String, Happening, Option<u32>, Option<u32>);

/// Counts events until they are told.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<Kind, u64>,
    dropped: u64,
    state: EventsState,
    gpus: Ears,
    told: (EventsState, Ears),
}

impl Tally {
    pub(super) fn add(&mut self, uuid: &str, what: Happening, gi: Option<u32>, ci: Option<u32>) {
        let kind = (uuid.to_owned(), what, gi, ci);
        let room = self.counts.len() < MOST_KINDS;
        match self.counts.get_mut(&kind) {
            Some(count) => *count = count.saturating_add(1),
            None if room => {
                self.counts.insert(kind, 1);
            }
            None => self.dropped = self.dropped.saturating_add(1),
        }
    }

    pub(super) fn set_state(&mut self, state: EventsState) {
        self.state = state;
    }

    pub(super) fn set_gpus(&mut self, gpus: BTreeMap<String, Ear>) {
        if *self.gpus != gpus {
            self.gpus = Arc::new(gpus);
        }
    }

    /// What is known of single GPUs stands while the channel does.
    fn heard(&self) -> Ears {
        match self.state {
            EventsState::Starting
            | EventsState::Listening
            | EventsState::Partly
            | EventsState::Unsupported => Arc::clone(&self.gpus),
            EventsState::Off | EventsState::Failing { .. } | EventsState::Hung { .. } => {
                Ears::default()
            }
        }
    }

    /// What is new; `None` when nothing is.
    pub(super) fn take(&mut self) -> Option<News> {
        let gpus = self.heard();
        let same = self.state == self.told.0 && gpus == self.told.1;
        if self.counts.is_empty() && self.dropped == 0 && same {
            return None;
        }
        self.told = (self.state.clone(), Arc::clone(&gpus));
        let counts = std::mem::take(&mut self.counts);
        let event = |((uuid, what, gi, ci), count)| DriverEvent {
            uuid,
            what,
            gi,
            ci,
            count,
        };
        Some(News {
            state: self.state.clone(),
            gpus,
            events: counts.into_iter().map(event).collect(),
            dropped: std::mem::take(&mut self.dropped),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_m_a_burst_of_any_size_is_a_short_answer_and_nothing_is_told_twice() {
        let mut tally = Tally::default();
        assert_eq!(tally.take(), None);
        tally.set_state(EventsState::Listening);
        for _ in 0..100_000 {
            tally.add("GPU-1", Happening::Xid(31), Some(7), Some(0));
        }
        for xid in 0..1000 {
            tally.add("GPU-1", Happening::Xid(1000 + xid), None, None);
        }
        let news = tally.take().unwrap();
        assert_eq!(news.events.len(), MOST_KINDS);
        let burst = news
            .events
            .iter()
            .find(|event| event.what == Happening::Xid(31));
        assert_eq!(burst.map(|event| event.count), Some(100_000));
        assert_eq!(news.dropped, 1000 - 255);
        assert!(serde_json::to_vec(&news).unwrap().len() < 64 * 1024);
        assert_eq!(tally.take(), None);
        tally.set_state(EventsState::Hung { call: "f".into() });
        let news = tally.take().unwrap();
        assert!(news.events.is_empty() && EventsState::NAMES.contains(&news.state.name()));
    }
}
