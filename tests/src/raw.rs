//! HTTP by hand, for requests that no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing more is expected when the server is quiet for so long.
const QUIET: Duration = Duration::from_secs(15);

/// One connection.
#[derive(Debug)]
pub struct Raw<S = TcpStream>(pub S);

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Sends bytes; `false` once the server has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok()
    }

    /// Everything until the server closes the connection.
    ///
    /// # Errors
    /// With what came so far, when it does not close.
    pub async fn rest(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        // A reset after the answer is as good as an end.
        let ended = timeout(QUIET, self.0.read_to_end(&mut bytes)).await.is_ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if ended { Ok(text) } else { Err(text) }
    }

    /// Nothing more will be sent.
    pub async fn half_close(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// Sends one byte after the other until the server answers or closes; what it said.
    pub async fn drip(&mut self, byte: u8, every: Duration, most: Duration) -> String {
        let dripping = timeout(most, async {
            let mut bytes = Vec::new();
            loop {
                if whole(&bytes).is_some() {
                    return bytes;
                }
                match timeout(every, self.0.read_buf(&mut bytes)).await {
                    Ok(Ok(0) | Err(_)) => return bytes,
                    Ok(Ok(_)) => {}
                    // Sending to a closed connection shows at the next read.
                    Err(_) => {
                        let _ = self.0.write_all(&[byte]).await;
                    }
                }
            }
        });
        let bytes = dripping
            .await
            .unwrap_or_else(|_| panic!("no end within {most:?}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One answer: head and body, which must have a length.
    pub async fn answer(&mut self) -> String {
        let read = timeout(QUIET, async {
            let mut bytes = Vec::new();
            loop {
                if let Some(whole) = whole(&bytes) {
                    return Ok(whole);
                }
                if self.0.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return Err(bytes);
                }
            }
        });
        match read.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(bytes)) => panic!("broken off: {:?}", String::from_utf8_lossy(&bytes)),
            Err(_) => panic!("no answer within {QUIET:?}"),
        }
    }
}

fn whole(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length:")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    (body.len() >= length.unwrap_or(0)).then(|| text.clone().into_owned())
}

/// Sends one whole request on a connection of its own, asks to close, and returns all that comes.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(request).await;
    raw.rest()
        .await
        .unwrap_or_else(|seen| panic!("not closed after {seen:?}"))
}

/// A request with a token; `extra` are further header lines, each with its end.
#[must_use]
pub fn request(line: &str, token: &str, extra: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{extra}Connection: close\r\n\r\n"
    )
}

/// The status of an answer, 0 for an answer without one.
#[must_use]
pub fn status(answer: &str) -> u16 {
    let code = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The body of an answer.
#[must_use]
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
