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

/// The error of a failed commit.
///
/// An I/O error may come from the flush, after the commit's record was written: SQLite shows
/// nothing of it then, but recovery after a crash may.
pub(crate) fn commit(source: rusqlite::Error) -> Error {
    let kind = match classify(&source) {
        ErrorKind::Io if primary_code(&source) == Some(ffi::SQLITE_IOERR) => ErrorKind::InDoubt,
        kind => kind,
    };
    with_source(kind, "commit", source)
}

fn with_source(kind: ErrorKind, operation: &'static str, source: rusqlite::Error) -> Error {
    let advice = match primary_code(&source) {
        Some(ffi::SQLITE_NOTADB) => Some(
            "it is another program's file, or its start is destroyed: name the right file, or \
             keep a copy of this one and recover the channels",
        ),
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
    match primary_code(error) {
        Some(ffi::SQLITE_CORRUPT | ffi::SQLITE_FORMAT) => ErrorKind::Corrupted,
        Some(ffi::SQLITE_NOTADB) => ErrorKind::Unsupported,
        Some(ffi::SQLITE_FULL) => ErrorKind::StorageFull,
        Some(ffi::SQLITE_TOOBIG) => ErrorKind::ValueTooLarge,
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL | ffi::SQLITE_NOMEM) => {
            ErrorKind::Unavailable
        }
        Some(ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_AUTH) => {
            ErrorKind::PermissionDenied
        }
        _ => ErrorKind::Io,
    }
}

/// Whether the file system cannot share memory between connections, as a write-ahead log needs it.
pub(crate) fn lacks_shared_memory(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error().map(|failure| failure.extended_code),
        Some(
            ffi::SQLITE_IOERR_SHMMAP
                | ffi::SQLITE_IOERR_SHMOPEN
                | ffi::SQLITE_IOERR_SHMLOCK
                | ffi::SQLITE_CANTOPEN
        )
    )
}

fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|failure| failure.extended_code & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    #[test]
    fn a_failed_flush_leaves_the_commit_in_doubt() {
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC, ffi::SQLITE_IOERR_WRITE]
        {
            let error = commit(failure(code));
            assert_eq!(error.kind(), ErrorKind::InDoubt);
            assert!(error.kind().poisons());
        }
        assert_eq!(engine("get", failure(ffi::SQLITE_IOERR_READ)).kind(), ErrorKind::Io);
    }

    #[test]
    fn a_full_disk_and_a_large_value_leave_the_store_usable() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, ErrorKind::StorageFull),
            (ffi::SQLITE_TOOBIG, ErrorKind::ValueTooLarge),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Unavailable),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Corrupted),
        ] {
            let error = commit(failure(code));
            assert_eq!(error.kind(), kind);
            assert!(!error.kind().poisons());
        }
    }
}
