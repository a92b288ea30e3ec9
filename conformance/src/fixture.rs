//! How the suite gets at a backend.

use std::path::Path;

use kvstore_core::{Backend, MemoryBackend, MemoryDisk, QueueOptions, Result, Store};

/// A private place for the stores of one test, and how to open a backend there.
///
/// Dropping it cleans up.
pub trait Fixture: Send + Sync + Sized + 'static {
    /// The backend under test.
    type Backend: Backend;

    /// Makes an empty place that no other test uses.
    fn new() -> Self;

    /// Opens the backend: the first time on an empty place, later on what the one before left.
    ///
    /// # Errors
    /// What the backend's own `open` says.
    fn open(&self) -> Result<Self::Backend>;

    /// The length in bytes of the shortest value that the backend refuses (contract V4).
    fn too_large(&self) -> usize;

    /// The directory that holds the backend's files and nothing else, for a backend on local files.
    fn directory(&self) -> Option<&Path>;

    /// Opens a store with the default options.
    fn store(&self) -> Store<Self::Backend> {
        self.store_with(QueueOptions::default())
    }

    /// Opens a store.
    fn store_with(&self, options: QueueOptions) -> Store<Self::Backend> {
        let backend = self.open().expect("the backend opens");
        Store::open_with(backend, options).expect("the store starts")
    }
}

/// The reference backend as a fixture.
#[derive(Debug)]
pub struct MemoryFixture {
    disk: MemoryDisk,
}

impl Fixture for MemoryFixture {
    type Backend = MemoryBackend;

    fn new() -> Self {
        Self { disk: MemoryDisk::new() }
    }

    fn open(&self) -> Result<MemoryBackend> {
        MemoryBackend::open(&self.disk)
    }

    fn too_large(&self) -> usize {
        MemoryDisk::MAX_VALUE_LEN + 1
    }

    fn directory(&self) -> Option<&Path> {
        None
    }
}
