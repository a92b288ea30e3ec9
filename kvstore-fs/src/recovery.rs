//! What an earlier owner left, and tidying up behind this one.

use std::fs;
use std::path::Path;

use kvstore_core::Result;

use crate::disk;
use crate::error::{corrupted, io};
use crate::journal::{self, Kind, Record, Replay};
use crate::layout::Found;
use crate::record::{self, After, Change};
use crate::spool::{SPOOL, read_spooled};
use crate::state::State;
use crate::writer::Writer;

/// Fills the index, and gives the largest creation number: the files' modification time. LDK's files
/// of one millisecond share one, and pages show them by key.
pub(crate) fn index(state: &mut State, files: Vec<Found>) -> u64 {
    let mut last = 0;
    for Found { id, len, modified } in files {
        state.index.insert(&id, modified, len);
        last = last.max(modified);
    }
    last
}

/// Takes over what the journal holds and the files may not.
pub(crate) fn replay(
    root: &Path,
    journaled: Option<Replay>,
    state: &mut State,
    writer: &mut Writer,
) -> Result<()> {
    let Some(replay) = journaled else { return Ok(()) };
    writer.last_sequence = replay.last;
    for record in replay.records {
        for change in changes_of(root, &record)? {
            if let After::Value { created, .. } = &change.after {
                writer.last_created = writer.last_created.max(*created);
            }
            state.apply(record.sequence, change);
        }
    }
    Ok(())
}

fn changes_of(root: &Path, record: &Record) -> Result<Vec<Change>> {
    let path = root.join(journal::FILE_NAME);
    let unreadable = || corrupted("open", &path, "a record of the journal makes no sense");
    let payload = match record.kind {
        Kind::Inline => record.payload.clone(),
        Kind::Spooled => {
            let spooled = record::decode_spooled(&record.payload).ok_or_else(unreadable)?;
            read_spooled(root, &spooled)?
        }
    };
    record::decode(&payload).ok_or_else(unreadable)
}

/// Removes the journal and the spool files once nothing in them is needed. The journal first and
/// durably, since it names spool files.
pub(crate) fn remove_own_files(root: &Path) -> Result<()> {
    for names in [&[journal::FILE_NAME, journal::TEMPORARY_NAME][..], &[SPOOL]] {
        let mut removed = false;
        for path in names.iter().map(|name| root.join(name)) {
            let gone =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match gone {
                Ok(()) => removed = true,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(io("close", &path, source)),
            }
        }
        if removed {
            disk::sync_dir(root)?;
        }
    }
    Ok(())
}
