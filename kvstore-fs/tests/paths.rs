//! Paths are not the store: directories that are moved, mounted over or gone, names that are links and
//! pipes, and what others leave beside the entries.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod support;

use std::fs;

use kvstore_core::{ErrorKind, Namespace};
use kvstore_fs::{FsOptions, Layout};

use support::{Mount, directory, files_below, id, open, refused};

/// S1, P6: no pipe keeps the opening waiting, and no link is written through.
#[cfg(unix)]
#[test]
fn pipes_and_links_with_our_names_are_refused() {
    for name in [".kvstore-journal", ".kvstore-lock", ".kvstore-spool"] {
        for link in [false, true] {
            let (parent, path) = directory();
            fs::create_dir(&path).unwrap();
            let thesis = parent.path().join("thesis");
            fs::write(&thesis, "years of work").unwrap();
            if link {
                std::os::unix::fs::symlink(&thesis, path.join(name)).unwrap();
            } else {
                support::make_pipe(&path.join(name));
            }
            let (kind, message) = refused(&FsOptions::new(&path));
            assert_eq!(kind, ErrorKind::Unsupported, "{name}: {message}");
            assert!(message.contains(name), "{message}");
            assert_eq!(fs::read(&thesis).unwrap(), b"years of work");
        }
    }
}

/// R2: to leave a link alone would be to say that its entries are not there.
#[cfg(unix)]
#[test]
fn a_link_among_the_entries_is_refused() {
    for place in ["monitors", "manager"] {
        let (parent, path) = directory();
        fs::create_dir(&path).unwrap();
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, path.join(place)).unwrap();
        let (kind, message) = refused(&FsOptions::new(&path));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(message.contains(place) && message.contains("symbolic link"), "{message}");
    }
}

/// K3: LDK's stores leave alone what is not an entry, and so does this one.
#[test]
fn what_is_not_an_entry_is_left_alone() {
    let others = [
        "logs/logs.txt",
        "lost+found/#12",
        ".DS_Store",
        ".git/config",
        "thesis.tmp",
        "p/s/holiday.jpeg",
        "p/s/draft.old.tmp",
        "p/s/.9.trash",
        "p/s/deep/er/file",
    ];
    for (layout, entry) in [(Layout::V1, "p/s/k"), (Layout::V2, "[empty]/[empty]/manager")] {
        let (_parent, path) = directory();
        for file in others.iter().chain([&entry]) {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        fs::write(path.join("p/s/k.12.tmp"), "half").unwrap();
        let store = open(&FsOptions::new(&path).layout(layout));
        assert_eq!(store.list_all_blocking().unwrap().len(), 1, "{layout:?}");
        store.put_blocking(&id("s", "new"), vec![1]).unwrap();
        // A directory that is not the store's cannot become an entry's file.
        let taken = store.put_blocking(&id("s", "deep"), vec![1]).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::InvalidInput);
        assert!(taken.to_string().contains("p/s/deep"), "{taken}");
        let logs = kvstore_core::EntryId::new("", "", "logs").unwrap();
        assert_eq!(store.put_blocking(&logs, vec![1]).is_err(), layout == Layout::V1);
        store.close_blocking().unwrap();
        for file in others {
            assert_eq!(fs::read(path.join(file)).unwrap(), b"x", "{file}");
        }
        let ours = if layout == Layout::V1 { 2 } else { 3 };
        assert_eq!(files_below(&path).len(), others.len() + ours, "{:?}", files_below(&path));
    }
}

