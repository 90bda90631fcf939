//! A workload in a group of its own, and an agent that asks whose it is.

use std::time::Duration;

use gpuquota_agent::attribute::{AttributionConfig, Observer, Patience};
use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::gpu::sampler::{Collected, Sampler};
use gpuquota_agent::observation::{Observation, Owner};

use crate::cgroup::Cgroup;
use crate::node::{Node, PATIENCE, sample_until};
use crate::runtimes::Listening;

/// 64 hexadecimal digits that no other test has.
pub(crate) fn fresh_id() -> String {
    let half = || uuid::Uuid::new_v4().simple().to_string();
    half() + &half()
}

/// A workload in a group of its own, and an agent that looks at it.
pub(crate) struct Look {
    pub(crate) node: Node,
    pub(crate) sampler: Sampler,
    observer: Observer,
    previous: Option<Observation>,
    pid: u32,
    _cgroup: Cgroup,
}

impl Look {
    pub(crate) fn at(path: &str, rules: impl FnOnce(&Node) -> String) -> Option<Self> {
        let cgroup = Cgroup::new(path)?;
        let node = Node::new("t4x1");
        let pid = node.run_on("0", None);
        cgroup.take(pid);
        let ms = Duration::from_millis;
        let patience = Patience {
            request: ms(300),
            command: ms(2_000),
            pause: (ms(10), ms(40)),
        };
        let config: AttributionConfig = toml::from_str(&rules(&node)).unwrap();
        Some(Self {
            observer: Observer::with_patience(&config, None, patience).unwrap(),
            sampler: node.sampler(),
            previous: None,
            pid,
            node,
            _cgroup: cgroup,
        })
    }

    pub(crate) async fn owner(&mut self) -> Owner {
        // On a machine with much to do a call may pass its deadline.
        let answers = |collected: &Collected| collected.reading.is_some();
        let collected = sample_until(&mut self.sampler, answers).await;
        // Far apart, so that what is to be asked again is asked.
        let now_ms = boottime_ms() + self.previous.as_ref().map_or(0, |_| 100_000);
        let seen = self
            .observer
            .observe(collected, self.previous.as_ref(), now_ms);
        let device = seen.devices.values().next().unwrap();
        let process = device
            .processes
            .iter()
            .find(|process| process.pid == Some(self.pid));
        let owner = process.unwrap().owner.clone();
        self.previous = Some(seen);
        owner
    }

    /// What is found once this server has been asked and has had its say.
    pub(crate) async fn owner_by(&mut self, server: &Listening) -> Owner {
        let end = tokio::time::Instant::now() + PATIENCE;
        while server.connections() == 0 {
            self.owner().await;
            assert!(tokio::time::Instant::now() < end, "it is not asked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.observer.answered(PATIENCE).await;
        self.owner().await
    }

    pub(crate) async fn until(&mut self, wanted: &Owner) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let owner = self.owner().await;
            if owner == *wanted {
                return;
            }
            assert!(
                matches!(owner, Owner::Unattributed(_)),
                "{owner:?}, not {wanted:?}"
            );
            assert!(
                tokio::time::Instant::now() < end,
                "{owner:?}, not {wanted:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
