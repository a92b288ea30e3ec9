//! The journal: records of groups, each on the disk after one flush.
//!
//! ```text
//! header  header  ring of records
//! 0       4096    8192                       8192 + ring_len
//! ```
//!
//! The file is written full of zeros first, so that a record changes no metadata that a flush would
//! have to write. Records lie behind each other; one that does not fit before the end begins at the
//! start, over records whose groups are in place. A header says up to which sequence number
//! everything is; the two are written in turn, so that one is always whole.
//!
//! A record is 32 bytes of head and its payload, and begins at a multiple of 64 bytes:
//! magic (4), checksum of the rest (4), sequence number (8), length of the payload (8), kind (1),
//! zeros (7). The checksum begins with the journal's random salt, so that nothing that lies in a
//! value or was left from another journal passes for a record.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use kvstore_core::local::private;
use kvstore_core::{Bytes, Result};

use crate::disk;
use crate::error::{corrupted, flush, io};
use crate::layout::Layout;

pub(crate) const FILE_NAME: &str = ".kvstore-journal";
/// While it is made.
pub(crate) const TEMPORARY_NAME: &str = ".kvstore-journal.tmp";

const HEADER_MAGIC: &[u8; 8] = b"KVJRNL1\n";
const HEADER_LEN: usize = 37;
const HEADER_GAP: u64 = 4096;
const RING: u64 = 2 * HEADER_GAP;
const RECORD_MAGIC: [u8; 4] = *b"kvR1";
const HEAD_LEN: usize = 32;
const ALIGN: u64 = 64;

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
}

/// The journal as it is written.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    salt: u64,
    ring_len: u64,
    layout: Layout,
    /// Where the last record ends in the ring.
    end: u64,
    /// The records that may not be written over yet, the oldest first.
    kept: VecDeque<Kept>,
    headers: u64,
}

/// Where a record lies in the ring.
struct Kept {
    sequence: u64,
    start: u64,
    end: u64,
}

impl Journal {
    /// Makes a journal that begins after the sequence number `placed`.
    pub(crate) fn create(
        root: &Path,
        layout: Layout,
        journal_bytes: u64,
        placed: u64,
    ) -> Result<Self> {
        let path = root.join(FILE_NAME);
        let temporary = root.join(TEMPORARY_NAME);
        let ring_len = (journal_bytes.max(32 << 10) - RING) / ALIGN * ALIGN;
        let failed = |source| io("create journal", &temporary, source);
        let mut options = OpenOptions::new();
        let file = private(options.read(true).write(true).create(true).truncate(true))
            .open(&temporary)
            .map_err(failed)?;
        let journal = Self {
            path: path.clone(),
            file,
            salt: RandomState::new().hash_one(placed),
            ring_len,
            layout,
            end: 0,
            kept: VecDeque::new(),
            headers: 0,
        };
        let whole = RING + ring_len;
        let zeros = vec![0; 1 << 20];
        for at in (0..whole).step_by(zeros.len()) {
            let len = (whole - at).min(zeros.len() as u64) as usize;
            disk::write_at(&journal.file, &zeros[..len], at).map_err(failed)?;
        }
        for turn in 0..2 {
            let header = journal.header(placed);
            disk::write_at(&journal.file, &header, turn * HEADER_GAP).map_err(failed)?;
        }
        disk::sync(&journal.file, &temporary)?;
        fs::rename(&temporary, &path).map_err(|source| io("create journal", &path, source))?;
        disk::sync_dir(root)?;
        Ok(journal)
    }

    fn header(&self, placed: u64) -> Vec<u8> {
        let mut bytes = HEADER_MAGIC.to_vec();
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&placed.to_le_bytes());
        bytes.extend_from_slice(&self.ring_len.to_le_bytes());
        bytes.push(self.layout as u8);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Bytes of the largest payload: a quarter of the ring, so that there is room for others while
    /// it is put in place.
    pub(crate) fn max_payload(&self) -> usize {
        (self.ring_len as usize / 4).saturating_sub(HEAD_LEN)
    }

