//! Parts of a store that come from different times or stores, or are not there (contract G4).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{EntryId, Error, ErrorKind, Store};
use kvstore_sled::{SledBackend, SledOptions};

const LARGE: usize = 100_000;

fn open(path: &Path) -> Store<SledBackend> {
    Store::open(SledBackend::open(&SledOptions::new(path)).unwrap()).unwrap()
}

fn refused(path: &Path) -> Error {
    let error = SledBackend::open(&SledOptions::new(path)).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    error
}

fn id(at: u8) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn replace(part: &Path, by: &Path) {
    fs::remove_dir_all(part).unwrap();
    copy(by, part);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[test]
fn parts_of_different_times_are_refused_before_anything_is_removed() {
    let parent = tempfile::tempdir().unwrap();
    let (path, backup) = (parent.path().join("store"), parent.path().join("backup"));
    let (engine, values) = (path.join("engine"), path.join("values"));
    for at in 1..=2 {
        let store = open(&path);
        store.put_blocking(&id(at), vec![at; LARGE]).unwrap();
        store.close_blocking().unwrap();
        if at == 1 {
            copy(&path, &backup);
        }
    }
    let now = parent.path().join("now");
    copy(&path, &now);
    let names = files(&values);
    assert_eq!(names.len(), 3);
    // An old `engine/` beside new values, whose files it does not name, and the other way round.
    replace(&engine, &backup.join("engine"));
    let error = refused(&path);
    assert_eq!(files(&values), names, "values were removed");
    for part in [&engine, &values] {
        assert!(error.message().contains(part.to_str().unwrap()), "{error}");
    }
    replace(&engine, &now.join("engine"));
    replace(&values, &backup.join("values"));
    refused(&path);
    // Of another store, and of none.
    let other = parent.path().join("other");
    open(&other).close_blocking().unwrap();
    replace(&values, &other.join("values"));
    refused(&path);
    fs::remove_dir_all(&values).unwrap();
    refused(&path);
    fs::create_dir(&values).unwrap();
    refused(&path);
    // Both of one time are a store, whatever the time.
    for (copy, entries) in [(&backup, 1), (&now, 2)] {
        replace(&engine, &copy.join("engine"));
        fs::create_dir_all(&values).unwrap();
        replace(&values, &copy.join("values"));
        let store = open(&path);
        for at in 1..=entries {
            assert!(store.get_blocking(&id(at)).unwrap() == Some(vec![at; LARGE]));
        }
        assert_eq!(store.list_all_blocking().unwrap().len(), usize::from(entries));
    }
}

/// P6: a file that is missing or has another length is named when the store opens.
#[test]
fn the_file_of_a_value_that_is_missing_or_cut_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = open(&path);
    store.put_blocking(&id(1), vec![1; LARGE]).unwrap();
    store.close_blocking().unwrap();
    let file = files(&path.join("values")).remove(0);
    let whole = fs::read(&file).unwrap();
    for damaged in [None, Some(&whole[1..]), Some(&[])] {
        match damaged {
            None => fs::remove_file(&file).unwrap(),
            Some(bytes) => fs::write(&file, bytes).unwrap(),
        }
        let error = refused(&path);
        assert!(error.message().contains(file.to_str().unwrap()), "{error}");
    }
    fs::write(&file, &whole).unwrap();
    assert!(open(&path).get_blocking(&id(1)).unwrap() == Some(vec![1; LARGE]));
}

/// A store that a version without stamps made.
#[test]
fn a_store_without_stamps_opens_and_gets_one() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = open(&path);
    store.put_blocking(&id(1), vec![1; LARGE]).unwrap();
    store.close_blocking().unwrap();
    let stamp = path.join("values/stamp");
    fs::remove_file(&stamp).unwrap();
    let config = sled::Config::new().path(path.join("engine")).segment_size(4 << 20);
    let bare = config.open().unwrap();
    bare.remove("s").unwrap();
    for key in bare.scan_prefix("l").keys().map(Result::unwrap).collect::<Vec<_>>() {
        bare.insert(key, "").unwrap();
    }
    bare.flush().unwrap();
    drop(bare);
    assert!(open(&path).get_blocking(&id(1)).unwrap() == Some(vec![1; LARGE]));
    assert!(stamp.exists());
    fs::remove_file(&stamp).unwrap();
    refused(&path);
}
