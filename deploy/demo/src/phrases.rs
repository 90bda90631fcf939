//! Short words for the story's acts, expectations and quotas.

use crate::quotas::{key, vision_lab};
use crate::scene::{Act, Expect, Place, Step};
use crate::world::QuotaKey;

/// A full GPU.
pub(crate) const GPU: &str = "nvidia.com/gpu";
/// As agents spell the model that the document calls mig-1c10g.
pub(crate) const SMALL_MIG: &str = "nvidia.com/mig-1g.10gb";
/// The larger one.
pub(crate) const LARGE_MIG: &str = "nvidia.com/mig-3g.40gb";

/// One turn.
pub(crate) fn step(title: &'static str, acts: Vec<Act>, expects: Vec<Expect>) -> Step {
    Step {
        title,
        acts,
        expects,
    }
}

/// A full GPU.
pub(crate) fn gpu(node: &'static str, gpu: u32) -> Place {
    Place {
        node,
        gpu,
        instance: None,
        memory_mib: 20_000,
    }
}

/// A MIG instance of gpu-a100.
pub(crate) fn mig(gpu: u32, gi: u32) -> Place {
    Place {
        node: "gpu-a100",
        gpu,
        instance: Some((gi, 0)),
        memory_mib: 4_000,
    }
}

/// A process of a tenant starts.
pub(crate) fn start(job: &'static str, tenant: &'static str, place: Place) -> Act {
    Act::Start {
        job,
        tenant: Some(tenant),
        place,
    }
}

/// An administrator sets vision-lab's limit.
pub(crate) fn put(num: u32, status: u16) -> Act {
    Act::Put {
        tenant: "vision-lab",
        body: vision_lab(num),
        status,
    }
}

/// A quota's use and limit.
pub(crate) fn used(key: QuotaKey, used: u32, limit: u32) -> Expect {
    Expect::Quota { key, used, limit }
}

/// Devices that an agent sees a tenant hold.
pub(crate) fn held(
    node: &'static str,
    tenant: &'static str,
    gpu_model: &'static str,
    devices: u32,
) -> Expect {
    Expect::Held {
        node,
        tenant,
        gpu_model,
        devices,
    }
}

/// Processes that an agent sees.
pub(crate) fn processes(node: &'static str, tenant: &'static str, count: u32) -> Expect {
    Expect::Processes {
        node,
        tenant,
        count,
    }
}

/// GPUs of a node by state.
pub(crate) fn gpus(node: &'static str, state: &'static str, count: u32) -> Expect {
    Expect::Gpus { node, state, count }
}

/// A node that is heard.
pub(crate) fn up(node: &'static str) -> Expect {
    Expect::Node { node, state: "up" }
}

/// What vision-lab may use.
pub(crate) fn vision() -> QuotaKey {
    key("vision-lab", "purchase", "flexible", GPU)
}

/// platform-operator's full GPUs.
pub(crate) fn operator_gpu() -> QuotaKey {
    key("platform-operator", "purchase", "flexible", GPU)
}

/// platform-operator's MIG instances, as the document spells them.
pub(crate) fn operator_mig() -> QuotaKey {
    key(
        "platform-operator",
        "purchase",
        "mig",
        "nvidia.com/mig-1c10g",
    )
}

/// speech-lab's MIG instances.
pub(crate) fn speech() -> QuotaKey {
    key("speech-lab", "assign", "mig", LARGE_MIG)
}

/// zjw1029's node.
pub(crate) fn dedicated() -> QuotaKey {
    key("zjw1029", "assign", "dedicated", GPU)
}
