//! What the store must hold: a checksum of each live value, and the order of creation.

use std::collections::{BTreeMap, HashMap};

use lightning_kvstore::{Batch, EntryId, Namespace};

/// One mutation, before it is submitted.
#[derive(Debug)]
pub(crate) enum Change {
    Put(EntryId, Vec<u8>),
    Remove(EntryId),
}

/// A batch of these changes.
pub(crate) fn batch(changes: Vec<Change>) -> Batch {
    changes.into_iter().fold(Batch::new(), |batch, change| match change {
        Change::Put(id, value) => batch.put(&id, value),
        Change::Remove(id) => batch.remove(&id),
    })
}

/// What is known of a live entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) len: u64,
    pub(crate) checksum: u32,
    /// Its place in the order of creation.
    pub(crate) created: u64,
    /// The submission that wrote it last.
    pub(crate) submission: u64,
}

impl Entry {
    /// Whether `value` is what was written.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        self.len == value.len() as u64 && self.checksum == crc32fast::hash(value)
    }
}

/// Every live entry, as it will be once all submissions are committed.
#[derive(Debug, Default)]
pub(crate) struct Model {
    live: HashMap<EntryId, Entry>,
    created: u64,
    submitted: u64,
}

/// Sums over the live entries.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    /// Bytes of names and values.
    pub(crate) bytes: u64,
    /// Bytes of values, each rounded up to whole blocks of a file system.
    pub(crate) blocks: u64,
    /// Bytes of the largest value.
    pub(crate) largest: u64,
}

/// Bytes of a file system's block.
const BLOCK: u64 = 4096;

impl Model {
    /// Notes the changes of one submission, in their order, and gives its number.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> u64 {
        self.submitted += 1;
        for change in changes {
            match change {
                Change::Put(id, value) => self.put(id, value),
                Change::Remove(id) => self.remove(id),
            }
        }
        self.submitted
    }

    fn put(&mut self, id: &EntryId, value: &[u8]) {
        self.created += 1;
        let created = self.live.get(id).map_or(self.created, |entry| entry.created);
        let (len, checksum) = (value.len() as u64, crc32fast::hash(value));
        let entry = Entry { len, checksum, created, submission: self.submitted };
        self.live.insert(id.clone(), entry);
    }

    pub(crate) fn remove(&mut self, id: &EntryId) {
        self.live.remove(id);
    }

    pub(crate) fn get(&self, id: &EntryId) -> Option<Entry> {
        self.live.get(id).copied()
    }

    /// The number of the last submission.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &EntryId> {
        self.live.keys()
    }

    /// The keys of each namespace, newest first.
    pub(crate) fn namespaces(&self) -> BTreeMap<Namespace, Vec<String>> {
        let mut namespaces: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, entry) in &self.live {
            namespaces.entry(id.namespace()).or_default().push((entry.created, id));
        }
        let newest_first = |mut entries: Vec<(u64, &EntryId)>| {
            entries.sort_by(|one, other| other.cmp(one));
            entries.into_iter().map(|(_, id)| id.key().to_owned()).collect()
        };
        namespaces.into_iter().map(|(name, entries)| (name, newest_first(entries))).collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (id, entry) in &self.live {
            totals.entries += 1;
            totals.bytes += id.to_string().len() as u64 + entry.len;
            totals.blocks += entry.len.next_multiple_of(BLOCK);
            totals.largest = totals.largest.max(entry.len);
        }
        totals
    }

    /// How many values are longer than `len` bytes.
    pub(crate) fn longer_than(&self, len: u64) -> u64 {
        self.live.values().filter(|entry| entry.len > len).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str) -> EntryId {
        EntryId::new("p", "s", key).unwrap()
    }

    fn put(key: &str, len: usize) -> Change {
        Change::Put(id(key), vec![7; len])
    }

    #[test]
    fn an_update_keeps_its_place_and_a_new_entry_comes_first() {
        let mut model = Model::default();
        model.apply(&[put("a", 1), put("b", 1), put("c", 1)]);
        assert_eq!(model.apply(&[put("a", 2), Change::Remove(id("b")), put("b", 1)]), 2);
        let keys = model.namespaces().into_values().next().unwrap();
        assert_eq!(keys, ["b", "c", "a"]);
        assert!(model.get(&id("a")).unwrap().matches(&[7, 7]));
    }

    #[test]
    fn totals_count_names_and_blocks() {
        let mut model = Model::default();
        model.apply(&[put("a", 1), put("b", 5000)]);
        let totals = model.totals();
        assert_eq!((totals.entries, totals.bytes), (2, 5001 + 10));
        assert_eq!((totals.blocks, totals.largest), (3 * BLOCK, 5000));
        assert_eq!(model.longer_than(1), 1);
    }
}
