//! Which files open, which are refused, and what becomes of ldk-node's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use kvstore_core::{EntryId, ErrorKind, Namespace, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use rusqlite::{Connection, params};

mod support;

use support::{directory, open, refused};

fn id(secondary: &str, key: &str) -> EntryId {
    EntryId::new("p", secondary, key).unwrap()
}

fn keys(store: &Store<SqliteBackend>) -> Vec<String> {
    let keys = store.list_blocking(&Namespace::new("p", "s").unwrap()).unwrap();
    keys.iter().map(ToString::to_string).collect()
}

/// Writes as ldk-node 0.7.1 does, which replaces the row of an update.
fn replace(connection: &Connection, secondary: &str, key: &str, value: &[u8]) {
    let sql = "INSERT OR REPLACE INTO ldk_node_data \
               (primary_namespace, secondary_namespace, key, value) VALUES ('p', ?1, ?2, ?3)";
    connection.execute(sql, params![secondary, key, value]).unwrap();
}

#[test]
fn a_new_file_has_schema_3_and_the_table_of_ldk_node() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "a clean close leaves the database alone: {names:?}");
    let connection = Connection::open(&path).unwrap();
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("PRAGMA journal_mode"), "wal");
    assert_eq!(text("SELECT CAST(user_version AS TEXT) FROM pragma_user_version"), "3");
    let columns = "SELECT group_concat(name) FROM pragma_table_info('ldk_node_data')";
    assert_eq!(text(columns), "primary_namespace,secondary_namespace,key,value,sort_order");
    let index = "SELECT sql FROM sqlite_schema WHERE name = 'idx_ldk_node_data_paginated'";
    assert!(text(index).contains("sort_order DESC, key ASC"));
}

#[test]
fn schema_2_stays_and_ldk_node_can_go_on() {
    let (_directory, path) = directory();
    let ldk_node = support::ldk_node_file(&path, 2);
    for (at, key) in ["c", "a", "b"].iter().enumerate() {
        replace(&ldk_node, "s", key, &[at as u8]);
    }
    drop(ldk_node);
    let store = open(&path);
    assert_eq!(keys(&store), ["b", "a", "c"]);
    store.put_blocking(&id("s", "d"), vec![3]).unwrap();
    store.put_blocking(&id("s", "c"), vec![9]).unwrap();
    store.close_blocking().unwrap();

    let ldk_node = Connection::open(&path).unwrap();
    let version: i64 = ldk_node.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
    // An update by ldk-node does not move the key; removing it and writing it again does.
    replace(&ldk_node, "s", "a", &[7]);
    replace(&ldk_node, "s", "e", &[4]);
    ldk_node.execute("DELETE FROM ldk_node_data WHERE key = 'b'", []).unwrap();
    replace(&ldk_node, "s", "b", &[5]);
    drop(ldk_node);

    let store = open(&path);
    assert_eq!(keys(&store), ["b", "e", "d", "a", "c"]);
    for (key, value) in [("a", 7), ("b", 5), ("c", 9), ("d", 3), ("e", 4)] {
        assert_eq!(store.get_blocking(&id("s", key)).unwrap(), Some(vec![value]), "{key}");
    }
}

