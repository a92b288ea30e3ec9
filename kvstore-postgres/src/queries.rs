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
pub(crate) const QUERIES: usize = 14;

/// All of them.
#[derive(Debug)]
pub(crate) struct Queries {
    /// Session, lease in milliseconds, the owner's name if it has one, its process.
    pub(crate) acquire: Query,
    /// Session, lease in milliseconds, the largest epoch so far.
    pub(crate) reclaim: Query,
    /// Session, lease in milliseconds, who holds ldk-node's lock.
    pub(crate) renew: Query,
    /// Session, lease in milliseconds.
    pub(crate) attach: Query,
    pub(crate) holder: Query,
    /// Session.
    pub(crate) advance: Query,
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
    /// Primary and secondary namespaces and keys.
    pub(crate) get_all: Query,
    /// Primary and secondary namespace, creation number and key to go on after, limit.
    pub(crate) page_keys: Query,
    pub(crate) page_values: Query,
    pub(crate) list_all: Query,
}

impl Queries {
    /// For a session of our own, or, with the `synchronous_commit` that every transaction has to set
    /// for itself, for anybody's.
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
        let durably = &durably(synchronous_commit);
        let fence = pass(table, durably);
        Self {
            acquire: query(acquire(table, durably), &[T::TEXT, T::INT8, T::TEXT, T::TEXT]),
            reclaim: query(reclaim(table, durably), &[T::TEXT, T::INT8, T::INT8]),
            renew: query(renew(table, durably), &[T::TEXT, T::INT8, T::TEXT]),
            attach: query(attach(table, durably), &[T::TEXT, T::INT8]),
            holder: query(holder(table), &[]),
            advance: query(advance(table), &[T::TEXT]),
            release: query(release(table), &[T::TEXT]),
            commit: query(commit(table, &fence), &group),
            commit_one: query(commit_one(table, &fence), &one),
            get: query(get(table), &[T::TEXT, T::TEXT, T::TEXT]),
            get_all: query(get_all(table), &names),
            page_keys: query(page(table, ""), &position),
            page_values: query(page(table, ", value"), &position),
            list_all: query(list_all(table), &[]),
        }
    }
}

/// A condition that always holds, and makes the transaction that asks it as durable as promised.
fn durably(synchronous_commit: Option<&str>) -> String {
    // `set_config` gives what is in force from here to the end of the transaction. Without the
    // server's warnings nobody would know that a commit did not reach the standbys.
    synchronous_commit.map_or("true".to_owned(), |wanted| {
        format!(
            "set_config('synchronous_commit', '{wanted}', true) = '{wanted}'
             AND set_config('client_min_messages', 'warning', true) = 'warning'"
        )
    })
}

/// Takes the lease if it is free, has run out, or is ours, and raises the fence to its epoch. The
/// fence's row is locked by whatever commit is still under way, so this waits for its end.
fn acquire(table: &Table, durably: &str) -> String {
    let lease = &table.lease;
    raise(
        table,
        &format!(
            "INSERT INTO {lease} AS held (id, epoch, session, owner, process, expires_at)
             SELECT 1, 1, $1, $3, $4, clock_timestamp() + $2 * interval '1 millisecond'
             WHERE {durably}
             ON CONFLICT (id) DO UPDATE SET epoch = held.epoch + 1, session = excluded.session,
                 owner = excluded.owner, process = excluded.process,
                 expires_at = excluded.expires_at
             WHERE held.expires_at <= clock_timestamp() OR held.session = excluded.session
                 OR held.owner = excluded.owner
             RETURNING epoch, lock_holder"
        ),
    )
}

/// Raises the epoch of a lease that is still ours, before anything is read or sent again.
fn reclaim(table: &Table, durably: &str) -> String {
    let lease = &table.lease;
    raise(
        table,
        &format!(
            "UPDATE {lease} SET epoch = greatest(epoch, $3) + 1,
                 expires_at = clock_timestamp() + $2 * interval '1 millisecond'
             WHERE id = 1 AND session = $1 AND {durably} RETURNING epoch, lock_holder"
        ),
    )
}

fn raise(Table { fence, .. }: &Table, won: &str) -> String {
    format!(
        "WITH won AS ({won}),
         raised AS (
             INSERT INTO {fence} (id, epoch, seq, created) SELECT 1, won.epoch, 0, 0 FROM won
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch RETURNING epoch, seq, created)
         SELECT raised.epoch, seq, created, lock_holder FROM raised CROSS JOIN won"
    )
}

