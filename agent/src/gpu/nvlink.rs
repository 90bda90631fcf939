//! Which GPUs of a node are joined by NVLink. Pure.

use super::reading::{NvLink, NvLinkEnd};

/// One GPU: its PCI bus id, and what its active links lead to (`None`: not known).
pub(super) type Linked<'g> = (&'g str, Option<&'g [NvLink]>);

/// A number for each GPU: the place of its island's first GPU among all of them in the order of PCI bus ids. An island is
/// what NVLink joins, directly or through NVSwitches; a GPU without active links is one by itself. `None` for a GPU of which
/// nobody says what it is joined with.
#[must_use]
pub(super) fn islands(gpus: &[Linked<'_>]) -> Vec<Option<u32>> {
    let mut order: Vec<usize> = (0..gpus.len()).collect();
    order.sort_by_key(|at| gpus.get(*at).map(|(pci, _)| pci.to_ascii_lowercase()));
    let sorted: Vec<&Linked<'_>> = order.iter().filter_map(|at| gpus.get(*at)).collect();
    let mut island: Vec<usize> = (0..sorted.len()).collect();
    for (at, gpu) in sorted.iter().enumerate() {
        for (before, other) in sorted.iter().enumerate().take(at) {
            if joined(gpu, other) {
                merge(&mut island, at, before);
            }
        }
    }
    let mut numbers = vec![None; gpus.len()];
    for ((own, at), (_, links)) in island.iter().zip(&order).zip(sorted) {
        let alone = island.iter().filter(|other| *other == own).count() == 1;
        if let Some(number) = numbers.get_mut(*at)
            && !(alone && links.is_none())
        {
            *number = u32::try_from(*own).ok();
        }
    }
    numbers
}

fn joined(a: &Linked<'_>, b: &Linked<'_>) -> bool {
    let (links, others) = (a.1.unwrap_or_default(), b.1.unwrap_or_default());
    let to = |links: &[NvLink], pci: &str| {
        links
            .iter()
            .any(|link| link.remote.eq_ignore_ascii_case(pci))
    };
    let switch = |link: &NvLink| others.iter().any(|other| same_switch(link, other));
    to(links, b.0) || to(others, a.0) || links.iter().any(switch)
}

/// Two GPUs on one switch.
fn same_switch(a: &NvLink, b: &NvLink) -> bool {
    let switches = (a.kind, b.kind) == (NvLinkEnd::Switch, NvLinkEnd::Switch);
    switches && a.remote.eq_ignore_ascii_case(&b.remote)
}

/// Makes one island of two, under the smaller number.
fn merge(island: &mut [usize], a: usize, b: usize) {
    let of = |at: usize| island.get(at).copied().unwrap_or(at);
    let (low, high) = (of(a).min(of(b)), of(a).max(of(b)));
    for number in island {
        if *number == high {
            *number = low;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(remote: &str, kind: NvLinkEnd) -> NvLink {
        NvLink {
            remote: remote.to_owned(),
            kind,
        }
    }

    #[test]
    fn gpus_are_joined_directly_through_others_and_through_switches() {
        let gpu = |remote| vec![to(remote, NvLinkEnd::Gpu)];
        let switch = |remote| vec![to(remote, NvLinkEnd::Switch)];
        let links = [
            ("00000000:DB:00.0", Some(switch("00000000:C1:00.0"))),
            ("00000000:18:00.0", Some(gpu("00000000:2a:00.0"))),
            ("00000000:2A:00.0", Some(gpu("00000000:3A:00.0"))),
            // Told by the others only.
            ("00000000:3A:00.0", None),
            ("00000000:5D:00.0", Some(Vec::new())),
            ("00000000:AB:00.0", Some(switch("00000000:C1:00.0"))),
            // Joined with a GPU that is not there any more.
            ("00000000:BA:00.0", Some(gpu("00000000:77:00.0"))),
            ("00000000:CA:00.0", None),
        ];
        let gpus: Vec<Linked<'_>> = links
            .iter()
            .map(|(pci, to)| (*pci, to.as_deref()))
            .collect();
        let alone = [Some(3), Some(5), None];
        let expected = [
            Some(4),
            Some(0),
            Some(0),
            Some(0),
            alone[0],
            Some(4),
            alone[1],
            alone[2],
        ];
        assert_eq!(islands(&gpus), expected);
    }

    proptest! {
        /// Whatever the wiring: joined GPUs share a number, the number is the place of the smallest member, and the order
        /// in which GPUs are named does not matter.
        #[test]
        fn islands_are_connected_components(
            wires in prop::collection::vec((0..8_usize, 0..12_usize), 0..12),
            turn in 0..8_usize,
        ) {
            let name = |at: usize| format!("00000000:{at:02X}:00.0");
            let mut links = vec![Vec::new(); 8];
            for (from, end) in wires {
                let kind = if end < 8 { NvLinkEnd::Gpu } else { NvLinkEnd::Switch };
                if from != end {
                    links[from].push(to(&name(end), kind));
                }
            }
            let names: Vec<String> = (0..8).map(name).collect();
            let mut gpus: Vec<Linked<'_>> =
                names.iter().zip(&links).map(|(pci, to)| (pci.as_str(), Some(to.as_slice()))).collect();
            let numbers = islands(&gpus);
            for (from, to) in links.iter().enumerate() {
                for link in to {
                    let end = names.iter().position(|name| *name == link.remote);
                    if let Some(end) = end {
                        prop_assert_eq!(numbers[from], numbers[end]);
                    }
                }
            }
            for number in &numbers {
                let first = numbers.iter().position(|other| other == number).unwrap();
                prop_assert_eq!(Some(first), number.map(|number| usize::try_from(number).unwrap()));
            }
            let switches = |at: usize| links[at].iter().filter(|link| link.kind == NvLinkEnd::Switch);
            for (a, b) in [(0, 1), (2, 7), (3, 5)] {
                if switches(a).any(|link| switches(b).any(|other| other == link)) {
                    prop_assert_eq!(numbers[a], numbers[b]);
                }
            }
            gpus.rotate_left(turn);
            let mut turned = islands(&gpus);
            turned.rotate_right(turn);
            prop_assert_eq!(turned, numbers);
        }
    }
}
