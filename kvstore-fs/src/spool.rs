//! Files of their own for what is too large for the journal.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use kvstore_core::local::{create_dir_all, private};
use kvstore_core::{Bytes, Result};

use crate::disk;
use crate::error::{corrupted, io, named};
use crate::record::Spooled;

/// The directory that they lie in.
pub(crate) const SPOOL: &str = ".kvstore-spool";

/// Spool files as they are written.
///
/// Their names are made durable some at a time, so that a large value takes a flush of its file and
/// seldom one of the directory.
pub(crate) struct Spool {
    root: PathBuf,
    /// Whether the directory is there, and on the disk.
    made: bool,
    /// Empty files whose names are on the disk.
    ready: Vec<u64>,
    last: u64,
    /// Those that the group at hand wrote, until the journal names them.
    unnamed: Vec<u64>,
}

/// How many names are made durable at once at most.
const NAMES: u64 = 16;

impl Spool {
    pub(crate) fn new(root: &Path) -> Self {
        let root = root.to_path_buf();
        Self { root, made: false, ready: Vec::new(), last: 0, unnamed: Vec::new() }
    }

    /// Writes bytes to a file of their own; they and its name are on the disk when it returns.
    pub(crate) fn write(&mut self, bytes: &[u8], modified: u64) -> Result<Spooled> {
        if self.ready.is_empty() {
            self.make_names()?;
        }
        // `make_names` made at least one.
        let number = self.ready.pop().unwrap_or(self.last);
        self.unnamed.push(number);
        let path = spool_path(&self.root, number);
        let file = disk::write_new(&path, bytes, modified)?;
        disk::sync(&file, &path)?;
        Ok(Spooled { number, len: bytes.len() as u64, crc: crc32fast::hash(bytes) })
    }

    /// The journal names what was written.
    pub(crate) fn keep(&mut self) {
        self.unnamed.clear();
    }

    /// Removes what was written: nobody will ever name it. What stays is removed at the next open.
    pub(crate) fn discard(&mut self) {
        for number in self.unnamed.drain(..) {
            let _ = fs::remove_file(spool_path(&self.root, number));
        }
    }

    /// As many again as there were, so that a store with few large values has few files more.
    fn make_names(&mut self) -> Result<()> {
        let directory = self.root.join(SPOOL);
        if !self.made {
            create_dir_all(&directory).map_err(named)?;
            // It may be there since a flush that failed.
            disk::sync_dir(&self.root)?;
            self.made = true;
        }
        let numbers = self.last + 1..=self.last + self.last.clamp(1, NAMES);
        for number in numbers.clone() {
            let path = spool_path(&self.root, number);
            private(OpenOptions::new().write(true).create(true).truncate(true))
                .open(&path)
                .map_err(|source| io("commit", &path, source))?;
        }
        disk::sync_dir(&directory)?;
        self.last = *numbers.end();
        self.ready.extend(numbers.rev());
        Ok(())
    }
}

pub(crate) fn spool_path(root: &Path, number: u64) -> PathBuf {
    root.join(SPOOL).join(number.to_string())
}

/// Reads a file that the journal names.
pub(crate) fn read_spooled(root: &Path, spooled: &Spooled) -> Result<Bytes> {
    let path = spool_path(root, spooled.number);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            corrupted("open", &path, "the journal names it, and it is gone")
        }
        _ => io("open", &path, source),
    })?;
    if crc32fast::hash(&bytes) != spooled.crc {
        return Err(corrupted("open", &path, "the file is not what the journal names"));
    }
    Ok(bytes.into())
}
