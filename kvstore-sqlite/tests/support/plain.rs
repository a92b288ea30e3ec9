//! SQLite with one table and no care, to see what a setting loses.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Key, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};
use rusqlite::{Connection, OptionalExtension, params};

pub(crate) struct Plain(Mutex<Connection>);

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        created INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, value BLOB NOT NULL
    )";
const PUT: &str = "
    INSERT INTO entries (id, value) VALUES (?1, ?2)
    ON CONFLICT (id) DO UPDATE SET value = excluded.value";
const LIST: &str = "SELECT id, created, value FROM entries ORDER BY created DESC";

type Row = (EntryId, u64, Vec<u8>);

fn failed(error: rusqlite::Error) -> Error {
    Error::new(ErrorKind::Io, "sqlite", error.to_string())
}

fn text(id: &EntryId) -> String {
    format!("{}/{}/{}", id.primary(), id.secondary(), id.key())
}

fn parse(text: &str) -> EntryId {
    let names: Vec<_> = text.split('/').collect();
    EntryId::new(names[0], names[1], names[2]).unwrap()
}

impl Plain {
    pub(crate) fn open(directory: &Path, synchronous: &str) -> Result<Self> {
        let connection = Connection::open(directory.join("plain.sqlite")).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        connection.execute_batch(TABLE).map_err(failed)?;
        // What a killed process left in the page cache alone.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let connection = self.lock();
        let mut statement = connection.prepare(LIST).map_err(failed)?;
        let rows = statement.query_map([], |row| {
            let (id, created): (String, i64) = (row.get(0)?, row.get(1)?);
            Ok((parse(&id), created.unsigned_abs(), row.get(2)?))
        });
        rows.and_then(Iterator::collect).map_err(failed)
    }
}

#[async_trait]
impl Backend for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn blocks(&self) -> bool {
        true
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(failed)?;
        for mutation in mutations {
            let id = text(mutation.id());
            match mutation.value() {
                Some(value) => transaction.execute(PUT, params![id, &value[..]]),
                None => transaction.execute("DELETE FROM entries WHERE id = ?1", [id]),
            }
            .map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT value FROM entries WHERE id = ?1";
        self.lock().query_row(sql, [text(id)], |row| row.get(0)).optional().map_err(failed)
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let rows = self.rows()?.into_iter().filter(|(id, created, _)| {
            id.is_in(namespace) && after.is_none_or(|after| *created < after.created)
        });
        let entries = rows.take(limit).map(|(id, created, value)| {
            let position = Position { created, key: Key::new(id.key())? };
            Ok(PageEntry { position, value: values.then_some(value) })
        });
        entries.collect()
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let rows = self.rows()?.into_iter();
        let entry =
            |(id, created, value): Row| EntryInfo { id, value_len: value.len() as u64, created };
        Ok(rows.map(entry).collect())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
