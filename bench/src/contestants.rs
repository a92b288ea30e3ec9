//! Who writes, and how.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lightning_0_3::util::persist::{KVStore, KVStoreSync};
use lightning_kvstore::{DynStore, EntryId, open};
use lightning_persister_0_3::fs_store::v2::{FilesystemStoreV2, FilesystemStoreV2Error};
use rusqlite::{Connection, params};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::Measured;

type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Keys are used again, as a node's are, but never the same twice in a row.
pub const FEW_KEYS: usize = 1000;

fn key(at: usize) -> String {
    format!("key_{at:08}")
}

/// Writes one value after the other.
pub fn one_by_one(
    writes: usize,
    len: usize,
    mut write: impl FnMut(usize, Vec<u8>) -> Done,
) -> Measured {
    let start = Instant::now();
    for at in 0..writes {
        write(at % FEW_KEYS, vec![at as u8; len])?;
    }
    Ok(writes as f64 / start.elapsed().as_secs_f64())
}

/// A contestant that many tasks write to at once.
pub trait Concurrent: Send + Sync + 'static {
    fn write(&self, at: usize, value: Vec<u8>) -> impl Future<Output = Done> + Send;
}

/// Lets 64 tasks write, each one value after the other to keys of its own, `keys` in all.
pub async fn concurrent<C: Concurrent>(
    writes: usize,
    len: usize,
    keys: usize,
    contestant: C,
) -> Measured {
    let contestant = Arc::new(contestant);
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let contestant = Arc::clone(&contestant);
            tokio::spawn(async move {
                for round in 0..writes / 64 {
                    let at = (round * 64 + task) % keys;
                    contestant.write(at, vec![round as u8; len]).await?;
                }
                Done::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok((writes / 64 * 64) as f64 / start.elapsed().as_secs_f64())
}

/// The limit: what the disk does with nothing in between.
pub struct RawAppend(File);

impl RawAppend {
    pub fn create(directory: &Path) -> std::io::Result<Self> {
        File::create(directory.join("raw")).map(Self)
    }

    pub fn sync(mut self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |_, value| {
            self.0.write_all(&value)?;
            Ok(self.0.sync_data()?)
        }
    }

    /// Appends groups of values, with one flush for each group.
    pub fn groups(mut self, writes: usize, group: usize, len: usize) -> Measured {
        let start = Instant::now();
        for at in 0..writes / group {
            for _ in 0..group {
                self.0.write_all(&vec![at as u8; len])?;
            }
            self.0.sync_data()?;
        }
        Ok((writes / group * group) as f64 / start.elapsed().as_secs_f64())
    }
}

/// SQLite as fast as one connection makes it.
pub struct Rusqlite(Connection);

impl Rusqlite {
    pub fn create(directory: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(directory.join("bare"))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL; CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB);",
        )?;
        Ok(Self(connection))
    }

    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| {
            let sql = "INSERT INTO entries (key, value) VALUES (?1, ?2) \
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            self.0.prepare_cached(sql)?.execute(params![key(at), value])?;
            Ok(())
        }
    }
}

/// One transaction per write in rollback journal mode, behind a mutex, in a blocking task.
pub struct LdkNodeWay(Arc<Mutex<Connection>>);

impl LdkNodeWay {
    pub fn create(directory: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(directory.join("ldk_node"))?;
        connection.execute_batch(
            "CREATE TABLE ldk_data (primary_namespace TEXT NOT NULL, secondary_namespace TEXT \
             DEFAULT '' NOT NULL, key TEXT NOT NULL CHECK (key <> ''), value BLOB, PRIMARY KEY \
             (primary_namespace, secondary_namespace, key));",
        )?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    fn put(connection: &Mutex<Connection>, at: usize, value: &[u8]) -> Done {
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "INSERT OR REPLACE INTO ldk_data (primary_namespace, secondary_namespace, key, \
                   value) VALUES (?1, ?2, ?3, ?4)";
        connection.prepare_cached(sql)?.execute(params!["bench", "", key(at), value])?;
        Ok(())
    }

    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| Self::put(&self.0, at, &value)
    }
}

impl Concurrent for LdkNodeWay {
    async fn write(&self, at: usize, value: Vec<u8>) -> Done {
        let connection = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || Self::put(&connection, at, &value)).await?
    }
}

/// As `PostgresStore` of ldk-node's main branch: ten connections, each behind a mutex, and a
/// statement that is prepared anew for every write.
pub struct LdkNodePostgres {
    connections: Vec<tokio::sync::Mutex<Client>>,
    next: AtomicUsize,
}

