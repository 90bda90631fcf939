//! A policy from its message. What breaks a limit or is not understood is refused whole: half a policy may be about the
//! wrong half of the tenants.

use gpuquota_proto::agent_v1 as wire;
use gpuquota_proto::{CARD_RULES_PER_POLICY, DEVICES_PER_REPORT, VERDICTS_PER_POLICY};

use super::{Class, Grant, Ladder, Mode, Policy, Rule, Verdict, Version, Whom};
use crate::attribute::is_tenant_name;
use crate::observation::DeviceKey;
use crate::report::wire::key_of;

/// Longest text of why something is held back that is kept, characters.
const HELD: usize = 256;

/// Why a policy cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Too many rows of a kind.
    #[error("it has more {0} than the protocol allows")]
    TooMany(&'static str),
    /// A device without an address.
    #[error("it speaks of a device without an address")]
    Device,
    /// A name that no tenant can have.
    #[error("it names a tenant as no tenant can be named")]
    Tenant,
    /// A class that a newer server may know.
    #[error("it says why a holder is not justified in a word that this agent does not know")]
    Class,
    /// Neither validity nor row can be 0.
    #[error("it has no version or is not valid at all")]
    Version,
}

impl TryFrom<wire::Policy> for Policy {
    type Error = BadPolicy;

    fn try_from(told: wire::Policy) -> Result<Self, BadPolicy> {
        within(told.rules.len(), DEVICES_PER_REPORT, "rules")?;
        within(told.cards.len(), CARD_RULES_PER_POLICY, "limits of cards")?;
        within(told.grants.len(), DEVICES_PER_REPORT, "leases")?;
        within(told.verdicts.len(), VERDICTS_PER_POLICY, "verdicts")?;
        within(told.denials.len(), VERDICTS_PER_POLICY, "restrictions")?;
        if told.version == 0 || told.valid_for_ms == 0 {
            return Err(BadPolicy::Version);
        }
        let unattributed = told.unattributed.as_ref().map(ladder).unwrap_or_default();
        let chosen = told.unattributed_chosen();
        let mut policy = Self {
            version: Version {
                incarnation: told.incarnation,
                row: told.version,
            },
            valid_for_ms: told.valid_for_ms,
            unattributed,
            unattributed_chosen: match chosen {
                wire::Mode::Unspecified => unattributed.mode,
                chosen => mode(chosen),
            },
            others: told.others.as_ref().map(ladder).unwrap_or_default(),
            ..Self::default()
        };
        for rule in told.rules {
            let only = rule
                .only
                .iter()
                .map(|name| tenant(name))
                .collect::<Result<_, _>>()?;
            let otherwise = class(rule.otherwise())?;
            policy
                .rules
                .insert(device(rule.key.as_ref())?, Rule { only, otherwise });
        }
        for card in told.cards {
            policy.cards.insert(tenant(&card.tenant)?, card.most);
        }
        for grant in told.grants {
            let devices = grant.devices.iter().map(|key| device(Some(key)));
            let kept = Grant {
                epoch: grant.epoch,
                tenant: tenant(&grant.tenant)?,
                devices: devices.collect::<Result<_, _>>()?,
                ends_in_ms: grant.ends_in_ms,
            };
            policy.grants.insert(grant.lease, kept);
        }
        for told in told.verdicts {
            let whom = Whom {
                tenant: Some(tenant(&told.tenant)?),
                device: device(told.device.as_ref())?,
            };
            let verdict = Verdict {
                class: class(told.class())?,
                ladder: told.ladder.as_ref().map(ladder).unwrap_or_default(),
                held: told
                    .held
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(HELD)
                    .collect(),
            };
            policy.judge(whom, verdict);
        }
        for denial in told.denials {
            policy.denials.insert(Whom {
                tenant: Some(tenant(&denial.tenant)?),
                device: device(denial.device.as_ref())?,
            });
        }
        Ok(policy)
    }
}

impl Policy {
    // Of several reasons the one by which most may be done, and that soonest.
    fn judge(&mut self, whom: Whom, verdict: Verdict) {
        let rank = |verdict: &Verdict| {
            let Ladder {
                mode,
                grace_ms,
                term_grace_ms,
            } = verdict.ladder;
            (mode, std::cmp::Reverse((grace_ms, term_grace_ms)))
        };
        match self.verdicts.get_mut(&whom) {
            Some(known) if rank(known) >= rank(&verdict) => {}
            Some(known) => *known = verdict,
            None => {
                self.verdicts.insert(whom, verdict);
            }
        }
    }
}

fn within(count: usize, most: usize, what: &'static str) -> Result<(), BadPolicy> {
    if count > most {
        return Err(BadPolicy::TooMany(what));
    }
    Ok(())
}

fn device(key: Option<&wire::DeviceKey>) -> Result<DeviceKey, BadPolicy> {
    key.and_then(key_of).ok_or(BadPolicy::Device)
}

fn tenant(name: &str) -> Result<String, BadPolicy> {
    if !is_tenant_name(name) {
        return Err(BadPolicy::Tenant);
    }
    Ok(name.to_owned())
}

fn class(class: wire::ViolationClass) -> Result<Class, BadPolicy> {
    match class {
        wire::ViolationClass::Squatter => Ok(Class::Squatter),
        wire::ViolationClass::Foreign => Ok(Class::Foreign),
        wire::ViolationClass::OverQuota => Ok(Class::OverQuota),
        wire::ViolationClass::OverNodeLimit => Ok(Class::OverNodeLimit),
        wire::ViolationClass::Unattributed => Ok(Class::Unattributed),
        wire::ViolationClass::Ghost => Ok(Class::Ghost),
        wire::ViolationClass::Unspecified => Err(BadPolicy::Class),
    }
}

// A mode that this agent does not know is one that it does not act by.
fn mode(told: wire::Mode) -> Mode {
    match told {
        wire::Mode::Unspecified | wire::Mode::Observe => Mode::Observe,
        wire::Mode::Warn => Mode::Warn,
        wire::Mode::Restrict => Mode::Restrict,
        wire::Mode::Evict => Mode::Evict,
    }
}

fn ladder(told: &wire::Ladder) -> Ladder {
    Ladder {
        mode: mode(told.mode()),
        grace_ms: told.grace_ms,
        term_grace_ms: told.term_grace_ms,
    }
}
