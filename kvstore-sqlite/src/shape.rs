//! How a table is made: its columns, keys and constraints.

use kvstore_core::{ErrorKind, Result};
use rusqlite::Connection;

use crate::error::error;
use crate::schema::{Version, strings};

/// Whether it is an ordinary table with the columns of this schema.
pub(crate) fn has_columns(connection: &Connection, table: &str, version: Version) -> Result<bool> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND name = ?1 \
               AND type = 'table'";
    let is_table = !strings(connection, sql, [table])?.is_empty();
    // Hidden and generated columns count too.
    let sql = "SELECT name FROM pragma_table_xinfo(?1) ORDER BY name";
    Ok(is_table && strings(connection, sql, [table])? == column_names(version))
}

fn column_names(version: Version) -> &'static [&'static str] {
    match version {
        Version::Two => &["key", "primary_namespace", "secondary_namespace", "value"],
        Version::Three => {
            &["key", "primary_namespace", "secondary_namespace", "sort_order", "value"]
        }
    }
}

/// Whether the columns have the types and the key that ldk-node and this crate give them. A key of
/// two columns is that of a table which ldk-node brought from schema 1 to 2.
pub(crate) fn is_exact(connection: &Connection, table: &str, version: Version) -> Result<bool> {
    let found = columns(connection, table)?;
    let names = ["primary_namespace TEXT 1 1", "secondary_namespace TEXT 1 2"];
    let mut whole = vec!["key TEXT 1 3", names[0], names[1]];
    if version == Version::Three {
        whole.push("sort_order INTEGER 1 0");
    }
    whole.push("value BLOB 0 0");
    let from_schema_1 =
        ["key TEXT 1 2", names[0], "secondary_namespace TEXT 1 0", "value BLOB 0 0"];
    let is_known = found == whole || version == Version::Two && found == from_schema_1;
    Ok(is_known && !has_collation(connection, table)?)
}

/// Name, type, `NOT NULL` and place in the primary key of each column.
fn columns(connection: &Connection, table: &str) -> Result<Vec<String>> {
    let sql = "SELECT name || ' ' || upper(type) || ' ' || \"notnull\" || ' ' || pk \
               FROM pragma_table_info(?1) ORDER BY name";
    strings(connection, sql, [table])
}

/// Whether the table names a collation, such as `NOCASE`, by which two keys could be one. The words
/// are looked for behind the table's own name.
fn has_collation(connection: &Connection, table: &str) -> Result<bool> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?1 \
               AND instr(upper(substr(sql, instr(sql, '('))), 'COLLATE') > 0";
    Ok(!strings(connection, sql, [table])?.is_empty())
}

/// Refuses a table whose columns are of other types or collations: with them two keys could be one,
/// or a key another one when it is read back.
pub(crate) fn refuse_types(connection: &Connection, table: &str, version: Version) -> Result<()> {
    if is_exact(connection, table, version)? {
        return Ok(());
    }
    let message = format!(
        "the table {table} has the columns of ldk-node's schema {}, but other types or collations, by \
         which two keys could be one; rebuild it as ldk-node makes it",
        version.number()
    );
    Err(error(ErrorKind::Unsupported, "open", message))
}

/// Refuses a table of creation numbers that this crate did not make.
pub(crate) fn refuse_foreign_order(connection: &Connection, order: &str) -> Result<()> {
    let found = columns(connection, order)?;
    let unique = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1";
    let expected = [
        "key TEXT 1 0",
        "primary_namespace TEXT 1 0",
        "secondary_namespace TEXT 1 0",
        "sort_order INTEGER 0 1",
    ];
    let is_own = found == expected
        && strings(connection, unique, [order])?.len() == 1
        && !has_collation(connection, order)?;
    if found.is_empty() || is_own {
        return Ok(());
    }
    let message = format!(
        "the table {order} is not as this crate makes it; drop it, and it is made anew in the order \
         of the rows"
    );
    Err(error(ErrorKind::Unsupported, "open", message))
}

/// Refuses a table whose key is not its three names, or that holds something else to be unique: with
/// it a put could replace or lose another entry (contract G7).
pub(crate) fn refuse_constraints(
    connection: &Connection,
    table: &str,
    version: Version,
) -> Result<()> {
    let sql = "SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY name";
    let key = strings(connection, sql, [table])?;
    let from_schema_1 = version == Version::Two && key == ["key", "primary_namespace"];
    if key != ["key", "primary_namespace", "secondary_namespace"] && !from_schema_1 {
        let message = format!(
            "the table {table} has no primary key of primary_namespace, secondary_namespace and \
             key; rebuild it as ldk-node makes it"
        );
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    let sql = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1 AND origin <> 'pk'";
    if let Some(index) = strings(connection, sql, [table])?.first() {
        let message = format!(
            "the table {table} has a constraint that is not ldk-node's, the unique index {index}, \
             which could lose entries; drop it"
        );
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    Ok(())
}
