//! A damaged log is refused, and the way on that the message names keeps what it says (P6).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use rusqlite::Connection;

mod support;

use support::{directory, open};

fn put(store: &Store<SqliteBackend>, key: u8) {
    store.put_blocking(&id(key), vec![key; 3000]).unwrap();
}

fn id(key: u8) -> EntryId {
    EntryId::new("p", "s", &key.to_string()).unwrap()
}

fn log(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

/// Puts this log beside a copy of the database, and gives the message by which it is refused.
#[track_caller]
fn refused(path: &Path, bytes: &[u8]) -> (PathBuf, String) {
    let crashed = path.with_extension("crashed");
    fs::copy(path, &crashed).unwrap();
    fs::write(log(&crashed), bytes).unwrap();
    let error = SqliteBackend::open(&SqliteOptions::new(&crashed)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    assert_eq!(fs::read(log(&crashed)).unwrap(), bytes);
    (crashed, error.to_string())
}

/// Cuts the log as the message says, and opens the store.
fn cut(crashed: &Path, message: &str) -> Store<SqliteBackend> {
    let (_, len) = message.split_once("truncate the log to ").unwrap();
    let len: u64 = len.split(' ').next().unwrap().parse().unwrap();
    fs::OpenOptions::new().write(true).open(log(crashed)).unwrap().set_len(len).unwrap();
    open(crashed)
}

/// SQLite would drop acknowledged commits without a word.
#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    let (_directory, path) = directory();
    let store = open(&path);
    let mut lens = Vec::new();
    for key in 0..10 {
        put(&store, key);
        lens.push(fs::metadata(log(&path)).unwrap().len());
    }
    let whole = fs::read(log(&path)).unwrap();
    for (at, says) in [(20, "its header"), (70_000, "frame 17,")] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        let (crashed, message) = refused(&path, &damaged);
        assert!(message.contains("crashed-wal") && message.contains(says), "{message}");
        if says == "its header" {
            assert!(message.contains("move the log away"), "{message}");
            continue;
        }
        let store = cut(&crashed, &message);
        let before = lens.iter().filter(|len| **len <= at as u64).count();
        assert!(before > 1);
        for (key, _) in (0..).zip(&lens) {
            let expected = (usize::from(key) < before).then(|| vec![key; 3000]);
            assert_eq!(store.get_blocking(&id(key)).unwrap(), expected, "{key}");
        }
    }
    let crashed = path.with_extension("whole");
    fs::copy(&path, &crashed).unwrap();
    fs::write(log(&crashed), &whole).unwrap();
    assert_eq!(open(&crashed).get_blocking(&id(9)).unwrap(), Some(vec![9; 3000]));
}

/// Its commit was lost with the power in the flush of the next one.
#[test]
fn a_lost_commit_of_a_program_that_does_not_flush_is_cut_off() {
    let (_directory, path) = directory();
    let store = open(&path);
    (0..4).for_each(|key| put(&store, key));
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("PRAGMA synchronous = NORMAL; CREATE TABLE seq (id INTEGER, seq BLOB)")
        .unwrap();
    put(&store, 4);
    let flushed = fs::metadata(log(&path)).unwrap().len() as usize;
    other.execute_batch("INSERT INTO seq VALUES (1, zeroblob(9000))").unwrap();
    // It dies in this flush, so nobody is told of this one.
    put(&store, 5);
    let mut bytes = fs::read(log(&path)).unwrap();
    bytes[flushed..flushed.next_multiple_of(4096)].fill(0);
    let (crashed, message) = refused(&path, &bytes);
    let store = cut(&crashed, &message);
    for key in 0..6 {
        let expected = (key < 5).then(|| vec![key; 3000]);
        assert_eq!(store.get_blocking(&id(key)).unwrap(), expected, "{key}");
    }
}
