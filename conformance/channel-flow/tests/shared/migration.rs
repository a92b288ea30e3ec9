//! LDK's migration from store to store.

use std::collections::BTreeMap;

use channel_flow::{Site, backends};
use lightning_kvstore::{DynStore, EntryId, Namespace};

use crate::lightning::util::persist::migrate_kv_store_data;

/// The keys and values of every namespace, newest first.
type Snapshot = BTreeMap<Namespace, Vec<(String, Vec<u8>)>>;

const NAMESPACES: &[(&str, &str)] =
    &[("", ""), ("monitors", ""), ("monitor_updates", "one"), ("monitor_updates", "two")];

/// Puts entries into several namespaces by turns, with keys whose alphabet is not their age.
pub(crate) fn fill(store: &DynStore) {
    let id = |namespace: &(&str, &str), number: u32| {
        let (primary, secondary) = namespace;
        EntryId::new(primary, secondary, &format!("{:02}_{number}", number * 7 % 30)).unwrap()
    };
    let put = |namespace, number, value| {
        store.put_blocking(&id(namespace, number), value).unwrap();
    };
    for number in 0..30 {
        for namespace in NAMESPACES {
            put(namespace, number, vec![number as u8; number as usize]);
        }
    }
    for namespace in NAMESPACES {
        // An update keeps its place, a new start gets a new one, and a removed entry has none.
        put(namespace, 3, vec![0xA5; 100_000]);
        store.remove_blocking(&id(namespace, 5)).unwrap();
        put(namespace, 5, vec![0x5A]);
        store.remove_lazy(&id(namespace, 7)).unwrap();
    }
}

/// Reads all pages of all namespaces.
pub(crate) fn snapshot(store: &DynStore) -> Snapshot {
    let mut found = Snapshot::new();
    for entry in store.list_all_blocking().unwrap() {
        found.entry(entry.id.namespace()).or_default();
    }
    for (namespace, entries) in &mut found {
        let mut token = None;
        loop {
            let page = store.page_with_values_blocking(namespace, token.as_ref(), 7).unwrap();
            let value = |value: Option<Vec<u8>>| value.expect("asked for values");
            entries.extend(page.entries.into_iter().map(|e| (e.key().to_string(), value(e.value))));
            token = page.next;
            if token.is_none() {
                break;
            }
        }
    }
    found
}

/// From every backend to every other and back.
#[test]
fn migration_moves_everything_in_creation_order() {
    let backends = backends();
    for (near, far) in backends.iter().flat_map(|near| backends.iter().map(move |far| (near, far)))
    {
        let sites = [near, far, near].map(|backend| Site::new(backend).unwrap());
        let [mut source, mut middle, mut target] = sites.each_ref().map(|s| s.open().unwrap());
        fill(&source);
        let filled = snapshot(&source);
        assert_eq!(filled.len(), NAMESPACES.len());
        for entries in filled.values() {
            assert_eq!(entries.len(), 29);
            assert_eq!(entries[0].0, "05_5");
            assert_eq!(entries[28].0, "00_0");
        }
        migrate_kv_store_data(&mut source, &mut middle).unwrap();
        middle = sites[1].reopen(middle).unwrap();
        assert_eq!(snapshot(&middle), filled, "{} to {}", near.0, far.0);
        migrate_kv_store_data(&mut middle, &mut target).unwrap();
        target = sites[2].reopen(target).unwrap();
        assert_eq!(snapshot(&target), filled, "{} to {}", far.0, near.0);
    }
}
