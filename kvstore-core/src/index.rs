//! Entries by name and by creation order, for engines that have no index of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use crate::{EntryId, Key, Namespace, Position};

/// An index in memory: what is known of each entry, and the creation order of each namespace.
///
/// A page costs what it holds, and a change the logarithm of what there is. Entries that share a
/// creation number are paged by rising key, as [`Position`] says.
///
/// **Limits**: some 200 bytes of memory per entry beside its key.
#[derive(Debug)]
pub struct CreationIndex<T> {
    namespaces: BTreeMap<Namespace, Names<T>>,
}

#[derive(Debug)]
struct Names<T> {
    by_key: HashMap<Key, Indexed<T>>,
    /// The newest first; those that share a creation number by rising key.
    by_creation: BTreeSet<(Reverse<u64>, Key)>,
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
        Self { namespaces: BTreeMap::new() }
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), by_creation: BTreeSet::new() }
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
        names.by_creation.insert((Reverse(created), key.clone()));
        names.by_key.insert(key, Indexed { created, about });
    }

    /// Forgets an entry, and gives what was known of it.
    pub fn remove(&mut self, id: &EntryId) -> Option<Indexed<T>> {
        let (namespace, key) = id.split();
        let names = self.namespaces.get_mut(namespace)?;
        let (key, indexed) = names.by_key.remove_entry(key)?;
        names.by_creation.remove(&(Reverse(indexed.created), key));
        if names.by_key.is_empty() {
            self.namespaces.remove(namespace);
        }
        Some(indexed)
    }

    /// The namespaces that hold entries, in order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys()
    }

    /// The namespaces after `after`, or all.
    pub fn namespaces_after(&self, after: Option<&Namespace>) -> impl Iterator<Item = &Namespace> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.namespaces.range::<Namespace, _>((start, Bound::Unbounded)).map(|(name, _)| name)
    }

    /// The namespaces that have this primary name and hold entries.
    pub fn namespaces_of(&self, primary: &str) -> impl Iterator<Item = &Namespace> {
        // `/` is in no name, so those of one primary name stand together.
        let prefix = format!("{primary}/");
        let from =
            self.namespaces.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        let from: Vec<&Namespace> =
            from.map(|(name, _)| name).take_while(|name| name.primary() == primary).collect();
        from.into_iter()
    }

    /// The entries of a namespace that come after `after`, newest first.
    pub fn after(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
    ) -> impl Iterator<Item = (&Key, &Indexed<T>)> {
        let start = match after {
            Some(after) => Bound::Excluded((Reverse(after.created), after.key.clone())),
            None => Bound::Unbounded,
        };
        let names = self.namespaces.get(namespace).into_iter();
        names.flat_map(move |names| {
            let range = names.by_creation.range((start.clone(), Bound::Unbounded));
            range.filter_map(|(_, key)| Some((key, names.by_key.get(key)?)))
        })
    }

    /// Every entry once, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &Indexed<T>)> {
        self.namespaces.iter().flat_map(|(namespace, names)| {
            names.by_key.iter().map(|(key, indexed)| (namespace.entry(key), indexed))
        })
    }
}
