//! What an earlier owner left in the journal, and tidying up behind this one.

use std::collections::{HashMap, HashSet};
use std::io;

use kvstore_core::local::Directory;
use kvstore_core::{Bytes, EntryId, Result};

use crate::error::{corrupted, io};
use crate::journal::{self, Contents, Kind, Record};
use crate::layout::Layout;
use crate::record::{self, Change, NewState, Spooled, Value};
use crate::scan::EntryFile;
use crate::spool::{SPOOL, SpoolDirectory};
use crate::state::State;

/// What a store begins with.
pub(crate) struct Recovered {
    pub(crate) state: State,
    /// The largest creation number in use.
    pub(crate) last_created: u64,
    /// The largest number of a spool file in use.
    pub(crate) last_spooled: u64,
}

/// Builds the state from the entries' files and from the journal's records that the files may not
/// show. Changes nothing on the disk.
///
/// # Errors
/// `Corrupted` if a spool file that is needed is damaged or gone, or if journal and files do not
/// belong together (contract G4).
pub(crate) fn recover(
    root: &Directory,
    layout: Layout,
    files: Vec<EntryFile>,
    journal: Option<&Contents>,
    spool: &SpoolDirectory,
) -> Result<Recovered> {
    let mut state = State::default();
    let mut last_created = 0;
    // The files' modification times are the creation numbers. LDK's files of one millisecond share
    // one, and pages show them by key.
    for EntryFile { id, len, modified } in files {
        state.index.insert(&id, modified, len);
        last_created = last_created.max(modified);
    }
    let mut last_spooled = spool.numbers()?.into_iter().max().unwrap_or(0);
    if let Some(contents) = journal {
        check_files(root, layout, &state, contents, spool)?;
        let needed = |record: &&Record| record.sequence > contents.header.checkpointed;
        for record in contents.records.iter().filter(needed) {
            let (changes, payload) = changes_of(root, spool, record)?;
            for change in changes {
                if let NewState::Value { created, .. } = &change.new {
                    last_created = last_created.max(*created);
                }
                if let Some(spooled) = change.new.spooled().filter(|spooled| spooled.offset == 0) {
                    state.add_spool_file(spooled);
                    last_spooled = last_spooled.max(spooled.number);
                }
                state.apply(record.sequence, change);
            }
            if let Some(payload) = payload {
                state.add_spooled_record(&payload, record.sequence);
                last_spooled = last_spooled.max(payload.number);
            }
        }
        check_spool_files(&state, spool)?;
    }
    Ok(Recovered { state, last_created, last_spooled })
}

/// The changes of a record, and the spool file that it is, if it is one.
fn changes_of(
    root: &Directory,
    spool: &SpoolDirectory,
    record: &Record,
) -> Result<(Vec<Change>, Option<Spooled>)> {
    let unreadable =
        || corrupted("open", &root.join(journal::FILE_NAME), "a record of the journal is damaged");
    match record.kind {
        Kind::Inline => Ok((record::decode(&record.payload).ok_or_else(unreadable)?, None)),
        Kind::Spooled => {
            let spooled = record::decode_spooled(&record.payload).ok_or_else(unreadable)?;
            let payload = Bytes::from(spool.open("open", &spooled)?.read("open")?);
            let changes = record::decode_in_spool_file(&payload, spooled.number);
            Ok((changes.ok_or_else(unreadable)?, Some(spooled)))
        }
    }
}

/// Checks every spooled value that is still needed. One that a later record supersedes may be gone:
/// its file is removed as soon as that record is durable.
fn check_spool_files(state: &State, spool: &SpoolDirectory) -> Result<()> {
    let whole = state.dirty.values().filter_map(|dirty| dirty.new.spooled());
    // Values inside of a record were checked with it.
    for spooled in whole.filter(|spooled| spooled.offset == 0) {
        spool.open("open", spooled)?.read("open")?;
    }
    Ok(())
}

/// How many entries are compared with what the journal says of them.
const COMPARED: usize = 512;

/// Compares the files with the newest records that were checkpointed and are still in the journal. A
/// copy that was put over the files, or a journal that was copied while the store went on, shows
/// here (contract G4).
fn check_files(
    root: &Directory,
    layout: Layout,
    state: &State,
    contents: &Contents,
    spool: &SpoolDirectory,
) -> Result<()> {
    let mut newest: HashMap<EntryId, NewState> = HashMap::new();
    let mut changed_since: HashSet<EntryId> = HashSet::new();
    for record in contents.records.iter().rev() {
        let is_checkpointed = record.sequence <= contents.header.checkpointed;
        let changes = match (is_checkpointed, changes_of(root, spool, record)) {
            (_, Ok((changes, _))) => changes,
            // Its spool file is gone, so older records cannot be told from superseded ones.
            (true, Err(_)) => break,
            (false, Err(error)) => return Err(error),
        };
        for Change { id, new } in changes.into_iter().rev() {
            if !is_checkpointed {
                changed_since.insert(id);
            } else if !changed_since.contains(&id) {
                newest.entry(id).or_insert(new);
            }
        }
        if newest.len() >= COMPARED {
            break;
        }
    }
    for (id, new) in newest {
        if !is_in_place(root, layout, state, &id, &new)? {
            let path = root.join(layout.file(&id));
            let what = "journal and files belong to different times: this file is not what the \
                        journal had put there. Bring back the files that belong to the journal, or \
                        move .kvstore-journal and .kvstore-spool away to go on from the files \
                        alone, which may be older than what was acknowledged";
            return Err(corrupted("open", &path, what));
        }
    }
    Ok(())
}

/// Whether an entry's file is what a record says.
fn is_in_place(
    root: &Directory,
    layout: Layout,
    state: &State,
    id: &EntryId,
    new: &NewState,
) -> Result<bool> {
    let found = state.index.get(id).map(|entry| entry.about);
    let value = match new {
        NewState::Removed => return Ok(found.is_none()),
        NewState::Value { value, .. } => value,
    };
    if found != Some(value.len()) {
        return Ok(false);
    }
    let path = layout.file(id);
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut root.open_file(&path)?, &mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| io("open", &root.join(&path), source))?;
    Ok(match value {
        Value::Inline(value) => *value == bytes,
        Value::Spooled(spooled) => crc32fast::hash(&bytes) == spooled.crc,
    })
}

/// Removes spool files that a crash left and nothing needs, now that the journal is durable.
pub(crate) fn remove_unneeded_spool_files(state: &State, spool: &SpoolDirectory) -> Result<()> {
    let unneeded = spool.numbers()?.into_iter().filter(|number| !state.needs_spool_file(*number));
    unneeded.into_iter().try_for_each(|number| spool.remove(number))
}

/// Removes the journal and the spool files once nothing in them is needed. The journal first and
/// durably, since it names spool files.
pub(crate) fn remove_own_files(root: &Directory) -> Result<()> {
    for name in [journal::FILE_NAME, journal::TEMPORARY_NAME, SPOOL] {
        let failed = |source| io("close", &root.join(name), source);
        if !root.has(name).map_err(failed)? {
            continue;
        }
        let removed = if name == SPOOL { root.remove_tree(name) } else { root.remove_file(name) };
        removed.map_err(failed)?;
        root.sync()?;
    }
    Ok(())
}
