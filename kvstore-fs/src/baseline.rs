//! What some of the files are when a journal begins.
//!
//! The first record of a journal counts as checkpointed, so a recovery compares it with the files
//! like every other such record. Without it, an old copy that is put over the files would pass for
//! them until the journal has checkpointed records of its own (contract G4).

use kvstore_core::{EntryId, Result};

use crate::reader;
use crate::record::{Change, NewState, Spooled, Value, encode};
use crate::shared::Shared;

/// How many entries are looked at, of each namespace and in all.
const OF_EACH: usize = 8;
const IN_ALL: usize = 512;

/// How many bytes of values are read for it.
const BYTES: u64 = 8 << 20;

/// The payload of the first record, of so many bytes at most: length and checksum of the newest
/// entries of every namespace. Nothing may be dirty.
pub(crate) fn payload(shared: &Shared, max_len: usize) -> Result<Vec<u8>> {
    let (mut payload, mut bytes) = (Vec::new(), BYTES);
    for (id, created, len) in entries(shared)? {
        if len > bytes {
            continue;
        }
        bytes -= len;
        let value =
            Value::Spooled(Spooled { number: 0, offset: 0, len, crc: checksum(shared, &id)? });
        let change = encode(&[Change { id, new: NewState::Value { created, value } }]);
        if payload.len() + change.len() > max_len {
            break;
        }
        payload.extend(change);
    }
    Ok(payload)
}

fn entries(shared: &Shared) -> Result<Vec<(EntryId, u64, u64)>> {
    let state = shared.read_state()?;
    let newest = state.index.namespaces().flat_map(|namespace| {
        let entries = state.index.after(namespace, None).take(OF_EACH);
        entries.map(move |(key, entry)| (namespace.entry(key), entry.created, entry.about))
    });
    Ok(newest.take(IN_ALL).collect())
}

fn checksum(shared: &Shared, id: &EntryId) -> Result<u32> {
    // Only the one who writes removes entries, and it is here.
    Ok(reader::get(shared, id)?.map_or(0, |value| crc32fast::hash(&value)))
}
