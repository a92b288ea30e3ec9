//! The reference backend: entries in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Key, Mutation, Namespace, PageEntry, Position,
    Result,
};

/// A backend that keeps entries in memory, for tests and as the reference of the others.
///
/// **Durability**: none beyond the [`MemoryDisk`] it was opened on, which ends with the process.
///
/// **Limits**: values up to [`MemoryDisk::MAX_VALUE_LEN`].
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
    spaces: RwLock<Spaces>,
}

#[derive(Default)]
struct Spaces {
    last_created: u64,
    by_namespace: HashMap<Namespace, Space>,
}

#[derive(Default)]
struct Space {
    by_key: HashMap<Key, (u64, Bytes)>,
    by_creation: BTreeMap<u64, Key>,
}

impl MemoryDisk {
    /// The longest value in bytes: what SQLite allows by default, so that tests in memory meet the
    /// same bound.
    pub const MAX_VALUE_LEN: usize = 1_000_000_000;

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

    fn spaces(&self) -> Result<&RwLock<Spaces>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Self::error(ErrorKind::Closed, "use store", "the store was closed"));
        }
        Ok(&self.disk.shared.spaces)
    }

    fn read<T>(&self, read: impl FnOnce(&Spaces) -> T) -> Result<T> {
        Ok(read(&self.spaces()?.read().unwrap_or_else(PoisonError::into_inner)))
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
        let too_large =
            |m: &&Mutation| m.value().is_some_and(|v| v.len() > MemoryDisk::MAX_VALUE_LEN);
        if let Some(mutation) = mutations.iter().find(too_large) {
            let message = "memory values hold at most 1000000000 bytes; split the value";
            return Err(
                Self::error(ErrorKind::ValueTooLarge, "commit", message).with_entry(mutation.id())
            );
        }
        let mut spaces = self.spaces()?.write().unwrap_or_else(PoisonError::into_inner);
        mutations.iter().for_each(|mutation| spaces.apply(mutation));
        Ok(())
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        self.read(|spaces| {
            let space = spaces.by_namespace.get(&id.namespace())?;
            space.by_key.get(&id.to_key()).map(|(_, value)| value.to_vec())
        })
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        self.read(|spaces| match spaces.by_namespace.get(namespace) {
            Some(space) => space.page(after, limit, values),
            None => Vec::new(),
        })
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        self.read(|spaces| {
            let entries = spaces.by_namespace.iter().flat_map(|(namespace, space)| {
                space.by_key.iter().map(|(key, (created, value))| EntryInfo {
                    id: namespace.entry(key),
                    value_len: value.len() as u64,
                    created: *created,
                })
            });
            entries.collect()
        })
    }

    async fn close(&self) -> Result<()> {
        self.free_disk();
        Ok(())
    }
}

impl Spaces {
    fn apply(&mut self, mutation: &Mutation) {
        let id = mutation.id();
        let (namespace, key) = (id.namespace(), id.to_key());
        let space = self.by_namespace.entry(namespace).or_default();
        match mutation {
            Mutation::Put { value, renew, .. } => {
                let kept = space.by_key.get(&key).map(|(created, _)| *created);
                if *renew {
                    space.forget(&key);
                }
                let created = kept.filter(|_| !renew).unwrap_or_else(|| {
                    self.last_created += 1;
                    self.last_created
                });
                space.by_creation.insert(created, key.clone());
                space.by_key.insert(key, (created, value.clone()));
            }
            Mutation::Remove { .. } => space.forget(&key),
        }
    }
}

impl Space {
    fn forget(&mut self, key: &Key) {
        if let Some((created, _)) = self.by_key.remove(key) {
            self.by_creation.remove(&created);
        }
    }

    fn page(&self, after: Option<&Position>, limit: usize, values: bool) -> Vec<PageEntry> {
        let end = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.created));
        let newest_first = self.by_creation.range((Bound::Unbounded, end)).rev();
        let entry = |(created, key): (&u64, &Key)| PageEntry {
            position: Position { created: *created, key: key.clone() },
            value: self.by_key.get(key).filter(|_| values).map(|(_, value)| value.to_vec()),
        };
        newest_first.take(limit).map(entry).collect()
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDisk")
    }
}
