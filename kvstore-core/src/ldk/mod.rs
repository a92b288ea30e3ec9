//! LDK's storage traits for [`Store`](crate::Store), one module per release of `lightning`.
//!
//! | feature | release | traits |
//! |---|---|---|
//! | `ldk-0-2` (default) | `lightning` 0.2 | `KVStore`, `KVStoreSync`, `MigratableKVStore` |
//! | `ldk-0-3` | `lightning` 0.3.0-rc3 | these, `MigratableKVStoreSync`, `PaginatedKVStore`, `PaginatedKVStoreSync` |
//!
//! Both can be on at once. The traits are implemented for `Store` itself. Where LDK takes a
//! `K: Deref<Target: KVStore>`, an `Arc<Store<B>>` or a `&Store<B>` fits; 0.3 moreover implements its
//! asynchronous `KVStore` and `MigratableKVStore` for every such pointer.
//!
//! A method of both `KVStore` and `KVStoreSync` is called by the name of its trait, or with only one
//! of the traits in scope:
#![cfg_attr(feature = "ldk-0-3", doc = "```")]
#![cfg_attr(not(feature = "ldk-0-3"), doc = "```ignore")]
//! use kvstore_core::{MemoryBackend, Store};
//! # use lightning_0_3 as lightning;
//! use lightning::util::persist::{KVStore, PaginatedKVStore};
//!
//! # futures_lite::future::block_on(async {
//! let store = Store::open(MemoryBackend::new()).unwrap();
//! let first = store.write("payments", "", "a", vec![1]); // the order is fixed here,
//! let second = store.write("payments", "", "b", vec![2]); // not by what is awaited first
//! second.await?;
//! first.await?;
//! let page = PaginatedKVStore::list_paginated(&store, "payments", "", None).await?;
//! assert_eq!(page.keys, ["b", "a"]); // newest first
//! # Ok::<(), lightning::io::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Errors
//! Absence is `io::ErrorKind::NotFound`, and nothing else is. A bad name or a value that is too
//! large is `InvalidInput`, damage `InvalidData`, a full queue `WouldBlock`, a closed store
//! `NotConnected`; what else can go wrong is `Other`, with the reason as text.

#[cfg(any(feature = "ldk-0-2", feature = "ldk-0-3"))]
mod adapter;
#[cfg(any(feature = "ldk-0-2", feature = "ldk-0-3"))]
mod io_error;
#[cfg(feature = "ldk-0-2")]
mod v0_2;
#[cfg(feature = "ldk-0-3")]
mod v0_3;