    /// Lets everything up to `placed` be written over.
    pub(crate) fn release(&mut self, placed: u64) {
        while self.kept.front().is_some_and(|kept| kept.sequence <= placed) {
            self.kept.pop_front();
        }
    }

    /// Whether so much of the ring is kept that files should be put in place.
    pub(crate) fn is_filling(&self) -> bool {
        let Some(oldest) = self.kept.front() else { return false };
        let used = match self.end.checked_sub(oldest.start) {
            Some(used) if used > 0 => used,
            _ => self.ring_len - oldest.start + self.end,
        };
        used > self.ring_len / 2
    }

    /// The last sequence number that has to be in place before a payload can be appended.
    pub(crate) fn needs_placed(&self, payload: usize) -> Option<u64> {
        let (start, end) = self.room_for(payload);
        let wraps = start < self.end;
        let in_the_way = |kept: &&Kept| {
            (kept.start < end && start < kept.end) || (wraps && kept.start >= self.end)
        };
        self.kept.iter().take_while(in_the_way).last().map(|kept| kept.sequence)
    }

    fn room_for(&self, payload: usize) -> (u64, u64) {
        let len = padded(payload);
        let start = if self.end + len <= self.ring_len { self.end } else { 0 };
        (start, start + len)
    }

    /// Writes a record and flushes it. There must be room: nothing may be [needed](
    /// Self::needs_placed) for it.
    pub(crate) fn append(&mut self, sequence: u64, kind: Kind, payload: &[u8]) -> Result<()> {
        let bytes = frame(self.salt, sequence, kind, payload);
        let (start, end) = self.room_for(payload.len());
        disk::write_at(&self.file, &bytes, RING + start)
            .map_err(|source| io("commit", &self.path, source))?;
        self.file.sync_data().map_err(|source| flush("commit", &self.path, source))?;
        self.end = end;
        self.kept.push_back(Kept { sequence, start, end });
        Ok(())
    }

    /// What is needed to say that groups are in place while others are appended.
    pub(crate) fn placer(&self) -> Result<Placer> {
        // A descriptor of its own: one that is only cloned would share the report of a failed
        // write with the committer's, and either could take it from the other.
        let file = OpenOptions::new().write(true).open(&self.path);
        let file = file.map_err(|source| io("open", &self.path, source))?;
        let header = self.header(0);
        Ok(Placer { path: self.path.clone(), file, header, turn: self.headers })
    }
}

/// Writes the journal's headers.
pub(crate) struct Placer {
    path: PathBuf,
    file: File,
    header: Vec<u8>,
    turn: u64,
}

impl Placer {
    /// Says that everything up to `placed` is in place, so that it may be written over.
    pub(crate) fn mark(&mut self, placed: u64) -> Result<()> {
        self.header[16..24].copy_from_slice(&placed.to_le_bytes());
        let crc = crc32fast::hash(&self.header[..HEADER_LEN - 4]);
        self.header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        let at = self.turn % 2 * HEADER_GAP;
        self.turn += 1;
        let written = disk::write_at(&self.file, &self.header, at);
        written.map_err(|source| io("checkpoint", &self.path, source))?;
        self.file.sync_data().map_err(|source| flush("checkpoint", &self.path, source))
    }
}

fn padded(payload: usize) -> u64 {
    (HEAD_LEN as u64 + payload as u64).next_multiple_of(ALIGN)
}

fn frame(salt: u64, sequence: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
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

/// What a journal holds that is not in place: its records in order.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The layout that the store had: what a crash left in place may not show it.
    pub(crate) layout: Layout,
    pub(crate) records: Vec<Record>,
    /// The last sequence number that was given out.
    pub(crate) last: u64,
}

/// Reads the journal that a crash left; `None` if there is none.
///
/// # Errors
/// `Corrupted` if a record that was acknowledged is damaged. Only the last one can be cut off
/// instead: nothing after it was written, so it may never have been acknowledged.
pub(crate) fn read(root: &Path) -> Result<Option<Replay>> {
    let path = root.join(FILE_NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io("open", &path, source)),
    };
    parse(&bytes).map(Some).map_err(|what| corrupted("open", &path, what))
}

