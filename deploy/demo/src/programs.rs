//! The programs of the demo: built by the cargo, in the profile and for the target that built the demo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

const SERVER: &str = "gpuquota-server";
const AGENT: &str = "gpuquota-agent";
const FAKE: &str = "gpuquota-fake-nvml";

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `gpuquota-server`.
    pub(crate) server: PathBuf,
    /// `gpuquota-agent`.
    pub(crate) agent: PathBuf,
    /// `gpuquota-fake-nvml`; the library lies beside it.
    pub(crate) fake: PathBuf,
}

/// Where the running program was built.
#[derive(Debug)]
pub(crate) struct BuildPlace {
    /// The running program.
    pub(crate) program: PathBuf,
    /// The target directory.
    pub(crate) target: PathBuf,
    triple: Option<OsString>,
    profile: OsString,
}

impl BuildPlace {
    /// Reads it off the path of the running program: `TARGET/[TRIPLE/]PROFILE/gpuquota-demo`.
    pub(crate) fn find() -> Result<Self> {
        Self::of(std::env::current_exe()?)
    }

    fn of(program: PathBuf) -> Result<Self> {
        let tagged = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
        let place = program.parent().context("the demo lies nowhere")?;
        let target = place.ancestors().skip(1).take(2).find(tagged);
        let target = target.or(place.parent()).unwrap_or(place).to_owned();
        let between = place.strip_prefix(&target)?.parent();
        let triple = between.filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            triple: triple.map(|triple| triple.as_os_str().to_owned()),
            profile: place.file_name().unwrap_or_default().to_owned(),
            program,
            target,
        })
    }

    /// Builds what the demo runs; `progress` is told what is being compiled. Cargo's own words go to `log`.
    pub(crate) async fn build(
        &self,
        log: &Path,
        mut progress: impl FnMut(&str),
    ) -> Result<Programs> {
        let folder = std::env::var_os("CARGO_MANIFEST_DIR");
        let (Some(cargo), Some(folder)) = (std::env::var_os("CARGO"), folder) else {
            return self.siblings();
        };
        let mut command = Command::new(cargo);
        command
            .args(["build", "--message-format", "json", "--manifest-path"])
            .arg(Path::new(&folder).join("Cargo.toml"))
            .args(["-p", SERVER, "-p", AGENT, "-p", FAKE, "--target-dir"])
            .arg(&self.target)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(triple) = &self.triple {
            command.arg("--target").arg(triple);
        }
        if self.profile != "debug" {
            command.arg("--profile").arg(&self.profile);
        }
        let mut cargo = command.spawn().context("cannot start cargo")?;
        let (stdout, stderr) = (cargo.stdout.take(), cargo.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            bail!("cargo says nothing");
        };
        let mut log_file = tokio::fs::File::create(log).await?;
        let mut words = BufReader::new(stderr).lines();
        let telling = async {
            let mut tail = Vec::new();
            while let Some(line) = words.next_line().await? {
                progress(line.trim());
                log_file.write_all(format!("{line}\n").as_bytes()).await?;
                tail.push(line);
            }
            log_file.flush().await?;
            anyhow::Ok(tail)
        };
        let mut artifacts = BufReader::new(stdout).lines();
        let finding = async {
            let (mut found, mut errors) = (Vec::new(), Vec::new());
            while let Some(line) = artifacts.next_line().await? {
                let message: Value = serde_json::from_str(&line).unwrap_or_default();
                found.extend(executable(&message));
                errors.extend(rendered_error(&message));
            }
            anyhow::Ok((found, errors))
        };
        let (tail, found) = tokio::join!(telling, finding);
        let (tail, (found, errors)) = (tail?, found?);
        if !cargo.wait().await?.success() {
            bail!("cargo build failed\n{}{}", errors.concat(), tail.join("\n"));
        }
        let named = |name: &str| {
            let path = found.iter().find(|(known, _)| known == name);
            path.map(|(_, path)| path.clone())
                .with_context(|| format!("cargo built no {name}"))
        };
        Ok(Programs {
            server: named(SERVER)?,
            agent: named(AGENT)?,
            fake: named(FAKE)?,
        })
    }

    // Not started by cargo: what was built before has to do.
    fn siblings(&self) -> Result<Programs> {
        let beside = |name: &str| {
            let path = self.program.with_file_name(name);
            if !path.exists() {
                bail!(
                    "{} is missing; start the demo with `cargo demo`",
                    path.display()
                );
            }
            Ok(path)
        };
        Ok(Programs {
            server: beside(SERVER)?,
            agent: beside(AGENT)?,
            fake: beside(FAKE)?,
        })
    }
}

fn executable(message: &Value) -> Option<(String, PathBuf)> {
    let path = message.get("executable")?.as_str()?;
    let name = message.pointer("/target/name")?.as_str()?;
    Some((name.to_owned(), path.into()))
}

fn rendered_error(message: &Value) -> Option<String> {
    let diagnostic = message.get("message")?;
    if diagnostic.get("level")? != "error" {
        return None;
    }
    Some(diagnostic.get("rendered")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_and_target_are_read_off_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path();
        std::fs::write(target.join("CACHEDIR.TAG"), "").unwrap();
        let plain = BuildPlace::of(target.join("debug/demo")).unwrap();
        assert_eq!((plain.target.as_path(), plain.triple), (target, None));
        assert_eq!(plain.profile, "debug");
        let cross = BuildPlace::of(target.join("x86_64-unknown-linux-gnu/release/demo")).unwrap();
        assert_eq!(cross.target, target);
        assert_eq!(
            cross.triple.as_deref(),
            Some("x86_64-unknown-linux-gnu".as_ref())
        );
        assert_eq!(cross.profile, "release");
    }
}
