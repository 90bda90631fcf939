//! Whose certificates name this node and its server, and in which form.

use gpuquota_proto::form::FormError;

use super::ConfigError;
use super::file::File;
use crate::uplink::dial::Forms;

/// The forms, and whether the server is asked for the next certificate.
pub(super) fn of(file: &File) -> Result<(Forms, bool), ConfigError> {
    fn parsed<T: std::str::FromStr<Err = FormError> + Default>(
        key: &'static str,
        text: Option<&String>,
    ) -> Result<T, ConfigError> {
        let parsed = text.map(|text| text.parse()).transpose();
        let parsed = parsed.map_err(|source| ConfigError::BadIdentity { key, source })?;
        Ok(parsed.unwrap_or_default())
    }
    let forms = Forms {
        node: parsed("node_identity", file.node_identity.as_ref())?,
        server: parsed("server_identity", file.server_identity.as_ref())?,
    };
    let foreign = file.node_identity.is_some();
    if foreign && file.renew == Some(true) {
        return Err(ConfigError::Foreign("renew"));
    }
    Ok((forms, file.renew.unwrap_or(!foreign)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_authoritys_ids_and_renewing_here_do_not_go_together() {
        let of = |text: &str| of(&toml::from_str(text).unwrap());
        assert!(of("").is_ok_and(|(forms, renew)| renew && forms == Forms::default()));
        let foreign = "node_identity = \"spiffe://example.org/gpu/{node}\"";
        let (forms, renew) = of(foreign).unwrap();
        assert!(!renew && !forms.node.is_own());
        let refused = of(&format!("{foreign}\nrenew = true"))
            .map(drop)
            .unwrap_err();
        assert!(
            refused.to_string().contains("another authority"),
            "{refused}"
        );
        for bad in [
            "node_identity = \"gpu/{node}\"",
            "server_identity = \"https://x/y\"",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
