//! One device as the server was last told of it, and what the next telling would be.

use gpuquota_proto::TENANTS_PER_DEVICE;

use crate::gpu::reading::{Health, Licence};
use crate::observation::{Device, Owner, Vgpu};

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
    /// A GPU in MIG mode or a vGPU host.
    pub partitioned: bool,
    /// Tenants that hold it, ascending, at most 256.
    pub tenants: Vec<String>,
    /// At least one process, or the VM, belongs to nobody that is known.
    pub unattributed: bool,
    /// Of a vGPU instance.
    pub vgpu: Option<VgpuView>,
    /// For placement; the last known ones.
    pub numa_node: Option<u32>,
    /// For placement; the last known one.
    pub nvlink_island: Option<u32>,
}

/// What is told of a vGPU instance beyond its holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VgpuView {
    /// Whether the guest has a licence.
    pub licence: Licence,
    /// When it ends, seconds since 1970.
    pub licence_expires_at_s: Option<i64>,
    /// The VM, empty when unknown.
    pub vm: String,
    /// UUID of the GPU that it lives on.
    pub parent: String,
}

impl VgpuView {
    fn new(vgpu: &Vgpu) -> Self {
        Self {
            licence: vgpu.licence,
            licence_expires_at_s: vgpu.licence_expires_at_s,
            vm: vgpu.vm.clone().unwrap_or_default(),
            parent: vgpu.parent.clone(),
        }
    }

    /// Takes over what is seen now. The guest says whether it has a licence, so what it can make the agent send is bounded
    /// as for holders: a licence is told at once, anything else only with a token.
    fn update(&mut self, vgpu: &Vgpu, may_drop: &mut dyn FnMut() -> bool) -> bool {
        let vm = vgpu.vm.as_deref().unwrap_or_default();
        let mut changed = replace_text(&mut self.vm, vm);
        changed |= replace_text(&mut self.parent, &vgpu.parent);
        let told = (self.licence, self.licence_expires_at_s);
        let seen = (vgpu.licence, vgpu.licence_expires_at_s);
        let gained = seen.0 == Licence::Licensed && told.0 != Licence::Licensed;
        if told != seen && (gained || may_drop()) {
            (self.licence, self.licence_expires_at_s) = seen;
            changed = true;
        }
        changed
    }
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
            vgpu: device.vgpu.as_ref().map(VgpuView::new),
            numa_node: device.numa_node(),
            nvlink_island: device.nvlink_island,
        }
    }

    /// Takes over what is seen now and says whether anything changed. Who joins is taken at once. Who left is let go only
    /// when `may_drop` allows it (it is asked at most once, and only when somebody left). While the device does not
    /// answer nobody has left, and what it no longer tells stays as it was.
    pub fn update(&mut self, device: &Device, may_drop: impl FnOnce() -> bool) -> bool {
        let fresh = device.health == Health::Ok;
        let mut may_drop = Some(may_drop);
        let mut allowed = None;
        let mut may_drop = move || {
            *allowed.get_or_insert_with(|| may_drop.take().is_some_and(|may_drop| may_drop()))
        };
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
        // Told once by a GPU that answers; what a remembered view said stands until then.
        if fresh && device.facts.is_some() {
            changed |= replace(&mut self.numa_node, device.numa_node());
            changed |= replace(&mut self.nvlink_island, device.nvlink_island);
        }
        changed |= match (&mut self.vgpu, &device.vgpu) {
            (Some(told), Some(seen)) if fresh => told.update(seen, &mut may_drop),
            (None, Some(seen)) => replace(&mut self.vgpu, Some(VgpuView::new(seen))),
            (Some(_), Some(_)) | (_, None) => false,
        };
        changed | self.update_holders(device, fresh, &mut may_drop)
    }

    /// The node no longer says anything of this device.
    pub fn forget_health(&mut self) -> bool {
        replace(&mut self.health, Health::Unknown)
    }

    fn update_holders(
        &mut self,
        device: &Device,
        fresh: bool,
        may_drop: &mut dyn FnMut() -> bool,
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

// Tenants with at least one process, or the VM, here, ascending.
fn holders(device: &Device) -> Vec<&str> {
    let mut tenants: Vec<&str> = device.owners().filter_map(Owner::tenant).collect();
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
mod tests;
