//! Files that are mapped for writing, as SQLite's index of its log is.
//!
//! The system would take what is written there to the file system whenever it likes, and waits for
//! that in calls such as `munmap`, in which no other thread of the process can map memory: since the
//! file system is served by a thread of the same process, nothing would go on. So these files are
//! opened through to others in memory, and a crash leaves them empty.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::BackingId;

use super::tree::Number;

/// Whether a file of this name is mapped for writing.
///
/// **Source**: <https://sqlite.org/walformat.html>.
pub(super) fn is_name(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(b"-shm")
}

/// The files behind those of a file system.
#[derive(Default)]
pub(super) struct SharedMemory(Mutex<HashMap<Number, (File, Arc<BackingId>)>>);

impl SharedMemory {
    fn lock(&self) -> MutexGuard<'_, HashMap<Number, (File, Arc<BackingId>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file behind a node, made when it is first asked for.
    pub(super) fn backing(
        &self,
        number: Number,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> io::Result<Arc<BackingId>> {
        let mut files = self.lock();
        if let Some((_, id)) = files.get(&number) {
            return Ok(Arc::clone(id));
        }
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())?;
        let id = Arc::new(register(&file)?);
        files.insert(number, (file, Arc::clone(&id)));
        Ok(id)
    }

    /// The length in bytes of the file behind a node, if there is one.
    pub(super) fn len(&self, number: Number) -> Option<u64> {
        let files = self.lock();
        Some(files.get(&number)?.0.metadata().ok()?.len())
    }

    /// Resizes the file behind a node; says whether there is one.
    pub(super) fn resize(&self, number: Number, len: u64) -> bool {
        let files = self.lock();
        files.get(&number).is_some_and(|(file, _)| file.set_len(len).is_ok())
    }
}
