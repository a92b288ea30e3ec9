//! The tables: ldk-node's for the entries, and two of ours beside it.

use kvstore_core::{ErrorKind, Result};
use tokio_postgres::Row;

use crate::connection::{Answer, Connection};
use crate::error::{engine, error};
use crate::table::Table;

/// The number of ldk-node's schema, which stands in the table's comment.
const SCHEMA: &str = "1";

/// What ours say in their comment.
const MARK: &str = "kvstore-postgres 1";

/// A relation as the catalog knows it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    comment: Option<String>,
    /// `name type`, in the order of names.
    columns: Vec<String>,
    /// Whether a crash of the server leaves it as it is.
    logged: bool,
}

/// Makes sure that the tables are there and ours to use, and gives the largest creation number that
/// the entries have.
pub(crate) async fn prepare(connection: &Connection, table: &Table, create: bool) -> Result<i64> {
    let failed = |source| engine("open", source);
    if !is_complete(connection, table).await? {
        if !create {
            let message = format!("the database has no store in table {}", table.text);
            return Err(error(ErrorKind::Missing, "open", message));
        }
        connection.client().batch_execute(&creation(table)).await.map_err(failed)?;
        if !is_complete(connection, table).await? {
            let message = format!("the tables of {} were removed at once", table.text);
            return Err(error(ErrorKind::Unavailable, "open", message));
        }
    }
    last_created(connection, table).await.map_err(failed)
}

/// Whether nothing has to be made. Refuses what is not ours.
async fn is_complete(connection: &Connection, table: &Table) -> Result<bool> {
    let failed = |source| engine("open", source);
    let data = find(connection, &table.data).await.map_err(failed)?;
    if let Some(found) = &data {
        check_data(found, table)?;
    }
    let mut complete = data.is_some_and(|found| found.comment.is_some());
    for (name, columns) in [(&table.lease, LEASE_COLUMNS), (&table.fence, FENCE_COLUMNS)] {
        let found = find(connection, name).await.map_err(failed)?;
        if let Some(found) = &found
            && (found.comment.as_deref() != Some(MARK) || found.columns != columns)
        {
            return Err(foreign(name, "a newer version or another program made it"));
        }
        complete &= found.is_some();
    }
    Ok(complete)
}

const LEASE_COLUMNS: &[&str] = &[
    "epoch bigint",
    "expires_at timestamp with time zone",
    "id smallint",
    "lock_holder text",
    "owner text",
    "process text",
    "session text",
];
const FENCE_COLUMNS: &[&str] = &["created bigint", "epoch bigint", "id smallint", "seq bigint"];

/// ldk-node gives a table without a comment its number, and so do we.
fn check_data(found: &Found, table: &Table) -> Result<()> {
    match found.comment.as_deref() {
        None | Some(SCHEMA) => {}
        Some(newer) if newer.parse::<u16>().is_ok() => {
            let reason = format!("it has schema {newer}, and this version knows {SCHEMA}");
            return Err(foreign(&table.data, &reason));
        }
        Some(_) => return Err(foreign(&table.data, "its comment is not ldk-node's")),
    }
    let columns = [
        "key text",
        "primary_namespace text",
        "secondary_namespace text",
        "sort_order bigint",
        "value bytea",
    ];
    if !found.logged {
        let reason = "it is UNLOGGED or temporary, and a crash of the server empties it";
        return Err(foreign(&table.data, reason));
    }
    if found.columns == columns {
        return Ok(());
    }
    Err(foreign(&table.data, "its columns are not ldk-node's"))
}

fn foreign(name: &str, reason: &str) -> kvstore_core::Error {
    let message = format!("cannot use the table {name}: {reason}; name another table");
    error(ErrorKind::Unsupported, "open", message)
}

