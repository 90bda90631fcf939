//! An agent acts: by what its server shows of its node, however old that is, or by nothing at all; and tells what came of it.

use gpuquota_core::command::{BeginSteps, EndStep, StepsAllowed};
use gpuquota_core::id::{Incarnation, Seq, SessionId, Timestamp};
use gpuquota_core::policy::policy;
use gpuquota_core::step::{Rung, Step, StepClass, StepResult};
use gpuquota_core::{Command, Outcome, State};
use gpuquota_server::clock::Readings as _;

use crate::agent::{Agent, granted};
use crate::names::{DEVICES, TENANTS, tenant};

impl Agent {
    /// Asks for some steps, and tells of those that it may take.
    pub(crate) async fn act(&mut self) {
        let Some(session) = self.session().await else {
            return;
        };
        let Some(seen) = self.world.replicas[self.server].read(false) else {
            return self.leave();
        };
        let now = self.world.replicas[self.server].readings.wall_ms();
        let steps = self.steps(&seen.state, Timestamp(now));
        if steps.is_empty() {
            return;
        }
        let begin = Command::BeginSteps(BeginSteps {
            node: self.node.clone(),
            session,
            incarnation: Incarnation(0),
            version: seen.state.seq(),
            steps: steps.clone(),
        });
        let reply = self.ask(begin, None).await;
        let Some(Outcome::Steps(StepsAllowed { allowed, .. })) = granted(&reply) else {
            return;
        };
        for at in allowed {
            let step = steps[usize::try_from(at).unwrap()].clone();
            self.tell(session, step, seen.state.seq()).await;
        }
    }

    async fn tell(&mut self, session: SessionId, step: Step, version: Seq) {
        self.outcomes += 1;
        let result = self
            .dice
            .pick(&[StepResult::Done, StepResult::Done, StepResult::Gone]);
        let end = Command::EndStep(EndStep {
            node: self.node.clone(),
            session,
            boot_id: "boot".into(),
            number: self.outcomes,
            step,
            version,
            result,
            detail: String::new(),
            age_ms: self.dice.below(100),
            beside: 0,
        });
        // As after an answer that was lost.
        for _ in 0..=self.dice.below(2) {
            self.ask(end.clone(), None).await;
        }
    }

    fn steps(&mut self, state: &State, now: Timestamp) -> Vec<Step> {
        if self.dice.chance(250) {
            let device = self.devices[self.dice.index(DEVICES)].key.clone();
            let class = self.dice.pick(&[StepClass::Squatter, StepClass::OverQuota]);
            let name = tenant(self.dice.pick(&TENANTS));
            return vec![self.step(Some(name), device, class)];
        }
        let policy = policy(state, &self.node, now);
        let verdicts = policy.map(|policy| policy.verdicts).unwrap_or_default();
        let mut steps = Vec::new();
        for verdict in verdicts {
            for _ in 0..self.dice.within(1, 3) {
                let (tenant, device) = (verdict.tenant.clone(), verdict.device.clone());
                steps.push(self.step(Some(tenant), device, verdict.class.into()));
            }
        }
        steps
    }

    fn step(
        &mut self,
        tenant: Option<gpuquota_core::id::TenantName>,
        device: gpuquota_core::device::DeviceKey,
        class: StepClass,
    ) -> Step {
        let rung = self
            .dice
            .pick(&[Rung::Restrict, Rung::Term, Rung::Term, Rung::Kill]);
        let pid = u32::try_from(self.dice.within(1, 4)).unwrap();
        Step {
            rung,
            tenant,
            device,
            class,
            pid: rung.ends().then_some(pid),
            start_time: rung.ends().then_some(7),
            group: "/a.slice".into(),
        }
    }
}
