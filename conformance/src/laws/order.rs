//! O: order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use futures_lite::future::{block_on, poll_once};
use kvstore_core::{Backend, ErrorKind, QueueOptions, Store};

use crate::Fixture;
use crate::support::{
    FinishOnDrop, Pace, controlled, keep_busy, key, keys, namespace, within_patience,
};

/// O1 Order is fixed by the *call* that submits, not by when a future is polled or completes.
pub fn o1_the_call_fixes_the_order<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for round in 0..50_u8 {
        let first = store.put(&key("k"), vec![round, 1]);
        let second = store.put(&key("k"), vec![round, 2]);
        let third = store.put(&key(format!("later{round}")), vec![3]);
        // The last is polled first.
        third.wait().unwrap();
        assert_eq!(store.get_blocking(&key("k")).unwrap(), Some(vec![round, 2]));
        second.wait().unwrap();
        first.wait().unwrap();
        assert_eq!(store.get_blocking(&key("k")).unwrap(), Some(vec![round, 2]));
    }
    let newest_first: Vec<_> = (0..50).rev().map(|round| format!("later{round}")).collect();
    assert_eq!(keys(&store, "p", "s")[..50], newest_first);
    drop(store);
    // The same where all of it meets in one group, whatever the worker's thread is doing.
    let (control, store) = controlled(&store_at, QueueOptions::default());
    let busy = keep_busy(&control, &store);
    let tickets: Vec<_> =
        (0..9_u8).map(|at| store.put(&key(format!("one{at}")), vec![at])).collect();
    control.release();
    tickets.into_iter().rev().chain([busy]).for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(control.commits().len(), 2);
    let newest_first: Vec<_> = (0..9).rev().map(|at| format!("one{at}")).collect();
    assert_eq!(keys(&store, "p", "s")[..9], newest_first);
}

/// O2 For one key: once a later mutation was visible, an earlier one never is again. Mixed puts and
/// removes count as one order.
pub fn o2_an_earlier_value_never_comes_back<F: Fixture>() {
    let store_at = F::new();
    let options = QueueOptions::default().max_group_mutations(3);
    let store = store_at.store_with(options);
    let pace = Arc::new(Pace::default());
    let reader = {
        let (store, pace) = (store.clone(), Arc::clone(&pace));
        thread::spawn(move || {
            let _finish = FinishOnDrop(&pace);
            let mut newest = 0;
            while newest < 301 {
                // Removes stand at multiples of three, so absence after `newest` is progress.
                if let Some(value) = store.get_blocking(&key("k")).unwrap() {
                    let seen = u32::from_be_bytes(value.try_into().unwrap());
                    assert!(seen >= newest, "{seen} after {newest}");
                    newest = seen;
                }
                pace.step();
            }
        })
    };
    for number in 1..=300_u32 {
        match number % 3 {
            0 if number % 2 == 0 => store.remove_lazy(&key("k")).unwrap(),
            0 => drop(store.remove(&key("k"))),
            _ => drop(store.put(&key("k"), number.to_be_bytes().to_vec())),
        }
        pace.wait_for(2);
    }
    store.put_blocking(&key("k"), 301_u32.to_be_bytes().to_vec()).unwrap();
    within_patience("the reader", move || reader.join()).unwrap();
}

/// O3 Awaiting tickets in any order, or never, changes nothing. A dropped ticket or future cancels
/// nothing: what was submitted is committed.
pub fn o3_dropped_tickets_are_committed<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    control.hold();
    drop(store.put(&key("dropped"), vec![1]));
    control.wait_until_held();
    let mut polled = store.put(&key("polled"), vec![2]);
    assert!(block_on(poll_once(&mut polled)).is_none());
    drop(polled);
    let forgotten = store.put(&key("forgotten"), vec![3]);
    control.release();
    store.put_blocking(&key("last"), vec![4]).unwrap();
    assert_eq!(keys(&store, "p", "s"), ["last", "forgotten", "polled", "dropped"]);
    drop(forgotten);
}

/// O4 A superseded put may be skipped, but its ticket resolves `Ok` only once the superseding one
/// (or itself) is durable.
pub fn o4_a_superseded_put_waits_for_what_supersedes_it<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    control.hold();
    let first = store.put(&key("first"), vec![0]);
    control.wait_until_held();
    let mut superseded = store.put(&key("k"), vec![1]);
    let mut superseding = store.put(&key("k"), vec![2]);
    assert!(block_on(poll_once(&mut superseded)).is_none());
    assert!(block_on(poll_once(&mut superseding)).is_none());
    // First alone, then the group of both, which fails: neither may be acknowledged.
    control.fail_next([None, Some(ErrorKind::Io)]);
    control.release();
    first.wait().unwrap();
    assert_eq!(superseded.wait().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(superseding.wait().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.get_blocking(&key("k")).unwrap(), None);
    assert_eq!(control.commits().len(), 1);
}

