//! Users and groups that rules name and this host's own files do not: asked for on a thread of its own, and asked again until
//! they are known, for a directory service that is away when the agent starts comes back later.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::users;

/// Between two rounds of questions.
pub(super) const EVERY: Duration = Duration::from_secs(60);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl NameKind {
    /// As in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// A user or group of the configuration, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedId {
    /// Which of the two.
    pub kind: NameKind,
    /// Its name.
    pub name: Arc<str>,
}

impl NamedId {
    /// A user.
    #[must_use]
    pub fn user(name: &str) -> Self {
        let (kind, name) = (NameKind::User, name.into());
        Self { kind, name }
    }

    /// A group.
    #[must_use]
    pub fn group(name: &str) -> Self {
        let (kind, name) = (NameKind::Group, name.into());
        Self { kind, name }
    }

    /// Asks the host's databases. Blocks up to the deadline of one question.
    #[must_use]
    pub(crate) fn look_up(&self) -> Option<u32> {
        match self.kind {
            NameKind::User => users::uid_of(&self.name),
            NameKind::Group => users::gid_of(&self.name),
        }
    }
}

impl fmt::Display for NamedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// Asks for names in the background until it is dropped or all are known.
#[derive(Debug)]
pub(super) struct Asker {
    shared: Arc<Shared>,
    /// The thread ends when this does.
    _stop: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    found: Mutex<Vec<(NamedId, u32)>>,
    news: AtomicBool,
    went_round: AtomicBool,
    ended: AtomicBool,
}

impl Asker {
    /// `once`: names that are asked for in the first round only, for they may well not exist. `None` when there is nothing to
    /// ask, or no thread is to be had.
    pub(super) fn start(
        mut names: BTreeSet<NamedId>,
        once: &BTreeSet<NamedId>,
        every: Duration,
        look_up: impl Fn(&NamedId) -> Option<u32> + Send + 'static,
    ) -> Option<Self> {
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = mpsc::channel::<()>();
        let (told, mut ask) = (Arc::clone(&shared), names.clone());
        ask.extend(once.iter().cloned());
        if ask.is_empty() {
            return None;
        }
        let rounds = move || loop {
            for name in &ask {
                if let Some(id) = look_up(name) {
                    names.remove(name);
                    let mut found = told.found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push((name.clone(), id));
                    told.news.store(true, Ordering::Release);
                }
            }
            told.went_round.store(true, Ordering::Release);
            ask.clone_from(&names);
            if ask.is_empty() || stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                told.ended.store(true, Ordering::Release);
                return;
            }
        };
        let thread = std::thread::Builder::new().name("names".to_owned());
        if let Err(error) = thread.stack_size(256 << 10).spawn(rounds) {
            tracing::error!(%error, "users and groups cannot be asked for: no thread");
            return None;
        }
        Some(Self {
            shared,
            _stop: stop,
        })
    }

    /// What has been found since this was asked before.
    pub(super) fn take(&self) -> Vec<(NamedId, u32)> {
        if !self.shared.news.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let mut found = self.shared.found.lock();
        let found = found.as_mut().map_err(PoisonError::get_mut);
        match found {
            Ok(found) => std::mem::take(found),
            Err(found) => std::mem::take(found),
        }
    }

    /// Whether each name has been asked for at least once.
    pub(super) fn went_round(&self) -> bool {
        self.shared.went_round.load(Ordering::Acquire)
    }

    /// Nothing more will be found.
    pub(super) fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire) && !self.shared.news.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::clock::monotonic_ms;

    /// A directory service that is away and comes back.
    #[test]
    fn a_name_is_asked_for_until_it_is_known_and_no_longer() {
        let asked = Arc::<AtomicU32>::default();
        let count = Arc::clone(&asked);
        let look_up = move |name: &NamedId| match &*name.name {
            "late" => (count.fetch_add(1, Ordering::SeqCst) >= 3).then_some(7),
            _ => None,
        };
        let late = NamedId::user("late");
        let none = NamedId::group("never");
        let once = BTreeSet::from([none]);
        let every = Duration::from_millis(1);
        let asker = Asker::start([late.clone()].into(), &once, every, look_up).unwrap();
        let end_ms = monotonic_ms() + 20_000;
        let mut found = Vec::new();
        while !asker.ended() || !asker.went_round() {
            found.extend(asker.take());
            assert!(monotonic_ms() < end_ms);
            std::thread::yield_now();
        }
        assert_eq!(found, [(late, 7)]);
        assert_eq!(asked.load(Ordering::SeqCst), 4);
        assert!(Asker::start(BTreeSet::new(), &BTreeSet::new(), every, |_| None).is_none());
    }
}
