//! Whose certificates nodes show: our own authority's, or another's, which names nodes in its own form.

use gpuquota_proto::form::NodeForm;
use serde::{Deserialize, Deserializer};

use super::Config;

pub(super) fn form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeForm, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl Config {
    /// Refuses a server that would sign certificates that it does not understand itself.
    ///
    /// # Errors
    /// With what to do.
    pub fn check_authority(&self) -> Result<(), String> {
        let agents = &self.agents;
        if agents.node_identity.is_own() || !agents.ca_key.exists() {
            return Ok(());
        }
        Err(format!(
            "agents.node_identity says that another authority makes the nodes' certificates, but {} is there, by which nodes join this \
             server's own one: move that key away and put the other authority's certificates into {}, or leave node_identity out",
            agents.ca_key.display(),
            agents.ca.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::DEFAULT;

    #[test]
    fn joining_and_another_authoritys_ids_do_not_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let parse = |form: &str| {
            let text = format!("ca_key = \"ca.key\"\nnode_identity = \"{form}\"");
            let text = DEFAULT.replace("ca_key = \"ca.key\"", &text);
            Config::parse(&text, dir.path())
        };
        let foreign = parse("spiffe://example.org/gpu/{node}").unwrap();
        assert_eq!(foreign.check_authority(), Ok(()));
        std::fs::write(dir.path().join("ca.key"), "x").unwrap();
        let refused = foreign.check_authority().unwrap_err();
        assert!(refused.contains("move that key away"), "{refused}");
        let own = parse("spiffe://gpuquota/node/{node}").unwrap();
        assert_eq!(own.check_authority(), Ok(()));
        assert!(
            Config::parse(DEFAULT, Path::new("/d"))
                .unwrap()
                .agents
                .node_identity
                .is_own()
        );
        for bad in ["", "example.org/{node}", "spiffe://example.org/gpu"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
