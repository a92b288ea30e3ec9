//! LDK's own stores on our directories and ours on theirs, crashes, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kvstore_core::{EntryId, ErrorKind, Namespace, Store};
use kvstore_fs::{FsBackend, FsOptions, Layout};
use lightning_0_2::util::persist::{KVStoreSync as Sync02, MigratableKVStore};
use lightning_0_3::util::persist::{KVStoreSync, MigratableKVStoreSync, PaginatedKVStoreSync};
use lightning_persister_0_2::fs_store::FilesystemStore as FirstStore02;
use lightning_persister_0_3::fs_store::v1::FilesystemStore as FirstStore;
use lightning_persister_0_3::fs_store::v2::{
    FilesystemStoreV2 as SecondStore, FilesystemStoreV2Error,
};

use support::{crashed_copy, directory, files_below, id, open, refused};

fn keys(store: &Store<FsBackend>, secondary: &str) -> Vec<String> {
    let keys = store.list_blocking(&Namespace::new("p", secondary).unwrap()).unwrap();
    keys.iter().map(ToString::to_string).collect()
}

/// Entries of many kinds, with updates, removes, a large value and an empty one.
fn fill(store: &Store<FsBackend>) -> Vec<(EntryId, Vec<u8>)> {
    let mut expected = Vec::new();
    for at in 0..120_u8 {
        let id = id("s", &format!("key{}", at ^ 21));
        store.put_blocking(&id, vec![at; 200]).unwrap();
        expected.push((id, vec![at; 200]));
    }
    for (id, value) in [
        (EntryId::new("", "", "manager").unwrap(), vec![1; 300_000]),
        (EntryId::new("monitors", "", "channel").unwrap(), Vec::new()),
        (EntryId::new(&"A".repeat(120), &"B".repeat(120), &"C".repeat(120)).unwrap(), vec![2; 9]),
    ] {
        store.put_blocking(&id, value.clone()).unwrap();
        expected.push((id, value));
    }
    store.put_blocking(&expected[7].0, vec![77; 10]).unwrap();
    expected[7].1 = vec![77; 10];
    store.remove_blocking(&expected[8].0).unwrap();
    expected.remove(8);
    expected
}

fn names(id: &EntryId) -> (String, String, String) {
    (id.primary().into(), id.secondary().into(), id.key().into())
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

#[test]
fn ldks_first_store_reads_what_a_clean_close_leaves() {
    let (_parent, path) = directory();
    let store = open(&FsOptions::new(&path).layout(Layout::V1));
    let expected = fill(&store);
    store.close_blocking().unwrap();
    assert_eq!(files_below(&path).len(), expected.len(), "only entries are left");
    let (old, new) = (FirstStore02::new(path.clone()), FirstStore::new(path));
    let all = sorted(expected.iter().map(|(id, _)| names(id)).collect());
    assert_eq!(sorted(MigratableKVStore::list_all_keys(&old).unwrap()), all);
    assert_eq!(sorted(MigratableKVStoreSync::list_all_keys(&new).unwrap()), all);
    for (id, value) in expected {
        let (p, s, k) = (id.primary(), id.secondary(), id.key());
        assert!(Sync02::read(&old, p, s, k).unwrap() == value, "{id}");
        assert!(KVStoreSync::read(&new, p, s, k).unwrap() == value, "{id}");
    }
}

#[test]
fn ldks_second_store_reads_what_a_clean_close_leaves_in_the_same_order() {
    let (_parent, path) = directory();
    let store = open(&FsOptions::new(&path));
    assert_eq!(store.backend().layout(), Layout::V2);
    let expected = fill(&store);
    let newest_first = keys(&store, "s");
    store.close_blocking().unwrap();
    assert_eq!(files_below(&path).len(), expected.len(), "only entries are left");
    let ldk = SecondStore::new(path).unwrap();
    let all = sorted(expected.iter().map(|(id, _)| names(id)).collect());
    assert_eq!(sorted(ldk.list_all_keys().unwrap()), all);
    for (id, value) in expected {
        let read = KVStoreSync::read(&ldk, id.primary(), id.secondary(), id.key()).unwrap();
        assert!(read == value, "{id}");
    }
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let page = ldk.list_paginated("p", "s", token).unwrap();
        found.extend(page.keys);
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, newest_first);
}

