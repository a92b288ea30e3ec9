//! P5 on a disk that is really full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::SmallDisk;
use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_fs::{FsBackend, FsOptions};

fn id(at: usize) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

#[test]
fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
    for (value_len, pending_bytes) in [(50_000, 1 << 20), (5_000, 1 << 20), (5_000, 0)] {
        let Some(disk) = SmallDisk::mount() else { return };
        let options = FsOptions::new(disk.path().join("store"));
        let options = options.journal_bytes(0).pending_bytes(pending_bytes);
        let open = || Store::open(FsBackend::open(&options).unwrap()).unwrap();
        // What is in the journal needs its room a second time until it is in place.
        let ballast = disk.path().join("ballast");
        std::fs::write(&ballast, vec![0; 1_300_000]).unwrap();
        let store = open();
        let (mut stored, mut refused) = (0, None);
        for at in 0..2000 {
            match store.put_blocking(&id(at), vec![at as u8; value_len]) {
                Ok(()) => stored += 1,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let error = refused.expect("the disk is full before 10 MB");
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        assert!(error.is_retryable());
        assert_eq!(store.get_blocking(&id(stored)).unwrap(), None);
        for at in 0..stored {
            assert_eq!(store.get_blocking(&id(at)).unwrap(), Some(vec![at as u8; value_len]));
        }
        // Once there is room it goes on, and nothing that was acknowledged is missing.
        std::fs::remove_file(&ballast).unwrap();
        store.put_blocking(&id(5000), vec![7; value_len]).unwrap();
        drop(store);
        let store = open();
        for at in 0..stored {
            assert_eq!(store.get_blocking(&id(at)).unwrap(), Some(vec![at as u8; value_len]));
        }
        assert_eq!(store.get_blocking(&id(5000)).unwrap(), Some(vec![7; value_len]));
        assert_eq!(store.list_all_blocking().unwrap().len(), stored + 1);
    }
}
