//! How the file and the native API say how far agents go, in one shape.

use std::collections::BTreeSet;

use gpuquota_core::enforcement::{
    Enforcement, Enforcing, Guard, MOST_WINDOWS, Mode, Weekday, Window,
};
use serde::{Deserialize, Serialize};

use crate::rest::time;

const LONGEST_S: u64 = 365 * 24 * 60 * 60;
const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;

/// `{mode, grace_seconds, term_grace_seconds, windows}`; all but `mode` may be left out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Said", into = "Said")]
pub(crate) struct ChosenEnforcement(pub(crate) Enforcement);

/// `{enforcement, unattributed, policy_valid_seconds, guard}`; what is left out is at its default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "SaidOfAll", into = "SaidOfAll")]
pub(crate) struct ChosenEnforcing(pub(crate) Enforcing);

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Said {
    mode: Mode,
    grace_seconds: Option<u64>,
    term_grace_seconds: Option<u64>,
    #[serde(default)]
    windows: Vec<SaidWindow>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged, deny_unknown_fields)]
enum SaidWindow {
    Weekly {
        days: BTreeSet<Weekday>,
        start: String,
        minutes: u16,
    },
    Once {
        from: String,
        until: String,
    },
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SaidOfAll {
    enforcement: Option<ChosenEnforcement>,
    unattributed: Option<Mode>,
    policy_valid_seconds: Option<u64>,
    guard: Option<Guard>,
}

impl TryFrom<Said> for ChosenEnforcement {
    type Error = String;
    fn try_from(said: Said) -> Result<Self, String> {
        let usual = Enforcement::default();
        if said.windows.len() > MOST_WINDOWS {
            return Err(format!("at most {MOST_WINDOWS} windows"));
        }
        let windows = said.windows.into_iter().map(Window::try_from);
        Ok(Self(Enforcement {
            mode: said.mode,
            grace_ms: ms("grace_seconds", said.grace_seconds, 0)?.unwrap_or(usual.grace_ms),
            term_grace_ms: ms("term_grace_seconds", said.term_grace_seconds, 0)?
                .unwrap_or(usual.term_grace_ms),
            windows: windows.collect::<Result<_, _>>()?,
        }))
    }
}

impl From<ChosenEnforcement> for Said {
    fn from(ChosenEnforcement(chosen): ChosenEnforcement) -> Self {
        Self {
            mode: chosen.mode,
            grace_seconds: Some(chosen.grace_ms / 1000),
            term_grace_seconds: Some(chosen.term_grace_ms / 1000),
            windows: chosen.windows.into_iter().map(SaidWindow::from).collect(),
        }
    }
}

impl TryFrom<SaidOfAll> for ChosenEnforcing {
    type Error = String;
    fn try_from(said: SaidOfAll) -> Result<Self, String> {
        let usual = Enforcing::default();
        let guard = said.guard.unwrap_or(usual.guard);
        if !(1..=100).contains(&guard.percent) {
            return Err("percent of guard is from 1 to 100".into());
        }
        Ok(Self(Enforcing {
            usual: said.enforcement.map_or(usual.usual, |chosen| chosen.0),
            unattributed: said.unattributed.unwrap_or(usual.unattributed),
            policy_valid_ms: ms("policy_valid_seconds", said.policy_valid_seconds, 1)?
                .unwrap_or(usual.policy_valid_ms),
            guard,
        }))
    }
}

impl From<ChosenEnforcing> for SaidOfAll {
    fn from(ChosenEnforcing(chosen): ChosenEnforcing) -> Self {
        Self {
            enforcement: Some(ChosenEnforcement(chosen.usual)),
            unattributed: Some(chosen.unattributed),
            policy_valid_seconds: Some(chosen.policy_valid_ms / 1000),
            guard: Some(chosen.guard),
        }
    }
}

fn ms(what: &str, seconds: Option<u64>, least: u64) -> Result<Option<u64>, String> {
    match seconds {
        None => Ok(None),
        Some(seconds) if (least..=LONGEST_S).contains(&seconds) => Ok(Some(seconds * 1000)),
        Some(_) => Err(format!("{what} is from {least} to {LONGEST_S}")),
    }
}

impl TryFrom<SaidWindow> for Window {
    type Error = String;
    fn try_from(said: SaidWindow) -> Result<Self, String> {
        match said {
            SaidWindow::Weekly {
                days,
                start,
                minutes,
            } => {
                if days.is_empty() || !(1..=WEEK_MINUTES).contains(&minutes) {
                    return Err("a window has a day at least, and 1 to 10080 minutes".into());
                }
                let start_minute = minute_of_day(&start);
                let start_minute = start_minute.ok_or("start of a window is HH:MM, UTC")?;
                Ok(Self::Weekly {
                    days,
                    start_minute,
                    minutes,
                })
            }
            SaidWindow::Once { from, until } => {
                let time = |text: &str| {
                    time::parse(text)
                        .ok_or("from and until of a window are times as 2026-12-01T20:00:00Z")
                };
                let (from, until) = (time(&from)?, time(&until)?);
                if from >= until {
                    return Err("a window ends after it begins".into());
                }
                Ok(Self::Once { from, until })
            }
        }
    }
}

impl From<Window> for SaidWindow {
    fn from(window: Window) -> Self {
        match window {
            Window::Weekly {
                days,
                start_minute,
                minutes,
            } => Self::Weekly {
                days,
                start: format!("{:02}:{:02}", start_minute / 60, start_minute % 60),
                minutes,
            },
            Window::Once { from, until } => Self::Once {
                from: time::format(from),
                until: time::format(until),
            },
        }
    }
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| plain)
    };
    let minute = number(minute).filter(|minute| *minute < 60)?;
    let start = number(hour)?.checked_mul(60)? + minute;
    Some(start).filter(|start| *start < DAY_MINUTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_comes_back_as_it_was_said_and_what_is_wrong_is_refused() {
        let said = json!({
            "mode": "evict", "grace_seconds": 5, "term_grace_seconds": 10,
            "windows": [
                {"days": ["mon", "sun"], "start": "22:30", "minutes": 480},
                {"from": "2026-12-01T20:00:00Z", "until": "2026-12-01T22:00:00Z"},
            ],
        });
        let read = serde_json::from_value::<ChosenEnforcement>(said.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), said);
        let few = serde_json::from_value::<ChosenEnforcement>(json!({"mode": "warn"})).unwrap();
        assert_eq!(few.0.grace_ms, Enforcement::default().grace_ms);
        let windows = |window| json!({"mode": "warn", "windows": [window]});
        for bad in [
            json!({}),
            json!({"mode": "kill"}),
            json!({"mode": "warn", "grace": 1}),
            json!({"mode": "warn", "grace_seconds": LONGEST_S + 1}),
            windows(json!({"days": [], "start": "00:00", "minutes": 1})),
            windows(json!({"days": ["mon"], "start": "24:00", "minutes": 1})),
            windows(json!({"days": ["mon"], "start": "1:00", "minutes": 1})),
            windows(json!({"days": ["mon"], "start": "01:00", "minutes": 0})),
            windows(json!({"from": "2026-12-01T20:00:00Z", "until": "2026-12-01T20:00:00Z"})),
        ] {
            let read = serde_json::from_value::<ChosenEnforcement>(bad.clone());
            assert!(read.is_err(), "{bad}");
        }
        let all = json!({"guard": {"processes": 3, "percent": 101}});
        assert!(serde_json::from_value::<ChosenEnforcing>(all).is_err());
        let toml = "guard = { processes = 3, percent = 10 }\nenforcement = { mode = \"restrict\" }";
        let read = toml::from_str::<ChosenEnforcing>(toml).unwrap().0;
        assert_eq!((read.guard.processes, read.usual.mode), (3, Mode::Restrict));
    }
}
