//! What the store holds, as readers see it: the index, and the dirty entries, whose files do not
//! show yet what the journal says.

use std::collections::{HashMap, HashSet};

use kvstore_core::{CreationIndex, EntryId, Namespace};

use crate::layout::{Layout, NamespaceConflict};
use crate::record::{Change, NewState, Spooled, Value};

#[derive(Default)]
pub(crate) struct State {
    /// Every entry with the length of its value.
    pub(crate) index: CreationIndex<u64>,
    /// Entries that are to be checkpointed.
    pub(crate) dirty: HashMap<EntryId, DirtyEntry>,
    /// Bytes of the values in `dirty` that are kept in memory.
    pub(crate) dirty_bytes: usize,
    /// Spool files that something refers to.
    spool: HashMap<u64, SpoolFile>,
    /// Spool files that nothing refers to, with their bytes: they can be removed.
    obsolete: Vec<(u64, u64)>,
    /// Bytes of all spool files on the disk.
    pub(crate) spool_bytes: u64,
    pub(crate) closed: bool,
}

/// The newest change of an entry that is not checkpointed.
#[derive(Clone)]
pub(crate) struct DirtyEntry {
    pub(crate) sequence: u64,
    pub(crate) new: NewState,
}

impl DirtyEntry {
    /// Bytes that its checkpoint writes at most.
    pub(crate) fn bytes_to_write(&self) -> u64 {
        match &self.new {
            NewState::Removed => 0,
            // The file itself gets the entry's name.
            NewState::Value { value: Value::Spooled(Spooled { offset: 0, .. }), .. } => 0,
            NewState::Value { value, .. } => value.len(),
        }
    }
}

/// Who needs a spool file.
#[derive(Default)]
struct SpoolFile {
    bytes: u64,
    /// How many dirty entries have their value in it.
    values: usize,
    /// It is the payload of the record with this sequence number, which a recovery reads until the
    /// record is checkpointed.
    record: Option<u64>,
}

impl State {
    /// Shows a change that is durable.
    pub(crate) fn apply(&mut self, sequence: u64, change: Change) {
        let Change { id, new } = change;
        let known = self.dirty.get(&id).map(|dirty| &dirty.new);
        if new == NewState::Removed && known == Some(&NewState::Removed) {
            // Keep the earlier sequence number: a later entry may need this path to be free.
            return;
        }
        match &new {
            NewState::Removed => drop(self.index.remove(&id)),
            NewState::Value { created, value } => self.index.insert(&id, *created, value.len()),
        }
        self.dirty_bytes += new.bytes_in_memory();
        if let Some(spooled) = new.spooled() {
            self.spool.entry(spooled.number).or_default().values += 1;
        }
        if let Some(superseded) = self.dirty.insert(id, DirtyEntry { sequence, new }) {
            self.release(&superseded.new);
        }
    }

    /// Forgets an entry that is checkpointed, unless it was changed again meanwhile.
    pub(crate) fn checkpointed(&mut self, id: &EntryId, sequence: u64) {
        if self.dirty.get(id).is_none_or(|dirty| dirty.sequence != sequence) {
            return;
        }
        if let Some(dirty) = self.dirty.remove(id) {
            self.release(&dirty.new);
        }
    }

    fn release(&mut self, new: &NewState) {
        self.dirty_bytes -= new.bytes_in_memory();
        let Some(spooled) = new.spooled() else { return };
        if let Some(file) = self.spool.get_mut(&spooled.number) {
            file.values -= 1;
            self.collect_if_unused(spooled.number);
        }
    }

    /// Counts a spool file that is one value, before the change that names it is applied.
    pub(crate) fn add_spool_file(&mut self, spooled: &Spooled) {
        self.spool.entry(spooled.number).or_default().bytes = spooled.len;
        self.spool_bytes += spooled.len;
    }

