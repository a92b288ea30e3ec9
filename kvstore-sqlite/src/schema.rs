//! Which table holds the entries, and in which of ldk-node's shapes.

use std::fmt;

use kvstore_core::{ErrorKind, Result, log};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{engine, error};
use crate::shape;

/// The table that ldk-node uses, and so the one of a new file.
const DEFAULT_TABLE: &str = "ldk_node_data";

/// The shapes of ldk-node's table, by the file's `user_version`.
///
/// **Source**: ldk-node 0.7.1 (`io/sqlite_store`) for 2, its main branch of August 2026 for 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Names and value. Creation numbers are kept in a table beside.
    Two,
    /// Names, value and `sort_order`, the creation number.
    Three,
}

/// The name of a table: letters, digits and `_`, so that it can stand in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName(String);

impl TableName {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let ordinary = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let first = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if first && name.len() <= 64 && name.chars().all(ordinary) && !name.starts_with("sqlite_") {
            return Ok(Self(name.to_owned()));
        }
        let message = format!(
            "{name:?} cannot be the name of a table here; use up to 64 letters, digits and `_`, \
             without a digit or `sqlite_` at the start"
        );
        Err(error(ErrorKind::InvalidInput, "open", message))
    }

    /// The table beside one of schema 2 that holds the creation numbers.
    pub(crate) fn creation_order(&self) -> String {
        format!("{}_creation_order", self.0)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) version: Version,
    pub(crate) table: TableName,
}

/// What a look at the file shows, before anything in it is changed.
#[derive(Debug)]
pub(crate) struct Found {
    schema: Schema,
    /// Tables of entries in the file, the chosen one among them if it is there.
    tables: Vec<TableName>,
}

impl Found {
    /// The chosen table, if the file does not hold it yet.
    pub(crate) fn missing(&self) -> Option<&TableName> {
        Some(&self.schema.table).filter(|table| !self.tables.contains(table))
    }
}

