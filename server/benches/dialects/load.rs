//! Clients that do as little as possible: one request after the other on a kept connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gpuquota_server::auth::Role;
use gpuquota_server::auth::token::Grant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What is asked, and where.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    request: Arc<dyn Fn() -> Arc<str> + Send + Sync>,
}

impl Target {
    /// What `request` makes each time.
    pub(crate) fn made(
        address: SocketAddr,
        request: impl Fn() -> Arc<str> + Send + Sync + 'static,
    ) -> Self {
        Self {
            address,
            request: Arc::new(request),
        }
    }
}

/// One answer: status and body.
pub(crate) async fn once(target: &Target) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(target.address).await?;
    let mut buffer = Vec::new();
    ask(&mut stream, target, &mut buffer).await
}

/// Latencies of all answers that these connections got in this time.
pub(crate) async fn measure(
    target: &Target,
    connections: usize,
    time: Duration,
) -> io::Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let clients: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(client(target.clone(), end)))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    Ok(latencies)
}

async fn client(target: Target, end: Instant) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        let length = exchange(&mut stream, &target, &mut buffer).await?;
        if !buffer.starts_with(b"HTTP/1.1 20") {
            let text = String::from_utf8_lossy(&buffer).into_owned();
            return Err(io::Error::other(text));
        }
        buffer.drain(..length);
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

async fn ask(
    stream: &mut TcpStream,
    target: &Target,
    buffer: &mut Vec<u8>,
) -> io::Result<(u16, String)> {
    let length = exchange(stream, target, buffer).await?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
    let status = text.split(' ').nth(1).and_then(|it| it.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (status, body) {
        (Some(status), Some(body)) => Ok((status, body)),
        _ => Err(io::Error::other("no HTTP answer")),
    }
}

// Sends the request and reads until a whole answer stands at the front of the buffer; its length.
async fn exchange(
    stream: &mut TcpStream,
    target: &Target,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    stream.write_all((target.request)().as_bytes()).await?;
    loop {
        if let Some(length) = whole(buffer) {
            return Ok(length);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(buffer.get(..head)?).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    })?;
    (buffer.len() >= head + length).then_some(head + length)
}

/// Who asks.
pub(crate) fn admin() -> Grant {
    Grant {
        subject: "bench".into(),
        role: Role::Admin,
        tenants: [].into(),
        projects: [].into(),
        user: None,
        container: None,
    }
}
