//! Which pod was given which device, asked of the kubelet for whoever scrapes it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::attribute::{self, Patience};
use crate::clock::boottime_ms;
use crate::metrics::snapshot::Board;

/// How often it is looked whether the kubelet must be asked.
const GLANCE: Duration = Duration::from_secs(1);
/// How often it is asked while somebody wants to know.
const GRANTED_EVERY_MS: u64 = 10_000;

// Only while somebody scrapes the rows that say which pod was given a device; a new scraper does not wait long for them.
pub(super) async fn ask_kubelet(socket: PathBuf, board: Arc<Board>, stop: CancellationToken) {
    let mut due_ms = 0;
    let mut ticks = tokio::time::interval(GLANCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let now_ms = boottime_ms();
        if now_ms < due_ms || !board.more_wanted(now_ms) {
            continue;
        }
        due_ms = now_ms.saturating_add(GRANTED_EVERY_MS);
        if let Some(granted) = attribute::granted(socket.clone(), Patience::default()).await {
            board.post_granted(granted, boottime_ms());
        }
    }
}
