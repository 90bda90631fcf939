//! `DCGM_FI_DEV_XID_ERRORS`: the newest XID of each GPU, and of each GPU instance that the driver named one for.

use gpuquota_proto::exposition::Labels;

use crate::events::kmsg::LogState;
use crate::events::sentinel::Shown;
use crate::events::xid;
use crate::gpu::event::Ear;
use crate::observation::Device;

/// Value and labels of one row.
pub(super) struct XidRow {
    pub(super) xid: u64,
    pub(super) labels: Labels,
}

/// The newest XID of a GPU, or of the GPU instance `gi` on it. 0, no error, is said only of a whole GPU that somebody listens to: of
/// instances the driver does not always speak.
pub(super) fn of(
    shown: &Shown,
    uuid: &str,
    gpu: &Device,
    gi: Option<u32>,
    labels: impl FnOnce(&[(&str, &str)]) -> Labels,
) -> Option<XidRow> {
    let told = shown.ledger.last_xid(uuid, gi, gpu.mig_generation);
    let heard = shown.ears.get(uuid) == Some(&Ear::Registered) || shown.log == LogState::Following;
    let xid = told.or_else(|| (gi.is_none() && heard).then_some(0))?;
    let labels = labels(&[("err_code", &xid.to_string()), ("err_msg", xid::text(xid))]);
    Some(XidRow { xid, labels })
}
