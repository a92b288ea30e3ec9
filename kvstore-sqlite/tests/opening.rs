//! What is done before a store is open: flushes, the check of the log, and ways around what a file
//! system lacks.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use rusqlite::Connection;
use tempfile::TempDir;

#[path = "support/traced.rs"]
mod traced;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sqlite");
    (directory, path)
}

fn open(path: &Path) -> Store<SqliteBackend> {
    Store::open(SqliteBackend::open(&SqliteOptions::new(path)).unwrap()).unwrap()
}

fn id(key: &str) -> EntryId {
    EntryId::new("p", "s", key).unwrap()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Copies the database and its log as they are, as a crash would leave them.
fn crash(path: &Path, to: &Path) {
    fs::copy(path, to).unwrap();
    fs::copy(beside(path, "-wal"), beside(to, "-wal")).unwrap();
}

/// Asks in a process of its own, where a reader that stays is not in the way of this one's.
fn journal_mode(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
}

/// P1: what a killed process left is flushed before anything builds on it.
#[test]
fn what_a_crash_left_is_flushed_before_it_is_read() {
    const NAME: &str = "what_a_crash_left_is_flushed_before_it_is_read";
    if traced::is_traced() {
        drop(SqliteBackend::open(&SqliteOptions::new(traced::directory().join("crashed"))));
        return;
    }
    let (directory, path) = directory();
    let store = open(&path);
    store.put_blocking(&id("k"), vec![1]).unwrap();
    crash(&path, &directory.path().join("crashed"));
    let calls = "trace=fsync,fdatasync,read,pread64,openat";
    let Some(trace) = traced::run(NAME, directory.path(), &["-e", calls]) else { return };
    for suffix in ["", "-wal"] {
        let file = format!("{}{suffix}>", directory.path().join("crashed").display());
        let mut lines = trace.lines().filter(|line| line.contains(&file));
        let first = lines.find(|line| !line.contains("openat(")).unwrap();
        assert!(first.contains("sync("), "{suffix}: {first}");
    }
}

/// A reader that stays, as Litestream is one, keeps nobody out, however long ago it began.
#[test]
fn a_reader_that_stays_keeps_nobody_out() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.put_blocking(&id("k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("CREATE TABLE seq (id); INSERT INTO seq VALUES (1); BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM seq", [], |_| Ok(())).unwrap();
    for value in 2..5 {
        // A wait for the reader would never end.
        let options = SqliteOptions::new(&path).busy_timeout(std::time::Duration::MAX);
        let store = Store::open(SqliteBackend::open(&options).unwrap()).unwrap();
        assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![value - 1]));
        store.put_blocking(&id("k"), vec![value]).unwrap();
        store.close_blocking().unwrap();
    }
    reader.execute_batch("COMMIT").unwrap();
}

/// P6: SQLite would drop acknowledged commits without a word.
#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    let (directory, path) = directory();
    let store = open(&path);
    for at in 0..10 {
        store.put_blocking(&id(&at.to_string()), vec![at; 3000]).unwrap();
    }
    let crashed = directory.path().join("crashed");
    crash(&path, &crashed);
    let log = beside(&crashed, "-wal");
    let whole = fs::read(&log).unwrap();
    for (at, says) in [(20, "its header"), (20_000, "frame 5")] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&log, &damaged).unwrap();
        let error = SqliteBackend::open(&SqliteOptions::new(&crashed)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        let message = error.to_string();
        assert!(message.contains("crashed-wal") && message.contains(says), "{message}");
        assert_eq!(fs::read(&log).unwrap(), damaged);
    }
    fs::write(&log, &whole).unwrap();
    let store = open(&crashed);
    assert_eq!(store.get_blocking(&id("9")).unwrap(), Some(vec![9; 3000]));
}

/// Where memory cannot be mapped from a file there is no write-ahead log: neither for a new file, nor
/// for one that has such a log already.
#[test]
fn without_shared_memory_there_is_a_rollback_journal() {
    const NAME: &str = "without_shared_memory_there_is_a_rollback_journal";
    if traced::is_traced() {
        let path = traced::directory().join("node.sqlite");
        for value in [1, 2] {
            let store = open(&path);
            if value == 2 || traced::directory().join("had a log").exists() {
                assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![value - 1]));
            }
            store.put_blocking(&id("k"), vec![value]).unwrap();
            assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![value]));
            store.close_blocking().unwrap();
        }
        return;
    }
    for had_log in [false, true] {
        let (directory, path) = directory();
        let (shared, new) = (beside(&path, "-shm"), beside(&path, ".creating-shm"));
        if had_log {
            let (other, marker) =
                (directory.path().join("other"), directory.path().join("had a log"));
            let store = open(&other);
            store.put_blocking(&id("k"), vec![0]).unwrap();
            crash(&other, &path);
            store.close_blocking().unwrap();
            fs::remove_file(other).unwrap();
            fs::write(marker, "").unwrap();
        }
        let (shared, new) = (shared.to_str().unwrap(), new.to_str().unwrap());
        let calls = ["-P", shared, "-P", new, "-e", "trace=mmap", "-e", "inject=mmap:error=ENODEV"];
        let Some(trace) = traced::run(NAME, directory.path(), &calls) else { return };
        assert!(trace.contains("ENODEV"), "nothing was injected: {trace}");
        assert_eq!(journal_mode(&path), "delete");
        let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        names.retain(|entry| entry.as_ref().unwrap().file_name() != "had a log");
        assert_eq!(names.len(), 1, "{names:?}");
        // Where there is shared memory again, there is a log again.
        let store = open(&path);
        assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![2]));
        store.close_blocking().unwrap();
        assert_eq!(journal_mode(&path), "wal");
    }
}
