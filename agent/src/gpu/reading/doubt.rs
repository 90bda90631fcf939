//! Why a reading of a GPU may not be the whole truth.

use serde::{Deserialize, Serialize};

/// One reason for doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Whether it is cut is not known, or the walk over its MIG instances failed somewhere: which there are, and so who is on
    /// them, is not known.
    Instances,
    /// We may not ask which vGPUs take turns on its GPU instances (`NVML_ERROR_NO_PERMISSION`): more may run than are listed.
    Vgpus,
    /// The size of the rows of its process list is not proven, or the driver is one that is known to get it wrong.
    ProcessRows,
    /// It lists processes without a pid.
    NamelessProcesses,
    /// Its process list and its utilisation samples name processes by different pids: whom the list means is not known.
    Pids,
}

impl Doubt {
    /// As in JSON, in the table and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Vgpus => "vgpus",
            Self::ProcessRows => "process_rows",
            Self::NamelessProcesses => "nameless_processes",
            Self::Pids => "pids",
        }
    }
}
