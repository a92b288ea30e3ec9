//! D: removing.

use std::time::Duration;

use kvstore_core::{ErrorKind, QueueOptions};

use crate::Fixture;
use crate::support::{controlled, keep_busy, key, keys, namespace};

/// D1 Removing what is not there is `Ok`.
pub fn d1_removing_what_is_absent_is_ok<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    store.remove_blocking(&key("never")).unwrap();
    store.remove(&key("never")).wait().unwrap();
    store.remove_lazy(&key("never")).unwrap();
    store.put_blocking(&key("k"), vec![1]).unwrap();
    store.remove_blocking(&key("k")).unwrap();
    store.remove_blocking(&key("k")).unwrap();
    assert_eq!(store.list_all_blocking().unwrap(), []);
}

/// D2 put after remove wins, lazy or not.
pub fn d2_put_after_remove_wins<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for round in 0..10_u8 {
        store.remove_lazy(&key("lazy")).unwrap();
        drop(store.remove(&key("eager")));
        drop(store.put(&key("lazy"), vec![round]));
        store.put_blocking(&key("eager"), vec![round]).unwrap();
        assert_eq!(store.get_blocking(&key("lazy")).unwrap(), Some(vec![round]));
        assert_eq!(store.get_blocking(&key("eager")).unwrap(), Some(vec![round]));
    }
    drop(store);
    // The same where remove and put meet in one group, whatever the worker's thread is doing.
    let (control, store) = controlled(&store_at, QueueOptions::default());
    assert_eq!(keys(&store, "p", "s"), ["eager", "lazy"]);
    let busy = keep_busy(&control, &store);
    store.remove_lazy(&key("lazy")).unwrap();
    drop(store.remove(&key("eager")));
    drop(store.put(&key("lazy"), vec![11]));
    let last = store.put(&key("eager"), vec![12]);
    control.release();
    busy.wait().unwrap();
    last.wait().unwrap();
    assert_eq!(control.commits().len(), 2);
    assert_eq!(store.get_blocking(&key("lazy")).unwrap(), Some(vec![11]));
    assert_eq!(store.get_blocking(&key("eager")).unwrap(), Some(vec![12]));
}

/// D3 A lazy remove returns without waiting for the disk. From then on reads and lists do not show
/// the entry.
pub fn d3_a_lazy_remove_hides_at_once<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    for at in 0..5 {
        store.put_blocking(&key(at), vec![at]).unwrap();
    }
    control.hold();
    store.remove_lazy(&key(1)).unwrap();
    store.remove_lazy(&key(4)).unwrap();
    assert_eq!(store.get_blocking(&key(1)).unwrap(), None);
    assert_eq!(keys(&store, "p", "s"), ["3", "2", "0"]);
    assert_eq!(store.list_all_blocking().unwrap().len(), 3);
    // A page is filled up with what is behind the hidden entries, by one operation (L9).
    let (_, pages) = control.gets_and_pages();
    let page = store.page_with_values_blocking(&namespace("p", "s"), None, 2).unwrap();
    assert_eq!(page.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["3", "2"]);
    assert_eq!(control.gets_and_pages(), (0, pages + 1));
    let rest = store.page_blocking(&namespace("p", "s"), page.next.as_ref(), 2).unwrap();
    assert_eq!(rest.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["0"]);
    assert_eq!(rest.next, None);
    control.release();
    let put_again = store.put(&key(1), vec![9]);
    put_again.wait().unwrap();
    assert_eq!(store.get_blocking(&key(1)).unwrap(), Some(vec![9]));
    assert_eq!(keys(&store, "p", "s"), ["1", "3", "2", "0"]);
    // A commit that was under way when the entry was removed does not bring it back.
    control.hold();
    let under_way = store.put(&key(0), vec![8]);
    control.wait_until_held();
    store.remove_lazy(&key(0)).unwrap();
    control.release();
    under_way.wait().unwrap();
    assert_eq!(store.get_blocking(&key(0)).unwrap(), None);
    assert_eq!(keys(&store, "p", "s"), ["1", "3", "2"]);
}

/// D4 Lazy removes reach the disk within one second even when no other commit follows.
pub fn d4_a_lazy_remove_reaches_the_disk_by_itself<F: Fixture>() {
    let store_at = F::new();
    // A longer wait than the contract allows is cut short.
    let options = QueueOptions::default().lazy_remove_delay(Duration::from_secs(3600));
    let (control, store) = controlled(&store_at, options);
    store.put_blocking(&key("k"), vec![1]).unwrap();
    store.remove_lazy(&key("k")).unwrap();
    let commits = control.wait_for_commits(2);
    assert_eq!(commits[1], [key("k")]);
    // Later ones get their turn too.
    store.put_blocking(&key("k"), vec![1]).unwrap();
    store.remove_lazy(&key("k")).unwrap();
    assert_eq!(control.wait_for_commits(4)[3], [key("k")]);
}

/// D4 Lazy removes ride along with the next commit, and reach the disk on close.
pub fn d4_a_lazy_remove_rides_along_and_is_settled_on_close<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    store.batch().put(&key("a"), vec![1]).put(&key("b"), vec![2]).commit().wait().unwrap();
    // While the disk is busy, so that the lazy remove and the put meet in one group.
    let busy = keep_busy(&control, &store);
    store.remove_lazy(&key("a")).unwrap();
    let next = store.put(&key("c"), vec![3]);
    control.release();
    busy.wait().unwrap();
    next.wait().unwrap();
    assert_eq!(control.commits()[2], [key("a"), key("c")]);
    store.remove_lazy(&key("b")).unwrap();
    store.close_blocking().unwrap();
    drop(store);
    let store = store_at.store();
    assert_eq!(keys(&store, "p", "s"), ["c", "busy"]);
}

/// D4 A lazy remove that cannot be committed stays hidden and is tried again with a later commit,
/// unless a later put of the entry went through.
pub fn d4_a_lazy_remove_that_fails_is_tried_again<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    store.batch().put(&key("a"), vec![1]).put(&key("b"), vec![2]).commit().wait().unwrap();
    let busy = keep_busy(&control, &store);
    store.remove_lazy(&key("a")).unwrap();
    store.remove_lazy(&key("b")).unwrap();
    let put_again = store.put(&key("b"), vec![3]);
    // The busy one passes, the group fails, then its members: both removes together, and the put.
    let full = Some(ErrorKind::StorageFull);
    control.fail_next([None, full, full, None]);
    control.release();
    busy.wait().unwrap();
    put_again.wait().unwrap();
    assert_eq!(store.get_blocking(&key("a")).unwrap(), None);
    assert_eq!(store.get_blocking(&key("b")).unwrap(), Some(vec![3]));
    store.put_blocking(&key("next"), vec![4]).unwrap();
    drop(store);
    let store = store_at.store();
    // Its put made `b` new: it is younger than what was put before it.
    assert_eq!(keys(&store, "p", "s"), ["next", "b", "busy"]);
    assert_eq!(store.get_blocking(&key("b")).unwrap(), Some(vec![3]));
}
