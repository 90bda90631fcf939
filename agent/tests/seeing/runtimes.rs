//! Those who make containers and pods, on real Unix sockets with their published interfaces.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gpuquota_proto::cri_v1 as cri;
use gpuquota_proto::cri_v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use gpuquota_proto::pod_resources_v1 as kubelet;
use gpuquota_proto::pod_resources_v1::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tonic::{Response as Answer, Status};

/// A listener whose tasks end with it.
#[derive(Debug)]
pub(crate) struct Listening(JoinHandle<()>, Arc<AtomicUsize>);

impl Listening {
    /// How often somebody has connected.
    pub(crate) fn connections(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn listen<F: Future<Output = ()> + Send + 'static>(
    socket: &Path,
    answer: impl Fn(UnixStream) -> F + Send + 'static,
) -> Listening {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(answer(stream));
        }
    });
    Listening(task, connections)
}

/// Docker Engine: `GET /containers/ID/json` for one container.
pub(crate) fn docker(socket: &Path, id: &str, labels: &[(&str, &str)]) -> Listening {
    let labels: HashMap<&str, &str> = labels.iter().copied().collect();
    let body = serde_json::json!({
        "Id": id, "Created": "2026-11-22T10:00:00Z", "Name": "/job-1", "Image": "sha256:1",
        "State": {"Status": "running", "Pid": 1}, "Config": {"Image": "cuda", "Labels": labels, "Env": ["TENANT=x"]},
    });
    let (body, path) = (body.to_string(), format!("/containers/{id}/json"));
    listen(socket, move |stream| {
        let (body, path) = (body.clone(), path.clone());
        async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let known = request.uri().path() == path;
                let text = if known {
                    body.clone()
                } else {
                    r#"{"message":"No such container"}"#.to_owned()
                };
                let mut response = Response::new(Full::new(Bytes::from(text)));
                if !known {
                    *response.status_mut() = hyper::StatusCode::NOT_FOUND;
                }
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let server = http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        }
    })
}

/// Reads something and writes this, again and again until nobody reads; then the connection stays open.
pub(crate) fn hostile(socket: &Path, once: &'static [u8], again: &'static [u8]) -> Listening {
    listen(socket, move |mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(once).await;
        while !again.is_empty() && stream.write_all(again).await.is_ok() {}
        std::future::pending::<()>().await;
    })
}

/// A container runtime and its pods, as a kubelet has made them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cri {
    pub(crate) containers: Vec<cri::ContainerStatus>,
    pub(crate) sandboxes: Vec<cri::PodSandbox>,
    /// How often it was asked.
    pub(crate) asked: Arc<Mutex<usize>>,
}

impl Cri {
    /// `labels` may even replace those that a kubelet writes.
    pub(crate) fn sandbox(uid: &str, namespace: &str, labels: &[(&str, &str)]) -> cri::PodSandbox {
        let own = [
            ("io.kubernetes.pod.uid", uid),
            ("io.kubernetes.pod.namespace", namespace),
        ];
        let labels = own.iter().chain(labels);
        cri::PodSandbox {
            id: "f".repeat(64),
            metadata: Some(cri::PodSandboxMetadata {
                name: "train-0".to_owned(),
                uid: uid.to_owned(),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    pub(crate) fn serve(self, socket: &Path) -> Listening {
        let service = RuntimeServiceServer::new(self);
        listen(socket, move |stream| {
            let service = TowerToHyperService::new(service.clone());
            async move {
                let server = http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }
}

#[tonic::async_trait]
impl RuntimeService for Cri {
    async fn container_status(
        &self,
        request: tonic::Request<cri::ContainerStatusRequest>,
    ) -> Result<Answer<cri::ContainerStatusResponse>, Status> {
        *self.asked.lock().unwrap() += 1;
        let id = request.into_inner().container_id;
        let status = self
            .containers
            .iter()
            .find(|status| status.id == id)
            .cloned();
        let status = status.ok_or_else(|| Status::not_found(id))?;
        Ok(Answer::new(cri::ContainerStatusResponse {
            status: Some(status),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: tonic::Request<cri::ListPodSandboxRequest>,
    ) -> Result<Answer<cri::ListPodSandboxResponse>, Status> {
        *self.asked.lock().unwrap() += 1;
        let selector = request.into_inner().filter.unwrap().label_selector;
        let fits = |item: &&cri::PodSandbox| {
            selector
                .iter()
                .all(|(key, value)| item.labels.get(key) == Some(value))
        };
        let items = self.sandboxes.iter().filter(fits).cloned().collect();
        Ok(Answer::new(cri::ListPodSandboxResponse { items }))
    }
}

/// A kubelet's pod-resources service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kubelet(pub(crate) Vec<kubelet::PodResources>);

impl Kubelet {
    /// A pod with one container that was given this device, named as NVIDIA's device plugin does.
    pub(crate) fn pod(namespace: &str, name: &str, device: &str) -> kubelet::PodResources {
        kubelet::PodResources {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            containers: vec![kubelet::ContainerResources {
                name: "main".to_owned(),
                devices: vec![kubelet::ContainerDevices {
                    resource_name: "nvidia.com/gpu".to_owned(),
                    device_ids: vec![device.to_owned()],
                }],
            }],
        }
    }

    pub(crate) fn serve(self, socket: &Path) -> Listening {
        let service = PodResourcesListerServer::new(self).max_encoding_message_size(usize::MAX);
        listen(socket, move |stream| {
            let service = TowerToHyperService::new(service.clone());
            async move {
                let server = http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Kubelet {
    async fn list(
        &self,
        _: tonic::Request<kubelet::ListPodResourcesRequest>,
    ) -> Result<Answer<kubelet::ListPodResourcesResponse>, Status> {
        Ok(Answer::new(kubelet::ListPodResourcesResponse {
            pod_resources: self.0.clone(),
        }))
    }
}