/// Reads a journal's bytes, or says what is damaged.
fn parse(bytes: &Bytes) -> Result<Replay, &'static str> {
    let headers = [0, HEADER_GAP].map(|at| parse_header(bytes, at as usize));
    let Some(header) = headers.into_iter().flatten().max_by_key(|header| header.placed) else {
        return Err("both headers of the journal are damaged");
    };
    // It had its full length before it had its name.
    if bytes.len() as u64 != RING + header.ring_len {
        return Err("the journal was cut or has grown");
    }
    let mut records = BTreeMap::new();
    let mut at = RING as usize;
    while at < bytes.len() {
        match parse_record(bytes, at, header.salt) {
            Some(record) => {
                at += padded(record.payload.len()) as usize;
                records.insert(record.sequence, record);
            }
            None => at += ALIGN as usize,
        }
    }
    let last = records.keys().next_back().copied().unwrap_or(header.placed).max(header.placed);
    let needed = records.split_off(&(header.placed + 1));
    if needed.len() as u64 != last - header.placed {
        return Err("a record of the journal is damaged");
    }
    Ok(Replay { layout: header.layout, records: needed.into_values().collect(), last })
}

struct Header {
    salt: u64,
    placed: u64,
    ring_len: u64,
    layout: Layout,
}

fn parse_header(bytes: &[u8], at: usize) -> Option<Header> {
    let bytes = bytes.get(at..at + HEADER_LEN)?;
    let (body, crc) = bytes.split_at(HEADER_LEN - 4);
    if !body.starts_with(HEADER_MAGIC) || crc32fast::hash(body).to_le_bytes() != crc {
        return None;
    }
    let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap_or_default());
    let layout = [Layout::V1, Layout::V2].into_iter().find(|layout| *layout as u8 == body[32])?;
    Some(Header { salt: number(8), placed: number(16), ring_len: number(24), layout })
}

