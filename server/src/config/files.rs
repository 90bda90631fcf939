//! The files that a configuration names, beside the journal.

use std::path::PathBuf;

use super::Config;

impl Config {
    /// Each file with whether whoever has it can do harm. A key set may hold shared secrets, so it counts as one.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, bool)> {
        let public = [
            Some(&self.agents.ca),
            Some(&self.agents.certificate),
            self.rest.certificate.as_ref(),
            self.metrics.certificate.as_ref(),
        ];
        let secret = [
            Some(&self.agents.key),
            Some(&self.agents.ca_key),
            self.rest.key.as_ref(),
            self.metrics.key.as_ref(),
            self.metrics.token_file.as_ref(),
            self.ledger.url_file.as_ref(),
            Some(&self.tokens.key),
        ];
        let webhook = self.webhook.as_ref();
        let issuers = &self.tokens.issuer;
        let public = public.into_iter().flatten().chain(
            issuers
                .iter()
                .flat_map(|it| [&it.public_key_file, &it.jwks_ca_file])
                .flatten(),
        );
        let public = public.chain(webhook.and_then(|it| it.ca_file.as_ref()));
        let secret = secret
            .into_iter()
            .chain([webhook.and_then(|it| it.token_file.as_ref())]);
        let secret = secret
            .into_iter()
            .flatten()
            .chain(
                issuers
                    .iter()
                    .flat_map(|it| [&it.secret_file, &it.jwks_file])
                    .flatten(),
            )
            .chain(self.tokens.access_key.iter().map(|key| &key.secret_file));
        public
            .map(|path| (path.clone(), false))
            .chain(secret.map(|path| (path.clone(), true)))
            .collect()
    }
}
