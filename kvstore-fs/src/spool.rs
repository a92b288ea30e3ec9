//! Files of their own for what is too large for the journal.

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{Bytes, Result};

use crate::error::{corrupted, io};
use crate::record::Spooled;

/// The directory that they lie in.
pub(crate) const SPOOL: &str = ".kvstore-spool";

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
