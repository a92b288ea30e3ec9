//! The statements, made once for the table at hand.

use std::fmt;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::table::Table;

/// A statement and the types of its parameters.
#[derive(Debug)]
pub(crate) struct Query {
    /// Its place among the statements that a connection has prepared.
    pub(crate) place: usize,
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

/// How many statements there are.
pub(crate) const QUERIES: usize = 12;

/// All of them.
#[derive(Debug)]
pub(crate) struct Queries {
    /// Session, lease in milliseconds, the owner's name if it has one, its process.
    pub(crate) acquire: Query,
    /// Session, lease in milliseconds.
    pub(crate) reclaim: Query,
    /// Session, lease in milliseconds, who holds ldk-node's lock.
    pub(crate) renew: Query,
    /// Session, lease in milliseconds.
    pub(crate) attach: Query,
    pub(crate) holder: Query,
    /// Session.
    pub(crate) release: Query,
    /// Sequence, epoch, largest creation number; primary and secondary namespaces and keys of what
    /// is removed, and of what is put, with its values and creation numbers; which of these numbers
    /// count even if the entry exists.
    pub(crate) commit: Query,
    /// Sequence, epoch, largest creation number, which is that of the entry if it is new; primary
    /// and secondary namespace, key, value.
    pub(crate) commit_one: Query,
    /// Primary and secondary namespace, key.
    pub(crate) get: Query,
    /// Primary and secondary namespace, creation number and key to go on after, limit.
    pub(crate) page_keys: Query,
    pub(crate) page_values: Query,
    pub(crate) list_all: Query,
}

impl Queries {
    /// For a session of our own, or, with the `synchronous_commit` that every commit has to set for
    /// itself, for anybody's.
    pub(crate) fn new(table: &Table, synchronous_commit: Option<&str>) -> Self {
        use Type as T;
        let mut places = 0..QUERIES;
        let mut query = |text: String, types: &[Type]| {
            // As many as fields, as the test below sees.
            let place = places.next().unwrap_or_default();
            Query { place, text, types: types.to_vec() }
        };
        let position = [T::TEXT, T::TEXT, T::INT8, T::TEXT, T::INT8];
        let names = [T::TEXT_ARRAY, T::TEXT_ARRAY, T::TEXT_ARRAY];
        let group = [T::BYTEA_ARRAY, T::INT8_ARRAY, T::INT8_ARRAY];
        let fence = [T::INT8, T::INT8, T::INT8];
        let group = [&fence[..], &names, &names, &group].concat();
        let one = [&fence[..], &[T::TEXT, T::TEXT, T::TEXT, T::BYTEA]].concat();
        let fence = pass(table, synchronous_commit);
        Self {
            acquire: query(acquire(table), &[T::TEXT, T::INT8, T::TEXT, T::TEXT]),
            reclaim: query(reclaim(table), &[T::TEXT, T::INT8]),
            renew: query(renew(table), &[T::TEXT, T::INT8, T::TEXT]),
            attach: query(attach(table), &[T::TEXT, T::INT8]),
            holder: query(holder(table), &[]),
            release: query(release(table), &[T::TEXT]),
            commit: query(commit(table, &fence), &group),
            commit_one: query(commit_one(table, &fence), &one),
            get: query(get(table), &[T::TEXT, T::TEXT, T::TEXT]),
            page_keys: query(page(table, "key, sort_order"), &position),
            page_values: query(page(table, "key, sort_order, value"), &position),
            list_all: query(list_all(table), &[]),
        }
    }
}

/// Takes the lease if it is free, has run out, or is ours, and raises the fence to its epoch. The
/// fence's row is locked by whatever commit is still under way, so this waits for its end.
fn acquire(Table { lease, fence, .. }: &Table) -> String {
    format!(
        "WITH won AS (
             INSERT INTO {lease} AS held (id, epoch, session, owner, process, expires_at)
             VALUES (1, 1, $1, $3, $4, clock_timestamp() + $2 * interval '1 millisecond')
             ON CONFLICT (id) DO UPDATE SET epoch = held.epoch + 1, session = excluded.session,
                 owner = excluded.owner, process = excluded.process,
                 expires_at = excluded.expires_at
             WHERE held.expires_at <= clock_timestamp() OR held.session = excluded.session
                 OR held.owner = excluded.owner
             RETURNING epoch)
         {}",
        raise(fence)
    )
}

/// Raises the epoch of a lease that is still ours, before anything is read or sent again.
fn reclaim(Table { lease, fence, .. }: &Table) -> String {
    format!(
        "WITH won AS (
             UPDATE {lease} SET epoch = epoch + 1,
                 expires_at = clock_timestamp() + $2 * interval '1 millisecond'
             WHERE id = 1 AND session = $1 RETURNING epoch)
         {}",
        raise(fence)
    )
}

fn raise(fence: &str) -> String {
    format!(
        "INSERT INTO {fence} (id, epoch, seq, created) SELECT 1, won.epoch, 0, 0 FROM won
         ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch RETURNING epoch, seq, created"
    )
}

