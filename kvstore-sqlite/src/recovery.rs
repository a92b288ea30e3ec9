//! What a crash or an operator left beside the database, before SQLite acts on it.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;

use kvstore_core::local::{flush_error, io_error};
use kvstore_core::{Error, ErrorKind, Result};

use crate::error::error;
use crate::location::Location;
use crate::wal::{self, Failure, Log};

/// Flushes the files and checks the log. Returns what the log holds, if it holds a commit.
///
/// A process that was killed in its flush may have left a commit that only the page cache holds, and
/// a database that was copied here a moment ago may not be on the disk at all. To go on from it
/// unflushed would let the loss of power take what is acknowledged on top of it.
///
/// No connection of this process may be open: the system drops SQLite's locks on the database when
/// any descriptor of it is closed.
pub(crate) fn prepare(location: &Location) -> Result<Option<Log>> {
    for suffix in ["", "-journal"] {
        if let Some(file) = open(location, suffix)? {
            flush(&file, &location.path_beside(suffix))?;
        }
    }
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
    let what = match failure {
        Failure::Io(source) => return io_error("open", path, source),
        Failure::Header => "its header".to_owned(),
        Failure::Frame(number) => format!("frame {number}, which later commits follow"),
    };
    let message = format!(
        "{} is damaged at {what}, and SQLite would drop what was committed from there on without a \
         word; keep a copy of it and of the database, and recover the channels; to go on without \
         those commits, move the log away",
        path.display()
    );
    error(ErrorKind::Corrupted, "open", message)
}
