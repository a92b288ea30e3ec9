//! A rollback journal that a crash left, compared with the database that SQLite would play it into.
//!
//! A journal holds pages as they were before a transaction. The header of page 1 counts transactions,
//! and each writes that page: so the database still has the count that the journal holds, or the next
//! one (contract G4).
//!
//! **Source**: <https://sqlite.org/fileformat2.html#the_rollback_journal>.

use std::io::{self, Read, Seek, SeekFrom};

use crate::wal::word;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const HEADER_LEN: usize = 28;
/// Where page 1 holds the number of transactions.
const CHANGE_COUNTER: usize = 24;
/// A page's number and checksum.
const RECORD_EXTRA: usize = 8;

/// What a journal that SQLite would play back tells of its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// The database's length in pages before the transaction.
    pages: u32,
    /// The count of transactions in the page 1 that it holds, if it holds that.
    change_counter: Option<u32>,
}

impl Journal {
    /// Whether a database whose file starts with these bytes can be the one that it was made for.
    pub(crate) fn is_of(self, database: &[u8]) -> bool {
        let Some(field) = database.get(CHANGE_COUNTER..CHANGE_COUNTER + 4) else {
            // SQLite would remove the journal of an empty database.
            return self.pages == 0;
        };
        let now = word(field);
        self.change_counter.is_none_or(|before| now == before || now == before.wrapping_add(1))
    }
}

/// Reads a journal. `None` if it holds nothing that SQLite would play back.
pub(crate) fn read(file: &mut (impl Read + Seek)) -> io::Result<Option<Journal>> {
    let len = file.seek(SeekFrom::End(0))?;
    let (mut at, mut found) = (0, None);
    while let Some(segment) = Segment::read(file, at, len)? {
        let journal = found.get_or_insert(Journal { pages: segment.pages, change_counter: None });
        for record in 0..segment.records {
            let offset = segment.first + record * segment.record_len;
            if offset + segment.record_len > len {
                return Ok(found);
            }
            let mut start = [0; 4 + CHANGE_COUNTER + 4];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut start)?;
            if word(&start) == 1 {
                journal.change_counter = Some(word(&start[4 + CHANGE_COUNTER..]));
                return Ok(found);
            }
        }
        at =
            (segment.first + segment.records * segment.record_len).next_multiple_of(segment.sector);
    }
    Ok(found)
}

/// A header and the records behind it.
struct Segment {
    records: u64,
    pages: u32,
    first: u64,
    record_len: u64,
    sector: u64,
}

impl Segment {
    fn read(file: &mut (impl Read + Seek), at: u64, len: u64) -> io::Result<Option<Self>> {
        if at + HEADER_LEN as u64 > len {
            return Ok(None);
        }
        let mut header = [0; HEADER_LEN];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        let (sector, page_size) = (word(&header[20..]), word(&header[24..]));
        let is_valid = header.starts_with(&MAGIC)
            && sector.is_power_of_two()
            && (32..=65536).contains(&sector)
            && page_size.is_power_of_two()
            && (512..=65536).contains(&page_size);
        let (sector, record_len) = (u64::from(sector), u64::from(page_size) + RECORD_EXTRA as u64);
        let first = at + sector;
        let records = match word(&header[8..]) {
            // As many as there are.
            u32::MAX => len.saturating_sub(first) / record_len.max(1),
            records => u64::from(records),
        };
        let pages = word(&header[16..]);
        let segment = Self { records, pages, first, record_len, sector };
        Ok((is_valid && records > 0).then_some(segment))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_journal_knows_the_database_before_and_in_its_transaction_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let connection = Connection::open(path("db")).unwrap();
        connection
            .execute_batch("PRAGMA cache_size = 5; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
            .unwrap();
        let backup = fs::read(path("db")).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (zeroblob(90000))").unwrap();
        connection.execute_batch("UPDATE t SET a = 2 WHERE a = 1").unwrap();
        let before = fs::read(path("db")).unwrap();
        assert_eq!(read(&mut io::Cursor::new(vec![0; 5000])).unwrap(), None);
        // More than the cache holds, so that the journal is flushed in the midst of it.
        connection
            .execute_batch(
                "BEGIN; UPDATE t SET a = zeroblob(200000) WHERE a = 2; PRAGMA user_version = 1",
            )
            .unwrap();
        let journal = read(&mut File::open(path("db-journal")).unwrap()).unwrap().unwrap();
        assert_eq!(journal.pages as usize, before.len() / 4096);
        assert!(journal.is_of(&before) && journal.is_of(&fs::read(path("db")).unwrap()));
        assert!(!journal.is_of(&[]));
        assert!(journal.change_counter.is_some() && !journal.is_of(&backup));
    }
}
