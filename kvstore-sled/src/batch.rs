//! Commits too large for one step.
//!
//! sled uses a segment of its log again once the log goes on behind the changes that made it free,
//! and whether those are durable it does not ask. A commit of several segments could so overwrite
//! what is still needed if the power goes before its end. sled frees a segment only when the log has
//! reached the one after next, so nothing is lost if less than a segment is written between two
//! flushes of ours. How much that is depends on the tree more than on the commit; see
//! [`cost`](crate::cost).
//!
//! What may write more goes to the file `values/batch` first; the tree names that, which is the
//! moment of the commit; and the changes are made in groups. sled says after each how much it wrote.
//! A crash in between finishes them at open. Until then the format has another name, so that a
//! version that does not know the file refuses the store.
//!
//! The file holds, for each change, the key's length (2 bytes), the key, the value's length and one
//! (4 bytes, 0 for a removal), and the value, all numbers with the highest byte first.

use std::io::{self, Read, Write};

use kvstore_core::local::{Directory, flush_error};
use kvstore_core::{ErrorKind, Result, log};

use crate::cost::Costs;
use crate::encoding::{BATCH, FORMAT, FORMAT_NAME, FORMAT_NAME_IN_STEPS};
use crate::engine::{Change, Engine, SEGMENT, apply_in_order, read};
use crate::error::{self, damaged, error, io, missing, named};
use crate::flush::LogFiles;

/// The file in `values/`.
pub(crate) const FILE: &str = "batch";

/// The highest cost of a group of changes, unless one alone costs more.
const GROUP: usize = 1 << 20;

/// When so many bytes are written they are flushed. What sled writes of its own accord, at the end
/// of a segment, it does not say: that is another group at most, as is what comes on top.
const MAX_UNFLUSHED: usize = 1 << 20;

/// How many bytes of the disk a commit in one step may take: the log goes on in whole segments.
pub(crate) fn room(cost: usize) -> u64 {
    2 * SEGMENT + (cost as u64).next_multiple_of(SEGMENT)
}

/// How many a commit in several steps may take: with its file, and without the pages that are
/// moved, as their segments are used again.
pub(crate) fn room_in_steps(cost: usize) -> u64 {
    room(cost / 2) + SEGMENT
}

/// Writes and flushes the changes; nothing names them yet, and an error leaves no trace.
pub(crate) fn write<'a>(
    values: &Directory,
    changes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
) -> Result<u32> {
    let bytes = encode(changes);
    write_file(values, &bytes).inspect_err(|_| remove_file(values))?;
    Ok(crc32fast::hash(&bytes))
}

fn write_file(values: &Directory, bytes: &[u8]) -> Result<()> {
    let path = values.join(FILE);
    let mut file = values.create_file(FILE).map_err(|source| io("commit", &path, source))?;
    file.write_all(bytes).map_err(|source| io("commit", &path, source))?;
    file.sync_all().map_err(|source| named(flush_error("commit", &path, source)))?;
    values.sync().map_err(named)
}

/// Removes a file that the tree does not name. If it stays, the next opening or commit removes it.
fn remove_file(values: &Directory) {
    if let Err(error) = values.remove_file(FILE) {
        let path = values.join(FILE);
        log(|| tracing::warn!(%error, path = %path.display(), "a file that is not needed stays"));
    }
}

/// Commits the changes in the file and makes them.
pub(crate) fn commit(
    engine: &Engine,
    files: &mut LogFiles,
    values: &Directory,
    changes: Vec<Change>,
    crc: u32,
) -> Result<()> {
    let named_by = (BATCH.to_vec(), Some(crc.to_be_bytes().to_vec()));
    let format = (FORMAT.to_vec(), Some(FORMAT_NAME_IN_STEPS.to_vec()));
    apply_in_order(engine.tree(), vec![format, named_by])?;
    engine.flush().map_err(error::commit)?;
    files.sync()?;
    apply("commit", engine, files, values, changes).map_err(|source| match source.kind() {
        ErrorKind::InDoubt => source,
        _ => {
            let message = format!("{}; reopen the store, which makes the rest", source.message());
            error(ErrorKind::InDoubt, "commit", message).with_source(source)
        }
    })
}

/// Finishes what a crash left.
pub(crate) fn finish(engine: &Engine, files: &mut LogFiles, values: &Directory) -> Result<()> {
    let Some(crc) = read(engine.tree(), BATCH)? else {
        if read(engine.tree(), FORMAT)?.is_some_and(|format| format == FORMAT_NAME_IN_STEPS) {
            apply_in_order(engine.tree(), vec![restored_format()])?;
            engine.flush().map_err(error::commit)?;
            files.sync()?;
        }
        remove_file(values);
        return Ok(());
    };
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
    apply("open", engine, files, values, changes)
}

