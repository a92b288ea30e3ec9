//! B: batches.

use kvstore_core::{Batch, ErrorKind, QueueOptions};

use crate::Fixture;
use crate::support::{controlled, id, key, keys};

/// B1 All of a batch is there or none of it; here one mutation of it cannot be stored.
pub fn b1_a_batch_that_fails_leaves_nothing<F: Fixture>() {
    let store_at = F::new();
    let options = QueueOptions::default().max_held_bytes(usize::MAX);
    let store = store_at.store_with(options);
    store.put_blocking(&key("old"), vec![1]).unwrap();
    let batch = Batch::new()
        .put(&key("new"), vec![2])
        .put(&key("old"), vec![2])
        .remove(&key("old"))
        .put(&id("other", "", "new"), vec![2])
        .put(&key("guilty"), vec![0; store_at.too_large()])
        .put(&key("after"), vec![2]);
    let error = store.commit_blocking(batch).expect_err("a value of too_large() bytes is refused");
    assert_eq!(error.kind(), ErrorKind::ValueTooLarge);
    for reopened in [false, true] {
        let store = if reopened {
            store.close_blocking().unwrap();
            store_at.store()
        } else {
            store.clone()
        };
        assert_eq!(store.get_blocking(&key("old")).unwrap(), Some(vec![1]));
        assert_eq!(store.list_all_blocking().unwrap().len(), 1);
    }
}

/// B2 Within a batch the last mutation of a key wins.
pub fn b2_the_last_mutation_of_an_entry_wins<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    store.put_blocking(&key("removed"), vec![0]).unwrap();
    let batch =
        store.batch().put(&key("put"), vec![1]).remove(&key("put")).put(&key("put"), vec![2]);
    let batch = batch.put(&key("removed"), vec![3]).remove(&key("removed"));
    let batch = batch.put(&key("twice"), vec![4]).put(&key("twice"), vec![5]);
    batch.commit().wait().unwrap();
    assert_eq!(store.get_blocking(&key("put")).unwrap(), Some(vec![2]));
    assert_eq!(store.get_blocking(&key("removed")).unwrap(), None);
    assert_eq!(store.get_blocking(&key("twice")).unwrap(), Some(vec![5]));
    assert_eq!(keys(&store, "p", "s"), ["twice", "put"]);
}

/// B3 An empty batch is `Ok`; its ticket resolves when what came before it is settled.
pub fn b3_an_empty_batch_is_ok<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    store.batch().commit().wait().unwrap();
    store.commit_blocking(Batch::new()).unwrap();
    assert!(control.commits().is_empty());
    drop(store.put(&key("k"), vec![1]));
    store.batch().commit().wait().unwrap();
    assert_eq!(control.commits().len(), 1);
    assert_eq!(store.get_blocking(&key("k")).unwrap(), Some(vec![1]));
}

/// B4 Batches keep their place in the submission order.
pub fn b4_batches_keep_their_place<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for round in 0..20_u8 {
        drop(store.put(&key("k"), vec![round, 1]));
        drop(store.batch().put(&key("k"), vec![round, 2]).put(&key("other"), vec![1]).commit());
        drop(store.put(&key("other"), vec![round, 3]));
        drop(store.batch().remove(&key("k")).put(&key("k2"), vec![round]).commit());
        let last = store.put(&key("k"), vec![round, 5]);
        last.wait().unwrap();
        assert_eq!(store.get_blocking(&key("k")).unwrap(), Some(vec![round, 5]));
        assert_eq!(store.get_blocking(&key("other")).unwrap(), Some(vec![round, 3]));
        assert_eq!(keys(&store, "p", "s"), ["k", "k2", "other"]);
    }
}
