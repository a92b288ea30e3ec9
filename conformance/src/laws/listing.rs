//! L: listing and pages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use kvstore_core::{Backend, ErrorKind, PageToken, QueueOptions, Store};

use crate::Fixture;
use crate::support::{
    FinishOnDrop, Pace, controlled, id, keep_busy, key, keys, namespace, sorted, within_patience,
};

/// L1 A list shows exactly the keys of that namespace: no files of the engine, no sub-namespaces.
pub fn l1_a_list_shows_its_namespace_only<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let names = store_at.tricky_names();
    for (primary, secondary, key) in &names {
        store.put_blocking(&id(primary, secondary, key), vec![1]).unwrap();
    }
    for (primary, secondary, _) in &names {
        let inside = names.iter().filter(|name| (name.0, name.1) == (*primary, *secondary));
        let expected = sorted(inside.map(|name| name.2.to_owned()));
        assert_eq!(sorted(keys(&store, primary, secondary)), expected, "{primary}/{secondary}");
    }
}

/// L2 An unknown namespace lists as empty.
pub fn l2_an_unknown_namespace_is_empty<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    store.put_blocking(&key("k"), vec![1]).unwrap();
    for (primary, secondary) in [("", ""), ("p", ""), ("p", "other"), ("other", "s")] {
        assert_eq!(keys(&store, primary, secondary), Vec::<String>::new());
        let page = store.page_blocking(&namespace(primary, secondary), None, 10).unwrap();
        assert_eq!((page.entries, page.next), (Vec::new(), None));
    }
    store.remove_blocking(&key("k")).unwrap();
    assert_eq!(keys(&store, "p", "s"), Vec::<String>::new());
}

/// L3 Listing while others write or remove never fails and shows every key that was there
/// throughout.
pub fn l3_listing_during_changes_shows_what_stays<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for at in 0..30_u8 {
        store.put_blocking(&key(format!("stays{at}")), vec![at]).unwrap();
    }
    let pace = Arc::new(Pace::default());
    let changer = {
        let (store, pace) = (store.clone(), Arc::clone(&pace));
        thread::spawn(move || {
            let _finish = FinishOnDrop(&pace);
            for round in 0..150_u32 {
                let passing = key(format!("passing{}", round % 7));
                store.put(&passing, vec![1]).wait().unwrap();
                store.put(&key(format!("stays{}", round % 30)), vec![2]).wait().unwrap();
                store.remove(&passing).wait().unwrap();
                pace.step();
            }
        })
    };
    let staying = |key: &&String| key.starts_with("stays");
    while !pace.is_done() {
        pace.wait_for(1);
        let listed = keys(&store, "p", "s");
        assert_eq!(listed.iter().filter(staying).count(), 30, "{listed:?}");
        let all = store.list_all_blocking().unwrap();
        let all: Vec<_> = all.iter().map(|entry| entry.id.key().to_owned()).collect();
        assert_eq!(all.iter().filter(staying).count(), 30, "{all:?}");
    }
    within_patience("the changer", move || changer.join()).unwrap();
}

/// L4 Pages go from the most recently *created* key to the oldest. An update does not move a key;
/// remove and put again makes it new, also when they meet in one group.
pub fn l4_pages_go_from_newest_to_oldest<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    for at in [3, 1, 4, 1, 5, 9, 2, 6] {
        store.put_blocking(&key(at), vec![at]).unwrap();
    }
    assert_eq!(walk(&store, 3), ["6", "2", "9", "5", "4", "1", "3"]);
    store.put_blocking(&key(3), vec![0]).unwrap();
    store.remove_blocking(&key(9)).unwrap();
    store.put_blocking(&key(9), vec![0]).unwrap();
    assert_eq!(walk(&store, 2), ["9", "6", "2", "5", "4", "1", "3"]);
    let busy = keep_busy(&control, &store);
    drop(store.remove(&key(1)));
    drop(store.put(&key(1), vec![1]));
    drop(store.put(&key("new"), vec![1]));
    drop(store.put(&key(1), vec![2]));
    let last = store.put(&key("new"), vec![2]);
    control.release();
    busy.wait().unwrap();
    last.wait().unwrap();
    assert_eq!(walk(&store, 1), ["new", "1", "busy", "9", "6", "2", "5", "4", "3"]);
}

