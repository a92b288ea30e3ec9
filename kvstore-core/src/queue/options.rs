//! Limits of the queue.

use std::time::Duration;

/// Limits of a store's queue and of the groups that it commits.
///
/// The defaults suit a node; [`Default`] gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOptions {
    /// Bytes of names and values that may wait or be under way, 256 MiB by default.
    ///
    /// At the bound a blocking commit waits for room, and a submission that must not wait fails
    /// with [`QueueFull`](crate::ErrorKind::QueueFull) without having queued anything. A batch
    /// larger than the bound is taken when nothing else is held.
    pub max_held_bytes: usize,
    /// Bytes that one group gathers at most, 16 MiB by default; a larger batch goes alone.
    pub max_group_bytes: usize,
    /// Mutations that one group gathers at most, 4096 by default; a larger batch goes alone.
    pub max_group_mutations: usize,
    /// How long a lazy remove waits for another commit to ride along with: half a second by
    /// default, and never longer than that, so that it reaches the disk within one second
    /// (contract D4).
    pub lazy_remove_delay: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            max_held_bytes: 256 << 20,
            max_group_bytes: 16 << 20,
            max_group_mutations: 4096,
            lazy_remove_delay: LONGEST_LAZY_DELAY,
        }
    }
}

const LONGEST_LAZY_DELAY: Duration = Duration::from_millis(500);

impl QueueOptions {
    /// Sets [`max_held_bytes`](Self::max_held_bytes).
    #[must_use]
    pub fn max_held_bytes(mut self, bytes: usize) -> Self {
        self.max_held_bytes = bytes;
        self
    }

    /// Sets [`max_group_bytes`](Self::max_group_bytes).
    #[must_use]
    pub fn max_group_bytes(mut self, bytes: usize) -> Self {
        self.max_group_bytes = bytes;
        self
    }

    /// Sets [`max_group_mutations`](Self::max_group_mutations).
    #[must_use]
    pub fn max_group_mutations(mut self, mutations: usize) -> Self {
        self.max_group_mutations = mutations;
        self
    }

    /// Sets [`lazy_remove_delay`](Self::lazy_remove_delay).
    #[must_use]
    pub fn lazy_remove_delay(mut self, delay: Duration) -> Self {
        self.lazy_remove_delay = delay;
        self
    }

    pub(super) fn lazy_delay(&self) -> Duration {
        self.lazy_remove_delay.min(LONGEST_LAZY_DELAY)
    }
}
