//! What the agent needs of its server: a certificate that is valid, and somebody at the address. Nothing is sent.

use std::time::Duration;

use gpuquota_proto::authorities;
use gpuquota_proto::tls::{chain, not_after_unix_s};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{About, Finding, Grade};
use crate::clock::unix_s;
use crate::config::Config;

const DIAL: Duration = Duration::from_secs(5);
const DAY_S: i64 = 86_400;
/// Days before its end at which a certificate is worth a warning.
const SOON_DAYS: i64 = 14;

pub(super) async fn examine(config: Option<&Config>) -> Vec<Finding> {
    let Some(target) = config.and_then(|config| config.uplink.as_ref()) else {
        let text = "no server is configured here";
        return vec![found("server", Grade::Unknown, text).advise(
            "name it by `server` in agent.toml and give --dir, unless it runs --standalone",
        )];
    };
    let files = &target.credentials.files;
    let certificate = match not_after_unix_s(&files.certificate) {
        Ok(end) => match chain(&files.ca) {
            Ok(trusted) => {
                let ends = trusted
                    .iter()
                    .filter_map(|der| authorities::not_after_unix_s(der));
                validity(end, &ends.collect::<Vec<_>>(), unix_s())
            }
            Err(error) => found("certificate", Grade::Fail, error.to_string())
                .advise("put the certificates of the server's authorities there"),
        },
        Err(error) => found("certificate", Grade::Fail, error.to_string())
            .advise("gpuquota-server issue-agent makes a new one"),
    };
    let address = (target.server.host.as_str(), target.server.port);
    let server = match timeout(DIAL, TcpStream::connect(address)).await {
        Ok(Ok(_)) => found(
            "server",
            Grade::Ok,
            format!("{}:{} takes connections", address.0, address.1),
        ),
        Ok(Err(error)) => unreachable(address, &error.to_string()),
        Err(_) => unreachable(address, "no answer within 5 seconds"),
    };
    vec![certificate, server]
}

fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Precondition, grade, text)
}

fn unreachable((host, port): (&str, u16), why: &str) -> Finding {
    found("server", Grade::Fail, format!("{host}:{port}: {why}"))
        .advise("check name, route and firewall, and that the server listens there (--agents)")
}

// Of the node's certificate, and of each authority by which it knows the server.
fn validity(end_unix_s: i64, authorities_end: &[i64], now_unix_s: i64) -> Finding {
    let left = |end: i64| (end - now_unix_s).div_euclid(DAY_S);
    let days = left(end_unix_s);
    let advice =
        "gpuquota-server issue-agent makes a new one; the agent takes it without a restart";
    let id = "certificate";
    if end_unix_s <= now_unix_s {
        return found(id, Grade::Fail, "it has ended").advise(advice);
    }
    // One that goes out while another follows may end; without any the server is nobody.
    let last = authorities_end.iter().copied().max().map(left);
    let text = format!(
        "valid for {days} days; servers are known by {} authorities, the last of which ends in {} days",
        authorities_end.len(),
        last.map_or_else(|| "?".to_owned(), |days| days.to_string()),
    );
    let advice_ca = "gpuquota-server ca makes a new authority";
    match last {
        Some(..=0) => return found(id, Grade::Fail, text).advise(advice_ca),
        Some(..SOON_DAYS) => return found(id, Grade::Warn, text).advise(advice_ca),
        Some(SOON_DAYS..) | None => {}
    }
    if days < SOON_DAYS {
        return found(id, Grade::Warn, text).advise(advice);
    }
    found(id, Grade::Ok, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_before_it_ends() {
        let now = 1_000_000_000;
        let end = |days: i64| now + days * DAY_S;
        let grade = |days: i64| validity(end(days), &[end(1000)], now).grade;
        assert_eq!(
            [grade(30), grade(13), grade(0), grade(-1)],
            [Grade::Ok, Grade::Warn, Grade::Fail, Grade::Fail]
        );
        // While two authorities are trusted the older one may end.
        let of = |ends: &[i64]| {
            let ends: Vec<i64> = ends.iter().map(|days| end(*days)).collect();
            validity(end(30), &ends, now)
        };
        assert_eq!(of(&[-1, 3000]).grade, Grade::Ok);
        assert!(of(&[-1, 3000]).found.contains("2 authorities"));
        assert_eq!(
            [of(&[3]).grade, of(&[-1]).grade],
            [Grade::Warn, Grade::Fail]
        );
    }
}