fn parse_record(bytes: &Bytes, at: usize, salt: u64) -> Option<Record> {
    let head = bytes.get(at..at + HEAD_LEN).filter(|head| head.starts_with(&RECORD_MAGIC))?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
    let (crc, sequence, len) = (&head[4..8], number(8), number(16));
    let kind = match head[24] {
        1 => Kind::Inline,
        2 => Kind::Spooled,
        _ => return None,
    };
    let stop = (at + HEAD_LEN).checked_add(usize::try_from(len).ok()?)?;
    if stop > bytes.len() || checksum(salt, &bytes[at + 8..stop]).to_le_bytes() != crc {
        return None;
    }
    Some(Record { sequence, kind, payload: bytes.slice(at + HEAD_LEN..stop) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal whose ring went round once: records 1 to 3 are gone or in place, 4 to 11 are
    /// needed, the last three of them at the start.
    fn journal() -> (Bytes, Vec<Record>) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(directory.path(), Layout::V2, 0, 0).unwrap();
        let mut placer = journal.placer().unwrap();
        let mut records = Vec::new();
        for sequence in 1..=11_u64 {
            let len = if sequence == 3 { 22_000 } else { 20 + sequence as usize * 13 };
            let payload = vec![sequence as u8; len];
            if sequence == 9 {
                // Not because it is full: a large one would make the tests slow.
                journal.end = journal.ring_len;
                assert_eq!(journal.needs_placed(len), Some(2));
                placer.mark(3).unwrap();
                journal.release(3);
            }
            assert_eq!(journal.needs_placed(len), None);
            journal.append(sequence, Kind::Inline, &payload).unwrap();
            let payload = payload.into();
            records.push(Record { sequence, kind: Kind::Inline, payload });
        }
        (fs::read(directory.path().join(FILE_NAME)).unwrap().into(), records)
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let (bytes, records) = journal();
        let replay = parse(&bytes).unwrap();
        assert_eq!(replay.last, 11);
        assert_eq!(replay.records, records[3..]);
    }

    /// P6: whatever byte is flipped, what is read is what was written, up to the last record at
    /// most, which could as well be one that a crash tore; or the damage is reported.
    #[test]
    fn every_flipped_byte_is_harmless_or_reported() {
        let (bytes, records) = journal();
        let (mut exact, mut cut, mut reported) = (0, 0, 0);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x55;
            match parse(&damaged.into()) {
                Ok(replay) if replay.last == 11 => {
                    // An older header asks for more than is needed, which does no harm.
                    assert!(records.ends_with(&replay.records), "byte {at}");
                    assert!(replay.records.len() >= 8, "byte {at}");
                    exact += 1;
                }
                Ok(replay) => {
                    assert_eq!(replay.records, records[3..10], "byte {at}");
                    cut += 1;
                }
                Err(_) => reported += 1,
            }
        }
        assert!(exact > 0 && cut > 100 && reported > 500, "{exact} {cut} {reported}");
    }

    #[test]
    fn every_truncation_is_reported() {
        let (bytes, _) = journal();
        for len in 0..bytes.len() {
            assert!(parse(&bytes.slice(..len)).is_err(), "{len} bytes");
        }
    }

    /// A record that a crash tore while it was written, over what was there before.
    #[test]
    fn a_torn_record_at_the_end_is_cut_off() {
        let (bytes, records) = journal();
        let salt = parse_header(&bytes, 0).unwrap().salt;
        let torn = frame(salt, 12, Kind::Inline, &[12; 3000]);
        // Behind records 9 to 11, over the third.
        let before = records[8..].iter().map(|record| padded(record.payload.len()) as usize);
        let at = RING as usize + before.sum::<usize>();
        for written in (0..torn.len()).step_by(7) {
            let mut crashed = bytes.to_vec();
            crashed[at..at + written].copy_from_slice(&torn[..written]);
            assert_eq!(parse(&crashed.into()).unwrap().records, records[3..], "{written} bytes");
        }
        let mut whole = bytes.to_vec();
        whole[at..at + torn.len()].copy_from_slice(&torn);
        assert_eq!(parse(&whole.into()).unwrap().last, 12);
    }

    #[test]
    fn a_record_of_another_journal_is_none() {
        let (bytes, records) = journal();
        let (other, _) = journal();
        let mut mixed = bytes.to_vec();
        let fourth = RING as usize
            + records[..3]
                .iter()
                .map(|record| padded(record.payload.len()) as usize)
                .sum::<usize>();
        mixed[fourth..].copy_from_slice(&other[fourth..]);
        assert!(parse(&mixed.into()).is_err(), "records 4 to 8 are of another journal");
    }

    /// Goes round the ring many times with records of changing length, keeps what is not in place,
    /// and finds all of it.
    #[test]
    fn what_is_kept_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(directory.path(), Layout::V2, 0, 0).unwrap();
        let mut placer = journal.placer().unwrap();
        let (mut placed, mut waits, mut filling) = (0, 0, 0);
        for sequence in 1..=400_u64 {
            let len = (sequence as usize * 977) % journal.max_payload();
            if let Some(needed) = journal.needs_placed(len) {
                // Needed, and no more than that: what is behind it stays.
                assert!((placed + 1..sequence).contains(&needed), "{needed} for {sequence}");
                placed = needed;
                placer.mark(placed).unwrap();
                journal.release(placed);
                waits += 1;
            }
            journal.append(sequence, Kind::Inline, &vec![sequence as u8; len]).unwrap();
            filling += u32::from(journal.is_filling());
            let replay = read(directory.path()).unwrap().unwrap();
            assert_eq!(replay.last, sequence);
            let found: Vec<_> = replay.records.iter().map(|record| record.sequence).collect();
            assert_eq!(found, (placed + 1..=sequence).collect::<Vec<_>>());
        }
        assert!(waits > 100 && filling > 100, "{waits} {filling}");
    }
}
