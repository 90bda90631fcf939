//! One run from beginning to end: an opening, the operations under faults, calm, and what everybody says then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::id::Timestamp;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Agent;
use crate::chaos::chaos;
use crate::checker::{Entry, Reply};
use crate::client::Client;
use crate::clock::SimReadings;
use crate::commands::opening;
use crate::dice::Dice;
use crate::history::History;
use crate::journal::Database;
use crate::link::Link;
use crate::plan::Plan;
use crate::replica::Replica;
use crate::world::{Request, World, fingerprint};

/// Simulated time after which nothing can come any more.
const END: Duration = Duration::from_secs(60 * 3_600);

/// Plays `plan`; snapshots go to `scratch`. The same plan gives the same history, byte for byte.
pub(crate) fn play(plan: &Plan, scratch: &Path) -> Vec<Entry> {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let dir = scratch.join(plan.seed.to_string());
    let history = runtime.block_on(async {
        let mut dice = Dice::new(plan.seed).fork();
        let world = world(plan, &dir, &mut dice);
        if timeout(END, tell(&world, &mut dice)).await.is_err() {
            world.history.alarm("somebody waits for ever");
        }
        world.history.take()
    });
    drop(runtime);
    let _ = std::fs::remove_dir_all(&dir);
    history
}

fn world(plan: &Plan, dir: &Path, dice: &mut Dice) -> Arc<World> {
    let begin = Instant::now();
    let history = History::new(begin);
    let database = Database::new(history.clone());
    let calm = Arc::new(AtomicBool::new(true));
    let replicas = (0..plan.replicas).map(|number| {
        let name = format!("server-{number}");
        let (faults, calm) = (plan.faults.clone(), calm.clone());
        let skew = i64::try_from(dice.below(40)).unwrap() - 20;
        let replica = Replica::new(
            name.clone(),
            Link::new(name.clone(), history.clone(), faults, calm),
            SimReadings::new(begin, skew),
            (history.clone(), database.clone()),
            plan.snapshot_every.map(|_| dir.join(&name)),
            plan.clone(),
        );
        tokio::spawn(replica.clone().serve(dice.fork()));
        replica
    });
    let replicas = replicas.collect();
    Arc::new(World {
        plan: plan.clone(),
        begin,
        history,
        database,
        replicas,
        calm,
        left: AtomicU64::new(plan.operations),
    })
}

async fn tell(world: &Arc<World>, dice: &mut Dice) {
    for (number, command) in opening().into_iter().enumerate() {
        insist(world, dice, 0, &format!("opening/{number}"), command).await;
    }
    world.calm.store(false, Ordering::Relaxed);
    let clients =
        (0..world.plan.clients).map(|number| Client::new(world.clone(), number, dice.fork()).run());
    let mut clients: JoinSet<()> = clients.collect();
    let agents = (0..world.plan.agents)
        .map(|number| tokio::spawn(Agent::new(world.clone(), number, dice.fork()).run()));
    let agents: Vec<_> = agents.collect();
    let chaos = tokio::spawn(chaos(world.clone(), dice.fork()));
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let mut settled = Vec::new();
    for agent in agents {
        settled.push(agent.await.unwrap());
    }
    chaos.abort();
    calm(world).await;
    for agent in &mut settled {
        agent.settle().await;
    }
    for turn in 0..2 {
        for to in 0..world.replicas.len() {
            let until = world.begin.elapsed().as_millis();
            let command = Command::RevokeToken {
                token: format!("last-{turn}-{to}"),
                until: Timestamp(i64::MAX - i64::try_from(until).unwrap()),
            };
            insist(world, dice, to, &format!("closing/{turn}/{to}"), command).await;
            world.replicas[to].read(turn > 0);
        }
    }
}

// All faults end, and every server starts once more with a right clock.
async fn calm(world: &World) {
    world.history.note("all is calm");
    world.calm.store(true, Ordering::Relaxed);
    world.database.set_full(false);
    for replica in &world.replicas {
        replica.link.part(false);
        replica.readings.set(0);
        replica.stop.notify_one();
    }
    sleep(Duration::from_secs(10)).await;
    for replica in &world.replicas {
        if replica.handle().is_none() {
            let text = format!("{} does not come back", replica.name);
            world.history.alarm(text);
        }
    }
}

// In calm everything that is asked is done.
async fn insist(world: &World, dice: &mut Dice, to: usize, op: &str, command: Command) {
    let request = Request {
        caller: "server".into(),
        fingerprint: Some(fingerprint(&command)),
        command,
        op: Some(op.to_owned()),
    };
    for _ in 0..20 {
        if let Reply::Decided { seq: Some(_), .. } = world.call(dice, to, &request).await {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let text = format!("{op} is not done although all is calm");
    world.history.alarm(text);
}
