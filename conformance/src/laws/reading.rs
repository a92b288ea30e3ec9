//! R: reading.

use std::sync::Arc;
use std::thread;

use futures_lite::future::{block_on, poll_once};
use kvstore_core::{Batch, ErrorKind, QueueOptions};

use crate::Fixture;
use crate::support::{FinishOnDrop, Pace, controlled, key, keys, namespace, within_patience};

/// R1 After a ticket resolved `Ok`, every read that starts later sees it, or something newer.
pub fn r1_an_acknowledged_value_is_seen<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let writers: Vec<_> = (0..4_u8)
        .map(|writer| {
            let store = store.clone();
            thread::spawn(move || {
                let entry = key(writer);
                for round in 0..60_u8 {
                    store.put(&entry, vec![round]).wait().unwrap();
                    assert_eq!(store.get_blocking(&entry).unwrap(), Some(vec![round]));
                    assert!(keys(&store, "p", "s").contains(&writer.to_string()));
                    store.remove(&entry).wait().unwrap();
                    assert_eq!(store.get_blocking(&entry).unwrap(), None);
                    assert!(!keys(&store, "p", "s").contains(&writer.to_string()));
                }
            })
        })
        .collect();
    for writer in writers {
        within_patience("a writer", move || writer.join()).unwrap();
    }
}

/// R2 Absence is `None`, and `None` is used for nothing else: an error is never reported as absence.
///
/// A closed store stands for one that cannot read: it has the entry, and may not say it is absent.
pub fn r2_absence_is_none_and_errors_are_errors<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    assert_eq!(store.get_blocking(&key("absent")).unwrap(), None);
    store.put_blocking(&key("there"), vec![1]).unwrap();
    store.remove_blocking(&key("gone")).unwrap();
    assert_eq!(store.get_blocking(&key("gone")).unwrap(), None);
    store.close_blocking().unwrap();
    assert_eq!(store.get_blocking(&key("there")).unwrap_err().kind(), ErrorKind::Closed);
    let names = namespace("p", "s");
    assert_eq!(store.list_blocking(&names).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.list_all_blocking().unwrap_err().kind(), ErrorKind::Closed);
}

/// R3 Reads never block behind a commit that is waiting for the disk.
pub fn r3_reads_do_not_wait_for_a_commit<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    store.put_blocking(&key("k"), vec![1]).unwrap();
    control.hold();
    let pending = store.put(&key("k"), vec![2]);
    control.wait_until_held();
    let reader = store.clone();
    let seen = within_patience("a read during a commit", move || {
        let listed = keys(&reader, "p", "s");
        (reader.get_blocking(&key("k")).unwrap(), listed)
    });
    assert_eq!(seen, (Some(vec![1]), vec!["k".to_owned()]));
    control.release();
    pending.wait().unwrap();
    assert_eq!(store.get_blocking(&key("k")).unwrap(), Some(vec![2]));
}

/// R4 A read is never torn: one whole value, old or new.
pub fn r4_reads_are_never_torn<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let len = |byte: u8| 30_000 + usize::from(byte) * 500;
    store.put_blocking(&key("k"), vec![0; len(0)]).unwrap();
    let pace = Arc::new(Pace::default());
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, pace) = (store.clone(), Arc::clone(&pace));
            thread::spawn(move || {
                // A reader that fails ends the test.
                let _finish = FinishOnDrop(&pace);
                while !pace.is_done() {
                    let value = store.get_blocking(&key("k")).unwrap().unwrap();
                    assert!(value.iter().all(|byte| *byte == value[0]), "a mixture of values");
                    assert_eq!(value.len(), len(value[0]), "a part of a value");
                    pace.step();
                }
            })
        })
        .collect();
    for byte in 0..100 {
        store.put_blocking(&key("k"), vec![byte; len(byte)]).unwrap();
        pace.wait_for(2);
    }
    pace.finish();
    for reader in readers {
        within_patience("a reader", move || reader.join()).unwrap();
    }
}

/// R4 A read is one whole value, also where a backend reads many at once: each read that was begun
/// gets its own answer, in whatever order they are awaited, and some never are.
pub fn r4_reads_at_once_get_their_own_answers<F: Fixture>() {
    const ENTRIES: u8 = 90;
    let store_at = F::new();
    let store = store_at.store();
    // Some are absent, one is empty, some take more than one message of a server.
    let value = |at: u8| (!at.is_multiple_of(3)).then(|| vec![at; usize::from(at / 2) * 1000]);
    let batch = (0..ENTRIES).fold(Batch::new(), |batch, at| match value(at) {
        Some(value) => batch.put(&key(at), value),
        None => batch,
    });
    store.submit(batch).wait().unwrap();
    let answers = within_patience("one of many reads", move || {
        let begin = |at: u8| {
            let mut read = Box::pin(store.get(&key(at)));
            let answered = block_on(poll_once(&mut read));
            (at, read, answered)
        };
        // Everything twice, and one after the other.
        let mut reads: Vec<_> =
            (0..ENTRIES).flat_map(|at| [at, ENTRIES - 1 - at]).map(begin).collect();
        reads.reverse();
        let awaited = reads.into_iter().enumerate().filter(|(at, _)| !at.is_multiple_of(5));
        let answers = awaited.map(|(_, (at, read, answered))| {
            (at, answered.unwrap_or_else(|| block_on(read)).unwrap())
        });
        answers.collect::<Vec<_>>()
    });
    for (at, answer) in answers {
        assert!(answer == value(at), "the answer for {at} is another one's");
    }
}
