//! SQLite's write-ahead log, checked before SQLite reads it.
//!
//! SQLite takes the first frame that is not valid for the end of the log, and so drops without a word
//! what was committed after a damaged one. A torn write leaves such frames too, but only in the last
//! transaction: the next one is written after the flush of the one before it. So a log is damaged if
//! a frame is not valid and a transaction that began after a later commit is there.
//!
//! **Source**: <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::io::{self, Read};

pub(crate) const HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 24;
const MAGIC: u32 = 0x377f_0682;
/// What a disk writes whole or not at all, in bytes.
const SECTOR: u64 = 512;
/// Where page 1 holds the number of its changes.
const CHANGE_COUNTER: usize = 24;
/// Where page 1 holds the field `application_id`.
const APPLICATION_ID: usize = 68;

/// What SQLite finds in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// Tells this log from the one before it in the same file.
    pub(crate) salts: [u8; 8],
    pub(crate) page_size: u32,
    /// How many frames belong to commits.
    pub(crate) frames: u64,
    /// The database's header in the oldest and the newest committed page 1, if the log has that page.
    pub(crate) headers: Option<(DatabaseHeader, DatabaseHeader)>,
}

/// The fields of a database's header that tell one state of it from another.
///
/// **Source**: <https://sqlite.org/fileformat2.html#the_database_header>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseHeader {
    /// One more, or the same again, in each later page 1 of a log.
    pub(crate) change_counter: u32,
    pub(crate) application_id: u32,
}

impl DatabaseHeader {
    /// Reads the header from the start of page 1.
    pub(crate) fn parse(page: &[u8]) -> Self {
        Self {
            change_counter: word(&page[CHANGE_COUNTER..]),
            application_id: word(&page[APPLICATION_ID..]),
        }
    }
}

/// Why a log was not read.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The header is damaged.
    Header,
    /// The frame of this number, from 1, is damaged, and later commits follow it. It begins after
    /// so many bytes.
    Frame {
        number: u64,
        offset: u64,
    },
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

type Checksum = (u32, u32);

#[derive(Clone, Copy)]
struct Header {
    big_endian: bool,
    salts: [u8; 8],
    page_size: u32,
    checksum: Checksum,
}

/// A frame, and what its successors are checked against.
#[derive(Clone, Copy)]
struct Frame {
    /// The checksum that it stores.
    stored: Checksum,
    /// The checksum of its content.
    computed: Checksum,
    page: u32,
    is_commit: bool,
    has_salts: bool,
    /// Whether its header cannot be half of an older one.
    has_whole_header: bool,
}

/// Reads a log to its end, one frame at a time. `None` if it holds no commit.
pub(crate) fn read(mut file: impl Read) -> Result<Option<Log>, Failure> {
    let mut bytes = [0; HEADER_LEN];
    if !fill(&mut file, &mut bytes)? {
        return Ok(None);
    }
    let Some(header) = Header::parse(&bytes) else {
        // SQLite flushes the header before it writes any frame.
        return if is_zero(file)? { Ok(None) } else { Err(Failure::Header) };
    };
    let mut content = vec![0; FRAME_HEADER_LEN + header.page_size as usize];
    let (mut log, mut number) = (None, 0);
    // Of the transaction that is not committed yet.
    let mut pending = None;
    let mut last = header.checksum;
    let damaged = loop {
        if !fill(&mut file, &mut content)? {
            return Ok(log);
        }
        number += 1;
        let frame = Frame::parse(&header, number, &content, last);
        if !frame.has_salts || frame.page == 0 || frame.computed != frame.stored {
            break frame;
        }
        last = frame.stored;
        if frame.page == 1 {
            pending = Some(DatabaseHeader::parse(&content[FRAME_HEADER_LEN..]));
        }
        if frame.is_commit {
            let before = log.and_then(|log: Log| log.headers);
            let oldest = before.map(|(oldest, _)| oldest);
            log = Some(Log {
                salts: header.salts,
                page_size: header.page_size,
                frames: number,
                headers: pending.map(|newest| (oldest.unwrap_or(newest), newest)).or(before),
            });
        }
    };
    if is_followed(&mut file, &header, number, damaged, &mut content)? {
        return Err(Failure::Frame { number, offset: header.offset(number) });
    }
    Ok(log)
}

