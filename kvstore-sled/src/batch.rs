//! Commits too large for one step.
//!
//! sled uses a segment of its log again once its own `flush` has passed the changes that made it
//! free, and that is not durable. A commit of several segments could so overwrite what is still
//! needed if the power goes before its end. So between two flushes of ours less than a segment is
//! written. What is larger goes to the file `values/batch` first; the tree names that, which is the
//! moment of the commit; and the changes are made in steps. A crash in between finishes them at open.
//!
//! The file holds, for each change, the key's length (2 bytes), the key, the value's length and one
//! (4 bytes, 0 for a removal), and the value, all numbers with the highest byte first.

use std::io::{self, Read, Write};

use kvstore_core::Result;
use kvstore_core::local::{Directory, flush_error};

use crate::encoding::BATCH;
use crate::engine::{Change, Engine, SEGMENT, apply_in_order, read};
use crate::error::{self, damaged, io, missing, named};
use crate::flush::LogFiles;

/// The file in `values/`.
pub(crate) const FILE: &str = "batch";

/// Bytes of keys and values that are committed at once. sled writes up to four times as much.
pub(crate) const MAX_AT_ONCE: usize = 1 << 20;

/// What a change takes, about.
pub(crate) fn bytes_of((key, value): (&Vec<u8>, &Option<Vec<u8>>)) -> usize {
    key.len() + value.as_ref().map_or(0, Vec::len) + 64
}

/// How many bytes of the disk a commit may take for changes of so many bytes.
///
/// A leaf of up to 17 entries is written anew with every tenth change of it, and so are leaves that
/// are split; the log goes on in whole segments. And there is the file.
pub(crate) fn room(bytes: usize) -> u64 {
    2 * SEGMENT + (5 * bytes as u64).next_multiple_of(SEGMENT)
}

/// Writes and flushes the changes; nothing names them yet, and an error leaves no trace.
pub(crate) fn write<'a>(
    values: &Directory,
    changes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
) -> Result<u32> {
    let path = values.join(FILE);
    let bytes = encode(changes);
    let mut file = values.create_file(FILE).map_err(|source| io("commit", &path, source))?;
    file.write_all(&bytes).map_err(|source| io("commit", &path, source))?;
    file.sync_all().map_err(|source| named(flush_error("commit", &path, source)))?;
    values.sync().map_err(named)?;
    Ok(crc32fast::hash(&bytes))
}

/// Commits the changes in the file and makes them.
pub(crate) fn commit(
    engine: &Engine,
    files: &mut LogFiles,
    values: &Directory,
    changes: Vec<Change>,
    crc: u32,
) -> Result<()> {
    step(engine, files, vec![(BATCH.to_vec(), Some(crc.to_be_bytes().to_vec()))])?;
    apply(engine, files, values, changes)
}

/// Finishes what a crash left.
pub(crate) fn finish(engine: &Engine, files: &mut LogFiles, values: &Directory) -> Result<()> {
    let Some(crc) = read(engine.tree(), BATCH)? else { return Ok(()) };
    let path = values.join(FILE);
    let mut bytes = Vec::new();
    match values.open_file(FILE).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(missing(&path)),
        Err(source) => return Err(io("recover", &path, source)),
    }
    let wrong = || damaged(&path.display().to_string());
    if crc[..] != crc32fast::hash(&bytes).to_be_bytes() {
        return Err(wrong());
    }
    let changes = decode(&bytes).ok_or_else(wrong)?;
    files.check_room("open", room(bytes.len()))?;
    apply(engine, files, values, changes)
}

fn apply(
    engine: &Engine,
    files: &mut LogFiles,
    values: &Directory,
    changes: Vec<Change>,
) -> Result<()> {
    let (mut next, mut bytes) = (Vec::new(), 0);
    for change in changes {
        bytes += bytes_of((&change.0, &change.1));
        next.push(change);
        if bytes >= MAX_AT_ONCE {
            step(engine, files, std::mem::take(&mut next))?;
            bytes = 0;
        }
    }
    next.push((BATCH.to_vec(), None));
    step(engine, files, next)?;
    // Without its name in the tree it means nothing, and the next one replaces it.
    let _ = values.remove_file(FILE);
    Ok(())
}

fn step(engine: &Engine, files: &mut LogFiles, changes: Vec<Change>) -> Result<()> {
    apply_in_order(engine.tree(), changes)?;
    engine.flush().map_err(error::commit)?;
    files.sync()
}

fn encode<'a>(changes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in changes {
        // Keys are made of names, values of up to 24 KiB stand in the tree.
        bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(key);
        let len = value.as_ref().map_or(0, |value| value.len() as u32 + 1);
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (value, rest) = rest.split_at_checked(len.saturating_sub(1))?;
        changes.push((key.to_vec(), (len > 0).then(|| value.to_vec())));
        bytes = rest;
    }
    Some(changes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use kvstore_core::ErrorKind;

    use super::*;

    fn pairs(changes: &[Change]) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        changes.iter().map(|(key, value)| (key, value))
    }

    #[test]
    fn changes_come_back_and_damage_is_told() {
        let changes = vec![
            (b"k".to_vec(), Some(b"value".to_vec())),
            (b"empty".to_vec(), Some(Vec::new())),
            (b"gone".to_vec(), None),
        ];
        let bytes = encode(pairs(&changes));
        assert_eq!(decode(&bytes).unwrap(), changes);
        assert!(decode(&bytes[..bytes.len() - 1]).is_none());
    }

    /// B1: whatever steps a crash left, opening makes them all; before the commit it makes none.
    #[test]
    fn a_crash_between_the_steps_is_finished_at_open() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("db"), "").unwrap();
        std::fs::create_dir(parent.path().join("blobs")).unwrap();
        let directory = || Directory::open(parent.path()).unwrap();
        let (engine, values) = (Engine::start(directory(), 1 << 20).unwrap(), directory());
        let mut files = LogFiles::open(&values).unwrap();
        let change = |at: u32| {
            let value = at.is_multiple_of(3).then(|| vec![at as u8; 20_000]);
            (at.to_be_bytes().to_vec(), value)
        };
        let changes: Vec<Change> = (0..600).map(change).collect();
        for made in [None, Some(0), Some(1), Some(100), Some(600)] {
            changes.iter().for_each(|(key, _)| drop(engine.tree().insert(key, "old").unwrap()));
            let crc = write(&values, pairs(&changes)).unwrap();
            if let Some(made) = made {
                engine.tree().insert(BATCH, &crc.to_be_bytes()).unwrap();
                apply_in_order(engine.tree(), changes[..made].to_vec()).unwrap();
            }
            finish(&engine, &mut files, &values).unwrap();
            for (key, value) in &changes {
                let found = engine.tree().get(key).unwrap();
                let expected = if made.is_some() { value.as_deref() } else { Some(&b"old"[..]) };
                assert!(found.as_deref() == expected, "{made:?}");
            }
            assert!(engine.tree().get(BATCH).unwrap().is_none());
        }
        let crc = write(&values, pairs(&changes)).unwrap();
        engine.tree().insert(BATCH, &(!crc).to_be_bytes()).unwrap();
        let error = finish(&engine, &mut files, &values).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        values.remove_file(FILE).unwrap();
        let error = finish(&engine, &mut files, &values).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
    }
}
