//! The part of the story that is about enforcement: steps that begin, wait for a person, and end.

use gpuquota_core::Command;
use gpuquota_core::command::{BeginSteps, EndStep};
use gpuquota_core::device::DeviceKey;
use gpuquota_core::enforcement::{Enforcement, Enforcing, Guard, Mode};
use gpuquota_core::id::{Incarnation, QuotaId, Seq, SessionId, TenantName};
use gpuquota_core::settings::Settings;
use gpuquota_core::step::{Rung, Step, StepClass, StepResult};

use crate::declared::{facts, gpu, node};
use crate::running::Running;

const NODE: &str = "n2";

fn step(rung: Rung, gpu: &str, pid: Option<u32>) -> Step {
    Step {
        rung,
        tenant: Some(TenantName::new("squatter").unwrap()),
        device: DeviceKey::gpu(gpu).unwrap(),
        class: StepClass::Squatter,
        pid,
        start_time: pid.map(|_| 7),
        group: "/user.slice/user-7.slice".into(),
    }
}

/// A squatter is denied a GPU and ended, another time too much is asked for at once, and a person lets it through.
pub(crate) async fn tell(running: &Running) {
    let evict = Enforcement {
        mode: Mode::Evict,
        grace_ms: 0,
        ..Enforcement::default()
    };
    let enforcing = Enforcing {
        usual: evict.clone(),
        guard: Guard {
            processes: 2,
            percent: 50,
        },
        ..Enforcing::default()
    };
    let settings = Settings {
        enforcing,
        ..Settings::default()
    };
    running
        .told([
            Command::SetSettings(settings),
            Command::SetQuotaEnforcement(QuotaId(0), Some(evict)),
        ])
        .await;
    let held =
        ["GPU-20", "GPU-21", "GPU-22"].map(|name| gpu(name, "nvidia.com/gpu", &["squatter"]));
    running
        .reported(NODE, facts(None, None), held.to_vec())
        .await;
    let session = running
        .ledger
        .read()
        .state
        .node(&node(NODE))
        .unwrap()
        .session;
    let begin = |session: SessionId, steps: Vec<Step>| {
        Command::BeginSteps(BeginSteps {
            node: node(NODE),
            session,
            incarnation: Incarnation::default(),
            version: Seq(9),
            steps,
        })
    };
    let ended = |number, step: Step, result| {
        Command::EndStep(EndStep {
            node: node(NODE),
            session,
            boot_id: "boot".into(),
            number,
            step,
            version: Seq(9),
            result,
            detail: "as was said".into(),
            age_ms: 3,
            beside: 1,
        })
    };
    let (restrict, term) = (
        step(Rung::Restrict, "GPU-20", None),
        step(Rung::Term, "GPU-20", Some(41)),
    );
    let all = ["GPU-20", "GPU-21", "GPU-22"].map(|name| step(Rung::Kill, name, Some(42)));
    running
        .told([
            ended(1, step(Rung::Warn, "GPU-20", None), StepResult::Done),
            begin(session, vec![restrict.clone(), term.clone()]),
            ended(2, restrict, StepResult::Done),
            ended(3, term, StepResult::Verified),
            begin(session, all.to_vec()),
            Command::ConfirmSteps(Some(TenantName::new("squatter").unwrap()), 60_000),
            begin(session, all.to_vec()),
        ])
        .await;
}
