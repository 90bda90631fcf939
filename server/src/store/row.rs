//! A journal row and the chain of hashes that ties it to the row before.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use gpuquota_core::id::{OpId, Seq, Timestamp};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a row; all zero before the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The head of an empty journal.
    pub const EMPTY: Self = Self([0; 32]);

    /// SHA-256 of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// SHA-256 of everything that there is to read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn of_all(mut from: impl Read) -> io::Result<Self> {
        let mut digest = Sha256::new();
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match from.read(&mut bytes)? {
                0 => return Ok(Self::from_digest(digest)),
                read => digest.update(bytes.get(..read).unwrap_or_default()),
            }
        }
    }

    /// What was fed to a digest.
    #[must_use]
    pub(crate) fn from_digest(digest: Sha256) -> Self {
        Self(digest.finalize().into())
    }

    /// The first 6 bytes as a number, which a metric can carry exactly.
    #[must_use]
    pub fn prefix(self) -> u64 {
        self.0
            .iter()
            .take(6)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEXLOWER.encode_mut_str(&self.0, &mut [0; 64]))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 of 0-9 a-f")]
pub struct InvalidHash;

impl FromStr for Hash {
    type Err = InvalidHash;
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        // One spelling only, so that a text that changed is another hash.
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidHash)?;
        bytes.try_into().map(Self).map_err(|_| InvalidHash)
    }
}

/// One row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub seq: Seq,
    /// When it was decided.
    pub at: Timestamp,
    /// Which server decided it.
    pub writer: String,
    /// The caller's operation id.
    pub op: Option<OpId>,
    /// The record as JSON, byte for byte what is hashed.
    pub body: String,
    /// Over the hash before and all of the above.
    pub hash: Hash,
}

/// A row does not follow from the one before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A row is missing or stands twice.
    #[error("journal row {found} follows row {last}: a row is missing")]
    Gap {
        /// Last good row.
        last: Seq,
        /// The row after it.
        found: Seq,
    },
    /// The row or one before it was changed.
    #[error("journal row {seq} does not match its hash: it or a row before it was changed")]
    Changed {
        /// Which row.
        seq: Seq,
    },
}

impl Row {
    /// The row that follows `previous`, hashed.
    #[must_use]
    pub fn new(
        previous: Hash,
        seq: Seq,
        at: Timestamp,
        writer: &str,
        op: Option<OpId>,
        body: String,
    ) -> Self {
        let mut row = Self {
            seq,
            at,
            writer: writer.to_owned(),
            op,
            body,
            hash: Hash::EMPTY,
        };
        row.hash = row.chained(previous);
        row
    }

    /// Checks that this row follows the row `last` with hash `previous`.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, last: Seq, previous: Hash) -> Result<(), ChainError> {
        if self.seq != last.next() {
            return Err(ChainError::Gap {
                last,
                found: self.seq,
            });
        }
        if self.hash != self.chained(previous) {
            return Err(ChainError::Changed { seq: self.seq });
        }
        Ok(())
    }

    fn chained(&self, previous: Hash) -> Hash {
        let mut digest = Sha256::new();
        digest.update(previous.0);
        digest.update(self.seq.0.to_le_bytes());
        digest.update(self.at.0.to_le_bytes());
        let op = self.op.as_ref().map_or("", OpId::as_str);
        for text in [&self.writer, op, &self.body] {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text.as_bytes());
        }
        Hash(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_breaks_the_chain() {
        let first = Row::new(Hash::EMPTY, Seq(1), Timestamp(5), "a", None, "{}".into());
        assert_eq!(first.check(Seq(0), Hash::EMPTY), Ok(()));
        assert_eq!(first.hash.to_string().parse(), Ok(first.hash));
        let changes: [fn(&mut Row); 4] = [
            |row| row.at = Timestamp(6),
            |row| row.writer = "b".into(),
            |row| row.op = OpId::new("x").ok(),
            |row| row.body = "[]".into(),
        ];
        for change in changes {
            let mut changed = first.clone();
            change(&mut changed);
            let verdict = changed.check(Seq(0), Hash::EMPTY);
            assert_eq!(verdict, Err(ChainError::Changed { seq: Seq(1) }));
        }
        let later = Row::new(first.hash, Seq(3), Timestamp(5), "a", None, "{}".into());
        assert!(matches!(
            later.check(Seq(1), first.hash),
            Err(ChainError::Gap { .. })
        ));
        let text = first.hash.to_string();
        let (upper, signed) = (text.to_uppercase(), format!("+{}", &text[1..]));
        for bad in ["zz", &upper, &signed, &text[1..]] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }
}
