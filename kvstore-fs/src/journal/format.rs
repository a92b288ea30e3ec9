//! The journal's bytes: headers, records, and how they are read back.
//!
//! ```text
//! header  header  ring of records
//! 0       4096    8192                       8192 + ring_len
//! ```
//!
//! A header is 37 bytes: magic (8), salt (8), checkpointed sequence number (8), length of the ring
//! (8), layout (1), CRC-32 of what is before it (4). Numbers are little-endian. The two are written
//! in turn, so that one is always whole; the one with the larger sequence number counts.
//!
//! A record is 32 bytes of head and its payload, and begins at a multiple of 64 bytes:
//! magic (4), CRC-32 of the salt and of all that follows (4), sequence number (8), length of the
//! payload (8), kind (1), zeros (7). The random salt keeps what lies in a value, or was left from
//! another journal, from passing for a record.

use std::collections::BTreeMap;

use kvstore_core::Bytes;

use crate::layout::Layout;

const HEADER_MAGIC: &[u8; 8] = b"KVJRNL1\n";
pub(super) const HEADER_LEN: usize = 37;
pub(super) const HEADER_GAP: u64 = 4096;
/// Where the ring begins.
pub(super) const RING: u64 = 2 * HEADER_GAP;
const RECORD_MAGIC: [u8; 4] = *b"kvR1";
pub(super) const HEAD_LEN: usize = 32;
pub(super) const ALIGN: u64 = 64;

/// Where a record's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the record.
    Inline = 1,
    /// In a spool file that the record names.
    Spooled = 2,
}

/// A record that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
    /// Where it begins in the ring.
    pub(crate) start: u64,
}

impl Record {
    /// Where it ends in the ring.
    pub(crate) fn end(&self) -> u64 {
        self.start + padded(self.payload.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) salt: u64,
    /// Everything up to this sequence number is checkpointed.
    pub(crate) checkpointed: u64,
    pub(crate) ring_len: u64,
    pub(crate) layout: Layout,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = HEADER_MAGIC.to_vec();
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.checkpointed.to_le_bytes());
        bytes.extend_from_slice(&self.ring_len.to_le_bytes());
        bytes.push(self.layout as u8);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        let bytes = bytes.get(at..at + HEADER_LEN)?;
        let (body, crc) = bytes.split_at(HEADER_LEN - 4);
        if !body.starts_with(HEADER_MAGIC) || crc32fast::hash(body).to_le_bytes() != crc {
            return None;
        }
        let layout =
            [Layout::V1, Layout::V2].into_iter().find(|layout| *layout as u8 == body[32])?;
        let number = |at| number(body, at);
        let (salt, checkpointed, ring_len) = (number(8), number(16), number(24));
        Some(Self { salt, checkpointed, ring_len, layout })
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

/// Bytes of a record in the ring.
pub(super) fn padded(payload: usize) -> u64 {
    (HEAD_LEN as u64 + payload as u64).next_multiple_of(ALIGN)
}

pub(super) fn frame(salt: u64, sequence: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_LEN + payload.len());
    bytes.extend_from_slice(&RECORD_MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&[0; 7]);
    bytes.extend_from_slice(payload);
    let crc = checksum(salt, &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// What a journal holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: Header,
    /// Which of the two headers counts.
    pub(super) newest_header: u64,
    /// The records up to the last one without a gap, oldest first. The first of them may be
    /// checkpointed already.
    pub(crate) records: Vec<Record>,
    /// The last sequence number that was given out.
    pub(crate) last: u64,
}

/// Reads a journal's bytes.
///
/// # Errors
/// What is damaged: a record that was acknowledged, or both headers. Only the last record can be cut
/// off instead: nothing after it was written, so it may never have been acknowledged.
pub(super) fn parse(bytes: &Bytes) -> Result<Contents, &'static str> {
    let headers = [0, 1].map(|turn| (turn, Header::parse(bytes, (turn * HEADER_GAP) as usize)));
    let headers = headers.into_iter().filter_map(|(turn, header)| Some((turn, header?)));
    let Some((newest_header, header)) = headers.max_by_key(|(_, header)| header.checkpointed)
    else {
        return Err("both headers of the journal are damaged");
    };
    // It had its full length before it had its name.
    if RING.checked_add(header.ring_len) != Some(bytes.len() as u64) {
        return Err("the journal was cut or has grown");
    }
    let mut records = BTreeMap::new();
    let mut at = RING as usize;
    while at < bytes.len() {
        match parse_record(bytes, at, header.salt) {
            Some(record) => {
                at = (RING + record.end()) as usize;
                records.insert(record.sequence, record);
            }
            None => at += ALIGN as usize,
        }
    }
    let newest = records.keys().next_back().copied().unwrap_or(0);
    let last = newest.max(header.checkpointed);
    if last > u64::MAX / 2 {
        return Err("the journal counts further than any store can");
    }
    // Where the ring was lapped, older records are left with gaps between them.
    let mut unbroken: Vec<Record> = Vec::new();
    for (sequence, record) in records.into_iter().rev() {
        if sequence + unbroken.len() as u64 != last {
            break;
        }
        unbroken.push(record);
    }
    unbroken.reverse();
    let first = unbroken.first().map_or(last, |record| record.sequence - 1);
    if first > header.checkpointed {
        return Err("a record of the journal is damaged");
    }
    Ok(Contents { header, newest_header, records: unbroken, last })
}

fn parse_record(bytes: &Bytes, at: usize, salt: u64) -> Option<Record> {
    let head = bytes.get(at..at + HEAD_LEN).filter(|head| head.starts_with(&RECORD_MAGIC))?;
    let (crc, sequence, len) = (&head[4..8], number(head, 8), number(head, 16));
    let kind = match head[24] {
        1 => Kind::Inline,
        2 => Kind::Spooled,
        _ => return None,
    };
    let stop = (at + HEAD_LEN).checked_add(usize::try_from(len).ok()?)?;
    if stop > bytes.len() || checksum(salt, &bytes[at + 8..stop]).to_le_bytes() != crc {
        return None;
    }
    let start = at as u64 - RING;
    (sequence > 0).then(|| Record {
        sequence,
        kind,
        payload: bytes.slice(at + HEAD_LEN..stop),
        start,
    })
}
