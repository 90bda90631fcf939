//! One reading by a worker of its own, in the background: a probe of a GPU, or a trial of another library.

use std::io;
use std::time::Duration;

use tokio::select;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::link::{Ended, Link, Reply, Start};
use super::morgue::Morgue;
use super::protocol::Target;

#[derive(Debug)]
pub(super) struct Errand {
    task: JoinHandle<Outcome>,
    /// Dropped to call it back.
    stop: oneshot::Sender<()>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// It gave a reading and waits for more.
    Read(Link),
    /// It gave none, and was ended.
    Failed(Ended),
}

impl Errand {
    /// Starts a worker; returns its pid as well.
    pub(super) fn start(start: &Start) -> io::Result<(Self, Option<u32>)> {
        let link = Link::start(start)?;
        let pid = link.pid();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(go(link, start.call_deadline, stopped));
        Ok((Self { task, stop }, pid))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// What came of it; `None` when its task was lost.
    pub(super) async fn outcome(self) -> Option<Outcome> {
        let Self { task, stop } = self;
        let outcome = task.await.ok();
        drop(stop);
        outcome
    }

    /// Calls it back: its worker is ended gently, and counts as ending. `on`: the GPU that it is about, if it is about one.
    pub(super) fn recall(self, morgue: &mut Morgue, on: Option<Target>) {
        let Self { task, stop } = self;
        drop(stop);
        morgue.follow(on, async move {
            match task.await {
                Ok(Outcome::Read(link)) => link.end(true).await,
                Ok(Outcome::Failed(ended)) => ended,
                Err(_) => Ended::default(),
            }
        });
    }
}

async fn go(mut link: Link, call_deadline: Duration, stopped: oneshot::Receiver<()>) -> Outcome {
    let reply = select! {
        reply = link.ask(call_deadline * 3) => Some(reply),
        _ = stopped => None,
    };
    match reply {
        Some(Reply::Reading { .. }) => Outcome::Read(link),
        Some(Reply::Hung { target, .. }) => {
            let ended = link.end(false).await;
            let on = target.or(ended.on);
            Outcome::Failed(Ended { on, ..ended })
        }
        Some(Reply::Died { at, .. }) => {
            let ended = link.end(false).await;
            let on = at.or(ended.on);
            Outcome::Failed(Ended { on, ..ended })
        }
        Some(Reply::Failed { .. } | Reply::Silent) => Outcome::Failed(link.end(false).await),
        None => Outcome::Failed(link.end(true).await),
    }
}
