//! How records lie in a segment file, and what of a file can be trusted. Pure.
//!
//! A record is `length: u32 | crc32: u32 | kind: u8 | payload`, little-endian; length and checksum are of kind and payload.

use gpuquota_proto::MESSAGE_LIMIT_BYTES;
use prost::Message;

/// Bytes before the kind.
const PREFIX_BYTES: usize = 8;
// A report is below the limit of the wire; a little more for what is stored beside it.
const RECORD_LIMIT_BYTES: usize = MESSAGE_LIMIT_BYTES + 1024;

/// First record of each segment: the scope of the numbers in it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Header {
    /// Scope of report numbers.
    #[prost(string, tag = "1")]
    pub spool_id: String,
    /// The boot in which its records were observed.
    #[prost(string, tag = "2")]
    pub boot_id: String,
    /// Number of the first report in this segment.
    #[prost(uint64, tag = "3")]
    pub first_number: u64,
    /// The node that its records speak of.
    #[prost(string, tag = "4")]
    pub node: String,
}

/// A report as it is stored.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stored {
    /// Its number, without gaps in a scope.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// CLOCK_BOOTTIME of the observation, milliseconds.
    #[prost(uint64, tag = "2")]
    pub at_boottime_ms: u64,
    /// The encoded report, without its age.
    #[prost(bytes = "vec", tag = "3")]
    pub report: Vec<u8>,
}

/// Everything up to this number needs not be kept.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Acked {
    /// Scope of the number.
    #[prost(string, tag = "1")]
    pub spool_id: String,
    /// Last number that the server has.
    #[prost(uint64, tag = "2")]
    pub number: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What the segment is.
    Header(Header),
    /// A report.
    Stored(Stored),
    /// Reports that are done.
    Acked(Acked),
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last record.
    Clean,
    /// In a record that was being written; what lies before this offset is good.
    Torn(usize),
    /// There are good records after something that is none, at this offset.
    Corrupt(usize),
}

/// Where a record's bytes lie in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From the beginning of the file.
    pub offset: usize,
    /// Of the whole record.
    pub bytes: usize,
}

/// Appends the record to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let kind = match record {
        Record::Header(_) => 1,
        Record::Stored(_) => 2,
        Record::Acked(_) => 3,
    };
    body.push(kind);
    // A Vec grows: encoding into it cannot run out of room.
    let _ = match record {
        Record::Header(header) => header.encode(&mut body),
        Record::Stored(stored) => stored.encode(&mut body),
        Record::Acked(acked) => acked.encode(&mut body),
    };
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// The record at the beginning of `bytes` with its length; `None` when there is no whole and sound one.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let length = word(bytes, 0)?;
    let length = usize::try_from(length).ok()?;
    if length == 0 || length > RECORD_LIMIT_BYTES {
        return None;
    }
    let body = bytes.get(PREFIX_BYTES..PREFIX_BYTES.checked_add(length)?)?;
    if crc32fast::hash(body) != word(bytes, 4)? {
        return None;
    }
    let (kind, payload) = body.split_first()?;
    let record = match kind {
        1 => Record::Header(Header::decode(payload).ok()?),
        2 => Record::Stored(Stored::decode(payload).ok()?),
        3 => Record::Acked(Acked::decode(payload).ok()?),
        _ => return None,
    };
    Some((record, PREFIX_BYTES + length))
}

/// All sound records of a file from its beginning, and how it ends.
#[must_use]
pub fn scan(bytes: &[u8]) -> (Vec<(Record, Span)>, End) {
    let mut records = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let Some((record, length)) = decode(&bytes[offset..]) else {
            // Torn only if nothing sound follows: a crash leaves nothing behind the record it cut.
            let follows = (offset + 1..bytes.len()).any(|at| decode(&bytes[at..]).is_some());
            let end = if follows {
                End::Corrupt(offset)
            } else {
                End::Torn(offset)
            };
            return (records, end);
        };
        let span = Span {
            offset,
            bytes: length,
        };
        records.push((record, span));
        offset += length;
    }
    (records, End::Clean)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        prop_oneof![
            ("[a-f0-9-]{1,36}", any::<u64>())
                .prop_map(|(spool_id, number)| { Record::Acked(Acked { spool_id, number }) }),
            (
                any::<u64>(),
                any::<u64>(),
                proptest::collection::vec(any::<u8>(), 0..60)
            )
                .prop_map(|(number, at_boottime_ms, report)| {
                    Record::Stored(Stored {
                        number,
                        at_boottime_ms,
                        report,
                    })
                }),
        ]
    }

    fn file(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            encode(record, &mut bytes);
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in proptest::collection::vec(any_record(), 0..8)) {
            let (read, end) = scan(&file(&records));
            prop_assert_eq!(end, End::Clean);
            prop_assert_eq!(read.into_iter().map(|(r, _)| r).collect::<Vec<_>>(), records);
        }

        #[test]
        fn a_cut_file_is_torn_and_keeps_every_whole_record(
            records in proptest::collection::vec(any_record(), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = file(&records);
            let cut = cut.index(bytes.len());
            let (read, end) = scan(&bytes[..cut]);
            let good: usize = read.iter().map(|(_, span)| span.bytes).sum();
            prop_assert!(records.starts_with(&read.into_iter().map(|(r, _)| r).collect::<Vec<_>>()));
            prop_assert_eq!(end, if good == cut { End::Clean } else { End::Torn(good) });
        }

        #[test]
        fn a_flipped_bit_is_noticed_and_never_read(
            records in proptest::collection::vec(any_record(), 2..8),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = file(&records);
            let (before, _) = scan(&bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (after, end) = scan(&bytes);
            let hit = before.iter().position(|(_, s)| at < s.offset + s.bytes).unwrap();
            prop_assert_eq!(&after[..], &before[..hit]);
            let expected = if hit + 1 == records.len() {
                End::Torn(before[hit].1.offset)
            } else {
                End::Corrupt(before[hit].1.offset)
            };
            prop_assert_eq!(end, expected);
        }
    }
}
