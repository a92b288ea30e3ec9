//! Mutations, and batches of them that become durable together.

use std::fmt;

use bytes::Bytes;

use crate::EntryId;

/// The longest value in bytes that every backend takes, and the limit of those that have none of
/// their own, so that one store can be moved to another.
///
/// **Source**: `SQLITE_MAX_LENGTH`, SQLite's default limit.
pub const MAX_VALUE_LEN: usize = 1_000_000_000;

/// One put or one remove, as a backend receives it.
#[derive(Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Stores `value` under `id`, replacing what was there.
    Put {
        /// The entry.
        id: EntryId,
        /// Its new bytes; zero bytes are a value too (contract V1).
        value: Bytes,
        /// Whether the entry counts as created now even if it exists, because a remove that came
        /// before the put was folded into it (contract L4).
        renew: bool,
    },
    /// Removes the entry `id`, if it is there (contract D1).
    Remove {
        /// The entry.
        id: EntryId,
    },
}

impl Mutation {
    /// The entry that is changed.
    #[must_use]
    pub fn id(&self) -> &EntryId {
        match self {
            Self::Put { id, .. } | Self::Remove { id } => id,
        }
    }

    /// The new value, if this is a put.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }

    /// Bytes that the mutation holds while it waits, with what the queue adds to it.
    pub(crate) fn weight(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD + self.id().len() + self.value().map_or(0, Bytes::len)
    }
}

impl fmt::Debug for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { id, value, .. } => write!(f, "Put({id}, {} bytes)", value.len()),
            Self::Remove { id } => write!(f, "Remove({id})"),
        }
    }
}

/// Mutations that become durable together or not at all (contract B1), in the order they were
/// added: the last one of an entry wins (B2).
///
/// ```
/// use kvstore_core::{Batch, EntryId};
///
/// let manager = EntryId::new("", "", "manager")?;
/// let update = EntryId::new("monitor_updates", "some_channel", "7")?;
/// let batch = Batch::new().put(&manager, vec![1, 2, 3]).remove(&update);
/// assert_eq!(batch.len(), 2);
/// # Ok::<(), kvstore_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    mutations: Vec<Mutation>,
}

impl Batch {
    /// Creates an empty batch; to commit it is `Ok` and does nothing (contract B3).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. A `Vec<u8>` is taken over without copying it.
    #[must_use]
    pub fn put(mut self, id: &EntryId, value: impl Into<Bytes>) -> Self {
        self.mutations.push(Mutation::Put { id: id.clone(), value: value.into(), renew: false });
        self
    }

    /// Adds a remove.
    #[must_use]
    pub fn remove(mut self, id: &EntryId) -> Self {
        self.mutations.push(Mutation::Remove { id: id.clone() });
        self
    }

    /// How many mutations were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mutations.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mutations.is_empty()
    }

    pub(crate) fn into_mutations(self) -> Vec<Mutation> {
        self.mutations
    }
}
