//! What others put into a file or left out of it: triggers, constraints, the number of the schema.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use kvstore_core::{EntryId, ErrorKind, Namespace, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use rusqlite::Connection;

mod support;

use support::{directory, open, refused};

fn id(secondary: &str, key: &str) -> EntryId {
    EntryId::new("p", secondary, key).unwrap()
}

fn keys(store: &Store<SqliteBackend>) -> Vec<String> {
    let keys = store.list_blocking(&Namespace::new("p", "s").unwrap()).unwrap();
    keys.iter().map(ToString::to_string).collect()
}

/// G7: a put that the table drops is an error of that put, and what else it did is undone.
#[test]
fn a_put_that_the_table_drops_is_an_error() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.put_blocking(&id("s", "a"), vec![1]).unwrap();
    let shell = Connection::open(&path).unwrap();
    // The number of rows that change is then none.
    shell
        .execute_batch(
            "ALTER TABLE ldk_node_data RENAME TO other; CREATE TABLE ldk_node_data \
             (primary_namespace TEXT, secondary_namespace TEXT, key TEXT, value BLOB, sort_order INTEGER, \
             PRIMARY KEY (primary_namespace, secondary_namespace, key), \
             CHECK (value <> x'07'), UNIQUE (value) ON CONFLICT IGNORE); \
             INSERT INTO ldk_node_data SELECT primary_namespace, secondary_namespace, key, value, \
             sort_order FROM other; DROP TABLE other;",
        )
        .unwrap();
    let batch = store.batch().put(&id("s", "b"), vec![2]).put(&id("s", "c"), vec![1]);
    let error = batch.commit_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("0 rows for one entry"), "{error}");
    let error = store.put_blocking(&id("s", "c"), vec![1]).unwrap_err();
    assert!(error.to_string().contains("0 rows for one entry"), "{error}");
    let error = store.put_blocking(&id("s", "c"), vec![7]).unwrap_err();
    assert!(error.to_string().contains("constraint"), "{error}");
    assert_eq!(keys(&store), ["a"]);
    store.put_blocking(&id("s", "b"), vec![2]).unwrap();
    store.close_blocking().unwrap();
    drop(shell);
    let (kind, message) = refused(&SqliteOptions::new(&path));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("a constraint that is not ldk-node's"), "{message}");
}

/// G7: what somebody planted in the file does not run here, before or after the store was opened.
#[test]
fn triggers_of_others_do_not_run() {
    const PLANTED: &str = "
        CREATE TRIGGER ignoring BEFORE INSERT ON ldk_node_data BEGIN SELECT RAISE(IGNORE); END;
        CREATE TRIGGER keeping BEFORE DELETE ON ldk_node_data BEGIN SELECT RAISE(IGNORE); END;
        CREATE TRIGGER taking AFTER INSERT ON ldk_node_data BEGIN
            DELETE FROM ldk_node_data WHERE key = new.key; END;";
    for (schema, is_open) in [(2, false), (2, true), (3, false), (3, true)] {
        let (_directory, path) = directory();
        if schema == 2 {
            drop(support::ldk_node_file(&path, 2));
        }
        open(&path).close_blocking().unwrap();
        let plant = || Connection::open(&path).unwrap().execute_batch(PLANTED).unwrap();
        if !is_open {
            plant();
        }
        let store = open(&path);
        if is_open {
            plant();
        }
        for key in ["a", "b", "a"] {
            store.put_blocking(&id("s", key), key).unwrap();
        }
        assert_eq!(store.get_blocking(&id("s", "a")).unwrap().unwrap(), b"a");
        assert_eq!(keys(&store), ["b", "a"], "schema {schema}");
        store.remove_blocking(&id("s", "a")).unwrap();
        assert_eq!(store.get_blocking(&id("s", "a")).unwrap(), None);
        assert_eq!(keys(&store), ["b"], "schema {schema}");
    }
}

