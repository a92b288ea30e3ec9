//! Opening connections, with the settings that durability rests on.

use std::path::Path;
use std::time::Duration;

use kvstore_core::{ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};

use crate::error::{engine, error};

/// The first release without the WAL-reset bug, which can corrupt a WAL database that two or more
/// connections use.
///
/// **Source**: SQLite's release notes of 3.51.3.
const OLDEST_LIBRARY: i32 = 3_051_003;

pub(crate) fn check_library(version_number: i32) -> Result<()> {
    if version_number >= OLDEST_LIBRARY {
        return Ok(());
    }
    let (major, minor, patch) =
        (version_number / 1_000_000, version_number / 1000 % 1000, version_number % 1000);
    Err(error(
        ErrorKind::Unsupported,
        "open",
        format!(
            "the SQLite library is {major}.{minor}.{patch}, and before 3.51.3 it can corrupt a \
             database in WAL mode; use the feature `bundled` or a newer library"
        ),
    ))
}

/// Opens the one connection that writes. Changes nothing in the file.
pub(crate) fn open_writer(path: &Path, busy_timeout: Duration) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout)?;
    if connection.is_readonly("main").map_err(|source| engine("open", source))? {
        let message = format!("{} is write-protected; make it writable", path.display());
        return Err(error(ErrorKind::PermissionDenied, "open", message));
    }
    Ok(connection)
}

pub(crate) fn open_reader(path: &Path, busy_timeout: Duration) -> Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout)
}

fn open(path: &Path, mode: OpenFlags, busy_timeout: Duration) -> Result<Connection> {
    // Each connection is used by one thread at a time, and a path is a path, never a URI.
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|source| engine("open", source))?;
    let busy_timeout = busy_timeout.min(Duration::from_millis(i32::MAX as u64));
    connection.busy_timeout(busy_timeout).map_err(|source| engine("open", source))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Makes commits durable: a write-ahead log that is flushed at every commit, or, on a file system
/// that has no shared memory for one, a rollback journal whose removal is flushed too.
///
/// **Source**: SQLite's "PRAGMA synchronous": FULL is durable in WAL mode; with a rollback journal
/// it takes EXTRA to survive the loss of power right after a commit.
pub(crate) fn make_durable(connection: &Connection) -> Result<()> {
    let failed = |source| engine("open", source);
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    let (synchronous, level) = if mode == "wal" { ("FULL", 2) } else { ("EXTRA", 3) };
    if mode != "wal" {
        tracing::warn!(mode, "no write-ahead log on this file system: commits block reads");
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(failed)?;
    }
    // `fullfsync` asks macOS for a flush that reaches the disk; other systems ignore it.
    let settings = format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA fullfsync = ON; \
         PRAGMA checkpoint_fullfsync = ON; PRAGMA journal_size_limit = {WAL_KEPT_BYTES};"
    );
    connection.execute_batch(&settings).map_err(failed)?;
    let found: i64 =
        connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(failed)?;
    if found != level {
        let message = format!("SQLite keeps synchronous at {found} instead of {level}");
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    Ok(())
}

/// What a log that grew for a large value is cut back to at the next checkpoint.
const WAL_KEPT_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_with_the_wal_reset_bug_are_refused() {
        assert!(check_library(3_051_003).is_ok());
        let error = check_library(3_051_002).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("3.51.2"), "{error}");
        assert!(check_library(rusqlite::version_number()).is_ok());
    }
}
