//! What `/metrics` says of enforcement.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::plan::Able;
use crate::plan::step::{Outcome, Rung, Step};
use crate::policy::{Class, Mode};

/// Tenants with steps that are told apart; those beyond are counted together under an empty name.
const TENANTS: usize = 1024;

/// Figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActFigures {
    /// Holders that are not justified, by tenant (`None`: nobody's) and class.
    pub violations: BTreeMap<(Option<String>, Class), u64>,
    /// Steps since the agent began, by tenant, rung and result.
    pub steps: BTreeMap<(String, Rung, Outcome), u64>,
    /// Groups that are denied something.
    pub restricted: usize,
    /// The highest rung that this node can go to; `None`: not known yet.
    pub most: Option<Mode>,
}

/// Written by who acts, read by who scrapes.
#[derive(Debug, Default)]
pub struct Acts(Mutex<ActFigures>);

impl Acts {
    /// As they are now.
    #[must_use]
    pub fn figures(&self) -> ActFigures {
        self.lock().clone()
    }

    pub(super) fn violations(&self, now: &BTreeMap<(Option<String>, Class), u64>) {
        let mut figures = self.lock();
        if figures.violations != *now {
            figures.violations.clone_from(now);
        }
    }

    pub(super) fn did(&self, step: &Step, outcome: Outcome) {
        let mut figures = self.lock();
        let tenant = step.whom.tenant.clone().unwrap_or_default();
        let full = figures.steps.len() >= TENANTS;
        let known = figures.steps.keys().any(|(name, _, _)| *name == tenant);
        let tenant = if full && !known {
            String::new()
        } else {
            tenant
        };
        *figures
            .steps
            .entry((tenant, step.rung, outcome))
            .or_insert(0) += 1;
    }

    pub(super) fn restricted(&self, groups: usize) {
        self.lock().restricted = groups;
    }

    pub(super) fn able(&self, able: &Able) {
        let can = match (&able.no_restriction, &able.no_signal) {
            (_, None) => Mode::Evict,
            (None, Some(_)) => Mode::Restrict,
            (Some(_), Some(_)) => Mode::Warn,
        };
        self.lock().most = Some(able.most.min(can));
    }

    fn lock(&self) -> MutexGuard<'_, ActFigures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
