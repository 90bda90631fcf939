//! The server's `/metrics`: the ledger's gauges, computed from one immutable state for each scrape.
//!
//! Ledger gauges are the same on every replica: aggregate them with `max by`, never with `sum`.

mod authority;
mod drains;
mod leases;
mod licences;
mod meter;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use gpuquota_core::State;
use gpuquota_core::id::{NodeName, QuotaId, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::node::{Node, NodeState};
use gpuquota_core::quota::Quota;
use gpuquota_core::step::StepClass;
use gpuquota_core::usage::{Usage, usage};
use gpuquota_proto::exposition::{CONTENT_TYPE, Families, Labels, admits, truth};
use http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};

use crate::clock::Clock;
use crate::grpc::{Sessions, Trusting};
use crate::service::Ledger;
use crate::service::liveness::Liveness;
use crate::tls::Certificates;
use crate::webhook::Notices;

/// What a scrape reads.
pub struct Metrics {
    /// The ledger.
    pub ledger: Ledger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who was heard when.
    pub liveness: Arc<Liveness>,
    /// Open agent streams.
    pub sessions: Sessions,
    /// Whose certificates count.
    pub trusting: Trusting,
    /// Who is told of steps.
    pub(crate) notices: Notices,
    /// Token that every scrape must carry.
    pub token: Option<String>,
    /// Each TLS listener's certificate.
    pub certificates: Vec<Arc<Certificates>>,
}

/// The metrics listener's router.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new().fallback(move |request: Request| {
        let metrics = metrics.clone();
        async move {
            // Many thousand rows take a while; no task of the runtime, such as a report, waits for them.
            let answer = tokio::task::spawn_blocking(move || metrics.answer(&request));
            answer
                .await
                .unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"))
        }
    })
}

impl Metrics {
    fn answer(&self, request: &Request) -> Response {
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        let authorization = request.headers().get(AUTHORIZATION);
        if !admits(
            self.token.as_deref(),
            authorization.map(HeaderValue::as_bytes),
        ) {
            let mut response = plain(StatusCode::UNAUTHORIZED, "unauthorized\n");
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            return response;
        }
        match self.families().text() {
            Ok(text) => with_type(StatusCode::OK, CONTENT_TYPE, Body::from(text)),
            Err(error) => {
                tracing::error!(error = %error, "metrics cannot be written");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
            }
        }
    }

