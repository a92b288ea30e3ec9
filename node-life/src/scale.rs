//! How large and how busy the node is.
//!
//! The sizes are those of a large node. Time runs faster: a month has 3 hours of 10 rounds, and a
//! monitor is written after 25 updates, not 100.

/// Open channels at any time.
pub(crate) const CHANNELS: usize = 200;

/// Hours of a month; the graph and the scorer are written once in each.
pub(crate) const HOURS: u64 = 3;

/// Payment rounds of an hour; the channel manager is written after each.
pub(crate) const ROUNDS: u64 = 10;

/// Payments of a round.
pub(crate) const PAYMENTS: u64 = 10;

/// Updates of a channel between two writes of its monitor.
pub(crate) const UPDATES_PER_MONITOR: u64 = 25;

/// Channels that are closed each month, and as many opened.
pub(crate) const CLOSED_PER_MONTH: usize = 5;

/// Months after which payments and archived monitors are removed.
pub(crate) const KEPT_MONTHS: u64 = 3;

/// Removes in one batch when old entries are pruned.
pub(crate) const PRUNED_AT_ONCE: usize = 50;

/// Bytes of the network graph.
pub(crate) const GRAPH: usize = 40 << 20;

/// Bytes of the scorer.
pub(crate) const SCORER: usize = 2 << 20;

/// Bytes of a channel monitor.
pub(crate) const MONITOR: usize = 30 << 10;

/// Bytes by which the channel manager grows each month, up to [`MANAGER_MAX`].
pub(crate) const MANAGER_GROWTH: usize = 512 << 10;

/// Bytes of the channel manager at its largest.
pub(crate) const MANAGER_MAX: usize = 4 << 20;

/// Submissions that wait for the disk at most. As few as that keep the bytes in flight far below
/// the queue's bound.
pub(crate) const IN_FLIGHT: usize = 32;

/// Bytes of the channel manager in this month, counted from one.
pub(crate) fn manager_len(month: u64) -> usize {
    usize::try_from(month).unwrap_or(usize::MAX).saturating_mul(MANAGER_GROWTH).min(MANAGER_MAX)
}