/// Whether a transaction began after a commit that is at the damaged frame or after it.
fn is_followed(
    file: &mut impl Read,
    header: &Header,
    mut number: u64,
    damaged: Frame,
    content: &mut [u8],
) -> io::Result<bool> {
    let mut before = damaged;
    // Whether the content of `before` is as it was written.
    let mut is_proven = damaged.computed == damaged.stored;
    while fill(file, content)? {
        number += 1;
        if content[8..16] != header.salts {
            // Of an earlier log, for all that matters: it is skipped fast.
            before = Frame { has_salts: false, is_commit: false, ..before };
            before.stored = (word(&content[16..]), word(&content[20..]));
            is_proven = false;
            continue;
        }
        let frame = Frame::parse(header, number, content, before.stored);
        let follows_stored = frame.computed == frame.stored;
        // Only the checksum that the frame before stores may be damaged.
        let follows_content =
            Frame::parse(header, number, content, before.computed).computed == frame.stored;
        let was_commit = before.is_commit
            && (is_proven || follows_content || before.has_salts && before.has_whole_header);
        if was_commit && (follows_stored || follows_content) {
            return Ok(true);
        }
        is_proven = follows_stored || follows_content;
        before = frame;
    }
    Ok(false)
}

impl Header {
    fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let magic = word(bytes);
        let big_endian = magic & 1 == 1;
        let checksum = checksum(big_endian, (0, 0), &bytes[..24]);
        let page_size = word(&bytes[8..]);
        let is_valid = magic & !1 == MAGIC
            && (512..=65536).contains(&page_size)
            && page_size.is_power_of_two()
            && checksum == (word(&bytes[24..]), word(&bytes[28..]));
        is_valid.then_some(Self { big_endian, salts: salts(bytes), page_size, checksum })
    }

    /// Where the frame of this number begins.
    fn offset(&self, number: u64) -> u64 {
        HEADER_LEN as u64 + (number - 1) * (FRAME_HEADER_LEN as u64 + u64::from(self.page_size))
    }
}

impl Frame {
    fn parse(header: &Header, number: u64, bytes: &[u8], seed: Checksum) -> Self {
        let computed = checksum(header.big_endian, seed, &bytes[..8]);
        let computed = checksum(header.big_endian, computed, &bytes[FRAME_HEADER_LEN..]);
        Self {
            stored: (word(&bytes[16..]), word(&bytes[20..])),
            computed,
            page: word(bytes),
            is_commit: word(&bytes[4..]) != 0,
            has_salts: bytes[8..16] == header.salts,
            has_whole_header: header.offset(number) % SECTOR <= SECTOR - FRAME_HEADER_LEN as u64,
        }
    }
}

/// The salts of the log whose header this is; they change when SQLite begins a new log in the file.
pub(crate) fn salts(header: &[u8; HEADER_LEN]) -> [u8; 8] {
    let mut salts = [0; 8];
    salts.copy_from_slice(&header[16..24]);
    salts
}

fn checksum(big_endian: bool, seed: Checksum, bytes: &[u8]) -> Checksum {
    let read = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    let (words, _) = bytes.as_chunks::<4>();
    words.chunks_exact(2).fold(seed, |(first, second), pair| {
        let first = first.wrapping_add(read(pair[0])).wrapping_add(second);
        (first, second.wrapping_add(read(pair[1])).wrapping_add(first))
    })
}

