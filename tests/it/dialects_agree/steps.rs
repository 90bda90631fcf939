//! One random write, in one of the dialects, by the native API, or by an agent.

use gpuquota_tests::dialect::LICENCES;
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::Session;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::model::{
    ALIAS, GPU, GROUPS, HOSTS, Licence, MIG, MODELS, NODES, Quota, REGIONS, SITES, TENANTS, World,
};

const ENDED: &str = "2020-01-01T00:00:00Z";

/// Who writes, and what it has written.
pub(super) struct Writer<'a> {
    pub(super) server: &'a Server,
    pub(super) admin: Rest,
    pub(super) world: World,
    pub(super) random: StdRng,
    pub(super) sessions: Vec<Session>,
    pub(super) reports: u64,
    pub(super) log: Vec<String>,
}

impl Writer<'_> {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub(super) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub(super) fn tenant(&mut self) -> &'static str {
        self.of(&TENANTS).0
    }

    // Sends it; the status must be one of these.
    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Value,
        statuses: &[u16],
    ) -> Answer {
        let answer = self.admin.json(method, path, &body).await;
        self.log.push(format!(
            "{method} {path} {body}: {} {}",
            answer.status, answer.text
        ));
        let log = || self.log.join("\n");
        assert!(
            statuses.contains(&answer.status),
            "{answer:?} after\n{}",
            log()
        );
        answer
    }

    /// Does one thing.
    pub(super) async fn step(&mut self) {
        match self.below(28) {
            0..=3 => self.put_quota().await,
            4 | 5 => self.put_dedicated().await,
            6 => self.delete_quota().await,
            7 => self.post_licence().await,
            8 => self.patch_licence().await,
            9 | 10 => self.check_out().await,
            11 => self.renew_or_release().await,
            12..=15 => {
                let node = self.below(NODES.len());
                self.report(node).await;
            }
            16 => self.put_host().await,
            17 => self.put_host_limit().await,
            18 => self.put_card_limit().await,
            19 => self.put_counter().await,
            20 => self.freeze().await,
            21 => {
                let node = self.below(NODES.len());
                self.goodbye(node).await;
            }
            22 => self.alias().await,
            23..=25 => self.lease().await,
            _ => self.end_lease().await,
        }
    }

    async fn put_quota(&mut self) {
        let (tenant, (region, _)) = (self.tenant(), self.of(&REGIONS));
        let (source, (model, kind)) = (self.of(&["purchase", "assign"]), self.of(&MODELS));
        let (num, expired) = (self.below(6) as u64, self.below(8) == 0);
        let mut body = json!({"region": region, "quota_source": source, "gpu_model": model, "num": num, "quota_type": kind});
        if expired {
            body["expired_at"] = json!(ENDED);
        }
        let allowed: &[u16] = if num == 0 { &[200] } else { &[200, 409] };
        let answer = self
            .send("PUT", &format!("/api/v1/quotas/{tenant}"), body, allowed)
            .await;
        let key = (tenant, region, source, kind, model);
        self.took(
            &answer,
            key,
            Quota {
                num,
                expired,
                node: None,
            },
        );
    }

    async fn put_dedicated(&mut self) {
        let (tenant, node) = (self.tenant(), self.of(&NODES));
        let source = self.of(&["purchase", "assign"]);
        let (num, expired) = (self.below(4) as u64, self.below(6) == 0);
        let mut body = json!({"region": node.region, "quota_source": source, "gpu_model": GPU, "num": num, "node_name": [node.name]});
        if expired {
            body["expired_at"] = json!(ENDED);
        }
        let answer = self
            .send(
                "PUT",
                &format!("/api/v1/quotas/{tenant}"),
                body,
                &[200, 409],
            )
            .await;
        let key = (tenant, node.region, source, "dedicated", GPU);
        self.took(
            &answer,
            key,
            Quota {
                num,
                expired,
                node: Some(node.name),
            },
        );
    }

    fn took(&mut self, answer: &Answer, key: super::model::Key, quota: Quota) {
        if answer.status == 200 {
            if quota.num == 0 {
                self.world.quotas.remove(&key);
            } else {
                self.world.quotas.insert(key, quota);
            }
        }
    }

    async fn delete_quota(&mut self) {
        let keys: Vec<_> = self.world.quotas.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let mut key = self.of(&keys);
        if self.below(4) == 0 {
            key.0 = self.tenant();
        }
        let force = if self.below(2) == 0 {
            "?force=true"
        } else {
            ""
        };
        let body = json!({"region": key.1, "quota_source": key.2, "gpu_model": key.4, "quota_type": key.3});
        let path = format!("/api/v1/quotas/{}{force}", key.0);
        let answer = self.send("DELETE", &path, body, &[200, 404, 409]).await;
        let known = self.world.quotas.contains_key(&key);
        assert_eq!(answer.status == 404, !known, "{answer:?} {key:?}");
        assert!(force.is_empty() || answer.status != 409, "{answer:?}");
        if answer.status == 200 {
            self.world.quotas.remove(&key);
        }
    }

    async fn post_licence(&mut self) {
        let (tenant, number) = self.of(&TENANTS);
        let (product, max) = (self.of(&[1, 1, 2]), self.below(5) as u64);
        let (active, expired) = (self.below(6) > 0, self.below(6) == 0);
        let mut body = json!({"tenant": number, "software_product": product, "max_licenses": max, "is_active": active});
        if expired {
            body["expires_at"] = json!(ENDED);
        }
        let answer = self.send("POST", LICENCES, body, &[201]).await;
        let id = answer.json()["data"]["id"].as_u64().unwrap();
        let licence = Licence {
            tenant,
            product,
            max,
            active,
            expired,
        };
        assert!(
            self.world.licences.insert(id, licence).is_none(),
            "id {id} came twice"
        );
    }

    async fn patch_licence(&mut self) {
        let ids: Vec<u64> = self.world.licences.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = self.of(&ids);
        let mut new = self.world.licences[&id].clone();
        let mut body = json!({});
        if self.below(2) == 0 {
            new.max = self.below(5) as u64;
            body["max_licenses"] = json!(new.max);
        }
        if self.below(2) == 0 {
            new.active = !new.active;
            body["is_active"] = json!(new.active);
        }
        if self.below(2) == 0 {
            new.expired = !new.expired;
            body["expires_at"] = if new.expired {
                json!(ENDED)
            } else {
                Value::Null
            };
        }
        let answer = self
            .send("PATCH", &format!("{LICENCES}{id}/"), body, &[200, 409])
            .await;
        if answer.status == 200 {
            self.world.licences.insert(id, new);
        }
    }

    // What is granted is known here, so that an over-grant or a wrong denial shows.
    async fn check_out(&mut self) {
        let (tenant, product) = (self.tenant(), self.of(&[1, 1, 2]));
        let free = self.world.licences_used(tenant, product)
            < self.world.licences_granted(tenant, product);
        let granted = free && !self.world.frozen.contains(tenant);
        let body = json!({"tenant": tenant, "software_product": product, "owner": "u", "ttl_seconds": 3600});
        let wanted = if granted { 201 } else { 409 };
        let answer = self.send("POST", "/api/v1/seats", body, &[wanted]).await;
        if granted {
            let id = answer.json()["id"].as_u64().unwrap();
            assert!(
                self.world.seats.insert(id, (tenant, product)).is_none(),
                "seat {id} came twice"
            );
        }
    }

    async fn renew_or_release(&mut self) {
        let ids: Vec<u64> = self.world.seats.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = self.of(&ids);
        if self.below(2) == 0 {
            let path = format!("/api/v1/seats/{id}/renew");
            self.send("POST", &path, json!({"ttl_seconds": 7200}), &[200, 409])
                .await;
        } else {
            self.send(
                "DELETE",
                &format!("/api/v1/seats/{id}"),
                Value::Null,
                &[200],
            )
            .await;
            self.world.seats.remove(&id);
        }
    }

    async fn put_host(&mut self) {
        let kind = self.of(&HOSTS);
        let sets: [&[&str]; 4] = [&[], &["G"], &["H"], &["G", "H"]];
        let groups = self.of(&sets);
        self.send(
            "PUT",
            &format!("/api/v1/host-resources/{kind}"),
            json!({"resource_groups": groups}),
            &[200],
        )
        .await;
        self.world
            .hosts
            .insert(kind, groups.iter().copied().collect());
    }

    async fn put_host_limit(&mut self) {
        let (tenant, kind) = (self.tenant(), self.of(&HOSTS));
        let limit = self.of(&[-1, 0, 1, 2, 5]);
        let path = format!("/api/v1/tenants/{tenant}/host-limits/{kind}");
        let allowed: &[u16] = if self.world.hosts.contains_key(kind) {
            &[200, 409]
        } else {
            &[404]
        };
        let answer = self
            .send("PUT", &path, json!({"hard_limit": limit}), allowed)
            .await;
        if answer.status == 200 {
            self.world.host_limits.insert((tenant, kind), limit);
        }
    }

    async fn put_card_limit(&mut self) {
        let group = self.of(&GROUPS);
        let tenant = if self.below(3) == 0 {
            None
        } else {
            Some(self.tenant())
        };
        let cards = self.of(&[None, Some(1), Some(2), Some(7)]);
        let path = format!("/api/v1/resource-groups/{group}/card-limits/gpu");
        let mut body = json!({"cards": cards});
        if let Some(tenant) = tenant {
            body["tenant"] = json!(tenant);
        }
        self.send("PUT", &path, body, &[200]).await;
        match cards {
            Some(cards) => self.world.cards.insert((group, tenant), cards),
            None => self.world.cards.remove(&(group, tenant)),
        };
    }

    async fn put_counter(&mut self) {
        let (tenant, kind) = (
            self.tenant(),
            self.of(&["users", "volumes", "ies_instances"]),
        );
        let site = self.of(&SITES);
        let path = format!("/api/v1/projects/p-{tenant}/resources/{kind}");
        if self.world.counters.contains_key(&(tenant, kind, site)) && self.below(3) == 0 {
            let query = site
                .map(|site| format!("?site_id={site}"))
                .unwrap_or_default();
            self.send("DELETE", &(path + &query), Value::Null, &[200])
                .await;
            self.world.counters.remove(&(tenant, kind, site));
            return;
        }
        let (quota, used) = (self.below(100) as u64, self.below(100) as u64);
        self.send(
            "PUT",
            &path,
            json!({"quota": quota, "used": used, "site_id": site}),
            &[200],
        )
        .await;
        self.world
            .counters
            .insert((tenant, kind, site), (quota, used));
    }

    async fn freeze(&mut self) {
        let tenant = self.tenant();
        let frozen = !self.world.frozen.contains(tenant);
        self.send(
            "PUT",
            &format!("/api/v1/tenants/{tenant}"),
            json!({"frozen": frozen}),
            &[200],
        )
        .await;
        if frozen {
            self.world.frozen.insert(tenant);
        } else {
            self.world.frozen.remove(tenant);
        }
    }

    async fn alias(&mut self) {
        self.world.alias = !self.world.alias;
        if self.world.alias {
            let entry = json!({"gpu_model": MIG, "quota_type": "mig", "aliases": [ALIAS]});
            self.send("PUT", "/api/v1/models", entry, &[200]).await;
        } else {
            self.send(
                "DELETE",
                &format!("/api/v1/models?gpu_model={MIG}"),
                Value::Null,
                &[200],
            )
            .await;
        }
    }
}
