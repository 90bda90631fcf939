//! How the ledger decides where the operator may choose.

use gpuquota_core::command::Command;
use gpuquota_core::object::Object;
use gpuquota_core::quota::QuotaSource;
use gpuquota_core::settings::{LeaseMode, Settings};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{shaped, word_of};
use crate::chosen_enforcement::ChosenEnforcing;
use crate::rest::call::{Api, Call};
use crate::rest::json::{Fields, invalid};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;

/// A year of 365 days, seconds.
const LONGEST_S: u32 = 365 * 24 * 60 * 60;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settings)]
pub(in crate::rest) struct SettingsBody {
    /// Quotas of this source are filled before those of the other.
    #[schema(value_type = names::QuotaSource)]
    consume_first: QuotaSource,
    /// Whether leases are needed where neither tenant nor region says.
    #[schema(value_type = names::LeaseMode)]
    lease_mode: LeaseMode,
    /// How long a lease that is to end is charged while its devices are not seen free.
    #[schema(value_type = names::SomeSeconds)]
    confirm_within_seconds: u64,
    /// After how long a leased device on which nothing runs is called a ghost.
    #[schema(value_type = names::SomeSeconds)]
    ghost_after_seconds: u64,
    /// How long those who are over a quota that shrank have to leave.
    #[schema(value_type = names::Seconds)]
    drain_notice_seconds: u64,
    /// How far agents go about what the ledger does not justify; absent: they observe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::EnforcingFields>)]
    enforcing: Option<ChosenEnforcing>,
}

impl SettingsBody {
    fn of(settings: &Settings) -> Self {
        Self {
            consume_first: settings.consume_first,
            lease_mode: settings.lease_mode,
            confirm_within_seconds: settings.confirm_within_ms / 1000,
            ghost_after_seconds: settings.ghost_after_ms / 1000,
            drain_notice_seconds: settings.drain_notice_ms / 1000,
            enforcing: Some(settings.enforcing.clone())
                .filter(|enforcing| !enforcing.is_usual())
                .map(ChosenEnforcing),
        }
    }
}

/// `GET /api/v1/settings`.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let state = &committed.state;
    let body = SettingsBody::of(state.settings());
    Ok(Reply::ok(body)?.tagged(state.generation(&Object::Settings)))
}

/// `PUT /api/v1/settings`: all of them; what the body leaves out is at its default.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let usual = Settings::default();
    let first = word_of(&fields, "consume_first", "must be purchase or assign")?;
    let mode = word_of(&fields, "lease_mode", "must be optional or required")?;
    let settings = Settings {
        consume_first: first.unwrap_or(usual.consume_first),
        lease_mode: mode.unwrap_or(usual.lease_mode),
        confirm_within_ms: milliseconds(&fields, "confirm_within_seconds", 1)?
            .unwrap_or(usual.confirm_within_ms),
        ghost_after_ms: milliseconds(&fields, "ghost_after_seconds", 1)?
            .unwrap_or(usual.ghost_after_ms),
        drain_notice_ms: milliseconds(&fields, "drain_notice_seconds", 0)?
            .unwrap_or(usual.drain_notice_ms),
        enforcing: shaped::<ChosenEnforcing>(&fields, "enforcing")?
            .map_or(usual.enforcing, |chosen| chosen.0),
    };
    let command = Command::SetSettings(settings.clone());
    let written = call.write(api, Object::Settings, command).await?;
    Ok(Reply::ok(SettingsBody::of(&settings))?.tagged(written.generation))
}

fn milliseconds(fields: &Fields, name: &str, least: u32) -> Result<Option<u64>, Problem> {
    let rule = || {
        let rule = format!("must be a whole number of seconds from {least} to {LONGEST_S}");
        invalid(name, rule)
    };
    match fields.count(name).map_err(|_| rule())? {
        None => Ok(None),
        Some(seconds) if (least..=LONGEST_S).contains(&seconds) => {
            Ok(Some(u64::from(seconds) * 1000))
        }
        Some(_) => Err(rule()),
    }
}
