//! What a crash or an operator left beside the database, before SQLite acts on it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use kvstore_core::local::{flush_error, io_error};
use kvstore_core::{Error, ErrorKind, Result};

use crate::error::error;
use crate::journal;
use crate::location::Location;
use crate::stamp::Stamp;
use crate::wal::{self, DatabaseHeader, Failure, Log};

const DATABASE_HEADER_LEN: usize = 100;

/// Flushes the files, checks the log, and that it is this database's. Returns what the log holds, if
/// it holds a commit.
///
/// A process that was killed in its flush may have left a commit that only the page cache holds, and
/// a database that was copied here a moment ago may not be on the disk at all. To go on from it
/// unflushed would let the loss of power take what is acknowledged on top of it.
///
/// No connection of this process may be open: the system drops SQLite's locks on the database when
/// any descriptor of it is closed.
pub(crate) fn prepare(location: &Location) -> Result<Option<Log>> {
    let Some(mut database) = open(location, "")? else { return Ok(None) };
    flush(&database, location.path())?;
    // The name of a database that an owner made and did not live to flush: a log beside it may
    // become durable before it does.
    location.directory.sync()?;
    let header =
        header(&mut database).map_err(|source| io_error("open", location.path(), source))?;
    if let Some(mut file) = open(location, "-journal")? {
        let path = location.path_beside("-journal");
        flush(&file, &path)?;
        let journal = journal::read(&mut file).map_err(|source| io_error("open", &path, source))?;
        if journal.is_some_and(|journal| !journal.is_of(&header)) {
            return Err(not_of_one_store(location, "journal", "-journal"));
        }
    }
    let log = read_log(location)?;
    if log.is_some_and(|log| !belongs(&header, &log)) {
        return Err(not_of_one_store(location, "log", "-wal"));
    }
    Ok(log)
}

fn not_of_one_store(location: &Location, what: &str, suffix: &str) -> Error {
    let restored = match suffix {
        "-wal" => {
            "; if it was restored through SQLite, close every program that has it open and run \
             PRAGMA wal_checkpoint(TRUNCATE) in sqlite3"
        }
        _ => "",
    };
    let message = format!(
        "the {what} {} does not belong to the database {}, which is of another time or another \
         store: bring back the database that it belongs to; or, if the database is known to be a \
         complete copy, move the {what} away to go on from this database alone{restored}",
        location.path_beside(suffix).display(),
        location.path().display()
    );
    error(ErrorKind::Unsupported, "open", message)
}

fn read_log(location: &Location) -> Result<Option<Log>> {
    let Some(file) = open(location, "-wal")? else { return Ok(None) };
    let path = location.path_beside("-wal");
    flush(&file, &path)?;
    let read = || -> Result<Option<Log>, Failure> {
        (&file).rewind()?;
        wal::read(BufReader::with_capacity(1 << 16, &file))
    };
    // Another program may have begun a new log while this one was read: a second look tells.
    read().or_else(|_| read()).map_err(|failure| damaged(&path, failure))
}

/// The start of the database, or as much of it as there is.
fn header(database: &mut File) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    database.take(DATABASE_HEADER_LEN as u64).read_to_end(&mut header)?;
    Ok(header)
}

/// Whether the log was begun on the database with this header.
///
/// The stamp tells the stores' own logs apart, the number of changes those of other programs too: the
/// database has the number of the log's first page 1, or the one before it, or a later one if a
/// checkpoint moved part of the log into it.
///
/// **Source**: <https://sqlite.org/fileformat2.html#the_database_header>.
fn belongs(header: &[u8], log: &Log) -> bool {
    if header.len() < DATABASE_HEADER_LEN {
        // SQLite would remove the log of an empty database.
        return false;
    }
    if !header.starts_with(b"SQLite format 3\0") {
        // SQLite says what it is.
        return true;
    }
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        size => u32::from(size),
    };
    let Some((oldest, newest)) = log.headers else { return page_size == log.page_size };
    let found = DatabaseHeader::parse(header);
    let before = oldest.change_counter.wrapping_sub(1);
    // The counter may wrap around.
    let is_in_range =
        found.change_counter.wrapping_sub(before) <= newest.change_counter.wrapping_sub(before);
    let stamp = Stamp::from_application_id(found.application_id);
    let with_log = Stamp::from_application_id(newest.application_id);
    page_size == log.page_size && is_in_range && stamp.is_of_same_store(with_log)
}

fn open(location: &Location, suffix: &str) -> Result<Option<File>> {
    match location.directory.open_file_to_write(location.name_beside(suffix)) {
        Ok(file) => Ok(Some(file)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("open", &location.path_beside(suffix), source)),
    }
}

fn flush(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|source| flush_error("open", path, source))
}

fn damaged(path: &Path, failure: Failure) -> Error {
    let (what, way_on) = match failure {
        Failure::Io(source) => return io_error("open", path, source),
        Failure::Header => (
            "its header".to_owned(),
            "to go on from the database alone, which may lack all of the log, move the log away"
                .to_owned(),
        ),
        Failure::Frame { number, offset } => (
            format!("frame {number}, which later commits follow"),
            format!("to go on with what was committed before, truncate the log to {offset} bytes"),
        ),
    };
    let message = format!(
        "{} is damaged at {what}, and SQLite would drop what was committed from there on without a \
         word; keep a copy of it and of the database, and recover the channels if an entry is lost; \
         {way_on}",
        path.display()
    );
    error(ErrorKind::Corrupted, "open", message)
}