async fn find(connection: &Connection, name: &str) -> Answer<Option<Found>> {
    let sql = "
        SELECT obj_description(relation, 'pg_class'),
            ARRAY(SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
                ORDER BY attname COLLATE \"C\"),
            EXISTS (SELECT FROM pg_class WHERE oid = relation AND relpersistence = 'p')
        FROM to_regclass($1) AS relation WHERE relation IS NOT NULL";
    let rows = typed(connection, sql, name).await?;
    let read = |row: &Row| {
        Ok(Found { comment: row.try_get(0)?, columns: row.try_get(1)?, logged: row.try_get(2)? })
    };
    rows.first().map(read).transpose()
}

/// Without a prepared statement, so that a pooler may stand in between.
async fn typed(connection: &Connection, sql: &str, text: &str) -> Answer<Vec<Row>> {
    let parameter = (&text as &(dyn tokio_postgres::types::ToSql + Sync), TEXT);
    connection.client().query_typed(sql, &[parameter]).await
}

const TEXT: tokio_postgres::types::Type = tokio_postgres::types::Type::TEXT;

/// One transaction, since it is sent as one message; the lock keeps two owners that start together
/// out of each other's way. Nothing is asked for that is there, since that takes rights too.
fn creation(table: &Table) -> String {
    let Table { data, index, lease, fence, schema, .. } = table;
    let schema = schema.as_ref().map_or(String::new(), |schema| {
        unless("namespace", schema, &format!("CREATE SCHEMA {schema};"))
    });
    let paged = format!(
        "CREATE INDEX IF NOT EXISTS {index} ON {data}
             (primary_namespace, secondary_namespace, sort_order DESC, key ASC);"
    );
    // The key's index comes last: of two that look alike to the planner, as they do while the table
    // is empty, it takes the newer one.
    let entries = format!(
        "CREATE TABLE {data} (
             primary_namespace TEXT COLLATE \"C\" NOT NULL,
             secondary_namespace TEXT COLLATE \"C\" NOT NULL DEFAULT '',
             key TEXT COLLATE \"C\" NOT NULL CHECK (key <> ''),
             value BYTEA,
             sort_order BIGSERIAL CHECK (sort_order >= 0));
         ALTER TABLE {data} ALTER COLUMN value SET STORAGE EXTERNAL;
         {paged}
         ALTER TABLE {data} ADD PRIMARY KEY (primary_namespace, secondary_namespace, key);"
    );
    let held = format!(
        "CREATE TABLE {lease} (
             id SMALLINT PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL, session TEXT NOT NULL,
             owner TEXT, process TEXT NOT NULL, expires_at TIMESTAMPTZ NOT NULL, lock_holder TEXT)
             WITH (fillfactor = 50);
         COMMENT ON TABLE {lease} IS '{MARK}';"
    );
    let fenced = format!(
        "CREATE TABLE {fence} (
             id SMALLINT PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL, seq BIGINT NOT NULL,
             created BIGINT NOT NULL) WITH (fillfactor = 50);
         COMMENT ON TABLE {fence} IS '{MARK}';"
    );
    format!(
        "SELECT pg_advisory_xact_lock(hashtext('kvstore-postgres'), hashtext('{data}'));
         DO $$ BEGIN {schema} {} {} {} END $$;
         COMMENT ON TABLE {data} IS '{SCHEMA}';
         {paged}",
        unless("class", data, &entries),
        unless("class", lease, &held),
        unless("class", fence, &fenced),
    )
}

fn unless(kind: &str, name: &str, create: &str) -> String {
    format!("IF to_reg{kind}('{name}') IS NULL THEN {create} END IF;")
}

/// The largest number among the entries and of the sequence that ldk-node draws from.
async fn last_created(connection: &Connection, table: &Table) -> Answer<i64> {
    let data = &table.data;
    let sql = format!(
        "SELECT greatest(0, (SELECT max(sort_order) FROM {data}),
             pg_sequence_last_value(pg_get_serial_sequence($1, 'sort_order')::regclass))"
    );
    let rows = typed(connection, &sql, data).await?;
    rows.first().map_or(Ok(0), |row| row.try_get(0))
}
