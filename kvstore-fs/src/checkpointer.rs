//! The checkpoint: a thread that brings dirty entries from the journal into files of their own, and
//! removes spool files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kvstore_core::local::Directory;
use kvstore_core::{EntryId, Error, ErrorKind, Namespace, Result, log};

use crate::checkpoint_state::Work;
use crate::error::{error, io};
use crate::files::{self, Flusher};
use crate::layout::Layout;
use crate::namespaces::NamespaceDirectories;
use crate::record::{NewState, Spooled, Value};
use crate::shared::Shared;
use crate::state::DirtyEntry;

/// Starts the thread.
pub(crate) fn spawn(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let checkpointer = Checkpointer { shared, temporaries: 0, is_moved: false };
    let builder = std::thread::Builder::new().name("kvstore-fs-checkpoint".into());
    builder.spawn(move || checkpointer.run()).map_err(|source| {
        error(ErrorKind::Unavailable, "open", "the system refuses another thread")
            .with_source(source)
    })
}

struct Checkpointer {
    shared: Arc<Shared>,
    temporaries: u64,
    /// Whether it was said that the store's path does not lead to it any more.
    is_moved: bool,
}

/// Entries of one namespace.
type Entries = BTreeMap<Namespace, Vec<(EntryId, DirtyEntry)>>;

/// An entry that is to be checkpointed.
struct Due {
    sequence: u64,
    bytes: u64,
    id: EntryId,
}

/// The most files that are written before they are flushed.
const STEP_FILES: usize = 256;
/// So many bytes are enough for one step.
const STEP_BYTES: u64 = 2 << 20;

/// Lets nobody wait for a thread that has ended.
struct ThreadEnd<'a>(&'a Shared);

impl Drop for ThreadEnd<'_> {
    fn drop(&mut self) {
        self.0.checkpoint.thread_has_ended();
    }
}

