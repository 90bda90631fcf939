//! The signature algorithms of tokens, and which keys fit them.

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

/// Shortest secret of HS256 in bytes (RFC 7518, 3.2).
pub(super) const SHORTEST_SECRET: usize = 32;

/// How a token is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: whoever verifies could sign.
    #[default]
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 to 8192 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// The word of a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }

    /// A public key as SubjectPublicKeyInfo (DER); `None` when it is none of this algorithm, or a weak one.
    pub(super) fn spki(self, der: &[u8]) -> Option<DecodingKey> {
        match self {
            Self::Hs256 => None,
            Self::Rs256 => {
                let key = PublicEncryptingKey::from_der(der).ok()?;
                rsa_size(key.key_size_bits()).then(|| DecodingKey::from_rsa_der(der))
            }
            Self::Es256 => parsed(&ECDSA_P256_SHA256_FIXED, der, DecodingKey::from_ec_der),
            Self::EdDsa => parsed(&ED25519, der, DecodingKey::from_ed_der),
        }
    }

    /// A public key as key pairs and key sets give it: PKCS#1, an uncompressed point, 32 bytes.
    pub(super) fn raw(self, bytes: &[u8]) -> Option<DecodingKey> {
        match self {
            Self::Hs256 => None,
            Self::Rs256 => parsed(
                &RSA_PKCS1_2048_8192_SHA256,
                bytes,
                DecodingKey::from_rsa_der,
            ),
            Self::Es256 => parsed(&ECDSA_P256_SHA256_FIXED, bytes, DecodingKey::from_ec_der),
            Self::EdDsa => parsed(&ED25519, bytes, DecodingKey::from_ed_der),
        }
    }

    /// A shared secret; `None` when it is too short or the algorithm has none.
    pub(super) fn secret(self, bytes: &[u8]) -> Option<DecodingKey> {
        (self == Self::Hs256 && bytes.len() >= SHORTEST_SECRET)
            .then(|| DecodingKey::from_secret(bytes))
    }
}

/// Whether an RSA key of so many bits is verified with.
pub(super) fn rsa_size(bits: usize) -> bool {
    (2048..=8192).contains(&bits)
}

fn parsed(
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
    key: fn(&[u8]) -> DecodingKey,
) -> Option<DecodingKey> {
    ParsedPublicKey::new(algorithm, bytes).ok()?;
    Some(key(bytes))
}
