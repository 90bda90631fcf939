//! Joining: one-use tokens bound to a node, and the certificates that nodes were given. The ledger keeps digests only.

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, Timestamp};

/// How long a join token may count, milliseconds.
pub const LONGEST_TOKEN_MS: u32 = 60 * 60 * 1000;
/// Join tokens that may count at once.
pub const MOST_TOKENS: usize = 10_000;
/// Certificates that one token gives to its key, for answers are lost.
pub const MOST_ANSWERS: usize = 16;

/// A SHA-256, 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 digits of 0-9 and a-f")]
pub struct NoDigest;

impl Digest {
    /// Takes the digits.
    ///
    /// # Errors
    /// When they are not 64 lower-case hexadecimal ones.
    pub fn new(text: &str) -> Result<Self, NoDigest> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.len() == 64 && text.bytes().all(digit) {
            true => Ok(Self(text.to_owned())),
            false => Err(NoDigest),
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;
    fn try_from(text: String) -> Result<Self, NoDigest> {
        Self::new(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A token by which one node may join once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// Of the token, which nobody but its bearer has.
    pub hash: Digest,
    /// The node that it makes its bearer.
    pub node: NodeName,
    /// From then on it counts for nothing.
    pub until: Timestamp,
}

/// A certificate that was signed for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// Which node.
    pub node: NodeName,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// Of the node's public key.
    pub key: Digest,
    /// End of the certificate.
    pub not_after: Timestamp,
    /// What it was asked for with.
    pub by: Proof,
}

/// What a node asks for a certificate with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A join token, by its digest.
    Token(Digest),
    /// The certificate that it has, by its serial number.
    Serial(String),
}

/// A join token that counts, or whose answer may have been lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joining {
    pub(crate) node: NodeName,
    pub(crate) until: Timestamp,
    /// The key that used it; only that one may ask again.
    pub(crate) key: Option<Digest>,
    /// Serial numbers of what it gave, [`MOST_ANSWERS`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) given: Vec<String>,
}