fn renew(Table { lease, .. }: &Table) -> String {
    format!(
        "UPDATE {lease} SET expires_at = clock_timestamp() + $2 * interval '1 millisecond',
             lock_holder = $3
         WHERE id = 1 AND session = $1 RETURNING epoch"
    )
}

/// A renewal too: where commits wait for standbys, what is read after it has reached them.
fn attach(Table { lease, fence, .. }: &Table) -> String {
    format!(
        "WITH mine AS (
             UPDATE {lease} SET expires_at = clock_timestamp() + $2 * interval '1 millisecond'
             WHERE id = 1 AND session = $1 RETURNING epoch)
         SELECT fence.epoch, fence.seq FROM mine CROSS JOIN {fence} AS fence"
    )
}

fn holder(Table { lease, .. }: &Table) -> String {
    format!(
        "SELECT process, owner, to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'),
             greatest(0, ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000))::int8,
             lock_holder
         FROM {lease} WHERE id = 1 AND isfinite(expires_at)"
    )
}

/// Ends the lease, and brings the sequence of ldk-node's column to what was given out.
fn release(Table { data, lease, fence, .. }: &Table) -> String {
    format!(
        "WITH mine AS (
             UPDATE {lease} SET expires_at = '-infinity', lock_holder = NULL
             WHERE id = 1 AND session = $1 RETURNING 1)
         SELECT setval(pg_get_serial_sequence('{data}', 'sort_order')::regclass, fence.created)
         FROM mine CROSS JOIN {fence} AS fence WHERE fence.created > 0"
    )
}

/// Passes the fence, which gives a row to go on with if it holds, and notes how far the store is.
fn pass(Table { fence, .. }: &Table, synchronous_commit: Option<&str>) -> String {
    // It gives what is in force from here to the end of the transaction.
    let synchronous = synchronous_commit.map_or(String::new(), |wanted| {
        format!("AND set_config('synchronous_commit', '{wanted}', true) = '{wanted}'")
    });
    format!(
        "WITH fence AS (
             UPDATE {fence} SET seq = $1, created = $3 WHERE id = 1 AND epoch = $2 {synchronous}
             RETURNING 1)"
    )
}

/// One group: the fence first, and only if it holds, removes and puts.
fn commit(Table { data, .. }: &Table, fence: &str) -> String {
    format!(
        "{fence},
         removed AS (
             DELETE FROM {data} AS entry
             USING fence, unnest($4, $5, $6) AS gone (primary_namespace, secondary_namespace, key)
             WHERE entry.primary_namespace = gone.primary_namespace
                 AND entry.secondary_namespace = gone.secondary_namespace
                 AND entry.key = gone.key),
         stored AS (
             INSERT INTO {data} AS entry
                 (primary_namespace, secondary_namespace, key, value, sort_order)
             SELECT put.* FROM fence CROSS JOIN unnest($7, $8, $9, $10, $11) AS put
             ON CONFLICT (primary_namespace, secondary_namespace, key) DO UPDATE SET
                 value = excluded.value,
                 sort_order = CASE WHEN excluded.sort_order = ANY ($12)
                     THEN excluded.sort_order ELSE entry.sort_order END)
         SELECT 1 FROM fence"
    )
}

/// One put, which most commits of an idle store are: a third faster than a group of one.
fn commit_one(Table { data, .. }: &Table, fence: &str) -> String {
    format!(
        "{fence}
         INSERT INTO {data} (primary_namespace, secondary_namespace, key, value, sort_order)
         SELECT $4, $5, $6, $7, $3 FROM fence
         ON CONFLICT (primary_namespace, secondary_namespace, key) DO UPDATE SET
             value = excluded.value
         RETURNING 1"
    )
}

fn get(Table { data, .. }: &Table) -> String {
    format!(
        "SELECT value FROM {data}
         WHERE primary_namespace = $1 AND secondary_namespace = $2 AND key = $3"
    )
}

fn page(Table { data, .. }: &Table, columns: &str) -> String {
    format!(
        "SELECT {columns} FROM {data}
         WHERE primary_namespace = $1 AND secondary_namespace = $2
             AND sort_order <= $3 AND (sort_order < $3 OR key > $4)
         ORDER BY sort_order DESC, key ASC LIMIT $5"
    )
}

fn list_all(Table { data, .. }: &Table) -> String {
    format!(
        "SELECT primary_namespace, secondary_namespace, key, octet_length(value)::int8, sort_order
         FROM {data}"
    )
}

/// A parameter that tokio-postgres must not log: at the level `debug` it shows the others.
pub(crate) struct Hidden<T>(pub(crate) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        T::accepts(kind)
    }

    to_sql_checked!();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_statement_has_a_place_of_its_own() {
        let queries = Queries::new(&Table::parse("t").unwrap(), None);
        assert_eq!(queries.acquire.place, 0);
        assert_eq!(queries.list_all.place, QUERIES - 1);
    }

    #[test]
    fn a_value_is_not_shown() {
        assert_eq!(format!("{:?}", Hidden(vec![&b"horse"[..]])), "…");
    }
}
