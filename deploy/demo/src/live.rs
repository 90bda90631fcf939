//! Tells the story over and over, beside a table of what is seen of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::scene::Step;
use crate::screen::Screen;
use crate::story::story;
use crate::table::{Line, Look, lines, summary, violations};
use crate::world::World;

const REDRAW: Duration = Duration::from_millis(300);
/// A step is shown at least so long.
const DWELL: Duration = Duration::from_secs(5);
/// And at most so long when what should be seen is not, for example because somebody changed the quotas.
const GIVE_UP: Duration = Duration::from_secs(15);

/// Tells it `rounds` times, or until the demo is ended.
pub(crate) async fn live(
    cluster: &mut Cluster,
    screen: &mut Screen,
    rounds: Option<u32>,
) -> Result<()> {
    let started = Instant::now();
    let mut shown = BTreeMap::new();
    let mut round = 0;
    while rounds.is_none_or(|most| round < most) {
        round += 1;
        for step in story() {
            let begun = Instant::now();
            let mut turn = Turn {
                heading: format!("round {round}, {}", clock(started)),
                title: step.title,
                outcome: None,
            };
            if !screen.is_terminal() {
                screen.say(&format!("{}  {}", clock(started), step.title))?;
            }
            perform(cluster, &step, &mut turn).await?;
            while begun.elapsed() < DWELL || (turn.outcome.is_none() && begun.elapsed() < GIVE_UP) {
                cluster.check_alive()?;
                let world = match cluster.look().await {
                    Ok(world) => world,
                    Err(error) if begun.elapsed() > GIVE_UP => return Err(error),
                    // A machine with too much to do; the picture stays until it has time again.
                    Err(_) => {
                        sleep(REDRAW).await;
                        continue;
                    }
                };
                let all_met = || step.expects.iter().all(|e| e.unmet(&world).is_none());
                if turn.outcome.is_none() && all_met() {
                    turn.outcome = Some(seen(begun));
                    tell_changes(screen, &turn, &world, &mut shown)?;
                }
                turn.heading = format!("round {round}, {}", clock(started));
                if screen.is_terminal() {
                    screen.draw(&picture(&world, &turn))?;
                }
                sleep(REDRAW).await;
            }
        }
    }
    Ok(())
}

struct Turn {
    heading: String,
    title: &'static str,
    outcome: Option<String>,
}

// A person may have changed what the story relies on: it says so and goes on, as long as everything runs.
async fn perform(cluster: &mut Cluster, step: &Step, turn: &mut Turn) -> Result<()> {
    for act in &step.acts {
        if let Err(error) = cluster.perform(act).await {
            cluster.server()?;
            cluster.check_alive()?;
            turn.outcome = Some(format!("not as planned: {error:#}"));
        }
    }
    Ok(())
}

fn seen(begun: Instant) -> String {
    let seconds = begun.elapsed().as_secs_f64();
    format!("seen in REST and both /metrics after {seconds:.2} s")
}

fn picture(world: &World, turn: &Turn) -> Vec<Line> {
    let mut picture = vec![
        vec![(
            Look::Dim,
            format!("gpuquota demo, {}; Ctrl-C ends it", turn.heading),
        )],
        Vec::new(),
        vec![(Look::Bold, format!("> {}", turn.title))],
        match &turn.outcome {
            Some(outcome) => vec![(Look::Good, format!("  {outcome}"))],
            None => vec![(Look::Dim, "  ...".to_owned())],
        },
        Vec::new(),
    ];
    picture.extend(lines(world));
    picture
}

// On paper only what changed.
fn tell_changes(
    screen: &mut Screen,
    turn: &Turn,
    world: &World,
    shown: &mut BTreeMap<String, String>,
) -> Result<()> {
    if screen.is_terminal() {
        return Ok(());
    }
    let rows = world.quotas.iter().map(summary);
    let mut now: BTreeMap<String, String> = rows
        .filter_map(|row| {
            row.split_once(": ")
                .map(|(name, figures)| (name.to_owned(), figures.to_owned()))
        })
        .collect();
    for violation in &world.violations {
        let tenant = &violation.tenant;
        now.insert(format!("{tenant} violates"), violations(world, tenant));
    }
    for node in &world.nodes {
        now.insert(node.name.clone(), node.state.clone());
    }
    let mut text = format!("       {}", turn.outcome.as_deref().unwrap_or_default());
    for (name, figures) in &now {
        if shown.get(name) != Some(figures) {
            text.push_str(&format!("\n         {name}: {figures}"));
        }
    }
    for gone in shown.keys().filter(|name| !now.contains_key(*name)) {
        text.push_str(&format!("\n         {gone}: no more"));
    }
    *shown = now;
    screen.say(&text)?;
    Ok(())
}

fn clock(started: Instant) -> String {
    let seconds = started.elapsed().as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}
