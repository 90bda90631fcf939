//! `init`: a directory with everything that a server needs. Nothing that is there is overwritten.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use gpuquota_core::id::{NodeName, Timestamp};

use crate::config::{Config, DEFAULT, FILE};
use crate::pki::{Authority, authority};
use crate::store::Store as _;
use crate::store::sqlite::SqliteStore;

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Fills `dir`. `hosts` are the names and addresses under which agents reach the server.
///
/// # Errors
/// When something is there already or cannot be written.
pub async fn init(dir: &Path, hosts: &[String], now: Timestamp) -> anyhow::Result<()> {
    make_dir(dir)?;
    // A package links its own configuration here beforehand; that one stays as it is.
    let linked = dir.join(FILE).is_symlink();
    if dir.join("ca.crt").exists() || (!linked && dir.join(FILE).exists()) {
        bail!(
            "{} holds a server already; nothing was changed",
            dir.display()
        );
    }
    let ca = authority(now)?;
    let server = Authority::new(&ca)?.server(hosts, now)?;
    write(&dir.join("ca.crt"), &ca.certificate, PUBLIC)?;
    write(&dir.join("ca.key"), &ca.key, SECRET)?;
    write(&dir.join("server.crt"), &server.certificate, PUBLIC)?;
    write(&dir.join("server.key"), &server.key, SECRET)?;
    write(
        &dir.join("token.key"),
        &format!("{}\n", random_hex()),
        SECRET,
    )?;
    let host = hosts.first().map_or("localhost", String::as_str);
    let url = agents_url(host);
    if !linked {
        let config = DEFAULT.replace("https://localhost:8443", &url);
        write(&dir.join(FILE), &config, PUBLIC)?;
    }
    let config = Config::read(dir)?;
    if config.agents.url != url {
        let file = dir.join(FILE);
        eprintln!(
            "agents will be told {}; for {url} change [agents] url in {}",
            config.agents.url,
            file.display()
        );
    }
    let store = SqliteStore::open(&config.ledger.path).await?;
    store.close().await;
    Ok(())
}

/// `issue-agent`: what an agent needs to connect, in `out`.
///
/// # Errors
/// When the authority is not in `dir`, or `out` holds an agent already.
pub fn issue_agent(
    dir: &Path,
    node: &NodeName,
    out: &Path,
    days: u32,
    now: Timestamp,
) -> anyhow::Result<()> {
    let config = Config::read(dir)?;
    let pair = Authority::read(dir)?.agent(node, now, days)?;
    let ca = fs::read_to_string(dir.join("ca.crt")).context("cannot read ca.crt")?;
    make_dir(out)?;
    if out.join("agent.key").exists() {
        bail!(
            "{} holds an agent already; nothing was changed",
            out.display()
        );
    }
    write(&out.join("ca.crt"), &ca, PUBLIC)?;
    write(&out.join("agent.crt"), &pair.certificate, PUBLIC)?;
    write(&out.join("agent.key"), &pair.key, SECRET)?;
    if !out.join("agent.toml").exists() {
        let text = format!(
            "# All other settings: gpuquota-agent config --print-default\nserver = \"{}\"\nnode = \"{node}\"\n",
            config.agents.url
        );
        write(&out.join("agent.toml"), &text, PUBLIC)?;
    }
    Ok(())
}

// An IPv6 address stands in brackets in a URL.
fn agents_url(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("https://[{address}]:8443"),
        Err(_) => format!("https://{host}:8443"),
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    file.sync_all().with_context(cannot)
}

// 256 bits of the system's randomness.
fn random_hex() -> String {
    HEXLOWER.encode(&rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_configuration_that_a_package_linked_is_kept_and_nothing_is_made_twice() {
        let home = tempfile::tempdir().unwrap();
        let (packaged, dir) = (home.path().join("packaged.toml"), home.path().join("dir"));
        let text = DEFAULT.replace("heartbeat_seconds = 1", "heartbeat_seconds = 3");
        fs::write(&packaged, &text).unwrap();
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(&packaged, dir.join(FILE)).unwrap();
        let now = Timestamp(1_800_000_000_000);
        let hosts = ["localhost".to_owned()];
        init(&dir, &hosts, now).await.unwrap();
        assert_eq!(fs::read_to_string(&packaged).unwrap(), text);
        let key = fs::read(dir.join("ca.key")).unwrap();
        assert!(init(&dir, &hosts, now).await.is_err());
        assert_eq!(fs::read(dir.join("ca.key")).unwrap(), key);
    }

    #[tokio::test]
    async fn agents_are_told_a_url_that_can_be_dialled() {
        for (host, url) in [
            ("gpuquota.example", "https://gpuquota.example:8443"),
            ("192.0.2.1", "https://192.0.2.1:8443"),
            ("2001:db8::1", "https://[2001:db8::1]:8443"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let now = Timestamp(1_800_000_000_000);
            init(dir.path(), &[host.to_owned()], now).await.unwrap();
            let told = Config::read(dir.path()).unwrap().agents.url;
            assert_eq!(told, url);
            assert!(url.parse::<http::Uri>().is_ok());
        }
    }
}