#[test]
fn directories_of_ldk_open_with_what_a_crash_left() {
    for layout in [Layout::V1, Layout::V2] {
        let (_parent, path) = directory();
        let ldk: Box<dyn KVStoreSync> = match layout {
            Layout::V1 => Box::new(FirstStore::new(path.clone())),
            Layout::V2 => Box::new(SecondStore::new(path.clone()).unwrap()),
        };
        for (at, key) in ["c", "a", "b"].into_iter().enumerate() {
            ldk.write("p", "s", key, vec![at as u8]).unwrap();
            // Seconds apart, since a file system's clock may be coarse.
            let written = SystemTime::now() - Duration::from_secs(100 - at as u64);
            let file = fs::File::options().write(true).open(path.join("p/s").join(key)).unwrap();
            file.set_times(FileTimes::new().set_modified(written)).unwrap();
        }
        ldk.write("", "", "manager", vec![9]).unwrap();
        let levels = path.join("p/s");
        fs::write(levels.join("a.7.tmp"), "half").unwrap();
        fs::write(levels.join("b.8.trash"), "gone").unwrap();
        if layout == Layout::V1 {
            fs::write(path.join("manager.9.tmp"), "half").unwrap();
        }
        let store = open(&FsOptions::new(&path));
        assert_eq!(store.backend().layout(), layout);
        assert_eq!(keys(&store, "s"), ["b", "a", "c"]);
        for (at, key) in ["c", "a", "b"].iter().enumerate() {
            assert_eq!(store.get_blocking(&id("s", key)).unwrap(), Some(vec![at as u8]));
        }
        let manager = EntryId::new("", "", "manager").unwrap();
        assert_eq!(store.get_blocking(&manager).unwrap(), Some(vec![9]));
        store.put_blocking(&id("s", "a"), vec![10]).unwrap();
        store.put_blocking(&id("s", "d"), vec![11]).unwrap();
        assert_eq!(keys(&store, "s"), ["d", "b", "a", "c"]);
        store.close_blocking().unwrap();
        assert_eq!(files_below(&path).len(), 5, "{:?}", files_below(&path));
        assert_eq!(ldk.read("p", "s", "a").unwrap(), [10]);
    }
}

#[test]
fn ldks_second_store_refuses_the_directory_while_it_is_dirty() {
    let (parent, path) = directory();
    let store = open(&FsOptions::new(&path));
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    let crashed = parent.path().join("crashed");
    crashed_copy(&path, &crashed);
    for dirty in [&path, &crashed] {
        let refusal = SecondStore::new(dirty.clone()).err().expect("it is refused");
        assert!(matches!(refusal, FilesystemStoreV2Error::V1DataDetected(_)), "{refusal}");
    }
    // The value is in the journal alone: an LDK store that did not refuse would miss it.
    assert!(!crashed.join("p/s/k").exists());
    store.close_blocking().unwrap();
    SecondStore::new(path).unwrap();
    open(&FsOptions::new(&crashed)).close_blocking().unwrap();
    let ldk = SecondStore::new(crashed).unwrap();
    assert_eq!(KVStoreSync::read(&ldk, "p", "s", "k").unwrap(), [1]);
}