/// G5: a store is its directory, wherever that is moved to.
#[test]
fn a_directory_that_is_moved_loses_nothing_and_is_not_split() {
    let (parent, path) = directory();
    let moved = parent.path().join("moved");
    let store = open(&FsOptions::new(&path).journal_bytes(0).large_value_bytes(5000));
    let value = |at: usize| vec![at as u8; if at.is_multiple_of(3) { 6000 } else { 50 }];
    let entry = |at: usize| id(&format!("namespace{}", at % 7), &format!("k{at}"));
    for at in 0..200 {
        if at == 20 {
            fs::rename(&path, &moved).unwrap();
        }
        store.put_blocking(&entry(at), value(at)).unwrap();
        assert_eq!(store.get_blocking(&entry(at)).unwrap(), Some(value(at)));
    }
    store.close_blocking().unwrap();
    assert!(!path.exists(), "nothing is made anew at the old place");
    let store = open(&FsOptions::new(&moved));
    for at in 0..200 {
        assert_eq!(store.get_blocking(&entry(at)).unwrap(), Some(value(at)));
    }
}

/// G5: a disk that is mounted over a namespace, or goes away there, splits nothing.
#[test]
fn a_namespace_that_becomes_another_directory_stops_the_checkpoint() {
    let (_parent, path) = directory();
    let options = FsOptions::new(&path).journal_bytes(0).pending_bytes(0);
    let store = open(&options);
    store.put_blocking(&id("s", "before"), vec![1; 100]).unwrap();
    store.close_blocking().unwrap();
    let store = open(&options);
    store.put_blocking(&id("elsewhere", "first"), vec![1]).unwrap();
    let Some(mount) = Mount::memory(&path.join("p/s")) else { return };
    // The first is in the journal, and the second waits for it to be checkpointed.
    store.put_blocking(&id("s", "k1"), vec![1; 100]).unwrap();
    let error = store.put_blocking(&id("s", "k2"), vec![2; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("p/s"), "{error}");
    assert_eq!(fs::read_dir(path.join("p/s")).unwrap().count(), 0);
    drop(mount);
    store.put_blocking(&id("s", "after"), vec![3; 100]).unwrap();
    assert_eq!(store.get_blocking(&id("s", "before")).unwrap(), Some(vec![1; 100]));
    store.close_blocking().unwrap();
    let store = open(&FsOptions::new(&path));
    assert_eq!(store.get_blocking(&id("s", "k1")).unwrap(), Some(vec![1; 100]));
    assert_eq!(store.get_blocking(&id("s", "after")).unwrap(), Some(vec![3; 100]));
}

/// G5: nor one that goes away with its mount point, or is moved: what is made anew in its place would
/// be lost when it comes back, and what is removed would be there again.
#[test]
fn a_namespace_that_goes_away_stops_the_checkpoint() {
    for remove in [false, true] {
        let (_parent, path) = directory();
        let options = FsOptions::new(&path);
        let store = open(&options);
        for key in ["old", "gone"] {
            store.put_blocking(&id("s", key), vec![1; 100]).unwrap();
        }
        store.close_blocking().unwrap();
        let store = open(&options);
        store.put_blocking(&id("elsewhere", "first"), vec![1]).unwrap();
        fs::rename(path.join("p/s"), path.join("p/aside")).unwrap();
        match remove {
            true => store.remove_blocking(&id("s", "gone")).unwrap(),
            false => store.put_blocking(&id("s", "new"), vec![2; 100]).unwrap(),
        }
        let error = store.close_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        drop(store);
        let _ = fs::remove_dir(path.join("p/s"));
        fs::rename(path.join("p/aside"), path.join("p/s")).unwrap();
        let store = open(&options);
        let keys = store.list_blocking(&Namespace::new("p", "s").unwrap()).unwrap();
        let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        let expected: &[&str] = if remove { &["old"] } else { &["new", "gone", "old"] };
        assert_eq!(keys, expected);
        store.close_blocking().unwrap();
        assert_eq!(files_below(&path).len(), expected.len() + 1);
    }
}

/// R2: no right to look is not absence.
#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_searched_is_not_missing() {
    use std::os::unix::fs::PermissionsExt;
    let (parent, path) = directory();
    drop(open(&FsOptions::new(&path)));
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o000)).unwrap();
    if path.exists() {
        println!("SKIPPED: root may search every directory");
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
        return;
    }
    let (kind, message) = refused(&FsOptions::new(&path).create(false));
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(kind, ErrorKind::PermissionDenied, "{message}");
}
