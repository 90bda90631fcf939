//! How the GPUs of a server are joined by NVLink.

use crate::scenario::{Gpu, NvLinkEnd, NvLinks};

/// NVLinks of a model, as its usual boards wire them.
#[derive(Debug)]
pub struct Fabric {
    /// Links of one GPU. Up to four GPUs share them out among each other.
    pub(super) links: u32,
    /// Of a board with eight GPUs: links of each GPU to each NVSwitch.
    pub(super) to_switches: &'static [u32],
}

/// GPUs that one board joins.
const BOARD: usize = 8;
/// More are not joined without NVSwitches.
const DIRECT: usize = 4;

impl Fabric {
    /// Joins the GPUs of a node, a board at a time.
    pub(super) fn join(&self, gpus: &mut [Gpu]) {
        for (board, gpus) in (0..).zip(gpus.chunks_mut(BOARD)) {
            let places: Vec<String> = gpus.iter().map(|gpu| gpu.pci_bus_id.clone()).collect();
            for gpu in gpus {
                gpu.nvlink = if places.len() <= DIRECT {
                    self.to_each_other(&gpu.pci_bus_id, &places)
                } else {
                    self.to_the_switches(board)
                };
            }
        }
    }

    fn to_each_other(&self, own: &str, places: &[String]) -> Vec<NvLinks> {
        let others = places.iter().filter(|place| *place != own);
        let count = u32::try_from(places.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let share = self.links.checked_div(count).unwrap_or(0);
        let to = |place: &String| to(place.clone(), NvLinkEnd::Gpu, share);
        others.map(to).collect()
    }

    fn to_the_switches(&self, board: u32) -> Vec<NvLinks> {
        let switch = |(number, links): (u32, &u32)| {
            let place = format!("{board:08X}:{:02X}:00.0", 0xc1 + number);
            to(place, NvLinkEnd::Switch, *links)
        };
        (0..).zip(self.to_switches).map(switch).collect()
    }
}

fn to(remote: String, kind: NvLinkEnd, links: u32) -> NvLinks {
    NvLinks {
        remote,
        kind,
        links,
        down: false,
    }
}