impl Checkpointer {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _end = ThreadEnd(&shared);
        while let Some(work) = shared.checkpoint.next() {
            match self.perform(&work) {
                Ok(()) => shared.checkpoint.succeed(),
                Err(failure) => shared.checkpoint.fail(&work, stop_after_flush(failure)),
            }
        }
    }

    fn perform(&mut self, work: &Work) -> Result<()> {
        // First, since it makes room for the rest.
        self.collect()?;
        if let Some(sequence) = work.sequence {
            self.warn_if_moved();
            self.checkpoint(sequence)?;
        }
        Ok(())
    }

    /// Removes spool files that nothing refers to.
    fn collect(&self) -> Result<()> {
        let obsolete = self.shared.write_state().take_obsolete();
        if obsolete.is_empty() {
            return Ok(());
        }
        let (mut removed, mut kept, mut failure) = (0, Vec::new(), Ok(()));
        for (number, bytes) in obsolete {
            match self.shared.spool.remove(number) {
                Ok(()) => removed += bytes,
                Err(error) => {
                    kept.push((number, bytes));
                    failure = Err(error);
                }
            }
        }
        self.shared.write_state().removed_spool_files(removed, kept);
        failure
    }

    fn warn_if_moved(&mut self) {
        let root = &self.shared.root;
        if !self.is_moved && !root.is_at_its_path() {
            self.is_moved = true;
            let path = root.path().display();
            log(|| {
                tracing::warn!(
                    %path,
                    "the path does not lead to the store any more: it was moved, or its disk \
                     unmounted; the store goes on where it is"
                );
            });
        }
    }

    /// Writes the newest state of every entry that the journal changed up to `sequence`, a step at a
    /// time, so that a writer who needs room waits for one step only.
    fn checkpoint(&mut self, sequence: u64) -> Result<()> {
        let due = self.due(sequence);
        // First of all, since it makes room, and since what was an entry may have to be a directory
        // now in the first layout. Their records are durable.
        let removed = self.still_due(&due).into_iter();
        let removed = removed.filter(|(_, dirty)| dirty.new == NewState::Removed).collect();
        for (namespace, entries) in by_namespace(removed) {
            self.unlink(&namespace, &entries)?;
        }
        let mut rest = due.as_slice();
        while !rest.is_empty() {
            let (step, later) = rest.split_at(step_len(rest));
            rest = later;
            // Everything up to the first that is left.
            let reached = rest.first().map_or(sequence, |next| next.sequence - 1);
            self.step(step, reached)?;
        }
        if due.is_empty() {
            // All of it was changed again since: the journal's header must follow all the same, or
            // the writer would use room that a recovery looks for records in.
            self.advance(&[], sequence)?;
        }
        Ok(())
    }

    /// The entries to checkpoint, by the sequence number of their newest change.
    fn due(&self, sequence: u64) -> Vec<Due> {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        let due = state.dirty.iter().filter(|(_, dirty)| dirty.sequence <= sequence);
        let due = due.map(|(id, dirty)| Due {
            sequence: dirty.sequence,
            bytes: dirty.bytes_to_write(),
            id: id.clone(),
        });
        let mut due: Vec<_> = due.collect();
        drop(state);
        due.sort_unstable_by_key(|due| due.sequence);
        due
    }

    /// Checkpoints these entries as they are at `sequence`, makes that durable, and says so in the
    /// journal.
    fn step(&mut self, due: &[Due], sequence: u64) -> Result<()> {
        let due = self.still_due(due);
        let written = due.iter().filter(|(_, dirty)| dirty.new != NewState::Removed);
        let mut rest: Vec<_> = written.cloned().collect();
        while !rest.is_empty() {
            let later = rest.split_off(chunk_len(&rest));
            self.write_chunk(rest)?;
            rest = later;
        }
        self.advance(&due, sequence)
    }

    /// Writes some entries together, or one by one if there is no room for all of them twice.
    fn write_chunk(&mut self, entries: Vec<(EntryId, DirtyEntry)>) -> Result<()> {
        match self.write(&by_namespace(entries.clone())) {
            Err(full) if full.kind() == ErrorKind::StorageFull && entries.len() > 1 => {
                entries.into_iter().try_for_each(|entry| self.write(&by_namespace(vec![entry])))
            }
            written => written,
        }
    }

    /// Lets the writer use the journal's room up to `sequence`, once the header says so, and removes
    /// spool files that nothing needs any more.
    fn advance(&self, written: &[(EntryId, DirtyEntry)], sequence: u64) -> Result<()> {
        self.shared.checkpoint.write_header(sequence)?;
        let mut state = self.shared.write_state();
        written.iter().for_each(|(id, dirty)| state.checkpointed(id, dirty.sequence));
        state.release_records(sequence);
        drop(state);
        self.shared.checkpoint.advance(sequence);
        self.collect()
    }

    /// Without those that were changed again meanwhile: the journal has their newer state.
    fn still_due(&self, due: &[Due]) -> Vec<(EntryId, DirtyEntry)> {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        let still = due.iter().filter_map(|due| {
            let dirty = state.dirty.get(&due.id)?;
            (dirty.sequence == due.sequence).then(|| (due.id.clone(), dirty.clone()))
        });
        still.collect()
    }

    fn unlink(&self, namespace: &Namespace, entries: &[(EntryId, DirtyEntry)]) -> Result<()> {
        let Shared { root, layout, .. } = &*self.shared;
        let Some(directory) = self.directories().find(root, *layout, namespace)? else {
            return Ok(());
        };
        for (id, _) in entries {
            let failed = |source| io("checkpoint", &directory.join(id.key()), source);
            match directory.remove_file(id.key()) {
                Ok(()) => {}
                // In the first layout a namespace may have taken the name.
                Err(_) if directory.subdirectory(id.key()).is_ok() => {}
                Err(source) => return Err(failed(source)),
            }
        }
        // Even if they were gone: a process that died may have removed them and not flushed that.
        directory.sync()
    }

    /// Writes, flushes and renames the files of entries that have a value.
    fn write(&mut self, entries: &Entries) -> Result<()> {
        let mut temporaries = Vec::new();
        let written = self.write_temporaries(entries, &mut temporaries);
        if let Err(failure) = written.and_then(|()| self.rename(entries, &temporaries)) {
            self.discard(entries, &temporaries);
            return Err(failure);
        }
        Ok(())
    }

    /// Writes the values under temporary names, given in the order of the entries; `None` stands for
    /// one that is in its place already.
    fn write_temporaries(
        &mut self,
        entries: &Entries,
        temporaries: &mut Vec<Option<String>>,
    ) -> Result<()> {
        let Shared { root, layout, .. } = &*Arc::clone(&self.shared);
        let mut devices = Vec::with_capacity(entries.len());
        for namespace in entries.keys() {
            self.directories().make(root, *layout, namespace)?;
            devices.push(self.directories().device(*layout, namespace));
        }
        let files = entries.values().map(Vec::len).sum();
        let flusher = Flusher::new(root, files, &devices)?;
        for (namespace, entries) in entries {
            let directory = self.directories().make(root, *layout, namespace)?;
            for (id, dirty) in entries {
                let NewState::Value { created, value } = &dirty.new else { continue };
                if *layout == Layout::V1 {
                    let path = layout.file(id);
                    self.directories().remove_empty(&directory, &path, id.key())?;
                }
                let written = self.write_one(&flusher, &directory, id, value, *created)?;
                temporaries.push(written);
            }
        }
        flusher.finish()
    }

    fn write_one(
        &mut self,
        flusher: &Flusher,
        directory: &Directory,
        id: &EntryId,
        value: &Value,
        created: u64,
    ) -> Result<Option<String>> {
        // Named as LDK's own stores name theirs, so that they ignore it.
        self.temporaries += 1;
        let name = format!("{}.{}.tmp", id.key(), self.temporaries);
        let spooled;
        let bytes = match value {
            Value::Inline(bytes) => &bytes[..],
            Value::Spooled(found) => match self.link(directory, id, &name, found) {
                Linked::InPlace => return Ok(None),
                Linked::AsTemporary => return Ok(Some(name)),
                Linked::No => {
                    spooled = self.shared.spool.open("checkpoint", found)?.read("checkpoint")?;
                    &spooled
                }
            },
        };
        let file = files::write_new(directory, &name, bytes, created)?;
        flusher.written(&file, directory, &name)?;
        Ok(Some(name))
    }

    /// Gives a spool file a second name, where it is one value and the file system can.
    ///
    /// A rename would do with less, but before the flush of both directories it might be seen in
    /// neither.
    fn link(&self, directory: &Directory, id: &EntryId, name: &str, spooled: &Spooled) -> Linked {
        let Some(spool) = self.shared.spool.get() else { return Linked::No };
        let number = spooled.number.to_string();
        let is_whole = spooled.offset == 0
            && spool.metadata(&number).is_ok_and(|found| found.len() == spooled.len);
        if !is_whole {
            return Linked::No;
        }
        // A crash may have left both names, and rename(2) leaves two names of one file alone.
        let (in_spool, in_place) = (spool.identity_of(&number), directory.identity_of(id.key()));
        if let (Ok(in_spool), Ok(in_place)) = (in_spool, in_place)
            && in_spool == in_place
        {
            return Linked::InPlace;
        }
        match spool.hard_link(&number, directory, name) {
            Ok(()) => Linked::AsTemporary,
            Err(_) => Linked::No,
        }
    }

    /// Gives what was written its name, durably.
    fn rename(&self, entries: &Entries, temporaries: &[Option<String>]) -> Result<()> {
        let Shared { root, layout, .. } = &*self.shared;
        let mut temporaries = temporaries.iter();
        for (namespace, entries) in entries {
            let directory = self.directories().make(root, *layout, namespace)?;
            for (id, _) in entries {
                if let Some(Some(temporary)) = temporaries.next() {
                    directory
                        .rename(temporary, id.key())
                        .map_err(|source| io("checkpoint", &directory.join(id.key()), source))?;
                }
            }
            directory.sync()?;
            self.directories().flush_names(root, *layout, namespace)?;
        }
        Ok(())
    }

    /// Removes what was written: it takes room that a full disk may need for something else.
    fn discard(&self, entries: &Entries, temporaries: &[Option<String>]) {
        let Shared { root, layout, .. } = &*self.shared;
        let mut temporaries = temporaries.iter();
        for (namespace, entries) in entries {
            let directory = self.directories().find(root, *layout, namespace).ok().flatten();
            for temporary in temporaries.by_ref().take(entries.len()).flatten() {
                let _ = directory.as_ref().map(|directory| directory.remove_file(temporary));
            }
        }
    }

    fn directories(&self) -> MutexGuard<'_, NamespaceDirectories> {
        lock(&self.shared.directories)
    }
}

