//! The table `[webhook]`.

use std::path::PathBuf;

use serde::Deserialize;

use super::address;

/// Who is told of steps.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where events are posted to.
    pub url: String,
    /// File with the bearer token that each request carries.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Authorities instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl Webhook {
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [self.token_file.as_mut(), self.ca_file.as_mut()]
            .into_iter()
            .flatten()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        address::check("webhook.url", &self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_over_tls_or_stay_on_this_host() {
        let check = |url: &str| {
            let webhook = Webhook {
                url: url.into(),
                token_file: None,
                ca_file: None,
            };
            webhook.check()
        };
        assert!(check("https://hooks.example/gpu?x=1").is_ok());
        assert!(check("http://127.0.0.1:9000/").is_ok());
        for bad in [
            "http://hooks.example/",
            "ftp://localhost/",
            "/path",
            "",
            "http://localhost.evil/",
            "https://me:secret@hooks.example/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
