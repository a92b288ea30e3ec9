//! Entries by name and by creation order, for engines that have no index of their own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::{EntryId, Key, Namespace, Position};

/// An index in memory: what is known of each entry, and the creation order of each namespace.
///
/// A page costs what it holds. Entries that share a creation number are paged by rising key, as
/// [`Position`] says.
#[derive(Debug)]
pub struct CreationIndex<T> {
    namespaces: HashMap<Namespace, Names<T>>,
}

#[derive(Debug)]
struct Names<T> {
    by_key: HashMap<Key, Indexed<T>>,
    /// Keys by creation number; those that share one stand by rising key.
    by_creation: BTreeMap<u64, Vec<Key>>,
}

/// What the index knows of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed<T> {
    /// The entry's creation number.
    pub created: u64,
    /// What the engine keeps with it.
    pub about: T,
}

impl<T> Default for CreationIndex<T> {
    fn default() -> Self {
        Self { namespaces: HashMap::new() }
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), by_creation: BTreeMap::new() }
    }
}

impl<T> CreationIndex<T> {
    /// Looks an entry up.
    #[must_use]
    pub fn get(&self, id: &EntryId) -> Option<&Indexed<T>> {
        let (namespace, key) = id.split();
        self.namespaces.get(namespace)?.by_key.get(key)
    }

    /// Adds an entry or replaces what is known of it; `created` decides its place.
    pub fn insert(&mut self, id: &EntryId, created: u64, about: T) {
        let (namespace, key) = id.split();
        let names = self.namespaces.get_mut(namespace);
        let known = names.and_then(|names| names.by_key.get_mut(key));
        if let Some(known) = known.filter(|known| known.created == created) {
            known.about = about;
            return;
        }
        self.remove(id);
        let names = self.namespaces.entry(id.namespace()).or_default();
        let key = id.to_key();
        let sharing = names.by_creation.entry(created).or_default();
        let place = sharing.partition_point(|other| *other < key);
        sharing.insert(place, key.clone());
        names.by_key.insert(key, Indexed { created, about });
    }

    /// Forgets an entry, and gives what was known of it.
    pub fn remove(&mut self, id: &EntryId) -> Option<Indexed<T>> {
        let (namespace, key) = id.split();
        let names = self.namespaces.get_mut(namespace)?;
        let indexed = names.by_key.remove(key)?;
        if let Some(sharing) = names.by_creation.get_mut(&indexed.created) {
            sharing.retain(|other| other.as_str() != key);
            if sharing.is_empty() {
                names.by_creation.remove(&indexed.created);
            }
        }
        if names.by_key.is_empty() {
            self.namespaces.remove(namespace);
        }
        Some(indexed)
    }

    /// The namespaces that hold entries, in any order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys()
    }

    /// The entries of a namespace that come after `after`, newest first.
    pub fn after(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
    ) -> impl Iterator<Item = (&Key, &Indexed<T>)> {
        let names = self.namespaces.get(namespace);
        let end = after.map_or(Bound::Unbounded, |after| Bound::Included(after.created));
        let numbers = names
            .into_iter()
            .flat_map(move |names| names.by_creation.range((Bound::Unbounded, end)).rev());
        let after = after.cloned();
        let keys = numbers.flat_map(|(created, keys)| keys.iter().map(move |key| (*created, key)));
        let keys = keys.filter(move |(created, key)| match &after {
            Some(after) => *created < after.created || **key > after.key,
            None => true,
        });
        keys.filter_map(move |(_, key)| Some((key, names?.by_key.get(key)?)))
    }

    /// Every entry once, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &Indexed<T>)> {
        self.namespaces.iter().flat_map(|(namespace, names)| {
            names.by_key.iter().map(|(key, indexed)| (namespace.entry(key), indexed))
        })
    }
}
