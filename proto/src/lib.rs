//! What is true of the wire: the messages between agent and server, who a certificate names, how TLS is set up, the
//! digest by which both sides notice that they disagree, and how both answer a Prometheus scrape.

pub mod authorities;
pub mod digest;
pub mod exposition;
pub mod form;
pub mod identity;
pub mod pinned;
pub mod tls;
mod verifier;

/// Generated from `agent.proto`; that file is the documentation.
#[expect(clippy::all, rustdoc::invalid_html_tags, reason = "generated code")]
pub mod agent_v1 {
    tonic::include_proto!("gpuquota.agent.v1");
}

/// What containerd, CRI-O and others speak with a kubelet; generated from `cri.proto`.
pub mod cri_v1 {
    tonic::include_proto!("runtime.v1");
}

/// What a kubelet tells of devices in pods; generated from `podresources.proto`.
pub mod pod_resources_v1 {
    tonic::include_proto!("v1");
}

/// Largest message either side accepts, in bytes: a full report of 2048 devices is well below.
pub const MESSAGE_LIMIT_BYTES: usize = 4 * 1024 * 1024;
/// Largest signing request, in bytes.
pub const CSR_LIMIT_BYTES: usize = 16 * 1024;
/// Authorities that one side trusts, at most.
pub const AUTHORITIES: usize = 8;
/// Devices in one report, at most.
pub const DEVICES_PER_REPORT: usize = 2048;
/// Tenants on one device, at most.
pub const TENANTS_PER_DEVICE: usize = 256;
/// Verdicts in one policy, at most.
pub const VERDICTS_PER_POLICY: usize = 4096;
/// Card rules in one policy, at most.
pub const CARD_RULES_PER_POLICY: usize = 1024;
/// Steps in one intent, at most.
pub const STEPS_PER_INTENT: usize = 256;
