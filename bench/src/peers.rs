//! What nodes use today.

use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lightning_0_3::util::persist::{KVStore, KVStoreSync};
use lightning_kvstore::{EntryId, Namespace};
use lightning_persister_0_3::fs_store::v2::FilesystemStoreV2;
use rusqlite::{Connection, params};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use crate::contestants::{Contestant, entry};
use crate::{Answer, Done};

/// One transaction per write in rollback journal mode, behind a mutex, in a blocking task.
pub struct LdkNodeWay(Arc<Mutex<Connection>>);

impl LdkNodeWay {
    /// Calls in a blocking task.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let connection = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || call(&lock(&connection))).await?
    }

    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| put(&lock(&self.0), &entry(at)?, &value)
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(connection: &Connection, id: &EntryId, value: &[u8]) -> Done {
    let sql = "INSERT OR REPLACE INTO ldk_data (primary_namespace, secondary_namespace, key, \
               value) VALUES (?1, ?2, ?3, ?4)";
    let parameters = params![id.primary(), id.secondary(), id.key(), value];
    connection.prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}

impl Contestant for LdkNodeWay {
    async fn open(location: &str) -> Answer<Self> {
        let connection = Connection::open(Path::new(location).join("ldk_node"))?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS ldk_data (primary_namespace TEXT NOT NULL, \
             secondary_namespace TEXT DEFAULT '' NOT NULL, key TEXT NOT NULL CHECK (key <> ''), \
             value BLOB, PRIMARY KEY (primary_namespace, secondary_namespace, key));",
        )?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    async fn write(&self, id: &EntryId, value: Vec<u8>) -> Done {
        let id = id.clone();
        self.call(move |connection| put(connection, &id, &value)).await
    }

    async fn read(&self, id: &EntryId) -> Answer<Vec<u8>> {
        let sql = "SELECT value FROM ldk_data WHERE primary_namespace = ?1 AND \
                   secondary_namespace = ?2 AND key = ?3";
        let id = id.clone();
        self.call(move |connection| {
            let parameters = params![id.primary(), id.secondary(), id.key()];
            Ok(connection.prepare_cached(sql)?.query_row(parameters, |row| row.get(0))?)
        })
        .await
    }

    /// It has no other remove than the durable one.
    async fn remove_lazily(&self, id: &EntryId) -> Done {
        let sql = "DELETE FROM ldk_data WHERE primary_namespace = ?1 AND \
                   secondary_namespace = ?2 AND key = ?3";
        let id = id.clone();
        self.call(move |connection| {
            let parameters = params![id.primary(), id.secondary(), id.key()];
            connection.prepare_cached(sql)?.execute(parameters)?;
            Ok(())
        })
        .await
    }