/// Looks for the table of entries; changes nothing.
pub(crate) fn find(connection: &Connection, wanted: Option<&str>) -> Result<Found> {
    let wanted = wanted.map(TableName::new).transpose()?;
    let user_version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| engine("open", source))?;
    let names = table_names(connection)?;
    let version = match user_version {
        0 if names.is_empty() => Version::Three,
        0 => rebuilt(connection, &names)?,
        1 => {
            let message = "the file has schema 1 of ldk-node; open it once with ldk-node 0.7.1, \
                           which turns it into schema 2";
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        2 => Version::Two,
        3 => Version::Three,
        newer => {
            let message = format!(
                "the file has schema {newer}, and this version knows up to 3; use a newer version"
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
    };
    let mut tables = Vec::new();
    for name in &names {
        if shape::has_columns(connection, name, version)? {
            shape::refuse_constraints(connection, name, version)?;
            shape::refuse_types(connection, name, version)?;
            let Ok(table) = TableName::new(name) else { continue };
            if version == Version::Two {
                shape::refuse_foreign_order(connection, &table.creation_order())?;
            }
            tables.push(table);
        }
    }
    let table = choose(&tables, &names, wanted)?;
    warn_of_triggers(connection, &tables)?;
    Ok(Found { schema: Schema { version, table }, tables })
}

/// The schema of a file without a number, such as sqlite3's `.dump` and `.clone` leave: they do not
/// take `user_version` over. A table that is exactly as ldk-node or this crate makes it is one.
fn rebuilt(connection: &Connection, names: &[String]) -> Result<Version> {
    let mut exact = Vec::new();
    for version in [Version::Two, Version::Three] {
        for name in names {
            if !shape::has_columns(connection, name, version)? {
                continue;
            }
            if !shape::is_exact(connection, name, version)? {
                let number = version.number();
                let message = format!(
                    "the table {name} has the columns of ldk-node's schema {number}, but other types \
                     or keys, and the file has no number of a schema; if it is a store, rebuild the \
                     table as ldk-node makes it and run: PRAGMA user_version = {number}"
                );
                return Err(error(ErrorKind::Unsupported, "open", message));
            }
            exact.push(version);
        }
    }
    exact.dedup();
    match exact[..] {
        [version] => Ok(version),
        [] => Err(foreign(names)),
        _ => {
            let message = "the file has no number of a schema, and tables of ldk-node's schemas 2 \
                           and 3; run the one of these that is right: PRAGMA user_version = 2, \
                           PRAGMA user_version = 3";
            Err(error(ErrorKind::Unsupported, "open", message))
        }
    }
}

/// Triggers of others do not run on this crate's connections, and whoever made one should know.
fn warn_of_triggers(connection: &Connection, tables: &[TableName]) -> Result<()> {
    for table in tables {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 \
                   COLLATE NOCASE AND name NOT IN (?2, ?3)";
        let order = table.creation_order();
        let own = [format!("{order}_created"), format!("{order}_removed")];
        for trigger in strings(connection, sql, [&table.0, &own[0], &own[1]])? {
            log(|| tracing::warn!(%table, trigger, "a trigger of the table is not run here"));
        }
    }
    Ok(())
}

fn choose(tables: &[TableName], names: &[String], wanted: Option<TableName>) -> Result<TableName> {
    if tables.is_empty() && !names.is_empty() {
        return Err(foreign(names));
    }
    if let Some(wanted) = wanted {
        if names.contains(&wanted.0) && !tables.contains(&wanted) {
            let message = format!("the table {wanted} does not have ldk-node's columns");
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        return Ok(wanted);
    }
    match tables {
        [] => Ok(TableName(DEFAULT_TABLE.to_owned())),
        [only] => Ok(only.clone()),
        several => {
            several.iter().find(|table| table.0 == DEFAULT_TABLE).cloned().ok_or_else(|| {
                let names: Vec<_> = several.iter().map(ToString::to_string).collect();
                let message = format!(
                    "the file holds several stores; name the table to use, one of {}",
                    names.join(", ")
                );
                error(ErrorKind::InvalidInput, "open", message)
            })
        }
    }
}

fn foreign(names: &[String]) -> kvstore_core::Error {
    let shown: Vec<_> = names.iter().take(5).map(String::as_str).collect();
    let message = format!(
        "the file is another program's database, with tables such as {}; use another file",
        shown.join(", ")
    );
    error(ErrorKind::Unsupported, "open", message)
}

/// Tables and views, without SQLite's own and without those that this crate keeps beside.
fn table_names(connection: &Connection) -> Result<Vec<String>> {
    strings(
        connection,
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') \
         AND name NOT GLOB 'sqlite_*' AND name NOT GLOB '*_creation_order' ORDER BY name",
        [],
    )
}

pub(crate) fn strings(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<String>> {
    let query = || -> rusqlite::Result<Vec<String>> {
        connection.prepare(sql)?.query_map(parameters, |row| row.get(0))?.collect()
    };
    query().map_err(|source| engine("open", source))
}

impl Version {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// Brings the file to what [`Queries`](crate::queries::Queries) relies on, in one transaction, and
/// to schema 3 if that is asked for.
pub(crate) fn prepare(connection: &mut Connection, found: Found, upgrade: bool) -> Result<Schema> {
    let Found { mut schema, mut tables } = found;
    if !tables.contains(&schema.table) {
        tables.push(schema.table.clone());
    }
    if upgrade {
        schema.version = Version::Three;
    }
    let mut work = || -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for table in &tables {
            prepare_table(&transaction, table, schema.version)?;
        }
        // Nothing is written to a file that is as it should be.
        let number: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if number != i64::from(schema.version.number()) {
            transaction.pragma_update(None, "user_version", schema.version.number())?;
        }
        transaction.commit()
    };
    work().map_err(|source| engine("open", source))?;
    Ok(schema)
}

fn prepare_table(
    transaction: &Transaction<'_>,
    table: &TableName,
    version: Version,
) -> rusqlite::Result<()> {
    let exists = exists(transaction, "table", &table.0)?;
    match version {
        Version::Two => {
            if !exists {
                transaction.execute_batch(&create_table(&table.0, Version::Two))?;
            }
            widen_primary_key(transaction, table)?;
            number_creations(transaction, table)
        }
        Version::Three => {
            if !exists {
                transaction.execute_batch(&create_table(&table.0, Version::Three))?;
            } else if !has_sort_order(transaction, table)? {
                upgrade_table(transaction, table)?;
            }
            transaction.execute_batch(&create_page_index(table))
        }
    }
}

fn exists(transaction: &Transaction<'_>, kind: &str, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2)";
    transaction.query_row(sql, [kind, name], |row| row.get(0))
}

fn has_sort_order(transaction: &Transaction<'_>, table: &TableName) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = 'sort_order')";
    transaction.query_row(sql, [&table.0], |row| row.get(0))
}

fn create_table(name: &str, version: Version) -> String {
    let sort_order = match version {
        Version::Two => "",
        Version::Three => "sort_order INTEGER NOT NULL DEFAULT 0, ",
    };
    format!(
        "CREATE TABLE \"{name}\" (primary_namespace TEXT NOT NULL, \
         secondary_namespace TEXT DEFAULT '' NOT NULL, key TEXT NOT NULL CHECK (key <> ''), \
         value BLOB, {sort_order}PRIMARY KEY (primary_namespace, secondary_namespace, key));"
    )
}

fn create_page_index(table: &TableName) -> String {
    format!(
        "CREATE INDEX IF NOT EXISTS \"idx_{table}_paginated\" ON \"{table}\" \
         (primary_namespace, secondary_namespace, sort_order DESC, key ASC);"
    )
}

/// Gives a table that ldk-node brought from schema 1 to 2 the primary key that a new one has.
///
/// Such a table kept a key of two columns, without the secondary namespace: writing `p/b/k` there
/// replaces `p/a/k`.
fn widen_primary_key(transaction: &Transaction<'_>, table: &TableName) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE pk > 0";
    let key_columns: i64 = transaction.query_row(sql, [&table.0], |row| row.get(0))?;
    if key_columns == 3 {
        return Ok(());
    }
    let wide = format!("{table}_wide");
    transaction.execute_batch(&format!(
        "{} INSERT INTO \"{wide}\" (primary_namespace, secondary_namespace, key, value) \
         SELECT primary_namespace, secondary_namespace, key, value FROM \"{table}\" ORDER BY rowid; \
         DROP TABLE \"{table}\"; ALTER TABLE \"{wide}\" RENAME TO \"{table}\";",
        create_table(&wide, Version::Two),
    ))
}

/// Keeps creation numbers beside a table of schema 2.
///
/// Triggers do it, so that they stay right while ldk-node 0.7.1 writes to the file. Its
/// `INSERT OR REPLACE` fires the one for inserts even for an update, and lends its conflict clause
/// to what a trigger does: hence the question before the insert.
fn number_creations(transaction: &Transaction<'_>, table: &TableName) -> rusqlite::Result<()> {
    let order = table.creation_order();
    let names = "primary_namespace, secondary_namespace, key";
    let same_as = |row: &str| {
        format!(
            "primary_namespace = {row}.primary_namespace \
             AND secondary_namespace = {row}.secondary_namespace AND key = {row}.key"
        )
    };
    let created = format!(
        "CREATE TRIGGER \"{order}_created\" AFTER INSERT ON \"{table}\" BEGIN \
         INSERT INTO \"{order}\" ({names}) SELECT new.primary_namespace, new.secondary_namespace, \
         new.key WHERE NOT EXISTS (SELECT 1 FROM \"{order}\" WHERE {}); END",
        same_as("new")
    );
    let removed = format!(
        "CREATE TRIGGER \"{order}_removed\" AFTER DELETE ON \"{table}\" BEGIN \
         DELETE FROM \"{order}\" WHERE {}; END",
        same_as("old")
    );
    let is_kept = exists(transaction, "table", &order)?
        && has_trigger(transaction, &created)?
        && has_trigger(transaction, &removed)?
        && count(transaction, &order)? == count(transaction, &table.0)?;
    if is_kept {
        return Ok(());
    }
    transaction.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS \"{order}\" (sort_order INTEGER PRIMARY KEY AUTOINCREMENT, \
         primary_namespace TEXT NOT NULL, secondary_namespace TEXT NOT NULL, key TEXT NOT NULL, \
         UNIQUE ({names}));
         CREATE INDEX IF NOT EXISTS \"idx_{order}_paginated\" ON \"{order}\" \
         (primary_namespace, secondary_namespace, sort_order DESC, key ASC);
         DELETE FROM \"{order}\" WHERE NOT EXISTS \
         (SELECT 1 FROM \"{table}\" AS entry WHERE {same_as_order});
         INSERT INTO \"{order}\" ({names}) SELECT {names} FROM \"{table}\" AS entry \
         WHERE NOT EXISTS (SELECT 1 FROM \"{order}\" WHERE {same_as_entry}) ORDER BY rowid;
         DROP TRIGGER IF EXISTS \"{order}_created\"; {created};
         DROP TRIGGER IF EXISTS \"{order}_removed\"; {removed};",
        same_as_order = same_as(&format!("\"{order}\"")),
        same_as_entry = same_as("entry"),
    ))
}

fn has_trigger(transaction: &Transaction<'_>, sql: &str) -> rusqlite::Result<bool> {
    let found = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND sql = ?1)";
    transaction.query_row(found, [sql], |row| row.get(0))
}

fn count(transaction: &Transaction<'_>, table: &str) -> rusqlite::Result<i64> {
    transaction.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0))
}

/// Rewrites a table of schema 2 as one of schema 3, in creation order.
fn upgrade_table(transaction: &Transaction<'_>, table: &TableName) -> rusqlite::Result<()> {
    widen_primary_key(transaction, table)?;
    number_creations(transaction, table)?;
    let (order, new) = (table.creation_order(), format!("{table}_new"));
    transaction.execute_batch(&format!(
        "{} INSERT INTO \"{new}\" (primary_namespace, secondary_namespace, key, value, sort_order) \
         SELECT primary_namespace, secondary_namespace, key, value, sort_order \
         FROM \"{order}\" CROSS JOIN \"{table}\" \
         USING (primary_namespace, secondary_namespace, key) ORDER BY sort_order; \
         DROP TABLE \"{table}\"; DROP TABLE \"{order}\"; \
         ALTER TABLE \"{new}\" RENAME TO \"{table}\";",
        create_table(&new, Version::Three),
    ))
}
