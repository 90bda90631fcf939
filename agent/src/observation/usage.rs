//! How busy processes and tenants keep a device, and how far that can be trusted. Pure.

use super::{AttributedProcess, Device, Owner};

/// A percentage with what it rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Figure {
    /// The driver said it of this very process, or of a GPU instance that nobody else was on.
    Measured(u32),
    /// It follows from what the driver said of the whole, or a part of it is not known.
    Estimated(u32),
    /// Nothing says it.
    #[default]
    Unknown,
}

impl Figure {
    /// Percent; `None` when unknown.
    #[must_use]
    pub fn percent(self) -> Option<u32> {
        match self {
            Self::Measured(percent) | Self::Estimated(percent) => Some(percent),
            Self::Unknown => None,
        }
    }

    /// The sum of two, which is an estimate as soon as a part of it is not measured.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, Self::Unknown) => Self::Unknown,
            (Self::Measured(a), Self::Measured(b)) => Self::Measured(a.saturating_add(b)),
            (a, b) => {
                let parts = [a.percent(), b.percent()];
                Self::Estimated(parts.into_iter().flatten().fold(0, u32::saturating_add))
            }
        }
    }

    /// `measured`, `estimated` or `unknown`, as in JSON and in metrics.
    #[must_use]
    pub fn quality(self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Estimated(_) => "estimated",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of the device as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeUse {
    /// Percent of its SMs, or of the time in which something ran; `None`: not known.
    pub percent: Option<u32>,
    /// It is a share of SMs, as GPM measures it of a GPU instance, and this device is all that ran there.
    pub exact: bool,
}

/// The figure of one process: its own sample, or the device's when nothing else runs there.
#[must_use]
pub fn of_process(own: Option<u32>, alone: bool, whole: WholeUse) -> Figure {
    match (own, whole.percent) {
        (Some(own), _) => Figure::Measured(own),
        (None, Some(percent)) if alone => Figure::Estimated(percent),
        (None, _) => Figure::Unknown,
    }
}

impl Device {
    /// Percent of this device's SMs that a tenant's processes keep busy. Where nobody else runs here that is what the device
    /// does; else what is known of its processes, which is an estimate as soon as one says nothing.
    #[must_use]
    pub fn sm_of(&self, tenant: &str) -> Figure {
        let own = |process: &&AttributedProcess| process.owner.tenant() == Some(tenant);
        let figures = self.processes.iter().filter(own).map(|own| own.sm);
        let alone = self.processes.iter().all(|process| own(&process));
        let sum = figures.reduce(Figure::and).unwrap_or_default();
        match (sum, self.whole.percent) {
            (Figure::Measured(sum), _) => Figure::Measured(sum.min(100)),
            (_, Some(percent)) if alone && self.whole.exact => Figure::Measured(percent),
            (Figure::Estimated(sum), Some(percent)) if alone => {
                Figure::Estimated(percent.max(sum.min(100)))
            }
            (Figure::Unknown, Some(percent)) if alone => Figure::Estimated(percent),
            (Figure::Estimated(sum), _) => Figure::Estimated(sum.min(100)),
            (Figure::Unknown, _) => Figure::Unknown,
        }
    }

    /// Framebuffer of the processes that `whose` picks, or of the VM, bytes; `None` as soon as one of them does not say:
    /// part of a sum is no sum.
    #[must_use]
    pub fn memory_of(&self, whose: impl Fn(&Owner) -> bool) -> Option<u64> {
        if let Some(vgpu) = &self.vgpu {
            let used = self.memory.map(|memory| memory.used);
            return if whose(&vgpu.owner) { used } else { Some(0) };
        }
        self.processes
            .iter()
            .filter(|process| whose(&process.owner))
            .map(|process| process.used_memory_bytes)
            .sum()
    }
}

/// Framebuffer of one GPU or GPU instance that no known tenant and no system process explains, bytes. `devices` are all that
/// share it: a full GPU, a vGPU, or the compute instances of one GPU instance. What the device says it uses is more than the
/// lists tell where a process is hidden from them; without that word, or where the driver's reserve is part of it, the
/// processes of nobody known are all that can be told.
#[must_use]
pub fn unattributed_bytes(devices: &[&Device]) -> Option<u64> {
    let nobodys = |owner: &Owner| owner.reason().is_some();
    let sum = |whose: &dyn Fn(&Owner) -> bool| -> Option<u64> {
        devices.iter().map(|device| device.memory_of(whose)).sum()
    };
    let listed = sum(&nobodys);
    let memory = devices.first().and_then(|device| device.memory);
    let used = memory.filter(|memory| memory.reserved.is_some());
    match used.zip(sum(&|owner| !nobodys(owner))) {
        Some((used, known)) => Some(used.used.saturating_sub(known).max(listed.unwrap_or(0))),
        None => listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::Memory;
    use crate::observation::{Reason, Source};

    fn process(tenant: &str, sm: Figure, bytes: Option<u64>) -> AttributedProcess {
        let owner = match tenant {
            "" => Owner::Unattributed(Reason::NoRule),
            "system" => Owner::System,
            name => Owner::Tenant {
                name: name.to_owned(),
                source: Source::Slice,
            },
        };
        AttributedProcess {
            pid: Some(1),
            kind: None,
            start_time: None,
            owner,
            used_memory_bytes: bytes,
            sm,
        }
    }

    fn device(processes: Vec<AttributedProcess>, percent: Option<u32>, exact: bool) -> Device {
        Device {
            processes,
            whole: WholeUse { percent, exact },
            ..Device::default()
        }
    }

    #[test]
    fn a_figure_says_what_it_rests_on() {
        use Figure::{Estimated, Measured, Unknown};
        let of = |figures: &[(&str, Figure)], percent, exact| {
            let processes = figures
                .iter()
                .map(|(tenant, sm)| process(tenant, *sm, None));
            device(processes.collect(), percent, exact).sm_of("a")
        };
        let mine = |sm| ("a", sm);
        assert_eq!(
            of(&[mine(Measured(30)), mine(Measured(20))], Some(99), false),
            Measured(50)
        );
        assert_eq!(
            of(&[mine(Measured(90)), mine(Measured(20))], None, false),
            Measured(100)
        );
        assert_eq!(
            of(&[mine(Measured(30)), mine(Unknown)], None, false),
            Estimated(30)
        );
        assert_eq!(
            of(&[mine(Measured(30)), mine(Unknown)], Some(45), false),
            Estimated(45)
        );
        assert_eq!(
            of(&[mine(Unknown), ("b", Unknown)], Some(45), true),
            Unknown
        );
        assert_eq!(
            of(
                &[mine(Measured(5)), mine(Unknown), ("b", Unknown)],
                Some(45),
                true
            ),
            Estimated(5)
        );
        assert_eq!(
            of(&[mine(Unknown), mine(Unknown)], Some(45), true),
            Measured(45)
        );
        assert_eq!(of(&[mine(Unknown)], None, false), Unknown, "never 0");
        assert_eq!(
            of(&[mine(Unknown), mine(Unknown)], Some(45), false),
            Estimated(45)
        );
        let sums = [
            (Measured(3), Measured(4)),
            (Measured(3), Unknown),
            (Unknown, Estimated(4)),
            (Unknown, Unknown),
        ];
        let expected = [Measured(7), Estimated(3), Estimated(4), Unknown];
        assert_eq!(sums.map(|(a, b)| a.and(b)), expected);
        assert_eq!(of(&[("b", Measured(4))], Some(45), false), Unknown);
        let whole = WholeUse {
            percent: Some(45),
            exact: true,
        };
        assert_eq!(of_process(Some(3), true, whole), Measured(3));
        assert_eq!(of_process(None, true, whole), Estimated(45));
        assert_eq!(of_process(None, false, whole), Unknown);
        assert_eq!(of_process(None, true, WholeUse::default()), Unknown);
    }

    #[test]
    fn rule_11_what_the_lists_do_not_explain_is_nobodys_and_a_gpu_instance_counts_once() {
        let with = |processes, used, reserved| Device {
            memory: Some(Memory {
                total: 1000,
                reserved,
                free: 1000 - used,
                used,
            }),
            ..device(processes, None, false)
        };
        let a = |bytes| process("a", Figure::Unknown, bytes);
        let some = with(
            vec![a(Some(100)), process("", Figure::Unknown, Some(7))],
            150,
            Some(5),
        );
        assert_eq!(
            unattributed_bytes(&[&some]),
            Some(50),
            "43 of a hidden process"
        );
        let system = with(
            vec![process("system", Figure::Unknown, Some(150))],
            150,
            Some(5),
        );
        assert_eq!(unattributed_bytes(&[&system]), Some(0));
        // Shared memory is listed with each process: more than there is.
        let shared = with(vec![a(Some(100)), a(Some(100))], 150, Some(5));
        assert_eq!(unattributed_bytes(&[&shared]), Some(0));
        // One tenant's process does not say: what the others hold is known all the same.
        let silent = with(
            vec![a(None), process("", Figure::Unknown, Some(7))],
            150,
            Some(5),
        );
        assert_eq!(unattributed_bytes(&[&silent]), Some(7));
        let old = with(vec![a(Some(100))], 150, None);
        assert_eq!(unattributed_bytes(&[&old]), Some(0), "the reserve is in it");
        // Two compute instances show the same memory of their GPU instance.
        let (first, second) = (
            with(vec![a(Some(60))], 150, Some(0)),
            with(vec![a(Some(80))], 150, Some(0)),
        );
        assert_eq!(unattributed_bytes(&[&first, &second]), Some(10));
    }
}