/// O5 Order holds across keys too: after a crash, the surviving mutations are a prefix of the
/// submission order.
///
/// Here the crash is a commit that fails in doubt; what was submitted after it must not be there.
pub fn o5_what_survives_is_a_prefix<F: Fixture>() {
    for survivors in [0, 1, 4, 9] {
        let store_at = F::new();
        let options = QueueOptions::default().max_group_mutations(2);
        let (control, store) = controlled(&store_at, options);
        control.hold();
        let tickets: Vec<_> = (0..20_u8).map(|at| store.put(&key(at), vec![at])).collect();
        control.fail_next((0..survivors).map(|_| None).chain([Some(ErrorKind::InDoubt)]));
        control.release();
        let acknowledged = tickets.into_iter().map(|ticket| ticket.wait().is_ok());
        let acknowledged = acknowledged.filter(|ok| *ok).count();
        drop(store);
        let store = store_at.store();
        let mut found = keys(&store, "p", "s");
        found.reverse();
        let prefix: Vec<_> = (0..acknowledged).map(|at| at.to_string()).collect();
        assert_eq!(found, prefix);
        assert!(acknowledged >= survivors && acknowledged < 20, "{acknowledged}");
    }
}

/// O7 Works from any thread, with or without a Tokio runtime around it; the synchronous calls never
/// deadlock inside one.
pub fn o7_any_thread_and_any_runtime<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let mut runs: Vec<thread::JoinHandle<()>> = Vec::new();
    for worker in 0..4 {
        let store = store.clone();
        runs.push(thread::spawn(move || use_everything(&store, &format!("plain{worker}"))));
    }
    let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    for (name, runtime) in [("single", single), ("multi", multi)] {
        let store = store.clone();
        runs.push(thread::spawn(move || {
            let task = async move {
                use_everything(&store, name);
                await_everything(&store, name).await;
                // Dropping the last handle of a runtime's thread must not hang either.
                drop(store);
            };
            runtime.block_on(async { tokio::spawn(task).await.unwrap() });
        }));
    }
    for run in runs {
        within_patience("a caller", move || run.join()).unwrap();
    }
    let alone = store.clone();
    within_patience("a task that does not yield", move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        // More than Tokio lets a task do before it has to yield, which these calls cannot.
        let task = async move {
            for round in 0..150_u8 {
                alone
                    .put_blocking(&crate::support::id("o7", "multi", "waited"), [round].to_vec())?;
                alone.list_blocking(&namespace("o7", "multi"))?;
            }
            Ok::<(), kvstore_core::Error>(())
        };
        runtime.unwrap().block_on(async { tokio::spawn(task).await.unwrap() })
    })
    .unwrap();
    let mut counts = BTreeMap::new();
    for entry in store.list_all_blocking().unwrap() {
        *counts.entry(entry.id.secondary().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 6, "{counts:?}");
}

fn use_everything<B: Backend>(store: &Store<B>, name: &str) {
    let entry = |k: &str| crate::support::id("o7", name, k);
    for round in 0..10_u8 {
        store.put_blocking(&entry("blocking"), vec![round]).unwrap();
        store.put(&entry("waited"), vec![round]).wait().unwrap();
        assert_eq!(store.get_blocking(&entry("waited")).unwrap(), Some(vec![round]));
        store.remove_blocking(&entry("blocking")).unwrap();
    }
    assert_eq!(keys(store, "o7", name), ["waited"]);
}

async fn await_everything<B: Backend>(store: &Store<B>, name: &str) {
    let entry = |k: &str| crate::support::id("o7", name, k);
    let store = Arc::new(store.clone());
    let tasks: Vec<_> = (0..20_u8)
        .map(|at| {
            let (store, entry) = (Arc::clone(&store), entry(&format!("task{at}")));
            tokio::spawn(async move {
                store.put(&entry, vec![at]).await.unwrap();
                assert_eq!(store.get(&entry).await.unwrap(), Some(vec![at]));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let names = crate::support::namespace("o7", name);
    assert_eq!(store.list(&names).await.unwrap().len(), 21);
    assert_eq!(store.page_with_values(&names, None, 5).await.unwrap().entries.len(), 5);
}