/// The keys of `p/s` by pages of `limit`, with values and without, which must agree.
fn walk<B: Backend>(store: &Store<B>, limit: usize) -> Vec<String> {
    let names = namespace("p", "s");
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let page = store.page_blocking(&names, token.as_ref(), limit).unwrap();
        let valued = store.page_with_values_blocking(&names, token.as_ref(), limit).unwrap();
        assert!(page.entries.len() <= limit);
        assert_eq!(page.next, valued.next);
        for (entry, valued) in page.entries.iter().zip(&valued.entries) {
            assert_eq!((&entry.position, None), (&valued.position, entry.value.as_ref()));
            let value = store.get_blocking(&names.entry(entry.key())).unwrap();
            assert_eq!(valued.value, value);
        }
        found.extend(page.keys().map(ToString::to_string));
        match page.next {
            Some(next) => {
                assert_eq!(page.entries.len(), limit, "only the last page may be short");
                // As text, the way LDK hands it back.
                token = Some(next.to_string().parse::<PageToken>().unwrap());
            }
            None => return found,
        }
    }
}

/// L5 Creation order is strict, also within one millisecond and across restarts.
pub fn l5_creation_order_survives_reopening<F: Fixture>() {
    let store_at = F::new();
    let mut expected = Vec::new();
    for session in 0..3_u8 {
        let store = store_at.store();
        let names: Vec<_> = (0..40_u8).map(|at| format!("{session}-{}", at ^ 21)).collect();
        let one_batch = names[..20]
            .iter()
            .fold(store.batch(), |batch, name| batch.put(&key(name), vec![session]));
        drop(one_batch.commit());
        names[20..].iter().for_each(|name| drop(store.put(&key(name), vec![session])));
        store.batch().commit().wait().unwrap();
        // The newest entry goes: its number must not make a later one older.
        store.remove_blocking(&key(&names[39])).unwrap();
        expected.extend(names[..39].iter().cloned());
        let newest_first: Vec<_> = expected.iter().rev().cloned().collect();
        assert_eq!(walk(&store, 7), newest_first);
        if session == 1 {
            store.close_blocking().unwrap();
        }
    }
    let store = store_at.store();
    expected.reverse();
    assert_eq!(walk(&store, 50), expected);
}

/// L6 Walking all pages shows every key that existed throughout exactly once, whatever is inserted,
/// updated or removed meanwhile.
pub fn l6_walking_pages_shows_what_stays_exactly_once<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for at in 0..60_u8 {
        drop(store.put(&key(format!("key{at}")), vec![at]));
    }
    store.batch().commit().wait().unwrap();
    let (mut found, mut token) = (Vec::new(), None);
    for round in 0_u8.. {
        let page = store.page_blocking(&namespace("p", "s"), token.as_ref(), 7).unwrap();
        found.extend(page.keys().map(ToString::to_string));
        // Every third key goes or is made anew; the others are updated, and new ones come.
        let touched = key(format!("key{}", u32::from(round) * 3 % 60));
        store.remove_blocking(&touched).unwrap();
        if round % 2 == 0 {
            store.put_blocking(&touched, vec![0]).unwrap();
        }
        store.put_blocking(&key(format!("key{}", u32::from(round) * 3 + 1)), vec![0]).unwrap();
        store.put_blocking(&key(format!("new{round}")), vec![0]).unwrap();
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    let stayed = (0..60).filter(|at| at % 3 != 0).map(|at| format!("key{at}"));
    for name in stayed {
        assert_eq!(found.iter().filter(|key| **key == name).count(), 1, "{name} in {found:?}");
    }
}

