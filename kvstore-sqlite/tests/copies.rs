//! Other copies of a database in the place of the one that a log was begun on (contract G4).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use rusqlite::{Connection, params};

mod support;

use support::{directory, open};

fn id(key: u8) -> EntryId {
    EntryId::new("p", "s", &key.to_string()).unwrap()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn put(store: &Store<SqliteBackend>, keys: &[u8], value: u8) {
    keys.iter().for_each(|key| store.put_blocking(&id(*key), vec![value; 20_000]).unwrap());
}

/// Writes as ldk-node does, and closes the file.
fn put_by_ldk_node(path: &Path, value: u8) {
    let connection = Connection::open(path).unwrap();
    put_through(&connection, &(0..12).collect::<Vec<_>>(), value);
}

fn put_through(connection: &Connection, keys: &[u8], value: u8) {
    let sql = "INSERT OR REPLACE INTO ldk_node_data VALUES ('p', 's', ?1, ?2, ?1)";
    for key in keys {
        connection.execute(sql, params![key.to_string(), vec![value; 20_000]]).unwrap();
    }
}

/// The log that a kill now would leave opens with the database beside it, and not with this copy.
#[track_caller]
fn check_refused(path: &Path, copy: &Path) {
    let crashed = beside(path, ".crashed");
    let log = beside(&crashed, "-wal");
    for database in [copy, path] {
        fs::copy(database, &crashed).unwrap();
        fs::copy(beside(path, "-wal"), &log).unwrap();
        let before = (fs::read(&crashed).unwrap(), fs::read(&log).unwrap());
        let opened = SqliteBackend::open(&SqliteOptions::new(&crashed));
        if database == path {
            drop(opened.unwrap());
            continue;
        }
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("does not belong"), "{error}");
        assert_eq!((fs::read(&crashed).unwrap(), fs::read(&log).unwrap()), before);
    }
}

/// It has the same stamp and the same entries, in other pages.
#[test]
fn a_compacted_copy_of_the_same_time_is_refused() {
    let (directory, path) = directory();
    let store = open(&path);
    put(&store, &[0, 1, 2, 3, 4, 5], 1);
    store.remove_blocking(&id(3)).unwrap();
    store.close_blocking().unwrap();
    let copy = directory.path().join("copy");
    let sql = "VACUUM INTO ?1";
    Connection::open(&path).unwrap().execute(sql, [copy.to_str().unwrap()]).unwrap();
    let store = open(&path);
    put(&store, &[1, 4], 2);
    check_refused(&path, &copy);
}

/// Another program writes no stamp, so the copy has the one that the log was begun on.
#[test]
fn a_copy_from_before_another_program_wrote_is_refused() {
    let (directory, path) = directory();
    let store = open(&path);
    put(&store, &[0, 1, 2, 3, 4, 5], 1);
    store.close_blocking().unwrap();
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    for value in 2..5 {
        put_by_ldk_node(&path, value);
    }
    let store = open(&path);
    put(&store, &[1, 4], 7);
    check_refused(&path, &copy);
}

#[test]
fn a_copy_of_a_file_that_was_never_stamped_is_refused() {
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    put_by_ldk_node(&path, 1);
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    for value in 2..5 {
        put_by_ldk_node(&path, value);
    }
    let store = open(&path);
    put(&store, &[1, 4], 7);
    check_refused(&path, &copy);
}

#[test]
fn an_old_copy_under_the_log_of_another_program_is_refused() {
    let (directory, path) = directory();
    let store = open(&path);
    put(&store, &[0, 1, 2, 3, 4, 5], 1);
    store.close_blocking().unwrap();
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    for value in 2..4 {
        let ldk_node = Connection::open(&path).unwrap();
        // What frees pages writes page 1.
        ldk_node.execute_batch("DELETE FROM ldk_node_data WHERE key IN ('0', '5')").unwrap();
        put_through(&ldk_node, &[5, 0, 11], value);
        if value == 3 {
            check_refused(&path, &copy);
        }
    }
}

/// A restore through SQLite lies in the log as long as somebody reads beside it, and is settled as the
/// message says.
#[test]
fn a_restore_beside_a_reader_is_taken_once_it_is_in_the_database() {
    let (directory, path) = directory();
    let application_id = || -> i32 {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap()
    };
    let mut ids = Vec::new();
    for value in 0..3 {
        let store = open(&path);
        put(&store, &[0, 1], value);
        store.close_blocking().unwrap();
        ids.push(application_id());
    }
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM ldk_node_data").unwrap();
    let restoring = Connection::open(&path).unwrap();
    restoring.pragma_update(None, "application_id", ids[0]).unwrap();
    let crashed = directory.path().join("crashed");
    fs::copy(&path, &crashed).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&crashed, "-wal")).unwrap();
    let error = SqliteBackend::open(&SqliteOptions::new(&crashed)).unwrap_err();
    assert!(error.to_string().contains("PRAGMA wal_checkpoint(TRUNCATE)"), "{error}");
    let shell = Connection::open(&crashed).unwrap();
    shell.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(shell);
    assert_eq!(open(&crashed).get_blocking(&id(1)).unwrap(), Some(vec![2; 20_000]));
}
