//! Recovery of a long history: sled's log is longer than a segment, and segments were used again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{EntryId, Error, ErrorKind, Store};
use kvstore_sled::{SledBackend, SledOptions};

fn try_open(path: &Path) -> Result<Store<SledBackend>, Error> {
    SledBackend::open(&SledOptions::new(path)).map(|backend| Store::open(backend).unwrap())
}

fn open(path: &Path) -> Store<SledBackend> {
    try_open(path).unwrap()
}

fn id(at: usize) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

/// Writes to the ten entries in turn until their last values are those of `round`.
fn write(store: &Store<SledBackend>, round: usize) {
    for at in 0..round * 10 {
        store.put_blocking(&id(at % 10), value(at / 10 + 1, at % 10)).unwrap();
    }
}

fn value(round: usize, at: usize) -> Vec<u8> {
    vec![(round * 10 + at) as u8; 20_000]
}

fn check(store: &Store<SledBackend>, round: usize) {
    for at in 0..10 {
        let found = store.get_blocking(&id(at)).unwrap();
        assert!(found == Some(value(round, at)), "{at} is not what was acknowledged");
    }
    assert_eq!(store.list_all_blocking().unwrap().len(), 10);
}

/// The length of the log of `ROUNDS` rounds is several segments.
const ROUNDS: usize = 60;

/// A store that was opened, written to and closed, and opened, written to at length and closed.
fn long_history(path: &Path) {
    let store = open(path);
    write(&store, 1);
    store.close_blocking().unwrap();
    let store = open(path);
    write(&store, ROUNDS);
    store.close_blocking().unwrap();
}

fn snapshots(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path.join("engine")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_str().unwrap().contains("/snap.")).collect()
}

/// P6: without its snapshot sled opens such a store as it was long before.
#[test]
fn a_snapshot_that_is_missing_is_not_passed_over() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    long_history(&path);
    open(&path).close_blocking().unwrap();
    let snapshot = snapshots(&path).pop().unwrap();
    let aside = parent.path().join("aside");
    fs::rename(&snapshot, &aside).unwrap();
    let log = fs::read(path.join("engine/db")).unwrap();
    let error = try_open(&path).map(drop).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    assert!(error.message().contains("snap.* (missing)"), "{error}");
    assert!(fs::read(path.join("engine/db")).unwrap() == log, "it was changed");
    fs::rename(&aside, &snapshot).unwrap();
    check(&open(&path), ROUNDS);
}

/// Nor is one that belongs to an earlier time: the log does not go on from there any more.
#[test]
fn a_snapshot_of_an_earlier_time_is_not_passed_over() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    long_history(&path);
    let old = snapshots(&path).pop().unwrap();
    let aside = parent.path().join("aside");
    fs::copy(&old, &aside).unwrap();
    open(&path).close_blocking().unwrap();
    let new = snapshots(&path).pop().unwrap();
    assert_ne!(old, new);
    fs::rename(&new, parent.path().join("new")).unwrap();
    fs::rename(&aside, &old).unwrap();
    match try_open(&path) {
        Ok(store) => check(&store, ROUNDS),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}"),
    }
    assert!(!path.join(".kvstore-recovering").exists());
}

/// P2: a process that was killed in recovery leaves nothing that the next one stumbles over.
#[test]
fn an_interrupted_recovery_is_begun_anew() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    long_history(&path);
    let left = path.join(".kvstore-recovering");
    fs::create_dir_all(left.join("blobs/9223372036854775807")).unwrap();
    for name in ["snap.0000000000000001.generating", "snap.7FFFFFFFFFFFFFFF", "blobs/7", "db"] {
        fs::write(left.join(name), "half").unwrap();
    }
    check(&open(&path), ROUNDS);
    assert!(!path.join(".kvstore-recovering").exists());
}

#[test]
fn a_file_that_sled_would_take_for_its_newest_snapshot_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    open(&path).close_blocking().unwrap();
    let stray = path.join("engine/snap.copy");
    fs::write(&stray, "something").unwrap();
    let error = try_open(&path).map(drop).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("snap.copy") && stray.exists(), "{error}");
    fs::remove_file(&stray).unwrap();
    open(&path);
}

/// B1: a commit that is larger than a segment is made in steps, and is there as a whole. The file of
/// it goes.
#[test]
fn a_commit_of_several_segments_is_there_as_a_whole() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = open(&path);
    let batch =
        |fill: u8| (0..600).fold(store.batch(), |batch, at| batch.put(&id(at), vec![fill; 20_000]));
    batch(1).commit_blocking().unwrap();
    batch(2).commit_blocking().unwrap();
    assert!(!path.join("values/batch").exists());
    store.close_blocking().unwrap();
    let store = open(&path);
    for at in 0..600 {
        assert!(store.get_blocking(&id(at)).unwrap() == Some(vec![2; 20_000]), "{at}");
    }
    assert_eq!(store.list_all_blocking().unwrap().len(), 600);
}
