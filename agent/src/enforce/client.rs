//! The network half's end of the socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{LONGEST_ANSWER, Order, Reply};
use crate::act::Hands;

/// Longer than any order takes: a restriction is tried by a process that gets two seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the privileged half listens.
#[derive(Clone, Debug)]
pub struct Enforcer {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("{socket}: {source}; is gpuquota-enforcer.socket started?")]
    Away {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It stopped in the middle.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// It takes too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The answer is none.
    #[error("the answer is not understood: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Enforcer {
    /// At this socket.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Gives one order.
    ///
    /// # Errors
    /// When nobody answers, or in a way that is not understood. The order may have been obeyed.
    pub async fn order(&self, order: &Order) -> Result<Reply, AskError> {
        let asked = timeout(PATIENCE, self.say(order)).await;
        asked.map_err(|_| AskError::Late)?
    }

    async fn say(&self, order: &Order) -> Result<Reply, AskError> {
        let mut stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| AskError::Away {
                    socket: self.socket.clone(),
                    source,
                })?;
        let mut text = serde_json::to_vec(order)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        let mut line = Vec::new();
        BufReader::new(stream)
            .take(LONGEST_ANSWER)
            .read_until(b'\n', &mut line)
            .await?;
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Hands for Enforcer {
    async fn ask(&self, order: Order) -> Result<Reply, String> {
        self.order(&order).await.map_err(|error| error.to_string())
    }
}
