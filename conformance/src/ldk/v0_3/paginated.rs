//! What only 0.3 has.

use futures_lite::future::block_on;
use kvstore_core::{MemoryBackend, Store};
use lightning_0_3::io::ErrorKind;
use lightning_0_3::util::persist::{
    KVStoreSync, PageToken, PaginatedKVStore, PaginatedKVStoreSync, migrate_kv_store_data_async,
};

use super::{assert_same, fill};
use crate::Fixture;
use crate::support::key;

/// L4, L6 Pages of 50 keys lead from the newest entry to the oldest, by either trait.
pub fn pages_of_fifty_go_from_newest_to_oldest<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for at in 0..120_u8 {
        drop(store.put(&key(at), vec![at]));
    }
    store.batch().commit().wait().unwrap();
    KVStoreSync::write(&store, "p", "s", "7", vec![0]).unwrap();
    let expected: Vec<_> = (0..120_u8).rev().map(|at| at.to_string()).collect();
    let (mut blocking, mut awaited, mut lens) = (Vec::new(), Vec::new(), Vec::new());
    let (mut token, mut async_token) = (None, None);
    loop {
        let page = PaginatedKVStoreSync::list_paginated(&store, "p", "s", token).unwrap();
        let async_page = PaginatedKVStore::list_paginated(&store, "p", "s", async_token);
        let async_page = block_on(async_page).unwrap();
        lens.push(page.keys.len());
        blocking.extend(page.keys);
        awaited.extend(async_page.keys);
        (token, async_token) = (page.next_page_token, async_page.next_page_token);
        assert_eq!(token, async_token);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(lens, [50, 50, 20]);
    assert_eq!(blocking, expected);
    assert_eq!(awaited, expected);
    let unknown = PaginatedKVStoreSync::list_paginated(&store, "no", "where", None).unwrap();
    assert!(unknown.keys.is_empty() && unknown.next_page_token.is_none());
}

/// L8 A malformed token, or one of another namespace, is `InvalidInput`.
pub fn tokens_are_checked<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    (0..60_u8).for_each(|at| drop(store.put(&key(at), vec![at])));
    store.batch().commit().wait().unwrap();
    let page = PaginatedKVStoreSync::list_paginated(&store, "p", "s", None).unwrap();
    let foreign = page.next_page_token.unwrap();
    for (secondary, token) in [("other", foreign), ("s", PageToken::new("x".into()))] {
        let error =
            PaginatedKVStoreSync::list_paginated(&store, "p", secondary, Some(token.clone()));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        let error = PaginatedKVStore::list_paginated(&store, "p", secondary, Some(token));
        assert_eq!(block_on(error).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// L5 LDK's asynchronous migration keeps the creation order too.
pub fn asynchronous_migration_moves_everything_in_creation_order<F: Fixture>() {
    let (here_at, there_at) = (F::new(), F::new());
    let (here, there) = (here_at.store(), there_at.store());
    fill(&here);
    block_on(migrate_kv_store_data_async(&here, &there)).unwrap();
    assert_same(&here, &there);
    // 0.3 takes any pointer to a store as a store.
    let memory = std::sync::Arc::new(Store::open(MemoryBackend::new()).unwrap());
    block_on(migrate_kv_store_data_async(&std::sync::Arc::new(there), &memory)).unwrap();
    assert_same(&here, &memory);
}
