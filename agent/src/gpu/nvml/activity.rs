//! What GPUs and GPU instances do, by GPM: Hopper and later, and only while somebody scrapes it.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;

use super::ask::{Asker, Got};
use crate::clock::monotonic_ms;
use crate::gpu::gauges::Activity;
use crate::gpu::raw::usage::GpmSample;

/// The driver refreshes its counters in steps of 100 ms (nvml.h, `nvmlGpmMetricsGet`); samples closer together tell nothing.
const APART_MS: u64 = 200;
/// Samples further apart are of another time.
const OLD_MS: u64 = 60_000;

const METRICS: [u32; 5] = [
    sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL,
    sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL,
    sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL,
    sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC,
    sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC,
];

/// What is kept of one GPU between passes.
#[derive(Debug, Default)]
pub(super) struct Activities<'n> {
    /// This GPU has no GPM.
    lacking: bool,
    places: Vec<Place<'n>>,
}

/// A GPU, or one of its instances.
#[derive(Debug)]
struct Place<'n> {
    gi: Option<u32>,
    before: GpmSample<'n>,
    filled_at_ms: u64,
    spare: GpmSample<'n>,
    newest: Option<Activity>,
}

impl<'n> Activities<'n> {
    /// Samples taken before a new layout do not go with those after it, and what nobody wants is not kept.
    pub(super) fn forget(&mut self) {
        self.places.clear();
    }

    /// Tries again what this GPU did not have.
    pub(super) fn retry(&mut self) {
        self.lacking = false;
    }

    /// Since the last question; nothing of a place at its first one.
    pub(super) fn read(
        &mut self,
        asker: &mut Asker<'_>,
        nvml: &'n Nvml,
        device: &Device<'n>,
        places: &[Option<u32>],
    ) -> Vec<Activity> {
        self.places.retain(|place| places.contains(&place.gi));
        let mut found = Vec::with_capacity(places.len());
        for gi in places {
            if self.lacking {
                break;
            }
            match self.places.iter_mut().find(|place| place.gi == *gi) {
                Some(place) => found.extend(place.look(asker, device)),
                None => {
                    let begun = self.begin(asker, nvml, device, *gi);
                    self.places.extend(begun);
                }
            }
        }
        found
    }

    fn begin(
        &mut self,
        asker: &mut Asker<'_>,
        nvml: &'n Nvml,
        device: &Device<'n>,
        gi: Option<u32>,
    ) -> Option<Place<'n>> {
        let supported = asker.ask("nvmlGpmQueryDeviceSupport", || match device.gpm_support() {
            Ok(false) => Err(NvmlError::NotSupported),
            answer => answer,
        });
        if !matches!(supported, Got::Value(_)) {
            self.lacking = matches!(supported, Got::Lacking);
            return None;
        }
        let mut allocate = || {
            let sample = asker.ask("nvmlGpmSampleAlloc", || GpmSample::allocate(nvml));
            sample.value()
        };
        let (mut before, spare) = (allocate()?, allocate()?);
        let filled = fill(asker, &mut before, device, gi);
        self.lacking = matches!(filled, Got::Lacking);
        filled.value()?;
        Some(Place {
            gi,
            before,
            filled_at_ms: monotonic_ms(),
            spare,
            newest: None,
        })
    }
}

impl Place<'_> {
    fn look(&mut self, asker: &mut Asker<'_>, device: &Device<'_>) -> Option<Activity> {
        let now_ms = monotonic_ms();
        let apart = now_ms.saturating_sub(self.filled_at_ms);
        if apart < APART_MS {
            return self.newest;
        }
        self.newest = None;
        fill(asker, &mut self.spare, device, self.gi).value()?;
        if apart <= OLD_MS {
            let metrics = asker.ask("nvmlGpmMetricsGet", || {
                self.spare.metrics_since(&self.before, METRICS)
            });
            self.newest = metrics.value().map(|metrics| activity(self.gi, metrics));
        }
        std::mem::swap(&mut self.before, &mut self.spare);
        self.filled_at_ms = now_ms;
        self.newest
    }
}

fn fill(
    asker: &mut Asker<'_>,
    sample: &mut GpmSample<'_>,
    device: &Device<'_>,
    gi: Option<u32>,
) -> Got<()> {
    match gi {
        Some(gi) => {
            asker.on_instances(|asker| asker.ask("nvmlGpmMigSampleGet", || sample.fill(device, gi)))
        }
        None => asker.ask("nvmlGpmSampleGet", || sample.fill_whole(device)),
    }
}

/// Percents and MiB a second as they should be; what lies outside of that is no figure.
fn activity(gi: Option<u32>, [engine, tensor, dram, tx, rx]: [Option<f64>; 5]) -> Activity {
    let ratio = |percent: Option<f64>| {
        let good = percent.filter(|percent| (0.0..=100.0).contains(percent));
        good.map(|percent| percent / 100.0)
    };
    let bytes = |mib: Option<f64>| {
        let good = mib.filter(|mib| mib.is_finite() && *mib >= 0.0);
        good.map(|mib| mib * f64::from(1 << 20))
    };
    Activity {
        gi,
        engine: ratio(engine),
        tensor: ratio(tensor),
        dram: ratio(dram),
        pcie_tx: bytes(tx),
        pcie_rx: bytes(rx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_k_percents_and_mib_become_ratios_and_bytes_and_nonsense_nothing() {
        let all = activity(Some(3), [25.0, 100.0, 0.0, 2.0, 0.5].map(Some));
        let expected = Activity {
            gi: Some(3),
            engine: Some(0.25),
            tensor: Some(1.0),
            dram: Some(0.0),
            pcie_tx: Some(2_097_152.0),
            pcie_rx: Some(524_288.0),
        };
        assert_eq!(all, expected);
        let wrong = [6400.0, -1.0, f64::NAN, f64::INFINITY, -0.5].map(Some);
        assert_eq!(activity(None, wrong), Activity::default());
    }
}
