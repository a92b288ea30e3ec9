//! Values in files of their own, which are whole and flushed before the tree names them.

use std::collections::VecDeque;
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

/// Files of values that no entry names any more and that could not be removed.
///
/// They are tried again at later commits, after pauses that grow, and at every opening.
#[derive(Default)]
pub(crate) struct Superseded {
    numbers: VecDeque<u64>,
    /// How many commits are to pass until the next try, and how many passed between the last two.
    wait: u32,
    pause: u32,
}

impl Superseded {
    /// Those beyond are left for the next opening.
    const MOST: usize = 1 << 16;
    const AT_ONCE: usize = 64;
    const LONGEST_PAUSE: u32 = 1024;

    /// Removes the files of these values, and those of earlier ones if it is time.
    pub(crate) fn remove(&mut self, directory: &Directory, numbers: impl IntoIterator<Item = u64>) {
        match self.wait.checked_sub(1) {
            Some(wait) => self.wait = wait,
            None => self.retry(directory),
        }
        for number in numbers {
            if !remove_or_report(directory, number) && self.numbers.len() < Self::MOST {
                self.numbers.push_back(number);
            }
        }
    }

    /// Tries some of the earlier ones again.
    pub(crate) fn retry(&mut self, directory: &Directory) {
        let mut failed = false;
        for _ in 0..self.numbers.len().min(Self::AT_ONCE) {
            let Some(number) = self.numbers.pop_front() else { break };
            if remove(directory, number).is_err() {
                failed = true;
                self.numbers.push_back(number);
            }
        }
        self.pause = if failed { (2 * self.pause).clamp(1, Self::LONGEST_PAUSE) } else { 0 };
        self.wait = self.pause;
    }
}

fn remove(directory: &Directory, number: u64) -> io::Result<()> {
    directory.remove_file(number.to_string())
}

/// Removes the file of a value that no entry names, and says whether it is gone.
fn remove_or_report(directory: &Directory, number: u64) -> bool {
    let removed = remove(directory, number);
    if let Err(error) = &removed {
        let path = directory.join(number.to_string());
        log(|| tracing::warn!(%error, path = %path.display(), "a file that is not needed stays"));
    }
    removed.is_ok()
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
            remove_or_report(directory, number);
        }
    }
    Ok(())
}

/// The number of a value's file, if `name` is exactly as [`write`] gives it.
fn number(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    (number.to_string() == name).then_some(number)
}
