//! The reference backend: entries in memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Backend, CreationIndex, EntryId, EntryInfo, Error, ErrorKind, MAX_VALUE_LEN, Mutation,
    Namespace, PageEntry, Position, Result,
};

/// A backend that keeps entries in memory, for tests and as the reference of the others.
///
/// **Durability**: none beyond the [`MemoryDisk`] it was opened on, which ends with the process.
///
/// **Limits**: values up to [`MAX_VALUE_LEN`].
#[derive(Debug)]
pub struct MemoryBackend {
    disk: MemoryDisk,
    closed: AtomicBool,
}

/// What a [`MemoryBackend`] writes to: open one after the other on it to see a restart.
///
/// Cloning gives another handle to the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<DiskState>,
}

#[derive(Default)]
struct DiskState {
    open: AtomicBool,
    entries: RwLock<Entries>,
}

#[derive(Default)]
struct Entries {
    last_created: u64,
    index: CreationIndex<Bytes>,
}

impl MemoryDisk {
    /// Creates an empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl MemoryBackend {
    /// Opens a backend on a disk of its own.
    #[must_use]
    pub fn new() -> Self {
        let disk = MemoryDisk::new();
        disk.shared.open.store(true, Ordering::SeqCst);
        Self { disk, closed: AtomicBool::new(false) }
    }

    /// Opens a backend on `disk`, with what earlier ones left there.
    ///
    /// # Errors
    /// [`AlreadyOpen`](ErrorKind::AlreadyOpen) while another backend is open on it.
    pub fn open(disk: &MemoryDisk) -> Result<Self> {
        if disk.shared.open.swap(true, Ordering::SeqCst) {
            let message = "another backend of this process is open on the same disk; close it";
            return Err(Self::error(ErrorKind::AlreadyOpen, "open", message));
        }
        Ok(Self { disk: disk.clone(), closed: AtomicBool::new(false) })
    }

    fn error(kind: ErrorKind, operation: &'static str, message: &'static str) -> Error {
        Error::new(kind, operation, message).with_backend("memory")
    }

    fn entries(&self) -> Result<&RwLock<Entries>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Self::error(ErrorKind::Closed, "use store", "the store was closed"));
        }
        Ok(&self.disk.shared.entries)
    }

    fn read<T>(&self, read: impl FnOnce(&CreationIndex<Bytes>) -> T) -> Result<T> {
        Ok(read(&self.entries()?.read().unwrap_or_else(PoisonError::into_inner).index))
    }

    fn free_disk(&self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.disk.shared.open.store(false, Ordering::SeqCst);
        }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryBackend {
    fn drop(&mut self) {
        self.free_disk();
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn blocks(&self) -> bool {
        false
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        let too_large = |m: &&Mutation| m.value().is_some_and(|v| v.len() > MAX_VALUE_LEN);
        if let Some(mutation) = mutations.iter().find(too_large) {
            let message = "memory values hold at most 1000000000 bytes; split the value";
            return Err(
                Self::error(ErrorKind::ValueTooLarge, "commit", message).with_entry(mutation.id())
            );
        }
        let mut entries = self.entries()?.write().unwrap_or_else(PoisonError::into_inner);
        mutations.iter().for_each(|mutation| entries.apply(mutation));
        Ok(())
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        self.read(|index| index.get(id).map(|entry| entry.about.to_vec()))
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        self.read(|index| {
            let entries = index.after(namespace, after).take(limit);
            let entries = entries.map(|(key, entry)| PageEntry {
                position: Position { created: entry.created, key: key.clone() },
                value: values.then(|| entry.about.to_vec()),
            });
            entries.collect()
        })
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        self.read(|index| {
            let entries = index.iter().map(|(id, entry)| EntryInfo {
                id,
                value_len: entry.about.len() as u64,
                created: entry.created,
            });
            entries.collect()
        })
    }

    async fn close(&self) -> Result<()> {
        self.free_disk();
        Ok(())
    }
}

impl Entries {
    fn apply(&mut self, mutation: &Mutation) {
        let id = mutation.id();
        let kept = self.index.get(id).map(|entry| entry.created);
        match mutation {
            Mutation::Put { value, renew, .. } => {
                let created = kept.filter(|_| !renew).unwrap_or_else(|| {
                    self.last_created += 1;
                    self.last_created
                });
                self.index.insert(id, created, value.clone());
            }
            Mutation::Remove { .. } => drop(self.index.remove(id)),
        }
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDisk")
    }
}
