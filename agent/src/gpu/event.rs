//! Driver events on their way from the worker to the agent: what they are, and counted, so that a burst stays small. Pure.

use std::collections::BTreeMap;

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
    pub const NAMES: [&'static str; 6] = [
        "off",
        "starting",
        "listening",
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
            Self::Unsupported => "unsupported",
            Self::Failing { .. } => "failing",
            Self::Hung { .. } => "hung",
        }
    }
}

/// All that happened since the answer before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Whether events are heard now.
    pub state: EventsState,
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
    told: EventsState,
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

    /// What is new; `None` when nothing is.
    pub(super) fn take(&mut self) -> Option<News> {
        if self.counts.is_empty() && self.dropped == 0 && self.state == self.told {
            return None;
        }
        self.told = self.state.clone();
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
