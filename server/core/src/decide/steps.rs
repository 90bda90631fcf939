//! Steps of agents above a warning: only what the newest state still does not justify, only as far as it says now, and
//! never too much of one tenant at once without a person.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{BeginSteps, Decision, EndStep, Outcome, StepsAllowed};
use crate::device::DeviceKey;
use crate::enforcement::{Enforcement, Mode, SaidBy};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{QuotaId, TenantName, Timestamp};
use crate::mutant::{Mutant, planted};
use crate::policy::{Held, Ladder, Verdict, judgement};
use crate::state::{State, Together};
use crate::step::{
    Begun, Ended, MOST_IN_INTENT, Step, StepClass, StepEnded, StepsBegun, StepsConfirmed, StepsHeld,
};

use super::{directory, done};

impl State {
    pub(super) fn decide_set_quota_enforcement(
        &self,
        quota: QuotaId,
        enforcement: Option<&Enforcement>,
    ) -> Result<Decision, Denied> {
        let known = self.quota(quota).ok_or(Denied::NoSuchQuota)?;
        let events = match known.enforcement.as_ref() == enforcement {
            true => Vec::new(),
            false => vec![Event::QuotaEnforcementSet {
                quota,
                enforcement: enforcement.cloned(),
            }],
        };
        Ok(Decision {
            events,
            outcome: Outcome::Quota(quota),
        })
    }

    /// Which of the steps may be taken; one event says those, others say for whom a person is waited for.
    pub(super) fn decide_begin_steps(
        &self,
        begin: &BeginSteps,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        self.in_session(&begin.node, begin.session)?;
        if begin.steps.is_empty() || begin.steps.len() > MOST_IN_INTENT {
            return Err(directory::too_many("steps of one intent", MOST_IN_INTENT));
        }
        for step in &begin.steps {
            if let Some(device) = self.device(&step.device)
                && device.node != begin.node
            {
                return Err(Denied::DeviceOfOtherNode {
                    device: step.device.clone(),
                    owner: device.node.clone(),
                });
            }
        }
        let named = begin.steps.iter().filter_map(|step| step.tenant.as_ref());
        let judged = judgement(self, &begin.node, now, &named.collect());
        let Some((verdicts, unattributed)) = judged else {
            return Err(Denied::StaleSession);
        };
        let asked = Asked {
            state: self,
            begin,
            verdicts,
            unattributed,
            now,
        };
        Ok(asked.decide())
    }

    // About whatever device: it may have left the node since, and what was done was done.
    pub(super) fn decide_end_step(
        &self,
        end: &EndStep,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        self.in_session(&end.node, end.session)?;
        let taken = self.outcome_taken(&end.node, &end.boot_id);
        if let Some(taken) = taken.filter(|taken| end.number <= *taken) {
            return Ok(Decision {
                events: Vec::new(),
                outcome: Outcome::Taken(taken),
            });
        }
        let event = Event::StepEnded(StepEnded {
            node: end.node.clone(),
            boot: end.boot_id.clone(),
            number: end.number,
            version: end.version,
            step: end.step.clone(),
            ended: Ended {
                result: end.result,
                detail: end.detail.clone(),
                at: now.before(end.age_ms),
                beside: end.beside,
            },
        });
        Ok(Decision {
            events: vec![event],
            outcome: Outcome::Taken(end.number),
        })
    }

    pub(super) fn decide_confirm_steps(
        &self,
        tenant: Option<&TenantName>,
        for_ms: u64,
        now: Timestamp,
    ) -> Decision {
        let until = now.after(for_ms);
        let nothing = for_ms == 0 && self.let_through(tenant, now).is_none();
        if nothing && self.hold(tenant).is_none() {
            return done(Vec::new());
        }
        done(vec![Event::StepsConfirmed(StepsConfirmed {
            tenant: tenant.cloned(),
            until,
        })])
    }
}

struct Asked<'a> {
    state: &'a State,
    begin: &'a BeginSteps,
    verdicts: Vec<Verdict>,
    unattributed: Ladder,
    now: Timestamp,
}

impl<'a> Asked<'a> {
    fn decide(&self) -> Decision {
        let steps = &self.begin.steps;
        let judged: Vec<Result<Begun, String>> =
            steps.iter().map(|step| self.judge(step)).collect();
        let (too_much, held) = self.guarded(&judged);
        let mut allowed = StepsAllowed::default();
        let mut begun = Vec::new();
        let mut refused: BTreeSet<String> = BTreeSet::new();
        for (place, judged) in (0_u32..).zip(judged) {
            match judged {
                Ok(step) if too_much.contains(&step.step.tenant.as_ref()) => {
                    refused.insert(Held::Person.to_string());
                }
                Ok(step) => {
                    allowed.allowed.push(place);
                    begun.push(step);
                }
                Err(why) => {
                    refused.insert(why);
                }
            }
        }
        allowed.refused = refused.into_iter().collect::<Vec<_>>().join("; ");
        let mut events = Vec::new();
        if !begun.is_empty() {
            events.push(Event::StepsBegun(StepsBegun {
                node: self.begin.node.clone(),
                version: self.begin.version,
                steps: begun,
            }));
        }
        events.extend(held);
        Decision {
            events,
            outcome: Outcome::Steps(allowed),
        }
    }

