//! How busy the processes of one GPU keep it: by process outside of MIG, by GPU instance in it. Asked only where some run.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::ask::{Asker, Got};
use crate::clock::{monotonic_ms, unix_us};
use crate::gpu::agreement::Agreement;
use crate::gpu::raw::usage::{GpmSample, UsageBuffer};
use crate::gpu::reading::GpuProcess;
use crate::gpu::usage::{Sample, newest, since};

/// The driver refreshes its counters in steps of 100 ms (nvml.h, `nvmlGpmMetricsGet`); samples closer together tell nothing.
const APART_MS: u64 = 200;
/// Samples further apart are of another time.
const OLD_MS: u64 = 60_000;

/// What is kept of one GPU between passes.
#[derive(Debug, Default)]
pub(super) struct Usage<'n> {
    /// Time of the newest sample of a process, microseconds since 1970.
    newest_us: u64,
    agreement: Agreement,
    /// This GPU has no such samples.
    no_samples: bool,
    /// This GPU has no GPM.
    no_gpm: bool,
    instances: Vec<OfInstance<'n>>,
}

/// One GPU instance.
#[derive(Debug)]
struct OfInstance<'n> {
    gi: u32,
    before: GpmSample<'n>,
    filled_at_ms: u64,
    spare: GpmSample<'n>,
    /// What came of the newest two samples.
    percent: Option<u32>,
}

impl<'n> Usage<'n> {
    /// Tries again what this GPU did not have.
    pub(super) fn retry(&mut self) {
        (self.no_samples, self.no_gpm) = (false, false);
    }

    /// Another epoch: samples taken before it do not go with those after it.
    pub(super) fn forget(&mut self) {
        self.instances.clear();
    }

    /// Fills in what each process of the list did since the last question. Whether the samples name other pids than the list, which
    /// is found out where the two can be `compared`.
    pub(super) fn of_processes(
        &mut self,
        asker: &mut Asker<'_>,
        buffer: &mut UsageBuffer,
        device: &Device<'_>,
        processes: &mut [GpuProcess],
        compared: bool,
    ) -> bool {
        let pids: Option<Vec<u32>> = processes.iter().map(|process| process.pid).collect();
        let sampled = self.sample(asker, buffer, device, processes);
        match (sampled, pids.filter(|_| compared)) {
            (Some((rows, now_us)), Some(pids)) => self.agreement.compare(&pids, &rows, now_us),
            _ => self.agreement.skip(),
        }
        compared && !processes.is_empty() && self.agreement.is_contradicted()
    }

    /// The newest sample of each process, and when they were asked for.
    fn sample(
        &mut self,
        asker: &mut Asker<'_>,
        buffer: &mut UsageBuffer,
        device: &Device<'_>,
        processes: &mut [GpuProcess],
    ) -> Option<(Vec<Sample>, u64)> {
        if self.no_samples || processes.is_empty() {
            return None;
        }
        let now_us = unix_us();
        let since_us = since(self.newest_us.min(now_us), now_us);
        let rows = asker.ask("nvmlDeviceGetProcessUtilization", || {
            buffer.list(device, since_us)
        });
        let rows = match rows {
            Got::Value(rows) => rows,
            Got::Lacking => {
                self.no_samples = true;
                return None;
            }
            Got::Unknown => return None,
        };
        let (rows, latest) = newest(&rows, since_us, now_us);
        self.newest_us = self.newest_us.min(now_us).max(latest);
        for process in processes {
            let own = rows.iter().find(|row| Some(row.pid) == process.pid);
            process.sm_percent = own.map(|row| row.sm);
            process.memory_percent = own.map(|row| row.memory);
        }
        Some((rows, now_us))
    }

    /// Percent of its SMs that a GPU instance kept busy since the last question; `None` at the first one.
    pub(super) fn of_instance(
        &mut self,
        asker: &mut Asker<'_>,
        nvml: &'n Nvml,
        device: &Device<'n>,
        gi: u32,
    ) -> Option<u32> {
        if self.no_gpm {
            return None;
        }
        let now_ms = monotonic_ms();
        let Some(of) = self.instances.iter_mut().find(|of| of.gi == gi) else {
            let begun = self.begin(asker, nvml, device, gi, now_ms);
            self.instances.extend(begun);
            return None;
        };
        let apart = now_ms.saturating_sub(of.filled_at_ms);
        if apart < APART_MS {
            return of.percent;
        }
        let filled = asker.ask("nvmlGpmMigSampleGet", || of.spare.fill(device, gi));
        of.percent = match filled {
            Got::Value(()) if apart <= OLD_MS => {
                let got = asker.ask("nvmlGpmMetricsGet", || {
                    of.spare.sm_percent_since(&of.before)
                });
                got.value().and_then(percent)
            }
            Got::Value(()) => None,
            Got::Lacking | Got::Unknown => {
                self.instances.retain(|of| of.gi != gi);
                return None;
            }
        };
        std::mem::swap(&mut of.before, &mut of.spare);
        of.filled_at_ms = now_ms;
        of.percent
    }

    fn begin(
        &mut self,
        asker: &mut Asker<'_>,
        nvml: &'n Nvml,
        device: &Device<'n>,
        gi: u32,
        now_ms: u64,
    ) -> Option<OfInstance<'n>> {
        let supported = asker.ask("nvmlGpmQueryDeviceSupport", || match device.gpm_support() {
            Ok(false) => Err(NvmlError::NotSupported),
            answer => answer,
        });
        if !matches!(supported, Got::Value(_)) {
            self.no_gpm = matches!(supported, Got::Lacking);
            return None;
        }
        let mut allocate = || {
            let sample = asker.ask("nvmlGpmSampleAlloc", || GpmSample::allocate(nvml));
            sample.value()
        };
        let (mut before, spare) = (allocate()?, allocate()?);
        let filled = asker.ask("nvmlGpmMigSampleGet", || before.fill(device, gi));
        self.no_gpm = matches!(filled, Got::Lacking);
        filled.value()?;
        Some(OfInstance {
            gi,
            before,
            filled_at_ms: now_ms,
            spare,
            percent: None,
        })
    }

    /// Instances without processes are not asked; what was kept of them is let go.
    pub(super) fn keep(&mut self, busy: impl Fn(u32) -> bool) {
        self.instances.retain(|of| busy(of.gi));
    }
}

/// Whole percents; more than 100, less than 0 and no number at all are no figure.
fn percent(value: f64) -> Option<u32> {
    let good = (0.0..=100.0).contains(&value);
    let steps = (0..=100_u32).find(|step| f64::from(*step) + 0.5 > value);
    steps.filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn fault_k_what_gpm_says_beyond_100_percent_is_no_figure() {
        let values = [0.0, 0.4, 42.5, 99.9, 100.0];
        assert_eq!(
            values.map(percent),
            [Some(0), Some(0), Some(43), Some(100), Some(100)]
        );
        let none = [100.1, 6400.0, -1.0, f64::NAN, f64::INFINITY];
        assert_eq!(none.map(percent), [None; 5]);
    }
}
