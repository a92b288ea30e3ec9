//! An open channel: its name, and which of its updates are stored.

use lightning_kvstore::EntryId;

use crate::failure::Result;
use crate::names;
use crate::scale::UPDATES_PER_MONITOR;

/// An open channel.
#[derive(Debug)]
pub(crate) struct Channel {
    /// A transaction's id and an output, as LDK names monitors.
    name: String,
    /// The number of the newest update.
    newest: u64,
    /// The number of the oldest update that is stored.
    oldest: u64,
    /// Spreads the channels, so that their monitors are not all due at once.
    offset: u64,
}

impl Channel {
    pub(crate) fn new(number: u64, offset: u64) -> Self {
        Self { name: format!("{}_0", names::hash(number)), newest: 0, oldest: 1, offset }
    }

    pub(crate) fn monitor(&self) -> Result<EntryId> {
        names::id("monitors", "", &self.name)
    }

    pub(crate) fn archived_monitor(&self) -> Result<EntryId> {
        names::id("archived_monitors", "", &self.name)
    }

    pub(crate) fn next_update(&mut self) -> Result<EntryId> {
        self.newest += 1;
        self.update(self.newest)
    }

    /// Whether the monitor is to be written after the newest update.
    pub(crate) fn monitor_is_due(&self) -> bool {
        (self.newest + self.offset).is_multiple_of(UPDATES_PER_MONITOR)
    }

    /// Forgets the stored updates, and says which they were.
    pub(crate) fn take_updates(&mut self) -> Result<Vec<EntryId>> {
        let oldest = std::mem::replace(&mut self.oldest, self.newest + 1);
        (oldest..=self.newest).map(|number| self.update(number)).collect()
    }

    fn update(&self, number: u64) -> Result<EntryId> {
        names::id("monitor_updates", &self.name, &number.to_string())
    }
}
