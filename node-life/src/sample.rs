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
    /// Files that live entries account for.
    pub(crate) entry_files: u64,
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
    /// Files beyond those of the live entries. An entry whose file is not in place yet makes up for
    /// no file of the store's own.
    pub(crate) fn files_beyond(&self, disk: Option<Disk>) -> Option<u64> {
        let beyond = |Disk { files, internal_files, .. }| {
            internal_files + (files - internal_files).saturating_sub(self.entry_files)
        };
        disk.map(beyond)
    }
}

/// The longest value in bytes that sled's tree holds; a longer one has a file.
const SLED_INLINE_LEN: u64 = 24 << 10;

/// How many files of a store of this scheme belong to live entries.
pub(crate) fn entry_files(scheme: &str, model: &Model) -> u64 {
    match scheme {
        "fs" => model.totals().entries,
        "sled" => model.longer_than(SLED_INLINE_LEN),
        _ => 0,
    }
}
