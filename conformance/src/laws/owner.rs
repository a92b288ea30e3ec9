//! W: one owner.

use kvstore_core::{ErrorKind, QueueOptions};

use super::durability::refuses_everything;
use crate::Fixture;
use crate::support::{controlled, key, keys};

/// W1 A second open fails at once with `AlreadyOpen`, saying who holds the store.
pub fn w1_a_second_open_is_refused<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    store.put_blocking(&key("k"), vec![1]).unwrap();
    for _ in 0..3 {
        let error = store_at.open().err().expect("the second open fails");
        assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
        assert!(error.is_retryable());
        assert!(error.message().contains("process"), "{error} does not name the process");
    }
    store.put_blocking(&key("k"), vec![2]).unwrap();
    store.close_blocking().unwrap();
    // Closing is enough; handles may live on.
    let next = store_at.store();
    assert_eq!(next.get_blocking(&key("k")).unwrap(), Some(vec![2]));
    drop(store);
    assert_eq!(store_at.open().err().expect("still open").kind(), ErrorKind::AlreadyOpen);
    drop(next);
    drop(store_at.open().expect("free again"));
}

/// W2 An owner that lost its right can commit nothing any more, not even what was already queued.
pub fn w2_a_fenced_owner_commits_nothing<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default().max_group_mutations(1));
    control.hold();
    let tickets: Vec<_> = (0..5_u8).map(|at| store.put(&key(at), vec![at])).collect();
    control.fail_next([None, Some(ErrorKind::Fenced)]);
    control.release();
    let kinds: Vec<_> = tickets.into_iter().map(|t| t.wait().err().map(|e| e.kind())).collect();
    let poisoned = Some(ErrorKind::Poisoned);
    assert_eq!(kinds, [None, Some(ErrorKind::Fenced), poisoned, poisoned, poisoned]);
    refuses_everything(&store, ErrorKind::Poisoned);
    drop(store);
    assert_eq!(keys(&store_at.store(), "p", "s"), ["0"]);
}

/// W3 A crashed owner's right is free again: here an owner that is dropped without being closed.
pub fn w3_a_dropped_owner_is_forgotten<F: Fixture>() {
    let store_at = F::new();
    for _ in 0..3 {
        drop(store_at.open().expect("the place is free"));
    }
    let store = store_at.store();
    store.put_blocking(&key("k"), vec![1]).unwrap();
    drop(store);
    assert_eq!(keys(&store_at.store(), "p", "s"), ["k"]);
}
