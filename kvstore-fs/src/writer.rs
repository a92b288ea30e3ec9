//! From a group of mutations to a record in the journal.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use kvstore_core::{Bytes, EntryId, ErrorKind, MAX_VALUE_LEN, Mutation, Result};

use crate::baseline;
use crate::error::{error, flush, io};
use crate::journal::{self, Journal, Kind};
use crate::layout::{EMPTY, Layout};
use crate::options::FsOptions;
use crate::record::{self, Change, NewState, Spooled, Value};
use crate::shared::{Shared, closed};
use crate::spool::SpoolWriter;
use crate::state::State;

/// What only the one who commits changes.
pub(crate) struct Writer {
    journal: Option<Journal>,
    pub(crate) last_sequence: u64,
    /// The largest creation number given out.
    last_created: u64,
    spool: SpoolWriter,
    /// More values than the options allow were in memory after the last commit.
    is_over_memory: bool,
}

/// A group that is in the journal.
struct Committed {
    changes: Vec<Change>,
    /// The spool file that the record itself is.
    payload: Option<Spooled>,
}

impl Writer {
    /// Goes on after the numbers that are in use.
    pub(crate) fn new(
        journal: Option<Journal>,
        last_sequence: u64,
        last_created: u64,
        last_spooled: u64,
    ) -> Self {
        let spool = SpoolWriter::new(last_spooled);
        Self { journal, last_sequence, last_created, spool, is_over_memory: false }
    }

