//! The journal: records of groups, each on the disk after one flush.
//!
//! The file is written full of zeros first, so that a record changes no metadata that a flush would
//! have to write. Records lie behind each other; one that does not fit before the end begins at the
//! start, over records that are checkpointed. [`format`] has the bytes.

mod format;

use std::collections::VecDeque;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::PathBuf;

use kvstore_core::local::Directory;
use kvstore_core::{Bytes, ErrorKind, Result};

pub(crate) use format::{Contents, Kind, Record};

use crate::error::{corrupted, error, flush, io};
use crate::files;
use crate::layout::Layout;
use format::{ALIGN, HEAD_LEN, HEADER_GAP, Header, RING, frame, padded, parse};

pub(crate) const FILE_NAME: &str = ".kvstore-journal";
/// While it is made.
pub(crate) const TEMPORARY_NAME: &str = ".kvstore-journal.tmp";

/// The least length of the file.
pub(crate) const MIN_BYTES: u64 = 32 << 10;

/// The journal as it is written.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    header: Header,
    /// Where the last record ends in the ring.
    end: u64,
    /// The records that may not be written over yet, the oldest first.
    kept: VecDeque<Kept>,
}

/// Where a record lies in the ring.
struct Kept {
    sequence: u64,
    start: u64,
    end: u64,
}

impl Journal {
    /// Makes a journal whose first record says what is checkpointed already.
    pub(crate) fn create(
        root: &Directory,
        layout: Layout,
        bytes: u64,
        sequence: u64,
        baseline: &[u8],
    ) -> Result<(Self, HeaderWriter)> {
        let (path, temporary) = (root.join(FILE_NAME), root.join(TEMPORARY_NAME));
        let failed = |source| io("create journal", &temporary, source);
        let salt = RandomState::new().hash_one(sequence);
        let header = Header { salt, checkpointed: sequence, ring_len: ring_len(bytes), layout };
        let file = root.create_file(TEMPORARY_NAME).map_err(failed)?;
        let first = frame(salt, sequence, Kind::Inline, baseline);
        write_new(&file, &header, &first).map_err(|source| {
            // What there is of it takes room that a full disk may need for something else.
            let _ = root.remove_file(TEMPORARY_NAME);
            failed(source)
        })?;
        files::sync(&file, root, TEMPORARY_NAME)?;
        root.rename(TEMPORARY_NAME, FILE_NAME)
            .map_err(|source| io("create journal", &path, source))?;
        root.sync()?;
        let end = padded(baseline.len());
        let journal = Self { path, file, header, end, kept: VecDeque::new() };
        let headers = journal.header_writer(root, 0)?;
        Ok((journal, headers))
    }

    /// Goes on with the journal that an owner left who crashed.
    pub(crate) fn resume(
        root: &Directory,
        file: File,
        contents: &Contents,
    ) -> Result<(Self, HeaderWriter)> {
        let header = contents.header;
        let needed = contents.records.iter().filter(|record| record.sequence > header.checkpointed);
        let kept = needed.map(|record| Kept {
            sequence: record.sequence,
            start: record.start,
            end: record.end(),
        });
        let journal = Self {
            path: root.join(FILE_NAME),
            file,
            header,
            end: contents.records.last().map_or(0, Record::end),
            kept: kept.collect(),
        };
        let headers = journal.header_writer(root, contents.newest_header + 1)?;
        Ok((journal, headers))
    }

    fn header_writer(&self, root: &Directory, turn: u64) -> Result<HeaderWriter> {
        // A descriptor of its own: one that is only cloned would share the report of a failed
        // write with the committer's, and either could take it from the other.
        let file = root.open_file_to_write(FILE_NAME);
        let file = file.map_err(|source| io("open", &self.path, source))?;
        Ok(HeaderWriter { path: self.path.clone(), file, header: self.header, turn })
    }

    /// Bytes of the largest payload: a quarter of the ring, so that there is room for others while
    /// it is checkpointed.
    pub(crate) fn max_payload(&self) -> usize {
        max_payload(self.header.ring_len)
    }

    /// The same for a journal that is to have so many bytes.
    pub(crate) fn max_payload_of(bytes: u64) -> usize {
        max_payload(ring_len(bytes))
    }

    /// Lets everything up to `checkpointed` be written over.
    pub(crate) fn release(&mut self, checkpointed: u64) {
        while self.kept.front().is_some_and(|kept| kept.sequence <= checkpointed) {
            self.kept.pop_front();
        }
    }

