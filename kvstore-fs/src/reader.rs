//! Reads: values, pages, and lists of everything.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::PoisonError;

use kvstore_core::{Bytes, EntryId, EntryInfo, Key, Namespace, PageEntry, Position, Result};

use crate::error::{corrupted, io};
use crate::record::{NewState, Value};
use crate::shared::Shared;
use crate::spool::SpooledFile;
use crate::state::State;

/// How many entries of a page have their values opened under one lock.
const VALUES_AT_ONCE: usize = 64;

/// How many entries are listed under one lock.
const NAMES_AT_ONCE: usize = 4096;

/// A value that was found, and whose bytes may still have to be read.
///
/// A file is never written to once it is in place, so what is open is one whole value.
enum Content {
    Bytes(Bytes),
    File(File, EntryId, u64),
    Spooled(SpooledFile),
}

impl Content {
    fn read(self, shared: &Shared) -> Result<Vec<u8>> {
        let (mut file, id, len) = match self {
            Self::Bytes(bytes) => return Ok(bytes.to_vec()),
            Self::Spooled(file) => return file.read("get"),
            Self::File(file, id, len) => (file, id, len),
        };
        let mut value = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        let read = file.read_to_end(&mut value);
        let path = || shared.root.join(shared.layout.file(&id));
        read.map_err(|source| io("get", &path(), source))?;
        if value.len() as u64 != len {
            let message = format!("the file has {} bytes and had {len}", value.len());
            return Err(corrupted("get", &path(), &message));
        }
        Ok(value)
    }
}

/// Finds the value of an entry that is in the index.
fn content(shared: &Shared, state: &State, id: &EntryId, len: u64) -> Result<Content> {
    match state.dirty.get(id).map(|dirty| &dirty.new) {
        Some(NewState::Value { value: Value::Inline(bytes), .. }) => {
            return Ok(Content::Bytes(bytes.clone()));
        }
        Some(NewState::Value { value: Value::Spooled(spooled), .. }) => {
            return shared.spool.open("get", spooled).map(Content::Spooled);
        }
        _ => {}
    }
    let path = shared.layout.file(id);
    match shared.root.open_file(&path) {
        Ok(file) => Ok(Content::File(file, id.clone(), len)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            // Its directory may be another one than it was, which is no damage.
            let mut directories = shared.directories.lock().unwrap_or_else(PoisonError::into_inner);
            directories.find(&shared.root, shared.layout, &id.namespace())?;
            Err(corrupted("get", &shared.root.join(path), "the entry's file is gone"))
        }
        Err(source) => Err(io("get", &shared.root.join(path), source)),
    }
}

pub(crate) fn get(shared: &Shared, id: &EntryId) -> Result<Option<Vec<u8>>> {
    let state = shared.read_state()?;
    let Some(len) = state.index.get(id).map(|entry| entry.about) else { return Ok(None) };
    let content = content(shared, &state, id, len)?;
    drop(state);
    content.read(shared).map(Some)
}

/// Reads a page, some entries at a time, so that no commit waits for more than that. Those of one
/// time come from one state of the store.
///
/// A page without a limit shows every entry that was there throughout (contract L3), also one that
/// was created anew meanwhile and so went to the front.
pub(crate) fn page(
    shared: &Shared,
    namespace: &Namespace,
    after: Option<&Position>,
    limit: usize,
    values: bool,
) -> Result<Vec<PageEntry>> {
    let at_once = if values { VALUES_AT_ONCE } else { NAMES_AT_ONCE };
    let mut page: Vec<PageEntry> = Vec::new();
    let newest = shared.read_state()?.index.after(namespace, None).next().map(|(_, e)| e.created);
    while page.len() < limit {
        let state = shared.read_state()?;
        let after = page.last().map(|entry| &entry.position).or(after);
        let wanted = at_once.min(limit - page.len());
        let found = state.index.after(namespace, after).take(wanted).map(|(key, entry)| {
            let position = Position { created: entry.created, key: key.clone() };
            let id = || namespace.entry(key);
            let content =
                values.then(|| content(shared, &state, &id(), entry.about)).transpose()?;
            Ok((position, content))
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        drop(state);
        let is_last = found.len() < wanted;
        for (position, content) in found {
            let value = content.map(|content| content.read(shared)).transpose()?;
            page.push(PageEntry { position, value });
        }
        if is_last {
            break;
        }
    }
    if limit == usize::MAX && after.is_none() && page.len() > at_once {
        let renewed = renewed(shared, namespace, newest, &page, values)?;
        page.splice(0..0, renewed);
    }
    Ok(page)
}

/// The entries that were created since a walk began and that it did not show, newest first.
fn renewed(
    shared: &Shared,
    namespace: &Namespace,
    newest: Option<u64>,
    shown: &[PageEntry],
    values: bool,
) -> Result<Vec<PageEntry>> {
    let shown: HashSet<&Key> = shown.iter().map(|entry| &entry.position.key).collect();
    let state = shared.read_state()?;
    let created = state.index.after(namespace, None);
    let created = created.take_while(|(_, entry)| Some(entry.created) > newest);
    let created = created.filter(|(key, _)| !shown.contains(key)).map(|(key, entry)| {
        let position = Position { created: entry.created, key: key.clone() };
        let id = namespace.entry(key);
        let content = values.then(|| content(shared, &state, &id, entry.about)).transpose()?;
        Ok((position, content))
    });
    let created = created.collect::<Result<Vec<_>>>()?;
    drop(state);
    let read = created.into_iter().map(|(position, content)| {
        let value = content.map(|content| content.read(shared)).transpose()?;
        Ok(PageEntry { position, value })
    });
    read.collect()
}

/// Lists every entry of every namespace, some thousand at a time.
pub(crate) fn list_all(shared: &Shared) -> Result<Vec<EntryInfo>> {
    let mut all: Vec<EntryInfo> = Vec::new();
    let mut at: Option<Namespace> = None;
    loop {
        let state = shared.read_state()?;
        let mut listed = 0;
        let large = loop {
            let Some(namespace) = state.index.namespaces_after(at.as_ref()).next() else {
                return Ok(all);
            };
            let entries = state.index.after(namespace, None).take(NAMES_AT_ONCE);
            let infos = entries.map(|(key, entry)| EntryInfo {
                id: namespace.entry(key),
                value_len: entry.about,
                created: entry.created,
            });
            let before = all.len();
            all.extend(infos);
            let found = all.len() - before;
            at = Some(namespace.clone());
            listed += found;
            if found == NAMES_AT_ONCE {
                all.truncate(before);
                break true;
            }
            if listed >= NAMES_AT_ONCE {
                break false;
            }
        };
        drop(state);
        if large && let Some(namespace) = &at {
            for entry in page(shared, namespace, None, usize::MAX, false)? {
                all.extend(info(shared, namespace, &entry.position)?);
            }
        }
    }
}

/// What is known of an entry that was listed a moment ago, unless it was removed meanwhile.
fn info(shared: &Shared, namespace: &Namespace, at: &Position) -> Result<Option<EntryInfo>> {
    let id = namespace.entry(&at.key);
    let state = shared.read_state()?;
    let found = state.index.get(&id).map(|entry| (entry.about, entry.created));
    Ok(found.map(|(value_len, created)| EntryInfo { id, value_len, created }))
}
