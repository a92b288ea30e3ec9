//! Where the directory is, and how to open it.

use std::path::PathBuf;

use crate::Layout;

/// Where a store of files is and how to open it.
///
/// ```
/// use kvstore_fs::{FsOptions, Layout};
///
/// let options = FsOptions::new("fs_store").layout(Layout::V1).create(false);
/// assert_eq!(options.journal_bytes, 16 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsOptions {
    /// The store's directory. It is created with its missing parents.
    pub path: PathBuf,
    /// The layout of the directory. By default it is found by what is there, and a new store gets
    /// [`Layout::V2`].
    pub layout: Option<Layout>,
    /// Whether to create the directory if it is missing; `true` by default.
    pub create: bool,
    /// Bytes of the journal, 16 MiB by default and at least 32 KiB. It bounds what a recovery reads
    /// and what waits to be checkpointed. A journal that a crash left keeps its size until the next
    /// clean close.
    pub journal_bytes: u64,
    /// Bytes of values that are kept in memory until they are checkpointed, 16 MiB by default. A
    /// commit waits while there are more; 0 checkpoints after every group.
    pub pending_bytes: usize,
    /// Values of so many bytes or more are written to a spool file before the journal names them,
    /// 256 KiB by default.
    pub large_value_bytes: usize,
    /// Bytes of spool files, 64 MiB by default. A commit waits while there are more, unless its
    /// own values alone are more than that.
    pub spool_bytes: u64,
}

impl FsOptions {
    /// The default options for the directory at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            layout: None,
            create: true,
            journal_bytes: 16 << 20,
            pending_bytes: 16 << 20,
            large_value_bytes: 256 << 10,
            spool_bytes: 64 << 20,
        }
    }

    /// Sets [`layout`](Self::layout).
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`journal_bytes`](Self::journal_bytes).
    #[must_use]
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        self.journal_bytes = bytes;
        self
    }

    /// Sets [`pending_bytes`](Self::pending_bytes).
    #[must_use]
    pub fn pending_bytes(mut self, bytes: usize) -> Self {
        self.pending_bytes = bytes;
        self
    }

    /// Sets [`large_value_bytes`](Self::large_value_bytes).
    #[must_use]
    pub fn large_value_bytes(mut self, bytes: usize) -> Self {
        self.large_value_bytes = bytes;
        self
    }

    /// Sets [`spool_bytes`](Self::spool_bytes).
    #[must_use]
    pub fn spool_bytes(mut self, bytes: u64) -> Self {
        self.spool_bytes = bytes;
        self
    }
}
