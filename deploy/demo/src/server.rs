//! The demo's server: a directory made by `init`, ports that are free, an administrator's token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

use crate::client::{Rest, http};
use crate::ports;
use crate::process::{Invocation, Launcher, Service};
use crate::programs::Programs;

/// Where a server listens by default: REST, agents, metrics.
pub(crate) const USUAL_PORTS: [u16; 3] = [8080, 8443, 9402];
/// A node that says nothing for so long is silent; short, so that the story can show it.
const SILENT_AFTER_SECONDS: u32 = 3;
const START_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
const TRIES: u32 = 3;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Its REST listener.
    pub(crate) rest: Rest,
    /// `http://…/metrics`.
    pub(crate) metrics_url: String,
    service: Service,
}

/// A node that the configuration declares.
pub(crate) struct Declared<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where it stands.
    pub(crate) region: &'a str,
}

impl Server {
    /// Makes the directory `dir` and starts a server on it, on `usual` ports where they are free.
    pub(crate) async fn start(
        launcher: &Launcher,
        programs: &Programs,
        dir: &Path,
        nodes: &[Declared<'_>],
        usual: Option<[u16; 3]>,
    ) -> Result<Self> {
        Invocation::new(&programs.server, &["init", "--host", "127.0.0.1"])
            .option("--dir", dir)
            .output()
            .await?;
        let config = dir.join("server.toml");
        let default = std::fs::read_to_string(&config)?;
        let token = Invocation::new(&programs.server, &["token", "--role", "admin"])
            .option("--subject", "demo")
            .option("--dir", dir)
            .output()
            .await?;
        let mut rest = Rest {
            http: http()?,
            url: String::new(),
            token: token.trim().to_owned(),
        };
        let mut usual = usual;
        for attempt in 1.. {
            let ports = ports::free_three(usual.take())?;
            std::fs::write(&config, configured(&default, ports, nodes)?)?;
            rest.url = format!("http://127.0.0.1:{}", ports[0]);
            let mut service = launcher.start("server", &serve(programs, dir))?;
            match answers(&rest, &mut service).await {
                Ok(()) => {
                    return Ok(Self {
                        dir: dir.to_owned(),
                        rest,
                        metrics_url: format!("http://127.0.0.1:{}/metrics", ports[2]),
                        service,
                    });
                }
                // Somebody may have taken a port in between.
                Err(error) if attempt < TRIES => drop(error),
                Err(error) => return Err(error.context("the server does not start")),
            }
        }
        bail!("the server does not start")
    }

    /// An error when it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.service.check_alive()
    }

    /// SIGKILL, and a new start on the same directory.
    pub(crate) async fn crash_and_restart(
        self,
        launcher: &Launcher,
        programs: &Programs,
    ) -> Result<Self> {
        self.service.kill().await?;
        let mut service = launcher.start("server", &serve(programs, &self.dir))?;
        answers(&self.rest, &mut service)
            .await
            .context("the server does not start again")?;
        Ok(Self { service, ..self })
    }

    /// SIGTERM. Whether it ended by itself.
    pub(crate) async fn stop(self, patience: Duration) -> Result<bool> {
        self.service.stop(patience).await
    }
}

fn serve(programs: &Programs, dir: &Path) -> Invocation {
    Invocation::new(&programs.server, &["serve"]).option("--dir", dir)
}

// Only the server with our key takes our token: nobody else on that port is mistaken for it.
async fn answers(rest: &Rest, service: &mut Service) -> Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        service.check_alive()?;
        match rest.quotas().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(POLL).await,
        }
    }
}

fn configured(default: &str, ports: [u16; 3], nodes: &[Declared<'_>]) -> Result<String> {
    let [rest, agents, metrics] = ports;
    let silent_after = format!("silent_after_seconds = {SILENT_AFTER_SECONDS}");
    let changes = [
        ("\"127.0.0.1:8080\"", format!("\"127.0.0.1:{rest}\"")),
        ("\"0.0.0.0:8443\"", format!("\"127.0.0.1:{agents}\"")),
        ("127.0.0.1:8443\"", format!("127.0.0.1:{agents}\"")),
        ("\"127.0.0.1:9402\"", format!("\"127.0.0.1:{metrics}\"")),
        ("silent_after_seconds = 10", silent_after),
    ];
    let mut text = default.to_owned();
    for (from, to) in &changes {
        if !text.contains(from) {
            bail!("server.toml has no {from} as the demo expects");
        }
        text = text.replace(from, to);
    }
    for Declared { name, region } in nodes {
        text.push_str(&format!(
            "\n[[node]]\nname = \"{name}\"\nregion = \"{region}\"\n"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_configuration_is_changed_where_it_must_be() {
        let default = include_str!("../../../server/server.default.toml")
            .replace("https://localhost:8443", "https://127.0.0.1:8443");
        let nodes = [Declared {
            name: "gpu01",
            region: "US",
        }];
        let text = configured(&default, [18080, 18443, 19402], &nodes).unwrap();
        for wanted in [
            "listen = \"127.0.0.1:18080\"",
            "listen = \"127.0.0.1:18443\"",
            "url = \"https://127.0.0.1:18443\"",
            "listen = \"127.0.0.1:19402\"",
            "silent_after_seconds = 3",
            "\n[[node]]\nname = \"gpu01\"\nregion = \"US\"\n",
        ] {
            assert!(text.contains(wanted), "{wanted}");
        }
        assert!(configured("", [1, 2, 3], &[]).is_err());
    }
}