#[test]
fn creation_numbers_are_mended_if_a_tool_dropped_the_triggers() {
    let (_directory, path) = directory();
    drop(support::ldk_node_file(&path, 2));
    let store = open(&path);
    store.put_blocking(&id("s", "a"), vec![1]).unwrap();
    store.put_blocking(&id("s", "b"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    let tool = Connection::open(&path).unwrap();
    tool.execute_batch("DROP TRIGGER ldk_node_data_creation_order_created").unwrap();
    tool.execute_batch("DROP TRIGGER ldk_node_data_creation_order_removed").unwrap();
    tool.execute("DELETE FROM ldk_node_data WHERE key = 'a'", []).unwrap();
    replace(&tool, "s", "c", &[2]);
    drop(tool);
    let store = open(&path);
    assert_eq!(keys(&store), ["c", "b"]);
    store.put_blocking(&id("s", "a"), vec![3]).unwrap();
    assert_eq!(keys(&store), ["a", "c", "b"]);
    store.close_blocking().unwrap();
    // A trigger by the right name that does something else, and numbers that are not there.
    let tool = Connection::open(&path).unwrap();
    tool.execute_batch(
        "DROP TRIGGER ldk_node_data_creation_order_created; \
         CREATE TRIGGER ldk_node_data_creation_order_created AFTER INSERT ON ldk_node_data \
         BEGIN SELECT 1; END",
    )
    .unwrap();
    drop(tool);
    open(&path).close_blocking().unwrap();
    let tool = Connection::open(&path).unwrap();
    replace(&tool, "s", "d", &[2]);
    let sql = "SELECT count(*) FROM ldk_node_data_creation_order WHERE key = 'd'";
    let numbered: i64 = tool.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(numbered, 1, "the trigger is not the right one again");
    drop(tool);
    assert_eq!(keys(&open(&path)), ["d", "a", "c", "b"]);
    let tool = Connection::open(&path).unwrap();
    replace(&tool, "s", "e", &[2]);
    tool.execute_batch("DELETE FROM ldk_node_data_creation_order WHERE key = 'b'").unwrap();
    drop(tool);
    let options = SqliteOptions::new(&path).upgrade_schema(true);
    let store = Store::open(SqliteBackend::open(&options).unwrap()).unwrap();
    assert_eq!(keys(&store), ["b", "e", "d", "a", "c"], "an entry without a number is lost");
}

#[test]
fn a_migrated_table_gets_room_for_the_secondary_namespace() {
    let (_directory, path) = directory();
    let ldk_node = support::ldk_node_file(&path, 1);
    ldk_node
        .execute_batch(
            "INSERT INTO ldk_node_data VALUES ('p', 'k', x'01'); \
             ALTER TABLE ldk_node_data RENAME COLUMN namespace TO primary_namespace; \
             ALTER TABLE ldk_node_data ADD secondary_namespace TEXT DEFAULT \"\" NOT NULL; \
             PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(ldk_node);
    let store = open(&path);
    store.put_blocking(&id("s", "k"), vec![2]).unwrap();
    store.put_blocking(&id("t", "k"), vec![3]).unwrap();
    store.close_blocking().unwrap();
    // ldk-node's statements still work on it.
    replace(&Connection::open(&path).unwrap(), "t", "k", &[4]);
    let store = open(&path);
    for (secondary, value) in [("", 1), ("s", 2), ("t", 4)] {
        assert_eq!(store.get_blocking(&id(secondary, "k")).unwrap(), Some(vec![value]));
    }
}

#[test]
fn schema_3_is_an_explicit_choice_and_keeps_the_order() {
    let (_directory, path) = directory();
    drop(support::ldk_node_file(&path, 2));
    let store = open(&path);
    for key in ["c", "a", "b"] {
        store.put_blocking(&id("s", key), key).unwrap();
    }
    store.close_blocking().unwrap();
    let options = SqliteOptions::new(&path).upgrade_schema(true);
    let store = Store::open(SqliteBackend::open(&options).unwrap()).unwrap();
    assert_eq!(keys(&store), ["b", "a", "c"]);
    store.put_blocking(&id("s", "d"), "d").unwrap();
    store.close_blocking().unwrap();
    let store = open(&path);
    assert_eq!(keys(&store), ["d", "b", "a", "c"]);
    store.close_blocking().unwrap();
    let connection = Connection::open(&path).unwrap();
    let leftovers: i64 = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%creation_order%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(leftovers, 0);
}

#[test]
fn rows_that_share_a_creation_number_are_paged_once_each() {
    let (_directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let other = Connection::open(&path).unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        let sql = "INSERT INTO ldk_node_data VALUES ('p', 's', ?1, x'01', 7)";
        other.execute(sql, [key]).unwrap();
    }
    drop(other);
    let store = open(&path);
    let names = Namespace::new("p", "s").unwrap();
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let page = store.page_blocking(&names, token.as_ref(), 2).unwrap();
        found.extend(page.keys().map(ToString::to_string));
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
    store.put_blocking(&id("s", "new"), vec![1]).unwrap();
    assert_eq!(keys(&store)[0], "new");
    store.close_blocking().unwrap();
    // The largest number there is: later entries share it.
    let other = Connection::open(&path).unwrap();
    let sql = "INSERT INTO ldk_node_data VALUES ('p', 's', 'last', x'01', ?1)";
    other.execute(sql, [i64::MAX]).unwrap();
    drop(other);
    let store = open(&path);
    store.put_blocking(&id("s", "newer"), vec![1]).unwrap();
    assert_eq!(keys(&store)[..3], ["last", "newer", "new"]);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let (_directory, path) = directory();
    let sql_file = |sql: &str| {
        let _ = fs::remove_file(&path);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    let cases: [(&str, ErrorKind, &str); 6] = [
        ("CREATE TABLE bookmarks (url)", ErrorKind::Unsupported, "bookmarks"),
        ("CREATE TABLE t (a); PRAGMA user_version = 2", ErrorKind::Unsupported, "another program"),
        ("CREATE TABLE t (a); PRAGMA user_version = 1", ErrorKind::Unsupported, "ldk-node 0.7.1"),
        ("CREATE TABLE t (a); PRAGMA user_version = 4", ErrorKind::Unsupported, "newer version"),
        ("CREATE TABLE t (a); PRAGMA user_version = -1", ErrorKind::Unsupported, "schema -1"),
        ("CREATE TABLE ldk_node_data (a); PRAGMA user_version = 3", ErrorKind::Unsupported, ""),
    ];
    for (sql, kind, says) in cases {
        sql_file(sql);
        let before = fs::read(&path).unwrap();
        let (found, message) = refused(&SqliteOptions::new(&path));
        assert_eq!(found, kind, "{sql}: {message}");
        assert!(message.contains(says) && message.contains("node.sqlite"), "{sql}: {message}");
        assert_eq!(fs::read(&path).unwrap(), before, "{sql}: the file was changed");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "{sql}");
    }
}

#[test]
fn damaged_files_are_reported_and_left_alone() {
    let (_directory, path) = directory();
    let store = open(&path);
    for at in 0..50 {
        store.put_blocking(&id("s", &at.to_string()), vec![at; 3000]).unwrap();
    }
    store.close_blocking().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut no_start = whole.clone();
    no_start[..100].fill(0xab);
    let garbage: Vec<u8> = (0..5000_u32).map(|at| (at * 7) as u8).collect();
    let cut_short = whole[..whole.len() / 2].to_vec();
    for (name, bytes) in [("start", no_start), ("garbage", garbage), ("cut", cut_short)] {
        fs::write(&path, &bytes).unwrap();
        let (kind, message) = refused(&SqliteOptions::new(&path));
        let expected = if name == "cut" { ErrorKind::Corrupted } else { ErrorKind::Unsupported };
        assert_eq!(kind, expected, "{name}: {message}");
        assert!(message.contains("node.sqlite") && message.contains("keep a copy"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}: the file was changed");
    }
    // Damage inside shows when it is read, as an error and not as absence.
    let mut inside = whole.clone();
    inside[4096 * 3..].fill(0);
    fs::write(&path, &inside).unwrap();
    let outcome = SqliteBackend::open(&SqliteOptions::new(&path)).and_then(|backend| {
        let store = Store::open(backend).unwrap();
        (0..50).try_for_each(|at| {
            let found = store.get_blocking(&id("s", &at.to_string()))?;
            assert_eq!(found, Some(vec![at; 3000]), "damage was read as something else");
            Ok(())
        })
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Corrupted);
}

#[test]
fn places_that_cannot_hold_a_database_are_named() {
    let (directory, path) = directory();
    let at = directory.path();
    let (kind, message) = refused(&SqliteOptions::new(at));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("is a directory"), "{message}");
    fs::write(at.join("file"), "").unwrap();
    let (kind, message) = refused(&SqliteOptions::new(at.join("file/db")));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("file"), "{message}");
    let (kind, message) = refused(&SqliteOptions::new(&path).create(false));
    assert_eq!(kind, ErrorKind::Missing);
    assert!(message.contains("does not exist"), "{message}");
    assert!(!path.exists());
    for table in ["", "1st", "a;b", "sqlite_x", "a\"b", &"x".repeat(65)] {
        let (kind, _) = refused(&SqliteOptions::new(&path).table(table));
        assert_eq!(kind, ErrorKind::InvalidInput, "{table}");
        assert!(!path.exists());
    }
    assert_eq!(fs::read_dir(at).unwrap().count(), 1, "only `file` is left behind");
}

#[test]
fn an_empty_file_becomes_a_store_only_if_one_may_be_created() {
    let (_directory, path) = directory();
    fs::write(&path, "").unwrap();
    let (kind, message) = refused(&SqliteOptions::new(&path).create(false));
    assert_eq!(kind, ErrorKind::Missing);
    assert!(message.contains("holds no table"), "{message}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let store = open(&path);
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    assert_eq!(keys(&open(&path)), ["k"]);
}

#[test]
fn what_a_crash_left_of_a_new_file_is_cleaned_up() {
    let (directory, path) = directory();
    for suffix in [".creating", ".creating-wal", ".creating-journal", ".kvstore-lock"] {
        let name = format!("node.sqlite{suffix}");
        fs::write(directory.path().join(name), "half of something").unwrap();
    }
    let store = open(&path);
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_log_without_its_database_is_not_taken_for_a_new_store() {
    for suffix in ["-wal", "-journal"] {
        let (_directory, path) = directory();
        let log = PathBuf::from(format!("{}{suffix}", path.display()));
        fs::write(&log, "what was acknowledged last").unwrap();
        let (kind, message) = refused(&SqliteOptions::new(&path));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(
            message.contains(suffix) && message.contains("bring the database back"),
            "{message}"
        );
        assert!(!path.exists() && log.exists());
    }
}

#[test]
fn a_mistyped_table_is_not_created_where_nothing_may_be() {
    let (_directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let options = SqliteOptions::new(&path).table("ldk_node_dta").create(false);
    let (kind, message) = refused(&options);
    assert_eq!(kind, ErrorKind::Missing);
    assert!(message.contains("no table ldk_node_dta"), "{message}");
}

/// L7: the number of an entry that was removed is not given to a later one.
#[test]
fn a_token_stays_where_it_was_after_reopening() {
    for schema in [2, 3] {
        let (_directory, path) = directory();
        if schema == 2 {
            drop(support::ldk_node_file(&path, 2));
        }
        let store = open(&path);
        for key in ["a", "b", "c"] {
            store.put_blocking(&id("s", key), "x").unwrap();
        }
        let names = Namespace::new("p", "s").unwrap();
        let token = store.page_blocking(&names, None, 1).unwrap().next;
        store.remove_blocking(&id("s", "c")).unwrap();
        store.close_blocking().unwrap();
        let store = open(&path);
        store.put_blocking(&id("s", "d"), "x").unwrap();
        let page = store.page_blocking(&names, token.as_ref(), 9).unwrap();
        assert_eq!(page.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    }
}

#[cfg(unix)]
#[test]
fn a_second_name_of_the_file_is_refused() {
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    fs::hard_link(&path, directory.path().join("second")).unwrap();
    for name in ["node.sqlite", "second"] {
        let (kind, message) = refused(&SqliteOptions::new(directory.path().join(name)));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(message.contains("hard link"), "{message}");
    }
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(directory.path().join("absent"), &dangling).unwrap();
    let (kind, _) = refused(&SqliteOptions::new(&dangling));
    assert_eq!(kind, ErrorKind::Missing);
    assert!(dangling.is_symlink());
}

#[cfg(unix)]
#[test]
fn two_ways_to_one_file_meet_at_one_lock() {
    let (directory, path) = directory();
    let _store = open(&path);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (kind, message) = refused(&SqliteOptions::new(&link));
    assert_eq!(kind, ErrorKind::AlreadyOpen);
    let own = format!("process {}", std::process::id());
    assert!(message.contains(&own), "{message}");
}

#[test]
fn another_program_that_writes_delays_and_then_is_named() {
    let (_directory, path) = directory();
    let options = SqliteOptions::new(&path).busy_timeout(std::time::Duration::from_millis(50));
    let store = Store::open(SqliteBackend::open(&options).unwrap()).unwrap();
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    let shell = Connection::open(&path).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE; DELETE FROM ldk_node_data").unwrap();
    // Reads do not wait for a writer (contract R3); a commit does, and fails in the end.
    assert_eq!(store.get_blocking(&id("s", "k")).unwrap(), Some(vec![1]));
    assert_eq!(keys(&store), ["k"]);
    let error = store.put_blocking(&id("s", "k"), vec![2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable() && error.to_string().contains("another program"), "{error}");
    shell.execute_batch("ROLLBACK").unwrap();
    store.put_blocking(&id("s", "k"), vec![3]).unwrap();
    assert_eq!(store.get_blocking(&id("s", "k")).unwrap(), Some(vec![3]));
}

#[test]
fn rows_that_no_store_writes_are_damage_and_not_absence() {
    let (_directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let shell = Connection::open(&path).unwrap();
    shell.execute("INSERT INTO ldk_node_data VALUES ('p', 's', 'null', NULL, 1)", []).unwrap();
    shell.execute("INSERT INTO ldk_node_data VALUES ('p', 't', 'a/b', x'01', 2)", []).unwrap();
    drop(shell);
    let store = open(&path);
    let error = store.get_blocking(&id("s", "null")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    let error = store.list_blocking(&Namespace::new("p", "t").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(error.to_string().contains("a/b"), "{error}");
    store.put_blocking(&id("s", "null"), vec![1]).unwrap();
    assert_eq!(store.get_blocking(&id("s", "null")).unwrap(), Some(vec![1]));
}
