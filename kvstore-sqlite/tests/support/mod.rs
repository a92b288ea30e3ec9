//! Files as ldk-node makes them.

use std::path::Path;

use rusqlite::Connection;

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
