//! What time alone brings about: quotas that end, nodes that fall silent.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::event::SilenceReason;
use gpuquota_core::node::NodeState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::liveness::Liveness;
use super::{Ledger, LedgerError, Origin, Replicas};
use crate::clock::Clock;

const TICK: Duration = Duration::from_secs(1);

/// Looks every second until `stop`.
pub async fn sweep(
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    liveness: Arc<Liveness>,
    mut replicas: Replicas,
    silent_after: Duration,
    stop: CancellationToken,
) {
    let silent_after_ms = u64::try_from(silent_after.as_millis()).unwrap_or(u64::MAX);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let shared = ledger.shared();
        if shared.others() {
            replicas.beat(clock.boot_ms()).await;
        }
        let committed = ledger.read();
        let state = &committed.state;
        if state.next_due().is_some_and(|due| due <= clock.wall()) {
            submit(&ledger, Command::Sweep).await;
        }
        let now_ms = clock.boot_ms();
        for (node, known) in state.nodes() {
            // Where others serve too, a node is declared silent by the server that hears it, or by any once that is gone.
            let owner = known
                .owner
                .as_deref()
                .filter(|owner| *owner != shared.writer());
            let ours = !shared.others() || owner.is_none_or(|owner| replicas.lapsed(owner, now_ms));
            let silent = liveness.silent_ms(node, now_ms) > silent_after_ms;
            if known.state == NodeState::Up && ours && silent {
                tracing::warn!(node.name = %node, "node is silent; what it holds stays charged");
                let command = Command::MarkSilent {
                    node: node.clone(),
                    session: known.session,
                    reason: SilenceReason::Timeout,
                };
                submit(&ledger, command).await;
            }
        }
    }
}

async fn submit(ledger: &Ledger, command: Command) {
    match ledger.submit(command, Origin::server()).await {
        // A newer session makes a silence void; overload is tried again by the next tick.
        Ok(_) | Err(LedgerError::Denied(_) | LedgerError::Overloaded) => {}
        Err(error @ (LedgerError::Unavailable(_) | LedgerError::Unknown)) => {
            tracing::warn!(error = %error, "cannot record what time brought about");
        }
    }
}
