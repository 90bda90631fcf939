//! What must always hold of a state, whatever events made it.

use super::State;
use crate::id::TenantName;
use crate::lease::{LeasePhase, LeasePlacement};

/// An invariant does not hold; the ledger must not be written to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broken invariant: {0}")]
pub struct Broken(pub String);

impl State {
    /// Recounts every index from the rows and checks what must always hold.
    ///
    /// # Errors
    /// With the first invariant that does not hold.
    pub fn verify(&self) -> Result<(), Broken> {
        let recount = Self::from(self.rows.clone());
        if recount.index != self.index {
            return Err(Broken("an index differs from a recount of its rows".into()));
        }
        if self.index.by_key.len() != self.rows.quotas.len() {
            return Err(Broken("two quotas share a key".into()));
        }
        let references = self.rows.quotas.values();
        let references = references.filter(|quota| quota.reference.is_some());
        if self.index.by_reference.len() != references.count() {
            return Err(Broken("two quotas of one tenant share an id".into()));
        }
        for (key, device) in &self.rows.devices {
            let listed = self
                .node(&device.node)
                .is_some_and(|n| n.devices.contains(key));
            if !listed || *key != device.report.key {
                return Err(Broken(format!("device {key} is not its node's")));
            }
        }
        for (name, node) in &self.rows.nodes {
            for key in &node.devices {
                if self.device(key).is_none_or(|device| device.node != *name) {
                    return Err(Broken(format!("node {name} lists {key}, which is not its")));
                }
            }
        }
        self.verify_directory()?;
        self.verify_models()?;
        self.verify_leases()?;
        self.verify_meter()?;
        for quota in self.rows.quotas.values() {
            if !self.rows.tenants.contains_key(&quota.key.tenant) {
                return Err(Broken(format!("quota {} has no tenant", quota.id.0)));
            }
            if quota.id.0 >= self.rows.next_quota {
                return Err(Broken(format!(
                    "quota {} would be given out again",
                    quota.id.0
                )));
            }
            for node in quota.nodes.iter().filter(|node| quota.binds(node)) {
                if self.bound_tenant(node) != Some(&quota.key.tenant) {
                    return Err(Broken(format!("node {node} is bound to two tenants")));
                }
            }
        }
        Ok(())
    }

    // That no device has two live leases the index itself asserts, also where it is recounted.
    fn verify_leases(&self) -> Result<(), Broken> {
        for lease in self.rows.leases.values() {
            let id = lease.id.0;
            if id >= self.rows.next_lease || lease.epoch > self.rows.last_epoch {
                return Err(Broken(format!("lease {id} would be given out again")));
            }
            if lease.model != self.catalogue().canonical(&lease.terms.gpu_model) {
                return Err(Broken(format!("lease {id} has another model")));
            }
            let named = match lease.terms.placement {
                LeasePlacement::Devices => u64::from(lease.terms.count),
                LeasePlacement::CountOnly => 0,
            };
            if lease.devices.len() as u64 != named {
                return Err(Broken(format!(
                    "lease {id} has not as many devices as it says"
                )));
            }
            if lease.live() && !self.rows.tenants.contains_key(&lease.terms.tenant) {
                return Err(Broken(format!("lease {id} has no tenant")));
            }
            match &lease.phase {
                LeasePhase::Active => {}
                LeasePhase::Releasing { waiting, .. } => {
                    let own = waiting.iter().all(|key| lease.devices.contains_key(key));
                    if waiting.is_empty() || !own {
                        return Err(Broken(format!("lease {id} waits for nothing of its own")));
                    }
                }
                LeasePhase::Ended { unconfirmed, .. } => {
                    if !unconfirmed
                        .keys()
                        .all(|key| lease.devices.contains_key(key))
                    {
                        return Err(Broken(format!("lease {id} ended for another's device")));
                    }
                }
            }
        }
        let epochs = self.rows.leases.values().map(|lease| lease.epoch);
        if !epochs.is_sorted_by(|one, next| one < next) {
            return Err(Broken("fencing epochs do not grow with leases".into()));
        }
        Ok(())
    }

    fn verify_meter(&self) -> Result<(), Broken> {
        let metered = self.rows.devices.iter();
        let metered = metered.filter(|(_, device)| !device.report.partitioned);
        if metered.count() != self.rows.meter.running.len() {
            return Err(Broken("the meter has other devices than the ledger".into()));
        }
        for (key, running) in &self.rows.meter.running {
            let is = self.metered_as(key);
            if is.as_ref() != Some(&(running.place.clone(), running.class.clone())) {
                return Err(Broken(format!("the meter takes device {key} for another")));
            }
        }
        Ok(())
    }

    fn verify_models(&self) -> Result<(), Broken> {
        let catalogue = self.catalogue();
        for (key, device) in &self.rows.devices {
            if device.canonical != catalogue.of_device(&device.report) {
                return Err(Broken(format!("device {key} has another model")));
            }
        }
        for quota in self.rows.quotas.values() {
            if quota.model != catalogue.canonical(&quota.key.gpu_model) {
                return Err(Broken(format!("quota {} has another model", quota.id.0)));
            }
        }
        Ok(())
    }

    fn verify_directory(&self) -> Result<(), Broken> {
        let tenants = self.rows.tenants.len();
        if self.index.numbers.len() != tenants {
            return Err(Broken("two tenants share a number".into()));
        }
        let profiles = self.rows.tenants.values().map(|tenant| &tenant.profile);
        let projects = profiles
            .map(|profile| profile.projects.len())
            .sum::<usize>();
        if self.index.projects.len() != projects {
            return Err(Broken("two tenants share a project".into()));
        }
        for (project, owner) in &self.index.projects {
            let named = TenantName::new(project.as_str());
            if named.is_ok_and(|name| name != *owner && self.tenant(&name).is_some()) {
                return Err(Broken(format!(
                    "project {project} is another tenant's name"
                )));
            }
        }
        for quota in self.rows.licence_quotas.values() {
            let terms = &quota.terms;
            if !self.rows.tenants.contains_key(&terms.tenant)
                || !self.rows.products.contains_key(&terms.product)
                || terms.quota.0 >= self.rows.next_licence_quota
            {
                return Err(Broken(format!(
                    "licence quota {} hangs loose",
                    terms.quota.0
                )));
            }
        }
        for seat in self.rows.seats.values() {
            if !self.rows.tenants.contains_key(&seat.tenant)
                || !self.rows.products.contains_key(&seat.product)
                || seat.seat.0 >= self.rows.next_seat
            {
                return Err(Broken(format!("seat {} hangs loose", seat.seat.0)));
            }
        }
        Ok(())
    }
}
