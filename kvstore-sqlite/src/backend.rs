//! The engine's facts behind the [`Backend`] trait.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kvstore_core::local::{OwnerLock, create_dir_all, io_error, private, sync_ancestors, sync_dir};
use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Key, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::SqliteOptions;
use crate::connection::{check_library, make_durable, open_reader, open_writer};
use crate::error::{self, engine, error};
use crate::queries::Queries;
use crate::readers::Readers;
use crate::schema;

/// An SQLite database in WAL mode with one writer and a pool of readers; see the crate's page.
pub struct SqliteBackend {
    path: PathBuf,
    queries: Queries,
    /// Dropped before the writer, whose connection is the last one and tidies up.
    readers: Readers,
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    connection: Connection,
    /// The largest creation number given out; unused with schema 2, whose triggers number.
    last_created: i64,
    /// Dropped after the connection, so that the next owner finds the files at rest.
    _lock: OwnerLock,
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
        check_library(rusqlite::version_number())?;
        let path = locate(options).map_err(named)?;
        let about_path = |error: Error| about(error, &path);
        let lock = OwnerLock::acquire(&beside(&path, ".kvstore-lock")).map_err(named)?;
        create(&path, options).map_err(about_path)?;
        // Not before: the new name that a crash left beside the old one is none.
        refuse_second_name(&path).map_err(named)?;
        let mut connection = open_writer(&path, options.busy_timeout).map_err(about_path)?;
        let table = options.table.as_deref();
        let found = schema::find(&connection, table).map_err(about_path)?;
        if let Some(missing) = found.missing().filter(|_| !options.create) {
            let message = format!("{} holds no table {missing}", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        make_durable(&connection).map_err(about_path)?;
        settle(&connection, &path).map_err(about_path)?;
        let schema =
            schema::prepare(&mut connection, found, options.upgrade_schema).map_err(about_path)?;
        let queries = Queries::new(&schema);
        let last_created = last_created(&connection, &queries).map_err(about_path)?;
        let readers = (0..options.readers.max(1))
            .map(|_| open_reader(&path, options.busy_timeout))
            .collect::<Result<_>>()
            .map_err(about_path)?;
        let writer = Writer { connection, last_created, _lock: lock };
        Ok(Self { queries, readers: Readers::new(readers), writer: Mutex::new(Some(writer)), path })
    }

    /// The database file, with symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file's real path, so that two ways to it meet at one lock.
fn locate(options: &SqliteOptions) -> Result<PathBuf> {
    let path = &options.path;
    let Some(name) = path.file_name() else {
        let message = format!("{} does not name a file", path.display());
        return Err(error(ErrorKind::InvalidInput, "open", message));
    };
    if path.is_dir() {
        let message = format!("{} is a directory; name the database file in it", path.display());
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    match path.canonicalize() {
        Ok(real) => return Ok(real),
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("open", path, source));
        }
        Err(_) if path.is_symlink() => {
            let message = format!("{} is a link to a file that is not there", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        Err(_) if !options.create => {
            let message = format!("{} does not exist", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        Err(_) => {}
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    create_dir_all(parent)?;
    let parent = parent.canonicalize().map_err(|source| io_error("open", parent, source))?;
    Ok(parent.join(name))
}

/// Refuses a file that has another name too: the lock and SQLite's log go by the name, so that an
/// owner by each would not see the other.
fn refuse_second_name(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path).map_err(|source| io_error("open", path, source))?;
        if metadata.is_file() && metadata.nlink() > 1 {
            let message = format!(
                "{} has another name, a hard link, by which it could be opened a second time; \
                 remove that link",
                path.display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
    }
    Ok(())
}

/// Makes durable what this owner goes on from.
///
/// A process that was killed in its flush may have left a commit that only the page cache holds.
/// To acknowledge the same again would write nothing, and so flush nothing. The checkpoint flushes
/// the log, moves it into the database, and flushes that; the directory holds the files' names.
fn settle(connection: &Connection, path: &Path) -> Result<()> {
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
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a new database under another name first: SQLite would let a crash leave half of one.
fn create(path: &Path, options: &SqliteOptions) -> Result<()> {
    let temporary = beside(path, ".creating");
    // What a crash left while the database was made; nothing was ever stored in it.
    remove_database(&temporary)?;
    if path.try_exists().map_err(|source| io_error("open", path, source))? {
        return Ok(());
    }
    for suffix in ["-wal", "-journal"] {
        let log = beside(path, suffix);
        if log.exists() {
            let message = format!(
                "{} is there without the database that it belongs to; it may hold what was \
                 acknowledged last: bring the database back, or move the log away",
                log.display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
    }
    let made = create_at(&temporary, options).and_then(|()| {
        fs::rename(&temporary, path).map_err(|source| io_error("create", path, source))
    });
    if let Err(error) = made {
        remove_database(&temporary)?;
        return Err(error);
    }
    sync_ancestors(path.parent().unwrap_or(Path::new(".")))
}

/// In rollback journal mode, and WAL mode last: SQLite would not say that a full disk kept it from
/// moving its log into the database.
fn create_at(path: &Path, options: &SqliteOptions) -> Result<()> {
    let failed = |source| io_error("create", path, source);
    private(OpenOptions::new().write(true).create_new(true)).open(path).map_err(failed)?;
    let mut connection = open_writer(path, options.busy_timeout)?;
    let found = schema::find(&connection, options.table.as_deref())?;
    schema::prepare(&mut connection, found, false)?;
    make_durable(&connection)?;
    connection.close().map_err(|(_, source)| engine("create", source))?;
    if beside(path, "-wal").exists() {
        let message = "the new database could not be finished; make room and try again";
        return Err(error(ErrorKind::StorageFull, "create", message));
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}

fn remove_database(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let file = beside(path, suffix);
        match fs::remove_file(&file) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("create", &file, source));
            }
            _ => {}
        }
    }
    Ok(())
}

fn last_created(connection: &Connection, queries: &Queries) -> Result<i64> {
    let Some(sql) = &queries.last_created else { return Ok(0) };
    let last: Option<i64> =
        connection.query_row(sql, [], |row| row.get(0)).map_err(|source| engine("open", source))?;
    // Not a number that a removed entry had: a page token may still name it. The clock is past all
    // of them, unless it was set back; in nanoseconds, since no entry is written faster.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(last.unwrap_or(0).max(i64::try_from(now).unwrap_or(0)))
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

impl Writer {
    fn commit(&mut self, queries: &Queries, mutations: &[Mutation]) -> rusqlite::Result<()> {
        let Self { connection, last_created, .. } = self;
        // SQLite gives a statement of its own its own transaction.
        if let [mutation @ (Mutation::Put { renew: false, .. } | Mutation::Remove { .. })] =
            mutations
        {
            return apply(connection, queries, mutation, last_created);
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for mutation in mutations {
            apply(&transaction, queries, mutation, last_created)?;
        }
        transaction.commit()
    }
}

fn apply(
    connection: &Connection,
    queries: &Queries,
    mutation: &Mutation,
    last_created: &mut i64,
) -> rusqlite::Result<()> {
    let id = mutation.id();
    let remove = || {
        let mut statement = connection.prepare_cached(&queries.remove)?;
        statement.execute([id.primary(), id.secondary(), id.key()])
    };
    let Mutation::Put { value, renew, .. } = mutation else {
        return remove().map(drop);
    };
    if *renew {
        remove()?;
    }
    let mut statement = connection.prepare_cached(&queries.upsert)?;
    let (primary, secondary, key, value) = (id.primary(), id.secondary(), id.key(), &value[..]);
    // A number that an update leaves unused is only a gap in the order. A foreign row may hold the
    // largest number: then the keys decide among those that share it.
    *last_created = last_created.saturating_add(1);
    match statement.parameter_count() {
        5 => statement.execute(params![primary, secondary, key, value, *last_created]),
        _ => statement.execute(params![primary, secondary, key, value]),
    }
    .map(drop)
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
        writer.commit(&self.queries, mutations).map_err(error::commit)
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
