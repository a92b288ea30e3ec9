//! A copy of everything in a store, for controls that must leave the store itself alone.

use lightning_kvstore::{Backend, Batch, DynStore, EntryId, MemoryBackend, Store};

use crate::failure::{Context, Result};

/// The entries of a store at one moment, in creation order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<(EntryId, Vec<u8>)>,
}

impl Snapshot {
    pub(crate) fn of(store: &DynStore) -> Result<Self> {
        let mut infos = store.list_all_blocking().context("list the store")?;
        infos.sort_by_key(|info| info.created);
        let mut entries = Vec::with_capacity(infos.len());
        for info in infos {
            let value = store.get_blocking(&info.id).context("read an entry")?;
            entries.extend(value.map(|value| (info.id, value)));
        }
        Ok(Self { entries })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, value)| value.len()).sum()
    }

    /// A store in memory that holds the copy.
    pub(crate) fn to_store(&self) -> Result<DynStore> {
        let backend: Box<dyn Backend> = Box::new(MemoryBackend::new());
        let store = Store::open(backend).context("open a store in memory")?;
        let put = |batch: Batch, (id, value): &(EntryId, Vec<u8>)| batch.put(id, value.clone());
        let batch = self.entries.iter().fold(Batch::new(), put);
        store.commit_blocking(batch).context("fill a store in memory")?;
        Ok(store)
    }
}
