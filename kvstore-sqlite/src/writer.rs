//! The one connection that writes.

use std::time::{SystemTime, UNIX_EPOCH};

use kvstore_core::local::OwnerLock;
use kvstore_core::{Mutation, Result};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::error::engine;
use crate::queries::Queries;

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    /// The largest creation number given out; unused with schema 2, whose triggers number.
    pub(crate) last_created: i64,
    /// Dropped after the connection, so that the next owner finds the files at rest.
    pub(crate) _lock: OwnerLock,
}

impl Writer {
    pub(crate) fn commit(
        &mut self,
        queries: &Queries,
        mutations: &[Mutation],
    ) -> rusqlite::Result<()> {
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

pub(crate) fn last_created(connection: &Connection, queries: &Queries) -> Result<i64> {
    let Some(sql) = &queries.last_created else { return Ok(0) };
    let last: Option<i64> =
        connection.query_row(sql, [], |row| row.get(0)).map_err(|source| engine("open", source))?;
    // Not a number that a removed entry had: a page token may still name it. The clock is past all
    // of them, unless it was set back; in nanoseconds, since no entry is written faster.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(last.unwrap_or(0).max(i64::try_from(now).unwrap_or(0)))
}
