//! Looks at processes, each in a thread of its own: one that a hung file server holds up makes no other order wait.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::protocol::{Identity, Reply};

/// A look takes so long at most; the agent waits for an answer for 10 s.
const PATIENCE: Duration = Duration::from_secs(3);
/// Looks that have not come back, at most.
const STUCK: usize = 32;

/// Looks under way, by whom they are at: number and start time.
#[derive(Debug)]
pub(super) struct Checks {
    under_way: Arc<Mutex<BTreeSet<(u32, u64)>>>,
    patience: Duration,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            under_way: Arc::default(),
            patience: PATIENCE,
        }
    }
}

impl Checks {
    /// What the look says, if it comes back in time; what it says later nobody hears.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        who: &Identity,
        look: impl FnOnce() -> Result<T, Reply> + Send + 'static,
    ) -> Result<T, Reply> {
        let key = (who.pid, who.start_time);
        let entry = Entry::new(Arc::clone(&self.under_way), key)?;
        let (say, hear) = oneshot::channel();
        // No thread of the runtime's: its end waits for those.
        let started = std::thread::Builder::new().spawn(move || {
            let said = look();
            drop(entry);
            let _ = say.send(said);
        });
        if let Err(error) = started {
            return Err(failed(&format!("no thread can be started: {error}")));
        }
        match timeout(self.patience, hear).await {
            Ok(Ok(said)) => said,
            Ok(Err(_)) => Err(failed("it could not be looked at")),
            Err(_) => Err(failed(
                "the kernel does not come back from looking at it: a file system that it uses hangs",
            )),
        }
    }
}

struct Entry {
    under_way: Arc<Mutex<BTreeSet<(u32, u64)>>>,
    key: (u32, u64),
}

impl Entry {
    fn new(under_way: Arc<Mutex<BTreeSet<(u32, u64)>>>, key: (u32, u64)) -> Result<Self, Reply> {
        let mut keys = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= STUCK {
            return Err(failed("too many looks at processes have not come back"));
        }
        if !keys.insert(key) {
            return Err(failed("an earlier look at it has not come back"));
        }
        drop(keys);
        Ok(Self { under_way, key })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut keys = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.key);
    }
}

fn failed(detail: &str) -> Reply {
    Reply::Failed {
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn who(pid: u32) -> Identity {
        Identity {
            pid,
            start_time: 7,
            boot_id: String::new(),
        }
    }

    #[tokio::test]
    async fn rule_15_a_look_that_does_not_come_back_stops_no_other_and_is_not_heard_later() {
        let checks = Checks {
            patience: Duration::from_millis(50),
            ..Checks::default()
        };
        let (release, held) = mpsc::channel::<()>();
        let (dropped, gone) = mpsc::channel::<()>();
        let stuck: Result<mpsc::Sender<()>, _> = checks
            .run(&who(2), move || {
                let _ = held.recv();
                Ok(dropped)
            })
            .await;
        assert!(matches!(stuck, Err(Reply::Failed { .. })));
        // Whoever is stuck is not looked at again, and others are.
        let again = checks.run(&who(2), || Ok(())).await;
        assert!(matches!(again, Err(Reply::Failed { .. })));
        assert_eq!(checks.run(&who(3), || Ok(5)).await, Ok(5));
        release.send(()).unwrap();
        // What it found is dropped: nobody acts by it.
        assert_eq!(gone.recv(), Err(mpsc::RecvError));
        assert!(checks.under_way.lock().unwrap().is_empty());
    }
}