    /// Whether so much of the ring is kept that a checkpoint should begin.
    pub(crate) fn is_filling(&self) -> bool {
        let Some(oldest) = self.kept.front() else { return false };
        let ring_len = self.header.ring_len;
        let used = match self.end.checked_sub(oldest.start) {
            Some(used) if used > 0 => used,
            _ => ring_len - oldest.start + self.end,
        };
        used > ring_len / 2
    }

    /// The last sequence number that has to be checkpointed before a payload can be appended.
    pub(crate) fn needs_checkpointed(&self, payload: usize) -> Option<u64> {
        let (start, end) = self.room_for(payload);
        let wraps = start < self.end;
        let in_the_way = |kept: &&Kept| {
            (kept.start < end && start < kept.end) || (wraps && kept.start >= self.end)
        };
        self.kept.iter().take_while(in_the_way).last().map(|kept| kept.sequence)
    }

    fn room_for(&self, payload: usize) -> (u64, u64) {
        let len = padded(payload);
        let start = if self.end + len <= self.header.ring_len { self.end } else { 0 };
        (start, start + len)
    }

    /// Writes a record and flushes it. There must be room: nothing may [have to be checkpointed](
    /// Self::needs_checkpointed) for it.
    pub(crate) fn append(&mut self, sequence: u64, kind: Kind, payload: &[u8]) -> Result<()> {
        let bytes = frame(self.header.salt, sequence, kind, payload);
        let (start, end) = self.room_for(payload.len());
        files::write_at(&self.file, &bytes, RING + start)
            .map_err(|source| io("commit", &self.path, source))?;
        self.file.sync_data().map_err(|source| flush("commit", &self.path, source))?;
        self.end = end;
        self.kept.push_back(Kept { sequence, start, end });
        Ok(())
    }
}

fn ring_len(bytes: u64) -> u64 {
    (bytes.max(MIN_BYTES) - RING) / ALIGN * ALIGN
}

fn max_payload(ring_len: u64) -> usize {
    (ring_len as usize / 4).saturating_sub(HEAD_LEN)
}

fn write_new(file: &File, header: &Header, first: &[u8]) -> io::Result<()> {
    let whole = RING + header.ring_len;
    let zeros = vec![0; 1 << 20];
    for at in (0..whole).step_by(zeros.len()) {
        let len = (whole - at).min(zeros.len() as u64) as usize;
        files::write_at(file, &zeros[..len], at)?;
    }
    files::write_at(file, first, RING)?;
    (0..2).try_for_each(|turn| files::write_at(file, &header.encode(), turn * HEADER_GAP))
}

/// Says in the journal's headers what is checkpointed, while others append.
pub(crate) struct HeaderWriter {
    path: PathBuf,
    file: File,
    header: Header,
    turn: u64,
}

impl HeaderWriter {
    /// Makes durable that everything up to `checkpointed` may be written over.
    pub(crate) fn advance(&mut self, checkpointed: u64) -> Result<()> {
        let header = Header { checkpointed, ..self.header };
        let at = self.turn % 2 * HEADER_GAP;
        let written = files::write_at(&self.file, &header.encode(), at);
        written.map_err(|source| io("checkpoint", &self.path, source))?;
        self.file.sync_data().map_err(|source| flush("checkpoint", &self.path, source))?;
        // Only now the other one may be written over: a failed write may have torn this one.
        (self.header, self.turn) = (header, self.turn + 1);
        Ok(())
    }
}

/// Writes what counts in a journal once more, so that a flush has to write it.
///
/// After a flush that failed, the page cache has it and the disk may not, and the system takes it for
/// written: another flush by itself would do nothing.
///
/// **Source**: `fsync(2)`; Linux marks the pages clean after an error.
fn write_back(file: &File, bytes: &[u8], contents: &Contents) -> io::Result<()> {
    let header = contents.newest_header * HEADER_GAP;
    files::write_at(file, &contents.header.encode(), header)?;
    let needed = |record: &&Record| record.sequence > contents.header.checkpointed;
    for record in contents.records.iter().filter(needed) {
        let (start, end) = (RING + record.start, RING + record.end());
        let end = end.min(bytes.len() as u64);
        files::write_at(file, &bytes[start as usize..end as usize], start)?;
    }
    Ok(())
}

