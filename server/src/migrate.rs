//! `migrate sqlite-to-postgres`: copies the journal, row by row and hash by hash, and proves that it is the same ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use gpuquota_core::id::Seq;
use gpuquota_core::meter::Hour;

use crate::config::{self, Config};
use crate::open::lock;
use crate::service::{self, Committed};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Appended, Hash, Row, Store, UsageHours, UsageKept, UsageQuery};

/// Rows in one statement.
const PAGE: u32 = 1_000;

/// Copies the journal of the server directory `dir` into the empty PostgreSQL database whose URL stands in `url_file`; one
/// that holds the beginning of this journal already is continued. Says what it did.
///
/// # Errors
/// When a server runs on the directory, the database holds anything else, or the copy is not the same ledger.
pub async fn sqlite_to_postgres(dir: &Path, url_file: &Path) -> anyhow::Result<String> {
    let config = Config::read(dir)?;
    let address = config::read_url(url_file).map_err(anyhow::Error::msg)?;
    let path = &config.ledger.path;
    ensure!(path.exists(), "there is no journal at {}", path.display());
    let _lock = lock(dir)?;
    let source = SqliteStore::open_read_only(path).await?;
    let target = PostgresStore::open(&address).await?;
    let copied = copy(&source, &target).await;
    source.close().await;
    target.close().await;
    let (there, archived, ledger) = copied.with_context(|| format!("cannot copy to {address}"))?;
    let rows = ledger.state.seq();
    Ok(format!(
        "copied {} rows to {address}, {there} were there{}; {rows} rows, head {}, state {}\n\
         now name the database in server.toml, such as: [ledger] url_file = \"{}\"",
        rows.0 - there.0,
        if archived {
            " or stand in archives"
        } else {
            ""
        },
        ledger.head,
        digest(&ledger)?,
        url_file.display()
    ))
}

// What needed no copy, whether that is so because a base stands for it, and the ledger that both hold now.
async fn copy(source: &dyn Store, target: &dyn Store) -> anyhow::Result<(Seq, bool, Committed)> {
    // Without a snapshot, so that every row and hash is looked at.
    let whole = service::fold(source, None).await?;
    let mut there = common(source, target, whole.state.seq()).await?;
    let base = source.base().await?;
    let archived = base.is_some();
    if let Some(base) = base
        && there < base.seq
    {
        // Its rows are in archives; it stands for them there too.
        ensure!(
            there == Seq(0),
            "the database ends with row {there}, and rows up to {} are archived; name an empty one",
            base.seq
        );
        target.put_base(&base).await?;
        there = base.seq;
    }
    let mut last = there;
    loop {
        let rows = source.rows_after(last, PAGE).await?;
        let Some(end) = rows.last() else { break };
        last = end.seq;
        match target.append(&rows).await {
            Ok(Appended::Written) => {}
            Ok(Appended::Behind) => bail!(
                "somebody else writes to the database at row {last}; stop every server on it and begin with an empty one"
            ),
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context("run this again: it goes on where it stopped"));
            }
        }
    }
    copy_usage(source, target, whole.state.stored_before()).await?;
    if let Some(from) = source.usage_by_device_from().await? {
        // Nothing is older in the copy: it notes since when it is known.
        target.drop_usage_by_device(from).await?;
    }
    let copy = service::fold(target, None).await?;
    ensure!(
        copy.head == whole.head && copy.state == whole.state && digest(&copy)? == digest(&whole)?,
        "the copy is another ledger than the original; do not use it, drop the database"
    );
    Ok((there, archived, whole))
}

// The usage that left the journal's state, hour by hour.
async fn copy_usage(source: &dyn Store, target: &dyn Store, stored: Hour) -> anyhow::Result<()> {
    let days = UsageQuery {
        from: Hour::default(),
        to: stored,
        period: 24,
        by: BTreeSet::new(),
        only: BTreeMap::new(),
        most: u32::MAX,
    };
    for day in source.usage(&days).await? {
        for hour in (0..24).map(|at| day.period.plus(at)) {
            let usage = UsageHours::read(source, hour).await?;
            match target.put_usage(&usage).await? {
                UsageKept::Same => {}
                UsageKept::Differs => bail!(
                    "the database holds other usage of the hour that begins {} ms after 1970; begin with an empty one",
                    hour.start().0
                ),
            }
        }
    }
    Ok(())
}

// How much of the journal up to `end` the target holds.
async fn common(source: &dyn Store, target: &dyn Store, end: Seq) -> anyhow::Result<Seq> {
    let other = "the database holds another journal; name an empty one";
    ensure!(row_after(target, end).await?.is_none(), other);
    let (mut low, mut high) = (0, end.0);
    // Rows are without gaps: after `low` there may be some, after `high` there are none.
    while low < high {
        let middle = low + (high - low) / 2;
        match row_after(target, Seq(middle)).await? {
            Some(row) => low = row.seq.0,
            None => high = middle,
        }
    }
    if let Some(before) = low.checked_sub(1) {
        let before = Seq(before);
        let same = row_after(source, before).await? == row_after(target, before).await?;
        ensure!(same, other);
    }
    Ok(Seq(low))
}

async fn row_after(store: &dyn Store, seq: Seq) -> anyhow::Result<Option<Row>> {
    Ok(store.rows_after(seq, 1).await?.pop())
}

fn digest(ledger: &Committed) -> anyhow::Result<Hash> {
    Ok(Hash::of(&serde_json::to_vec(&ledger.state)?))
}
