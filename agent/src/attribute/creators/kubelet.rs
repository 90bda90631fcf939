//! The kubelet's pod-resources service, where the runtime cannot be asked.
//!
//! It names pods by namespace and name, but a cgroup names them by UID. The folder `NAMESPACE_NAME_UID` that the kubelet, as
//! root, keeps for the logs of each pod joins the two; neither a namespace nor a name can hold a `_`. Which device a pod was
//! given is no evidence of who uses it, so it is not consulted.

use std::path::{Path, PathBuf};

use gpuquota_proto::pod_resources_v1::pod_resources_lister_client::PodResourcesListerClient;
use gpuquota_proto::pod_resources_v1::{ListPodResourcesRequest, PodResources};
use tokio::time::timeout;

use super::cache::{Facts, Key};
use super::{Creator, Patience, socket};
use crate::observation::Reason;
use crate::process::workload::PodUid;

/// Longest answer that is read, bytes: 250 pods with 8 devices each are below 200 KiB.
const ANSWER_LIMIT: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Kubelet {
    socket: PathBuf,
    pod_logs: PathBuf,
    patience: Patience,
}

impl Kubelet {
    pub(super) fn new(socket: PathBuf, pod_logs: PathBuf, patience: Patience) -> Self {
        Self {
            socket,
            pod_logs,
            patience,
        }
    }
}

/// All pods that the kubelet runs.
pub(super) async fn list(socket: &Path) -> Result<Vec<PodResources>, Reason> {
    let unreachable = |error: &dyn std::fmt::Debug| {
        tracing::debug!(?error, "the kubelet does not answer");
        Reason::RuntimeUnreachable
    };
    let channel = socket::channel(socket).await;
    let channel = channel.map_err(|error| unreachable(&error))?;
    let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(ANSWER_LIMIT);
    let answer = client.list(ListPodResourcesRequest {}).await;
    let answer = answer.map_err(|status| unreachable(&status.code()))?;
    Ok(answer.into_inner().pod_resources)
}

impl Creator for Kubelet {
    const NAME: &'static str = "kubelet";

    async fn tell(&mut self, key: &Key) -> Result<Facts, Reason> {
        let Key::Pod(uid) = key else {
            return Err(Reason::PodUnknown);
        };
        let pods = timeout(self.patience.request, list(&self.socket)).await;
        let pods = pods.unwrap_or(Err(Reason::RuntimeUnreachable))?;
        let (pod_logs, uid) = (self.pod_logs.clone(), uid.clone());
        let found = tokio::task::spawn_blocking(move || namespace(&pods, &pod_logs, &uid)).await;
        let namespace = found.ok().flatten().ok_or(Reason::PodUnknown)?;
        Ok(Facts {
            namespace: Some(namespace),
            ..Facts::default()
        })
    }
}

pub(super) fn namespace(pods: &[PodResources], pod_logs: &Path, uid: &PodUid) -> Option<String> {
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    };
    let named = pods
        .iter()
        .filter(|pod| plain(&pod.namespace) && plain(&pod.name));
    let mut fitting = named.filter(|pod| {
        let folder = format!("{}_{}_{}", pod.namespace, pod.name, uid.as_str());
        std::fs::symlink_metadata(pod_logs.join(folder)).is_ok_and(|found| found.is_dir())
    });
    fitting.next().map(|pod| pod.namespace.clone())
}
