//! Journal rows in a file: what `export` and `archive` write and `verify --file` reads.
//!
//! JSON lines. The first says which rows there are, each other one is a row with the columns of the table; `body` is a
//! text, byte for byte what was hashed, and what it says is JSON again. `hash` is SHA-256, in hexadecimal, over
//! - the hash of the row before, 32 bytes (`previous` of the first line for the first row; zeros before row 1),
//! - `seq` and `at`, 8 bytes each, least significant first,
//! - `writer`, `op` (empty for null) and `body`, each as its length in 8 such bytes and then its UTF-8.
//!
//! Each line is exactly as this program writes it, so that no byte of the file can change unseen.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gpuquota_core::id::{OpId, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use super::Damage;
use crate::store::{Hash, InvalidHash, Row};

const FORMAT: u32 = 1;
/// A row is far smaller; what is longer is no journal.
const LONGEST_LINE: u64 = 256 * 1024 * 1024;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    gpuquota_journal: u32,
    /// First row.
    pub first: Seq,
    /// Last row.
    pub last: Seq,
    previous: String,
    head: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: Seq,
    at: Timestamp,
    writer: String,
    op: Option<OpId>,
    body: String,
    hash: String,
}

impl Header {
    /// Of the rows from `first` on, which follows a row with the hash `previous`, to `last` with the hash `head`.
    #[must_use]
    pub fn new(first: Seq, previous: Hash, last: Seq, head: Hash) -> Self {
        Self {
            gpuquota_journal: FORMAT,
            first,
            last,
            previous: previous.to_string(),
            head: head.to_string(),
        }
    }

    /// Hash of the row before the first.
    ///
    /// # Errors
    /// When it is none.
    pub fn previous(&self) -> Result<Hash, InvalidHash> {
        self.previous.parse()
    }

    /// Hash of the last row.
    ///
    /// # Errors
    /// When it is none.
    pub fn head(&self) -> Result<Hash, InvalidHash> {
        self.head.parse()
    }
}

/// Writes rows.
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(mut to: W, header: &Header) -> io::Result<Self> {
        put(&mut to, header)?;
        Ok(Self { to })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        put(&mut self.to, &Line::of(row))
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.to
    }
}

fn put(to: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

impl Line {
    fn of(row: &Row) -> Self {
        Self {
            seq: row.seq,
            at: row.at,
            writer: row.writer.clone(),
            op: row.op.clone(),
            body: row.body.clone(),
            hash: row.hash.to_string(),
        }
    }
}

/// Reads rows, each checked against the one before.
pub struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    line: u64,
    /// First and last row and their hashes, as the header says.
    pub header: Header,
    head: Hash,
    last: Seq,
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When it cannot be read, or does not begin as such a file does ([`Damage`]).
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let none = Header::new(Seq(0), Hash::EMPTY, Seq(0), Hash::EMPTY);
        let mut reader = Self {
            path: path.to_owned(),
            lines: BufReader::new(file),
            line: 0,
            header: none,
            head: Hash::EMPTY,
            last: Seq(0),
        };
        let Some(text) = reader.next_line()? else {
            return Err(reader.damaged("is empty"));
        };
        let header: Header = reader.parse(&text)?;
        if header.gpuquota_journal != FORMAT {
            return Err(reader.damaged("has another format; a newer program may read it"));
        }
        let hashes = header.previous().and_then(|it| Ok((it, header.head()?)));
        let (previous, _) = hashes.map_err(|_| reader.damaged("holds no hash"))?;
        let before = header.first.0.checked_sub(1).map(Seq);
        let before = before.filter(|before| *before < header.last);
        reader.last = before.ok_or_else(|| reader.damaged("names no rows"))?;
        reader.head = previous;
        reader.header = header;
        Ok(reader)
    }

    /// The next row; `None` after the last that the header names.
    ///
    /// # Errors
    /// When it cannot be read, or is not the row that was written ([`Damage`], with file and line).
    pub fn row(&mut self) -> anyhow::Result<Option<Row>> {
        let Some(text) = self.next_line()? else {
            if self.last == self.header.last && self.head.to_string() == self.header.head {
                return Ok(None);
            }
            let what = format!(
                "ends after row {}, but its first line says row {}",
                self.last, self.header.last
            );
            return Err(self.damaged(&what));
        };
        let line: Line = self.parse(&text)?;
        if line.seq > self.header.last {
            return Err(self.damaged("goes on after its last row"));
        }
        let hash = line.hash.parse();
        let row = Row {
            seq: line.seq,
            at: line.at,
            writer: line.writer,
            op: line.op,
            body: line.body,
            hash: hash.map_err(|_| self.damaged("holds no hash"))?,
        };
        row.check(self.last, self.head)
            .map_err(|error| self.damaged(&error.to_string()))?;
        (self.last, self.head) = (row.seq, row.hash);
        Ok(Some(row))
    }

    /// Hash of the row that was read last.
    #[must_use]
    pub fn head(&self) -> Hash {
        self.head
    }

    /// An error at the line that was read last.
    #[must_use]
    pub fn damaged(&self, what: &str) -> anyhow::Error {
        Damage(format!("{}:{}: {what}", self.path.display(), self.line)).into()
    }

    fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut lines = (&mut self.lines).take(LONGEST_LINE);
        let read = lines.read_until(b'\n', &mut bytes);
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if bytes.pop() != Some(b'\n') {
            return Err(self.damaged("is cut in this line"));
        }
        let text = String::from_utf8(bytes);
        Ok(Some(text.map_err(|_| self.damaged("is no UTF-8"))?))
    }

    fn parse<T: Serialize + for<'de> Deserialize<'de>>(&self, text: &str) -> anyhow::Result<T> {
        let value: T = serde_json::from_str(text)
            .map_err(|error| self.damaged(&format!("is no line of a journal ({error})")))?;
        // Numbers and texts can be spelt in several ways; only one of them was written.
        match serde_json::to_string(&value) {
            Ok(written) if written == text => Ok(value),
            _ => Err(self.damaged("is not spelt as it was written")),
        }
    }
}
