//! Plays the story once and asserts each step of it, by polling with deadlines.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::process::Invocation;
use crate::quotas::document_put;
use crate::scene::Step;
use crate::screen::Screen;
use crate::story::story;
use crate::tour::{Suggestion, suggestions};

const DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// Plays and asserts everything while the system runs.
pub(crate) async fn check(
    cluster: &mut Cluster,
    folder: &Folder,
    screen: &mut Screen,
) -> Result<()> {
    for step in story() {
        let latency = play(cluster, &step)
            .await
            .with_context(|| step.title.to_owned())?;
        ok(screen, step.title, latency)?;
    }
    let begun = Instant::now();
    let answer = cluster
        .server()?
        .rest
        .put_quota("gpu-operator", &document_put())
        .await?;
    if (answer.status, &answer.body) != (200, &json!({"code": 0})) {
        bail!("the document's PUT example: {{\"code\": 0}} was expected, not {answer:?}");
    }
    ok(
        screen,
        "the document's PUT example is answered with {\"code\": 0}",
        begun.elapsed(),
    )?;
    try_commands(cluster, folder, screen).await
}

/// After the end: the journal's hash chain holds.
pub(crate) async fn check_journal(
    server: &Path,
    folder: &Folder,
    screen: &mut Screen,
) -> Result<()> {
    let begun = Instant::now();
    let verified = Invocation::new(server, &["journal", "verify"])
        .option("--dir", folder.at("server"))
        .output()
        .await?;
    ok(
        screen,
        &format!("the journal verifies: {}", verified.trim()),
        begun.elapsed(),
    )
}

async fn play(cluster: &mut Cluster, step: &Step) -> Result<Duration> {
    for act in &step.acts {
        cluster.perform(act).await?;
    }
    let begun = Instant::now();
    loop {
        cluster.check_alive()?;
        let unmet: Vec<String> = match cluster.look().await {
            Ok(world) => step
                .expects
                .iter()
                .filter_map(|e| e.unmet(&world))
                .collect(),
            Err(error) => vec![format!("no answer: {error:#}")],
        };
        if unmet.is_empty() {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > DEADLINE {
            bail!(
                "expected for {} s, last seen:\n  {}",
                DEADLINE.as_secs(),
                unmet.join("\n  ")
            );
        }
        sleep(POLL).await;
    }
}

// What the demo tells people to paste is pasted into a shell.
async fn try_commands(cluster: &Cluster, folder: &Folder, screen: &mut Screen) -> Result<()> {
    let missing: BTreeSet<&str> = ["curl", "grep"]
        .into_iter()
        .filter(|tool| !on_path(tool))
        .collect();
    for Suggestion {
        what,
        command,
        shows,
    } in suggestions(cluster, folder)?
    {
        if let Some(tool) = missing.iter().find(|tool| command.contains(**tool)) {
            screen.say(&format!(
                "skipped: the command for {what}: there is no {tool}"
            ))?;
            continue;
        }
        let begun = Instant::now();
        // What it leaves running ends with it.
        let script = format!("{command}\nstatus=$?; test -z \"$!\" || kill $!; exit $status");
        let output = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(DEADLINE, output)
            .await
            .with_context(|| format!("does not end: {command}"))??;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.contains(shows) {
            bail!(
                "{shows:?} was expected of this command: {command}\n{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        ok(screen, &format!("the command for: {what}"), begun.elapsed())?;
    }
    Ok(())
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

fn ok(screen: &mut Screen, what: &str, latency: Duration) -> Result<()> {
    let milliseconds = latency.as_millis();
    Ok(screen.say(&format!("ok: {what} ({milliseconds} ms)"))?)
}
