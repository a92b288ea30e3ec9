//! Putting what the journal holds in its place, in the background.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use kvstore_core::local::create_dir_all;
use kvstore_core::{EntryId, Error, ErrorKind, Result};

use crate::disk::{self, Flusher};
use crate::error::{error, io, named};
use crate::journal::Placer;
use crate::layout::Layout;
use crate::record::{After, Value};
use crate::spool::spool_path;
use crate::state::{Pending, State};

/// What the committer and the checkpoint's thread tell each other.
pub(crate) struct Progress {
    state: Mutex<Stand>,
    changed: Condvar,
}

struct Stand {
    /// Everything up to here shall be put in place.
    wanted: u64,
    /// Everything up to here is.
    placed: u64,
    failure: Option<Error>,
    placer: Option<Placer>,
    /// The thread shall end.
    ended: bool,
    /// It has ended, as it was told to or not.
    gone: bool,
}

impl Progress {
    pub(crate) fn new(placed: u64) -> Self {
        let state = Stand {
            wanted: placed,
            placed,
            failure: None,
            placer: None,
            ended: false,
            gone: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Stand> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the thread the journal whose headers it is to write.
    pub(crate) fn attach(&self, placer: Placer) {
        self.lock().placer = Some(placer);
    }

    /// Asks for everything up to `sequence` to be put in place; does not wait.
    pub(crate) fn request(&self, sequence: u64) {
        let mut stand = self.lock();
        if sequence > stand.wanted {
            stand.wanted = sequence;
            // What failed before may work now: there may be room again.
            stand.failure = stand.failure.take().filter(|failure| failure.kind().poisons());
            drop(stand);
            self.changed.notify_all();
        }
    }

    /// Waits until everything up to `sequence` is in place.
    ///
    /// # Errors
    /// Why it cannot be. After a failed flush it never will be; otherwise the next call tries again.
    pub(crate) fn wait_for(&self, sequence: u64) -> Result<()> {
        self.request(sequence);
        let mut stand = self.lock();
        let mut tried_again = false;
        while stand.placed < sequence {
            match &stand.failure {
                Some(failure) if failure.kind().poisons() || tried_again => {
                    return Err(failure.clone());
                }
                Some(_) => {
                    tried_again = true;
                    stand.failure = None;
                    self.changed.notify_all();
                }
                None if stand.gone => {
                    let message = "the thread that puts files in place died; reopen the store";
                    return Err(error(ErrorKind::Poisoned, "checkpoint", message));
                }
                None => {}
            }
            stand = self.changed.wait(stand).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Up to which sequence number everything is in place.
    ///
    /// # Errors
    /// What stops the store.
    pub(crate) fn placed(&self) -> Result<u64> {
        let stand = self.lock();
        match &stand.failure {
            Some(failure) if failure.kind().poisons() => Err(failure.clone()),
            _ => Ok(stand.placed),
        }
    }

    /// Lets the thread end.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<u64> {
        let mut stand = self.lock();
        loop {
            if stand.ended {
                return None;
            }
            if stand.wanted > stand.placed && stand.failure.is_none() {
                return Some(stand.wanted);
            }
            stand = self.changed.wait(stand).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn advance(&self, sequence: u64) {
        self.lock().placed = sequence;
        self.changed.notify_all();
    }

    fn fail(&self, failure: Error) {
        self.lock().failure = Some(failure.clone());
        self.changed.notify_all();
        // Without the lock: a subscriber may use the store itself.
        tracing::error!(error = %failure, "files could not be put in place");
    }

    /// Whether there is a journal to mark.
    fn marks(&self) -> bool {
        self.lock().placer.is_some()
    }

    fn mark(&self, sequence: u64) -> Result<()> {
        let placer = self.lock().placer.take();
        let Some(mut placer) = placer else { return Ok(()) };
        let marked = placer.mark(sequence);
        self.lock().placer = Some(placer);
        marked
    }
}

/// Lets nobody wait for a thread that has ended.
struct Gone(Arc<Progress>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.lock().gone = true;
        self.0.changed.notify_all();
    }
}

/// Puts files in place.
pub(crate) struct Checkpoint {
    pub(crate) root: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) progress: Arc<Progress>,
    /// Namespaces whose directories are there.
    pub(crate) made: HashSet<PathBuf>,
    pub(crate) temporaries: u64,
}

impl Checkpoint {
    pub(crate) fn run(mut self) {
        let _gone = Gone(Arc::clone(&self.progress));
        while let Some(sequence) = self.progress.next() {
            if let Err(failure) = self.place(sequence) {
                self.progress.fail(stop_after_flush(failure));
            }
        }
    }

    /// Puts the newest state of every entry that the journal changed up to `sequence` in place, a
    /// step at a time, so that a writer who needs room waits for one step only.
    pub(crate) fn place(&mut self, sequence: u64) -> Result<()> {
        let due = self.due(sequence);
        let mut rest = due.as_slice();
        while !rest.is_empty() {
            let (step, later) = rest.split_at(step_len(rest));
            rest = later;
            // Everything up to the first that is left.
            let reached = rest.first().map_or(sequence, |next| next.sequence - 1);
            self.step(step, reached)?;
        }
        self.progress.advance(sequence);
        Ok(())
    }

    /// Puts these entries in place as they are at `sequence`, makes that durable, and says so in the
    /// journal.
    fn step(&mut self, due: &[Due], sequence: u64) -> Result<()> {
        let due = self.still_due(due);
        let (removed, written): (Vec<_>, Vec<_>) =
            due.iter().partition(|(_, pending)| pending.after == After::Removed);
        let mut touched = HashSet::new();
        // First, for the first layout: what was an entry may have to be a directory now.
        for (id, _) in &removed {
            self.unlink(id, &mut touched)?;
        }
        let mut names = Vec::with_capacity(written.len());
        if let Err(failure) = self.write(&written, &mut names, &mut touched) {
            // They take room that a full disk may need for something else.
            names.iter().for_each(|(temporary, _)| drop(fs::remove_file(temporary)));
            return Err(failure);
        }
        for directory in &touched {
            disk::sync_dir(directory)?;
        }
        self.progress.mark(sequence)?;
        self.forget(&due, sequence);
        self.progress.advance(sequence);
        Ok(())
    }

    /// Writes, flushes and renames the files of entries that have a value.
    fn write(
        &mut self,
        written: &[&(EntryId, Pending)],
        names: &mut Vec<(PathBuf, PathBuf)>,
        touched: &mut HashSet<PathBuf>,
    ) -> Result<()> {
        let flusher = Flusher::new(&self.root, written.len())?;
        for (id, pending) in written {
            let After::Value { created, value } = &pending.after else { continue };
            let target = self.target(id, touched)?;
            let temporary = self.temporary(&target);
            let file = match value {
                Value::Inline(bytes) => Some(disk::write_new(&temporary, bytes, *created)?),
                Value::Spooled(spooled) => {
                    let spool = spool_path(&self.root, spooled.number);
                    disk::link_or_copy(&spool, &temporary, *created)?
                }
            };
            names.push((temporary, target));
            if let (Some(file), Some((temporary, _))) = (file, names.last()) {
                flusher.written(&file, temporary)?;
            }
        }
        flusher.finish()?;
        for (from, to) in names.iter() {
            fs::rename(from, to).map_err(|source| io("checkpoint", to, source))?;
        }
        Ok(())
    }

    /// Lets go of what is in place, and of spool files that nothing names any more.
    fn forget(&self, due: &[(EntryId, Pending)], sequence: u64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        due.iter().for_each(|(id, pending)| state.placed(id, pending.sequence));
        let obsolete = state.take_obsolete(sequence);
        drop(state);
        if !self.progress.marks() {
            // A recovery: until it is through, the journal names them, and it may crash itself.
            return;
        }
        for number in obsolete {
            // One that stays is removed at close.
            let _ = fs::remove_file(spool_path(&self.root, number));
        }
    }

    /// The entries to put in place, by the sequence number of their newest change.
    fn due(&self, sequence: u64) -> Vec<Due> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let due = state.pending.iter().filter(|(_, pending)| pending.sequence <= sequence);
        let due = due.map(|(id, pending)| Due {
            sequence: pending.sequence,
            bytes: pending.bytes(),
            id: id.clone(),
        });
        let mut due: Vec<_> = due.collect();
        due.sort_unstable_by_key(|due| due.sequence);
        due
    }

    /// Without those that were changed again meanwhile: the journal has their newer state.
    fn still_due(&self, due: &[Due]) -> Vec<(EntryId, Pending)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let still = due.iter().filter_map(|due| {
            let pending = state.pending.get(&due.id)?;
            (pending.sequence == due.sequence).then(|| (due.id.clone(), pending.clone()))
        });
        still.collect()
    }

    fn unlink(&self, id: &EntryId, touched: &mut HashSet<PathBuf>) -> Result<()> {
        let path = self.layout.file(&self.root, id);
        match fs::remove_file(&path) {
            Err(source) if is_absence(&source) => {}
            // In the first layout a namespace may have taken the name.
            Err(_) if path.is_dir() => {}
            removed => removed.map_err(|source| io("checkpoint", &path, source))?,
        }
        // Even if it was gone: a process that died may have removed it and not flushed that.
        let directory = self.layout.directory(&self.root, &id.namespace());
        if directory.is_dir() {
            touched.insert(directory);
        }
        Ok(())
    }

    /// The file of an entry, in a directory that is there.
    fn target(&mut self, id: &EntryId, touched: &mut HashSet<PathBuf>) -> Result<PathBuf> {
        let directory = self.layout.directory(&self.root, &id.namespace());
        if !self.made.contains(&directory) {
            create_dir_all(&directory).map_err(named)?;
            // One that is there may have been made by a process that died before it flushed that.
            let above =
                directory.ancestors().skip(1).take_while(|path| path.starts_with(&self.root));
            touched.extend(above.map(Path::to_path_buf));
            self.made.insert(directory.clone());
        }
        touched.insert(directory);
        let path = self.layout.file(&self.root, id);
        if self.layout == Layout::V1 && path.is_dir() {
            // The namespace of that name is empty, or the entry would have been refused.
            remove_empty_directories(&path)?;
            self.made.retain(|made| !made.starts_with(&path));
            touched.retain(|directory| !directory.starts_with(&path));
        }
        Ok(path)
    }

    /// Named as LDK's own stores name theirs, so that they ignore it.
    fn temporary(&mut self, target: &Path) -> PathBuf {
        self.temporaries += 1;
        target.with_extension(format!("{}.tmp", self.temporaries))
    }
}

/// An entry that is to be put in place.
struct Due {
    sequence: u64,
    bytes: usize,
    id: EntryId,
}

/// The most files that are put in place in one step.
const STEP_FILES: usize = 256;
/// So many bytes are enough for one step.
const STEP_BYTES: usize = 2 << 20;

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

/// A flush that failed after the groups were acknowledged: they are in the journal, so nothing is in
/// doubt, but nothing more can be put in place.
fn stop_after_flush(failure: Error) -> Error {
    if failure.kind() != ErrorKind::InDoubt {
        return failure;
    }
    let message = format!("{}; what was acknowledged is in the journal", failure.message());
    error(ErrorKind::Poisoned, "checkpoint", message).with_source(failure)
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Removes a directory that holds nothing but directories.
fn remove_empty_directories(path: &Path) -> Result<()> {
    let failed = |source| io("checkpoint", path, source);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            remove_empty_directories(&entry.path())?;
        } else {
            // A temporary file of a crash; anything else fails below.
            let name = entry.file_name();
            if name.to_string_lossy().ends_with(".tmp") {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
    }
    fs::remove_dir(path).map_err(failed)
}
