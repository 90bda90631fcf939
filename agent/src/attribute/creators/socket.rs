//! A Unix socket at whose other end only root, or the agent's own user, is believed.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Connects and asks the kernel who answers.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path).await?;
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is answered by user {peer}, who is not believed",
                path.display()
            ),
        ));
    }
    Ok(stream)
}

/// HTTP/2 over it.
pub(super) async fn channel(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = PathBuf::from(path);
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { connect(&path).await.map(TokioIo::new) }
    });
    // The name says nothing: the socket is the address.
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await
}
