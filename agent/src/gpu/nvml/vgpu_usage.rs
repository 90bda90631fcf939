//! How busy vGPUs keep their GPU. Asked only where some run.

use nvml_wrapper::Device;

use super::ask::{Asker, Got};
use crate::clock::unix_us;
use crate::gpu::raw;
use crate::gpu::reading::VgpuReading;
use crate::gpu::usage::{newest, since};

/// What is kept between passes.
#[derive(Debug, Default)]
pub(super) struct VgpuUsage {
    /// Time of the newest sample, microseconds since 1970.
    newest_us: u64,
    /// This GPU has no such samples.
    lacking: bool,
}

impl VgpuUsage {
    /// Tries again what this GPU did not have.
    pub(super) fn retry(&mut self) {
        self.lacking = false;
    }

    /// Fills in what each vGPU did since the last question; `numbers` are NVML's, in the order of `vgpus`.
    pub(super) fn fill(
        &mut self,
        asker: &mut Asker<'_>,
        device: &Device<'_>,
        numbers: impl Iterator<Item = u32>,
        vgpus: &mut [VgpuReading],
    ) {
        if self.lacking || vgpus.is_empty() {
            return;
        }
        let now_us = unix_us();
        let since_us = since(self.newest_us.min(now_us), now_us);
        let rows = asker.ask("nvmlDeviceGetVgpuUtilization", || {
            raw::vgpu::utilization(device, since_us)
        });
        let rows = match rows {
            Got::Value(rows) => rows,
            Got::Lacking => {
                self.lacking = true;
                return;
            }
            Got::Unknown => return,
        };
        let (rows, latest) = newest(&rows, since_us, now_us);
        self.newest_us = self.newest_us.min(now_us).max(latest);
        for (number, vgpu) in numbers.zip(vgpus) {
            let own = rows.iter().find(|row| row.pid == number);
            vgpu.sm_percent = own.map(|row| row.sm);
        }
    }
}
