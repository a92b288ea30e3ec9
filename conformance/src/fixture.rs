//! How the suite gets at a backend.

use std::path::Path;

use crate::strategies::TRICKY_NAMES;
use kvstore_core::{
    Backend, MAX_VALUE_LEN, MemoryBackend, MemoryDisk, QueueOptions, Result, Store,
};

/// A private place for the stores of one test, and how to open a backend there.
///
/// Dropping it cleans up.
pub trait Fixture: Send + Sync + Sized + 'static {
    /// The backend under test.
    type Backend: Backend;

    /// Whether there is what the backend needs, such as a server. If not, the implementation says on
    /// standard error what to install, and the tests are skipped.
    fn is_available() -> bool {
        true
    }

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

    /// How many bytes of [`directory`](Self::directory) may be taken on the disk beyond the values,
    /// journals, logs and space to be used again included (contract G2).
    fn overhead_bytes(&self) -> u64 {
        64 << 20
    }

    /// Opens the backend where its directory was moved to; `None` if that cannot be done.
    ///
    /// `path` is what became of [`directory`](Self::directory) (contract G5).
    fn open_at(&self, path: &Path) -> Option<Result<Self::Backend>> {
        let _ = path;
        None
    }

    /// Whether a key may have the name of a namespace (contract N6). Only LDK's first directory
    /// layout cannot hold that; there it must be a clear error that changes nothing.
    fn keys_may_be_namespaces(&self) -> bool {
        true
    }

    /// Names that are easy to mix up, as far as the backend can hold them together.
    fn tricky_names(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let conflicts = |name: &(&str, &str, &str)| match *name {
            ("", "", key) => TRICKY_NAMES.iter().any(|other| other.0 == key),
            (primary, "", key) => {
                TRICKY_NAMES.iter().any(|other| (other.0, other.1) == (primary, key))
            }
            _ => false,
        };
        let names = TRICKY_NAMES.iter().copied();
        names.filter(|name| self.keys_may_be_namespaces() || !conflicts(name)).collect()
    }

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
        MAX_VALUE_LEN + 1
    }

    fn directory(&self) -> Option<&Path> {
        None
    }
}
