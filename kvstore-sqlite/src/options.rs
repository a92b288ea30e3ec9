//! Where the database is, and how to open it.

use std::path::PathBuf;
use std::time::Duration;

/// Where an SQLite store is and how to open it.
///
/// ```
/// use kvstore_sqlite::SqliteOptions;
///
/// let options = SqliteOptions::new("ldk_node_data.sqlite").table("ldk_node_data").create(false);
/// assert_eq!(options.table.as_deref(), Some("ldk_node_data"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The database file. Missing directories on the way to it are created with it.
    pub path: PathBuf,
    /// The table that holds the entries: letters, digits and `_`. By default the one such table
    /// that the file has, and in a new file `ldk_node_data`, the one that ldk-node uses.
    pub table: Option<String>,
    /// Whether to create the file if it is missing; `true` by default.
    pub create: bool,
    /// How many connections serve reads, 4 by default and at least 1.
    pub readers: usize,
    /// How long to wait for a program that holds SQLite's own lock on the file, such as the
    /// `sqlite3` shell: five seconds by default.
    pub busy_timeout: Duration,
    /// Whether to turn a file of schema 2 into schema 3, which keeps the creation order in the
    /// table itself. ldk-node 0.7.1 does not open such a file any more, so it is `false` by
    /// default.
    pub upgrade_schema: bool,
}

impl SqliteOptions {
    /// The default options for the database at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            table: None,
            create: true,
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            upgrade_schema: false,
        }
    }

    /// Sets [`table`](Self::table).
    #[must_use]
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`readers`](Self::readers).
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets [`busy_timeout`](Self::busy_timeout).
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets [`upgrade_schema`](Self::upgrade_schema).
    #[must_use]
    pub fn upgrade_schema(mut self, upgrade: bool) -> Self {
        self.upgrade_schema = upgrade;
        self
    }
}
