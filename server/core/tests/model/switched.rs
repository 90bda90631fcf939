//! Quotas that are put out of force and back into it.

use gpuquota_core::command::{OnExcess, SwitchQuota};
use gpuquota_core::explanation::Rule;
use gpuquota_core::id::{QuotaId, TenantName, Timestamp};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::object::Object;
use gpuquota_core::plan::DrainEnd;
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::drain::{NOTICE, at, draining, eight, ended, granted, lease, sweep};
use crate::examples::{GPU, bought, on, put};
use crate::reference::{Naive, Said};
use crate::world::{node, tenant};
use crate::{Ledger, START};

fn switch(active: bool, on_excess: OnExcess) -> Command {
    Command::SwitchQuota(SwitchQuota {
        quota: QuotaId(0),
        active,
        on_excess,
    })
}

fn is_active(ledger: &Ledger) -> bool {
    ledger.state.quota(QuotaId(0)).unwrap().in_force()
}

#[test]
fn what_is_in_use_refuses_to_be_put_out_of_force_unless_it_may_be_drained() {
    let mut ledger = eight();
    lease(&mut ledger, 2, LeasePlacement::Devices, START);
    let refused = ledger.ask(&switch(false, OnExcess::Deny), at(1), None);
    let Answer::Denied(Denied::BelowUse { asked, excess, .. }) = &refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!((asked.as_str(), *excess), ("0", 2));
    assert!(is_active(&ledger));

    let off = switch(false, OnExcess::Drain);
    let preview = ledger.state.preview(&off, at(2)).unwrap();
    assert_eq!(preview.plan.groups[0].victims.len(), 1);
    granted(&mut ledger, &off, at(2));
    let (_, _, drain) = ledger.state.drains().next().unwrap();
    assert_eq!(drain.deadline, at(2 + NOTICE));
    // Terms may change meanwhile, and that puts nothing back.
    granted(
        &mut ledger,
        &Command::SetQuota(draining(put(bought("a", GPU), 9))),
        at(3),
    );
    assert!(!is_active(&ledger));
    granted(&mut ledger, &switch(true, OnExcess::Deny), at(4));
    assert_eq!(ended(&ledger), [DrainEnd::Withdrawn]);
    sweep(&mut ledger, at(9 * NOTICE));
    let active = ledger.state.leases().filter(|lease| lease.active());
    assert_eq!(active.count(), 1);
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn whoever_names_the_generation_drains_like_everybody_else() {
    let mut ledger = eight();
    lease(&mut ledger, 2, LeasePlacement::Devices, START);
    let object = Object::Quota(QuotaId(0));
    let expected = ledger.state.generation(&object).unwrap();
    let off = Command::IfUnchanged {
        object,
        expected,
        command: Box::new(switch(false, OnExcess::Drain)),
    };
    granted(&mut ledger, &off, at(1));
    assert_eq!(ledger.state.drains().count(), 1);
    let stale = ledger.ask(&off, at(2), None);
    assert!(
        matches!(&stale, Answer::Denied(Denied::Changed { .. })),
        "{stale:?}"
    );
}

#[test]
fn nodes_are_bound_only_while_their_quota_is_active() {
    let mut ledger = eight();
    granted(
        &mut ledger,
        &Command::SetQuota(on(put(bought("b", GPU), 8), &["n0"])),
        at(1),
    );
    let quota = ledger.state.quotas_of(&tenant("b")).next().unwrap().id;
    let of_b = |active| {
        Command::SwitchQuota(SwitchQuota {
            quota,
            active,
            on_excess: OnExcess::Deny,
        })
    };
    assert_eq!(ledger.state.bound_tenant(&node("n0")), Some(&tenant("b")));
    granted(&mut ledger, &of_b(false), at(2));
    assert_eq!(ledger.state.bound_tenant(&node("n0")), None);
    lease(&mut ledger, 1, LeasePlacement::Devices, at(3));
    let refused = ledger.ask(&of_b(true), at(4), None);
    assert!(
        matches!(&refused, Answer::Denied(Denied::LeasedByOthers { .. })),
        "{refused:?}"
    );
    granted(
        &mut ledger,
        &Command::SetQuota(draining(on(put(bought("c", GPU), 8), &["n0"]))),
        at(5),
    );
    let refused = ledger.ask(&of_b(true), at(6), None);
    assert!(
        matches!(&refused, Answer::Denied(Denied::NodeBound { because: Some(because), .. })
            if because.rule == Rule::NodeDedicated && because.tenants == [tenant("c")]),
        "{refused:?}"
    );
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn switching_to_what_it_is_writes_nothing_and_of_an_unknown_quota_it_is_refused() {
    let mut ledger = eight();
    let rows = ledger.state.seq();
    granted(&mut ledger, &switch(true, OnExcess::Deny), at(1));
    assert_eq!(ledger.state.seq(), rows);
    let unknown = Command::SwitchQuota(SwitchQuota {
        quota: QuotaId(99),
        active: true,
        on_excess: OnExcess::Deny,
    });
    let refused = ledger.ask(&unknown, at(2), None);
    assert_eq!(refused, Answer::Denied(Denied::NoSuchQuota));
}

impl Naive {
    pub(crate) fn switch(&mut self, switch: SwitchQuota, now: Timestamp) -> Said {
        let at = self.quotas.iter().position(|q| q.id == switch.quota);
        let at = at.ok_or("no_such_quota")?;
        let mut after = self.clone();
        after.quotas[at].off = !switch.active;
        let quota = &self.quotas[at];
        let back = quota.over(now) && !after.quotas[at].over(now);
        let foreign = |node| self.bound(node, now).is_some_and(|t| *t != quota.tenant);
        if back && quota.nodes.iter().any(foreign) {
            return Err("node_bound".into());
        }
        if back && self.others_lease(&quota.tenant, &quota.nodes, now) {
            return Err("leased_by_others".into());
        }
        self.check_excess(&after, &quota.tenant, now)?;
        *self = after;
        Ok(Outcome::Quota(switch.quota))
    }

    pub(crate) fn check_excess(
        &self,
        after: &Self,
        tenant: &TenantName,
        now: Timestamp,
    ) -> Result<(), String> {
        let before = self.charge(tenant, now).excess;
        let later = after.charge(tenant, now).excess;
        match later > before {
            true => Err(format!("below_use by {}", later - before)),
            false => Ok(()),
        }
    }
}