/// What became of a spool file that an entry's file can be.
enum Linked {
    /// It is the entry's file already.
    InPlace,
    AsTemporary,
    No,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn by_namespace(entries: Vec<(EntryId, DirtyEntry)>) -> Entries {
    let mut namespaces = Entries::new();
    for entry in entries {
        namespaces.entry(entry.0.namespace()).or_default().push(entry);
    }
    namespaces
}

/// How many of these make one step: whole groups, at least one.
fn step_len(due: &[Due]) -> usize {
    let mut bytes = 0;
    for (at, entry) in due.iter().enumerate() {
        let starts_group = at > 0 && due[at - 1].sequence != entry.sequence;
        if starts_group && (at >= STEP_FILES || bytes >= STEP_BYTES) {
            return at;
        }
        bytes += entry.bytes;
    }
    due.len()
}

/// How many of these are written before they are flushed, at least one.
fn chunk_len(entries: &[(EntryId, DirtyEntry)]) -> usize {
    let mut bytes = 0;
    let fits = |(at, (_, dirty)): (usize, &(EntryId, DirtyEntry))| {
        bytes += dirty.bytes_to_write();
        at == 0 || (at < STEP_FILES && bytes <= 2 * STEP_BYTES)
    };
    entries.iter().enumerate().map(fits).take_while(|fits| *fits).count()
}

/// A flush that failed after the groups were acknowledged: they are in the journal, so nothing is in
/// doubt, but nothing more can be checkpointed.
fn stop_after_flush(failure: Error) -> Error {
    if failure.kind() != ErrorKind::InDoubt {
        return failure;
    }
    let message = format!("{}; what was acknowledged is in the journal", failure.message());
    error(ErrorKind::Poisoned, "checkpoint", message).with_source(failure)
}
