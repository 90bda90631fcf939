//! What `ca` prints.

use std::fmt::Write as _;
use std::path::Path;

use gpuquota_core::id::Timestamp;
use gpuquota_proto::authorities::not_after_unix_s;
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::chain;

use super::files::{FilesError, Places};
use super::kept::Kept;
use super::phase::{Known, Phase};
use crate::config::Config;

/// Nodes that are named, at most.
const NAMED: usize = 20;
const DAY_S: i64 = 86_400;

/// How the rotation stands, for a person.
///
/// # Errors
/// When the state cannot be read.
pub fn show(
    dir: &Path,
    config: &Config,
    nodes: &[Known],
    now: Timestamp,
) -> Result<String, FilesError> {
    let places = Places::of(dir, config);
    let kept = places.read()?;
    let phase = kept.as_ref().map_or(Phase::Standby, |kept| kept.phase);
    let mut text = format!("phase: {phase}\n");
    let known = kept.as_ref().and_then(Kept::pins);
    let name = |pin: Pin| match known {
        Some((old, _)) if old == pin => "old",
        Some((_, new)) if new == pin => "new",
        _ => "authority",
    };
    for authority in chain(&places.ca).unwrap_or_default() {
        let Ok(pin) = Pin::of(&authority) else {
            continue;
        };
        let days = not_after_unix_s(&authority)
            .map(|end| (end - now.0.div_euclid(1000)).div_euclid(DAY_S));
        let days = days.map_or_else(|| "?".to_owned(), |days| days.to_string());
        let by = nodes.iter().filter(|node| node.certificate_by == Some(pin));
        let trusting = |node: &&Known| node.trusts.as_ref().is_some_and(|it| it.contains(&pin));
        let _ = writeln!(
            text,
            "{}: {pin}, ends in {days} days, trusted by this server; certificates of {} of {} nodes, trusted by {}",
            name(pin),
            by.count(),
            nodes.len(),
            nodes.iter().filter(trusting).count(),
        );
    }
    if let (Phase::Prepared, Some((_, new))) = (phase, known) {
        let _ = writeln!(text, "new: {new}, used for nothing yet");
    }
    text += &next(phase, nodes, known);
    Ok(text)
}

fn next(phase: Phase, nodes: &[Known], pins: Option<(Pin, Pin)>) -> String {
    let (command, to) = match phase {
        Phase::Standby | Phase::Finished => return "next: ca prepare".to_owned(),
        Phase::Prepared => ("trust", Phase::Trusted),
        Phase::Trusted => ("issue", Phase::Issuing),
        Phase::Issuing => ("finish", Phase::Finished),
    };
    let lacking = pins.map(|pins| phase.need(to).lacking(nodes, pins));
    match lacking.filter(|lacking| !lacking.is_empty()) {
        None => format!("next: ca {command}; back: ca rollback"),
        Some(lacking) => format!(
            "next: ca {command}, once these are ready; back: ca rollback\n{}",
            named(&lacking)
        ),
    }
}

/// What a step did, for a person.
#[must_use]
pub fn done(kept: &Kept, config: &Config) -> String {
    let Kept { old, new, .. } = kept;
    // What shows the agents' certificate over HTTPS shows that of the new authority from `issue` on.
    let shown = Some(&config.agents.certificate);
    let https = [
        ("[rest]", config.rest.certificate.as_ref()),
        ("[metrics]", config.metrics.certificate.as_ref()),
    ];
    let https = https.into_iter().filter(|(_, own)| *own == shown);
    let https: Vec<&str> = https.map(|(section, _)| section).collect();
    let first = match https.is_empty() {
        true => String::new(),
        false => format!(
            "first give the new {} to whoever checks {} over HTTPS by it\n",
            config.agents.ca.display(),
            https.join(" and ")
        ),
    };
    let within = kept.renew_within_ms / 1000;
    match kept.phase {
        Phase::Standby => format!("the new authority is gone; {old} is the only one"),
        Phase::Prepared => format!(
            "{new} is there and used for nothing; {old} signs and is trusted alone\nnext: ca trust"
        ),
        Phase::Trusted => format!(
            "{old} and {new} are trusted, {old} signs; every agent is told, and asks for a certificate of it within {within} s if it has another\n{first}next: ca issue"
        ),
        Phase::Issuing => format!(
            "{old} and {new} are trusted, {new} signs; every agent asks for a certificate of it within {within} s\nnext: ca finish"
        ),
        Phase::Finished => format!(
            "{new} is the only authority; {old} is refused and its key is gone, so there is no way back"
        ),
    }
}

pub(super) fn left_behind(lacking: &[(String, &'static str)]) -> String {
    format!(
        "nothing was changed: {} nodes would be left behind. Wait for them, retire those that are no more, or say --force: they \
         then need a new join token\n{}",
        lacking.len(),
        named(lacking)
    )
}

fn named(lacking: &[(String, &'static str)]) -> String {
    let shown = lacking.iter().take(NAMED);
    let mut lines: Vec<String> = shown.map(|(node, why)| format!("  {node} {why}")).collect();
    if lacking.len() > NAMED {
        lines.push(format!("  and {} more", lacking.len() - NAMED));
    }
    lines.join("\n")
}
