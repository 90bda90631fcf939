//! GPUs that are there and cannot be named, because they were lost or hung before anybody read them. Pure.

use super::protocol::Target;
use super::reading::Health;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Where it is, as NVML writes it; `None` where it may be one of several.
    pub pci_bus_id: Option<String>,
    /// Lost or hung.
    pub health: Health,
}

/// All of them: those that hang, by what is known of them, and how many are lost. `silent` are the PCI bus ids of the GPUs that the
/// driver has and NVML does not name. Which place is whose is told only where it can be no other's.
pub(super) fn unnamed(hung: &[&Target], lost: u32, mut silent: Vec<String>) -> Vec<Unnamed> {
    let mut all: Vec<Unnamed> = hung
        .iter()
        .map(|target| Unnamed {
            pci_bus_id: match target {
                Target::Pci(pci) => Some(pci.to_ascii_uppercase()),
                Target::Index(_) => None,
            },
            health: Health::Hung,
        })
        .collect();
    all.extend((0..lost).map(|_| Unnamed {
        pci_bus_id: None,
        health: Health::Lost,
    }));
    silent.retain(|pci| {
        let mut told = all.iter().filter_map(|gpu| gpu.pci_bus_id.as_ref());
        !told.any(|told| told.eq_ignore_ascii_case(pci))
    });
    let mut rest: Vec<&mut Unnamed> = all
        .iter_mut()
        .filter(|gpu| gpu.pci_bus_id.is_none())
        .collect();
    let alike = rest.windows(2).all(|two| match two {
        [a, b] => a.health == b.health,
        _ => true,
    });
    if alike && silent.len() <= rest.len() {
        for (gpu, pci) in rest.iter_mut().zip(silent) {
            gpu.pci_bus_id = Some(pci);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_where_it_can_be_no_others() {
        let told = |hung: &[&Target], lost, silent: &[&str]| -> Vec<(Health, Option<String>)> {
            let silent = silent.iter().map(|pci| (*pci).to_owned()).collect();
            let all = unnamed(hung, lost, silent);
            all.into_iter()
                .map(|gpu| (gpu.health, gpu.pci_bus_id))
                .collect()
        };
        let (a, b, c) = ("00000000:1A:00.0", "00000000:2B:00.0", "00000000:3C:00.0");
        let at = |health, pci: &str| (health, Some(pci.to_owned()));
        use Health::{Hung, Lost};
        assert_eq!(told(&[], 0, &[a]), []);
        assert_eq!(told(&[], 1, &[a]), [at(Lost, a)]);
        // Which of the two is the one that hangs?
        let index = Target::Index(3);
        assert_eq!(told(&[&index], 1, &[a, b]), [(Hung, None), (Lost, None)]);
        let pci = Target::Pci(a.to_ascii_lowercase());
        assert_eq!(told(&[&pci], 1, &[a, b]), [at(Hung, a), at(Lost, b)]);
        // One fell off the bus altogether, and one that NVML leaves out for a reason of its own.
        assert_eq!(told(&[], 2, &[a]), [at(Lost, a), (Lost, None)]);
        assert_eq!(told(&[], 1, &[a, b]), [(Lost, None)]);
        assert_eq!(
            told(&[&index, &pci], 0, &[a, c]),
            [at(Hung, c), at(Hung, a)]
        );
    }
}
