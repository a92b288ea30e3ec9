//! Opening connections, with the settings that durability rests on.

use std::path::Path;
use std::time::Duration;

use kvstore_core::{ErrorKind, Result, log};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{engine, error, lacks_shared_memory};

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
    match begin_to_read(&connection) {
        Err(source) if lacks_shared_memory(&source) => {
            drop(connection);
            open_exclusively(path, busy_timeout)
        }
        Err(source) => Err(engine("open", source)),
        Ok(()) => Ok(connection),
    }
}

/// Opens a connection that reads.
///
/// It opens the log at once: SQLite would look for it by its path at the first read, and the
/// directory may have been moved by then (contract G5).
pub(crate) fn open_reader(path: &Path, busy_timeout: Duration) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout)?;
    begin_to_read(&connection).map_err(|source| engine("open", source))?;
    Ok(connection)
}

fn open(path: &Path, mode: OpenFlags, busy_timeout: Duration) -> Result<Connection> {
    let failed = |source| engine("open", source);
    // Each connection is used by one thread at a time, and a path is a path, never a URI.
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(failed)?;
    set_busy_timeout(&connection, busy_timeout).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    distrust_schema(&connection).map_err(failed)?;
    Ok(connection)
}

/// Sets how long to wait for the locks of others, up to the most that SQLite takes.
pub(crate) fn set_busy_timeout(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(timeout.min(Duration::from_millis(i32::MAX as u64)))
}

/// Keeps what somebody may have put into the file from running here. A trigger could take an entry
/// away again, and no count of rows would show it (contract G7).
///
/// **Source**: <https://sqlite.org/security.html#untrusted_sqlite_database_files>.
fn distrust_schema(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")
}

/// Opens a connection that keeps everybody else out and the log's index in its own memory.
///
/// **Source**: <https://sqlite.org/wal.html#use_of_wal_without_shared_memory>.
fn open_exclusively(path: &Path, busy_timeout: Duration) -> Result<Connection> {
    let failed = |source| engine("open", source);
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout)?;
    text(&connection, "PRAGMA locking_mode = EXCLUSIVE").map_err(failed)?;
    begin_to_read(&connection).map_err(failed)?;
    Ok(connection)
}

fn begin_to_read(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn text(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    connection.query_row(sql, [], |row| row.get(0))
}

/// Makes commits durable: a write-ahead log that is flushed at every commit, or, on a file system
/// that has no shared memory for one, a rollback journal whose removal is flushed too. Returns the
/// connection to use and whether there is a log.
///
/// **Source**: SQLite's "PRAGMA synchronous": FULL is durable in WAL mode; with a rollback journal
/// it takes EXTRA to survive the loss of power right after a commit.
pub(crate) fn make_durable(
    mut connection: Connection,
    path: &Path,
    busy_timeout: Duration,
) -> Result<(Connection, bool)> {
    let failed = |source| engine("open", source);
    let has_log = match use_log(&connection) {
        Err(source) if lacks_shared_memory(&source) => {
            // A connection that has tried does not turn to memory of its own, and it holds a lock.
            drop(connection);
            connection = open_exclusively(path, busy_timeout)?;
            false
        }
        tried => tried.map_err(failed)?,
    };
    if !has_log {
        log(|| tracing::warn!("no write-ahead log on this file system: commits block reads"));
        use_rollback_journal(&connection)?;
    }
    let (synchronous, level) = if has_log { ("FULL", 2) } else { ("EXTRA", 3) };
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
    Ok((connection, has_log))
}

/// Turns to WAL mode. `false` if the file system has no shared memory for it.
fn use_log(connection: &Connection) -> rusqlite::Result<bool> {
    if text(connection, "PRAGMA locking_mode")? == "exclusive"
        || text(connection, "PRAGMA journal_mode = WAL")? != "wal"
    {
        return Ok(false);
    }
    // Only now the log and its shared memory are opened.
    begin_to_read(connection)?;
    Ok(true)
}

/// Turns to a rollback journal, with the log moved into the database, and lets others read.
fn use_rollback_journal(connection: &Connection) -> Result<()> {
    let failed = |source| engine("open", source);
    let mode = text(connection, "PRAGMA journal_mode = DELETE").map_err(failed)?;
    let locking = text(connection, "PRAGMA locking_mode = NORMAL").map_err(failed)?;
    if mode != "delete" || locking != "normal" {
        let message = format!(
            "this file system has no shared memory for a write-ahead log, and SQLite stays with \
             journal_mode {mode} and locking_mode {locking}; use a local disk"
        );
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    // The lock is given back at the end of the next read.
    begin_to_read(connection).map_err(failed)
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
