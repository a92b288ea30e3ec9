//! P: durability, as far as it shows without a crash; and the queue's bounds.

use futures_lite::future::{block_on, poll_once};
use kvstore_core::{Backend, Batch, ErrorKind, QueueOptions, Store};

use crate::Fixture;
use crate::support::{controlled, keep_busy, key, keys, within_patience};

/// P1 After `Ok`, the mutation survives; here the store is dropped or closed, and opened again.
pub fn p1_everything_acknowledged_is_there_after_reopening<F: Fixture>() {
    let store_at = F::new();
    for session in 0..4_u8 {
        let store = store_at.store();
        assert_eq!(keys(&store, "p", "s").len(), usize::from(session) * 3);
        for at in 0..3 {
            store.put(&key(format!("{session}-{at}")), vec![session; 1000]).wait().unwrap();
        }
        if session % 2 == 0 {
            store.close_blocking().unwrap();
        }
    }
    let store = store_at.store();
    for (session, at) in (0..4_u8).flat_map(|session| (0..3).map(move |at| (session, at))) {
        let found = store.get_blocking(&key(format!("{session}-{at}"))).unwrap();
        assert_eq!(found, Some(vec![session; 1000]));
    }
}

/// P3 After `Err`, nothing of the batch is visible, now or after reopening.
pub fn p3_a_failed_batch_is_never_visible<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    store.put_blocking(&key("k"), vec![1]).unwrap();
    control.fail_next([Some(ErrorKind::Io)]);
    let error = store.batch().put(&key("k"), vec![2]).put(&key("new"), vec![2]).commit().wait();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.get_blocking(&key("k")).unwrap(), Some(vec![1]));
    assert_eq!(keys(&store, "p", "s"), ["k"]);
    // The store goes on: only its own batch failed.
    store.put_blocking(&key("later"), vec![3]).unwrap();
    drop(store);
    assert_eq!(keys(&store_at.store(), "p", "s"), ["later", "k"]);
}

/// P3 After `InDoubt` the store accepts no more mutations until it is reopened. P4 A failed flush is
/// never retried as if it had worked: the store is poisoned until reopened.
pub fn p3_p4_a_commit_in_doubt_stops_the_store<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    store.put_blocking(&key("before"), vec![1]).unwrap();
    control.hold();
    let first = store.put(&key("first"), vec![2]);
    control.wait_until_held();
    let queued = store.put(&key("queued"), vec![3]);
    store.remove_lazy(&key("before")).unwrap();
    control.fail_next([Some(ErrorKind::InDoubt)]);
    control.release();
    assert_eq!(first.wait().unwrap_err().kind(), ErrorKind::InDoubt);
    assert_eq!(queued.wait().unwrap_err().kind(), ErrorKind::Poisoned);
    refuses_everything(&store, ErrorKind::Poisoned);
    // It still reads, and closes.
    assert_eq!(store.get_blocking(&key("first")).unwrap(), None);
    let lost = store.close_blocking().unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Poisoned, "the lazy remove did not reach the disk");
    drop(store);
    assert_eq!(control.commits().len(), 1);
    let store = store_at.store();
    assert_eq!(keys(&store, "p", "s"), ["before"]);
    store.put_blocking(&key("again"), vec![4]).unwrap();
}

pub(super) fn refuses_everything<B: Backend>(store: &Store<B>, kind: ErrorKind) {
    let refused = [
        store.put(&key("k"), vec![1]).wait(),
        store.put_blocking(&key("k"), vec![1]),
        store.remove(&key("k")).wait(),
        store.remove_lazy(&key("k")),
        store.commit_blocking(Batch::new()),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), kind);
    }
}

/// P5 A full disk is an error for the batches that hit it; once there is room, later ones succeed.
pub fn p5_a_full_disk_is_an_error_and_passes<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    let busy = keep_busy(&control, &store);
    let (fits, full) = (store.put(&key("fits"), vec![1]), store.put(&key("full"), vec![2]));
    // The group fails, then one of its members.
    let no_room = Some(ErrorKind::StorageFull);
    control.fail_next([None, no_room, None, no_room]);
    control.release();
    busy.wait().unwrap();
    fits.wait().unwrap();
    let error = full.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.is_retryable());
    store.put_blocking(&key("later"), vec![3]).unwrap();
    assert_eq!(keys(&store, "p", "s"), ["later", "fits", "busy"]);
}

/// At the bound of held bytes a submission fails with `QueueFull` and queues nothing, a blocking
/// commit waits for room, and what fits later goes through. One batch larger than the bound is
/// taken when nothing else is held.
pub fn queue_is_bounded<F: Fixture>() {
    let store_at = F::new();
    let options = QueueOptions::default().max_held_bytes(10_000);
    let (control, store) = controlled(&store_at, options);
    store.put(&key("larger"), vec![0; 50_000]).wait().unwrap();
    control.hold();
    let mut held = store.put(&key("held"), vec![1; 6_000]);
    control.wait_until_held();
    let refused = store.put(&key("refused"), vec![2; 6_000]).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QueueFull);
    assert!(refused.is_retryable());
    let small = store.put(&key("small"), vec![3; 10]);
    let patient = {
        let store = store.clone();
        std::thread::spawn(move || store.put_blocking(&key("patient"), vec![4; 6_000]))
    };
    assert!(block_on(poll_once(&mut held)).is_none());
    control.release();
    held.wait().unwrap();
    small.wait().unwrap();
    within_patience("a commit that waits for room", move || patient.join()).unwrap().unwrap();
    assert_eq!(keys(&store, "p", "s"), ["patient", "small", "held", "larger"]);
}

/// Closing commits what was submitted, refuses what comes later on every handle, and gives the same
/// answer again.
pub fn close_commits_everything_and_is_final<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let other = store.clone();
    (0..30_u8).for_each(|at| drop(store.put(&key(at), vec![at])));
    drop(store.close());
    refuses_everything(&other, ErrorKind::Closed);
    block_on(other.close()).unwrap();
    store.close_blocking().unwrap();
    let reopened = store_at.store();
    assert_eq!(keys(&reopened, "p", "s").len(), 30);
    drop((store, other));
    reopened.put_blocking(&key("k"), vec![1]).unwrap();
}
