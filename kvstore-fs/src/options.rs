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
    /// Bytes of the journal, 16 MiB by default and at least 32 KiB. It bounds what is to be put in
    /// place, and so the time that a recovery takes.
    pub journal_bytes: u64,
    /// Bytes of values that are kept in memory until their files are in place, 16 MiB by default.
    /// When there are more, they are put in place although the journal has room; 0 does so after
    /// every group.
    pub pending_bytes: usize,
    /// Values of so many bytes or more go to a file of their own before the journal names them,
    /// 256 KiB by default.
    pub large_value_bytes: usize,
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
}