#[test]
fn a_file_rebuilt_from_a_dump_is_known_by_its_tables() {
    const NAMES: &str = "primary_namespace TEXT NOT NULL, secondary_namespace TEXT DEFAULT \"\" NOT \
                         NULL, key TEXT NOT NULL CHECK (key <> ''), value BLOB";
    const KEY: &str = "PRIMARY KEY (primary_namespace, secondary_namespace, key)";
    let three = format!("CREATE TABLE a ({NAMES}, sort_order INTEGER NOT NULL DEFAULT 0, {KEY})");
    let two = format!("CREATE TABLE b ({NAMES}, {KEY})");
    for (sql, version) in [(&three, 3), (&two, 2)] {
        let (_directory, path) = directory();
        let tool = Connection::open(&path).unwrap();
        tool.execute_batch(sql).unwrap();
        let table = &sql[13..14];
        let row = format!(
            "INSERT INTO {table} (primary_namespace, secondary_namespace, key, value) \
                           VALUES ('p', 's', 'k', x'01')"
        );
        tool.execute_batch(&row).unwrap();
        drop(tool);
        let store = open(&path);
        assert_eq!(store.get_blocking(&id("s", "k")).unwrap(), Some(vec![1]));
        store.close_blocking().unwrap();
        let tool = Connection::open(&path).unwrap();
        let found: i64 = tool.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(found, version);
    }
    let other_types = three.replace("sort_order INTEGER", "sort_order TEXT");
    for (sql, says) in [
        (format!("{three}; {two}"), "PRAGMA user_version = 2"),
        (other_types, "PRAGMA user_version = 3"),
        ("CREATE TABLE bookmarks (url)".into(), "another program"),
        (three.replace(KEY, "UNIQUE (key)"), "PRAGMA user_version = 3"),
        (format!("{three}; PRAGMA user_version = 3").replace(KEY, "UNIQUE (key)"), "primary key"),
        (
            format!("{two}; CREATE VIEW ldk_node_data AS SELECT 1; PRAGMA user_version = 3"),
            "another",
        ),
    ] {
        let (_directory, path) = directory();
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
        let before = fs::read(&path).unwrap();
        let (kind, message) = refused(&SqliteOptions::new(&path));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(message.contains(says), "{sql}: {message}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

/// G7: types and collations by which one key would replace another.
#[test]
fn a_table_in_which_two_keys_are_one_is_refused() {
    const NAMES: &str = "primary_namespace TEXT NOT NULL, secondary_namespace TEXT NOT NULL, \
                         key TEXT NOT NULL";
    const KEY: &str = "PRIMARY KEY (primary_namespace, secondary_namespace, key)";
    const ORDER: &str = "sort_order INTEGER PRIMARY KEY AUTOINCREMENT";
    let two = format!("CREATE TABLE collate_ ({NAMES}, value BLOB, {KEY})");
    let three = two.replace("BLOB,", "BLOB, sort_order INTEGER NOT NULL DEFAULT 0,");
    let order = format!(
        "{two}; CREATE TABLE collate__creation_order \
         ({ORDER}, {NAMES}, UNIQUE (primary_namespace, secondary_namespace, key))"
    );
    let changes = [
        ("key TEXT", "key TEXT COLLATE NOCASE"),
        ("namespace, key)", "namespace, key collate rtrim)"),
        ("key TEXT", "key NUMERIC"),
        ("secondary_namespace TEXT", "secondary_namespace INTEGER"),
    ];
    for (sql, version) in [(two, 2), (three, 3), (order, 2)] {
        let last = sql.rfind("CREATE").unwrap();
        let check = |sql: &str| {
            let (directory, path) = directory();
            let sql = format!("{sql}; PRAGMA user_version = {version}");
            Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
            (directory, SqliteOptions::new(&path))
        };
        let (_directory, options) = check(&sql);
        let store = open(&options.path);
        for key in ["A", "a", "1", "01", "1 "] {
            if EntryId::new("p", "s", key).is_ok() {
                store.put_blocking(&id("s", key), key).unwrap();
            }
        }
        assert_eq!(store.get_blocking(&id("s", "A")).unwrap().unwrap(), b"A");
        assert_eq!(store.get_blocking(&id("s", "01")).unwrap().unwrap(), b"01");
        for (from, to) in changes {
            let changed = format!("{}{}", &sql[..last], sql[last..].replace(from, to));
            assert_ne!(changed, sql);
            let (_directory, options) = check(&changed);
            let (kind, message) = refused(&options);
            assert_eq!(kind, ErrorKind::Unsupported, "{changed}: {message}");
            let says = if last > 0 { "drop it" } else { "rebuild it" };
            assert!(message.contains(says), "{changed}: {message}");
        }
    }
}

/// S1: the rights of a file elsewhere stay as they are.
#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_shared_memory_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    for schema in [2, 3] {
        let (directory, path) = directory();
        if schema == 2 {
            drop(support::ldk_node_file(&path, 2));
        } else {
            open(&path).close_blocking().unwrap();
        }
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "theirs").unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o644)).unwrap();
        let link = format!("{}-shm", path.display());
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        let (kind, message) = refused(&SqliteOptions::new(&path));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(message.contains("-shm is a symbolic link"), "{message}");
        assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        fs::remove_file(link).unwrap();
        open(&path).close_blocking().unwrap();
    }
}
