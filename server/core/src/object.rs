//! Things that are described, each with a generation: the journal's row that changed it last. Who read one writes over that
//! generation only, if he says so.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::{
    GpuModel, GroupName, HostResourceName, NodeName, ProductId, QuotaId, Region, SeatId, Seq,
    TenantName,
};
use crate::state::State;

/// One thing that can be read, replaced and taken away. Leases and licence quotas keep their generation themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// What was said of a tenant.
    Tenant(TenantName),
    /// What was said of a region.
    Region(Region),
    /// What was said of a resource group, and its card limits.
    Group(GroupName),
    /// A kind of dedicated host.
    HostResource(HostResourceName),
    /// An entry of the model catalogue.
    Model(GpuModel),
    /// A software product.
    Product(ProductId),
    /// Where a node stands and belongs, not what it reports.
    Node(NodeName),
    /// The settings.
    Settings,
    /// A seat.
    Seat(SeatId),
    /// A quota; that notice of its end was given is no change.
    Quota(QuotaId),
}

impl Object {
    /// What kind of thing it is, for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::Region(_) => "region",
            Self::Group(_) => "resource group",
            Self::HostResource(_) => "host resource",
            Self::Model(_) => "model",
            Self::Product(_) => "software product",
            Self::Node(_) => "node",
            Self::Settings => "settings",
            Self::Seat(_) => "seat",
            Self::Quota(_) => "quota",
        }
    }
}

/// What an event does to the generation of a thing.
enum Touch {
    Changed(Object),
    Gone(Object),
}

impl State {
    /// The generation of a thing; `None` where it is not there. 0 is one that nobody changed, or not since the journal's
    /// base was made by an earlier version.
    #[must_use]
    pub fn generation(&self, object: &Object) -> Option<Seq> {
        let rows = &self.rows;
        let there = match object {
            Object::Tenant(name) => rows.tenants.contains_key(name),
            Object::Region(name) => rows.regions.contains_key(name),
            Object::Group(name) => rows.groups.contains_key(name),
            Object::HostResource(name) => rows.host_resources.contains_key(name),
            Object::Model(name) => rows.models.contains_key(name),
            Object::Product(id) => rows.products.contains_key(id),
            Object::Node(name) => rows.nodes.contains_key(name),
            Object::Settings => true,
            Object::Seat(id) => rows.seats.contains_key(id),
            Object::Quota(id) => rows.quotas.contains_key(id),
        };
        there.then(|| rows.generations.get(object).copied().unwrap_or_default())
    }

    /// Notes which things an event changes, before it is applied.
    pub(crate) fn note_generation(&mut self, seq: Seq, event: &Event) {
        match self.touched_by(event) {
            Some(Touch::Changed(object)) => {
                self.rows.generations.insert(object, seq);
            }
            Some(Touch::Gone(object)) => {
                self.rows.generations.remove(&object);
            }
            None => {}
        }
    }

    fn touched_by(&self, event: &Event) -> Option<Touch> {
        let changed = |object| Some(Touch::Changed(object));
        let gone = |object| Some(Touch::Gone(object));
        match event {
            Event::TenantCreated { tenant } => changed(Object::Tenant(tenant.clone())),
            Event::TenantSet(profile) => changed(Object::Tenant(profile.tenant.clone())),
            Event::RegionSet(region) => changed(Object::Region(region.region.clone())),
            Event::GroupSet(group) => changed(Object::Group(group.group.clone())),
            Event::CardLimitSet { key, .. } => changed(Object::Group(key.group.clone())),
            Event::GroupRemoved { group } => gone(Object::Group(group.clone())),
            Event::HostResourceSet(host) => changed(Object::HostResource(host.resource.clone())),
            Event::HostResourceRemoved { resource } => gone(Object::HostResource(resource.clone())),
            Event::ModelSet(entry) => changed(Object::Model(entry.gpu_model.clone())),
            Event::ModelRemoved { gpu_model } => gone(Object::Model(gpu_model.clone())),
            Event::ProductSet(product) => changed(Object::Product(product.id)),
            Event::ProductRemoved { product } => gone(Object::Product(*product)),
            Event::NodeDeclared { node, .. } => changed(Object::Node(node.clone())),
            // One that comes back after it was retired is another one.
            Event::SessionOpened { node, .. } => match self.rows.nodes.contains_key(node) {
                true => None,
                false => changed(Object::Node(node.clone())),
            },
            Event::NodeRetired { node, .. } => gone(Object::Node(node.clone())),
            Event::SettingsSet(_) => changed(Object::Settings),
            Event::SeatSet(seat) => changed(Object::Seat(seat.seat)),
            Event::SeatReleased { seat } | Event::SeatExpired { seat } => gone(Object::Seat(*seat)),
            Event::QuotaSet { quota, .. }
            | Event::QuotaExpired { quota }
            | Event::QuotaSwitched { quota, .. }
            | Event::QuotaEnforcementSet { quota, .. } => changed(Object::Quota(*quota)),
            Event::QuotaReleased { quota, .. } => gone(Object::Quota(*quota)),
            Event::QuotaNoticed { .. }
            | Event::DrainBegun { .. }
            | Event::DrainEnforced { .. }
            | Event::DrainEnded { .. }
            | Event::DevicesForgotten { .. }
            | Event::NodeSilent { .. }
            | Event::NodeHeard { .. }
            | Event::NodeReported { .. }
            | Event::NodeSettled { .. }
            | Event::LeaseGranted { .. }
            | Event::LeaseRenewed { .. }
            | Event::LeaseToLeave { .. }
            | Event::LeaseReleasing { .. }
            | Event::LeaseFreed { .. }
            | Event::LeaseWaiting { .. }
            | Event::LeaseEnded { .. }
            | Event::LicenceQuotaSet(_)
            | Event::LicenceQuotaExpired { .. }
            | Event::HostLimitSet { .. }
            | Event::CounterSet(_)
            | Event::StepsBegun(_)
            | Event::StepsHeld(_)
            | Event::StepsConfirmed(_)
            | Event::StepEnded(_)
            | Event::TokenRevoked { .. }
            | Event::JoinTokenMade(_)
            | Event::NodeCertified(_)
            | Event::Banned(_)
            | Event::Unbanned(_)
            | Event::SnapshotTaken { .. }
            | Event::HourClosed { .. }
            | Event::UsageStored { .. }
            | Event::Archived(_)
            | Event::Restored { .. } => None,
        }
    }
}
