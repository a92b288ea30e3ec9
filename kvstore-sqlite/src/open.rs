//! Opening the store, step by step.

use std::path::Path;
use std::sync::Mutex;

use kvstore_core::local::io_error;
use kvstore_core::{Error, ErrorKind, Result, log};
use rusqlite::Connection;

use crate::backend::SqliteBackend;
use crate::connection::{check_library, make_durable, open_reader, open_writer};
use crate::create::create;
use crate::error::{engine, error};
use crate::location::Location;
use crate::queries::Queries;
use crate::readers::Readers;
use crate::stamp::Stamper;
use crate::writer::{Writer, last_created};
use crate::{SqliteOptions, recovery, schema};

pub(crate) fn open(options: &SqliteOptions) -> Result<SqliteBackend> {
    check_library(rusqlite::version_number())?;
    let location = Location::find(options).map_err(named)?;
    let lock = location.lock().map_err(named)?;
    let about_path = |error: Error| about(location.explain(error, 0), location.path());
    if create(&location, options).map_err(about_path)? {
        log(|| tracing::info!(path = %location.path().display(), "new store made"));
    }
    location.refuse_second_path().map_err(named)?;
    location.refuse_links().map_err(named)?;
    #[cfg(target_os = "linux")]
    location.refuse_open_in_this_process().map_err(named)?;
    let recovered = recovery::prepare(&location).map_err(named)?;
    let path = location.path();
    let connection = open_writer(path, options.busy_timeout).map_err(about_path)?;
    let found = schema::find(&connection, options.table.as_deref()).map_err(about_path)?;
    if let Some(missing) = found.missing().filter(|_| !options.create) {
        let message = format!("{} holds no table {missing}", path.display());
        return Err(error(ErrorKind::Missing, "open", message));
    }
    location.make_private().map_err(named)?;
    let (mut connection, has_log) =
        make_durable(connection, path, options.busy_timeout).map_err(about_path)?;
    if !has_log {
        // Of the attempt to use a log, or of an earlier place with shared memory.
        remove_shared_memory(&location).map_err(named)?;
    }
    settle(&connection, &location).map_err(about_path)?;
    let schema =
        schema::prepare(&mut connection, found, options.upgrade_schema).map_err(about_path)?;
    let queries = Queries::new(&schema);
    let last_created = last_created(&connection, &queries).map_err(about_path)?;
    let readers = (0..options.readers.max(1))
        .map(|_| open_reader(path, options.busy_timeout))
        .collect::<Result<_>>()
        .map_err(about_path)?;
    let stamper = match has_log {
        true => {
            let name = location.name_beside("-wal");
            let file = location.directory.open_file(&name);
            let file =
                file.map_err(|source| io_error("open", &location.path_beside("-wal"), source));
            Some(Stamper::new(file.map_err(named)?, recovered.map(|log| log.salts)))
        }
        false => None,
    };
    Ok(SqliteBackend {
        path: path.to_owned(),
        queries,
        readers: Readers::new(readers),
        writer: Mutex::new(Some(Writer {
            connection,
            last_created,
            stamper,
            location,
            busy_timeout: options.busy_timeout,
            _lock: lock,
        })),
    })
}

/// Moves the log into the database as far as others who read it allow, and makes the names of the
/// files durable.
///
/// The log itself is flushed already; see [`recovery::prepare`].
fn settle(connection: &Connection, location: &Location) -> Result<()> {
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    match checkpoint.map_err(|source| location.explain(engine("open", source), 0)) {
        Err(full) if full.kind() == ErrorKind::StorageFull => {
            log(|| tracing::warn!(error = %full, "the log stays beside the database"));
        }
        checkpoint => checkpoint?,
    }
    location.directory.sync()
}

fn remove_shared_memory(location: &Location) -> Result<()> {
    let removed = location.directory.remove_file(location.name_beside("-shm"));
    removed.map_err(|source| io_error("open", &location.path_beside("-shm"), source))
}

fn named(error: Error) -> Error {
    error.with_backend("sqlite")
}

/// Says which file an error of opening is about, where its message does not.
fn about(error: Error, path: &Path) -> Error {
    let path = path.display().to_string();
    if error.message().contains(&path) {
        return named(error);
    }
    let message = format!("{path}: {}", error.message());
    named(Error::new(error.kind(), error.operation(), message)).with_source(error)
}
