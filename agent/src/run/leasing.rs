//! Commands under leases, as the loop sees them: started once, and then on their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::attribute::AttributionConfig;
use crate::config::UplinkTarget;
use crate::enforce::cgroup_root;
use crate::enforce::client::Enforcer;
use crate::exec::book::Book;
use crate::exec::config::ExecConfig;
use crate::exec::desk::{Desk, ORDERS, POLICY};
use crate::exec::figures::Figures;
use crate::exec::lessor::ByServer;
use crate::exec::{door, keeper};
use crate::leased::Leased;
use crate::observation::Observation;
use crate::uplink::dialogue::Dialogue;

/// What of the agent leasing works with.
pub(super) struct Leasing<'a> {
    pub(super) exec: ExecConfig,
    pub(super) attribution: AttributionConfig,
    pub(super) enforcer: PathBuf,
    pub(super) target: &'a UplinkTarget,
    pub(super) dialogue: Arc<Dialogue>,
    pub(super) seen: watch::Receiver<Option<Arc<Observation>>>,
    pub(super) state: &'a Path,
    pub(super) proc_root: PathBuf,
    pub(super) boot_id: &'a str,
    pub(super) leased: Arc<Leased>,
    pub(super) figures: Arc<Figures>,
}

impl Leasing<'_> {
    /// Listens, and looks after what was leased before.
    pub(super) fn start(self, stop: &CancellationToken) {
        let book = Arc::new(Book::open(
            self.state,
            self.boot_id,
            Arc::clone(&self.leased),
        ));
        let lessor = Arc::new(ByServer {
            server: self.target.server.clone(),
            credentials: self.target.credentials.clone(),
        });
        tokio::spawn(keeper::keep(
            Arc::clone(&book),
            Arc::clone(&lessor),
            cgroup_root(),
            Arc::clone(&self.figures),
            stop.clone(),
        ));
        if self.exec.socket.as_os_str().is_empty() {
            return;
        }
        let desk = Desk {
            lessor,
            hands: Enforcer::new(self.enforcer),
            book,
            dialogue: self.dialogue,
            seen: self.seen,
            observer: Mutex::new(None),
            attribution: self.attribution,
            state: self.state.to_owned(),
            proc_root: self.proc_root,
            groups: cgroup_root(),
            boot_id: self.boot_id.to_owned(),
            orders: Semaphore::new(ORDERS),
            figures: self.figures,
            patience: POLICY,
        };
        let stop = stop.clone();
        tokio::spawn(async move { door::open(&self.exec.socket, desk, stop).await });
    }
}
