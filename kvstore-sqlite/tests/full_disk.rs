//! P5 on a disk that is really full: a small file system in memory, which only root can mount.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::SmallDisk;
use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};

#[test]
fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("node.sqlite");
    let open = || Store::open(SqliteBackend::open(&SqliteOptions::new(&path)).unwrap()).unwrap();
    let id = |at: usize| EntryId::new("p", "s", &at.to_string()).unwrap();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 600_000]).unwrap();
    let store = open();
    let (mut stored, mut refused) = (Vec::new(), None);
    for at in 0..100 {
        match store.put_blocking(&id(at), vec![at as u8; 50_000]) {
            Ok(()) => stored.push(at),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let error = refused.expect("the disk is full before 5 MB");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.is_retryable() && error.to_string().contains("make room"), "{error}");
    assert!(stored.len() > 5);

    // What is there can be read, what failed is absent, and the store goes on once there is room.
    assert_eq!(store.get_blocking(&id(stored.len())).unwrap(), None);
    std::fs::remove_file(ballast).unwrap();
    store.put_blocking(&id(1000), vec![7; 100]).unwrap();
    drop(store);
    let store = open();
    for at in stored {
        assert_eq!(store.get_blocking(&id(at)).unwrap(), Some(vec![at as u8; 50_000]));
    }
    assert_eq!(store.get_blocking(&id(1000)).unwrap(), Some(vec![7; 100]));
}

#[test]
fn a_disk_that_fills_up_while_the_store_is_made_leaves_nothing_in_the_way() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (path, ballast) = (disk.path().join("node.sqlite"), disk.path().join("ballast"));
    let mut failed = 0;
    for free_pages in (0..40).rev() {
        std::fs::write(&ballast, vec![0; (512 - 4 - free_pages) * 4096]).unwrap();
        let opened = SqliteBackend::open(&SqliteOptions::new(&path));
        failed += usize::from(opened.is_err());
        drop(opened);
        std::fs::remove_file(&ballast).unwrap();
        let store = Store::open(SqliteBackend::open(&SqliteOptions::new(&path)).unwrap()).unwrap();
        store.put_blocking(&EntryId::new("p", "s", "k").unwrap(), vec![1; 1000]).unwrap();
        store.close_blocking().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0, "{free_pages} pages");
    }
    assert!(failed > 3, "the disk was never too full: {failed}");
}
