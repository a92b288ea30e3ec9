//! ldk-node's advisory lock, which keeps an ldk-node away. It fences nobody.

use std::time::Duration;

use kvstore_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::connection::{Answer, Connection};
use crate::error::{engine, error};

/// The number that ldk-node locks for a table.
///
/// **Source**: `PostgresStore` of ldk-node's main branch: the first eight bytes of a SHA-256.
pub(crate) fn key(database: &str, table: &str) -> i64 {
    let mut digest = Sha256::new_with_prefix("ldk-node:postgres-store");
    for name in [database, table] {
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(name);
    }
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(digest.finalize());
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Takes the lock for this connection's session, and gives the session's mark.
///
/// `ours` are the marks of sessions that may hold it for us, or for the owner before: one may be
/// there still, for its process stands still or its network is gone, and is ended then. If the
/// session itself stands still, it goes on to hold the lock, which keeps an ldk-node away as well.
///
/// # Errors
/// `AlreadyOpen` if another program holds the lock.
pub(crate) async fn acquire(
    connection: &Connection,
    key: i64,
    ours: &mut Vec<String>,
    patience: Duration,
) -> Result<Held> {
    let failed = |source| engine("open", source);
    let own = mark(connection).await.map_err(failed)?;
    // Before it is asked for: the answer may be lost.
    ours.push(own.clone());
    if try_lock(connection, key).await.map_err(failed)? {
        return Ok(Held { by: own, here: true });
    }
    let holder = Session::that_holds(connection, key).await.map_err(failed)?;
    if let Some(holder) = &holder {
        if !ours.contains(&holder.mark) {
            return Err(holder.already_open());
        }
        holder.end(connection).await.map_err(failed)?;
    }
    // Without a holder it ended in this moment.
    match (wait(connection, key, patience).await, holder) {
        (Ok(()), _) => Ok(Held { by: own, here: true }),
        (Err(source), Some(holder)) if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Ok(Held { by: holder.mark, here: false })
        }
        (Err(source), _) => Err(failed(source)),
    }
}

/// Which session holds the lock for us.
pub(crate) struct Held {
    pub(crate) by: String,
    /// Whether it is this connection's; if not, it may end at any time.
    pub(crate) here: bool,
}

/// Gives the lock back.
pub(crate) async fn release(connection: &Connection, key: i64) -> Answer<()> {
    connection.client().query("SELECT pg_advisory_unlock($1)", &[&key]).await.map(drop)
}

async fn try_lock(connection: &Connection, key: i64) -> Answer<bool> {
    let row = connection.client().query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await?;
    row.try_get(0)
}

/// Waits for the lock, but not for ever.
async fn wait(connection: &Connection, key: i64, patience: Duration) -> Answer<()> {
    let limit = format!("SET lock_timeout = {}", patience.as_millis().max(1));
    connection.client().batch_execute(&limit).await?;
    let locked = connection.client().query("SELECT pg_advisory_lock($1)", &[&key]).await;
    connection.client().batch_execute("SET lock_timeout = 0").await?;
    locked.map(drop)
}

/// What tells this session from all others of the server: process numbers come again.
async fn mark(connection: &Connection) -> Answer<String> {
    let sql = "SELECT pid || '@' || extract(epoch FROM backend_start) FROM pg_stat_activity
               WHERE pid = pg_backend_pid()";
    connection.client().query_one(sql, &[]).await?.try_get(0)
}

/// A session that holds the lock.
struct Session {
    pid: i32,
    mark: String,
    name: String,
}

impl Session {
    async fn that_holds(connection: &Connection, key: i64) -> Answer<Option<Self>> {
        let sql = "
            SELECT pid, coalesce(pid || '@' || extract(epoch FROM backend_start), ''),
                coalesce(application_name, '')
            FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND granted AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (classid::int8 << 32 | objid::int8) = $1";
        let rows = connection.client().query(sql, &[&key]).await?;
        let read = |row: &Row| {
            Ok(Self { pid: row.try_get(0)?, mark: row.try_get(1)?, name: row.try_get(2)? })
        };
        rows.first().map(read).transpose()
    }

    async fn end(&self, connection: &Connection) -> Answer<()> {
        // Another one may have its number by now.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE pid = $1 AND pid || '@' || extract(epoch FROM backend_start) = $2";
        connection.client().query(sql, &[&self.pid, &self.mark]).await.map(drop)
    }

    fn already_open(&self) -> Error {
        let Self { pid, name, .. } = self;
        let message = format!(
            "another program, such as an ldk-node, holds ldk-node's lock on the table: the \
             server's process {pid}, application {name:?}; stop that program"
        );
        error(ErrorKind::AlreadyOpen, "open", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_ldk_node() {
        // Worked out by PostgreSQL: sha256('ldk-node:postgres-store' || int8send(6) || 'ldk_db' ||
        // int8send(8) || 'ldk_data').
        assert_eq!(key("ldk_db", "ldk_data"), -2_927_480_243_500_845_141);
        assert_ne!(key("ldk_d", "bldk_data"), key("ldk_db", "ldk_data"));
    }
}
