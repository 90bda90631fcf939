//! The agent's end of the socket. It only passes orders on; the loop obeys them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Answer, LONGEST_LINE, Request, SOCKET};

/// Callers at a time.
const CALLERS: usize = 4;
/// A caller has so long to say its line.
const SAY: Duration = Duration::from_secs(2);
/// How long an order waits for the loop.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// To take it up. One that is not taken up within this is withdrawn, and never obeyed.
    take: Duration,
    /// To finish what it has taken up.
    finish: Duration,
}

/// Together less than the command waits.
const PATIENCE: Patience = Patience {
    take: Duration::from_secs(6),
    finish: Duration::from_secs(5),
};

/// One request, and where its answer goes. It is obeyed or withdrawn, never both.
#[derive(Debug)]
pub struct Order {
    request: Request,
    answer: oneshot::Sender<Answer>,
    /// Set by whoever decides first what becomes of it.
    decided: Arc<AtomicBool>,
}

impl Order {
    /// Takes it up: what is asked, and who waits. `None` when it was withdrawn, because its caller has gone or waited too long.
    #[must_use]
    pub fn take(self) -> Option<(Request, oneshot::Sender<Answer>)> {
        let first = !self.decided.swap(true, Ordering::AcqRel);
        first.then_some((self.request, self.answer))
    }
}

/// Listens in the state directory until `stop`. A socket that cannot be made is logged; the agent runs without it.
#[must_use]
pub fn listen(state: &Path, stop: CancellationToken) -> mpsc::Receiver<Order> {
    let (orders, receiver) = mpsc::channel(CALLERS);
    let path = state.join(SOCKET);
    match bind(&path) {
        Ok(listener) => {
            tokio::spawn(accept(listener, orders, stop));
        }
        Err(error) => {
            tracing::error!(%error, socket = %path.display(), "no control socket: quiesce and resume do not work");
        }
    }
    receiver
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // The folder is locked, so whatever lies there was left behind.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The folder lets nobody else in already.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, orders: mpsc::Sender<Order>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CALLERS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, Arc::clone(&room).try_acquire_owned()) else {
            // Out of descriptors, or too many callers: neither gets better by hurry.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let orders = orders.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &orders).await {
                tracing::debug!(%error, "control socket");
            }
            drop(place);
        });
    }
}

async fn serve(stream: UnixStream, orders: &mpsc::Sender<Order>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let answer = if may(uid, rustix::process::geteuid().as_raw()) {
        let mut line = Vec::new();
        let mut read = BufReader::new(read).take(LONGEST_LINE);
        timeout(SAY, read.read_until(b'\n', &mut line)).await??;
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                let mut rest = read.into_inner();
                let gone = async {
                    // A caller says one line and waits; more is not read. The end of its side means that it has gone.
                    let mut more = [0; 64];
                    while matches!(rest.read(&mut more).await, Ok(1..)) {}
                };
                pass_on(request.within_limits(), orders, gone, PATIENCE).await
            }
            Err(error) => Answer::refusal(&format!("not a request: {error}")),
        }
    } else {
        tracing::warn!(uid, "a caller of the control socket was refused");
        Answer::refusal("only root and the agent's own user may do this")
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(SAY, write.write_all(&line)).await?
}

fn may(caller: u32, own: u32) -> bool {
    caller == 0 || caller == own
}

