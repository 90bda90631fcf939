//! containerd and CRI-O, by the Kubernetes container runtime interface.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use gpuquota_proto::cri_v1::runtime_service_client::RuntimeServiceClient;
use gpuquota_proto::cri_v1::{
    ContainerStatusRequest, ListPodSandboxRequest, PodSandbox, PodSandboxFilter,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::cache::{Facts, Key};
use super::{Creator, Patience, labels_wanted, socket};
use crate::observation::Reason;
use crate::process::workload::{ContainerId, PodUid};

/// Longest answer that is read, bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// The kubelet writes it on all that it makes, over what the pod says.
const POD_UID: &str = "io.kubernetes.pod.uid";

#[derive(Debug)]
pub(super) struct Cri {
    socket: PathBuf,
    labels: Arc<BTreeSet<String>>,
    patience: Patience,
}

impl Cri {
    pub(super) fn new(socket: PathBuf, labels: Arc<BTreeSet<String>>, patience: Patience) -> Self {
        Self {
            socket,
            labels,
            patience,
        }
    }

    async fn client(&self) -> Result<RuntimeServiceClient<tonic::transport::Channel>, Reason> {
        let channel = socket::channel(&self.socket).await.map_err(|error| {
            tracing::debug!(error = ?error, "the container runtime cannot be reached");
            Reason::RuntimeUnreachable
        })?;
        Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT))
    }

    async fn container(&self, id: &ContainerId) -> Result<Facts, Reason> {
        let request = ContainerStatusRequest {
            container_id: id.as_str().to_owned(),
            verbose: false,
        };
        let answer = self.client().await?.container_status(request).await;
        let unknown = Reason::ContainerUnknown;
        let status = answer
            .map_err(|error| reason(&error, unknown))?
            .into_inner()
            .status;
        let status = status
            .filter(|status| status.id == id.as_str())
            .ok_or(unknown)?;
        Ok(Facts {
            name: status.metadata.map(|metadata| metadata.name),
            labels: labels_wanted(status.labels, &self.labels),
            ..Facts::default()
        })
    }

    async fn pod(&self, uid: &PodUid) -> Result<Facts, Reason> {
        let filter = PodSandboxFilter {
            id: String::new(),
            label_selector: HashMap::from([(POD_UID.to_owned(), uid.as_str().to_owned())]),
        };
        let request = ListPodSandboxRequest {
            filter: Some(filter),
        };
        let answer = self.client().await?.list_pod_sandbox(request).await;
        let answer = answer.map_err(|error| reason(&error, Reason::PodUnknown))?;
        self.facts_of(answer.into_inner().items, uid)
    }

    /// A pod may have several sandboxes one after the other; all are of one namespace, and what the newest says counts.
    pub(super) fn facts_of(&self, items: Vec<PodSandbox>, uid: &PodUid) -> Result<Facts, Reason> {
        let mut newest: Option<(u32, Facts)> = None;
        for sandbox in items {
            let Some(metadata) = sandbox.metadata else {
                continue;
            };
            if metadata.uid != uid.as_str() || metadata.namespace.is_empty() {
                continue;
            }
            let found = Facts {
                namespace: Some(metadata.namespace),
                labels: labels_wanted(sandbox.labels, &self.labels),
                ..Facts::default()
            };
            let Some((attempt, facts)) = &newest else {
                newest = Some((metadata.attempt, found));
                continue;
            };
            let contradict = *attempt == metadata.attempt && *facts != found;
            if contradict || facts.namespace != found.namespace {
                return Err(Reason::PodUnknown);
            }
            if metadata.attempt > *attempt {
                newest = Some((metadata.attempt, found));
            }
        }
        newest.map(|(_, facts)| facts).ok_or(Reason::PodUnknown)
    }
}

impl Creator for Cri {
    const NAME: &'static str = "container runtime";

    async fn tell(&mut self, key: &Key) -> Result<Facts, Reason> {
        let question = async {
            match key {
                Key::Container(container) => self.container(&container.id).await,
                Key::Pod(uid) => self.pod(uid).await,
                Key::Job(..) => Err(Reason::JobUnknown),
            }
        };
        let answer = timeout(self.patience.request, question).await;
        answer.unwrap_or(Err(Reason::RuntimeUnreachable))
    }
}

/// What an error of gRPC means: not to know is an answer.
fn reason(status: &Status, unknown: Reason) -> Reason {
    match status.code() {
        Code::NotFound => return unknown,
        // Beyond the limit: whoever makes a container or pod can give it any labels.
        Code::OutOfRange => return Reason::AnswerUnreadable,
        _ => {}
    }
    tracing::debug!(code = ?status.code(), "the container runtime does not answer");
    Reason::RuntimeUnreachable
}