    // Whether the newest state covers it, apart from how much it is together with others.
    fn judge(&self, step: &Step) -> Result<Begun, String> {
        let needs = step.rung.needs();
        let needs = needs.ok_or_else(|| format!("{} needs no leave", step.rung.as_str()))?;
        if self.begin.incarnation != self.state.incarnation() {
            return Err("the policy is of an earlier incarnation of the ledger".into());
        }
        let (mode, held, quota, said_by) = match planted(Mutant::AllowAnyStep) {
            true => (Mode::Evict, None, None, SaidBy::Settings),
            false => self.ladder_of(step)?,
        };
        if mode < needs {
            let held = held.map(|held| format!(": {held}")).unwrap_or_default();
            let (rung, most) = (step.rung.as_str(), mode.as_str());
            return Err(format!("{rung} is beyond {most}{held}"));
        }
        Ok(Begun {
            step: step.clone(),
            quota,
            said_by,
        })
    }

    fn ladder_of(
        &self,
        step: &Step,
    ) -> Result<(Mode, Option<Held>, Option<QuotaId>, SaidBy), String> {
        let Some(tenant) = &step.tenant else {
            let device = self.state.device(&step.device);
            let nobodys = device.is_some_and(|device| device.report.unattributed);
            if step.class != StepClass::Unattributed || !nobodys {
                return Err(not_so(&step.device, "nobody's processes"));
            }
            let mode = self.unattributed.mode;
            let held = self.state.hold(None).map(|_| Held::Person);
            return Ok((mode, held, None, SaidBy::Settings));
        };
        let mut verdicts = self.verdicts.iter();
        let verdict = verdicts.find(|verdict| {
            verdict.tenant == *tenant
                && verdict.device == step.device
                && StepClass::from(verdict.class) == step.class
        });
        let verdict = verdict.ok_or_else(|| not_so(&step.device, step.class.as_str()))?;
        Ok((
            verdict.ladder.mode,
            verdict.held,
            verdict.quota,
            verdict.said_by,
        ))
    }

    // Of whom too much would happen in one minute over all nodes, and what is to be journalled of it.
    fn guarded(
        &self,
        judged: &[Result<Begun, String>],
    ) -> (BTreeSet<Option<&'a TenantName>>, Vec<Event>) {
        let granted = self.begin.steps.iter().zip(judged);
        let granted = granted.filter(|(_, judged)| judged.is_ok());
        let mut by_tenant: BTreeMap<Option<&'a TenantName>, Vec<&'a Step>> = BTreeMap::new();
        for (step, _) in granted {
            let own = by_tenant.entry(step.tenant.as_ref()).or_default();
            own.push(step);
        }
        let (mut too_much, mut events) = (BTreeSet::new(), Vec::new());
        for (tenant, steps) in by_tenant {
            if self.state.let_through(tenant, self.now).is_some() {
                continue;
            }
            let before = self.state.together(tenant, self.now);
            let mut together = self.state.together(tenant, self.now);
            for step in steps {
                together.add(&self.begin.node, step);
            }
            let more = together.processes.len() > before.processes.len()
                || together.devices.len() > before.devices.len();
            let of = self.held_by(tenant, &together);
            if !more || !self.beyond(tenant, &together, of) {
                continue;
            }
            too_much.insert(tenant);
            events.push(Event::StepsHeld(StepsHeld {
                tenant: tenant.cloned(),
                node: self.begin.node.clone(),
                processes: together.processes.len() as u64,
                devices: together.devices.len() as u64,
                of,
            }));
        }
        (too_much, events)
    }

    // Devices that the tenant or nobody's processes hold, or held a minute ago.
    fn held_by(&self, tenant: Option<&TenantName>, together: &Together<'_>) -> u64 {
        let mut devices: BTreeSet<&DeviceKey> = match tenant {
            Some(tenant) => self.state.devices_of(tenant).map(|it| it.0).collect(),
            None => self.state.nobodys_devices().map(|it| it.0).collect(),
        };
        devices.extend(&together.devices);
        devices.len() as u64
    }

    fn beyond(&self, tenant: Option<&TenantName>, together: &Together<'_>, of: u64) -> bool {
        let guard = self.state.settings().enforcing.guard;
        let share = of.saturating_mul(u64::from(guard.percent)) / 100;
        // What nobody's processes hold says nothing of how many may go: where a rule is lost, that is all that there is.
        let most = match tenant {
            Some(_) => share.max(1),
            None => u64::from(guard.processes).max(1),
        };
        let too_many = together.devices.len() as u64 > most;
        if planted(Mutant::ForgetTheGuard) {
            return false;
        }
        too_many || together.processes.len() as u64 > u64::from(guard.processes)
    }
}

fn not_so(device: &DeviceKey, what: &str) -> String {
    format!("the ledger finds no {what} on {device} now")
}
