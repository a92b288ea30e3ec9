//! sled as its documentation has it used: an insert or a remove, then `flush`.

use std::path::Path;

use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Key, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};

/// Creation number and value by name; it scans where it lists, since it is there to be crashed.
pub(crate) struct BareSled(sled::Db);

impl BareSled {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        sled::open(directory.join("store")).map(Self).map_err(failed)
    }

    fn entries(&self) -> Result<Vec<(EntryId, u64, Vec<u8>)>> {
        let entries = self.0.iter().map(|entry| {
            let (name, stored) = entry.map_err(failed)?;
            let name = String::from_utf8(name.to_vec()).unwrap();
            let names: Vec<_> = name.split('/').collect();
            let (created, value) = stored.split_first_chunk().unwrap();
            let id = EntryId::new(names[0], names[1], names[2])?;
            Ok((id, u64::from_be_bytes(*created), value.to_vec()))
        });
        entries.collect()
    }

    fn apply(&self, mutation: &Mutation) -> Result<()> {
        let id = mutation.id();
        let entries = self.entries()?;
        match mutation {
            Mutation::Remove { .. } => self.0.remove(id.to_string()),
            Mutation::Put { value, renew, .. } => {
                let kept = entries.iter().find(|(other, ..)| other == id && !renew);
                let next = entries.iter().map(|(_, created, _)| created + 1).max().unwrap_or(1);
                let created = kept.map_or(next, |(_, created, _)| *created);
                let stored = [&created.to_be_bytes()[..], value].concat();
                self.0.insert(id.to_string(), stored)
            }
        }
        .and_then(|_| self.0.flush())
        .map_err(failed)?;
        Ok(())
    }
}

fn failed(error: sled::Error) -> Error {
    Error::new(ErrorKind::Io, "use sled", error.to_string())
}

#[async_trait]
impl Backend for BareSled {
    fn name(&self) -> &'static str {
        "bare sled"
    }

    fn blocks(&self) -> bool {
        true
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        mutations.iter().try_for_each(|mutation| self.apply(mutation))
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        let found = self.0.get(id.to_string()).map_err(failed)?;
        Ok(found.map(|stored| stored[8..].to_vec()))
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let mut entries = self.entries()?;
        entries.retain(|(id, created, _)| {
            id.is_in(namespace) && after.is_none_or(|after| *created < after.created)
        });
        entries.sort_by_key(|(_, created, _)| std::cmp::Reverse(*created));
        let page = entries.into_iter().take(limit).map(|(id, created, value)| {
            let position = Position { created, key: Key::new(id.key())? };
            Ok(PageEntry { position, value: values.then_some(value) })
        });
        page.collect()
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let entries = self.entries()?.into_iter().map(|(id, created, value)| EntryInfo {
            id,
            value_len: value.len() as u64,
            created,
        });
        Ok(entries.collect())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
