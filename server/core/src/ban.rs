//! Who may not be a node any more: by name, by one certificate's serial number, or because it was retired.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{NodeName, Timestamp};
use crate::state::State;

/// Bans that may stand at once.
pub const MOST_BANS: usize = 100_000;
/// Bytes of a serial number, at most (RFC 5280, 4.1.2.2).
const LONGEST_SERIAL: usize = 20;

/// Serial number of a certificate: 1 to 20 bytes, lower-case hexadecimal, without zero bytes before it: DER has one where the first
/// bit is set, and tools that print the number leave it out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

/// A text is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is 1 to 20 bytes in hexadecimal, as the log and the audit show it")]
pub struct NoSerial;

impl Serial {
    /// Takes hexadecimal digits, also upper-case and with colons between the bytes.
    ///
    /// # Errors
    /// When it is something else.
    pub fn new(text: &str) -> Result<Self, NoSerial> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let mut digits = digits.as_str();
        while let Some(rest) = digits.strip_prefix("00").filter(|rest| !rest.is_empty()) {
            digits = rest;
        }
        let fits = !digits.is_empty()
            && digits.len() <= 2 * LONGEST_SERIAL
            && digits.len().is_multiple_of(2);
        match fits && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(Self(digits.to_owned())),
            false => Err(NoSerial),
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Serial {
    type Error = NoSerial;
    fn try_from(text: String) -> Result<Self, NoSerial> {
        Self::new(&text)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

/// Whom a ban is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Banned {
    /// A node, whatever its certificate.
    Node(NodeName),
    /// One certificate.
    Serial(Serial),
}

/// What became of a ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// Whose.
    pub who: Banned,
}

/// Why a certificate makes nobody a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Barred {
    /// Its node is banned.
    #[error(
        "node {0} is banned; an operator lifts that with `gpuquota-server ban --lift --node {0}`"
    )]
    Node(NodeName),
    /// It is banned itself.
    #[error("certificate {0} is banned; the node needs another one, by a new join token")]
    Serial(String),
    /// Its node was retired after it was made.
    #[error(
        "node {0} was retired; it comes back with a new join token, or when an operator declares it (PUT /api/v1/nodes/{0})"
    )]
    Retired(NodeName),
}

/// Certificates that a retired node was given afterwards, with their ends.
pub(crate) type Readmitted = OrdMap<String, Timestamp>;

impl State {
    /// Why this certificate makes nobody this node, if so.
    #[must_use]
    pub fn barred(&self, node: &NodeName, serial: &str) -> Option<Barred> {
        let of_node = Banned::Node(node.clone());
        if self.rows.bans.contains_key(&of_node) {
            return Some(Barred::Node(node.clone()));
        }
        let known = Serial::new(serial).ok().map(Banned::Serial);
        if known.is_some_and(|serial| self.rows.bans.contains_key(&serial)) {
            return Some(Barred::Serial(serial.to_owned()));
        }
        let gone = self.rows.gone.get(node);
        gone.filter(|given| !given.contains_key(serial))
            .map(|_| Barred::Retired(node.clone()))
    }

    /// All bans, with the time since when they stand.
    pub fn bans(&self) -> impl Iterator<Item = (&Banned, Timestamp)> {
        self.rows.bans.iter().map(|(who, since)| (who, *since))
    }
}
