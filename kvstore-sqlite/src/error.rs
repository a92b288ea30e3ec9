//! SQLite's result codes, classified once.

use kvstore_core::{Error, ErrorKind};
use rusqlite::ffi;

const NAME: &str = "sqlite";

pub(crate) fn error(
    kind: ErrorKind,
    operation: &'static str,
    message: impl Into<std::sync::Arc<str>>,
) -> Error {
    Error::new(kind, operation, message).with_backend(NAME)
}

/// The error of a failed read or of opening.
pub(crate) fn engine(operation: &'static str, source: rusqlite::Error) -> Error {
    with_source(classify(&source), operation, source)
}

/// The error of a failed write of a transaction, before its commit: nothing of it is in the log as a
/// commit. A failed flush stops the store all the same, since it is not to be tried again.
pub(crate) fn write_error(source: rusqlite::Error) -> Error {
    let kind = match extended_code(&source) {
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => ErrorKind::InDoubt,
        _ => classify(&source),
    };
    with_source(kind, "commit", source)
}

/// The error of a failed commit.
///
/// The record of the commit is written last, then flushed, then entered in the log's index. So a
/// write that failed left none. After any other error it may be there, and then recovery after a
/// crash shows the commit, although SQLite undid it: this goes for a failed flush, and for the index,
/// whose memory may not suffice.
pub(crate) fn commit_error(source: rusqlite::Error) -> Error {
    let kind = match (extended_code(&source), primary_code(&source)) {
        (Some(ffi::SQLITE_IOERR_WRITE), _) => ErrorKind::Io,
        (_, Some(ffi::SQLITE_IOERR | ffi::SQLITE_NOMEM)) => ErrorKind::InDoubt,
        _ => classify(&source),
    };
    with_source(kind, "commit", source)
}

fn with_source(kind: ErrorKind, operation: &'static str, source: rusqlite::Error) -> Error {
    let advice = match (extended_code(&source), primary_code(&source)) {
        (_, Some(ffi::SQLITE_NOTADB)) => Some(
            "it is another program's file, or its start is destroyed: name the right file, or \
             keep a copy of this one and recover the channels",
        ),
        (Some(ffi::SQLITE_READONLY_DBMOVED), _) => {
            Some("the file was moved or removed; reopen the store where it is now")
        }
        (_, Some(ffi::SQLITE_CANTOPEN)) => Some(
            "make its directory writable for this user, and raise the process's limit of open \
             files",
        ),
        (_, Some(ffi::SQLITE_NOMEM)) | (Some(ffi::SQLITE_IOERR_NOMEM), _) => {
            Some("the process is out of memory")
        }
        (_, Some(ffi::SQLITE_ERROR | ffi::SQLITE_CONSTRAINT)) => {
            Some("somebody changed the table, or gave it constraints of their own")
        }
        _ => advice(kind),
    };
    let message = match advice {
        Some(advice) => format!("{source}; {advice}"),
        None => source.to_string(),
    };
    error(kind, operation, message).with_source(source)
}

fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Corrupted => {
            "keep a copy of the file, and recover the channels instead of starting a node from an \
             older backup"
        }
        ErrorKind::StorageFull => "make room on the disk and try again",
        ErrorKind::ValueTooLarge => "SQLite holds at most 1000000000 bytes per entry",
        ErrorKind::Unavailable => "another program holds the database; close it and try again",
        ErrorKind::PermissionDenied => "make the file and its directory writable for this user",
        ErrorKind::InDoubt => "check the disk, then reopen the store to see what it holds",
        _ => return None,
    })
}

/// **Source**: SQLite's "Result and Error Codes".
pub(crate) fn classify(error: &rusqlite::Error) -> ErrorKind {
    let Some(code) = extended_code(error) else { return ErrorKind::Io };
    // Codes that say more than their class.
    match code {
        ffi::SQLITE_IOERR_SHMSIZE => return ErrorKind::StorageFull,
        ffi::SQLITE_IOERR_NOMEM => return ErrorKind::Unavailable,
        ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS => return ErrorKind::Corrupted,
        ffi::SQLITE_READONLY_DBMOVED => return ErrorKind::Missing,
        _ => {}
    }
    match code & 0xff {
        ffi::SQLITE_CORRUPT | ffi::SQLITE_FORMAT => ErrorKind::Corrupted,
        ffi::SQLITE_NOTADB => ErrorKind::Unsupported,
        ffi::SQLITE_FULL => ErrorKind::StorageFull,
        ffi::SQLITE_TOOBIG => ErrorKind::ValueTooLarge,
        ffi::SQLITE_BUSY
        | ffi::SQLITE_LOCKED
        | ffi::SQLITE_PROTOCOL
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_CANTOPEN => ErrorKind::Unavailable,
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => ErrorKind::PermissionDenied,
        // The table is not as it was when it was opened, or it refuses what is written.
        ffi::SQLITE_ERROR | ffi::SQLITE_SCHEMA | ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Io,
    }
}

/// Whether the file system cannot share memory between connections, as a write-ahead log needs it.
///
/// A file of shared memory that cannot be opened says nothing of the file system: the process may
/// have no descriptor left, and where a file cannot be made there is no rollback journal either.
pub(crate) fn lacks_shared_memory(error: &rusqlite::Error) -> bool {
    matches!(
        extended_code(error),
        Some(ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_IOERR_SHMLOCK)
    )
}

fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|failure| failure.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    #[test]
    fn a_failed_flush_leaves_the_commit_in_doubt() {
        for code in [
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_DIR_FSYNC,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_NOMEM,
        ] {
            let error = commit_error(failure(code));
            assert_eq!(error.kind(), ErrorKind::InDoubt);
            assert!(error.kind().poisons());
        }
        assert_eq!(write_error(failure(ffi::SQLITE_IOERR_FSYNC)).kind(), ErrorKind::InDoubt);
        assert_eq!(engine("get", failure(ffi::SQLITE_IOERR_READ)).kind(), ErrorKind::Io);
    }

    #[test]
    fn every_code_has_its_kind() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, ErrorKind::StorageFull),
            (ffi::SQLITE_TOOBIG, ErrorKind::ValueTooLarge),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Unavailable),
            (ffi::SQLITE_LOCKED, ErrorKind::Unavailable),
            (ffi::SQLITE_PROTOCOL, ErrorKind::Unavailable),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Unavailable),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Corrupted),
            (ffi::SQLITE_NOTADB, ErrorKind::Unsupported),
            (ffi::SQLITE_CONSTRAINT_CHECK, ErrorKind::Unsupported),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorKind::PermissionDenied),
            (ffi::SQLITE_READONLY_CANTINIT, ErrorKind::PermissionDenied),
            (ffi::SQLITE_READONLY_DBMOVED, ErrorKind::Missing),
            (ffi::SQLITE_IOERR_WRITE, ErrorKind::Io),
        ] {
            for error in [commit_error(failure(code)), engine("open", failure(code))] {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(!error.kind().poisons());
            }
        }
        for (code, kind) in [
            (ffi::SQLITE_IOERR_SHMSIZE, ErrorKind::StorageFull),
            (ffi::SQLITE_IOERR_NOMEM, ErrorKind::Unavailable),
            (ffi::SQLITE_NOMEM, ErrorKind::Unavailable),
            (ffi::SQLITE_IOERR_CORRUPTFS, ErrorKind::Corrupted),
            (ffi::SQLITE_IOERR_READ, ErrorKind::Io),
        ] {
            for error in [write_error(failure(code)), engine("get", failure(code))] {
                assert_eq!(error.kind(), kind, "{error}");
            }
        }
    }
}
