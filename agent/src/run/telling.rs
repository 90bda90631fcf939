//! The way to the server, as the loop sees it: what it observed goes into the outbox, what was told is kept on disk.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::UplinkTarget;
use crate::facts::Node;
use crate::join::renewal::Renewal;
use crate::join::trust::Authorities;
use crate::observation::Observation;
use crate::report::Reporter;
use crate::report::bucket::Allowance;
use crate::spool::{Limits, Spool, remembered};
use crate::state::StateFolder;
use crate::uplink::Uplink;
use crate::uplink::backoff::Waits;
use crate::uplink::dialogue::Dialogue;
use crate::uplink::outbox::{Good, Outbox};
use crate::uplink::status::UplinkStatus;

/// The way to the server, as the loop sees it.
pub(super) struct Telling {
    pub(super) outbox: Arc<Outbox>,
    pub(super) status: Arc<UplinkStatus>,
    pub(super) dialogue: Arc<Dialogue>,
    reporter: Reporter,
    boot_id: String,
    last_view: PathBuf,
}

impl Telling {
    pub(super) fn start(
        target: UplinkTarget,
        state: &StateFolder,
        boot_id: &str,
        limits: Limits,
        stop: &CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let node = &target.credentials.node;
        let spool = Spool::open(&state.spool(), node, boot_id, limits);
        let outbox = Arc::new(Outbox::new(spool));
        let last_view = state.last_view();
        let known = remembered::load(&last_view, boot_id);
        let status = Arc::<UplinkStatus>::default();
        let dialogue = Arc::new(Dialogue::new(boot_id));
        tracing::info!(
            node.name = node,
            server.host = target.server.host,
            "reporting"
        );
        let mut authorities = None;
        if target.renew {
            let (keeper, wanted) = Authorities::new(target.credentials.files.clone());
            authorities = Some(keeper);
            let renewal = Renewal {
                server: target.server.clone(),
                credentials: target.credentials.clone(),
                wanted,
            };
            tokio::spawn(renewal.run(stop.clone()));
        }
        let uplink = Uplink {
            server: target.server,
            credentials: target.credentials,
            boot_id: boot_id.to_owned(),
            waits: Waits::default(),
            outbox: Arc::clone(&outbox),
            dialogue: Arc::clone(&dialogue),
            status: Arc::clone(&status),
            authorities,
        };
        let disk = Arc::clone(&outbox);
        let (stop_uplink, stop_disk) = (stop.clone(), stop.clone());
        let task = tokio::spawn(async move {
            tokio::join!(uplink.run(stop_uplink), disk.keep_synced(&stop_disk));
        });
        let telling = Self {
            outbox,
            status,
            dialogue,
            reporter: Reporter::new(Node::read(), Allowance::default(), known),
            boot_id: boot_id.to_owned(),
            last_view,
        };
        (telling, task)
    }

    pub(super) fn tell(
        &mut self,
        observation: &Observation,
        unidentified: u32,
        good: Option<Good>,
    ) {
        let told = self
            .outbox
            .tell(&mut self.reporter, observation, unidentified, good);
        if !told {
            return;
        }
        let devices = self.reporter.full().devices;
        if let Err(error) = remembered::save(&self.last_view, &self.boot_id, devices) {
            tracing::debug!(%error, "last view not kept");
        }
    }
}
