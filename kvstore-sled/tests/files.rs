//! sled's files: what a crash or a stranger leaves in them, and what damage looks like.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{Backend, EntryId, ErrorKind, Store};
use kvstore_sled::{SledBackend, SledOptions};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

fn open(path: &Path) -> Store<SledBackend> {
    Store::open(SledBackend::open(&SledOptions::new(path)).unwrap()).unwrap()
}

fn id(at: usize) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

fn refused(options: &SledOptions) -> (ErrorKind, String) {
    let error = SledBackend::open(options).expect_err("it is refused");
    assert_eq!(error.backend(), "sled");
    (error.kind(), error.to_string())
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn value_files(path: &Path) -> Vec<PathBuf> {
    let mut files = files_below(&path.join("values"));
    files.retain(|file| !file.ends_with("stamp"));
    files
}

#[test]
fn what_a_crash_left_is_cleaned_up() {
    let (_directory, path) = place();
    for half in ["engine.creating/db", "engine.creating/conf", "engine.creating/blobs/1"] {
        fs::create_dir_all(path.join(half).parent().unwrap()).unwrap();
        fs::write(path.join(half), "half of something").unwrap();
    }
    let store = open(&path);
    store.put_blocking(&id(1), vec![1; 100_000]).unwrap();
    store.put_blocking(&id(2), vec![2; 100]).unwrap();
    store.close_blocking().unwrap();
    let before = value_files(&path);
    assert_eq!(before.len(), 1);
    // A value that no commit came to name, and a snapshot that sled was writing.
    fs::write(path.join("values/4242"), "half of a value").unwrap();
    let unfinished = path.join("engine/snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, "half of a snapshot").unwrap();
    // sled alone does not open any more: the defect that this is about.
    let bare = sled::Config::new().path(path.join("engine")).segment_size(4 << 20).open();
    assert!(matches!(bare, Err(sled::Error::Corruption { .. })), "sled is cured of it: {bare:?}");
    let store = open(&path);
    assert!(!unfinished.exists());
    assert_eq!(value_files(&path), before);
    assert_eq!(store.get_blocking(&id(1)).unwrap(), Some(vec![1; 100_000]));
    assert_eq!(store.get_blocking(&id(2)).unwrap(), Some(vec![2; 100]));
}

/// Large values take room as long as an entry names them.
#[test]
fn files_of_large_values_go_with_their_entries() {
    let (_directory, path) = place();
    let store = open(&path);
    let count = || value_files(&path).len();
    store.put_blocking(&id(1), vec![1; 24 * 1024]).unwrap();
    assert_eq!(count(), 0);
    store.put_blocking(&id(1), vec![1; 24 * 1024 + 1]).unwrap();
    store.put_blocking(&id(2), vec![2; 1 << 20]).unwrap();
    assert_eq!(count(), 2);
    store.put_blocking(&id(1), vec![3; 1 << 20]).unwrap();
    assert_eq!(count(), 2);
    store.put_blocking(&id(1), vec![3]).unwrap();
    store.remove_blocking(&id(2)).unwrap();
    assert_eq!(count(), 0);
    assert_eq!(store.get_blocking(&id(1)).unwrap(), Some(vec![3]));
}

/// sled puts a page that outgrows a quarter of its segment into a file that it does not flush.
#[test]
fn no_page_outgrows_the_log() {
    let (_directory, path) = place();
    let store = open(&path);
    let blobs = || fs::read_dir(path.join("engine/blobs")).unwrap().count();
    let long = "k".repeat(114);
    let id = |at: u32| EntryId::new(&long, &long, &format!("{long}{at:06}")).unwrap();
    let longest = vec![7; 24 * 1024];
    // Rising, falling and in between; alone and together; leaves that are split and joined.
    for at in 0..60 {
        store.put_blocking(&id(at), longest.clone()).unwrap();
        store.put_blocking(&id(5000 - at), longest.clone()).unwrap();
        store.put_blocking(&id((at * 977) % 5000), longest.clone()).unwrap();
    }
    for round in 0..3 {
        let mut batch = store.batch();
        for at in 0..200 {
            batch = batch.put(&id((at * 613 + round) % 5000), longest.clone());
        }
        batch.commit_blocking().unwrap();
    }
    assert_eq!(blobs(), 0);
    let all = store.list_all_blocking().unwrap();
    for (at, entry) in all.iter().enumerate() {
        if at % 5 != 0 {
            drop(store.remove(&entry.id));
        }
    }
    for entry in all.iter().step_by(5) {
        store.put_blocking(&entry.id, longest.clone()).unwrap();
    }
    store.close_blocking().unwrap();
    drop(open(&path));
    assert_eq!(blobs(), 0);
}

#[test]
fn damage_is_reported_and_never_read_as_something_else() {
    let (_directory, path) = place();
    let store = open(&path);
    const ENTRIES: usize = 300;
    let value = |at: usize| vec![at as u8; if at.is_multiple_of(50) { 100_000 } else { at * 40 }];
    for at in 0..ENTRIES {
        drop(store.put(&id(at), value(at)));
    }
    store.close_blocking().unwrap();
    // What was written before the last time of opening is in sled's snapshot.
    open(&path).close_blocking().unwrap();
    let whole: Vec<_> =
        files_below(&path).into_iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect();
    let (mut found, mut cases) = (0, 0);
    for (file, bytes) in &whole {
        for at in (0..bytes.len()).step_by((bytes.len() / 8).max(1)) {
            let mut damaged = bytes.clone();
            let end = bytes.len().min(at + 64);
            damaged[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
            if damaged[at..end].iter().all(|byte| *byte == 0x5a) {
                continue; // Nothing stands there.
            }
            fs::write(file, &damaged).unwrap();
            cases += 1;
            let read = SledBackend::open(&SledOptions::new(&path)).and_then(|backend| {
                let store = Store::open(backend).unwrap();
                for at in 0..ENTRIES {
                    let found = store.get_blocking(&id(at))?;
                    assert!(found == Some(value(at)), "{}: {at} is wrong", file.display());
                }
                store.list_all_blocking().map(|_| ())
            });
            if let Err(error) = read {
                let expected = [ErrorKind::Corrupted, ErrorKind::Unsupported];
                assert!(expected.contains(&error.kind()), "{} at {at}: {error}", file.display());
                found += 1;
            }
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir_all(path.join("engine/blobs")).unwrap();
            fs::create_dir_all(path.join("values")).unwrap();
            whole.iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
        }
    }
    println!("{found} of {cases} damages reported");
    assert!(found * 2 > cases, "{found} of {cases}");
}

#[test]
fn places_that_hold_something_else_are_named_and_left_alone() {
    let (directory, path) = place();
    let (kind, message) = refused(&SledOptions::new(&path).create(false));
    assert_eq!(kind, ErrorKind::Missing);
    assert!(message.contains("no store") && !path.exists(), "{message}");
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(refused(&SledOptions::new(&file)).0, ErrorKind::Unsupported);
    assert_eq!(refused(&SledOptions::new(file.join("below"))).0, ErrorKind::Unsupported);
    // A sled database of somebody else, by itself and where ours would be.
    drop(sled::open(&path).unwrap());
    let before = files_below(&path);
    let (kind, message) = refused(&SledOptions::new(&path));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("not of a store of this kind"), "{message}");
    assert_eq!(files_below(&path), before);
    let other = directory.path().join("other");
    fs::create_dir_all(other.join("values")).unwrap();
    let (stranger, ours) = (other.join("engine"), sled::Config::new().segment_size(4 << 20));
    drop(ours.path(&stranger).open().unwrap());
    let (kind, message) = refused(&SledOptions::new(&other));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("another program's") && message.contains("other"), "{message}");
}

#[test]
fn a_program_that_uses_sled_without_our_lock_is_told_from_a_crash() {
    let (_directory, path) = place();
    open(&path).close_blocking().unwrap();
    let config = sled::Config::new().path(path.join("engine")).segment_size(4 << 20);
    let other = config.open().unwrap();
    let (kind, message) = refused(&SledOptions::new(&path));
    assert_eq!(kind, ErrorKind::AlreadyOpen);
    assert!(message.contains("another process") && message.contains("engine/db"), "{message}");
    drop(other);
    open(&path);
}

/// The lock is free as soon as the store is closed or dropped, whatever sled's threads still do.
#[test]
fn a_store_opens_again_at_once() {
    let (_directory, path) = place();
    for round in 0..50 {
        let backend = SledBackend::open(&SledOptions::new(&path)).unwrap();
        let store = Store::open(backend).unwrap();
        store.put_blocking(&id(round), vec![1; 1000]).unwrap();
        if round % 2 == 0 {
            store.close_blocking().unwrap();
        }
    }
    assert_eq!(open(&path).list_all_blocking().unwrap().len(), 50);
}

#[cfg(unix)]
#[test]
fn two_ways_to_one_directory_meet_at_one_lock() {
    let (directory, path) = place();
    let _store = open(&path);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (kind, message) = refused(&SledOptions::new(&link));
    assert_eq!(kind, ErrorKind::AlreadyOpen);
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
}

#[test]
fn reads_after_the_close_say_so() {
    let (_directory, path) = place();
    let backend = SledBackend::open(&SledOptions::new(&path)).unwrap();
    futures_lite::future::block_on(async {
        backend.close().await.unwrap();
        assert_eq!(backend.get(&id(1)).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(backend.commit(&[]).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(backend.list_all().await.unwrap_err().kind(), ErrorKind::Closed);
        backend.close().await.unwrap();
    });
}