#[test]
fn a_crash_at_any_time_between_groups_loses_nothing() {
    for layout in [Layout::V1, Layout::V2] {
        let (parent, path) = directory();
        // So large that no checkpoint runs, and every copy is one of a single moment.
        let options = |path: &Path| {
            FsOptions::new(path).layout(layout).journal_bytes(1 << 20).large_value_bytes(3000)
        };
        let store = open(&options(&path));
        let value = |at: usize| vec![at as u8; at * 97 % 5000];
        for at in 0..60_usize {
            let store_key = |at: usize| id("s", &format!("key{}", at % 13));
            store.put_blocking(&store_key(at), value(at)).unwrap();
            if at % 5 == 4 {
                store.remove_blocking(&store_key(at + 3)).unwrap();
            }
            let crashed = parent.path().join(format!("crashed{at}"));
            crashed_copy(&path, &crashed);
            let reopened = open(&options(&crashed));
            assert_eq!(keys(&reopened, "s"), keys(&store, "s"), "after {at}");
            for key in 0..13 {
                let key = store_key(key);
                let (left, right) = (reopened.get_blocking(&key), store.get_blocking(&key));
                assert!(left.unwrap() == right.unwrap(), "{key} after {at}");
            }
            reopened.put_blocking(&id("s", "new"), vec![1]).unwrap();
            assert_eq!(keys(&reopened, "s")[0], "new");
            reopened.close_blocking().unwrap();
            let entries = keys(&store, "s").len() + 1;
            assert_eq!(files_below(&crashed).len(), entries);
            fs::remove_dir_all(crashed).unwrap();
        }
    }
}

