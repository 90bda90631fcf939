//! One authority follows another, in steps that a running server takes up and that can be taken back, as `ca` does it.

mod files;
mod kept;
mod phase;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use gpuquota_core::id::Timestamp;
use gpuquota_proto::authorities::{behind_server, hosts};
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::{HttpsFiles, chain};

pub use files::{FOLDER, FilesError, Places};
pub use kept::{Kept, Told};
pub use phase::{Known, Need, Phase, Refused, Step, Which};
pub use report::{done, show};

use crate::config::Config;
use crate::pki::{Authority, authority};

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What to do.
    pub step: Step,
    /// Although nodes would be left behind.
    pub force: bool,
    /// Why, for the record.
    pub reason: Option<String>,
    /// Within this time agents ask for a certificate of whoever signs, milliseconds; `None` leaves it.
    pub renew_within_ms: Option<u64>,
    /// Another server's directory, whose new authority is taken.
    pub from: Option<PathBuf>,
}

/// How long a starting server waits for a `ca` command: looks, and the pause between two.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(100);
/// Spread of renewals where nothing else is said, milliseconds.
const RENEW_WITHIN_MS: u64 = 10 * 60 * 1000;

/// Takes a step. `nodes` are those that the ledger knows and that were ever heard.
///
/// # Errors
/// When the step does not follow, or nodes would be left behind; then nothing was changed. When a file cannot be written; then the
/// next command, or the server's next start, completes it.
pub fn take(
    dir: &Path,
    config: &Config,
    asked: &Asked,
    nodes: &[Known],
    now: Timestamp,
) -> anyhow::Result<Kept> {
    let places = Places::of(dir, config);
    let lock = places.enter()?;
    let before = places.read()?;
    if let Some(kept) = &before {
        complete(&places, kept)?;
    }
    let phase = before.as_ref().map_or(Phase::Standby, |kept| kept.phase);
    let next = phase.after(asked.step)?;
    let over = matches!(phase, Phase::Standby | Phase::Finished);
    let mut kept = match before {
        Some(kept) if !(over && asked.step == Step::Prepare) => kept,
        before => {
            let mut begun = prepare(&places, asked.from.as_deref(), now)?;
            begun.steps = before.map(|kept| kept.steps).unwrap_or_default();
            begun
        }
    };
    let pins = kept.pins().context("the state names no keys")?;
    let lacking = phase.need(next).lacking(nodes, pins);
    if !lacking.is_empty() && !asked.force {
        bail!(report::left_behind(&lacking));
    }
    if let Some(within) = asked.renew_within_ms {
        kept.renew_within_ms = within;
    }
    if next != phase || over {
        kept.told(now, next, !lacking.is_empty(), asked.reason.clone());
    }
    // From here on the step is taken, and whoever comes next completes it.
    places.keep(&kept)?;
    complete(&places, &kept)?;
    drop(lock);
    Ok(kept)
}

/// Completes a step that was interrupted, before a server reads the files. While a `ca` command is at work it waits for its end, a few seconds
/// at most.
///
/// # Errors
/// When a file cannot be read or written, or the command does not end.
pub fn mend(dir: &Path, config: &Config) -> Result<(), FilesError> {
    let places = Places::of(dir, config);
    if places.read()?.is_none() {
        return Ok(());
    }
    let mut looks = LOOKS;
    let _lock = loop {
        match places.enter() {
            Err(FilesError::InUse(_)) if looks > 0 => looks -= 1,
            entered => break entered?,
        }
        std::thread::sleep(LOOK);
    };
    match places.read()? {
        Some(kept) => complete(&places, &kept),
        None => Ok(()),
    }
}

fn complete(places: &Places, kept: &Kept) -> Result<(), FilesError> {
    places.apply(kept)?;
    match kept.phase {
        Phase::Standby | Phase::Finished => places.forget(),
        Phase::Prepared | Phase::Trusted | Phase::Issuing => Ok(()),
    }
}

