//! A line to PostgreSQL that breaks when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// When a message with the marker in it breaks the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Never.
    Whole = 0,
    /// It does not reach the server.
    BeforeSend = 1,
    /// It reaches the server, and nobody waits for the answer.
    AfterSend = 2,
    /// The server has answered, and the answer gets lost.
    AfterAnswer = 3,
}

/// Marks messages that break the line.
pub(crate) const MARKER: &str = "cut-here";

/// The line.
pub(crate) struct Line {
    state: Arc<State>,
    pub(crate) url: String,
}

struct State {
    next: AtomicU8,
    down: AtomicBool,
    /// Somebody tried while it was down.
    refused: Notify,
    /// Ends every connection of the moment.
    cut: watch::Sender<u64>,
}

impl Line {
    /// To the database at `url`, on 127.0.0.1.
    pub(crate) async fn to(url: &str, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            next: AtomicU8::new(Break::Whole as u8),
            down: AtomicBool::new(false),
            refused: Notify::new(),
            cut: watch::Sender::new(0),
        });
        let through = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if through.down.load(Ordering::SeqCst) {
                    through.refused.notify_one();
                } else {
                    tokio::spawn(carry(client, port, through.clone()));
                }
            }
        });
        let url = url.replace(&format!(":{port}/"), &format!(":{own}/"));
        Self { state, url }
    }

    /// The next message with the marker breaks it so.
    pub(crate) fn breaks(&self, next: Break) {
        self.state.next.store(next as u8, Ordering::SeqCst);
    }

    /// Whether it broke since it was told to.
    pub(crate) fn broke(&self) -> bool {
        self.state.next.load(Ordering::SeqCst) == Break::Whole as u8
    }

    /// Ends all connections and lets none through; returns when somebody noticed and tried anew.
    pub(crate) async fn down(&self) {
        self.state.down.store(true, Ordering::SeqCst);
        self.state.cut.send_modify(|turn| *turn += 1);
        self.state.refused.notified().await;
    }

    pub(crate) fn up(&self) {
        self.state.down.store(false, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, port: u16, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let mut cut = state.cut.subscribe();
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let answered = CancellationToken::new();
    tokio::select! {
        () = there(client_in, server_out, &state, &answered) => {}
        () = back(server_in, client_out, &answered) => {}
        _ = cut.changed() => {}
    }
}

// What the client says.
async fn there(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    answered: &CancellationToken,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let said = &buffer[..length];
        let marked = said
            .windows(MARKER.len())
            .any(|part| part == MARKER.as_bytes());
        let next = match marked {
            true => state.next.swap(Break::Whole as u8, Ordering::SeqCst),
            false => Break::Whole as u8,
        };
        if next == Break::BeforeSend as u8 || to.write_all(said).await.is_err() {
            return;
        }
        if next == Break::AfterSend as u8 {
            let _ = to.flush().await;
            return;
        }
        if next == Break::AfterAnswer as u8 {
            answered.cancel();
        }
    }
}

// What the server answers, until one answer is to be lost.
async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lose: &CancellationToken) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if lose.is_cancelled() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