pub(crate) fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Fills the buffer; says whether the file held enough for that.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_zero(mut file: impl Read) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        let len = match file.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer[..len].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;

    /// The log of a database, after these statements in WAL mode.
    fn log(statements: &[&str]) -> Vec<u8> {
        logs(statements, &[]).0
    }

    /// The log after these statements, and what it would be after one more, for each of these.
    fn logs(statements: &[&str], endings: &[&str]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let connection = Connection::open(path("db")).unwrap();
        let table = "PRAGMA page_size = 512; CREATE TABLE t (a PRIMARY KEY, b)";
        connection.execute_batch(table).unwrap();
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        statements.iter().for_each(|statement| connection.execute_batch(statement).unwrap());
        let ended = |ending: &&str| {
            fs::copy(path("db"), path("other")).unwrap();
            fs::copy(path("db-wal"), path("other-wal")).unwrap();
            let other = Connection::open(path("other")).unwrap();
            other.execute_batch(ending).unwrap();
            let log = fs::read(path("other-wal")).unwrap();
            other.close().unwrap();
            log
        };
        (fs::read(path("db-wal")).unwrap(), endings.iter().map(ended).collect())
    }

    fn insert(key: u32) -> String {
        format!("INSERT INTO t VALUES ({key}, zeroblob(700))")
    }

    /// The offsets of frames that end a transaction.
    fn commits(log: &[u8]) -> Vec<usize> {
        let frames = (HEADER_LEN..log.len()).step_by(FRAME_HEADER_LEN + 512);
        frames.filter(|at| word(&log[at + 4..]) != 0).collect()
    }

    #[test]
    fn a_whole_log_tells_what_sqlite_would_find() {
        let log = log(&[
            "PRAGMA application_id = 7",
            &insert(1),
            "PRAGMA application_id = 8",
            &insert(2),
        ]);
        let found = read(&log[..]).unwrap().unwrap();
        let (oldest, newest) = found.headers.unwrap();
        assert_eq!(found.page_size, 512);
        assert_eq!((oldest.application_id, newest.application_id), (7, 8));
        assert_eq!(found.frames as usize, (log.len() - HEADER_LEN) / (FRAME_HEADER_LEN + 512));
        assert_eq!(found.salts[..], log[16..24]);
    }

    /// P6: each byte of the log, by two kinds of damage.
    #[test]
    fn damage_before_the_last_transaction_is_found_wherever_it_is() {
        let whole = log(&[&insert(1), &insert(2), "UPDATE t SET b = 1", &insert(3), &insert(4)]);
        let ends = commits(&whole);
        assert_eq!(ends.len(), 5);
        let last = ends[3] + FRAME_HEADER_LEN + 512;
        for at in 0..whole.len() {
            for change in [0xff, 0x01] {
                let mut log = whole.clone();
                log[at] ^= change;
                match read(&log[..]) {
                    Err(Failure::Header) => assert!(at < HEADER_LEN),
                    Err(Failure::Frame { number, .. }) => {
                        let offset = at - HEADER_LEN;
                        let frame = offset / (FRAME_HEADER_LEN + 512);
                        assert_eq!(number - 1, frame as u64, "{at}");
                        // A commit's mark on a frame in the midst of a transaction was not written.
                        let is_mark = (4..8).contains(&(offset % (FRAME_HEADER_LEN + 512)));
                        assert!(at < last || is_mark, "{at}: it could be a torn write");
                    }
                    Ok(found) => {
                        let frames = found.map_or(0, |log| log.frames);
                        // The mark of the commit before the last may be damaged so that it reads
                        // as none: then the last two are one.
                        let mark = ends[3] + 4..ends[3] + 8;
                        assert!(at >= last || mark.contains(&at), "{at}: {frames} frames are left");
                    }
                    Err(Failure::Io(error)) => panic!("{error}"),
                }
            }
        }
    }

    const LAST: &str = "BEGIN; INSERT INTO t VALUES (3, zeroblob(700)); INSERT INTO t VALUES (4, 1); \
                        UPDATE t SET b = 2; COMMIT";

    /// Replaces any of the sectors from `begin` on by what was there before.
    fn tear(whole: &[u8], begin: usize, old: &[u8]) {
        let frames = read(&whole[..begin]).unwrap().unwrap().frames;
        let sectors: Vec<_> = (begin / 512..whole.len().div_ceil(512)).collect();
        assert!(sectors.len() > 4 && sectors.len() < 15, "{}", sectors.len());
        for lost in 1..1_u32 << sectors.len() {
            let mut log = whole.to_vec();
            for (at, sector) in sectors.iter().enumerate() {
                if lost >> at & 1 == 1 {
                    let from = (sector * 512).max(begin);
                    let to = (sector * 512 + 512).min(whole.len());
                    log[from..to].copy_from_slice(&old[from..to]);
                }
            }
            let found = read(&log[..]).unwrap().unwrap();
            assert!(found.frames >= frames, "{lost:b}");
        }
    }

    /// What a crash leaves of the last transaction is no damage.
    #[test]
    fn a_torn_last_transaction_is_the_end_of_the_log() {
        let (before, after) = logs(&[&insert(1), &insert(2)], &[LAST]);
        let (whole, begin) = (&after[0], before.len());
        tear(whole, begin, &vec![0; whole.len()]);
        // Frames of an earlier log, with other salts.
        let earlier: Vec<_> = whole.iter().map(|byte| byte.wrapping_add(1)).collect();
        tear(whole, begin, &earlier);
    }

    /// Nor is it where a transaction lay that was torn itself, in the same log, and whose commit's
    /// mark lies in another sector than the rest of the frame's header.
    #[test]
    fn a_torn_transaction_over_another_one_is_the_end_of_the_log() {
        for frames in [41, 62] {
            let one_frame = |at: usize| format!("PRAGMA user_version = {at}");
            let statements: Vec<_> = (1..=frames).map(one_frame).collect();
            let statements: Vec<_> = statements.iter().map(String::as_str).collect();
            let (before, after) = logs(&statements, &[LAST, &one_frame(1000), &insert(9)]);
            let begin = before.len();
            assert_eq!(begin, HEADER_LEN + frames * (FRAME_HEADER_LEN + 512));
            assert!(begin % 512 > 512 - FRAME_HEADER_LEN);
            for old in &after[1..] {
                let mut old = old.clone();
                old.resize(after[0].len(), 0);
                tear(&after[0], begin, &old);
            }
        }
    }

    #[test]
    fn a_log_that_was_never_begun_is_empty() {
        for bytes in [&[][..], &[1; 31], &[0; 5000]] {
            assert_eq!(read(bytes).unwrap(), None);
        }
        let begun = &log(&[&insert(1)])[..HEADER_LEN + 300];
        assert_eq!(read(begun).unwrap(), None);
    }
}
