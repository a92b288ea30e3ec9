//! The reference that stores are compared with.

use std::collections::HashMap;

use kvstore_core::{EntryId, Namespace};

/// What a store must hold: entries with their value and place in the creation order.
#[derive(Clone, Debug, Default)]
pub struct Model {
    entries: HashMap<EntryId, (u64, Vec<u8>)>,
    created: u64,
}

impl Model {
    /// Stores a value; a new entry becomes the newest one.
    pub fn put(&mut self, id: &EntryId, value: &[u8]) {
        self.created += 1;
        let created = self.entries.get(id).map_or(self.created, |(created, _)| *created);
        self.entries.insert(id.clone(), (created, value.to_vec()));
    }

    /// Removes an entry, if it is there.
    pub fn remove(&mut self, id: &EntryId) {
        self.entries.remove(id);
    }

    /// The value of an entry.
    #[must_use]
    pub fn get(&self, id: &EntryId) -> Option<&[u8]> {
        self.entries.get(id).map(|(_, value)| &value[..])
    }

    /// The keys of a namespace, newest first.
    #[must_use]
    pub fn keys(&self, namespace: &Namespace) -> Vec<String> {
        let inside = self.entries.iter().filter(|(id, _)| id.is_in(namespace));
        let mut keys: Vec<_> = inside.map(|(id, (created, _))| (*created, id.key())).collect();
        keys.sort_unstable();
        keys.into_iter().rev().map(|(_, key)| key.to_owned()).collect()
    }

    /// Every entry with the length of its value, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<(EntryId, u64)> {
        let entries = self.entries.iter();
        let mut all: Vec<_> =
            entries.map(|(id, (_, value))| (id.clone(), value.len() as u64)).collect();
        all.sort();
        all
    }
}