    /// Counts a spool file that is a whole record, after the record's changes were applied.
    pub(crate) fn add_spooled_record(&mut self, spooled: &Spooled, sequence: u64) {
        let file = self.spool.entry(spooled.number).or_default();
        (file.bytes, file.record) = (spooled.len, Some(sequence));
        self.spool_bytes += spooled.len;
    }

    /// Lets go of the payloads of records up to `sequence`.
    pub(crate) fn release_records(&mut self, sequence: u64) {
        let done = |file: &mut SpoolFile| file.record.take_if(|record| *record <= sequence);
        let released: Vec<u64> = self
            .spool
            .iter_mut()
            .filter_map(|(number, file)| done(file).map(|_| *number))
            .collect();
        released.into_iter().for_each(|number| self.collect_if_unused(number));
    }

    fn collect_if_unused(&mut self, number: u64) {
        let unused = |file: &SpoolFile| file.values == 0 && file.record.is_none();
        if self.spool.get(&number).is_some_and(unused)
            && let Some(file) = self.spool.remove(&number)
        {
            self.obsolete.push((number, file.bytes));
        }
    }

    /// Takes the spool files that nothing refers to, with their bytes.
    pub(crate) fn take_obsolete(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.obsolete)
    }

    pub(crate) fn has_obsolete(&self) -> bool {
        !self.obsolete.is_empty()
    }

    /// Counts the bytes of removed spool files, and takes back those that could not be removed.
    pub(crate) fn removed_spool_files(&mut self, bytes: u64, kept: Vec<(u64, u64)>) {
        self.spool_bytes -= bytes;
        self.obsolete.extend(kept);
    }

    /// Whether a recovery needs a spool file.
    pub(crate) fn needs_spool_file(&self, number: u64) -> bool {
        self.spool.contains_key(&number)
    }

    /// The first of these puts that the layout cannot hold, and the entry that is in the way once
    /// all of them were made (contract N6). Costs what the changes hold, not what the store holds.
    pub(crate) fn conflict(
        &self,
        layout: Layout,
        changes: &[Change],
    ) -> Option<(EntryId, EntryId)> {
        let last: HashMap<&EntryId, bool> =
            changes.iter().map(|change| (&change.id, change.new != NewState::Removed)).collect();
        let put = |id: &EntryId| last.get(id).copied();
        let is_there = |id: &EntryId| put(id).unwrap_or_else(|| self.index.get(id).is_some());
        let puts: Vec<&EntryId> =
            changes.iter().map(|change| &change.id).filter(|id| put(id) == Some(true)).collect();
        let mut occupied: HashMap<NamespaceConflict, &EntryId> = HashMap::new();
        for id in &puts {
            for conflict in layout.conflicts_of_entries_in(id) {
                occupied.entry(conflict).or_insert(id);
            }
        }
        let mut asked = HashSet::new();
        for id in puts {
            if let Some(key) = layout.keys_in_the_way(id).into_iter().find(|key| is_there(key)) {
                return Some((id.clone(), key));
            }
            let Some(conflict) = layout.namespace_in_the_way(id) else { continue };
            if let Some(other) = occupied.get(&conflict) {
                return Some((id.clone(), (*other).clone()));
            }
            if asked.insert(conflict.clone())
                && let Some(other) = self.stored_in(&conflict).find(|other| put(other).is_none())
            {
                return Some((id.clone(), other));
            }
        }
        None
    }

    /// The stored entries of a namespace, or of all with a primary name.
    fn stored_in<'a>(&'a self, way: &'a NamespaceConflict) -> impl Iterator<Item = EntryId> + 'a {
        let spaces: Vec<&Namespace> = match way {
            NamespaceConflict::Primary(primary) => self.index.namespaces_of(primary).collect(),
            NamespaceConflict::Whole(namespace) => vec![namespace],
        };
        spaces
            .into_iter()
            .flat_map(|space| self.index.after(space, None).map(move |(key, _)| space.entry(key)))
    }
}
