//! All that a run has, and the way from callers to servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::id::OpId;
use gpuquota_server::service::Origin;
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{Invoke, Reply, fnv};
use crate::dice::Dice;
use crate::history::{History, request_id};
use crate::journal::Database;
use crate::plan::{Fault, Plan};
use crate::replica::Replica;

const PATIENCE: Duration = Duration::from_secs(5);

/// One run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) begin: Instant,
    pub(crate) history: History,
    pub(crate) database: Arc<Database>,
    pub(crate) replicas: Vec<Arc<Replica>>,
    /// No faults happen any more.
    pub(crate) calm: Arc<AtomicBool>,
    /// Operations to go.
    pub(crate) left: AtomicU64,
}

/// What a caller asks.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) caller: String,
    pub(crate) command: Command,
    pub(crate) op: Option<String>,
    pub(crate) fingerprint: Option<String>,
}

/// Differs where the commands differ.
pub(crate) fn fingerprint(command: &Command) -> String {
    fnv(format!("{command:?}").as_bytes())
}

impl World {
    /// Takes one of the operations that are left.
    pub(crate) fn take(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.plan.faults.contains(&fault) && !self.calm.load(Ordering::Relaxed)
    }

    /// Any server.
    pub(crate) fn any(&self, dice: &mut Dice) -> usize {
        dice.index(self.replicas.len())
    }

    /// Asks a server and waits for what comes back. The way is as bad as the plan says.
    pub(crate) async fn call(&self, dice: &mut Dice, to: usize, request: &Request) -> Reply {
        let replica = &self.replicas[to];
        let call = self.history.invoke(Invoke {
            call: 0,
            caller: request.caller.clone(),
            server: replica.name.clone(),
            request: None,
            op: request.op.clone(),
            fingerprint: request.fingerprint.clone(),
            command: format!("{:?}", request.command),
        });
        let reply = self.carry(dice, replica, request, call).await;
        self.history.answer(call, reply.clone());
        reply
    }

    async fn carry(
        &self,
        dice: &mut Dice,
        replica: &Replica,
        request: &Request,
        call: u64,
    ) -> Reply {
        let bad = self.has(Fault::Network);
        let [lost, twice, unheard] = [30, 60, 50].map(|often| dice.chance(often) && bad);
        let [there, between, back] = [(); 3].map(|()| if bad { dice.delay() } else { 0 });
        let origin = |request_id| Origin {
            actor: request.caller.clone(),
            request_id,
            from: None,
            reason: None,
            op: request.op.as_deref().map(|op| OpId::new(op).unwrap()),
            fingerprint: request.fingerprint.clone(),
        };
        sleep(Duration::from_millis(there)).await;
        if lost {
            sleep(PATIENCE).await;
            return Reply::Lost;
        }
        let Some(answer) = replica.ask(request.command.clone(), origin(Some(request_id(call))))
        else {
            let reason = "nobody listens".to_owned();
            return Reply::Refused { reason };
        };
        // Something on the way repeats it. What that does is nobody's call.
        if twice && request.fingerprint.is_some() {
            sleep(Duration::from_millis(between)).await;
            drop(replica.ask(request.command.clone(), origin(None)));
        }
        let answer = timeout(PATIENCE, answer).await;
        if unheard {
            return Reply::Lost;
        }
        sleep(Duration::from_millis(back)).await;
        match answer {
            Ok(Ok(reply)) => reply,
            // The server ended, or takes too long.
            Ok(Err(_)) | Err(_) => Reply::Lost,
        }
    }
}