fn renew(Table { lease, .. }: &Table, durably: &str) -> String {
    format!(
        "UPDATE {lease} SET expires_at = clock_timestamp() + $2 * interval '1 millisecond',
             lock_holder = $3
         WHERE id = 1 AND session = $1 AND {durably} RETURNING epoch"
    )
}

/// A renewal too: where commits wait for standbys, what is read after it has reached them.
fn attach(Table { lease, fence, .. }: &Table, durably: &str) -> String {
    format!(
        "WITH mine AS (
             UPDATE {lease} SET expires_at = clock_timestamp() + $2 * interval '1 millisecond'
             WHERE id = 1 AND session = $1 AND {durably} RETURNING epoch)
         SELECT fence.epoch, fence.seq FROM mine CROSS JOIN {fence} AS fence"
    )
}

fn holder(Table { lease, .. }: &Table) -> String {
    format!(
        "SELECT process, owner, to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'),
             CASE WHEN isfinite(expires_at) THEN greatest(0,
                 ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000))::int8 ELSE 0 END,
             epoch, isfinite(expires_at)
         FROM {lease} WHERE id = 1"
    )
}

/// Brings the sequence that ldk-node draws from to what was given out, and never back.
fn advance(Table { data, lease, fence, .. }: &Table) -> String {
    format!(
        "SELECT setval(drawn, created) FROM {fence} AS fence, {lease} AS lease,
             CAST(pg_get_serial_sequence('{data}', 'sort_order') AS regclass) AS drawn
         WHERE lease.session = $1 AND created > coalesce(pg_sequence_last_value(drawn), 0)"
    )
}

/// Ends the lease, also for statements of ours that are still under way.
fn release(Table { lease, .. }: &Table) -> String {
    format!(
        "UPDATE {lease} SET expires_at = '-infinity', session = ''
         WHERE id = 1 AND session = $1"
    )
}

/// Passes the fence, which gives a row to go on with if it holds, and notes how far the store is.
/// It holds in the owner's epoch, and only on top of the commit before: a pooler may lead to another
/// server than a moment ago.
fn pass(Table { fence, .. }: &Table, durably: &str) -> String {
    format!(
        "WITH fence AS (
             UPDATE {fence} SET seq = $1, created = $3
             WHERE id = 1 AND epoch = $2 AND seq = $1 - 1 AND {durably}
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

/// Reads tell, from the same state of the server, its epoch and its last commit, in front of what
/// they found; one row of these and NULL if they found nothing.
fn read(Table { fence, .. }: &Table, found: &str) -> String {
    format!(
        "SELECT fence.epoch, fence.seq, found.* FROM {fence} AS fence
         LEFT JOIN LATERAL ({found}) AS found ON true WHERE fence.id = 1"
    )
}

fn get(table: &Table) -> String {
    let data = &table.data;
    read(
        table,
        &format!(
            "SELECT key, value FROM {data}
             WHERE primary_namespace = $1 AND secondary_namespace = $2 AND key = $3"
        ),
    )
}

/// Many entries: a row for each, with its place among those that were asked for. The limit keeps
/// the planner, also behind a pooler, from joining with the whole table.
fn get_all(Table { data, fence, .. }: &Table) -> String {
    format!(
        "SELECT fence.epoch, fence.seq, entry.key, entry.value, wanted.place FROM {fence} AS fence
         CROSS JOIN unnest($1, $2, $3) WITH ORDINALITY
             AS wanted (primary_namespace, secondary_namespace, key, place)
         LEFT JOIN LATERAL (
             SELECT key, value FROM {data} AS entry
             WHERE entry.primary_namespace = wanted.primary_namespace
                 AND entry.secondary_namespace = wanted.secondary_namespace
                 AND entry.key = wanted.key
             LIMIT 1) AS entry ON true
         WHERE fence.id = 1"
    )
}

fn page(table: &Table, value: &str) -> String {
    let data = &table.data;
    let page = read(
        table,
        &format!(
            "SELECT key, sort_order{value} FROM {data}
             WHERE primary_namespace = $1 AND secondary_namespace = $2
                 AND sort_order <= $3 AND (sort_order < $3 OR key > $4)
             ORDER BY sort_order DESC, key ASC LIMIT $5"
        ),
    );
    format!("{page} ORDER BY sort_order DESC, key ASC")
}

fn list_all(table: &Table) -> String {
    let data = &table.data;
    read(
        table,
        &format!(
            "SELECT key, primary_namespace, secondary_namespace,
                 octet_length(value)::int8, sort_order
             FROM {data}"
        ),
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
