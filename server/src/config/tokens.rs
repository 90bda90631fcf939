//! The table `[tokens]`.

use std::path::PathBuf;

use serde::Deserialize;

/// Tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The signing key.
    pub key: PathBuf,
}
