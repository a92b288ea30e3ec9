#![doc = include_str!("../README.md")]

mod open;
mod url;

pub use kvstore_core::{
    Backend, Batch, Bytes, DynStore, EntryId, EntryInfo, Error, ErrorKind, Key, MAX_VALUE_LEN,
    MemoryBackend, MemoryDisk, Mutation, NAME_ALPHABET, NAME_MAX_LEN, Namespace, Page, PageEntry,
    PageToken, Position, QueueOptions, Result, Store, StoreBatch, Ticket, async_trait, ldk, local,
};
#[cfg(feature = "fs")]
pub use kvstore_fs::{FsBackend, FsOptions, Layout};
#[cfg(feature = "postgres")]
pub use kvstore_postgres::{
    PostgresBackend, PostgresOptions, RootCertificates, ServerInfo, SynchronousCommit, TlsMode,
    Wait,
};
#[cfg(feature = "sled")]
pub use kvstore_sled::{SledBackend, SledOptions};
#[cfg(feature = "sqlite")]
pub use kvstore_sqlite::{SqliteBackend, SqliteOptions};
pub use open::{OpenOptions, open, open_async, open_backend, open_with};
pub use url::StoreUrl;

/// The examples of the repository's README compile.
#[cfg(all(doctest, feature = "sqlite", feature = "ldk-0-2"))]
#[doc = include_str!("../../README.md")]
mod readme {}
