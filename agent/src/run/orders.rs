//! What people tell the running agent to do: leave the driver alone, and read it again.

use std::time::Duration;

use tokio::time::Instant;

use super::Watch;
use crate::clock::{boottime_ms, unix_s};
use crate::control::quiet::Quiet;
use crate::control::server::Order;
use crate::control::{Answer, Request};

/// Within this all that holds the driver open has ended, or is stuck in it.
const QUIESCE_DEADLINE: Duration = Duration::from_millis(1900);

impl Watch {
    pub(super) async fn obey(&mut self, order: Order) {
        let begun = Instant::now();
        // Whoever asked was told by now that nothing happens.
        let Some((request, answer)) = order.take() else {
            tracing::warn!("an order that came too late is not obeyed");
            return;
        };
        let mut warning = None;
        let open = match request {
            Request::Quiesce { for_ms, reason } => {
                let quiet = Quiet::begin(self.boot_id.clone(), for_ms, reason, boottime_ms());
                if let Err(error) = quiet.save(&self.state) {
                    tracing::error!(%error, "that the driver is left alone is not kept over a restart of the agent");
                    warning = Some(format!(
                        "an agent that restarts meanwhile opens the driver, for the order cannot be kept in {}: {error}",
                        self.state.display()
                    ));
                }
                self.quiesce(quiet).await
            }
            Request::Resume => {
                self.resume();
                Vec::new()
            }
        };
        let told = Answer {
            done: open.is_empty(),
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            open,
            warning,
            error: None,
        };
        // Whoever asked may have gone; it is done all the same.
        let _ = answer.send(told);
    }

    /// Ends all that holds the driver open; returns what does not end.
    pub(super) async fn quiesce(&mut self, quiet: Quiet) -> Vec<u32> {
        let text = quiet.text(boottime_ms(), unix_s());
        let open = self.sampler.quiesce(text.clone(), QUIESCE_DEADLINE).await;
        tracing::warn!(
            quiesced = text,
            ?open,
            "the driver is left alone on request; holders stay as they were last seen"
        );
        self.quiet = Some(quiet);
        open
    }

    pub(super) fn resume(&mut self) {
        if self.quiet.take().is_some() {
            tracing::info!("the driver is read again");
        }
        if let Err(error) = Quiet::clear(&self.state) {
            tracing::error!(%error, "the file `quiesced` in the state directory cannot be removed: a restart of the agent would obey it again");
        }
        self.sampler.resume();
    }
}
