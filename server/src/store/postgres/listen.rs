//! Hears of other servers' rows by LISTEN. Only a hint: whoever must know polls as well.

use std::time::Duration;

use gpuquota_core::id::Seq;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) const CHANNEL: &str = "gpuquota_journal";
const AGAIN: Duration = Duration::from_secs(1);

/// Passes on what it hears until `stop`.
pub(super) async fn listen(pool: PgPool, told: watch::Sender<Seq>, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = hear(&pool, &told) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "nothing is heard of other servers' rows; the journal is polled");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

// Until the connection is lost.
async fn hear(pool: &PgPool, told: &watch::Sender<Seq>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    while let Some(heard) = listener.try_recv().await? {
        if let Ok(seq) = heard.payload().parse() {
            told.send_if_modified(|last| {
                let newer = *last < Seq(seq);
                *last = Seq(seq).max(*last);
                newer
            });
        }
    }
    Ok(())
}
