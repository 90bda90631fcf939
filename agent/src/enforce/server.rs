//! The privileged half at work: one order a connection, from root or the agent's user, one at a time.

use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fd::OwnedFd;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::checks::Checks;
use super::config::EnforcerConfig;
use super::denials::Denials;
use super::enclose::{Wanted, enclose};
use super::inherited;
use super::probe::Prober;
use super::protocol::{LONGEST_LINE, Order, Reply};
use super::scope::kill_scope;
use super::scope_start;
use super::signal::{self, Target};

/// Callers at a time.
const CALLERS: usize = 8;
/// A caller has so long to say its line, and to take the answer.
const SAY: Duration = Duration::from_secs(2);

/// Where it listens, and for whom.
#[derive(Clone, Debug)]
pub struct Place {
    /// The socket.
    pub socket: PathBuf,
    /// User and group of the network half.
    pub agent: (u32, u32),
    /// Folder of what is written down, in this boot.
    pub records: PathBuf,
    /// Folder of programs in a bpf file system.
    pub pins: PathBuf,
}

#[derive(Debug)]
struct Half {
    config: EnforcerConfig,
    denials: Denials,
    boot_id: String,
    checks: Checks,
    /// Orders that change what is denied are obeyed one after the other: what one finds the next does not change.
    turn: Mutex<()>,
}

/// Obeys until `stop`.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(
    place: Place,
    config: EnforcerConfig,
    boot_id: String,
    stop: CancellationToken,
) -> io::Result<()> {
    let prober = Prober::new(std::env::current_exe()?);
    let half = Arc::new(Half {
        config,
        denials: Denials::new(place.records, place.pins, prober),
        boot_id,
        checks: Checks::default(),
        turn: Mutex::new(()),
    });
    let listener = bind(&place.socket, place.agent.1)?;
    tracing::info!(socket = %place.socket.display(), "obeys the agent");
    let room = Arc::new(Semaphore::new(CALLERS));
    loop {
        // Whoever finds no seat waits at the door, and is not sent away.
        let accepted = async {
            let seat = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, seat)
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = accepted => accepted,
        };
        let (Ok((stream, _)), Ok(seat)) = accepted else {
            // Out of descriptors: that does not get better by hurry.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let half = Arc::clone(&half);
        tokio::spawn(async move {
            if let Err(error) = hear(stream, half, place.agent.0).await {
                tracing::debug!(%error, "a caller");
            }
            drop(seat);
        });
    }
}

fn bind(path: &Path, group: u32) -> io::Result<UnixListener> {
    if let Some(listener) = inherited::listener()? {
        return UnixListener::from_std(listener);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    chown(path, None, Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn hear(stream: UnixStream, half: Arc<Half>, agent: u32) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let asking = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    let (read, mut write) = stream.into_split();
    let reply = match asking {
        Some(asking) if [0, agent].contains(&peer.uid()) => {
            let mut line = Vec::new();
            let mut read = BufReader::new(read).take(LONGEST_LINE);
            timeout(SAY, read.read_until(b'\n', &mut line)).await??;
            match serde_json::from_slice::<Order>(&line) {
                Ok(order) => obey(order, half, asking).await,
                Err(error) => Reply::Refused {
                    detail: format!("the order is not understood: {error}"),
                },
            }
        }
        _ => {
            tracing::warn!(peer.uid = peer.uid(), "somebody else gave an order");
            Reply::Refused {
                detail: "only root and the agent's user are obeyed".to_owned(),
            }
        }
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    timeout(SAY, write.write_all(&text)).await?
}

async fn obey(order: Order, half: Arc<Half>, asking: u32) -> Reply {
    if let Order::Signal { who, signal, .. } = &order {
        let (who, signal) = (who.clone(), *signal);
        let whole = Arc::clone(&half);
        let told = format!("{order:?}");
        let check = move || whole.check(&order, asking);
        // A look that comes back late finds nobody who would still signal.
        let reply = match half.checks.run(&who, check).await {
            Ok(held) => signal::send(&held, signal),
            Err(reply) => reply,
        };
        tracing::warn!(order = told, ?reply, asking.pid = asking, "an order");
        return reply;
    }
    let done = tokio::task::spawn_blocking(move || {
        let _turn = half.turn.lock().unwrap_or_else(PoisonError::into_inner);
        half.obey(order, asking)
    });
    done.await.unwrap_or_else(|error| Reply::Failed {
        detail: format!("the order could not be obeyed: {error}"),
    })
}

impl Half {
    fn obey(&self, order: Order, asking: u32) -> Reply {
        let reply = match &order {
            Order::Can => return self.able(),
            Order::Restrictions => {
                return Reply::Restricted {
                    groups: self.denials.list(),
                };
            }
            Order::Signal { signal: how, .. } => match self.check(&order, asking) {
                Ok(held) => signal::send(&held, *how),
                Err(reply) => reply,
            },
            Order::Restrict { group, nodes, .. } => self.denials.restrict(group, nodes, asking),
            Order::Lift { group } => self.denials.lift(group),
            Order::KillScope { scope, .. } => kill_scope(scope),
            Order::Enclose {
                who, lease, allow, ..
            } => {
                let wanted = Wanted {
                    who,
                    lease: *lease,
                    allow,
                };
                enclose(wanted, &self.denials, asking, &self.boot_id)
            }
        };
        tracing::warn!(?order, ?reply, asking.pid = asking, "an order");
        reply
    }

    fn check(&self, order: &Order, asking: u32) -> Result<OwnedFd, Reply> {
        let Order::Signal {
            who, group, nodes, ..
        } = order
        else {
            return Err(Reply::Refused {
                detail: "the order names no process".to_owned(),
            });
        };
        let target = Target { who, group, nodes };
        signal::checked(target, asking, &self.boot_id, &self.config)
    }

    fn able(&self) -> Reply {
        let (signal, restrict) = (signal::can(), self.denials.can());
        let enclose = scope_start::answers();
        let lacking = [&signal, &restrict, &enclose]
            .into_iter()
            .filter_map(|it| it.as_ref().err().cloned());
        Reply::Able {
            lacking: lacking.collect(),
            signal: signal.is_ok(),
            enclose: restrict.is_ok() && enclose.is_ok(),
            restrict: restrict.is_ok(),
        }
    }
}
