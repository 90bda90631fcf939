//! Why a licence is not granted or not taken away, in figures. Computed only for a denial.

use crate::device::LicenceState;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, Holding, MOST_NAMED, Rule};
use crate::id::{LicenceQuotaId, ProductId, TenantName};
use crate::licence::{LicenceQuota, LicenceTerms};
use crate::licence_usage::product_of;
use crate::limit::Limit;
use crate::state::State;

impl State {
    /// All licences that the tenant's quotas of a product grant are in use.
    pub(super) fn exhausted(
        &self,
        tenant: &TenantName,
        product: ProductId,
        granted: u64,
        used: u64,
    ) -> Denied {
        let own = self.licence_holdings(tenant, product);
        let quotas = self.licence_quotas_of(tenant);
        let quotas = quotas.filter(|quota| quota.terms.product == product);
        // One that grants is raised; where none does, one is put in force, and what it has stays.
        let last = quotas.max_by_key(|quota| (quota.counts(), quota.terms.quota));
        let missing = used.saturating_add(1).saturating_sub(granted);
        let has = last.map_or(0, |quota| u64::from(LicenceQuota::grants(quota)));
        let least = last.map_or(0, |quota| u64::from(quota.terms.max));
        let text = format!(
            "{used} of {granted} licences of product {} are in use",
            product.0
        );
        Denied::LicencesExhausted {
            granted,
            used,
            because: Some(Box::new(Explanation {
                limit: u32::try_from(granted).ok().map(Limit::Finite),
                used: Some(used),
                asked: Some(1),
                soonest: own.iter().filter_map(|holding| holding.until).min(),
                own,
                admit: Some(Change::SetLicences {
                    quota: last.map(|quota| quota.terms.quota),
                    max: has.saturating_add(missing).max(least),
                }),
                ..Explanation::new(Rule::LicencesExhausted, text)
            })),
        }
    }

    /// Nothing is granted of a product any more, so none of its seats is kept longer.
    pub(super) fn nothing_granted(
        &self,
        tenant: &TenantName,
        product: ProductId,
        used: u64,
    ) -> Denied {
        let own = self.licence_holdings(tenant, product);
        let quotas = self.licence_quotas_of(tenant);
        let quotas = quotas.filter(|quota| quota.terms.product == product);
        let last = quotas.max_by_key(|quota| (quota.terms.max, quota.terms.quota));
        let text = format!(
            "no licence of product {} is granted any more; {used} are in use",
            product.0
        );
        Denied::LicencesExhausted {
            granted: 0,
            used,
            because: Some(Box::new(Explanation {
                limit: Some(Limit::Finite(0)),
                used: Some(used),
                soonest: own.iter().filter_map(|holding| holding.until).min(),
                own,
                admit: Some(Change::SetLicences {
                    quota: last.map(|quota| quota.terms.quota),
                    max: last.map_or(1, |quota| u64::from(quota.terms.max).max(1)),
                }),
                ..Explanation::new(Rule::LicencesExhausted, text)
            })),
        }
    }

    /// A licence quota would grant fewer than are in use under it.
    pub(super) fn licences_in_use(
        &self,
        asked: &LicenceTerms,
        now: &LicenceTerms,
        used: u64,
    ) -> Denied {
        let own = self.licence_holdings(&asked.tenant, asked.product);
        let quota: LicenceQuotaId = asked.quota;
        let text = format!("{used} licences are in use under quota {}", quota.0);
        Denied::LicencesInUse {
            quota,
            asked: asked.max,
            used,
            because: Some(Box::new(Explanation {
                limit: Some(Limit::Finite(now.max)),
                used: Some(used),
                asked: Some(asked.max.into()),
                soonest: own.iter().filter_map(|holding| holding.until).min(),
                own,
                admit: Some(Change::SetLicences {
                    quota: Some(quota),
                    max: used.min(now.max.into()),
                }),
                ..Explanation::new(Rule::LicencesInUse, text)
            })),
        }
    }

    // Seats, soonest end first, then licensed vGPU instances.
    fn licence_holdings(&self, tenant: &TenantName, product: ProductId) -> Vec<Holding> {
        let seats = self.seats_of(tenant);
        let seats = seats.filter(|seat| seat.product == product);
        let mut own: Vec<Holding> = seats
            .map(|seat| Holding {
                device: None,
                node: None,
                lease: None,
                seat: Some(seat.seat),
                count: 1,
                since: None,
                until: Some(seat.expires_at),
            })
            .collect();
        own.sort_by_key(|holding| holding.until);
        own.truncate(MOST_NAMED);
        let licensed = self.devices_of(tenant).filter(|(_, device)| {
            let report = &device.report;
            report.licence == Some(LicenceState::Licensed)
                && product_of(self, &report.model).is_some_and(|of| of.id == product)
        });
        own.extend(licensed.map(|(key, device)| Holding {
            device: Some(key.clone()),
            node: Some(device.node.clone()),
            lease: None,
            seat: None,
            count: 1,
            since: device.holders.get(tenant).copied(),
            until: None,
        }));
        own.truncate(MOST_NAMED);
        own
    }
}
