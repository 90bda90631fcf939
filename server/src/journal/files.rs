//! Several files of journal rows, in order, as one chain.

use std::path::PathBuf;

use gpuquota_core::id::Seq;

use super::Damage;
use super::file::Reader;
use crate::service::{self, Committed};
use crate::store::Hash;

/// What the files hold together.
pub struct Chain {
    /// First row.
    pub first: Seq,
    /// Last row.
    pub last: Seq,
    /// Its hash.
    pub head: Hash,
    /// They begin with row 1, so that they could be folded.
    pub from_the_beginning: bool,
}

/// Reads all files and checks that each row follows from the one before. When they begin with row 1 they are folded too,
/// and `after` sees the ledger after each row; what it says is wrong is wrong at that line.
///
/// # Errors
/// [`Damage`] with file and line of the first row that is not right; others when a file cannot be read.
pub fn read(
    paths: &[PathBuf],
    mut after: impl FnMut(&Committed) -> Result<(), String>,
) -> anyhow::Result<Option<Chain>> {
    let mut chain: Option<Chain> = None;
    let mut folded = None;
    for path in paths {
        let mut reader = Reader::open(path)?;
        let (first, previous) = (reader.header.first, reader.head());
        match &chain {
            Some(chain) if (chain.last.next(), chain.head) != (first, previous) => {
                return Err(Damage(format!(
                    "{} begins with row {first} and does not follow the file before it, which ends with row {}; \
                     name all files, oldest first",
                    path.display(),
                    chain.last
                ))
                .into());
            }
            None if first == Seq(1) && previous == Hash::EMPTY => {
                folded = Some(Committed::empty());
            }
            _ => {}
        }
        while let Some(row) = reader.row()? {
            if let Some(committed) = &mut folded {
                let step = service::step(committed, &row);
                step.map_err(|error| reader.damaged(&error.to_string()))?;
                after(committed).map_err(|what| reader.damaged(&what))?;
            }
        }
        chain = Some(Chain {
            first: chain.map_or(first, |chain| chain.first),
            last: reader.header.last,
            head: reader.head(),
            from_the_beginning: folded.is_some(),
        });
    }
    if let Some(committed) = &folded {
        committed
            .state
            .verify()
            .map_err(|error| Damage(error.to_string()))?;
    }
    Ok(chain)
}
