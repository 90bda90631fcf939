//! Figures that are kept between reads until the ledger says that they changed ([`gpuquota_core::Changes`]).

use super::gpu_quota::KeptItems;
use super::instance::KeptGroups;
use super::licence::LicenceTables;

/// What the dialects keep.
#[derive(Debug, Default)]
pub struct Kept {
    pub(super) items: KeptItems,
    pub(super) groups: KeptGroups,
    pub(super) licences: LicenceTables,
}
