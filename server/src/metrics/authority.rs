//! Figures of the authorities that agents' certificates end in, and of the rotation from one to another.

use std::collections::BTreeMap;

use gpuquota_proto::exposition::{Families, truth};
use gpuquota_proto::pinned::Pin;

use crate::grpc::Authority;
use crate::rotation::Phase;

pub(super) fn authority(
    families: &mut Families,
    now: &Authority,
    counts: &BTreeMap<Pin, (u32, u32)>,
) {
    let mut ends = families.gauge(
        "gpuquota_authority_not_after_timestamp_seconds",
        "End of each authority that agents' certificates may end in.",
    );
    for (pin, end) in &now.trusted {
        let signs = (now.signer == Some(*pin)).to_string();
        ends.row(
            &[("authority", &pin.to_string()), ("signs", &signs)],
            *end as f64,
        );
    }
    let mut phases = families.gauge(
        "gpuquota_ca_rotation_phase",
        "How far the rotation of the authority is, as gpuquota-server ca shows it.",
    );
    for phase in Phase::ALL {
        phases.row(&[("phase", phase.word())], truth(phase == now.phase));
    }
    let mut nodes = families.gauge(
        "gpuquota_authority_nodes",
        "Nodes heard since this server started, by the authority of their certificate.",
    );
    for (pin, (certificates, _)) in counts {
        nodes.row(&[("authority", &pin.to_string())], f64::from(*certificates));
    }
    let mut trusting = families.gauge(
        "gpuquota_authority_trusting_nodes",
        "Nodes that said since this server started that they trust the authority.",
    );
    for (pin, (_, trusts)) in counts {
        trusting.row(&[("authority", &pin.to_string())], f64::from(*trusts));
    }
}
