//! Policies, steps and outcomes between the wire's words and the ledger's. Every text from an agent is checked here.

use gpuquota_core::command::{BeginSteps, EndStep};
use gpuquota_core::device::DeviceKey;
use gpuquota_core::enforcement::Mode;
use gpuquota_core::id::{Incarnation, NodeName, Seq, SessionId, TenantName, Timestamp};
use gpuquota_core::policy::{self, NodePolicy};
use gpuquota_core::step::{Rung, Step, StepClass, StepResult};
use gpuquota_core::usage::ViolationClass;
use gpuquota_proto::STEPS_PER_INTENT;
use gpuquota_proto::agent_v1 as wire;
use tonic::Status;

use super::convert::{identifier, key, text};

const LONGEST_GROUP: usize = 1024;
const LONGEST_OUTCOME: usize = 256;

/// A policy as it is sent at `now`.
pub(super) fn policy(
    policy: &NodePolicy,
    incarnation: Incarnation,
    version: Seq,
    now: Timestamp,
) -> wire::Policy {
    let rules = policy.rules.iter().map(|rule| wire::DeviceRule {
        key: Some(device(&rule.device)),
        only: names(&rule.only),
        otherwise: class(rule.otherwise).into(),
    });
    let cards = policy.cards.iter().map(|(tenant, most)| wire::CardRule {
        tenant: tenant.to_string(),
        most: *most,
    });
    let grants = policy.grants.iter().map(|grant| wire::Grant {
        lease: grant.lease.0,
        epoch: grant.epoch.0,
        tenant: grant.tenant.to_string(),
        devices: grant.devices.iter().map(device).collect(),
        ends_in_ms: grant
            .ends_at
            .map(|end| u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0)),
    });
    let verdicts = policy.verdicts.iter().map(|verdict| wire::Verdict {
        tenant: verdict.tenant.to_string(),
        device: Some(device(&verdict.device)),
        class: class(verdict.class).into(),
        ladder: Some(ladder(verdict.ladder)),
        held: verdict
            .held
            .map(|held| held.to_string())
            .unwrap_or_default(),
    });
    wire::Policy {
        incarnation: u64::from(incarnation.0),
        version: version.0,
        valid_for_ms: policy.valid_for_ms,
        rules: rules.collect(),
        cards: cards.collect(),
        grants: grants.collect(),
        verdicts: verdicts.collect(),
        denials: policy
            .denials
            .iter()
            .map(|(tenant, device)| wire::Denial {
                tenant: tenant.to_string(),
                device: Some(self::device(device)),
            })
            .collect(),
        unattributed: Some(ladder(policy.unattributed)),
        unattributed_chosen: mode(policy.unattributed_chosen).into(),
        others: Some(ladder(policy.others)),
    }
}

fn names<'a>(tenants: impl IntoIterator<Item = &'a TenantName>) -> Vec<String> {
    tenants.into_iter().map(ToString::to_string).collect()
}

fn mode(mode: Mode) -> wire::Mode {
    match mode {
        Mode::Observe => wire::Mode::Observe,
        Mode::Warn => wire::Mode::Warn,
        Mode::Restrict => wire::Mode::Restrict,
        Mode::Evict => wire::Mode::Evict,
    }
}

fn ladder(ladder: policy::Ladder) -> wire::Ladder {
    wire::Ladder {
        mode: mode(ladder.mode).into(),
        grace_ms: ladder.grace_ms,
        term_grace_ms: ladder.term_grace_ms,
    }
}

fn class(class: ViolationClass) -> wire::ViolationClass {
    match class {
        ViolationClass::Squatter => wire::ViolationClass::Squatter,
        ViolationClass::Foreign => wire::ViolationClass::Foreign,
        ViolationClass::OverQuota => wire::ViolationClass::OverQuota,
        ViolationClass::OverNodeLimit => wire::ViolationClass::OverNodeLimit,
    }
}

pub(super) fn device(key: &DeviceKey) -> wire::DeviceKey {
    match key {
        DeviceKey::Gpu(gpu) => wire::DeviceKey {
            gpu_uuid: gpu.clone(),
            ..Default::default()
        },
        DeviceKey::Mig { gpu, gi, ci } => wire::DeviceKey {
            gpu_uuid: gpu.clone(),
            gi: Some(*gi),
            ci: Some(*ci),
            vgpu_uuid: String::new(),
        },
        DeviceKey::Vgpu(vgpu) => wire::DeviceKey {
            vgpu_uuid: vgpu.clone(),
            ..Default::default()
        },
    }
}

/// An intent in the ledger's words.
pub(super) fn intent(
    node: &NodeName,
    session: SessionId,
    intent: wire::Intent,
) -> Result<BeginSteps, Status> {
    if intent.steps.is_empty() || intent.steps.len() > STEPS_PER_INTENT {
        return Err(Status::invalid_argument(format!(
            "an intent has 1 to {STEPS_PER_INTENT} steps"
        )));
    }
    let steps = intent.steps.into_iter().map(step);
    Ok(BeginSteps {
        node: node.clone(),
        session,
        incarnation: incarnation(intent.incarnation)?,
        version: Seq(intent.version),
        steps: steps.collect::<Result<_, _>>()?,
    })
}

