//! Opening the store, step by step.

use std::path::Path;
use std::sync::Mutex;

use kvstore_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::backend::SqliteBackend;
use crate::connection::{check_library, make_durable, open_reader, open_writer};
use crate::create::create;
use crate::error::{engine, error};
use crate::location::Location;
use crate::queries::Queries;
use crate::readers::Readers;
use crate::writer::{Writer, last_created};
use crate::{SqliteOptions, schema};

pub(crate) fn open(options: &SqliteOptions) -> Result<SqliteBackend> {
    check_library(rusqlite::version_number())?;
    let location = Location::find(options).map_err(named)?;
    let lock = location.lock().map_err(named)?;
    let about_path = |error: Error| about(error, location.path());
    create(&location, options).map_err(about_path)?;
    location.refuse_second_path().map_err(named)?;
    let path = location.path();
    let mut connection = open_writer(path, options.busy_timeout).map_err(about_path)?;
    let found = schema::find(&connection, options.table.as_deref()).map_err(about_path)?;
    if let Some(missing) = found.missing().filter(|_| !options.create) {
        let message = format!("{} holds no table {missing}", path.display());
        return Err(error(ErrorKind::Missing, "open", message));
    }
    make_durable(&connection).map_err(about_path)?;
    settle(&connection, &location).map_err(about_path)?;
    let schema =
        schema::prepare(&mut connection, found, options.upgrade_schema).map_err(about_path)?;
    let queries = Queries::new(&schema);
    let last_created = last_created(&connection, &queries).map_err(about_path)?;
    let readers = (0..options.readers.max(1))
        .map(|_| open_reader(path, options.busy_timeout))
        .collect::<Result<_>>()
        .map_err(about_path)?;
    Ok(SqliteBackend {
        path: path.to_owned(),
        queries,
        readers: Readers::new(readers),
        writer: Mutex::new(Some(Writer { connection, last_created, _lock: lock })),
    })
}

/// Makes durable what this owner goes on from.
///
/// A process that was killed in its flush may have left a commit that only the page cache holds.
/// To acknowledge the same again would write nothing, and so flush nothing. The checkpoint flushes
/// the log, moves it into the database, and flushes that; the directory holds the files' names.
fn settle(connection: &Connection, location: &Location) -> Result<()> {
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    match checkpoint.map_err(|source| engine("open", source)) {
        Ok(0_i64) => {}
        Ok(_) => {
            let message = "another program reads the database; close it and try again";
            return Err(error(ErrorKind::Unavailable, "open", message));
        }
        // SQLite flushes the log before it copies anything, so what it holds is safe.
        Err(full) if full.kind() == ErrorKind::StorageFull => {
            tracing::warn!(error = %full, "the log stays beside the database");
        }
        Err(failure) => return Err(failure),
    }
    location.directory.sync()
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
