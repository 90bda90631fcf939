//! The agent's end of the socket. It only passes orders on; the loop obeys them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Answer, LONGEST_LINE, Request, SOCKET};

/// Callers at a time.
const CALLERS: usize = 4;
/// A caller has so long to say its line.
const SAY: Duration = Duration::from_secs(2);
/// The loop has so long to obey.
const OBEY: Duration = Duration::from_secs(10);

/// One request, and where its answer goes.
#[derive(Debug)]
pub struct Order {
    /// What is asked.
    pub request: Request,
    /// Who waits.
    pub answer: oneshot::Sender<Answer>,
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
            Ok(request) => pass_on(request.within_limits(), orders).await,
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

async fn pass_on(request: Request, orders: &mpsc::Sender<Order>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let obeyed = async {
        orders.send(Order { request, answer }).await.ok()?;
        answered.await.ok()
    };
    match timeout(OBEY, obeyed).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::refusal("the agent is stopping"),
        Err(_) => Answer::refusal("the agent does not come round to it"),
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(order.request, expected);
        order.answer.send(Answer::default()).unwrap();
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
}