    fn families(&self) -> Families {
        let committed = self.ledger.read();
        let state = &committed.state;
        let mut families = Families::default();
        families
            .gauge(
                "gpuquota_server_build_info",
                "Version of the server, always 1.",
            )
            .row(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let usages = usages(state);
        quotas(&mut families, state, &usages);
        violations(&mut families, state, &usages);
        leases::leases(&mut families, state, self.clock.wall());
        licences::licences(&mut families, state);
        drains::drains(&mut families, state);
        self.nodes(&mut families, state);
        let nodes = state.nodes().map(|(name, _)| name);
        let counts = self.liveness.authorities.counts(nodes);
        authority::authority(&mut families, &self.trusting.now(), &counts);
        let now_ms = self.clock.boot_ms();
        steps::steps(&mut families, state, &self.liveness.policies, now_ms);
        steps::webhook(&mut families, &self.notices);
        families
            .gauge(
                "gpuquota_agent_sessions",
                "Agent streams open on this server.",
            )
            .value(self.sessions.count() as f64);
        families
            .gauge("gpuquota_journal_seq", "Last row of the journal.")
            .value(state.seq().0 as f64);
        let age_ms = self.ledger.shared().age_ms(self.clock.boot_ms());
        families
            .gauge(
                "gpuquota_ledger_age_seconds",
                "How long ago this server's ledger was surely the newest; grows while its database is not reached.",
            )
            .value(age_ms as f64 / 1000.0);
        families
            .gauge(
                "gpuquota_journal_head_prefix",
                "First 48 bits of the hash of the last journal row, to compare with a copy of the journal.",
            )
            .value(committed.head.prefix() as f64);
        families
            .gauge(
                "gpuquota_journal_incarnation",
                "How often the journal was restored from a backup.",
            )
            .value(f64::from(state.incarnation().0));
        let mut rows = families.gauge(
            "gpuquota_certificate_not_after_timestamp_seconds",
            "End of the certificate that a listener's next connection will see, seconds since 1970.",
        );
        for certificates in &self.certificates {
            let labels = [("listener", certificates.listener())];
            rows.row(&labels, certificates.not_after_unix_s() as f64);
        }
        self.counters(&mut families);
        meter::meter(&mut families, state, self.ledger.counters());
        families
    }

    fn nodes(&self, families: &mut Families, state: &State) {
        let mut rows = families.gauge("gpuquota_nodes", "Nodes by state.");
        for wanted in NodeState::ALL {
            let count = state
                .nodes()
                .filter(|(_, node)| node.state == wanted)
                .count();
            rows.row(&[("state", wanted.as_str())], count as f64);
        }
        let (now_ms, wall) = (self.clock.boot_ms(), self.clock.wall());
        let mut rows = families.gauge(
            "gpuquota_node_report_age_seconds",
            "Age of the newest good reading that a node told of; absent until it told of one.",
        );
        // Each node is told of by the server that hears it.
        let shared = self.ledger.shared();
        let elsewhere = |node: &Node| {
            let owner = node.owner.as_deref();
            shared.others()
                && node.state == NodeState::Up
                && owner.is_some_and(|owner| owner != shared.writer())
        };
        for (name, node) in state.nodes().filter(|(_, node)| !elsewhere(node)) {
            if let Some(age_ms) = self.age_ms(name, node, now_ms, wall) {
                rows.row(&[("node", name.as_str())], age_ms as f64 / 1000.0);
            }
        }
        let mut rows = families.gauge(
            "gpuquota_unattributed_devices",
            "Devices with at least one process that belongs to no tenant.",
        );
        for (name, node) in state.nodes() {
            let devices = node.devices.iter().filter_map(|key| state.device(key));
            let count = devices.filter(|device| device.report.unattributed).count();
            rows.row(&[("node", name.as_str())], count as f64);
        }
    }

    // By the node's heartbeats since this server runs, before that by the journal.
    fn age_ms(&self, name: &NodeName, node: &Node, now_ms: u64, wall: Timestamp) -> Option<u64> {
        let heard = self.liveness.of(name);
        if let Some(collected_ms) = heard.and_then(|heard| heard.collected_ms) {
            return Some(now_ms.saturating_sub(collected_ms));
        }
        let observed = node.observed_at?;
        Some(u64::try_from(wall.0.saturating_sub(observed.0)).unwrap_or(0))
    }

    fn counters(&self, families: &mut Families) {
        let counters = self.ledger.counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        families
            .counter(
                "gpuquota_history_rows_total",
                "Journal rows folded to answer reads of the past.",
            )
            .row(&[], self.ledger.history().folded() as f64);
        let mut rows = families.counter(
            "gpuquota_commands_total",
            "Commands to the ledger by result.",
        );
        rows.row(&[("result", "granted")], read(&counters.granted));
        rows.row(&[("result", "denied")], read(&counters.denied));
        rows.row(&[("result", "failed")], read(&counters.failed));
        families
            .counter(
                "gpuquota_journal_appends_total",
                "Statements that wrote to the journal.",
            )
            .value(read(&counters.appends));
        families
            .counter(
                "gpuquota_journal_rows_total",
                "Rows written to the journal.",
            )
            .value(read(&counters.rows));
    }
}

// Every tenant that has a quota or holds something, known to the ledger or not.
fn usages(state: &State) -> BTreeMap<&TenantName, Usage> {
    let known = state.tenants().map(|(name, _)| name);
    known
        .chain(state.holders())
        .map(|tenant| (tenant, usage(state, tenant)))
        .collect()
}

fn of_quota(quota: &Quota) -> Labels {
    Labels::new(&[
        ("tenant", quota.key.tenant.as_str()),
        ("region", quota.key.region.as_str()),
        ("source", quota.key.source.as_str()),
        ("type", quota.key.quota_type.as_str()),
        ("gpu_model", quota.key.gpu_model.as_str()),
    ])
}

fn quotas(families: &mut Families, state: &State, usages: &BTreeMap<&TenantName, Usage>) {
    // Labels are the same in every family, and with many quotas most of the work.
    let labelled: Vec<(Labels, Option<&Usage>, &Quota)> = state
        .quotas()
        .map(|quota| {
            let labels = of_quota(quota);
            (labels, usages.get(&quota.key.tenant), quota)
        })
        .collect();
    let mut family = |name, help, value: &dyn Fn(&Quota, Option<&Usage>) -> f64| {
        let mut rows = families.gauge(name, help);
        for (labels, usage, quota) in &labelled {
            rows.labelled(labels, value(quota, *usage));
        }
    };
    family(
        "gpuquota_quota_limit",
        "Devices that the quota entitles to; +Inf is unlimited.",
        &|quota, _| match quota.limit {
            Limit::Unlimited => f64::INFINITY,
            Limit::Finite(limit) => f64::from(limit),
        },
    );
    family(
        "gpuquota_quota_active",
        "1 while the quota grants, 0 once it has expired and while it is not active.",
        &|quota, _| truth(quota.in_force()),
    );
    family(
        "gpuquota_quota_used",
        "Devices charged to the quota.",
        &|quota, usage| usage.map_or(0, |usage| usage.of(quota.id)) as f64,
    );
    let of = |by_quota: Option<&BTreeMap<QuotaId, u64>>, quota: &Quota| {
        let count = by_quota.and_then(|by_quota| by_quota.get(&quota.id));
        count.copied().unwrap_or(0) as f64
    };
    family(
        "gpuquota_quota_leased",
        "Devices of the quota that are leased.",
        &|quota, usage| of(usage.map(|usage| &usage.leased), quota),
    );
    family(
        "gpuquota_quota_observed",
        "Devices of the quota that processes hold now.",
        &|quota, usage| of(usage.map(|usage| &usage.observed), quota),
    );
}

fn violations(families: &mut Families, state: &State, usages: &BTreeMap<&TenantName, Usage>) {
    let mut counts: BTreeMap<(&str, &NodeName, StepClass), u64> = BTreeMap::new();
    for (tenant, usage) in usages {
        for violation in &usage.violations {
            let key = (tenant.as_str(), &violation.node, violation.class.into());
            *counts.entry(key).or_insert(0) += 1;
        }
    }
    for (_, device) in state.nobodys_devices() {
        let key = ("", &device.node, StepClass::Unattributed);
        *counts.entry(key).or_insert(0) += 1;
    }
    let mut rows = families.gauge(
        "gpuquota_violations",
        "Devices held without justification by the ledger, by tenant (empty: processes of nobody), node and class.",
    );
    for ((tenant, node, class), count) in counts {
        let labels = [
            ("tenant", tenant),
            ("node", node.as_str()),
            ("class", class.as_str()),
        ];
        rows.row(&labels, count as f64);
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    with_type(status, "text/plain; charset=utf-8", Body::from(text))
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}
