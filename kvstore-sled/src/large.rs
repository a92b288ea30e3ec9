//! Values in files of their own, which are whole and flushed before the tree names them.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use kvstore_core::Result;
use kvstore_core::local::{private, sync_dir};

use crate::encoding::Large;
use crate::error::{damaged, flush, io, named};

fn path(directory: &Path, number: u64) -> std::path::PathBuf {
    directory.join(number.to_string())
}

/// Writes and flushes the file of a value; its name is durable after a flush of the directory.
pub(crate) fn write(directory: &Path, number: u64, value: &[u8]) -> Result<Large> {
    let path = path(directory, number);
    let mut file = private(OpenOptions::new().write(true).create_new(true))
        .open(&path)
        .map_err(|source| io("write", &path, source))?;
    file.write_all(value).map_err(|source| io("write", &path, source))?;
    file.sync_all().map_err(|source| flush("flush", &path, source))?;
    Ok(Large { number, len: value.len() as u64, crc: crc32fast::hash(value) })
}

pub(crate) fn sync_names(directory: &Path) -> Result<()> {
    sync_dir(directory).map_err(named)
}

pub(crate) fn open(directory: &Path, large: Large) -> Result<File> {
    let path = path(directory, large.number);
    File::open(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            damaged(&format!("{} is missing; the store", path.display()))
        }
        _ => io("read", &path, source),
    })
}

pub(crate) fn read(mut file: File, large: Large) -> Result<Vec<u8>> {
    let wrong = || damaged(&format!("the file of large value {}", large.number));
    let found = file.metadata().map_err(|source| io("read", Path::new("values"), source))?.len();
    if found != large.len {
        return Err(wrong());
    }
    let mut value = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
    file.read_to_end(&mut value).map_err(|source| io("read", Path::new("values"), source))?;
    if value.len() as u64 != large.len || crc32fast::hash(&value) != large.crc {
        return Err(wrong());
    }
    Ok(value)
}

/// Removes files that no entry names any more, or that none came to name. If that fails they take
/// room until the store is opened again.
pub(crate) fn remove(directory: &Path, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let path = path(directory, number);
        let removed = fs::remove_file(&path);
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a file that is not needed stays");
        }
    }
}

/// Removes what a crash left: every file whose number is not among the `named`.
pub(crate) fn clean(directory: &Path, named: &HashSet<u64>) -> Result<()> {
    let failed = |source| io("open", directory, source);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.parse().ok())
            && !named.contains(&number)
        {
            remove(directory, [number]);
        }
    }
    Ok(())
}
