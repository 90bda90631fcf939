//! `journal export`: rows as JSON lines, also beside a running server.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use gpuquota_core::id::Seq;

use super::draft::Draft;
use super::file::{Header, Writer};
use super::{Damage, look};
use crate::config::Config;
use crate::store::{ChainError, Hash, Store};

const PAGE: u32 = 10_000;

/// Exports the rows `from..=to` of a directory's journal, as far as it went at the start; `None` for the ends that it has.
/// To `out`, or to standard output. What was done.
///
/// # Errors
/// When there are no such rows, one of them does not match its hash ([`Damage`]), or `out` cannot be written.
pub async fn export(
    dir: &Path,
    from: Option<Seq>,
    to: Option<Seq>,
    out: Option<&Path>,
) -> anyhow::Result<String> {
    let store = look(&Config::read(dir)?).await?;
    let exported = async {
        let header = header(&*store, from, to).await?;
        let (first, last) = (header.first, header.last);
        let place = match out {
            Some(path) => {
                let mut draft = Draft::begin(path)?;
                write(&*store, &header, &mut draft).await?;
                draft.name()?;
                path.display().to_string()
            }
            None => {
                let mut to = io::BufWriter::new(io::stdout());
                write(&*store, &header, &mut to).await?;
                to.flush()?;
                "standard output".to_owned()
            }
        };
        Ok(format!(
            "exported journal rows {first} to {last} to {place}"
        ))
    }
    .await;
    store.close().await;
    exported
}

/// The header of the rows `from..=to`; ends that are `None`, or beyond, are those of the journal.
///
/// # Errors
/// When there are no such rows.
pub(super) async fn header(
    store: &dyn Store,
    from: Option<Seq>,
    to: Option<Seq>,
) -> anyhow::Result<Header> {
    let Some(newest) = store.last().await? else {
        bail!("the journal has no rows");
    };
    let base = store.base().await?;
    let archived = base.as_ref().map_or(Seq(0), |base| base.seq);
    let first = from.unwrap_or(archived.next());
    if first <= archived {
        bail!(
            "rows up to {archived} are in archives, not in the journal; begin at row {}",
            archived.next()
        );
    }
    let last = to.unwrap_or(newest.seq).min(newest.seq);
    if last < first {
        bail!(
            "there are no such rows: the journal holds {} to {}",
            archived.next(),
            newest.seq
        );
    }
    let before = Seq(first.0 - 1);
    let previous = match base.filter(|base| base.seq == before) {
        Some(base) => base.head,
        None => hash_of(store, before).await?,
    };
    let head = hash_of(store, last).await?;
    Ok(Header::new(first, previous, last, head))
}

/// Writes the rows that the header names, each checked.
///
/// # Errors
/// When one of them does not match its hash ([`Damage`]), or it cannot be written.
pub(super) async fn write(
    store: &dyn Store,
    header: &Header,
    to: impl io::Write,
) -> anyhow::Result<()> {
    let cannot = "cannot write the rows; nothing else was changed";
    let mut to = Writer::begin(to, header).context(cannot)?;
    let (mut done, mut head) = (Seq(header.first.0 - 1), header.previous()?);
    while done < header.last {
        let rows = store.rows_after(done, PAGE).await?;
        if rows.is_empty() {
            return Err(Damage(format!("journal row {} is missing", done.next())).into());
        }
        for row in rows.iter().take_while(|row| row.seq <= header.last) {
            row.check(done, head).map_err(damaged)?;
            to.row(row).context(cannot)?;
            (done, head) = (row.seq, row.hash);
        }
    }
    to.into_inner().flush().context(cannot)
}

fn damaged(error: ChainError) -> Damage {
    Damage(format!(
        "{error}; see `gpuquota-server journal verify`, and restore the ledger from a backup"
    ))
}

async fn hash_of(store: &dyn Store, seq: Seq) -> anyhow::Result<Hash> {
    let Some(before) = seq.0.checked_sub(1) else {
        return Ok(Hash::EMPTY);
    };
    let rows = store.rows_after(Seq(before), 1).await?;
    match rows.first().filter(|row| row.seq == seq) {
        Some(row) => Ok(row.hash),
        None => Err(Damage(format!("journal row {seq} is missing")).into()),
    }
}
