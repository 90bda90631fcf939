//! The socket at which processes ask. Everybody on the host may come; who somebody is the kernel says, and nobody keeps others out
//! by coming often.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::desk::{Caller, Desk};
use super::lessor::Lessor;
use super::{Answer, Ask, LONGEST_LINE};
use crate::act::Hands;
use crate::clock::boottime_ms;
use crate::process::procfs::ProcessFolder;

/// Callers at a time, and of one user.
const CALLERS: usize = 64;
const CALLERS_OF_ONE: usize = 8;
/// One user may ask so often at once, and once more after each of these times, milliseconds.
const AT_ONCE: u64 = 30;
const EACH_MS: u64 = 2_000;
/// A caller has so long to say its line, and to take the answer.
const SAY: Duration = Duration::from_secs(2);
/// So much is said of a line that is not understood, characters.
const LONGEST_REASON: usize = 300;

/// Who is inside.
#[derive(Debug, Default)]
struct Room(Mutex<HashMap<u32, Visits>>);

#[derive(Debug, Default)]
struct Visits {
    now: usize,
    /// What its visits have used up at `at_ms`, milliseconds; time gives it back.
    spent_ms: u64,
    /// CLOCK_BOOTTIME.
    at_ms: u64,
}

struct Seat {
    room: Arc<Room>,
    uid: u32,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut users = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(visits) = users.get_mut(&self.uid) {
            visits.now = visits.now.saturating_sub(1);
        }
    }
}

impl Room {
    // The text says why there is no seat.
    fn enter(self: &Arc<Self>, uid: u32, now_ms: u64) -> Result<Seat, &'static str> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has all of its visits again is forgotten.
        users.retain(|_, visits| visits.now > 0 || visits.left(now_ms) > 0);
        if users.values().map(|visits| visits.now).sum::<usize>() >= CALLERS {
            return Err("too many processes are asking at the moment; try again");
        }
        let visits = users.entry(uid).or_default();
        if visits.now >= CALLERS_OF_ONE {
            return Err("too many processes of this user are asking at the moment; try again");
        }
        let spent = visits.left(now_ms) + EACH_MS;
        if spent > EACH_MS * AT_ONCE {
            return Err("this user has asked too often; try again in a minute");
        }
        (visits.spent_ms, visits.at_ms) = (spent, now_ms);
        visits.now += 1;
        Ok(Seat {
            room: Arc::clone(self),
            uid,
        })
    }
}

impl Visits {
    fn left(&self, now_ms: u64) -> u64 {
        self.spent_ms
            .saturating_sub(now_ms.saturating_sub(self.at_ms))
    }
}

/// Listens until `stop`. Where the folder of the socket is not there, nobody can ask, and the agent runs without it.
pub async fn open<L, H>(socket: &Path, desk: Desk<L, H>, stop: CancellationToken)
where
    L: Lessor + 'static,
    H: Hands + Send + Sync + 'static,
{
    let listener = match bind(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::info!(%error, socket = %socket.display(), "no command can ask for leases here (gpuquota-agent exec)");
            return;
        }
    };
    let (desk, room) = (Arc::new(desk), Arc::<Room>::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: hurry does not mend it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(peer) = stream.peer_cred() else {
            continue;
        };
        let uid = peer.uid();
        match room.enter(uid, boottime_ms()) {
            Ok(seat) => {
                let desk = Arc::clone(&desk);
                // At once: later the number may be another's.
                let caller = caller(peer);
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &desk, caller).await {
                        tracing::debug!(%error, caller.uid = uid, "exec socket");
                    }
                    drop(seat);
                });
            }
            Err(why) => {
                let why = why.to_owned();
                tokio::spawn(async move { say(stream, &Answer::Busy { why }).await });
            }
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Whoever asks is judged by what the kernel says of it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

// Who connected, if it is that process still and has not changed its user since.
fn caller(peer: UCred) -> Option<Caller> {
    let pid = u32::try_from(peer.pid()?).ok()?;
    let process = ProcessFolder::open(pid).ok()?;
    let caller = Caller {
        pid,
        start_time: process.start_time().ok()?,
        uid: peer.uid(),
    };
    (process.ids().ok()?.uids.effective == caller.uid).then_some(caller)
}

async fn serve<L: Lessor, H: Hands>(
    mut stream: UnixStream,
    desk: &Desk<L, H>,
    caller: Option<Caller>,
) -> io::Result<()> {
    let mut line = Vec::new();
    let mut read = BufReader::new(&mut stream).take(LONGEST_LINE);
    timeout(SAY, read.read_until(b'\n', &mut line)).await??;
    let answer = match (caller, asking(&line)) {
        (None, _) => Answer::Refused {
            why: "the kernel does not say who asks".to_owned(),
        },
        (_, Err(refused)) => refused,
        (Some(caller), Ok(ask)) => {
            let name = format!("{:032x}", rand::rng().random::<u128>());
            desk.answer(caller, ask, &name).await
        }
    };
    say(stream, &answer).await
}

/// What a line asks for, or what is answered to a line that asks for nothing.
fn asking(line: &[u8]) -> Result<Ask, Answer> {
    serde_json::from_slice(line).map_err(|error| {
        // It quotes the line, which may be as long as an answer can be.
        let text: String = error.to_string().chars().take(LONGEST_REASON).collect();
        Answer::Refused {
            why: format!("not an asking: {text}"),
        }
    })
}

async fn say(mut stream: UnixStream, answer: &Answer) -> io::Result<()> {
    timeout(SAY, stream.write_all(&line(answer)?)).await?
}

fn line(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_neither_fills_the_room_nor_asks_without_end() {
        let room = Arc::<Room>::default();
        let seats: Vec<_> = (0..CALLERS_OF_ONE)
            .map(|_| room.enter(1, 0).map_err(ToOwned::to_owned).unwrap())
            .collect();
        assert!(room.enter(1, 0).is_err());
        assert!(room.enter(2, 0).is_ok());
        drop(seats);
        let asked = (0..100).filter(|_| room.enter(1, 0).is_ok()).count();
        assert_eq!((asked + CALLERS_OF_ONE) as u64, AT_ONCE);
        // Time gives visits back, one after the other.
        assert!(room.enter(1, EACH_MS - 1).is_err());
        assert!(room.enter(1, EACH_MS).is_ok());
        assert!(room.enter(1, EACH_MS).is_err());
        let _ = room.enter(3, 1_000_000);
        assert_eq!(room.0.lock().unwrap().len(), 1);
    }
}
