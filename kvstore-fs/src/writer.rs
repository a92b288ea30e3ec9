//! From a group of mutations to a record in the journal.

use std::path::Path;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use kvstore_core::local::{OwnerLock, create_dir_all};
use kvstore_core::{Bytes, ErrorKind, MAX_VALUE_LEN, Mutation, Result};

use crate::backend::{FsBackend, closed};
use crate::disk;
use crate::error::{error, named};
use crate::journal::{Journal, Kind};
use crate::layout::Layout;
use crate::record::{self, After, Change, Spooled, Value};
use crate::spool::Spool;

/// What only the committer changes.
pub(crate) struct Writer {
    pub(crate) journal: Option<Journal>,
    pub(crate) last_sequence: u64,
    /// The largest creation number given out.
    pub(crate) last_created: u64,
    pub(crate) spool: Spool,
    pub(crate) checkpoint: Option<JoinHandle<()>>,
    pub(crate) _lock: OwnerLock,
}

impl Writer {
    pub(crate) fn new(root: &Path, last_created: u64, lock: OwnerLock) -> Self {
        Self {
            journal: None,
            last_sequence: 0,
            last_created,
            spool: Spool::new(root),
            checkpoint: None,
            _lock: lock,
        }
    }
}

impl FsBackend {
    pub(crate) fn commit_in(&self, writer: &mut Writer, mutations: &[Mutation]) -> Result<()> {
        let placed = self.progress.placed()?;
        if let Some(journal) = &mut writer.journal {
            journal.release(placed);
        }
        let last_created = writer.last_created;
        match self.journal(writer, mutations) {
            Ok((changes, payload)) => {
                writer.spool.keep();
                let pending = self.show(writer.last_sequence, changes, payload);
                let filling = writer.journal.as_ref().is_some_and(Journal::is_filling);
                if filling || pending > self.options.pending_bytes {
                    self.progress.request(writer.last_sequence);
                }
                Ok(())
            }
            Err(failure) => {
                writer.last_created = last_created;
                if !failure.kind().poisons() {
                    writer.spool.discard();
                }
                Err(failure)
            }
        }
    }

    /// Makes the mutations durable in the journal.
    fn journal(
        &self,
        writer: &mut Writer,
        mutations: &[Mutation],
    ) -> Result<(Vec<Change>, Option<Spooled>)> {
        let changes = self.changes(writer, mutations)?;
        let mut payload_file = None;
        let mut payload = record::encode(&changes);
        if writer.journal.is_none() {
            if let Some(mark) = self.layout.mark(&self.root) {
                create_dir_all(&mark).map_err(named)?;
                disk::sync_dir(&self.root)?;
            }
            let placed = writer.last_sequence;
            let journal =
                Journal::create(&self.root, self.layout, self.options.journal_bytes, placed)?;
            self.progress.attach(journal.placer()?);
            writer.journal = Some(journal);
        }
        let Writer { journal: Some(journal), spool, .. } = writer else {
            return Err(closed());
        };
        let mut kind = Kind::Inline;
        if payload.len() > journal.max_payload() {
            let content = spool.write(&payload, 0)?;
            payload.clear();
            record::encode_spooled(&content, &mut payload);
            kind = Kind::Spooled;
            payload_file = Some(content);
        }
        if let Some(needed) = journal.needs_placed(payload.len()) {
            self.progress.wait_for(needed)?;
            journal.release(needed);
        }
        journal.append(writer.last_sequence + 1, kind, &payload)?;
        writer.last_sequence += 1;
        Ok((changes, payload_file))
    }

    fn changes(&self, writer: &mut Writer, mutations: &[Mutation]) -> Result<Vec<Change>> {
        let kept = self.kept(mutations);
        let mut changes = Vec::with_capacity(mutations.len());
        for (mutation, kept) in mutations.iter().zip(kept) {
            let id = mutation.id().clone();
            let after = match mutation {
                Mutation::Remove { .. } => After::Removed,
                Mutation::Put { value, renew, .. } => {
                    let kept = kept.filter(|_| !renew);
                    let created = kept.unwrap_or_else(|| next_created(&mut writer.last_created));
                    let value = self.value(&mut writer.spool, value, created)?;
                    After::Value { created, value }
                }
            };
            changes.push(Change { id, after });
        }
        self.check(&changes)?;
        Ok(changes)
    }

    /// The creation numbers of those entries that are there.
    fn kept(&self, mutations: &[Mutation]) -> Vec<Option<u64>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let created = |mutation: &Mutation| Some(state.index.get(mutation.id())?.created);
        mutations.iter().map(created).collect()
    }

    /// Refuses what the first layout cannot hold (contract N6).
    fn check(&self, changes: &[Change]) -> Result<()> {
        if self.layout == Layout::V2 {
            return Ok(());
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter().filter(|change| change.after != After::Removed) {
            if let Some(other) = state.conflict(self.layout, &change.id, changes) {
                let message = format!(
                    "{other} is in the way: LDK's first directory layout cannot hold a key and a \
                     namespace of one name; use the second layout, or another name"
                );
                return Err(
                    error(ErrorKind::InvalidInput, "commit", message).with_entry(&change.id)
                );
            }
        }
        Ok(())
    }

    fn value(&self, spool: &mut Spool, value: &Bytes, created: u64) -> Result<Value> {
        if value.len() > MAX_VALUE_LEN {
            let len = value.len();
            let message = format!("{len} bytes are more than the {MAX_VALUE_LEN} that fit");
            return Err(error(ErrorKind::ValueTooLarge, "commit", message));
        }
        if value.len() < self.options.large_value_bytes {
            return Ok(Value::Inline(value.clone()));
        }
        spool.write(value, created).map(Value::Spooled)
    }

    /// Shows what is durable to readers, and gives the bytes that wait to be put in place.
    fn show(&self, sequence: u64, changes: Vec<Change>, payload: Option<Spooled>) -> usize {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| state.apply(sequence, change));
        if let Some(payload) = payload {
            state.obsolete_after(sequence, payload.number);
        }
        // A change counts even if its value is empty, so that a bound of 0 means every group.
        state.pending_bytes + state.pending.len()
    }
}

/// A creation number above all others: the milliseconds of the clock, unless they are taken.
fn next_created(last: &mut u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    *last = u64::try_from(now).unwrap_or(0).max(last.saturating_add(1));
    *last
}
