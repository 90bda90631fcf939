//! Leases in the histories: what each tenant is charged for because of them and of what its processes hold.

use std::collections::BTreeMap;

use gpuquota_tests::rest::Rest;
use serde_json::{Value, json};

use super::model::{MODELS, NODES, REGIONS, TENANTS, World};
use super::steps::Writer;

const LEASES: &str = "/api/v1/leases";

/// A lease that is charged, as the native API lists it.
#[derive(Clone, Debug)]
pub(super) struct Leased {
    id: u64,
    tenant: &'static str,
    region: &'static str,
    kind: &'static str,
    model: &'static str,
    /// Devices that it still occupies and their nodes.
    devices: BTreeMap<String, usize>,
    /// Devices that it is charged for without naming them.
    unplaced: u64,
}

/// One device, or one of a number, that is charged to a quota of a type in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) tenant: &'static str,
    pub(super) kind: &'static str,
    pub(super) region: &'static str,
    pub(super) leased: bool,
    pub(super) observed: bool,
}

/// Devices that the same quotas are about: region, type, model.
type Group = (&'static str, &'static str, &'static str);

struct Unit {
    node: usize,
    kind: &'static str,
    model: &'static str,
    leased: bool,
    observed: bool,
}

fn known(list: impl IntoIterator<Item = &'static str>, value: &Value) -> &'static str {
    let found = list.into_iter().find(|known| value == known);
    found.unwrap_or_else(|| unreachable!("{value}"))
}

/// All that are charged now.
pub(super) async fn read(admin: &Rest) -> Vec<Leased> {
    let answer = admin.get(&format!("{LEASES}?limit=1000")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let leases = body["leases"].as_array().unwrap().iter();
    leases
        .map(|lease| {
            let active = lease["state"] == "active";
            let placed = lease["placement"] == "devices";
            let devices = lease["devices"].as_array().unwrap().iter();
            let occupied = devices.filter(|device| {
                let waiting = lease["waiting"].as_array();
                active || waiting.is_some_and(|list| list.contains(&device["id"]))
            });
            let place = |device: &Value| {
                let node = NODES.iter().position(|node| device["node"] == node.name);
                let id = device["id"].as_str().unwrap().to_owned();
                (id, node.unwrap())
            };
            Leased {
                id: lease["id"].as_u64().unwrap(),
                tenant: known(TENANTS.map(|(name, _)| name), &lease["tenant"]),
                region: known(REGIONS.map(|(name, _)| name), &lease["region"]),
                kind: known(MODELS.map(|(_, kind)| kind), &lease["type"]),
                model: known(MODELS.map(|(name, _)| name), &lease["gpu_model"]),
                devices: occupied.map(place).collect(),
                unplaced: match (active, placed) {
                    (true, false) => lease["count"].as_u64().unwrap(),
                    _ => 0,
                },
            }
        })
        .collect()
}

impl World {
    // Each device that the tenant holds or leases, once. One that is leased and gone is what it was leased as.
    fn units(&self, tenant: &str) -> Vec<Unit> {
        let own = || self.leases.iter().filter(|lease| lease.tenant == tenant);
        let leased = |key: &str| own().any(|lease| lease.devices.contains_key(key));
        let mut units = Vec::new();
        for device in &self.devices {
            let unit = Unit {
                node: device.node,
                kind: device.kind,
                model: device.model,
                leased: leased(&device.key),
                observed: device.tenants.contains(&tenant),
            };
            if unit.leased || unit.observed {
                units.push(unit);
            }
        }
        for lease in own() {
            let gone = lease.devices.iter();
            let gone =
                gone.filter(|(key, _)| self.devices.iter().all(|device| device.key != **key));
            units.extend(gone.map(|(_, node)| Unit {
                node: *node,
                kind: lease.kind,
                model: self.model(lease.model),
                leased: true,
                observed: false,
            }));
        }
        units
    }

    fn bound_by(&self, tenant: &str, unit: &Unit, expired: bool) -> bool {
        self.quotas.iter().any(|(key, quota)| {
            key.0 == tenant
                && quota.node == Some(NODES[unit.node].name)
                && quota.expired == expired
                && self.model(key.4) == unit.model
        })
    }

    fn has_quota(&self, tenant: &str, group: Group) -> bool {
        let mut quotas = self.quotas.keys();
        quotas.any(|key| key.0 == tenant && (key.1, key.3, self.model(key.4)) == group)
    }

    fn group(&self, tenant: &str, unit: &Unit) -> Group {
        let kind = match self.bound_by(tenant, unit, false) {
            true => "dedicated",
            false => unit.kind,
        };
        (NODES[unit.node].region, kind, unit.model)
    }

    // Devices that are leased as a number only.
    fn unplaced(&self, tenant: &str) -> BTreeMap<Group, u64> {
        let mut unplaced = BTreeMap::new();
        for lease in self.leases.iter().filter(|lease| lease.tenant == tenant) {
            let group = (lease.region, lease.kind, self.model(lease.model));
            *unplaced.entry(group).or_insert(0) += lease.unplaced;
        }
        unplaced
    }

    /// Everything that is charged.
    pub(super) fn charges(&self) -> Vec<Charge> {
        let mut charges = Vec::new();
        for (tenant, _) in TENANTS {
            let mut unplaced = self.unplaced(tenant);
            for unit in self.units(tenant) {
                let group = self.group(tenant, &unit);
                let regional = (group.0, unit.kind, unit.model);
                let kind = if group.1 == "dedicated" {
                    Some("dedicated")
                } else if self.has_quota(tenant, regional) {
                    Some(unit.kind)
                } else {
                    self.bound_by(tenant, &unit, true).then_some("dedicated")
                };
                let open = unplaced.get_mut(&group).filter(|open| **open > 0);
                let covered = open.filter(|_| !unit.leased).map(|open| *open -= 1);
                charges.extend(kind.map(|kind| Charge {
                    tenant,
                    kind,
                    region: group.0,
                    leased: unit.leased || covered.is_some(),
                    observed: unit.observed,
                }));
            }
            for (group, count) in unplaced {
                let charge = Charge {
                    tenant,
                    kind: group.1,
                    region: group.0,
                    leased: true,
                    observed: false,
                };
                let here = self.has_quota(tenant, group);
                charges.extend((0..count).filter(|_| here).map(|_| charge));
            }
        }
        charges
    }

    /// Whether it is open which of several devices a number covers, one of which is charged to an ended quota.
    pub(super) fn open(&self, tenant: &str) -> bool {
        let unplaced = self.unplaced(tenant);
        let mut groups = unplaced.iter().filter(|(_, count)| **count > 0);
        groups.any(|(group, _)| !self.has_quota(tenant, *group))
    }

    // Whether the quotas bear so many more.
    fn bears(&self, tenant: &str, group: Group, more: u64) -> bool {
        let granting = self.quotas.iter().filter(|(key, quota)| {
            key.0 == tenant && !quota.expired && (key.1, key.3, self.model(key.4)) == group
        });
        let limit: u64 = granting.map(|(_, quota)| quota.num).sum();
        let units = self.units(tenant);
        let here = || {
            units
                .iter()
                .filter(|unit| self.group(tenant, unit) == group)
        };
        let loose = here().filter(|unit| !unit.leased).count() as u64;
        let unplaced = self.unplaced(tenant).get(&group).copied().unwrap_or(0);
        let used = here().count() as u64 + unplaced.saturating_sub(loose);
        limit > 0 && used + more <= limit
    }
}

impl Writer<'_> {
    /// What is granted is known here, so that an over-grant shows, and a wrong denial of a number.
    pub(super) async fn lease(&mut self) {
        self.world.leases = read(&self.admin).await;
        let (tenant, (region, _)) = (self.tenant(), self.of(&REGIONS));
        let (model, kind) = self.of(&MODELS);
        let (count, placement) = (
            1 + self.below(3) as u64,
            self.of(&["devices", "count_only"]),
        );
        let group = (region, kind, self.world.model(model));
        let may = !self.world.frozen.contains(tenant) && self.world.bears(tenant, group, count);
        let statuses: &[u16] = match (may, placement) {
            (false, _) => &[409],
            (true, "count_only") => &[201],
            // Whether devices are free is for the server to say.
            (true, _) => &[201, 409],
        };
        let body = json!({
            "tenant": tenant, "region": region, "gpu_model": model, "type": kind, "count": count,
            "placement": placement
        });
        self.send("POST", LEASES, body, statuses).await;
    }

    /// Gives one back, or keeps it.
    pub(super) async fn end_lease(&mut self) {
        let leases = read(&self.admin).await;
        if leases.is_empty() {
            return;
        }
        let id = leases[self.below(leases.len())].id;
        let (method, path, body) = match self.below(4) {
            0 => ("POST", format!("/{id}/renew"), json!({"ttl_seconds": 7200})),
            1 => ("DELETE", format!("/{id}?force=true"), Value::Null),
            _ => ("DELETE", format!("/{id}"), Value::Null),
        };
        let allowed: &[u16] = if method == "POST" {
            &[200, 409]
        } else {
            &[200]
        };
        self.send(method, &format!("{LEASES}{path}"), body, allowed)
            .await;
    }
}
