//! The private half of our own issuer.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::algorithm::{Algorithm, rsa_size};

/// A key that signs with one algorithm. Never shown.
pub(super) enum SigningKey {
    /// A secret.
    Hmac(hmac::Key),
    /// RSA.
    Rsa(RsaKeyPair),
    /// P-256.
    Ec(EcdsaKeyPair),
    /// Ed25519.
    Ed(Ed25519KeyPair),
}

/// The library could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token cannot be signed with this key")]
pub struct SigningError;

impl SigningKey {
    /// Both halves of the key in a file: a bare secret for HS256, else PKCS#8 in PEM. `None` when it does not fit.
    pub(super) fn read(algorithm: Algorithm, file: &[u8]) -> Option<(Self, DecodingKey)> {
        if algorithm == Algorithm::Hs256 {
            let key = hmac::Key::new(hmac::HMAC_SHA256, file);
            return Some((Self::Hmac(key), algorithm.secret(file)?));
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(file).ok()?;
        let der = der.secret_pkcs8_der();
        match algorithm {
            Algorithm::Hs256 => None,
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(der).ok()?;
                let fits = rsa_size(pair.public_modulus_len() * 8);
                let public = algorithm.raw(pair.public_key().as_ref()).filter(|_| fits)?;
                Some((Self::Rsa(pair), public))
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
                let public = algorithm.raw(pair.public_key().as_ref())?;
                Some((Self::Ec(pair), public))
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
                let public = algorithm.raw(pair.public_key().as_ref())?;
                Some((Self::Ed(pair), public))
            }
        }
    }

    /// A JWT of these claims.
    pub(super) fn token(&self, claims: &Value) -> Result<String, SigningError> {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "typ": "JWT", "alg": self.algorithm().as_str() });
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.sign(message.as_bytes())?;
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        Ok(format!("{message}.{signature}"))
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hmac(_) => Algorithm::Hs256,
            Self::Rsa(_) => Algorithm::Rs256,
            Self::Ec(_) => Algorithm::Es256,
            Self::Ed(_) => Algorithm::EdDsa,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        match self {
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SigningError)?;
                Ok(signature)
            }
            Self::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| SigningError)?.as_ref().to_vec())
            }
            Self::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}
