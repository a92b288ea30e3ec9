//! Values in files of their own, which are whole and flushed before the tree names them.

use std::fs::File;
use std::io::{self, Read, Write};

use kvstore_core::local::{Directory, flush_error};
use kvstore_core::{Result, log};

use crate::directory::names_of_files;
use crate::encoding::{LARGE, Large, large_key, large_number, parse_number};
use crate::error::{damaged, io, missing, named};
use crate::view::View;

/// Writes and flushes the file of a value; its name is durable after a flush of the directory.
pub(crate) fn write(directory: &Directory, number: u64, value: &[u8]) -> Result<Large> {
    let name = number.to_string();
    let path = directory.join(&name);
    let mut file = directory.create_file(&name).map_err(|source| io("write", &path, source))?;
    file.write_all(value).map_err(|source| io("write", &path, source))?;
    file.sync_all().map_err(|source| named(flush_error("flush", &path, source)))?;
    Ok(Large { number, len: value.len() as u64, crc: crc32fast::hash(value) })
}

pub(crate) fn open(directory: &Directory, large: Large) -> Result<File> {
    let name = large.number.to_string();
    directory.open_file(&name).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => missing(&directory.join(&name)),
        _ => io("read", &directory.join(&name), source),
    })
}

pub(crate) fn read(mut file: File, directory: &Directory, large: Large) -> Result<Vec<u8>> {
    let wrong = || damaged(&format!("the file of large value {}", large.number));
    let failed = |source| io("read", &directory.join(large.number.to_string()), source);
    let found = file.metadata().map_err(failed)?.len();
    if found != large.len {
        return Err(wrong());
    }
    let mut value = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
    file.read_to_end(&mut value).map_err(failed)?;
    if value.len() as u64 != large.len || crc32fast::hash(&value) != large.crc {
        return Err(wrong());
    }
    Ok(value)
}

/// Removes files that no entry names any more, or that none came to name. If that fails they take
/// room until the store is opened again.
pub(crate) fn remove(directory: &Directory, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let name = number.to_string();
        if let Err(error) = directory.remove_file(&name) {
            let path = directory.join(name);
            log(
                || tracing::warn!(%error, path = %path.display(), "a file that is not needed stays"),
            );
        }
    }
}

/// Fails unless every file that the tree names is there, with its length; its checksum is checked
/// when it is read.
pub(crate) fn check(directory: &Directory, view: &View) -> Result<()> {
    view.scan(LARGE, LARGE).try_for_each(|found| {
        let (key, len) = found?;
        let name = large_number(&key)?.to_string();
        let path = directory.join(&name);
        let metadata = directory.metadata(&name).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(&path),
            _ => io("open", &path, source),
        })?;
        // An older version did not write the length.
        let expected = if len.is_empty() { metadata.len() } else { parse_number(&len)? };
        if !metadata.is_file() || metadata.len() != expected {
            return Err(damaged(&path.display().to_string()));
        }
        Ok(())
    })
}

/// Removes what a crash left: every file of a value that the tree does not name.
pub(crate) fn clean(directory: &Directory, view: &View) -> Result<()> {
    for name in names_of_files(directory)? {
        if let Some(number) = number(&name)
            && view.get(&large_key(number))?.is_none()
        {
            remove(directory, [number]);
        }
    }
    Ok(())
}

/// The number of a value's file, if `name` is exactly as [`write`] gives it.
fn number(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    (number.to_string() == name).then_some(number)
}
