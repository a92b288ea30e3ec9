//! What the tests of this crate have in common, and files as ldk-node makes them.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::path::{Path, PathBuf};

use kvstore_core::{ErrorKind, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use rusqlite::Connection;
use tempfile::TempDir;

pub(crate) fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sqlite");
    (directory, path)
}

pub(crate) fn open(path: &Path) -> Store<SqliteBackend> {
    Store::open(SqliteBackend::open(&SqliteOptions::new(path)).unwrap()).unwrap()
}

pub(crate) fn refused(options: &SqliteOptions) -> (ErrorKind, String) {
    let error = SqliteBackend::open(options).expect_err("it is refused");
    assert_eq!(error.backend(), "sqlite");
    (error.kind(), error.to_string())
}

/// Makes a file of schema 1 or 2 with an empty table `ldk_node_data`, which everybody may read, in
/// rollback journal mode.
pub(crate) fn ldk_node_file(path: &Path, schema: u8) -> Connection {
    let connection = Connection::open(path).unwrap();
    let columns = match schema {
        1 => {
            "namespace TEXT NOT NULL, key TEXT NOT NULL CHECK (key <> ''), value BLOB, \
              PRIMARY KEY ( namespace, key )"
        }
        _ => {
            "primary_namespace TEXT NOT NULL, secondary_namespace TEXT DEFAULT \"\" NOT NULL, \
              key TEXT NOT NULL CHECK (key <> ''), value BLOB, \
              PRIMARY KEY ( primary_namespace, secondary_namespace, key )"
        }
    };
    let create = format!("CREATE TABLE IF NOT EXISTS ldk_node_data ({columns});");
    connection.pragma_update(None, "user_version", schema).unwrap();
    connection.execute_batch(&create).unwrap();
    // As with the usual umask, whatever the one of the tests is.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    connection
}