    async fn list(&self, namespace: &Namespace) -> Answer<Vec<String>> {
        let sql = "SELECT key FROM ldk_data WHERE primary_namespace = ?1 AND \
                   secondary_namespace = ?2";
        let namespace = namespace.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let parameters = params![namespace.primary(), namespace.secondary()];
            let keys = statement.query_map(parameters, |row| row.get(0))?;
            Ok(keys.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// In one transaction, or it would take longer than what is measured.
    async fn fill(self: &Arc<Self>, entries: Vec<(EntryId, usize)>) -> Done {
        self.call(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            for (id, len) in entries {
                put(connection, &id, &vec![1; len])?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }
}

/// As `PostgresStore` of ldk-node's main branch: ten connections, each behind a mutex, and a
/// statement that is prepared anew for every call.
pub struct LdkNodePostgres {
    connections: Vec<tokio::sync::Mutex<Client>>,
    next: AtomicUsize,
}

impl LdkNodePostgres {
    async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Answer<Vec<Row>> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        Ok(self.connections[at].lock().await.query(sql, parameters).await?)
    }
}

impl Contestant for LdkNodePostgres {
    async fn open(location: &str) -> Answer<Self> {
        let mut connections = Vec::new();
        for _ in 0..10 {
            let (client, connection) = tokio_postgres::connect(location, NoTls).await?;
            tokio::spawn(connection);
            connections.push(tokio::sync::Mutex::new(client));
        }
        let table = "CREATE TABLE IF NOT EXISTS ldk_node (
             primary_namespace TEXT NOT NULL,
             secondary_namespace TEXT NOT NULL DEFAULT '',
             key TEXT NOT NULL CHECK (key <> ''),
             value BYTEA,
             sort_order BIGSERIAL CHECK (sort_order >= 0),
             PRIMARY KEY (primary_namespace, secondary_namespace, key));
         CREATE INDEX IF NOT EXISTS ldk_node_order ON ldk_node
             (primary_namespace, secondary_namespace, sort_order DESC, key)";
        connections[0].lock().await.batch_execute(table).await?;
        Ok(Self { connections, next: AtomicUsize::new(0) })
    }

    async fn write(&self, id: &EntryId, value: Vec<u8>) -> Done {
        let sql = "INSERT INTO ldk_node (primary_namespace, secondary_namespace, key, value) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT (primary_namespace, secondary_namespace, \
                   key) DO UPDATE SET value = EXCLUDED.value";
        self.query(sql, &[&id.primary(), &id.secondary(), &id.key(), &value]).await?;
        Ok(())
    }

    async fn read(&self, id: &EntryId) -> Answer<Vec<u8>> {
        let sql = "SELECT value FROM ldk_node WHERE primary_namespace = $1 AND \
                   secondary_namespace = $2 AND key = $3";
        let rows = self.query(sql, &[&id.primary(), &id.secondary(), &id.key()]).await?;
        Ok(rows.first().ok_or("an entry is missing")?.try_get(0)?)
    }

    /// It has no other remove than the durable one.
    async fn remove_lazily(&self, id: &EntryId) -> Done {
        let sql = "DELETE FROM ldk_node WHERE primary_namespace = $1 AND \
                   secondary_namespace = $2 AND key = $3";
        self.query(sql, &[&id.primary(), &id.secondary(), &id.key()]).await?;
        Ok(())
    }

    async fn list(&self, namespace: &Namespace) -> Answer<Vec<String>> {
        let sql = "SELECT key FROM ldk_node WHERE primary_namespace = $1 AND \
                   secondary_namespace = $2";
        let rows = self.query(sql, &[&namespace.primary(), &namespace.secondary()]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }
}

/// LDK's own store: a file per key, flushed and renamed, and the directory flushed.
pub struct Persister(FilesystemStoreV2);

impl Persister {
    pub fn sync(self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| {
            let id = entry(at)?;
            said(KVStoreSync::write(&self.0, id.primary(), id.secondary(), id.key(), value))
        }
    }

    pub fn remove_lazily_sync(&self, id: &EntryId) -> Done {
        said(KVStoreSync::remove(&self.0, id.primary(), id.secondary(), id.key(), true))
    }
}

/// LDK's errors are not all errors of the standard library.
fn said<T>(result: Result<T, impl Debug>) -> Answer<T> {
    result.map_err(|error| format!("{error:?}").into())
}

impl Contestant for Persister {
    async fn open(location: &str) -> Answer<Self> {
        said(FilesystemStoreV2::new(Path::new(location).join("persister"))).map(Self)
    }

    async fn write(&self, id: &EntryId, value: Vec<u8>) -> Done {
        said(KVStore::write(&self.0, id.primary(), id.secondary(), id.key(), value).await)
    }

    async fn read(&self, id: &EntryId) -> Answer<Vec<u8>> {
        said(KVStore::read(&self.0, id.primary(), id.secondary(), id.key()).await)
    }

    async fn remove_lazily(&self, id: &EntryId) -> Done {
        said(KVStore::remove(&self.0, id.primary(), id.secondary(), id.key(), true).await)
    }

    async fn list(&self, namespace: &Namespace) -> Answer<Vec<String>> {
        said(KVStore::list(&self.0, namespace.primary(), namespace.secondary()).await)
    }
}
