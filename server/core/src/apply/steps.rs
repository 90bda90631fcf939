//! Steps of agents change the state. What is kept is bounded, and forgotten by the order of rows, so that every fold
//! forgets the same.

use std::sync::Arc;

use crate::device::DeviceKey;
use crate::id::{NodeName, TenantName, Timestamp};
use crate::state::State;
use crate::step::{
    Ended, Hold, MOST_BOOTS, MOST_STEPS, MOST_TOLD, Rung, Step, StepEnded, StepId, StepResult,
    StepRow, StepsBegun, StepsHeld,
};
use crate::usage::usage;

impl State {
    pub(super) fn begin_steps(&mut self, at: Timestamp, event: &StepsBegun) {
        for begun in &event.steps {
            self.keep_step(StepRow {
                id: StepId(0),
                node: event.node.clone(),
                step: begun.step.clone(),
                quota: begun.quota,
                said_by: Some(begun.said_by),
                version: event.version,
                row: self.rows.seq,
                at,
                ended: None,
            });
        }
    }

    fn keep_step(&mut self, mut row: StepRow) {
        let steps = &mut self.rows.steps;
        row.id = StepId(steps.next);
        steps.next += 1;
        // Nor does one node wash out what others told.
        if row.said_by.is_none() {
            let own = steps
                .rows
                .iter()
                .filter(|(_, known)| known.said_by.is_none() && known.node == row.node);
            let (count, oldest) = own.fold((0, None), |(count, oldest), (id, _)| {
                (count + 1, oldest.or(Some(*id)))
            });
            if let Some(oldest) = oldest.filter(|_| count >= MOST_TOLD) {
                steps.rows.remove(&oldest);
            }
        }
        steps.rows.insert(row.id, Arc::new(row));
        // What needed no leave goes first: nobody who only tells washes out what is counted.
        while steps.rows.len() > MOST_STEPS {
            let told = steps.rows.iter().find(|(_, row)| row.said_by.is_none());
            let Some(oldest) = told
                .map(|(id, _)| *id)
                .or(steps.rows.get_min().map(|(id, _)| *id))
            else {
                break;
            };
            steps.rows.remove(&oldest);
        }
    }

    pub(super) fn hold_steps(&mut self, at: Timestamp, event: &StepsHeld) {
        let hold = Hold {
            since: at,
            processes: event.processes,
            devices: event.devices,
            of: event.of,
        };
        self.rows.steps.holds.insert(event.tenant.clone(), hold);
    }

    pub(super) fn confirm_steps(&mut self, tenant: Option<&TenantName>, until: Timestamp) {
        let tenant = tenant.cloned();
        self.rows.steps.holds.remove(&tenant);
        self.rows.steps.confirmed.insert(tenant, until);
    }

    pub(super) fn end_step(&mut self, at: Timestamp, event: &StepEnded) {
        let StepEnded {
            node,
            boot,
            number,
            version,
            step,
            ended,
        } = event;
        let boots = self.rows.steps.taken.entry(node.clone()).or_default();
        boots.retain(|(known, _)| known != boot);
        boots.push((boot.clone(), *number));
        if boots.len() > MOST_BOOTS {
            boots.remove(0);
        }
        let known = |tenant: &&TenantName| self.rows.tenants.contains_key(*tenant);
        let tenant = step.tenant.as_ref().filter(known).cloned();
        let counted = (tenant, step.rung, ended.result);
        *self.rows.steps.counts.entry(counted).or_insert(0) += 1 + u64::from(ended.beside);
        let begun = self.rows.steps.rows.values().rev();
        let begun = begun.filter(|row| row.said_by.is_some());
        let mut begun = begun.filter(|row| row.node == *node && row.step == *step);
        match begun.next().map(|row| row.id) {
            Some(id) => {
                self.note_restricted(node, step, ended);
                if let Some(row) = self.rows.steps.rows.get_mut(&id) {
                    Arc::make_mut(row).ended = Some(ended.clone());
                }
            }
            None => {
                if step.rung == Rung::Lift {
                    self.note_restricted(node, step, ended);
                }
                self.keep_step(StepRow {
                    id: StepId(0),
                    node: node.clone(),
                    step: step.clone(),
                    quota: None,
                    said_by: None,
                    version: *version,
                    row: self.rows.seq,
                    at,
                    ended: Some(ended.clone()),
                });
            }
        }
    }

    // Only what was allowed is believed, so no agent fills the ledger.
    fn note_restricted(&mut self, node: &NodeName, step: &Step, ended: &Ended) {
        let (Some(tenant), StepResult::Done) = (&step.tenant, ended.result) else {
            return;
        };
        let about = (tenant.clone(), step.device.clone());
        let restricted = &mut self.rows.steps.restricted;
        match step.rung {
            Rung::Restrict => {
                restricted.entry(node.clone()).or_default().insert(about);
            }
            Rung::Lift => {
                if let Some(here) = restricted.get_mut(node) {
                    here.remove(&about);
                    if here.is_empty() {
                        restricted.remove(node);
                    }
                }
            }
            Rung::Warn | Rung::Term | Rung::Kill | Rung::KillScope => {}
        }
    }

    /// What the node is denied of these devices is over: they have left it for good.
    pub(super) fn forget_restrictions(&mut self, node: &NodeName, of: impl Fn(&DeviceKey) -> bool) {
        let restricted = &mut self.rows.steps.restricted;
        let Some(here) = restricted.get_mut(node) else {
            return;
        };
        let kept = here.iter().filter(|(_, device)| !of(device));
        *here = kept.cloned().collect();
        if here.is_empty() {
            restricted.remove(node);
        }
    }

    /// Nothing waits for a person any more where nothing is left to act upon, and what a person said ends.
    pub(super) fn forget_holds(&mut self, at: Timestamp) {
        let steps = &self.rows.steps;
        if !steps.confirmed.is_empty() {
            let kept = steps.confirmed.iter().filter(|(_, until)| **until > at);
            self.rows.steps.confirmed = kept
                .map(|(tenant, until)| (tenant.clone(), *until))
                .collect();
        }
        let held: Vec<Option<TenantName>> = self.rows.steps.holds.keys().cloned().collect();
        for tenant in held {
            let over = match &tenant {
                None => self.index.nobodys.is_empty(),
                Some(known) if self.rows.tenants.contains_key(known) => {
                    let changed = self.changes.of_tenant(known) == self.rows.seq;
                    changed && usage(self, known).violations.is_empty()
                }
                // Of whom the ledger does not know all that is held is unjustified.
                Some(unknown) => !self.index.held.contains_key(unknown),
            };
            if over {
                self.rows.steps.holds.remove(&tenant);
            }
        }
    }
}