    pub(crate) fn commit(&mut self, shared: &Shared, mutations: &[Mutation]) -> Result<()> {
        let last_created = self.last_created;
        let mut result = self.try_commit(shared, mutations);
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::StorageFull)
            && self.make_room(shared)?
        {
            self.last_created = last_created;
            result = self.try_commit(shared, mutations);
        }
        if result.is_err() {
            self.last_created = last_created;
        }
        result
    }

    fn try_commit(&mut self, shared: &Shared, mutations: &[Mutation]) -> Result<()> {
        let checkpointed = shared.checkpoint.checkpointed()?;
        if let Some(journal) = &mut self.journal {
            journal.release(checkpointed);
        }
        self.wait_for_memory(shared)?;
        match self.journal(shared, mutations) {
            Ok(committed) => {
                self.spool.keep();
                self.show(shared, committed);
                Ok(())
            }
            Err(full) if full.kind() == ErrorKind::StorageFull && self.journal.is_none() => {
                match mutations {
                    [Mutation::Remove { id }] => remove_at_once(shared, id),
                    _ => Err(full),
                }
            }
            Err(failure) => {
                if !failure.kind().poisons() {
                    self.spool.discard(&shared.spool);
                }
                Err(failure)
            }
        }
    }

    /// Waits while more values than the options allow are kept in memory (contract G1).
    fn wait_for_memory(&self, shared: &Shared) -> Result<()> {
        if !self.is_over_memory {
            return Ok(());
        }
        shared.checkpoint.request(self.last_sequence);
        shared.checkpoint.wait_until(|_| {
            let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
            !is_over_memory(&state, &shared.options)
        })
    }

    /// Waits while there are more bytes of spool files than the options allow (contract G2). What
    /// the group at hand wrote itself does not count.
    fn wait_for_spool(&self, shared: &Shared, bytes: usize) -> Result<()> {
        let limit = shared.options.spool_bytes;
        let is_enough = |_| {
            let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
            state.spool_bytes == 0 || state.spool_bytes.saturating_add(bytes as u64) <= limit
        };
        if is_enough(0) {
            return Ok(());
        }
        shared.checkpoint.request(self.last_sequence);
        shared.checkpoint.request_collection();
        shared.checkpoint.wait_until(is_enough)
    }

    /// On a full disk: removes what is not needed any more. Whether that may have helped.
    fn make_room(&self, shared: &Shared) -> Result<bool> {
        let state = shared.read_state()?;
        let may_help = !state.dirty.is_empty() || state.spool_bytes > 0;
        drop(state);
        if may_help {
            shared.checkpoint.request_collection();
            shared.checkpoint.request(self.last_sequence);
            // Until all of it is done. That it has no room itself is not what the caller has to hear.
            let _ = shared.checkpoint.wait_until(|_| false);
        }
        Ok(may_help)
    }

    /// Makes the mutations durable in the journal.
    fn journal(&mut self, shared: &Shared, mutations: &[Mutation]) -> Result<Committed> {
        let mut changes = self.changes(shared, mutations)?;
        let mut payload = record::encode(&changes);
        let (mut kind, mut payload_file) = (Kind::Inline, None);
        if payload.len() > self.journal_of(shared)?.max_payload() {
            self.wait_for_spool(shared, payload.len())?;
            let spooled = self.spool.write(&shared.root, &shared.spool, &payload, 0)?;
            let whole = Bytes::from(std::mem::take(&mut payload));
            // What was encoded just now.
            changes = record::decode_in_spool_file(&whole, spooled.number).unwrap_or(changes);
            record::encode_spooled(&spooled, &mut payload);
            (kind, payload_file) = (Kind::Spooled, Some(spooled));
        }
        let journal = self.journal_of(shared)?;
        if let Some(needed) = journal.needs_checkpointed(payload.len()) {
            shared.checkpoint.wait_for(needed)?;
            journal.release(needed);
        }
        let sequence = self.last_sequence + 1;
        let journal = self.journal_of(shared)?;
        journal.append(sequence, kind, &payload)?;
        self.last_sequence = sequence;
        Ok(Committed { changes, payload: payload_file })
    }

    /// The journal, made if there is none.
    fn journal_of(&mut self, shared: &Shared) -> Result<&mut Journal> {
        if self.journal.is_none() {
            self.create_journal(shared)?;
        }
        self.journal.as_mut().ok_or_else(closed)
    }

    fn create_journal(&mut self, shared: &Shared) -> Result<()> {
        let Shared { root, layout, options, .. } = shared;
        if *layout == Layout::V2 && !root.has(EMPTY).is_ok_and(|has| has) {
            let failed = |source| io("commit", &root.join(EMPTY), source);
            root.create_subdirectory(EMPTY).map_err(failed)?;
            root.sync()?;
        }
        let sequence = self.last_sequence + 1;
        let create = |bytes| {
            let baseline = baseline::payload(shared, Journal::max_payload_of(bytes))?;
            Journal::create(root, *layout, bytes, sequence, &baseline)
        };
        let (journal, headers) = match create(options.journal_bytes) {
            // A small one is enough to remove entries, which makes room.
            Err(full) if full.kind() == ErrorKind::StorageFull => {
                create(journal::MIN_BYTES).map_err(|_| full)?
            }
            created => created?,
        };
        shared.checkpoint.attach(headers);
        shared.checkpoint.advance(sequence);
        self.last_sequence = sequence;
        self.journal = Some(journal);
        Ok(())
    }

    fn changes(&mut self, shared: &Shared, mutations: &[Mutation]) -> Result<Vec<Change>> {
        let known = known_numbers(shared, mutations);
        let mut changes = Vec::with_capacity(mutations.len());
        for (mutation, known) in mutations.iter().zip(known) {
            let id = mutation.id().clone();
            let new = match mutation {
                Mutation::Remove { .. } => NewState::Removed,
                Mutation::Put { value, renew, .. } => {
                    let known = known.filter(|_| !renew);
                    let created = known.unwrap_or_else(|| {
                        self.last_created = next_created(self.last_created, shared.time_unit);
                        self.last_created
                    });
                    let value = self.value(shared, value, created)?;
                    NewState::Value { created, value }
                }
            };
            changes.push(Change { id, new });
        }
        check_paths(shared, &changes)?;
        Ok(changes)
    }

    fn value(&mut self, shared: &Shared, value: &Bytes, created: u64) -> Result<Value> {
        if value.len() > MAX_VALUE_LEN {
            let len = value.len();
            let message = format!("{len} bytes are more than the {MAX_VALUE_LEN} that fit");
            return Err(error(ErrorKind::ValueTooLarge, "commit", message));
        }
        if value.len() < shared.options.large_value_bytes {
            return Ok(Value::Inline(value.clone()));
        }
        self.wait_for_spool(shared, value.len())?;
        self.spool.write(&shared.root, &shared.spool, value, created).map(Value::Spooled)
    }

    /// Shows what is durable to readers, and asks for a checkpoint where one is due.
    fn show(&mut self, shared: &Shared, committed: Committed) {
        let Committed { changes, payload } = committed;
        let sequence = self.last_sequence;
        let mut state = shared.write_state();
        for change in changes {
            if let Some(spooled) = change.new.spooled().filter(|spooled| spooled.offset == 0) {
                state.add_spool_file(spooled);
            }
            state.apply(sequence, change);
        }
        if let Some(payload) = payload {
            state.add_spooled_record(&payload, sequence);
        }
        let has_obsolete = state.has_obsolete();
        let is_spool_filling = state.spool_bytes > shared.options.spool_bytes / 2;
        self.is_over_memory = is_over_memory(&state, &shared.options);
        drop(state);
        if has_obsolete {
            shared.checkpoint.request_collection();
        }
        let is_filling = self.journal.as_ref().is_some_and(Journal::is_filling);
        if is_filling || is_spool_filling || self.is_over_memory {
            shared.checkpoint.request(sequence);
        }
    }
}

