//! What the store holds, as readers see it: the index, and what is not in place yet.

use std::collections::HashMap;

use kvstore_core::{CreationIndex, EntryId, Namespace};

use crate::layout::{Layout, NamespaceInTheWay};
use crate::record::{After, Change, Value};

#[derive(Default)]
pub(crate) struct State {
    /// Every entry with the length of its value.
    pub(crate) index: CreationIndex<u64>,
    /// What the journal has and the entries' files have not.
    pub(crate) pending: HashMap<EntryId, Pending>,
    /// Bytes of the values in `pending` that are in memory.
    pub(crate) pending_bytes: usize,
    /// Spool files that are needed no more once everything up to a sequence number is in place.
    obsolete: Vec<(u64, u64)>,
    pub(crate) closed: bool,
}

/// The newest change of an entry that is not in place.
#[derive(Clone)]
pub(crate) struct Pending {
    pub(crate) sequence: u64,
    pub(crate) after: After,
}

impl Pending {
    /// Bytes that it keeps in memory.
    pub(crate) fn bytes(&self) -> usize {
        in_memory(&self.after)
    }
}

impl State {
    /// Shows a change that is durable.
    pub(crate) fn apply(&mut self, sequence: u64, change: Change) {
        let Change { id, after } = change;
        let known = self.pending.get(&id).map(|pending| &pending.after);
        if after == After::Removed && known == Some(&After::Removed) {
            // The earlier remove stays due at its time: what comes after it may need its place.
            return;
        }
        match &after {
            After::Removed => drop(self.index.remove(&id)),
            After::Value { created, value } => self.index.insert(&id, *created, value.len()),
        }
        self.pending_bytes += in_memory(&after);
        if let Some(superseded) = self.pending.insert(id, Pending { sequence, after }) {
            self.forget(&superseded.after);
        }
    }

    fn forget(&mut self, after: &After) {
        self.pending_bytes -= in_memory(after);
        if let After::Value { value: Value::Spooled(spooled), .. } = after {
            self.obsolete.push((0, spooled.number));
        }
    }

    /// Lets a spool file go once everything up to `sequence` is in place.
    pub(crate) fn obsolete_after(&mut self, sequence: u64, number: u64) {
        self.obsolete.push((sequence, number));
    }

    pub(crate) fn take_obsolete(&mut self, placed: u64) -> Vec<u64> {
        let gone = self.obsolete.extract_if(.., |(sequence, _)| *sequence <= placed);
        gone.map(|(_, number)| number).collect()
    }

    /// Forgets what is in place now, unless it was changed again meanwhile.
    pub(crate) fn placed(&mut self, id: &EntryId, sequence: u64) {
        if self.pending.get(id).is_none_or(|pending| pending.sequence != sequence) {
            return;
        }
        if let Some(pending) = self.pending.remove(id) {
            self.forget(&pending.after);
        }
    }

    /// What the layout cannot hold if `id` is put, once `changes` were made.
    pub(crate) fn conflict(
        &self,
        layout: Layout,
        id: &EntryId,
        changes: &[Change],
    ) -> Option<String> {
        let last = |id: &EntryId| changes.iter().rev().find(|change| change.id == *id);
        let is_there = |id: &EntryId| match last(id) {
            Some(change) => change.after != After::Removed,
            None => self.index.get(id).is_some(),
        };
        let keys = layout.keys_in_the_way(id);
        if let Some(key) = keys.into_iter().find(is_there) {
            return Some(format!("the entry {key}"));
        }
        let way = layout.namespace_in_the_way(id)?;
        let inside = |other: &EntryId| match &way {
            NamespaceInTheWay::Primary(primary) => other.primary() == primary,
            NamespaceInTheWay::Whole(namespace) => other.is_in(namespace),
        };
        let put = changes.iter().map(|change| &change.id).find(|id| inside(id) && is_there(id));
        put.cloned()
            .or_else(|| self.inside(&way).into_iter().find(is_there))
            .map(|id| format!("the entry {id}"))
    }

    fn inside(&self, way: &NamespaceInTheWay) -> Vec<EntryId> {
        let spaces: Vec<&Namespace> = match way {
            NamespaceInTheWay::Whole(namespace) => vec![namespace],
            NamespaceInTheWay::Primary(primary) => {
                self.index.namespaces().filter(|space| space.primary() == primary).collect()
            }
        };
        let entries = spaces
            .into_iter()
            .flat_map(|space| self.index.after(space, None).map(|(key, _)| space.entry(key)));
        entries.collect()
    }
}

/// Bytes of a value that a change keeps in memory.
fn in_memory(after: &After) -> usize {
    match after {
        After::Value { value: Value::Inline(bytes), .. } => bytes.len(),
        _ => 0,
    }
}
