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

#[cfg(any(feature = "ldk-0-2", feature = "ldk-0-3"))]
mod adapter;
#[cfg(any(feature = "ldk-0-2", feature = "ldk-0-3"))]
mod io_error;
#[cfg(feature = "ldk-0-2")]
mod v0_2;
#[cfg(feature = "ldk-0-3")]
mod v0_3;
