//! One file, used by ldk-node 0.7.1 and by `kvstore` in turns.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod expected;
mod kvstore;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use expected::{Expected, Name, name};
use kvstore::Tool;
use ldk_node::io::sqlite_store::{KV_TABLE_NAME, SQLITE_DB_FILE_NAME, SqliteStore};
use ldk_node::lightning::io::ErrorKind;
use ldk_node::lightning::util::persist::KVStoreSync;
use rusqlite::Connection;
use tempfile::TempDir;

/// The directory of one node, and the database in it.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join(SQLITE_DB_FILE_NAME)
    }

    fn tool(&self) -> Tool {
        Tool::for_file(&self.file())
    }

    /// Opens the database as ldk-node does, until the store is dropped.
    fn ldk_node(&self) -> SqliteStore {
        let names = (SQLITE_DB_FILE_NAME.to_owned(), KV_TABLE_NAME.to_owned());
        SqliteStore::new(self.directory.path().into(), Some(names.0), Some(names.1)).unwrap()
    }

    fn schema(&self) -> u32 {
        let connection = Connection::open(self.file()).unwrap();
        let check: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }
}

/// Writes through ldk-node and notes it down.
struct Recorder<'a> {
    store: &'a SqliteStore,
    expected: &'a mut Expected,
}

impl Recorder<'_> {
    fn put(&mut self, name: &Name, value: Vec<u8>) {
        let (primary, secondary, key) = name;
        self.store.write(primary, secondary, key, value.clone()).unwrap();
        self.expected.put(name, value);
    }

    fn remove(&mut self, name: &Name) {
        let (primary, secondary, key) = name;
        self.store.remove(primary, secondary, key, false).unwrap();
        self.expected.remove(name);
    }
}

/// ldk-node finds the expected entries, and no others in their namespaces.
fn check_ldk_node(store: &SqliteStore, expected: &Expected) {
    for ((primary, secondary), names) in expected.by_namespace() {
        let listed: BTreeSet<String> =
            store.list(primary, secondary).unwrap().into_iter().collect();
        let keys: BTreeSet<String> = names.iter().map(|(_, _, key)| key.clone()).collect();
        assert_eq!(listed, keys, "{primary}/{secondary}");
    }
    for ((primary, secondary, key), value) in expected.entries() {
        let found = store.read(primary, secondary, key).unwrap();
        assert!(found == *value, "{primary}/{secondary}/{key}");
    }
    for (primary, secondary, key) in expected.removed() {
        let error = store.read(primary, secondary, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{primary}/{secondary}/{key}");
    }
}

/// `kvstore` lists the expected entries and no others, each namespace in creation order, and gives
/// their bytes.
fn check_kvstore(tool: &Tool, expected: &Expected) {
    let mut listed = tool.ls();
    listed.sort_by_key(|entry| entry.created);
    for (namespace, names) in expected.by_namespace() {
        let found = listed.iter().map(|entry| &entry.name);
        let found: Vec<_> =
            found.filter(|(p, s, _)| (p.as_str(), s.as_str()) == namespace).collect();
        assert_eq!(found, names, "creation order in {}/{}", namespace.0, namespace.1);
    }
    assert_eq!(listed.len(), expected.entries().count());
    for (name, value) in expected.entries() {
        let entry = listed.iter().find(|entry| entry.name == *name).unwrap();
        assert_eq!(entry.bytes, value.len(), "{name:?}");
        assert!(tool.get(name).as_ref() == Some(value), "{name:?}");
    }
    for name in expected.removed() {
        assert_eq!(tool.get(name), None, "{name:?}");
    }
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 7 + at / 256) as u8).collect()
}

/// What a node may have stored, and names at their limits.
fn first_entries() -> Vec<(Name, Vec<u8>)> {
    let long = "aZ09_-".repeat(20);
    let monitor = format!("{}_1", "0123456789abcdef".repeat(4));
    let mut entries = vec![
        (name("", "", "manager"), bytes(20_000, 1)),
        (name("", "", "network_graph"), bytes(1 << 20, 2)),
        (name("", "", "empty"), Vec::new()),
        (name("", "", "-"), b"a key that looks like an option".to_vec()),
        (name("monitors", "", &monitor), bytes(5_000, 3)),
        (name("payments", "", "empty"), Vec::new()),
        (name(&long, "", &long), bytes(120, 4)),
        (name(&long, &long, &long), bytes(121, 5)),
        (name("text", "", "zeros"), vec![0; 300]),
        (name("text", "", "utf8"), "größer".into()),
        (name("text", "", "not_utf8"), vec![0xFF, 0xFE, 0xC0]),
    ];
    for number in [9, 10, 1, 8, 11, 2] {
        let update = number.to_string();
        entries.push((name("monitor_updates", &monitor, &update), bytes(number * 40, number)));
        entries.push((name("monitor_updates", "another", &update), bytes(number * 50, number)));
        entries.push((name("monitor_updates", "", &update), bytes(number, number)));
    }
    entries
}

/// ldk-node alone writes, updates and removes. An update is a new row to it, so what it updated
/// before our store saw the file counts as created by the update.
fn fill(store: &SqliteStore) -> Expected {
    let mut expected = Expected::default();
    let mut recorder = Recorder { store, expected: &mut expected };
    for (name, value) in first_entries() {
        recorder.put(&name, value);
    }
    let updated = [name("", "", "manager"), name("monitor_updates", "another", "10")];
    for (seed, name) in updated.iter().enumerate() {
        recorder.expected.remove(name);
        recorder.put(name, bytes(700, seed));
    }
    for name in [name("payments", "", "empty"), name("monitor_updates", "another", "8")] {
        recorder.remove(&name);
    }
    expected
}

