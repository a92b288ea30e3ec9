//! P5 on a disk that is really full: a small file system in memory, which only root can mount.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::SmallDisk;
use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_sled::{SledBackend, SledOptions};

fn id(at: usize) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

#[test]
fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
    // In the tree, and in files of their own.
    for value_len in [600, 16_000, 50_000] {
        let Some(disk) = SmallDisk::mount_of(40) else { return };
        let options = SledOptions::new(disk.path().join("store"));
        let open = || SledBackend::open(&options).map(|backend| Store::open(backend).unwrap());
        let ballast = disk.path().join("ballast");
        std::fs::write(&ballast, vec![0; 18 << 20]).unwrap();
        let store = open().unwrap();
        let (mut stored, mut refused) = (0, None);
        for at in 0..100_000 {
            match store.put_blocking(&id(at), vec![at as u8; value_len]) {
                Ok(()) => stored += 1,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let error = refused.expect("the disk is full before 60 MB");
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        assert!(error.is_retryable() && stored > 20, "{stored}: {error}");

        // What is there can be read, what failed is absent.
        let all_there = |store: &Store<SledBackend>| {
            for at in 0..stored {
                assert_eq!(store.get_blocking(&id(at)).unwrap(), Some(vec![at as u8; value_len]));
            }
            assert_eq!(store.get_blocking(&id(stored)).unwrap(), None);
        };
        all_there(&store);
        // The store goes on once there is room, and after opening again.
        std::fs::remove_file(&ballast).unwrap();
        store.put_blocking(&id(100_000), vec![7; 100]).unwrap();
        drop(store);
        let store = open().unwrap();
        all_there(&store);
        store.put_blocking(&id(100_000), vec![8; value_len]).unwrap();
        assert_eq!(store.list_all_blocking().unwrap().len(), stored + 1);
    }
}

#[test]
fn a_disk_that_is_full_at_open_keeps_nothing_from_opening_later() {
    let Some(disk) = SmallDisk::mount_of(32) else { return };
    let (path, ballast) = (disk.path().join("store"), disk.path().join("ballast"));
    let options = SledOptions::new(&path);
    let mut failed = 0;
    // First none is there, then the one that the round before has made.
    for free_pages in [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64, 512, 1100] {
        for _ in 0..2 {
            let taken = disk_pages(&disk).saturating_sub(free_pages);
            std::fs::write(&ballast, vec![0; taken * 4096]).unwrap();
            match SledBackend::open(&options) {
                Ok(backend) => drop(backend),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull, "{free_pages}: {error}");
                    failed += 1;
                }
            }
            std::fs::remove_file(&ballast).unwrap();
            let store = Store::open(SledBackend::open(&options).unwrap()).unwrap();
            store.put_blocking(&id(1), vec![1; 1000]).unwrap();
            store.close_blocking().unwrap();
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
    assert!(failed > 10, "the disk was never too full: {failed}");
}

/// P5: a commit of little that writes much, in steps, either has the room for it or is refused.
#[test]
fn a_commit_in_steps_is_refused_if_it_may_not_fit() {
    const ENTRIES: usize = 800;
    let Some(disk) = SmallDisk::mount_of(160) else { return };
    let options = SledOptions::new(disk.path().join("store"));
    let ballast = disk.path().join("ballast");
    let store = Store::open(SledBackend::open(&options).unwrap()).unwrap();
    for first in (0..ENTRIES).step_by(40) {
        let ids = (first..first + 40).map(id);
        let batch = ids.fold(store.batch(), |batch, id| batch.put(&id, vec![0; 20_000]));
        batch.commit_blocking().unwrap();
    }
    let (mut made, mut refused) = (0, 0);
    // Every tenth of them writes each leaf anew.
    for round in 1..=60 {
        let free = [12, 16, 24, 32, 48, 64][round % 6] << 8;
        let ballast_len = disk_pages(&disk).saturating_sub(free) * 4096;
        std::fs::write(&ballast, vec![0; ballast_len]).unwrap();
        let ids = (0..ENTRIES).step_by(8).map(id);
        let batch = ids.fold(store.batch(), |batch, id| batch.put(&id, vec![round as u8; 100]));
        match batch.commit_blocking() {
            Ok(()) => made += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{round}: {error}");
                refused += 1;
            }
        }
        std::fs::remove_file(&ballast).unwrap();
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
}

/// Free pages of 4096 bytes.
fn disk_pages(disk: &SmallDisk) -> usize {
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    (free.f_bavail * free.f_frsize / 4096) as usize
}
