//! Making a new database.

use std::fs::File;

use kvstore_core::local::io_error;
use kvstore_core::{ErrorKind, Result};

use crate::SqliteOptions;
use crate::connection::{make_durable, open_writer};
use crate::error::{engine, error};
use crate::location::Location;
use crate::schema;

/// What is added to the database's name while it is made.
const TEMPORARY: &str = ".creating";

/// Makes the database if it is missing: under another name first, since SQLite would let a crash
/// leave half of one. Returns whether it made one.
pub(crate) fn create(location: &Location, options: &SqliteOptions) -> Result<bool> {
    let directory = &location.directory;
    // What a crash left while the database was made; nothing was ever stored in it.
    remove_temporary(location)?;
    let has = |suffix: &str| {
        let path = location.path_beside(suffix);
        directory
            .has(location.name_beside(suffix))
            .map_err(|source| io_error("open", &path, source))
    };
    if has("")? {
        return Ok(false);
    }
    for suffix in ["-wal", "-journal"] {
        if has(suffix)? {
            let message = format!(
                "{} is there without the database that it belongs to; it may hold what was \
                 acknowledged last: bring the database back, or move the log away",
                location.path_beside(suffix).display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
    }
    let made = create_temporary(location, options).and_then(|()| {
        directory
            .rename(location.name_beside(TEMPORARY), location.name_beside(""))
            .map_err(|source| io_error("create", location.path(), source))
    });
    if let Err(error) = made {
        remove_temporary(location)?;
        return Err(error);
    }
    directory.sync()?;
    Ok(true)
}

/// In rollback journal mode, and WAL mode last: SQLite would not say that a full disk kept it from
/// moving its log into the database.
fn create_temporary(location: &Location, options: &SqliteOptions) -> Result<()> {
    let path = location.path_beside(TEMPORARY);
    let failed = |source| io_error("create", &path, source);
    location.directory.create_file(location.name_beside(TEMPORARY)).map_err(failed)?;
    let mut connection = open_writer(&path, options.busy_timeout)?;
    let found = schema::find(&connection, options.table.as_deref())?;
    schema::prepare(&mut connection, found, false)?;
    let (connection, _) = make_durable(connection, &path, options.busy_timeout)?;
    connection.close().map_err(|(_, source)| engine("create", source))?;
    let log = location.name_beside(&format!("{TEMPORARY}-wal"));
    if location.directory.has(log).map_err(failed)? {
        let message = "the new database could not be finished; make room and try again";
        return Err(error(ErrorKind::StorageFull, "create", message));
    }
    remove(location, &format!("{TEMPORARY}-shm"))?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(failed)
}

fn remove_temporary(location: &Location) -> Result<()> {
    ["", "-wal", "-shm", "-journal"]
        .iter()
        .try_for_each(|suffix| remove(location, &format!("{TEMPORARY}{suffix}")))
}

fn remove(location: &Location, suffix: &str) -> Result<()> {
    let removed = location.directory.remove_file(location.name_beside(suffix));
    removed.map_err(|source| io_error("create", &location.path_beside(suffix), source))
}
