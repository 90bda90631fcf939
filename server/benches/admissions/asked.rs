//! What is asked of the ledger: a quota for each tenant, and leases of one device.

use std::io;

use gpuquota_core::Command;
use gpuquota_core::command::{OnExcess, QuotaName, RequestLease, SetQuota};
use gpuquota_core::id::{GpuModel, InvalidName, Region, TenantName};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;

fn tenant(number: u32) -> Result<TenantName, InvalidName> {
    TenantName::new(&format!("tenant-{number}"))
}

/// One that bears every lease of a run.
pub(crate) fn quota(number: u32) -> Result<Command, InvalidName> {
    Ok(Command::SetQuota(SetQuota {
        name: QuotaName {
            tenant: tenant(number)?,
            region: Region::new("US")?,
            source: QuotaSource::Purchase,
            gpu_model: GpuModel::new("nvidia.com/gpu")?,
            quota_type: None,
            reference: None,
        },
        limit: Limit::Finite(2_000_000_000),
        expires_at: None,
        nodes: None,
        on_excess: OnExcess::Deny,
    }))
}

/// One device of that quota, as a number only.
pub(crate) fn lease(number: u32) -> Result<RequestLease, InvalidName> {
    Ok(RequestLease::of(
        tenant(number)?,
        Region::new("US")?,
        GpuModel::new("nvidia.com/gpu")?,
        1,
        LeasePlacement::CountOnly,
    ))
}

/// Memory that this process has resident, KiB.
pub(crate) fn memory() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    size.ok_or_else(|| io::Error::other("no VmRSS"))
}
