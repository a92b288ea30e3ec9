//! Where the store is, and how to open it.

use std::path::PathBuf;

/// Where a sled store is and how to open it.
///
/// ```
/// use kvstore_sled::SledOptions;
///
/// let options = SledOptions::new("node.sled").cache_bytes(8 << 20).create(false);
/// assert_eq!(options.cache_bytes, 8 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SledOptions {
    /// The store's directory. It and missing ones on the way to it are created.
    pub path: PathBuf,
    /// Whether to create the store if it is missing; `true` by default.
    pub create: bool,
    /// How many bytes of pages sled keeps in memory, about: 64 MiB by default and at least 64 KiB.
    /// It reads the others from the disk when they are asked for.
    pub cache_bytes: u64,
}

impl SledOptions {
    /// The default options for the store in the directory `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), create: true, cache_bytes: 64 << 20 }
    }

    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }
}
