//! What the meter remembers: of each device what it is and since when, and what it was until it is stored elsewhere.
//!
//! A device whose class does not change costs nothing, however many hours go by: the split into hours is made when it is
//! read.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::pairs;
use crate::device::DeviceKey;
use crate::id::Timestamp;
use crate::meter::{DeviceClass, Hour, Place, Stretch};

/// The meter's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meter {
    /// Hours before it are closed.
    pub(crate) closed: Hour,
    /// Hours before it are stored elsewhere.
    pub(crate) stored: Hour,
    /// What metered devices are.
    pub(crate) running: OrdMap<DeviceKey, Running>,
    /// What devices were, by its end.
    #[serde(with = "pairs")]
    was: OrdMap<(Timestamp, DeviceKey), Was>,
    /// When devices existed, by its end.
    #[serde(with = "pairs")]
    existed: OrdMap<(Timestamp, DeviceKey), Existed>,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) place: Place,
    placed: Timestamp,
    pub(crate) class: DeviceClass,
    since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Was {
    since: Timestamp,
    place: Place,
    class: DeviceClass,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Existed {
    since: Timestamp,
    place: Place,
}

impl Meter {
    /// From `at` on the device is this, or is metered no more.
    pub(crate) fn turn(
        &mut self,
        at: Timestamp,
        key: &DeviceKey,
        to: Option<(Place, DeviceClass)>,
    ) {
        let old = self.running.get(key).cloned();
        match (old, to) {
            (None, None) => {}
            (None, Some((place, class))) => {
                self.begin(at);
                let running = Running {
                    place,
                    placed: at,
                    class,
                    since: at,
                };
                self.running.insert(key.clone(), running);
            }
            (Some(old), None) => {
                self.end_class(at, key, &old);
                self.end_place(at, key, &old);
                self.running.remove(key);
            }
            (Some(old), Some((place, class))) => {
                let moved = old.place != place;
                if !moved && old.class == class {
                    return;
                }
                self.end_class(at, key, &old);
                if moved {
                    self.end_place(at, key, &old);
                }
                let running = Running {
                    placed: if moved { at } else { old.placed },
                    place,
                    class,
                    since: at,
                };
                self.running.insert(key.clone(), running);
            }
        }
    }

    // Nothing was metered before: the open hour is the one of now.
    fn begin(&mut self, at: Timestamp) {
        if self.running.is_empty() && self.was.is_empty() {
            let hour = Hour::of(at).max(self.closed);
            (self.closed, self.stored) = (hour, hour);
        }
    }

    fn end_class(&mut self, at: Timestamp, key: &DeviceKey, old: &Running) {
        assert!(at >= old.since, "the meter of {key} goes back");
        if at > old.since {
            let was = Was {
                since: old.since,
                place: old.place.clone(),
                class: old.class.clone(),
            };
            let known = self.was.insert((at, key.clone()), was);
            assert!(known.is_none(), "{key} was two things at once");
        }
    }

    fn end_place(&mut self, at: Timestamp, key: &DeviceKey, old: &Running) {
        assert!(old.since >= old.placed, "{key} was something before it was");
        if at > old.placed {
            let existed = Existed {
                since: old.placed,
                place: old.place.clone(),
            };
            let known = self.existed.insert((at, key.clone()), existed);
            assert!(known.is_none(), "{key} was at two places at once");
        }
    }

    /// No row will say anything of the hours before `to` any more.
    pub(crate) fn close(&mut self, from: Hour, to: Hour) {
        assert!(
            from == self.closed && to > from,
            "hours are closed in order"
        );
        self.closed = to;
    }

    /// The hours before `through` are stored elsewhere.
    pub(crate) fn forget(&mut self, through: Hour) {
        assert!(through <= self.closed, "only closed hours are stored");
        self.stored = self.stored.max(through);
        let end = self.stored.start();
        while let Some(((at, key), _)) = self.was.get_min().cloned()
            && at <= end
        {
            self.was.remove(&(at, key));
        }
        while let Some(((at, key), _)) = self.existed.get_min().cloned()
            && at <= end
        {
            self.existed.remove(&(at, key));
        }
    }

    /// When the open hour is to be closed, if there is anything in it.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let last = self.was.get_max().map(|((end, _), _)| *end);
        let open = self.closed.start();
        let any = !self.running.is_empty() || last.is_some_and(|end| end > open);
        any.then(|| self.closed.next().start())
    }

    /// When the earliest began of what is metered.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        let was = self.was.values().map(|was| was.since);
        was.chain(self.running.values().map(|it| it.since)).min()
    }

    /// What devices were and are, as far as it may lie in `window`.
    pub(crate) fn spans(
        &self,
        window: Stretch,
    ) -> impl Iterator<Item = (&DeviceKey, Stretch, &Place, &DeviceClass)> {
        let was = self.was.iter().filter_map(move |((end, key), was)| {
            let stretch = overlapping(was.since, *end, window)?;
            Some((key, stretch, &was.place, &was.class))
        });
        let is = self.running.iter().filter_map(move |(key, is)| {
            let stretch = overlapping(is.since, window.end, window)?;
            Some((key, stretch, &is.place, &is.class))
        });
        was.chain(is)
    }

    /// When and where devices existed and exist, as far as it may lie in `window`.
    pub(crate) fn lives(
        &self,
        window: Stretch,
    ) -> impl Iterator<Item = (&DeviceKey, Stretch, &Place)> {
        let existed = self.existed.iter().filter_map(move |((end, key), it)| {
            let stretch = overlapping(it.since, *end, window)?;
            Some((key, stretch, &it.place))
        });
        let exists = self.running.iter().filter_map(move |(key, it)| {
            let stretch = overlapping(it.placed, window.end, window)?;
            Some((key, stretch, &it.place))
        });
        existed.chain(exists)
    }
}

fn overlapping(since: Timestamp, end: Timestamp, window: Stretch) -> Option<Stretch> {
    (since < window.end && end > window.since).then_some(Stretch { since, end })
}