impl LdkNodePostgres {
    /// Makes the table and connects.
    pub async fn create(url: &str) -> Result<Self, tokio_postgres::Error> {
        let mut connections = Vec::new();
        for _ in 0..10 {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            connections.push(tokio::sync::Mutex::new(client));
        }
        let table = "DROP TABLE IF EXISTS ldk_node; CREATE TABLE ldk_node (
             primary_namespace TEXT NOT NULL,
             secondary_namespace TEXT NOT NULL DEFAULT '',
             key TEXT NOT NULL CHECK (key <> ''),
             value BYTEA,
             sort_order BIGSERIAL CHECK (sort_order >= 0),
             PRIMARY KEY (primary_namespace, secondary_namespace, key));
         CREATE INDEX ON ldk_node (primary_namespace, secondary_namespace, sort_order DESC, key)";
        connections[0].lock().await.batch_execute(table).await?;
        Ok(Self { connections, next: AtomicUsize::new(0) })
    }

    async fn execute(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Done {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        self.connections[at].lock().await.execute(sql, parameters).await?;
        Ok(())
    }

    pub async fn remove(&self, removes: usize) -> Measured {
        for at in 0..removes {
            self.write(at, vec![1; 100]).await?;
        }
        let start = Instant::now();
        let sql = "DELETE FROM ldk_node WHERE primary_namespace = $1 AND \
                   secondary_namespace = $2 AND key = $3";
        for at in 0..removes {
            self.execute(sql, &[&"bench", &"", &key(at)]).await?;
        }
        Ok(removes as f64 / start.elapsed().as_secs_f64())
    }
}

impl Concurrent for LdkNodePostgres {
    async fn write(&self, at: usize, value: Vec<u8>) -> Done {
        let sql = "INSERT INTO ldk_node (primary_namespace, secondary_namespace, key, value) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT (primary_namespace, secondary_namespace, \
                   key) DO UPDATE SET value = EXCLUDED.value";
        self.execute(sql, &[&"bench", &"", &key(at), &value]).await
    }
}

/// LDK's own store: a file per key, flushed and renamed, and the directory flushed.
pub struct Persister(FilesystemStoreV2);

impl Persister {
    pub fn create(directory: &Path) -> Result<Self, FilesystemStoreV2Error> {
        FilesystemStoreV2::new(directory.join("persister")).map(Self)
    }

    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| {
            let written = KVStoreSync::write(&self.0, "bench", "", &key(at), value);
            written.map_err(|error| format!("{error:?}").into())
        }
    }

    pub fn remove_lazily(&self, removes: usize) -> Measured {
        for at in 0..removes {
            let put = KVStoreSync::write(&self.0, "bench", "", &key(at), vec![1; 100]);
            put.map_err(|error| format!("{error:?}"))?;
        }
        let start = Instant::now();
        for at in 0..removes {
            let removed = KVStoreSync::remove(&self.0, "bench", "", &key(at), true);
            removed.map_err(|error| format!("{error:?}"))?;
        }
        Ok(removes as f64 / start.elapsed().as_secs_f64())
    }
}

impl Concurrent for Persister {
    async fn write(&self, at: usize, value: Vec<u8>) -> Done {
        let written = KVStore::write(&self.0, "bench", "", &key(at), value).await;
        written.map_err(|error| format!("{error:?}").into())
    }
}

/// This project's store, opened by URL.
pub struct Ours(DynStore);

impl Ours {
    /// Opens a new store and writes once, which makes the journal that later writes use again.
    pub fn create(url: &str) -> Result<Self, lightning_kvstore::Error> {
        let store = open(url)?;
        store.put_blocking(&EntryId::new("bench", "", "first")?, vec![1])?;
        Ok(Self(store))
    }

    pub fn remove_lazily(&self, removes: usize) -> Measured {
        for at in 0..removes {
            drop(self.0.put(&EntryId::new("bench", "", &key(at))?, vec![1; 100]));
        }
        self.0.batch().commit_blocking()?;
        let start = Instant::now();
        for at in 0..removes {
            self.0.remove_lazy(&EntryId::new("bench", "", &key(at))?)?;
        }
        // Until they are on the disk.
        self.0.batch().commit_blocking()?;
        Ok(removes as f64 / start.elapsed().as_secs_f64())
    }

    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| Ok(self.0.put_blocking(&EntryId::new("bench", "", &key(at))?, value)?)
    }
}

impl Concurrent for Ours {
    async fn write(&self, at: usize, value: Vec<u8>) -> Done {
        Ok(self.0.put(&EntryId::new("bench", "", &key(at))?, value).await?)
    }
}
