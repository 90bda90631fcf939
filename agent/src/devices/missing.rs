//! GPUs that this look could not name: lost or hung before it began. What the agent that runs remembers gives them their names. Pure.

use crate::gpu::reading::Health;
use crate::gpu::unnamed::Unnamed;
use crate::observation::Observation;
use crate::state::gpus::KeptGpu;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// `None` where nobody remembers it.
    pub(super) uuid: Option<String>,
    /// Where it is, as NVML writes it, or was.
    pub(super) pci_bus_id: Option<String>,
    /// Lost or hung.
    pub(super) health: Health,
}

/// The GPUs that are not in `observation`: those that this look found without a name, and those that the agent remembers and that are
/// not even counted any more.
pub(super) fn missing(
    unnamed: &[Unnamed],
    kept: &[KeptGpu],
    observation: &Observation,
) -> Vec<Missing> {
    let mut nameless = unnamed.to_vec();
    let mut silent: Vec<&KeptGpu> = kept
        .iter()
        .filter(|gpu| !gpu.is_shown(observation))
        .collect();
    // One that the agent saw silent takes its place before one that fell silent since.
    silent.sort_by_key(|gpu| !matches!(gpu.state, Health::Lost | Health::Hung));
    let mut all = Vec::with_capacity(silent.len() + nameless.len());
    for gpu in silent {
        let there = |gpu: &KeptGpu, other: &Unnamed| match &other.pci_bus_id {
            Some(pci) => gpu.is_at(pci),
            None => false,
        };
        let free = |other: &Unnamed| other.pci_bus_id.is_none();
        let at = nameless
            .iter()
            .position(|other| there(gpu, other))
            .or_else(|| {
                let mut others = nameless.iter();
                others.position(|other| free(other) && other.health == gpu.state)
            })
            .or_else(|| nameless.iter().position(free));
        let health = match (at, gpu.state) {
            (Some(at), _) => nameless.remove(at).health,
            (None, Health::Hung) => Health::Hung,
            // It is not even counted.
            (None, Health::Ok | Health::Lost | Health::Unknown) => Health::Lost,
        };
        all.push(Missing {
            uuid: Some(gpu.uuid.clone()),
            pci_bus_id: gpu.pci_bus_id.clone(),
            health,
        });
    }
    all.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    all.extend(nameless.into_iter().map(|gpu| Missing {
        uuid: None,
        pci_bus_id: gpu.pci_bus_id,
        health: gpu.health,
    }));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gpu::reading::{HiddenGpu, NvmlState, Why};
    use crate::observation::{Device, DeviceKey};

    #[test]
    fn each_gpu_without_a_name_takes_one_that_is_remembered_and_none_is_told_twice() {
        use Health::{Hung, Lost, Ok};
        let pci = |place: &str| format!("00000000:{place}:00.0");
        let observation = Observation {
            at_boottime_ms: 1,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: BTreeMap::from([(DeviceKey::Gpu("a".to_owned()), Device::default())]),
            hidden: vec![HiddenGpu {
                pci_bus_id: pci("0F"),
                uuid: None,
                why: Why::Passthrough,
            }],
        };
        let kept = |uuid: &str, state| KeptGpu {
            uuid: uuid.to_owned(),
            pci_bus_id: Some(pci(&format!("0{}", uuid.to_ascii_uppercase()))),
            state,
        };
        let nameless = |health, place: Option<&str>| Unnamed {
            pci_bus_id: place.map(pci),
            health,
        };
        let told = |unnamed: &[Unnamed], kept: &[KeptGpu]| -> Vec<String> {
            let all = missing(unnamed, kept, &observation).into_iter();
            let place = |pci: Option<String>| pci.map(|pci| pci[9..11].to_owned());
            all.map(|gpu| {
                let words = [gpu.uuid, place(gpu.pci_bus_id)].map(Option::unwrap_or_default);
                format!("{} {} {:?}", words[0], words[1], gpu.health)
            })
            .collect()
        };
        let two = [nameless(Hung, None), nameless(Lost, None)];
        assert_eq!(told(&two, &[]), ["  Hung", "  Lost"]);
        // Shown, given to a machine: neither is missing.
        assert_eq!(told(&[], &[kept("a", Ok), kept("f", Ok)]), [""; 0]);
        // `b` fell silent since the agent looked, so what is left is its state.
        let silent = [kept("b", Ok), kept("c", Hung)];
        assert_eq!(told(&two, &silent), ["b 0B Lost", "c 0C Hung"]);
        assert_eq!(told(&two, &silent[1..]), ["c 0C Hung", "  Lost"]);
        // The place says more than the state.
        let placed = [nameless(Hung, Some("0B")), nameless(Lost, Some("0C"))];
        assert_eq!(told(&placed, &silent), ["b 0B Hung", "c 0C Lost"]);
        assert_eq!(told(&placed[..1], &[]), [" 0B Hung"]);
        // Not counted any more.
        assert_eq!(told(&[], &silent), ["b 0B Lost", "c 0C Hung"]);
    }
}
