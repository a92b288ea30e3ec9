//! What the writer, the readers and the checkpoint have in common.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kvstore_core::local::Directory;
use kvstore_core::{Error, ErrorKind, Result};

use crate::checkpoint_state::CheckpointState;
use crate::error::error;
use crate::layout::Layout;
use crate::namespaces::NamespaceDirectories;
use crate::options::FsOptions;
use crate::spool::SpoolDirectory;
use crate::state::State;

/// One open store.
pub(crate) struct Shared {
    /// The store's directory. Everything is done below it, wherever its path leads meanwhile.
    pub(crate) root: Directory,
    pub(crate) layout: Layout,
    pub(crate) options: FsOptions,
    /// Paths that no entry's file can have, since something else is there.
    pub(crate) taken: HashSet<PathBuf>,
    pub(crate) directories: Mutex<NamespaceDirectories>,
    /// The unit of creation numbers in milliseconds: what the file system keeps of a file's time.
    pub(crate) time_unit: u64,
    pub(crate) spool: SpoolDirectory,
    pub(crate) state: RwLock<State>,
    pub(crate) checkpoint: CheckpointState,
}

impl Shared {
    /// The state for reading, unless the store was closed.
    pub(crate) fn read_state(&self) -> Result<RwLockReadGuard<'_, State>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(closed()) } else { Ok(state) }
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn closed() -> Error {
    error(ErrorKind::Closed, "use store", "the store was closed")
}
