//! The figures of one month.

use std::time::Duration;

use crate::measure::{Disk, Process};
use crate::model::{Model, Totals};
use crate::writer::Latencies;

/// What was measured at a month's end.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) month: u64,
    pub(crate) live: Totals,
    pub(crate) entry_files: EntryFiles,
    /// The store's files while it was open, with everything durable.
    pub(crate) open: Option<Disk>,
    /// The same after a clean close.
    pub(crate) closed: Option<Disk>,
    /// This process while the store was open.
    pub(crate) process: Process,
    pub(crate) opening: Duration,
    pub(crate) closing: Duration,
    pub(crate) latencies: Latencies,
}

impl Sample {
    /// Files beyond those of the live entries while the store is open.
    pub(crate) fn open_files_beyond(&self) -> Option<u64> {
        self.open.map(|disk| match self.entry_files.deferred {
            true => disk.internal_files,
            false => self.entry_files.beyond(disk),
        })
    }

    /// The same after a clean close.
    pub(crate) fn closed_files_beyond(&self) -> Option<u64> {
        self.closed.map(|disk| self.entry_files.beyond(disk))
    }
}

/// Which of a store's files belong to live entries.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct EntryFiles {
    pub(crate) count: u64,
    /// Whether a journal comes before them: then files of removed entries are there, and those of
    /// new ones are not, until the next checkpoint, so that only internal files can be counted while
    /// the store is open.
    pub(crate) deferred: bool,
}

/// The longest value in bytes that sled's tree holds; a longer one has a file.
const SLED_INLINE_LEN: u64 = 24 << 10;

impl EntryFiles {
    /// The files of a store of this scheme that holds what the model holds.
    pub(crate) fn of(scheme: &str, model: &Model) -> Self {
        match scheme {
            "fs" => Self { count: model.totals().entries, deferred: true },
            "sled" => Self { count: model.longer_than(SLED_INLINE_LEN), deferred: false },
            _ => Self::default(),
        }
    }

    fn beyond(self, disk: Disk) -> u64 {
        // A missing file of an entry makes up for no internal one.
        let others = disk.files - disk.internal_files;
        disk.internal_files + others.saturating_sub(self.count)
    }
}