async fn pass_on(
    request: Request,
    orders: &mpsc::Sender<Order>,
    gone: impl Future<Output = ()>,
    patience: Patience,
) -> Answer {
    const STOPS: &str = "the agent is stopping, and has nothing open once it has ended";
    let (answer, mut answered) = oneshot::channel();
    let decided = Arc::<AtomicBool>::default();
    let order = Order {
        request,
        answer,
        decided: Arc::clone(&decided),
    };
    let told = async {
        orders.send(order).await.ok()?;
        (&mut answered).await.ok()
    };
    let gave_up = tokio::select! {
        told = told => return told.unwrap_or_else(|| Answer::refusal(STOPS)),
        () = gone => "its caller has gone",
        () = sleep(patience.take) => "the agent does not come round to it",
    };
    if !decided.swap(true, Ordering::AcqRel) {
        return Answer::refusal(&format!("{gave_up}: it is withdrawn and nothing changes"));
    }
    match timeout(patience.finish, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::refusal(STOPS),
        Err(_) => Answer::refusal(
            "the agent has begun with it and is not done yet; ask again to see whether it is",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn rule_13_only_root_and_its_own_user_are_heard_and_only_whole_requests() {
        assert!(may(0, 500) && may(500, 500) && !may(501, 500) && !may(501, 0));
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let mut orders = listen(dir.path(), stop.clone());
        let path = dir.path().join(SOCKET);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let long = [vec![b'x'; 10_000], b"\n".to_vec()].concat();
        for line in [b"{\"do\":\"dance\"}\n".to_vec(), b"\n".to_vec(), long] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            // It may stop reading before the end.
            let _ = stream.write_all(&line).await;
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text).await;
            assert!(text.is_empty() || text.contains("not a request"), "{text}");
        }
        assert!(orders.try_recv().is_err());

        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream
            .write_all(b"{\"do\":\"quiesce\",\"for_ms\":99999999999,\"reason\":\"a\\nb\"}\n")
            .await
            .unwrap();
        let order = orders.recv().await.unwrap();
        let expected = Request::Quiesce {
            for_ms: 86_400_000,
            reason: "ab".to_owned(),
        };
        let (request, answer) = order.take().unwrap();
        assert_eq!(request, expected);
        answer.send(Answer::default()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(
            serde_json::from_str::<Answer>(&text).unwrap(),
            Answer::default()
        );
        // A second agent of the same folder, after the first was killed.
        stop.cancel();
        let _orders = listen(dir.path(), CancellationToken::new());
        assert!(UnixStream::connect(&path).await.is_ok());
    }

    const SHORT: Patience = Patience {
        take: Duration::from_millis(20),
        finish: Duration::from_millis(20),
    };

    #[tokio::test]
    async fn rule_13_an_order_is_obeyed_or_withdrawn_and_its_caller_knows_which() {
        let (orders, mut taken) = mpsc::channel(4);
        // Nobody takes it up in time: it is never obeyed.
        let answer = pass_on(Request::Resume, &orders, pending(), SHORT).await;
        assert!(answer.error.unwrap().contains("withdrawn"));
        assert!(taken.recv().await.unwrap().take().is_none());
        // Taken up, and not finished in time.
        let take = async { taken.recv().await.unwrap().take().unwrap() };
        let (answer, (_, done)) =
            tokio::join!(pass_on(Request::Resume, &orders, pending(), SHORT), take);
        assert!(answer.error.unwrap().contains("has begun"));
        drop(done);
        // Taken up, and finished after the time to take it up, but in time.
        let obey = async {
            let (_, done) = taken.recv().await.unwrap().take().unwrap();
            sleep(SHORT.take * 2).await;
            done.send(Answer::default()).unwrap();
        };
        let slow = Patience {
            finish: SAY,
            ..SHORT
        };
        let (answer, ()) = tokio::join!(pass_on(Request::Resume, &orders, pending(), slow), obey);
        assert_eq!(answer, Answer::default());
    }

    #[tokio::test]
    async fn rule_13_a_caller_that_is_killed_takes_its_order_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = listen(dir.path(), CancellationToken::new());
        let mut caller = UnixStream::connect(dir.path().join(SOCKET)).await.unwrap();
        caller.write_all(b"{\"do\":\"resume\"}\n").await.unwrap();
        let order = orders.recv().await.unwrap();
        drop(caller);
        let withdrawn = async {
            while !order.decided.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SAY, withdrawn).await.unwrap();
        assert!(order.take().is_none());
    }
}
