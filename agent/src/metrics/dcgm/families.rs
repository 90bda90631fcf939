//! What each family of rows is called, counts and says. A table.

use gpuquota_proto::exposition::truth;

use crate::gpu::gauges::Gauges;

use super::Row;

/// Where a family has rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// On GPUs and again on their instances.
    Everywhere,
    /// On GPUs.
    Gpus,
    /// Where the memory is counted.
    Memory,
}

type Value = fn(&Row<'_>) -> Option<f64>;

const GAUGE: bool = false;
pub(super) const COUNTER: bool = true;

pub(super) const FAMILIES: [(&str, bool, Where, Value, &str); 24] = [
    (
        "DCGM_FI_DEV_GPU_TEMP",
        GAUGE,
        Where::Everywhere,
        |row| row.gpu.glow.temperature_celsius.map(f64::from),
        "GPU temperature (in C).",
    ),
    (
        "DCGM_FI_DEV_MEMORY_TEMP",
        GAUGE,
        Where::Gpus,
        |row| count(row, |more| more.memory_celsius),
        "Memory temperature (in C).",
    ),
    (
        "DCGM_FI_DEV_POWER_USAGE",
        GAUGE,
        Where::Gpus,
        |row| {
            row.gpu
                .glow
                .power_milliwatts
                .map(|mw| f64::from(mw) / 1000.0)
        },
        "Power draw (in W).",
    ),
    (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        COUNTER,
        Where::Gpus,
        |row| count(row, |more| more.energy_millijoules),
        "Total energy consumption since the driver was loaded (in mJ).",
    ),
    (
        "DCGM_FI_DEV_SM_CLOCK",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.sm_clock_mhz),
        "SM clock frequency (in MHz).",
    ),
    (
        "DCGM_FI_DEV_MEM_CLOCK",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.memory_clock_mhz),
        "Memory clock frequency (in MHz).",
    ),
    (
        "DCGM_FI_DEV_GPU_UTIL",
        GAUGE,
        Where::Gpus,
        |row| row.gpu.glow.utilization_gpu_percent.map(f64::from),
        "GPU utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        GAUGE,
        Where::Gpus,
        |row| row.gpu.glow.utilization_memory_percent.map(f64::from),
        "Memory utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_ENC_UTIL",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.encoder_percent),
        "Encoder utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_DEC_UTIL",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.decoder_percent),
        "Decoder utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_FB_USED",
        GAUGE,
        Where::Memory,
        |row| row.memory.map(|memory| mib(memory.used)),
        "Framebuffer memory used (in MiB).",
    ),
    (
        "DCGM_FI_DEV_FB_FREE",
        GAUGE,
        Where::Memory,
        |row| row.memory.map(|memory| mib(memory.free)),
        "Framebuffer memory free (in MiB).",
    ),
    (
        "DCGM_FI_DEV_FB_RESERVED",
        GAUGE,
        Where::Memory,
        |row| row.memory?.reserved.map(mib),
        "Framebuffer memory reserved by the driver (in MiB).",
    ),
    (
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        COUNTER,
        Where::Gpus,
        |row| count(row, |more| more.pcie_replays),
        "Total number of PCIe retries.",
    ),
    (
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        COUNTER,
        Where::Gpus,
        |row| count(row, |more| more.nvlink_bandwidth),
        "Total number of NVLink bandwidth counters for all lanes.",
    ),
    (
        "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
        GAUGE,
        Where::Gpus,
        |row| more(row)?.guest_licensed.map(truth),
        "vGPU license status.",
    ),
    (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        COUNTER,
        Where::Gpus,
        |row| row.remapped.map(|rows| f64::from(rows.uncorrectable)),
        "Number of remapped rows for uncorrectable errors.",
    ),
    (
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        COUNTER,
        Where::Gpus,
        |row| row.remapped.map(|rows| f64::from(rows.correctable)),
        "Number of remapped rows for correctable errors.",
    ),
    (
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        GAUGE,
        Where::Gpus,
        |row| row.remapped.map(|rows| truth(rows.failed)),
        "Whether remapping of rows has failed.",
    ),
    (
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.engine,
        "Ratio of time the graphics engine is active.",
    ),
    (
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.tensor,
        "Ratio of cycles the tensor pipe is active.",
    ),
    (
        "DCGM_FI_PROF_DRAM_ACTIVE",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.dram,
        "Ratio of cycles the memory interface is active.",
    ),
    (
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.pcie_tx,
        "Bytes sent to the host over PCIe, a second.",
    ),
    (
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.pcie_rx,
        "Bytes received from the host over PCIe, a second.",
    ),
];

fn more(row: &Row<'_>) -> Option<Gauges> {
    row.gpu.gauges
}

fn figure(row: &Row<'_>, of: fn(Gauges) -> Option<u32>) -> Option<f64> {
    more(row).and_then(of).map(f64::from)
}

fn count(row: &Row<'_>, of: fn(Gauges) -> Option<u64>) -> Option<f64> {
    more(row).and_then(of).map(|count| count as f64)
}

fn mib(bytes: u64) -> f64 {
    (bytes >> 20) as f64
}