#[test]
fn a_file_goes_back_and_forth() {
    let site = Site::new();
    let mut expected = fill(&site.ldk_node());
    assert_eq!(site.schema(), 2);
    let tool = site.tool();
    check_kvstore(&tool, &expected);

    for round in 0..3 {
        let own = |writer: &str, key: &str| name("rounds", writer, &format!("{key}_{round}"));
        let (oldest, other) = (name("", "", "network_graph"), name("monitor_updates", "", "9"));

        for (name, value) in [
            (own("kvstore", "new"), bytes(3_000, round)),
            (own("kvstore", "gone"), bytes(5, round)),
            (own("both", "z"), Vec::new()),
            (oldest.clone(), bytes((1 << 20) + 1, round)),
        ] {
            tool.put(&name, &value);
            expected.put(&name, value);
        }
        assert!(tool.rm(&own("kvstore", "gone")));
        expected.remove(&own("kvstore", "gone"));
        check_kvstore(&tool, &expected);
        assert_eq!(site.schema(), 2, "ldk-node 0.7 opens no other");

        let store = site.ldk_node();
        check_ldk_node(&store, &expected);
        let mut recorder = Recorder { store: &store, expected: &mut expected };
        recorder.put(&own("ldk_node", "new"), bytes(10, round));
        recorder.put(&own("ldk_node", "gone"), bytes(11, round));
        recorder.put(&own("both", "a"), bytes(12, round));
        // Updates keep the place, whoever created the entry.
        recorder.put(&oldest, bytes(50, round));
        recorder.put(&own("kvstore", "new"), bytes(1 << 20, round));
        recorder.put(&own("both", "z"), bytes(13, round));
        // A new start is the newest entry of its namespace.
        recorder.remove(&other);
        recorder.put(&other, bytes(14, round));
        recorder.remove(&own("ldk_node", "gone"));
        check_ldk_node(&store, &expected);
        drop(store);

        check_kvstore(&tool, &expected);
        assert!(!tool.rm(&own("ldk_node", "gone")));
    }
}

#[test]
fn the_default_names_are_found() {
    let site = Site::new();
    let store = SqliteStore::new(site.directory.path().into(), None, None).unwrap();
    store.write("p", "s", "k", vec![1, 2, 3]).unwrap();
    drop(store);
    let tool = Tool::for_file(&site.directory.path().join("ldk_data.sqlite"));
    assert_eq!(tool.get(&name("p", "s", "k")), Some(vec![1, 2, 3]));
}

/// Makes a file as the releases before secondary namespaces did.
fn create_schema_1(file: &Path, entries: &[(Name, Vec<u8>)]) {
    let connection = Connection::open(file).unwrap();
    connection
        .execute_batch(
            "PRAGMA user_version = 1;
             CREATE TABLE ldk_node_data (namespace TEXT NOT NULL,
                 key TEXT NOT NULL CHECK (key <> ''), value BLOB, PRIMARY KEY (namespace, key));",
        )
        .unwrap();
    for ((primary, _, key), value) in entries {
        let sql = "INSERT INTO ldk_node_data (namespace, key, value) VALUES (?1, ?2, ?3)";
        connection.execute(sql, rusqlite::params![primary, key, value]).unwrap();
    }
}

#[test]
fn a_file_that_began_with_schema_1_tells_secondary_namespaces_apart() {
    let old = [
        (name("", "", "manager"), bytes(900, 1)),
        (name("monitors", "", "k"), bytes(901, 2)),
        (name("p", "", "k"), bytes(902, 3)),
        (name("p", "", "a"), Vec::new()),
    ];
    let site = Site::new();
    create_schema_1(&site.file(), &old);
    let mut expected = Expected::default();
    old.into_iter().for_each(|(name, value)| expected.put(&name, value));

    let before = fs::read(site.file()).unwrap();
    let refusal = site.tool().refusal();
    assert!(refusal.contains("schema 1") && refusal.contains("ldk-node 0.7.1"), "{refusal}");
    assert!(fs::read(site.file()).unwrap() == before, "a refused file stays as it is");

    check_ldk_node(&site.ldk_node(), &expected);
    assert_eq!(site.schema(), 2);
    let tool = site.tool();
    check_kvstore(&tool, &expected);
    for (secondary, value) in [("s", bytes(1, 1)), ("t", bytes(2, 2))] {
        tool.put(&name("p", secondary, "k"), &value);
        expected.put(&name("p", secondary, "k"), value);
    }
    check_kvstore(&tool, &expected);
    assert_eq!(site.schema(), 2);

    let store = site.ldk_node();
    check_ldk_node(&store, &expected);
    let mut recorder = Recorder { store: &store, expected: &mut expected };
    recorder.put(&name("p", "u", "k"), bytes(3, 3));
    recorder.put(&name("p", "", "k"), bytes(4, 4));
    recorder.put(&name("p", "", "z"), bytes(5, 5));
    recorder.remove(&name("p", "s", "k"));
    check_ldk_node(&store, &expected);
    drop(store);
    check_kvstore(&tool, &expected);
}
