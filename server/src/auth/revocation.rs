//! The ids by which a token can be taken back.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// What the token calls itself, and the digest of what was signed; the strongest first.
///
/// The digest leaves out the signature: of one token there can be several with other bytes in it that are all valid.
pub(super) fn ids(own: Option<String>, token: &str) -> Vec<String> {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let hex = HEXLOWER.encode(&Sha256::digest(signed));
    own.into_iter()
        .chain(std::iter::once(format!("sha256:{hex}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_signature_does_not_make_it_another_token() {
        let [first, second] = ["a.b.c", "a.b.d"].map(|token| ids(None, token));
        assert_eq!(first, second);
        assert_ne!(ids(None, "a.c.c"), first);
        assert_eq!(ids(Some("j".into()), "a.b.c")[0], "j");
    }
}
