//! Tenants, products, licences, groups and nodes, put into a ledger as the operator would.

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::command::{CheckOutSeat, CreateLicenceQuota, DeclareNode, SetTenant};
use gpuquota_core::id::{
    Code, DisplayName, GroupName, NodeName, ProductId, Region, TenantName, TenantNumber, Timestamp,
};
use gpuquota_core::licence::Product;
use gpuquota_core::pool::{Accelerator, CardLimitKey, Inventory, ResourceGroup};
use gpuquota_server::service::Origin;

use crate::running::Running;

impl Running {
    /// Asks for all of it, in order; each must be granted.
    pub(crate) async fn has(&self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            let text = format!("{command:?}");
            let receipt = self.ledger.submit(command, Origin::server()).await;
            assert!(receipt.is_ok(), "{text}: {receipt:?}");
        }
    }

    /// Last row of the journal.
    pub(crate) fn seq(&self) -> u64 {
        self.ledger.read().state.seq().0
    }
}

pub(crate) fn name(tenant: &str) -> TenantName {
    TenantName::new(tenant).unwrap()
}

pub(crate) fn tenant(tenant: &str, number: u32) -> Command {
    Command::SetTenant(SetTenant {
        tenant: name(tenant),
        number: Some(TenantNumber(number)),
        display_name: None,
        code: None,
        projects: None,
        frozen: None,
        confined: None,
        lease_mode: None,
        enforcement: None,
    })
}

pub(crate) fn frozen(tenant: &str, frozen: bool) -> Command {
    Command::SetTenant(SetTenant {
        tenant: name(tenant),
        number: None,
        display_name: None,
        code: None,
        projects: None,
        frozen: Some(frozen),
        confined: None,
        lease_mode: None,
        enforcement: None,
    })
}

/// The tenant of the documents' examples.
pub(crate) fn demo_company() -> Command {
    Command::SetTenant(SetTenant {
        tenant: name("demo"),
        number: Some(TenantNumber(2)),
        display_name: Some(DisplayName::new("示例公司").unwrap()),
        code: Some(Code::new("DEMO_COMPANY").unwrap()),
        projects: None,
        frozen: None,
        confined: None,
        lease_mode: None,
        enforcement: None,
    })
}

pub(crate) fn product(id: u32, name: &str, code: &str) -> Command {
    Command::SetProduct(Product {
        id: ProductId(id),
        name: DisplayName::new(name).unwrap(),
        code: Code::new(code).unwrap(),
        vgpu_types: BTreeSet::new(),
    })
}

pub(crate) fn licence(tenant: u32, product: u32, max: u32, end: Option<i64>) -> Command {
    Command::CreateLicenceQuota(CreateLicenceQuota {
        tenant: TenantNumber(tenant),
        product: ProductId(product),
        max,
        expires_at: end.map(Timestamp),
        is_active: true,
    })
}

pub(crate) fn seats(tenant: &str, product: u32, count: usize) -> Vec<Command> {
    let seat = Command::CheckOutSeat(CheckOutSeat {
        tenant: name(tenant),
        product: ProductId(product),
        owner: DisplayName::new("user@host").unwrap(),
        ttl_ms: 3_600_000,
    });
    vec![seat; count]
}

pub(crate) fn group(group: &str, max_time_s: Option<u64>, tenants: Option<&[&str]>) -> Command {
    Command::SetGroup(ResourceGroup {
        group: GroupName::new(group).unwrap(),
        max_time_s,
        tenants: tenants.map(|tenants| tenants.iter().map(|tenant| name(tenant)).collect()),
    })
}

pub(crate) fn cards(
    group: &str,
    tenant: Option<&str>,
    accelerator: Accelerator,
    cards: u32,
) -> Command {
    let key = CardLimitKey {
        group: GroupName::new(group).unwrap(),
        tenant: tenant.map(name),
        accelerator,
    };
    Command::SetCardLimit(key, Some(cards))
}

pub(crate) fn node(node: &str, groups: &[&str], inventory: Option<Inventory>) -> Command {
    let groups = groups.iter().map(|group| GroupName::new(group).unwrap());
    Command::DeclareNode(DeclareNode {
        node: NodeName::new(node).unwrap(),
        region: Region::new("US").unwrap(),
        groups: Some(groups.collect()),
        inventory,
    })
}
