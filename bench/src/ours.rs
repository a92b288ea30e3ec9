//! This project's stores.

use std::sync::Arc;

use lightning_kvstore::{Batch, DynStore, EntryId, Key, Namespace, open, open_async};

use crate::contestants::{Contestant, entry};
use crate::{Answer, Done};

/// This project's store, opened by URL.
pub struct Ours(DynStore);

impl Ours {
    /// Opens a new store and writes once, which makes the journal that later writes use again.
    pub fn create(url: &str) -> Answer<Self> {
        let store = open(url)?;
        store.put_blocking(&EntryId::new("bench", "", "first")?, vec![1])?;
        Ok(Self(store))
    }

    pub fn sync(&self) -> impl FnMut(usize, Vec<u8>) -> Done {
        move |at, value| Ok(self.0.put_blocking(&entry(at)?, value)?)
    }

    pub fn remove_lazily_sync(&self, id: &EntryId) -> Done {
        Ok(self.0.remove_lazy(id)?)
    }

    /// Waits until the lazy removes are on the disk.
    pub fn settle(&self) -> Done {
        Ok(self.0.batch().commit_blocking()?)
    }
}

impl Contestant for Ours {
    const PACE: usize = 8;

    async fn open(location: &str) -> Answer<Self> {
        Ok(Self(open_async(location).await?))
    }

    async fn write(&self, id: &EntryId, value: Vec<u8>) -> Done {
        Ok(self.0.put(id, value).await?)
    }

    async fn read(&self, id: &EntryId) -> Answer<Vec<u8>> {
        Ok(self.0.get(id).await?.ok_or("an entry is missing")?)
    }

    async fn remove_lazily(&self, id: &EntryId) -> Done {
        Ok(self.0.remove_lazy(id)?)
    }

    async fn list(&self, namespace: &Namespace) -> Answer<Vec<String>> {
        let keys = self.0.list(namespace).await?;
        Ok(keys.iter().map(Key::to_string).collect())
    }

    async fn read_all(&self, namespace: &Namespace) -> Answer<usize> {
        Ok(self.0.page_with_values(namespace, None, usize::MAX).await?.entries.len())
    }

    /// In batches that a journal holds.
    async fn fill(self: &Arc<Self>, entries: Vec<(EntryId, usize)>) -> Done {
        for some in entries.chunks(256) {
            let batch = Batch::new();
            let batch = some.iter().fold(batch, |batch, (id, len)| batch.put(id, vec![1; *len]));
            self.0.submit(batch).await?;
        }
        Ok(())
    }
}
