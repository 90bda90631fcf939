//! How a tenant or a region says whether it needs leases: for itself, or not at all.

use std::str::FromStr;

use gpuquota_core::settings::LeaseMode;
use serde::{Deserialize, Serialize, Serializer};

/// `optional`, `required`, or `default`: what stands above it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ChosenMode(pub(crate) Option<LeaseMode>);

impl FromStr for ChosenMode {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" => Ok(Self(None)),
            mode => mode
                .parse()
                .map(|mode| Self(Some(mode)))
                .map_err(|()| "optional, required or default"),
        }
    }
}

impl TryFrom<String> for ChosenMode {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for ChosenMode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.map_or("default", LeaseMode::as_str))
    }
}