/// Removes one entry where there is no room for a journal, so that removing entries can make some.
/// One file is atomic by itself, and without a journal nothing comes before it.
fn remove_at_once(shared: &Shared, id: &EntryId) -> Result<()> {
    let Shared { root, layout, .. } = shared;
    // For one flush: a reader would find the entry in the index and its file gone.
    let mut state = shared.write_state();
    if state.index.get(id).is_none() {
        return Ok(());
    }
    let mut directories = shared.directories.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(directory) = directories.find(root, *layout, &id.namespace())? {
        let failed = |source| io("commit", &directory.join(id.key()), source);
        // Before anything is changed: there may be no descriptor left for it.
        let names = directory.try_clone_file().map_err(failed)?;
        directory.remove_file(id.key()).map_err(failed)?;
        names.sync_all().map_err(|source| flush("commit", directory.path(), source))?;
    }
    state.index.remove(id);
    Ok(())
}

fn is_over_memory(state: &State, options: &FsOptions) -> bool {
    match options.pending_bytes {
        0 => !state.dirty.is_empty(),
        limit => state.dirty_bytes > limit,
    }
}

/// The creation numbers of those entries that are there.
fn known_numbers(shared: &Shared, mutations: &[Mutation]) -> Vec<Option<u64>> {
    let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
    let created = |mutation: &Mutation| Some(state.index.get(mutation.id())?.created);
    mutations.iter().map(created).collect()
}

/// Refuses entries whose files something else keeps from being made (contract N6).
fn check_paths(shared: &Shared, changes: &[Change]) -> Result<()> {
    let refuse = |id: &EntryId, message: String| {
        Err(error(ErrorKind::InvalidInput, "commit", message).with_entry(id))
    };
    if !shared.taken.is_empty() {
        let puts = changes.iter().filter(|change| change.new != NewState::Removed);
        for Change { id, .. } in puts {
            let path = shared.layout.file(id);
            if shared.taken.contains(&path) {
                let path = shared.root.join(path);
                let message = format!(
                    "{} is a directory that is not the store's; move it away, or use another name",
                    path.display()
                );
                return refuse(id, message);
            }
        }
    }
    if shared.layout == Layout::V2 {
        return Ok(());
    }
    let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
    match state.conflict(shared.layout, changes) {
        None => Ok(()),
        Some((id, other)) => refuse(
            &id,
            format!(
                "the entry {other} is in the way: LDK's first directory layout cannot hold a key \
                 and a namespace of one name; use the second layout, or another name"
            ),
        ),
    }
}

/// A creation number above `last`, in whole units: the milliseconds of the clock, unless they are
/// taken.
pub(crate) fn next_created(last: u64, unit: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(0);
    let next = last.saturating_add(unit);
    (now - now % unit).max(next - next % unit)
}