/// Reads the journal that a crash left, and makes durable what was read; `None` if there is none.
///
/// The owner before may have been killed between a write and its flush. What this one shows, or puts
/// into files, must not go with the power afterwards.
///
/// # Errors
/// `Corrupted` if a record that was acknowledged is damaged.
pub(crate) fn read(root: &Directory) -> Result<Option<(File, Contents)>> {
    let path = root.join(FILE_NAME);
    let failed = |source| io("open", &path, source);
    let mut file = match root.open_file_to_write(FILE_NAME) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let len = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    let room = usize::try_from(len).is_ok_and(|len| bytes.try_reserve_exact(len).is_ok());
    if !room {
        let message = format!("{} has {len} bytes, more than memory has", path.display());
        return Err(error(ErrorKind::Unavailable, "open", message));
    }
    file.read_to_end(&mut bytes).map_err(failed)?;
    let bytes = Bytes::from(bytes);
    let contents = parse(&bytes).map_err(|what| corrupted("open", &path, what))?;
    write_back(&file, &bytes, &contents).map_err(failed)?;
    file.sync_data().map_err(|source| flush("open", &path, source))?;
    root.sync()?;
    Ok(Some((file, contents)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn create(directory: &Path) -> (Directory, Journal, HeaderWriter) {
        let root = Directory::open(directory).unwrap();
        let (journal, headers) = Journal::create(&root, Layout::V2, 0, 0, &[]).unwrap();
        (root, journal, headers)
    }

    /// A journal whose ring went round once: records 1 to 3 are gone or checkpointed, 4 to 11 are
    /// needed, the last three of them at the start.
    fn journal() -> (Bytes, Vec<Record>) {
        let directory = tempfile::tempdir().unwrap();
        let (_root, mut journal, mut headers) = create(directory.path());
        let mut records = Vec::new();
        for sequence in 1..=11_u64 {
            let len = if sequence == 3 { 22_000 } else { 20 + sequence as usize * 13 };
            let payload = vec![sequence as u8; len];
            if sequence == 9 {
                // Not because it is full: a large one would make the tests slow.
                journal.end = journal.header.ring_len;
                assert_eq!(journal.needs_checkpointed(len), Some(1));
                headers.advance(3).unwrap();
                journal.release(3);
            }
            assert_eq!(journal.needs_checkpointed(len), None);
            journal.append(sequence, Kind::Inline, &payload).unwrap();
            let (start, payload) = (journal.kept.back().unwrap().start, payload.into());
            records.push(Record { sequence, kind: Kind::Inline, payload, start });
        }
        (fs::read(directory.path().join(FILE_NAME)).unwrap().into(), records)
    }

    fn salt(bytes: &Bytes) -> u64 {
        parse(bytes).unwrap().header.salt
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let (bytes, records) = journal();
        let contents = parse(&bytes).unwrap();
        assert_eq!((contents.last, contents.header.checkpointed), (11, 3));
        assert!(records.ends_with(&contents.records) && contents.records.len() >= 8);
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
                Ok(contents) if contents.last == 11 => {
                    // An older header asks for more than is needed, which does no harm.
                    assert!(records.ends_with(&contents.records), "byte {at}");
                    assert!(contents.records.len() >= 8, "byte {at}");
                    exact += 1;
                }
                Ok(contents) => {
                    assert_eq!(contents.records, records[3..10], "byte {at}");
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
        let salt = salt(&bytes);
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
        let fourth = (RING + records[3].start) as usize;
        mixed[fourth..].copy_from_slice(&other[fourth..]);
        assert!(parse(&mixed.into()).is_err(), "records 4 to 8 are of another journal");
    }

    /// Goes round the ring many times with records of changing length, keeps what is not in place,
    /// and finds all of it.
    #[test]
    fn what_is_kept_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (root, mut journal, mut headers) = create(directory.path());
        let (mut checkpointed, mut waits, mut filling) = (0, 0, 0);
        for sequence in 1..=400_u64 {
            let len = (sequence as usize * 977) % journal.max_payload();
            if let Some(needed) = journal.needs_checkpointed(len) {
                // Needed, and no more than that: what is behind it stays.
                assert!((checkpointed + 1..sequence).contains(&needed), "{needed} for {sequence}");
                checkpointed = needed;
                headers.advance(checkpointed).unwrap();
                journal.release(checkpointed);
                waits += 1;
            }
            journal.append(sequence, Kind::Inline, &vec![sequence as u8; len]).unwrap();
            filling += u32::from(journal.is_filling());
            let (file, contents) = read(&root).unwrap().unwrap();
            assert_eq!(contents.last, sequence);
            let found = contents.records.iter().map(|record| record.sequence);
            let found: Vec<_> = found.filter(|sequence| *sequence > checkpointed).collect();
            assert_eq!(found, (checkpointed + 1..=sequence).collect::<Vec<_>>());
            if sequence % 7 == 0 {
                // An owner who crashed, and the next one.
                (journal, headers) = Journal::resume(&root, file, &contents).unwrap();
            }
        }
        assert!(waits > 100 && filling > 100, "{waits} {filling}");
    }

    /// P4: after a flush that failed the system takes what is in its cache for written, so what counts
    /// is written again before it is flushed.
    #[test]
    fn what_counts_is_written_back() {
        let directory = tempfile::tempdir().unwrap();
        let (root, mut journal, mut headers) = create(directory.path());
        for sequence in 1..=5 {
            journal.append(sequence, Kind::Inline, &[sequence as u8; 100]).unwrap();
        }
        headers.advance(2).unwrap();
        let whole = fs::read(directory.path().join(FILE_NAME)).unwrap();
        let (_, contents) = read(&root).unwrap().unwrap();
        // A disk that has none of it.
        let empty = tempfile::tempfile().unwrap();
        empty.set_len(whole.len() as u64).unwrap();
        write_back(&empty, &whole, &contents).unwrap();
        let mut written = Vec::new();
        io::Seek::rewind(&mut &empty).unwrap();
        (&empty).read_to_end(&mut written).unwrap();
        let found = parse(&written.into()).unwrap();
        assert_eq!((found.header, found.last), (contents.header, 5));
        assert_eq!(found.records, contents.records[contents.records.len() - 3..]);
    }

    /// A header is never written over the one that counts.
    #[test]
    fn a_torn_header_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let (root, mut journal, mut headers) = create(directory.path());
        for sequence in 1..=40 {
            journal.append(sequence, Kind::Inline, &[1; 100]).unwrap();
            headers.advance(sequence).unwrap();
            journal.release(sequence);
            if sequence % 3 == 0 {
                let (file, contents) = read(&root).unwrap().unwrap();
                (journal, headers) = Journal::resume(&root, file, &contents).unwrap();
            }
            let bytes = fs::read(directory.path().join(FILE_NAME)).unwrap();
            let newest = parse(&bytes.clone().into()).unwrap().newest_header;
            for turn in 0..2 {
                let mut torn = bytes.clone();
                torn[(turn * HEADER_GAP) as usize + 20] ^= 1;
                let least = if turn == newest { sequence - 1 } else { sequence };
                let found = parse(&torn.into()).unwrap().header.checkpointed;
                assert_eq!(found, least, "header {turn} of record {sequence}");
            }
        }
    }

    /// P6: no crafted bytes are taken for lengths that do not fit.
    #[test]
    fn crafted_headers_and_records_do_not_overflow() {
        let (bytes, _) = journal();
        let salt = salt(&bytes);
        for ring_len in [u64::MAX, u64::MAX - RING, 1 << 63, 0] {
            let header = Header { salt, checkpointed: u64::MAX, ring_len, layout: Layout::V1 };
            let mut crafted = bytes.to_vec();
            crafted[..37].copy_from_slice(&header.encode());
            assert!(parse(&crafted.into()).is_err());
        }
        for (sequence, checkpointed) in
            [(u64::MAX, 3), (0, 0), (u64::MAX, u64::MAX), (12, u64::MAX)]
        {
            let header = Header { salt, checkpointed, ..parse(&bytes).unwrap().header };
            let mut crafted = bytes.to_vec();
            crafted[..37].copy_from_slice(&header.encode());
            let record = frame(salt, sequence, Kind::Inline, &[1; 8]);
            let at = bytes.len() - 64;
            crafted[at..at + record.len()].copy_from_slice(&record);
            // Whatever it makes of them, it does not panic.
            let _ = parse(&crafted.clone().into());
            let mut long = crafted;
            long[at + 16..at + 24].copy_from_slice(&u64::MAX.to_le_bytes());
            let _ = parse(&long.into());
        }
    }
}
