//! What the file declares of the ledger's things: applied at start, as if the native API had been called.
//!
//! What an entry leaves out stays as the API left it where the API changes single fields (tenants, nodes); an entry that
//! is taken out of the file leaves what it declared.

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::catalogue::ModelEntry;
use gpuquota_core::command::{DeclareNode, SetTenant};
use gpuquota_core::id::{
    Code, DisplayName, GpuModel, GroupName, HardwareName, HostResourceName, NodeName, ProductId,
    ProjectId, Region, SiteId, TenantName, TenantNumber,
};
use gpuquota_core::licence::Product;
use gpuquota_core::limit::Limit;
use gpuquota_core::pool::{
    Accelerator, CardLimitKey, HostLimitKey, HostResource, Inventory, RegionProfile, ResourceGroup,
};
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::settings::{LeaseMode, Settings};
use serde::Deserialize;

use super::number::{HostCount, Number, RunTime, Seconds};
use crate::chosen_enforcement::{ChosenEnforcement, ChosenEnforcing};
use crate::chosen_mode::ChosenMode;

/// `[settings]`: all of them; what is left out is at its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredSettings {
    consume_first: Option<QuotaSource>,
    lease_mode: Option<LeaseMode>,
    confirm_within_seconds: Option<Seconds<1>>,
    ghost_after_seconds: Option<Seconds<1>>,
    drain_notice_seconds: Option<Seconds<0>>,
    enforcing: Option<ChosenEnforcing>,
}

/// `[[tenant]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredTenant {
    tenant: TenantName,
    id: Option<Number>,
    name: Option<DisplayName>,
    code: Option<Code>,
    projects: Option<BTreeSet<ProjectId>>,
    frozen: Option<bool>,
    confined: Option<bool>,
    lease_mode: Option<ChosenMode>,
    enforcement: Option<ChosenEnforcement>,
}

/// `[[region]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredRegion {
    region: Region,
    name: Option<DisplayName>,
    site_id: Option<SiteId>,
    lease_mode: Option<ChosenMode>,
    enforcement: Option<ChosenEnforcement>,
}

/// `[[resource_group]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredGroup {
    resource_group: GroupName,
    #[serde(default)]
    max_time: RunTime,
    tenants: Option<BTreeSet<TenantName>>,
}

/// `[[card_limit]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredCardLimit {
    resource_group: GroupName,
    accelerator: Accelerator,
    tenant: Option<TenantName>,
    cards: Number,
}

/// `[[software_product]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredProduct {
    id: Number,
    name: DisplayName,
    code: Code,
    #[serde(default)]
    vgpu_types: BTreeSet<HardwareName>,
}

/// `[[model]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredModel {
    gpu_model: GpuModel,
    quota_type: Option<QuotaType>,
    #[serde(default)]
    aliases: BTreeSet<GpuModel>,
    #[serde(default)]
    hardware: BTreeSet<HardwareName>,
    profile: Option<GpuModel>,
}

/// `[[host_resource]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredHostResource {
    resource: HostResourceName,
    resource_groups: BTreeSet<GroupName>,
}

/// `[[host_limit]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredHostLimit {
    tenant: TenantName,
    resource: HostResourceName,
    hard_limit: HostCount,
}

/// `[[node]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredNode {
    name: NodeName,
    region: Region,
    resource_groups: Option<BTreeSet<GroupName>>,
    inventory: Option<Inventory>,
}

/// One table of the file that declares something.
pub trait Declaration {
    /// What the ledger is asked for.
    fn command(&self) -> Command;
}

impl Declaration for DeclaredSettings {
    fn command(&self) -> Command {
        let usual = Settings::default();
        let ms = |seconds: Option<u64>, usual_ms| seconds.map_or(usual_ms, |it| it * 1000);
        Command::SetSettings(Settings {
            consume_first: self.consume_first.unwrap_or(usual.consume_first),
            lease_mode: self.lease_mode.unwrap_or(usual.lease_mode),
            confirm_within_ms: ms(
                self.confirm_within_seconds.map(Seconds::get),
                usual.confirm_within_ms,
            ),
            ghost_after_ms: ms(
                self.ghost_after_seconds.map(Seconds::get),
                usual.ghost_after_ms,
            ),
            drain_notice_ms: ms(
                self.drain_notice_seconds.map(Seconds::get),
                usual.drain_notice_ms,
            ),
            enforcing: self
                .enforcing
                .clone()
                .map_or(usual.enforcing, |chosen| chosen.0),
        })
    }
}

impl Declaration for DeclaredTenant {
    fn command(&self) -> Command {
        Command::SetTenant(SetTenant {
            tenant: self.tenant.clone(),
            number: self.id.map(|number| TenantNumber(number.get())),
            display_name: self.name.clone(),
            code: self.code.clone(),
            projects: self.projects.clone(),
            frozen: self.frozen,
            confined: self.confined,
            lease_mode: self.lease_mode.map(|mode| mode.0),
            enforcement: self.enforcement.clone().map(|chosen| Some(chosen.0)),
        })
    }
}

impl Declaration for DeclaredRegion {
    fn command(&self) -> Command {
        Command::SetRegion(RegionProfile {
            region: self.region.clone(),
            display_name: self.name.clone(),
            site: self.site_id.clone(),
            lease_mode: self.lease_mode.and_then(|mode| mode.0),
            enforcement: self.enforcement.clone().map(|chosen| chosen.0),
        })
    }
}

impl Declaration for DeclaredGroup {
    fn command(&self) -> Command {
        Command::SetGroup(ResourceGroup {
            group: self.resource_group.clone(),
            max_time_s: self.max_time.seconds(),
            tenants: self.tenants.clone(),
        })
    }
}

impl Declaration for DeclaredCardLimit {
    fn command(&self) -> Command {
        let key = CardLimitKey {
            group: self.resource_group.clone(),
            tenant: self.tenant.clone(),
            accelerator: self.accelerator,
        };
        Command::SetCardLimit(key, Some(self.cards.get()))
    }
}

impl Declaration for DeclaredProduct {
    fn command(&self) -> Command {
        Command::SetProduct(Product {
            id: ProductId(self.id.get()),
            name: self.name.clone(),
            code: self.code.clone(),
            vgpu_types: self.vgpu_types.clone(),
        })
    }
}

impl Declaration for DeclaredModel {
    fn command(&self) -> Command {
        Command::SetModel(ModelEntry {
            gpu_model: self.gpu_model.clone(),
            quota_type: self.quota_type,
            aliases: self.aliases.clone(),
            hardware: self.hardware.clone(),
            profile: self.profile.clone(),
        })
    }
}

impl Declaration for DeclaredHostResource {
    fn command(&self) -> Command {
        Command::SetHostResource(HostResource {
            resource: self.resource.clone(),
            groups: self.resource_groups.clone(),
        })
    }
}

impl Declaration for DeclaredHostLimit {
    fn command(&self) -> Command {
        let key = HostLimitKey {
            tenant: self.tenant.clone(),
            resource: self.resource.clone(),
        };
        let limit: Limit = self.hard_limit.limit();
        Command::SetHostLimit(key, Some(limit))
    }
}

impl Declaration for DeclaredNode {
    fn command(&self) -> Command {
        Command::DeclareNode(DeclareNode {
            node: self.name.clone(),
            region: self.region.clone(),
            groups: self.resource_groups.clone(),
            inventory: self.inventory.clone(),
        })
    }
}
