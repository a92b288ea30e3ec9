//! The engine's facts behind the [`Backend`] trait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Key, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, params};

use crate::SqliteOptions;
use crate::error::{engine, error};
use crate::open::open;
use crate::queries::Queries;
use crate::readers::Readers;
use crate::writer::Writer;

/// An SQLite database in WAL mode with one writer and a pool of readers; see the crate's page.
pub struct SqliteBackend {
    pub(crate) path: PathBuf,
    pub(crate) queries: Queries,
    /// Dropped before the writer, whose connection is the last one and tidies up.
    pub(crate) readers: Readers,
    /// `None` once closed.
    pub(crate) writer: Mutex<Option<Writer>>,
}

impl SqliteBackend {
    /// Opens the database, creating it if it is missing and the options allow it.
    ///
    /// **Durability**: a database that exists is complete: it is made under a temporary name,
    /// flushed and renamed. After a crash SQLite's own recovery runs here.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](ErrorKind::AlreadyOpen): another process, or this one, has it open.
    /// - [`Missing`](ErrorKind::Missing): there is no file and `create` is off.
    /// - [`Unsupported`](ErrorKind::Unsupported): another program's file, a newer schema, a
    ///   directory, or an SQLite library with the WAL-reset bug. Nothing is changed.
    /// - [`Corrupted`](ErrorKind::Corrupted): a damaged or truncated file.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied), [`InvalidInput`](ErrorKind::InvalidInput).
    pub fn open(options: &SqliteOptions) -> Result<Self> {
        open(options)
    }

    /// The database file, with symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn blocks(&self) -> bool {
        true
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = writer.as_mut() else {
            return Err(error(ErrorKind::Closed, "commit", "the store was closed"));
        };
        writer.commit(&self.queries, mutations)
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        self.readers.read(|connection| {
            let read = || {
                let mut statement = connection.prepare_cached(&self.queries.get)?;
                let names = [id.primary(), id.secondary(), id.key()];
                statement.query_row(names, |row| Ok(value(row, 0))).optional()
            };
            let found = read().map_err(|source| engine("get", source))?;
            found.transpose()
        })
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let sql = if values { &self.queries.page_values } else { &self.queries.page_keys };
        // Keys are never empty, so every one of the newest number comes after the empty text.
        let (created, key) = after.map_or((i64::MAX, ""), |after| {
            (i64::try_from(after.created).unwrap_or(i64::MAX), after.key.as_str())
        });
        // SQLite takes a negative limit for none.
        let limit = i64::try_from(limit).unwrap_or(-1);
        let parameters = params![namespace.primary(), namespace.secondary(), created, key, limit];
        self.rows("page", sql, parameters, |row| {
            Ok(PageEntry {
                position: Position { created: number(row, 1)?, key: Key::new(text(row, 0)?)? },
                value: if values { Some(value(row, 2)?) } else { None },
            })
        })
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        self.rows("list all", &self.queries.list_all, [], |row| {
            Ok(EntryInfo {
                id: EntryId::new(text(row, 0)?, text(row, 1)?, text(row, 2)?)?,
                value_len: number(row, 3)?,
                created: number(row, 4)?,
            })
        })
    }

    async fn close(&self) -> Result<()> {
        self.readers.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Writer { connection, _lock, .. }) = writer else { return Ok(()) };
        // The last connection moves the log into the database and removes it.
        connection.close().map_err(|(_, source)| engine("close", source))
    }
}

impl SqliteBackend {
    /// Runs one query and parses its rows. What breaks the rules of names or types was not written
    /// by a store of this kind, and says that the table is damaged.
    fn rows<T>(
        &self,
        operation: &'static str,
        sql: &str,
        parameters: impl rusqlite::Params,
        parse: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.readers.read(|connection| {
            let failed = |source| engine(operation, source);
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let mut rows = statement.query(parameters).map_err(failed)?;
            let mut parsed = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                parsed.push(parse(row).map_err(|error| damaged(operation, &error))?);
            }
            Ok(parsed)
        })
    }
}

fn damaged(operation: &'static str, cause: &Error) -> Error {
    let message = format!("the table holds a row that no store wrote: {}", cause.message());
    error(ErrorKind::Corrupted, operation, message).with_source(cause.clone())
}

fn value(row: &Row<'_>, column: usize) -> Result<Vec<u8>> {
    match row.get_ref(column) {
        Ok(ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => Ok(bytes.to_vec()),
        Ok(other) => Err(wrong_type("value", &format!("{:?}", other.data_type()))),
        Err(source) => Err(engine("read row", source)),
    }
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str> {
    let found = row.get_ref(column).map_err(|source| engine("read row", source))?;
    found.as_str().map_err(|source| wrong_type("name", &source.to_string()))
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    let found: i64 = row.get(column).map_err(|source| engine("read row", source))?;
    u64::try_from(found).map_err(|source| wrong_type("number", &source.to_string()))
}

fn wrong_type(what: &str, found: &str) -> Error {
    error(ErrorKind::Corrupted, "read row", format!("a {what} of the wrong type: {found}"))
}

impl fmt::Debug for SqliteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteBackend({})", self.path.display())
    }
}