/// The journal's space is used again only for what is in place: here nothing can be.
#[test]
fn a_journal_that_cannot_be_emptied_is_not_written_over() {
    let (parent, path) = directory();
    let options = FsOptions::new(&path).journal_bytes(0);
    let store = open(&options);
    let id = |at: usize| EntryId::new("q", "", &at.to_string()).unwrap();
    fs::write(path.join("q"), "where a directory must be").unwrap();
    let (mut stored, mut refused) = (0, None);
    while refused.is_none() && stored < 1000 {
        match store.put_blocking(&id(stored), vec![stored as u8; 1000]) {
            Ok(()) => stored += 1,
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.expect("the journal is full");
    assert!(error.to_string().contains("/q"), "{error}");
    assert!((10..40).contains(&stored), "{stored}");
    let crashed = parent.path().join("crashed");
    crashed_copy(&path, &crashed);
    fs::remove_file(crashed.join("q")).unwrap();
    // The store itself goes on too, once the obstacle is gone.
    fs::remove_file(path.join("q")).unwrap();
    store.put_blocking(&id(5000), vec![1]).unwrap();
    let reopened = open(&FsOptions::new(&crashed));
    for at in 0..stored {
        for store in [&store, &reopened] {
            let value = store.get_blocking(&id(at)).unwrap();
            assert!(value == Some(vec![at as u8; 1000]), "{at} of {stored}");
        }
    }
    assert_eq!(reopened.get_blocking(&id(stored)).unwrap(), None);
}

#[test]
fn a_damaged_journal_is_reported_or_cut_at_its_last_record() {
    let (parent, path) = directory();
    let options = |path: &Path| FsOptions::new(path).journal_bytes(0);
    let store = open(&options(&path));
    for at in 0..4_u8 {
        store.put_blocking(&id("s", &at.to_string()), vec![at; 50]).unwrap();
    }
    let (mut cut, mut reported) = (0, 0);
    let journal = fs::read(path.join(".kvstore-journal")).unwrap();
    let used: Vec<usize> = (0..journal.len()).filter(|at| journal[*at] != 0).collect();
    for at in used.iter().step_by(11) {
        let crashed = parent.path().join("crashed");
        crashed_copy(&path, &crashed);
        let mut damaged = journal.clone();
        damaged[*at] ^= 0x10;
        fs::write(crashed.join(".kvstore-journal"), &damaged).unwrap();
        match FsBackend::open(&options(&crashed)) {
            Ok(backend) => {
                let reopened = Store::open(backend).unwrap();
                let found = keys(&reopened, "s");
                assert!(found == ["3", "2", "1", "0"] || found == ["2", "1", "0"], "{found:?}");
                for key in &found {
                    let byte: u8 = key.parse().unwrap();
                    let value = reopened.get_blocking(&id("s", key)).unwrap();
                    assert_eq!(value, Some(vec![byte; 50]));
                }
                cut += usize::from(found.len() == 3);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                assert!(error.to_string().contains("keep a copy"), "{error}");
                // Nothing was changed: the journal is there for who can mend it.
                assert_eq!(fs::read(crashed.join(".kvstore-journal")).unwrap(), damaged);
                reported += 1;
            }
        }
        fs::remove_dir_all(crashed).unwrap();
    }
    assert!(cut > 3 && reported > 10, "{cut} {reported}");
}

#[test]
fn directories_that_are_no_store_are_refused_and_left_alone() {
    let cases: [(&str, &[&str], ErrorKind, &str); 3] = [
        ("both", &["manager", "[empty]/[empty]/k"], ErrorKind::Unsupported, "second"),
        ("both deep", &["p/k", "p/[empty]/k"], ErrorKind::Unsupported, "first directory layout"),
        ("unclear", &["p/s/k"], ErrorKind::InvalidInput, "layout=v1"),
    ];
    for (name, files, kind, says) in cases {
        let (_parent, path) = directory();
        for file in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let before = files_below(&path);
        let (found, message) = refused(&FsOptions::new(&path));
        assert_eq!(found, kind, "{name}: {message}");
        assert!(message.contains(says), "{name}: {message}");
        assert_eq!(files_below(&path), before, "{name}");
    }
    let (_parent, path) = directory();
    let (kind, message) = refused(&FsOptions::new(&path).create(false));
    assert_eq!((kind, message.contains("No such file")), (ErrorKind::Missing, true));
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    let (kind, message) = refused(&FsOptions::new(&path));
    assert_eq!((kind, message.contains("is a file")), (ErrorKind::Unsupported, true));
}

/// The layout is in the journal: what a crash left in place may not show it any more.
#[test]
fn a_crash_does_not_change_the_layout() {
    let (parent, path) = directory();
    let store = open(&FsOptions::new(&path).layout(Layout::V1));
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    let crashed = parent.path().join("crashed");
    crashed_copy(&path, &crashed);
    let (kind, message) = refused(&FsOptions::new(&crashed).layout(Layout::V2));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("has the layout V1"), "{message}");
    let reopened = open(&FsOptions::new(&crashed));
    assert_eq!(reopened.backend().layout(), Layout::V1);
    assert_eq!(keys(&reopened, "s"), ["k"]);
}

/// LDK's files of one millisecond stay in one order, whatever is removed between two sessions.
#[test]
fn a_token_holds_among_files_of_one_millisecond() {
    let (_parent, path) = directory();
    let ldk = SecondStore::new(path.clone()).unwrap();
    let written = SystemTime::now() - Duration::from_secs(100);
    for key in ["a", "b", "c", "d"] {
        KVStoreSync::write(&ldk, "p", "s", key, vec![1]).unwrap();
        let file = fs::File::options().write(true).open(path.join("p/s").join(key)).unwrap();
        file.set_times(FileTimes::new().set_modified(written)).unwrap();
    }
    let options = FsOptions::new(&path).layout(Layout::V2);
    let names = Namespace::new("p", "s").unwrap();
    let store = open(&options);
    let first = store.page_blocking(&names, None, 2).unwrap();
    let shown: Vec<_> = first.keys().map(ToString::to_string).collect();
    store.remove_blocking(&id("s", &shown[0])).unwrap();
    store.close_blocking().unwrap();
    let rest = open(&options).page_blocking(&names, first.next.as_ref(), 9).unwrap();
    let rest: Vec<_> = rest.keys().map(ToString::to_string).collect();
    assert_eq!(sorted([shown, rest].concat()), ["a", "b", "c", "d"]);
}

/// A remove of what is gone keeps nothing from taking its name, across checkpoints and a crash.
#[test]
fn names_change_from_key_to_namespace_and_back() {
    let (parent, path) = directory();
    let options = |path: &Path| FsOptions::new(path).layout(Layout::V1).pending_bytes(0);
    let store = open(&options(&path));
    let (key, inside) = (EntryId::new("", "", "p").unwrap(), id("s", "x"));
    for round in 0..10_u8 {
        store.put_blocking(&inside, vec![round]).unwrap();
        store.remove_blocking(&inside).unwrap();
        store.put_blocking(&key, vec![round]).unwrap();
        store.remove_blocking(&key).unwrap();
        store.remove_blocking(&key).unwrap();
    }
    store.put_blocking(&inside, vec![1]).unwrap();
    store.close_blocking().unwrap();
    let lazy = FsOptions::new(&path).layout(Layout::V1);
    let store = open(&lazy);
    store.remove_blocking(&inside).unwrap();
    store.put_blocking(&key, vec![2]).unwrap();
    let crashed = parent.path().join("crashed");
    crashed_copy(&path, &crashed);
    let reopened = open(&options(&crashed));
    assert_eq!(reopened.get_blocking(&key).unwrap(), Some(vec![2]));
    reopened.close_blocking().unwrap();
    assert_eq!(files_below(&crashed).len(), 1);
}

#[test]
fn either_layout_opens_where_the_user_says_which() {
    for (layout, taken) in [(Layout::V1, "p/s/k"), (Layout::V2, "p/s/k")] {
        let (_parent, path) = directory();
        fs::create_dir_all(path.join("p/s")).unwrap();
        fs::write(path.join(taken), "x").unwrap();
        let store = open(&FsOptions::new(&path).layout(layout));
        assert_eq!(store.get_blocking(&id("s", "k")).unwrap(), Some(b"x".to_vec()));
        store.put_blocking(&EntryId::new("", "", "manager").unwrap(), "m").unwrap();
        store.close_blocking().unwrap();
        let manager = if layout == Layout::V1 { "manager" } else { "[empty]/[empty]/manager" };
        assert!(path.join(manager).is_file());
    }
}

/// L5: the clock may stand before what was stored, as after it was set back.
#[test]
fn a_clock_that_steps_back_does_not_disturb_the_order() {
    let (_parent, path) = directory();
    let ldk = SecondStore::new(path.clone()).unwrap();
    KVStoreSync::write(&ldk, "p", "s", "future", vec![1]).unwrap();
    let in_the_future = SystemTime::now() + Duration::from_secs(100 * 365 * 86400);
    let file = fs::File::options().write(true).open(path.join("p/s/future")).unwrap();
    file.set_times(FileTimes::new().set_modified(in_the_future)).unwrap();
    for reopened in 0..3 {
        let store = open(&FsOptions::new(&path).layout(Layout::V2));
        store.put_blocking(&id("s", &format!("later{reopened}")), vec![2]).unwrap();
        store.close_blocking().unwrap();
    }
    let store = open(&FsOptions::new(&path));
    assert_eq!(keys(&store, "s"), ["later2", "later1", "later0", "future"]);
    store.close_blocking().unwrap();
    let page = SecondStore::new(path).unwrap().list_paginated("p", "s", None).unwrap();
    assert_eq!(page.keys, ["later2", "later1", "later0", "future"]);
}

/// P6, R2: a file that was cut or taken away behind the store's back is damage and not absence.
#[test]
fn files_that_changed_behind_the_stores_back_are_damage() {
    let (_parent, path) = directory();
    let store = open(&FsOptions::new(&path).pending_bytes(0));
    for key in ["cut", "gone"] {
        store.put_blocking(&id("s", key), vec![1; 100]).unwrap();
    }
    store.close_blocking().unwrap();
    let store = open(&FsOptions::new(&path));
    fs::write(path.join("p/s/cut"), "short").unwrap();
    fs::remove_file(path.join("p/s/gone")).unwrap();
    for key in ["cut", "gone"] {
        let error = store.get_blocking(&id("s", key)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
}

/// N7: the lock file answers to another name, as on a disk that folds case.
#[test]
fn a_disk_that_folds_case_is_refused() {
    let (_parent, path) = directory();
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(".KVSTORE-LOCK"), "").unwrap();
    let (kind, message) = refused(&FsOptions::new(&path));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("upper from lower case"), "{message}");
    assert_eq!(files_below(&path).len(), 1);
}

#[cfg(unix)]
#[test]
fn two_ways_to_one_directory_meet_at_one_lock() {
    let (parent, path) = directory();
    let _store = open(&FsOptions::new(&path));
    let link = parent.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (kind, message) = refused(&FsOptions::new(&link));
    assert_eq!(kind, ErrorKind::AlreadyOpen);
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
}
