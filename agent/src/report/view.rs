//! One device as the server was last told of it, and what the next telling would be.

use gpuquota_proto::TENANTS_PER_DEVICE;

use crate::gpu::reading::Health;
use crate::observation::{Device, Owner};

/// What decides about one device. Memory in use, processes and the like are not here: they only glow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Whether the holders are fresh.
    pub health: Health,
    /// NVML's product name.
    pub model: String,
    /// What quotas call it.
    pub gpu_model: String,
    /// MIG profile, empty otherwise.
    pub profile: String,
    /// Framebuffer, bytes; the last known one.
    pub memory_total_bytes: Option<u64>,
    /// A GPU in MIG mode.
    pub partitioned: bool,
    /// Tenants that hold it, ascending, at most 256.
    pub tenants: Vec<String>,
    /// At least one process belongs to nobody that is known.
    pub unattributed: bool,
}

impl DeviceView {
    /// A device that was never told of.
    #[must_use]
    pub fn new(device: &Device) -> Self {
        let (tenants, unattributed) = cut(holders(device), device.unattributed());
        Self {
            health: device.health,
            model: device.model.clone(),
            gpu_model: device.gpu_model.clone(),
            profile: device.profile.clone().unwrap_or_default(),
            memory_total_bytes: device.memory.map(|memory| memory.total),
            partitioned: device.partitioned,
            tenants,
            unattributed,
        }
    }

    /// Takes over what is seen now and says whether anything changed. Who joins is taken at once. Who left is let go only
    /// when `may_drop` allows it (it is asked at most once, and only when somebody left). While the device does not
    /// answer nobody has left, and what it no longer tells stays as it was.
    pub fn update(&mut self, device: &Device, may_drop: impl FnOnce() -> bool) -> bool {
        let fresh = device.health == Health::Ok;
        let mut changed = replace(&mut self.health, device.health);
        if fresh || !device.model.is_empty() {
            changed |= replace_text(&mut self.model, &device.model);
        }
        if fresh || !device.gpu_model.is_empty() {
            changed |= replace_text(&mut self.gpu_model, &device.gpu_model);
        }
        if fresh || device.profile.is_some() {
            changed |= replace_text(&mut self.profile, device.profile.as_deref().unwrap_or(""));
        }
        if let Some(memory) = device.memory {
            changed |= replace(&mut self.memory_total_bytes, Some(memory.total));
        }
        if fresh {
            changed |= replace(&mut self.partitioned, device.partitioned);
        }
        changed | self.update_holders(device, fresh, may_drop)
    }

    /// The node no longer says anything of this device.
    pub fn forget_health(&mut self) -> bool {
        replace(&mut self.health, Health::Unknown)
    }

    fn update_holders(
        &mut self,
        device: &Device,
        fresh: bool,
        may_drop: impl FnOnce() -> bool,
    ) -> bool {
        let seen = holders(device);
        let unattributed = device.unattributed() || seen.len() > TENANTS_PER_DEVICE;
        let left = self
            .tenants
            .iter()
            .any(|tenant| seen.binary_search(&tenant.as_str()).is_err())
            || (self.unattributed && !unattributed);
        let same = !left && seen.len() == self.tenants.len() && unattributed == self.unattributed;
        if same {
            return false;
        }
        let (tenants, unattributed) = if left && !(fresh && may_drop()) {
            let mut all = seen.clone();
            all.extend(self.tenants.iter().map(String::as_str));
            all.sort_unstable();
            all.dedup();
            // Beyond the limit of the wire those that are really there come first.
            let kept = if all.len() > TENANTS_PER_DEVICE {
                seen
            } else {
                all
            };
            cut(kept, unattributed || self.unattributed)
        } else {
            cut(seen, unattributed)
        };
        let changed = tenants != self.tenants || unattributed != self.unattributed;
        self.tenants = tenants;
        self.unattributed = unattributed;
        changed
    }
}

// Tenants with at least one process here, ascending.
fn holders(device: &Device) -> Vec<&str> {
    let mut tenants: Vec<&str> = device
        .processes
        .iter()
        .filter_map(|process| match &process.owner {
            Owner::Tenant { name, .. } => Some(name.as_str()),
            Owner::System | Owner::Unattributed(_) => None,
        })
        .collect();
    tenants.sort_unstable();
    tenants.dedup();
    tenants
}

// More tenants than a report can carry: the rest is there, so it shows as unattributed.
fn cut(tenants: Vec<&str>, unattributed: bool) -> (Vec<String>, bool) {
    let over = tenants.len() > TENANTS_PER_DEVICE;
    let kept = tenants
        .into_iter()
        .take(TENANTS_PER_DEVICE)
        .map(str::to_owned)
        .collect();
    (kept, unattributed || over)
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

fn replace_text(old: &mut String, new: &str) -> bool {
    let changed = old != new;
    if changed {
        new.clone_into(old);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{AttributedProcess, Reason, Source};

    fn device(tenants: &[&str], health: Health) -> Device {
        Device {
            health,
            model: "H100".into(),
            gpu_model: "nvidia.com/gpu".into(),
            profile: None,
            mig_uuid: None,
            minor: None,
            partitioned: false,
            memory: None,
            processes: tenants
                .iter()
                .map(|name| AttributedProcess {
                    pid: 7,
                    start_time: None,
                    owner: if name.is_empty() {
                        Owner::Unattributed(Reason::NoRule)
                    } else {
                        Owner::Tenant {
                            name: (*name).into(),
                            source: Source::Slice,
                        }
                    },
                    used_memory_bytes: None,
                })
                .collect(),
        }
    }

    #[test]
    fn who_joins_is_told_at_once_and_who_left_lingers_without_a_token() {
        let mut view = DeviceView::new(&device(&["b", "b"], Health::Ok));
        assert_eq!(view.tenants, ["b"]);
        assert!(view.update(&device(&["a", ""], Health::Ok), || false));
        assert_eq!(
            (view.tenants.join(","), view.unattributed),
            ("a,b".into(), true)
        );
        assert!(!view.update(&device(&["a"], Health::Ok), || false));
        assert!(view.update(&device(&["a"], Health::Ok), || true));
        assert_eq!(
            (view.tenants.join(","), view.unattributed),
            ("a".into(), false)
        );
        assert!(!view.update(&device(&["a"], Health::Ok), || panic!("nobody left")));
    }

    #[test]
    fn nobody_leaves_a_device_that_does_not_answer() {
        let mut view = DeviceView::new(&device(&["a"], Health::Ok));
        let mut silent = device(&[], Health::Hung);
        silent.model = String::new();
        assert!(view.update(&silent, || panic!("not asked")));
        assert_eq!(
            (view.tenants.join(","), view.model.as_str()),
            ("a".into(), "H100")
        );
        assert_eq!(view.health, Health::Hung);
    }

    #[test]
    fn more_tenants_than_the_wire_carries_show_as_unattributed() {
        let names: Vec<String> = (0..300).map(|n| format!("t{n:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut view = DeviceView::new(&device(&names, Health::Ok));
        assert_eq!((view.tenants.len(), view.unattributed), (256, true));
        assert!(!view.update(&device(&names, Health::Ok), || true));
        assert!(view.update(&device(&names[..10], Health::Ok), || true));
        assert_eq!((view.tenants.len(), view.unattributed), (10, false));
    }
}
