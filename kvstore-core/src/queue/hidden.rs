//! Entries whose lazy remove waits for the disk: readers see them as gone (contract D3).

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::{EntryId, Key, Namespace};

/// Which entries are hidden, each by the sequence number of its newest lazy remove.
///
/// A reader asks here *before* it asks the backend: an entry that is revealed in between was
/// settled by a commit, which the backend's later answer includes.
#[derive(Default)]
pub(crate) struct Hidden {
    /// Reads take no lock while nothing is hidden.
    count: AtomicUsize,
    entries: RwLock<HashMap<EntryId, u64>>,
}

impl Hidden {
    pub(super) fn hide(&self, id: &EntryId, sequence: u64) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(id.clone(), sequence);
        self.count.store(entries.len(), Ordering::Release);
    }

    /// Ends the hiding of an entry unless it was hidden again after `sequence`.
    pub(super) fn reveal(&self, id: &EntryId, sequence: u64) {
        if self.is_empty() {
            return;
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.get(id).is_some_and(|hidden| *hidden <= sequence) {
            entries.remove(id);
        }
        self.count.store(entries.len(), Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(crate) fn contains(&self, id: &EntryId) -> bool {
        !self.is_empty()
            && self.entries.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    pub(crate) fn keys_of(&self, namespace: &Namespace) -> HashSet<Key> {
        self.ids().into_iter().filter(|id| id.is_in(namespace)).map(|id| id.to_key()).collect()
    }

    pub(crate) fn ids(&self) -> HashSet<EntryId> {
        if self.is_empty() {
            return HashSet::new();
        }
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.keys().cloned().collect()
    }
}
