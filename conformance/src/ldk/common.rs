//! The laws that both releases share; `lightning` and `MigratableSync` are in scope.

macro_rules! laws {
    () => {
        use futures_lite::future::block_on;
        use kvstore_core::MemoryBackend;
        use kvstore_core::Store;
        use lightning::io::ErrorKind;
        use lightning::util::persist::{KVStore, KVStoreSync};

        use crate::Fixture;
        use crate::support::{key, keys, namespace, sorted};

        /// What is written is read, listed and removed, by either trait.
        pub fn reads_writes_removes_and_lists<F: Fixture>() {
            let store_at = F::new();
            let store = store_at.store();
            KVStoreSync::write(&store, "p", "s", "sync", vec![1; 500]).unwrap();
            block_on(KVStore::write(&store, "p", "s", "async", vec![2; 500])).unwrap();
            KVStoreSync::write(&store, "", "", "manager", Vec::new()).unwrap();
            assert_eq!(KVStoreSync::read(&store, "p", "s", "async").unwrap(), [2; 500]);
            assert_eq!(block_on(KVStore::read(&store, "p", "s", "sync")).unwrap(), [1; 500]);
            assert_eq!(KVStoreSync::read(&store, "", "", "manager").unwrap(), [0_u8; 0]);
            let listed = sorted(KVStoreSync::list(&store, "p", "s").unwrap());
            assert_eq!(listed, ["async", "sync"]);
            KVStoreSync::remove(&store, "p", "s", "sync", false).unwrap();
            assert_eq!(block_on(KVStore::list(&store, "p", "s")).unwrap(), ["async"]);
            block_on(KVStore::remove(&store, "p", "s", "async", false)).unwrap();
            block_on(KVStore::remove(&store, "p", "s", "async", false)).unwrap();
            assert!(KVStoreSync::list(&store, "p", "s").unwrap().is_empty());
            assert!(KVStoreSync::list(&store, "no", "where").unwrap().is_empty());
        }

        /// R2 absence is `NotFound`. N9 a bad name is `InvalidInput`, and never a panic.
        pub fn absence_is_not_found_and_bad_names_are_invalid<F: Fixture>() {
            let store_at = F::new();
            let store = store_at.store();
            let absent = KVStoreSync::read(&store, "p", "s", "absent").unwrap_err();
            assert_eq!(absent.kind(), ErrorKind::NotFound);
            let absent = block_on(KVStore::read(&store, "p", "s", "absent")).unwrap_err();
            assert_eq!(absent.kind(), ErrorKind::NotFound);
            let long = "x".repeat(121);
            for (p, s, k) in
                [("", "s", "k"), ("p", "s", ""), ("p/", "", "k"), ("p", "", "ä"), ("p", "", &long)]
            {
                let kinds = [
                    KVStoreSync::read(&store, p, s, k).unwrap_err().kind(),
                    KVStoreSync::write(&store, p, s, k, vec![1]).unwrap_err().kind(),
                    KVStoreSync::remove(&store, p, s, k, true).unwrap_err().kind(),
                    block_on(KVStore::read(&store, p, s, k)).unwrap_err().kind(),
                    block_on(KVStore::write(&store, p, s, k, vec![1])).unwrap_err().kind(),
                    block_on(KVStore::remove(&store, p, s, k, false)).unwrap_err().kind(),
                ];
                assert_eq!(kinds, [ErrorKind::InvalidInput; 6], "{p}/{s}/{k}");
            }
            let bad_list = KVStoreSync::list(&store, "", "s").unwrap_err().kind();
            assert_eq!(bad_list, ErrorKind::InvalidInput);
            let bad_list = block_on(KVStore::list(&store, "", "s")).unwrap_err().kind();
            assert_eq!(bad_list, ErrorKind::InvalidInput);
            assert_eq!(store.list_all_blocking().unwrap(), []);
        }

        /// O1 The order is the one of the calls, whatever is polled first.
        pub fn the_call_fixes_the_order<F: Fixture>() {
            let store_at = F::new();
            let store = store_at.store();
            for round in 0..20 {
                let first = KVStore::write(&store, "p", "s", "k", vec![round, 1]);
                let removed = KVStore::remove(&store, "p", "s", "k", round % 2 == 0);
                let last = KVStore::write(&store, "p", "s", "k", vec![round, 2]);
                block_on(last).unwrap();
                assert_eq!(KVStoreSync::read(&store, "p", "s", "k").unwrap(), [round, 2]);
                block_on(removed).unwrap();
                block_on(first).unwrap();
                assert_eq!(KVStoreSync::read(&store, "p", "s", "k").unwrap(), [round, 2]);
            }
        }

        /// O3 A future that is dropped unpolled cancels nothing.
        pub fn dropped_futures_are_committed<F: Fixture>() {
            let store_at = F::new();
            let store = store_at.store();
            drop(KVStore::write(&store, "p", "s", "dropped", vec![1]));
            drop(KVStore::write(&store, "p", "s", "removed", vec![1]));
            drop(KVStore::remove(&store, "p", "s", "removed", false));
            drop(store);
            assert_eq!(keys(&store_at.store(), "p", "s"), ["dropped"]);
        }

        /// D3 After a lazy remove returned, reads and lists do not show the entry.
        pub fn lazy_removes_hide_at_once<F: Fixture>() {
            let store_at = F::new();
            let store = store_at.store();
            for name in ["a", "b", "c"] {
                KVStoreSync::write(&store, "p", "s", name, vec![1]).unwrap();
            }
            KVStoreSync::remove(&store, "p", "s", "a", true).unwrap();
            block_on(KVStore::remove(&store, "p", "s", "b", true)).unwrap();
            assert_eq!(KVStoreSync::list(&store, "p", "s").unwrap(), ["c"]);
            let read = KVStoreSync::read(&store, "p", "s", "a").unwrap_err();
            assert_eq!(read.kind(), ErrorKind::NotFound);
            drop(store);
            assert_eq!(keys(&store_at.store(), "p", "s"), ["c"]);
        }

        /// R2 An error is never shown as absence.
        pub fn a_closed_store_is_no_absence<F: Fixture>() {
            let store_at = F::new();
            let store = store_at.store();
            KVStoreSync::write(&store, "p", "s", "k", vec![1]).unwrap();
            store.close_blocking().unwrap();
            let kinds = [
                KVStoreSync::read(&store, "p", "s", "k").unwrap_err().kind(),
                block_on(KVStore::read(&store, "p", "s", "k")).unwrap_err().kind(),
                KVStoreSync::write(&store, "p", "s", "k", vec![1]).unwrap_err().kind(),
                KVStoreSync::list(&store, "p", "s").unwrap_err().kind(),
            ];
            assert_eq!(kinds, [ErrorKind::NotConnected; 4]);
        }

        /// L5, L11 LDK's migration moves every entry and keeps the creation order.
        pub fn migration_moves_everything_in_creation_order<F: Fixture>() {
            let store_at = F::new();
            let mut here = store_at.store();
            fill(&here);
            let mut there = Store::open(MemoryBackend::new()).unwrap();
            lightning::util::persist::migrate_kv_store_data(&mut here, &mut there).unwrap();
            assert_same(&here, &there);
            let back_at = F::new();
            let mut back = back_at.store();
            lightning::util::persist::migrate_kv_store_data(&mut there, &mut back).unwrap();
            assert_same(&here, &back);
            assert_eq!(MigratableSync::list_all_keys(&back).unwrap().len(), 41);
        }

        fn fill<B: kvstore_core::Backend>(store: &Store<B>) {
            for at in 0..40_u8 {
                // Names that do not sort in creation order.
                store.put_blocking(&key(at ^ 21), vec![at; usize::from(at)]).unwrap();
            }
            KVStoreSync::write(store, "", "", "manager", vec![7; 5000]).unwrap();
            store.put_blocking(&key(3), vec![1]).unwrap();
        }

        fn assert_same<A, B>(here: &Store<A>, there: &Store<B>)
        where
            A: kvstore_core::Backend,
            B: kvstore_core::Backend,
        {
            for names in [namespace("", ""), namespace("p", "s")] {
                let left = here.page_with_values_blocking(&names, None, 100).unwrap();
                let right = there.page_with_values_blocking(&names, None, 100).unwrap();
                let entries = |page: kvstore_core::Page| -> Vec<_> {
                    page.entries.into_iter().map(|e| (e.position.key, e.value)).collect()
                };
                assert_eq!(entries(left), entries(right), "{names}");
            }
        }
    };
}

pub(super) use laws;