/// An outcome in the ledger's words.
pub(super) fn outcome(
    node: &NodeName,
    session: SessionId,
    outcome: wire::Outcome,
) -> Result<EndStep, Status> {
    let result = match outcome.kind() {
        wire::OutcomeKind::Done => StepResult::Done,
        wire::OutcomeKind::Verified => StepResult::Verified,
        wire::OutcomeKind::Gone => StepResult::Gone,
        wire::OutcomeKind::Refused => StepResult::Refused,
        wire::OutcomeKind::Failed => StepResult::Failed,
        wire::OutcomeKind::Impossible => StepResult::Impossible,
        wire::OutcomeKind::Unspecified => {
            return Err(Status::invalid_argument("an outcome without kind"));
        }
    };
    let told = outcome.step;
    let told = told.ok_or_else(|| Status::invalid_argument("an outcome without step"))?;
    Ok(EndStep {
        node: node.clone(),
        session,
        boot_id: identifier("boot_id", outcome.boot_id)?,
        number: outcome.number,
        step: step(told)?,
        version: Seq(outcome.version),
        result,
        detail: text("detail", outcome.detail, LONGEST_OUTCOME)?,
        age_ms: outcome.age_ms,
        beside: outcome.beside,
    })
}

pub(super) fn incarnation(number: u64) -> Result<Incarnation, Status> {
    let number = number.try_into();
    number
        .map(Incarnation)
        .map_err(|_| Status::invalid_argument("there is no such incarnation"))
}

fn step(step: wire::Step) -> Result<Step, Status> {
    let bad = |what: &'static str| Status::invalid_argument(what);
    let rung = match step.rung() {
        wire::Rung::Warn => Rung::Warn,
        wire::Rung::Restrict => Rung::Restrict,
        wire::Rung::Term => Rung::Term,
        wire::Rung::Kill => Rung::Kill,
        wire::Rung::KillScope => Rung::KillScope,
        wire::Rung::Lift => Rung::Lift,
        wire::Rung::Unspecified => return Err(bad("a step without rung")),
    };
    let class = match step.class() {
        wire::ViolationClass::Squatter => StepClass::Squatter,
        wire::ViolationClass::Foreign => StepClass::Foreign,
        wire::ViolationClass::OverQuota => StepClass::OverQuota,
        wire::ViolationClass::OverNodeLimit => StepClass::OverNodeLimit,
        wire::ViolationClass::Unattributed => StepClass::Unattributed,
        wire::ViolationClass::Ghost => StepClass::Ghost,
        wire::ViolationClass::Unspecified => return Err(bad("a step without class")),
    };
    let tenant = match step.tenant.as_str() {
        "" => None,
        name => Some(TenantName::new(name).map_err(|e| Status::invalid_argument(e.to_string()))?),
    };
    let device = step
        .device
        .as_ref()
        .ok_or_else(|| bad("a step without device"))?;
    Ok(Step {
        rung,
        tenant,
        device: key(device)?,
        class,
        pid: step.pid,
        start_time: step.start_time,
        group: text("group", step.group, LONGEST_GROUP)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> wire::Intent {
        wire::Intent {
            id: 1,
            steps: vec![wire::Step {
                rung: wire::Rung::Term.into(),
                tenant: "a".into(),
                device: Some(wire::DeviceKey {
                    gpu_uuid: "GPU-1".into(),
                    ..Default::default()
                }),
                class: wire::ViolationClass::Squatter.into(),
                pid: Some(7),
                start_time: Some(8),
                group: "/a.slice".into(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn case_62_an_intent_that_no_agent_should_send_is_refused() {
        let node = NodeName::new("n").unwrap();
        let read = |change: &dyn Fn(&mut wire::Intent)| {
            let mut message = good();
            change(&mut message);
            intent(&node, SessionId(1), message).map_err(|status| status.code())
        };
        let step = read(&|_| {}).unwrap().steps.remove(0);
        assert_eq!((step.rung, step.pid), (Rung::Term, Some(7)));
        assert_eq!(
            device(&step.device),
            good().steps[0].device.clone().unwrap()
        );
        let nobody = read(&|it| it.steps[0].tenant.clear()).unwrap();
        assert_eq!(nobody.steps[0].tenant, None);
        let bad: [&dyn Fn(&mut wire::Intent); 8] = [
            &|it| it.steps.clear(),
            &|it| it.steps = vec![it.steps[0].clone(); STEPS_PER_INTENT + 1],
            &|it| it.steps[0].rung = 99,
            &|it| it.steps[0].class = 0,
            &|it| it.steps[0].device = None,
            &|it| it.steps[0].tenant = "../x".into(),
            &|it| it.steps[0].group = "a\nb".into(),
            &|it| it.steps[0].group = "a".repeat(LONGEST_GROUP + 1),
        ];
        for (at, change) in bad.iter().enumerate() {
            assert_eq!(read(change), Err(tonic::Code::InvalidArgument), "{at}");
        }
    }
}