fn prepare(places: &Places, from: Option<&Path>, now: Timestamp) -> anyhow::Result<Kept> {
    if !places.ca_key.exists() {
        bail!(
            "{} is not there, so another authority makes the certificates: rotate it with its own tools, and put both of its \
             certificates into {} and into `ca` of every agent meanwhile",
            places.ca_key.display(),
            places.ca.display()
        );
    }
    let trusted = chain(&places.ca)?;
    let [old] = trusted.as_slice() else {
        bail!(
            "{} holds {} certificates; leave the one of {} there first",
            places.ca.display(),
            trusted.len(),
            places.ca_key.display()
        );
    };
    // That the key fits.
    let _ = Authority::of_files(&places.ca, &places.ca_key)?;
    let old_pin = Pin::of(old)?;
    let shown = chain(&places.certificate)?;
    if behind_server(&shown, &trusted) != Some(old_pin) {
        bail!(
            "{} is not of the authority in {}; make one of it first",
            places.certificate.display(),
            places.ca.display()
        );
    }
    let new = match from {
        None => authority(now)?,
        Some(other) => {
            let folder = other.join(FOLDER);
            let read = |name: &str| files::text(&folder.join(name));
            crate::pki::Pair {
                certificate: read("new-ca.crt")?,
                key: read("new-ca.key")?,
            }
        }
    };
    let names = shown.first().map(|leaf| hosts(leaf)).unwrap_or_default();
    let server = Authority::new(&new)?.server(&names, now)?;
    let copy = |from: (&Path, &Path), to: &HttpsFiles| -> anyhow::Result<()> {
        Ok(Places::put_pair(
            to,
            &files::text(from.0)?,
            &files::text(from.1)?,
        )?)
    };
    copy((&places.ca, &places.ca_key), &places.authority(Which::Old))?;
    copy(
        (&places.certificate, &places.key),
        &places.server(Which::Old),
    )?;
    let made = places.authority(Which::New);
    Places::put_pair(&made, &new.certificate, &new.key)?;
    Places::put_pair(&places.server(Which::New), &server.certificate, &server.key)?;
    let new_pin = chain(&made.certificate)?;
    let new_pin = new_pin.first().context("the new authority is empty")?;
    let new_pin = Pin::of(new_pin)?;
    if new_pin == old_pin {
        bail!("the new authority has the key of the old one");
    }
    Ok(Kept::new(old_pin, new_pin, RENEW_WITHIN_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn case_12_each_step_makes_files_that_fit_and_the_way_back_makes_the_old_ones() {
        let home = tempfile::tempdir().unwrap();
        let (dir, now) = (home.path().join("s"), Timestamp(1_800_000_000_000));
        let hosts = ["localhost".to_owned(), "192.0.2.1".to_owned()];
        crate::init::init(&dir, &hosts, now).await.unwrap();
        let config = Config::read(&dir).unwrap();
        let places = Places::of(&dir, &config);
        let asked = |step, force| Asked {
            step,
            force,
            reason: None,
            renew_within_ms: None,
            from: None,
        };
        let step = |step| take(&dir, &config, &asked(step, false), &[], now);
        let active = || {
            let all = [&places.ca, &places.ca_key, &places.certificate, &places.key];
            all.map(|path| std::fs::read_to_string(path).unwrap())
        };
        let first = active();
        assert!(step(Step::Trust).is_err() && step(Step::Rollback).is_err());
        for forward in [
            &[Step::Prepare][..],
            &[Step::Prepare, Step::Trust],
            &[Step::Prepare, Step::Trust, Step::Issue],
        ] {
            for one in forward {
                let kept = step(*one).unwrap();
                let (old, new) = kept.pins().unwrap();
                let signer = match kept.phase.signing() {
                    Which::Old => old,
                    Which::New => new,
                };
                // What is signed and what is shown ends in the authority that the phase says, and the names stay.
                let signing = Authority::of_files(&places.ca, &places.ca_key).unwrap();
                let trusted = chain(&places.ca).unwrap();
                let shown = chain(&places.certificate).unwrap();
                assert_eq!(behind_server(&shown, &trusted), Some(signer));
                assert_eq!(gpuquota_proto::authorities::hosts(&shown[0]), hosts);
                let node = gpuquota_core::id::NodeName::new("n1").unwrap();
                let agent = signing.agent(&node, now, 1).unwrap();
                let path = dir.join("a.crt");
                std::fs::write(&path, agent.certificate).unwrap();
                let agent = chain(&path).unwrap();
                let behind = gpuquota_proto::authorities::behind_client(&agent, &trusted);
                assert_eq!(behind, Some(signer));
            }
            for _ in forward {
                step(Step::Rollback).unwrap();
            }
            assert_eq!(active(), first);
            assert!(!places.authority(Which::New).key.exists());
        }
        for one in [Step::Prepare, Step::Trust, Step::Issue] {
            step(one).unwrap();
        }
        let late = Known {
            node: "gpu07".to_owned(),
            certificate_by: Some(
                Pin::of(&chain(&places.authority(Which::Old).certificate).unwrap()[0]).unwrap(),
            ),
            given_by: None,
            trusts: None,
        };
        let refused = take(
            &dir,
            &config,
            &asked(Step::Finish, false),
            std::slice::from_ref(&late),
            now,
        );
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("gpu07") && refused.contains("--force"),
            "{refused}"
        );
        let kept = take(&dir, &config, &asked(Step::Finish, true), &[late], now).unwrap();
        assert!(kept.steps.last().is_some_and(|step| step.forced));
        assert_eq!(chain(&places.ca).unwrap().len(), 1);
        assert!(!places.authority(Which::Old).key.exists());
        assert!(
            step(Step::Rollback)
                .unwrap_err()
                .to_string()
                .contains("no way back")
        );
        // And once more; whatever an interrupted beginning leaves behind is used for nothing, also by a server that starts.
        let before = active();
        let next = prepare(&places, None, now).unwrap();
        assert_eq!(next.old, kept.new);
        let mut left: Vec<_> = [Which::Old, Which::New]
            .map(|which| [places.authority(which), places.server(which)])
            .as_flattened()
            .iter()
            .flat_map(|files| [files.key.clone(), files.certificate.clone()])
            .map(|path| (std::fs::read_to_string(&path).unwrap(), path))
            .collect();
        while !left.is_empty() {
            for (text, path) in &left {
                std::fs::write(path, text).unwrap();
            }
            mend(&dir, &config).unwrap();
            assert_eq!(active(), before, "after {} files", left.len());
            assert!(left.iter().all(|(_, path)| !path.exists()));
            let _ = left.pop();
        }
        assert_eq!(step(Step::Prepare).unwrap().old, kept.new);
        mend(&dir, &config).unwrap();
        assert_eq!(active(), before);
        assert!(places.authority(Which::New).key.exists());
        // While a command is at work a starting server waits.
        let lock = places.enter().unwrap();
        let (waits, config) = (dir.clone(), config.clone());
        let mending = std::thread::spawn(move || mend(&waits, &config).is_ok());
        assert!(!mending.is_finished());
        drop(lock);
        assert!(mending.join().unwrap());
    }
}