fn restored_format() -> Change {
    (FORMAT.to_vec(), Some(FORMAT_NAME.to_vec()))
}

fn apply(
    operation: &'static str,
    engine: &Engine,
    files: &mut LogFiles,
    values: &Directory,
    changes: Vec<Change>,
) -> Result<()> {
    let mut unflushed = 0;
    let mut make = |group: Vec<Change>, cost| {
        files.check_room(operation, room(cost))?;
        apply_in_order(engine.tree(), group)?;
        unflushed += engine.flush().map_err(error::commit)?;
        if unflushed >= MAX_UNFLUSHED {
            files.sync()?;
            unflushed = 0;
        }
        Ok(())
    };
    let (mut group, mut group_cost) = (Vec::new(), 0);
    let mut costs = Costs::new(engine.tree());
    for change in changes {
        let cost = costs.of(&change.0, change.1.as_deref())?;
        if !group.is_empty() && group_cost + cost > GROUP {
            make(std::mem::take(&mut group), std::mem::take(&mut group_cost))?;
        }
        group.push(change);
        group_cost += cost;
    }
    group.extend([(BATCH.to_vec(), None), restored_format()]);
    make(group, group_cost)?;
    files.sync()?;
    remove_file(values);
    Ok(())
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
    use kvstore_core::{Backend, EntryId, Mutation};

    use super::*;
    use crate::encoding::check_format;
    use crate::flush::windows;
    use crate::{SledBackend, SledOptions};

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
            // A version that does not know the file refuses the store meanwhile.
            engine.tree().insert(FORMAT, FORMAT_NAME_IN_STEPS).unwrap();
            check_format(engine.tree().get(FORMAT).unwrap().as_deref()).unwrap();
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
            assert_eq!(engine.tree().get(FORMAT).unwrap().unwrap(), FORMAT_NAME);
            assert!(!values.has(FILE).unwrap(), "{made:?}");
        }
        let crc = write(&values, pairs(&changes)).unwrap();
        engine.tree().insert(BATCH, &(!crc).to_be_bytes()).unwrap();
        let error = finish(&engine, &mut files, &values).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        values.remove_file(FILE).unwrap();
        let error = finish(&engine, &mut files, &values).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
    }

    fn put(backend: &SledBackend, entries: impl Iterator<Item = (usize, Vec<u8>)>) -> u64 {
        let mutations: Vec<Mutation> = entries
            .map(|(at, value)| {
                let id = EntryId::new("p", "s", &format!("{at:06}")).unwrap();
                Mutation::Put { id, value: value.into(), renew: false }
            })
            .collect();
        windows::take();
        futures_lite::future::block_on(backend.commit(&mutations)).unwrap();
        let (segments, flushes) = windows::take();
        assert!(segments < 2, "{segments} segments begun between two flushes");
        flushes
    }

    /// P1: small changes to many leaves write many segments, of which no flush waits for two.
    #[test]
    fn no_commit_begins_two_segments_between_two_flushes() {
        const ENTRIES: usize = 2400;
        let parent = tempfile::tempdir().unwrap();
        let backend = SledBackend::open(&SledOptions::new(parent.path())).unwrap();
        let value = |at: usize| (at, vec![at as u8; 20_000]);
        for first in (0..ENTRIES).step_by(40) {
            put(&backend, (first..first + 40).map(value));
        }
        for round in 0..12 {
            // One in each leaf, and then those of one leaf.
            put(&backend, (0..ENTRIES).step_by(8).map(|at| (at, vec![round; 100])));
            put(&backend, (0..10).map(value));
        }
        put(&backend, (0..ENTRIES).map(value));
        futures_lite::future::block_on(backend.close()).unwrap();
    }

    /// Commits as a node makes them keep to one batch and one flush, also 64 of them together.
    #[test]
    fn ordinary_commits_need_one_flush() {
        let parent = tempfile::tempdir().unwrap();
        let backend = SledBackend::open(&SledOptions::new(parent.path())).unwrap();
        for round in 0..40 {
            let at = |at: usize| (at * 37 % 1000 + round, vec![round as u8; 512]);
            assert_eq!(put(&backend, (0..64).map(at)), 1, "{round}");
            assert_eq!(put(&backend, [(round, vec![7; 24_000])].into_iter()), 1, "{round}");
            assert_eq!(put(&backend, [(round, vec![7; 512])].into_iter()), 1, "{round}");
        }
        futures_lite::future::block_on(backend.close()).unwrap();
    }
}
