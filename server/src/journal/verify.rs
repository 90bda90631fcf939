//! `journal verify`: every hash, every row, every invariant, without changing anything; with `--file` also the rows that
//! left the journal.

use std::path::{Path, PathBuf};

use gpuquota_core::id::Seq;

use super::difference::difference;
use super::files::{self, Chain};
use super::{Damage, look};
use crate::config::Config;
use crate::service::{self, Committed, Whole, begin};
use crate::store::{Base, Store};

/// Checks the journal of a server directory, and files of rows: each for itself, in order, and against the journal. What
/// was found; the first line of it begins with `journal is whole` or `files are whole`.
///
/// # Errors
/// [`Damage`] or a fold error with the first row that is not right; others when something cannot be read.
pub async fn verify(dir: Option<&Path>, paths: &[PathBuf]) -> anyhow::Result<String> {
    let Some(dir) = dir else {
        let chain = files::read(paths, |_| Ok(()))?;
        let chain = chain.ok_or_else(|| anyhow::anyhow!("give --dir, --file, or both"))?;
        return Ok(format!(
            "files are whole: rows {} to {}, head {}{}",
            chain.first,
            chain.last,
            chain.head,
            since(&chain)
        ));
    };
    let store = look(&Config::read(dir)?).await?;
    let verified = against(&*store, paths).await;
    store.close().await;
    verified
}

async fn against(store: &dyn Store, paths: &[PathBuf]) -> anyhow::Result<String> {
    let whole = service::whole(store, |_, _| {}).await?;
    let mut text = found(&whole.committed);
    let archived = whole.base.as_ref().map_or(Seq(0), |base| base.seq);
    let chain = files::read(paths, |committed| match &whole.base {
        Some(base) if base.seq == committed.state.seq() => same(committed, base),
        _ => Ok(()),
    })?;
    if let Some(base) = &whole.base {
        text += &format!(
            "\nrows 1 to {} are archived; the base that the journal begins with is the one that it notes",
            base.seq
        );
    }
    match chain {
        Some(chain) => {
            join(store, &whole, &chain, archived).await?;
            text += &format!(
                "\nfiles are whole: rows {} to {}, and the journal goes on from them{}",
                chain.first,
                chain.last,
                since(&chain)
            );
        }
        None if archived > Seq(0) => text += "; check them with --file",
        None => {}
    }
    Ok(text)
}

fn found(committed: &Committed) -> String {
    let state = &committed.state;
    format!(
        "journal is whole: {} rows, head {}; incarnation {}; {} quotas, {} nodes, {} devices",
        state.seq(),
        committed.head,
        state.incarnation(),
        state.quotas().count(),
        state.nodes().count(),
        state.devices().count(),
    )
}

fn since(chain: &Chain) -> &'static str {
    if chain.from_the_beginning {
        "; nothing is missing since row 1, and all of it folds"
    } else {
        "; rows before them were not looked at"
    }
}

// What the archived rows fold to is what stands for them.
fn same(committed: &Committed, base: &Base) -> Result<(), String> {
    // What an earlier version kept of a state, it kept in other words; that it is the base which the journal notes was looked at.
    if base.format != service::SNAPSHOT_FORMAT {
        return Ok(());
    }
    let begun = begin(base).map_err(|error| error.to_string())?;
    let lines = difference(&committed.state, &begun.state).map_err(|error| error.to_string())?;
    if lines.is_empty() {
        return Ok(());
    }
    Err(format!(
        "up to here the rows fold to another state than the journal's base: {}",
        lines.join("; ")
    ))
}

// The files end where the journal begins, or within it.
async fn join(
    store: &dyn Store,
    whole: &Whole,
    chain: &Chain,
    archived: Seq,
) -> Result<(), anyhow::Error> {
    let newest = whole.committed.state.seq();
    if chain.last < archived {
        let missing = chain.last.next();
        return Err(Damage(format!(
            "rows {missing} to {archived} are in no file and not in the journal; name the archive that holds them"
        ))
        .into());
    }
    if chain.last > newest {
        return Err(Damage(format!(
            "the files go on to row {}, but the journal ends with row {newest}: it was cut, or restored from a backup",
            chain.last
        ))
        .into());
    }
    let head = match &whole.base {
        Some(base) if base.seq == chain.last => Some(base.head),
        _ => {
            let rows = store.rows_after(Seq(chain.last.0 - 1), 1).await?;
            rows.first().map(|row| row.hash)
        }
    };
    if head == Some(chain.head) {
        return Ok(());
    }
    Err(Damage(format!(
        "row {} of the files is not the one of the journal: one of them is of another history, such as one before a restore",
        chain.last
    ))
    .into())
}
