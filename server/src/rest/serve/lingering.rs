//! A stream that ends softly where a request was answered before all of it was read: closing at once would reset the
//! connection, and with it the answer that the peer has not read yet because it still sends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Taken from the peer and thrown away at most, bytes and time.
const MOST_BYTES: usize = 1024 * 1024;
const LONGEST: Duration = Duration::from_secs(2);

/// Set by whoever answers a request of the connection before its body was read.
#[derive(Clone, Debug, Default)]
pub(in crate::rest) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// The connection ends with something of the request still on its way.
    pub(in crate::rest) fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads on for a while after it has said its last.
pub(super) struct Lingering<S> {
    stream: S,
    unread: Unread,
    ending: Option<Ending>,
}

struct Ending {
    patience: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Lingering<S> {
    /// Lingers when `unread` is marked by the time it is shut down.
    pub(super) fn new(stream: S, unread: Unread) -> Self {
        Self {
            stream,
            unread,
            ending: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ending.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.unread.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let ending = this.ending.get_or_insert_with(|| Ending {
            patience: Box::pin(tokio::time::sleep(LONGEST)),
            left: MOST_BYTES,
        });
        if ending.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut waste = [0_u8; 8 * 1024];
        while ending.left > 0 {
            let mut buffer = ReadBuf::new(&mut waste);
            // What fails or ends now is what was waited for.
            if ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)).is_err()
                || buffer.filled().is_empty()
            {
                break;
            }
            ending.left = ending.left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