/// L7 A token whose entry was removed resumes at the next older one.
pub fn l7_a_token_outlives_its_entry<F: Fixture>() {
    let store_at = F::new();
    let names = namespace("p", "s");
    let store = store_at.store();
    for at in 0..6 {
        store.put_blocking(&key(at), vec![at]).unwrap();
    }
    let first = store.page_blocking(&names, None, 2).unwrap();
    store.remove_blocking(&key(4)).unwrap();
    store.remove_blocking(&key(3)).unwrap();
    let second = store.page_blocking(&names, first.next.as_ref(), 2).unwrap();
    assert_eq!(second.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    store.remove_blocking(&key(1)).unwrap();
    drop(store);
    let store = store_at.store();
    let third = store.page_blocking(&names, second.next.as_ref(), 2).unwrap();
    assert_eq!(third.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["0"]);
}

/// L8 A malformed token, or one of another namespace, is `InvalidInput`.
pub fn l8_a_foreign_or_malformed_token_is_refused<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for at in 0..4 {
        store.put_blocking(&key(at), vec![at]).unwrap();
        store.put_blocking(&id("p", "", &at.to_string()), vec![at]).unwrap();
    }
    let token = store.page_blocking(&namespace("p", "s"), None, 2).unwrap().next.unwrap();
    let refused = store.page_blocking(&namespace("p", ""), Some(&token), 2).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let text = token.to_string();
    assert_eq!(text.parse::<PageToken>().unwrap(), token);
    let mut malformed: Vec<String> = (0..text.len()).map(|end| text[..end].to_owned()).collect();
    malformed.retain(|cut| !cut.ends_with("/2") && !cut.ends_with('2'));
    malformed.extend(
        ["x", "1:-1:p/s/k", "1:+1:p/s/k", "1:01:p/s/k", "2:1:p/s/k", "1:1:p/s/k/x"]
            .map(String::from),
    );
    malformed.extend(["1:1:/s/k", "1:1:p/s/", "1:99999999999999999999:p/s/k"].map(String::from));
    for text in malformed {
        let error = text.parse::<PageToken>().expect_err(&text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = store.page_blocking(&namespace("p", "s"), None, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// L9 A page with values comes from one engine operation, not one read per key.
pub fn l9_a_page_with_values_is_one_operation<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    let fill = (0..50_u8).fold(store.batch(), |batch, at| batch.put(&key(at), vec![at]));
    fill.commit().wait().unwrap();
    let page = store.page_with_values_blocking(&namespace("p", "s"), None, 20).unwrap();
    let expected: Vec<_> = (30..50_u8).rev().map(|at| Some(vec![at])).collect();
    assert_eq!(page.entries.into_iter().map(|entry| entry.value).collect::<Vec<_>>(), expected);
    assert_eq!(control.gets_and_pages(), (0, 1));
}

/// L11 `list_all` shows every entry of every namespace once.
pub fn l11_every_entry_is_listed_once<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let names = store_at.tricky_names();
    let fill = names.iter().enumerate().fold(store.batch(), |batch, (len, name)| {
        batch.put(&id(name.0, name.1, name.2), vec![0; len])
    });
    fill.commit().wait().unwrap();
    store.put_blocking(&id("", "", "manager"), vec![0; 100]).unwrap();
    let listed = store.list_all_blocking().unwrap();
    let ids: BTreeSet<_> = listed.iter().map(|entry| entry.id.clone()).collect();
    let expected = names.iter().map(|name| id(name.0, name.1, name.2));
    assert_eq!(ids, expected.collect());
    assert_eq!(listed.len(), names.len());
    for entry in listed {
        let value = store.get_blocking(&entry.id).unwrap().unwrap();
        assert_eq!(entry.value_len, value.len() as u64, "{}", entry.id);
    }
}
