//! The directory behind the [`Backend`] trait.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use kvstore_core::local::{OwnerLock, create_dir_all, sync_ancestors};
use kvstore_core::{
    Backend, Bytes, EntryId, EntryInfo, Error, ErrorKind, MAX_VALUE_LEN, Mutation, Namespace,
    PageEntry, Position, Result, async_trait,
};

use crate::checkpoint::{Checkpoint, Progress};
use crate::disk;
use crate::error::{corrupted, error, io, named};
use crate::journal::{self, Journal, Kind, Record};
use crate::layout::{self, Found, Layout};
use crate::options::FsOptions;
use crate::record::{self, After, Change, Spooled, Value};
use crate::state::State;

/// A directory in LDK's layout with a journal; see the crate's page.
pub struct FsBackend {
    root: PathBuf,
    layout: Layout,
    options: FsOptions,
    state: Arc<RwLock<State>>,
    progress: Arc<Progress>,
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    journal: Option<Journal>,
    last_sequence: u64,
    /// The largest creation number given out.
    last_created: u64,
    last_spooled: u64,
    checkpoint: Option<JoinHandle<()>>,
    _lock: OwnerLock,
}

/// A creation number is the milliseconds of the file's modification time, and below them a rank
/// among files of one millisecond.
pub(crate) const CREATED_SHIFT: u32 = 20;

const LOCK: &str = ".kvstore-lock";
const SPOOL: &str = ".kvstore-spool";

pub(crate) fn spool_path(root: &Path, number: u64) -> PathBuf {
    root.join(SPOOL).join(number.to_string())
}

impl FsBackend {
    /// Opens the directory, creating it if it is missing and the options allow it.
    ///
    /// **Durability**: what a crash left in the journal is put in place first. Temporary files that
    /// a crash of this store or of LDK's own left are removed.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](ErrorKind::AlreadyOpen): another process, or this one, has it open.
    /// - [`Missing`](ErrorKind::Missing): there is no directory and `create` is off.
    /// - [`Unsupported`](ErrorKind::Unsupported): files that neither layout has, both layouts at
    ///   once, or a file system that does not tell `A` from `a`. Nothing is changed.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the layout cannot be told; say which it is.
    /// - [`Corrupted`](ErrorKind::Corrupted): the journal is damaged.
    pub fn open(options: &FsOptions) -> Result<Self> {
        let root = locate(options)?;
        let lock = OwnerLock::acquire(&root.join(LOCK)).map_err(named)?;
        refuse_folded_case(&root)?;
        disk::warn_of_file_system(&root);
        let scan = layout::scan(&root, options.layout)?;
        for leftover in &scan.leftovers {
            fs::remove_file(leftover).map_err(|source| io("open", leftover, source))?;
        }
        let state_is_new = scan.files.is_empty();
        let mut state = State::default();
        let last_created = index(&mut state, scan.files);
        let mut writer = Writer {
            journal: None,
            last_sequence: 0,
            last_created,
            last_spooled: 0,
            checkpoint: None,
            _lock: lock,
        };
        replay(&root, &mut state, &mut writer)?;
        let progress = Arc::new(Progress::new(0));
        let state = Arc::new(RwLock::new(state));
        let mut checkpoint = Checkpoint {
            root: root.clone(),
            layout: scan.layout,
            state: Arc::clone(&state),
            progress: Arc::clone(&progress),
            made: HashSet::new(),
            temporaries: 0,
        };
        if state_is_new {
            // Whoever made the directory may have died before it was flushed.
            sync_ancestors(&root).map_err(named)?;
        }
        if let Some(mark) = scan.layout.mark(&root) {
            create_dir_all(&mark).map_err(named)?;
        }
        checkpoint.place(writer.last_sequence)?;
        remove_own_files(&root)?;
        let layout = scan.layout;
        let progress = Arc::new(Progress::new(writer.last_sequence));
        checkpoint.progress = Arc::clone(&progress);
        writer.checkpoint = Some(spawn(checkpoint)?);
        let options = options.clone();
        Ok(Self { root, layout, options, state, progress, writer: Mutex::new(Some(writer)) })
    }

    /// The store's directory, with symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The directory's layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    fn read_state(&self) -> Result<RwLockReadGuard<'_, State>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(closed()) } else { Ok(state) }
    }

    /// The value of an entry that is in the index, or its open file: a file is never written to
    /// once it is in place, so what is open is one whole value.
    fn content(&self, state: &State, id: &EntryId, len: u64) -> Result<Content> {
        let path = match state.pending.get(id).map(|pending| &pending.after) {
            Some(After::Value { value: Value::Inline(bytes), .. }) => {
                return Ok(Content::Bytes(bytes.clone()));
            }
            Some(After::Value { value: Value::Spooled(spooled), .. }) => {
                spool_path(&self.root, spooled.number)
            }
            _ => self.layout.file(&self.root, id),
        };
        match File::open(&path) {
            Ok(file) => Ok(Content::File(file, path, len)),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(corrupted("get", &path, "the entry's file is gone"))
            }
            Err(source) => Err(io("get", &path, source)),
        }
    }
}

enum Content {
    Bytes(Bytes),
    File(File, PathBuf, u64),
}

impl Content {
    fn read(self) -> Result<Vec<u8>> {
        let (mut file, path, len) = match self {
            Self::Bytes(bytes) => return Ok(bytes.to_vec()),
            Self::File(file, path, len) => (file, path, len),
        };
        let mut value = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        file.read_to_end(&mut value).map_err(|source| io("get", &path, source))?;
        if value.len() as u64 != len {
            let message = format!("the file has {} bytes and had {len}", value.len());
            return Err(corrupted("get", &path, &message));
        }
        Ok(value)
    }
}

fn closed() -> Error {
    error(ErrorKind::Closed, "use store", "the store was closed")
}

fn locate(options: &FsOptions) -> Result<PathBuf> {
    let path = &options.path;
    if !path.exists() {
        if !options.create {
            let message = format!("{} does not exist", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        create_dir_all(path).map_err(named)?;
    }
    if !path.is_dir() {
        let message = format!("{} is a file; name a directory", path.display());
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    path.canonicalize().map_err(|source| io("open", path, source))
}

/// Refuses a disk on which the lock file answers to another name (contract N7).
fn refuse_folded_case(root: &Path) -> Result<()> {
    if root.join(LOCK.to_uppercase()).exists() {
        let message = format!(
            "{} is on a file system that does not tell upper from lower case, so that entries \
             could replace each other; use another disk",
            root.display()
        );
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    Ok(())
}

/// Fills the index, and gives the largest creation number.
fn index(state: &mut State, mut files: Vec<Found>) -> u64 {
    files.sort_by(|a, b| (a.modified, &a.id).cmp(&(b.modified, &b.id)));
    let mut last = 0;
    for Found { id, len, modified } in files {
        let created = (modified << CREATED_SHIFT).max(last + 1);
        state.index.insert(&id, created, len);
        last = created;
    }
    last
}

/// Takes over what the journal holds and the files may not.
fn replay(root: &Path, state: &mut State, writer: &mut Writer) -> Result<()> {
    let Some(replay) = journal::read(root)? else { return Ok(()) };
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

fn read_spooled(root: &Path, spooled: &Spooled) -> Result<Bytes> {
    let path = spool_path(root, spooled.number);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            corrupted("open", &path, "the journal names it, and it is gone")
        }
        _ => io("open", &path, source),
    })?;
    if crc32fast::hash(&bytes) != spooled.crc {
        return Err(corrupted("open", &path, "the file is not what the journal names"));
    }
    Ok(bytes.into())
}

/// Removes the journal and the spool files once nothing in them is needed.
fn remove_own_files(root: &Path) -> Result<()> {
    let mut removed = false;
    // The journal first, since it names spool files.
    for name in [journal::FILE_NAME, SPOOL] {
        if removed {
            disk::sync_dir(root)?;
        }
        for name in [name.to_owned(), format!("{name}.tmp")] {
            let path = root.join(name);
            let gone =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match gone {
                Ok(()) => removed = true,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(io("close", &path, source)),
            }
        }
    }
    if removed { disk::sync_dir(root) } else { Ok(()) }
}

fn spawn(checkpoint: Checkpoint) -> Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name("kvstore-fs-place".into());
    builder.spawn(move || checkpoint.run()).map_err(|source| {
        error(ErrorKind::Unavailable, "open", "the system refuses another thread")
            .with_source(source)
    })
}

impl FsBackend {
    fn commit_in(&self, writer: &mut Writer, mutations: &[Mutation]) -> Result<()> {
        if let Some(failure) = self.progress.poison() {
            return Err(failure);
        }
        let last_created = writer.last_created;
        let mut spooled = Vec::new();
        let outcome = self.journal(writer, mutations, &mut spooled);
        match outcome {
            Ok((changes, payload)) => {
                self.show(writer.last_sequence, changes, payload);
                if self.pending_bytes() > self.options.pending_bytes {
                    self.progress.request(writer.last_sequence);
                }
                Ok(())
            }
            Err(failure) => {
                writer.last_created = last_created;
                if !failure.kind().poisons() {
                    // Nobody will ever name them; one that stays is removed at the next open.
                    spooled.iter().for_each(|path| drop(fs::remove_file(path)));
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
        spooled: &mut Vec<PathBuf>,
    ) -> Result<(Vec<Change>, Option<Spooled>)> {
        let changes = self.changes(writer, mutations, spooled)?;
        let mut payload_file = None;
        let mut payload = record::encode(&changes);
        if writer.journal.is_none() {
            let placed = writer.last_sequence;
            let journal = Journal::create(&self.root, self.options.journal_bytes, placed)?;
            self.progress.attach(journal.placer()?);
            writer.journal = Some(journal);
        }
        let Writer { journal: Some(journal), last_spooled, .. } = writer else {
            return Err(closed());
        };
        let mut kind = Kind::Inline;
        if payload.len() > journal.max_payload() {
            let content = self.spool(last_spooled, &payload, 0, spooled)?;
            payload.clear();
            record::encode_spooled(&content, &mut payload);
            kind = Kind::Spooled;
            payload_file = Some(content);
        }
        if !spooled.is_empty() {
            disk::sync_dir(&self.root.join(SPOOL))?;
        }
        if !journal.has_room(payload.len()) {
            self.progress.request(journal.last_of_active());
            self.progress.wait_for(journal.last_of_other())?;
            journal.switch();
        }
        journal.append(writer.last_sequence + 1, kind, &payload)?;
        writer.last_sequence += 1;
        Ok((changes, payload_file))
    }

    fn changes(
        &self,
        writer: &mut Writer,
        mutations: &[Mutation],
        spooled: &mut Vec<PathBuf>,
    ) -> Result<Vec<Change>> {
        let kept = self.kept(mutations);
        let mut changes = Vec::with_capacity(mutations.len());
        for (mutation, kept) in mutations.iter().zip(kept) {
            let id = mutation.id().clone();
            let after = match mutation {
                Mutation::Remove { .. } => After::Removed,
                Mutation::Put { value, renew, .. } => {
                    let kept = kept.filter(|_| !renew);
                    let created = kept.unwrap_or_else(|| next_created(&mut writer.last_created));
                    let value = self.value(writer, value, created, spooled)?;
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

    fn value(
        &self,
        writer: &mut Writer,
        value: &Bytes,
        created: u64,
        spooled: &mut Vec<PathBuf>,
    ) -> Result<Value> {
        if value.len() > MAX_VALUE_LEN {
            let len = value.len();
            let message = format!("{len} bytes are more than the {MAX_VALUE_LEN} that fit");
            return Err(error(ErrorKind::ValueTooLarge, "commit", message));
        }
        if value.len() < self.options.large_value_bytes {
            return Ok(Value::Inline(value.clone()));
        }
        self.spool(&mut writer.last_spooled, value, created, spooled).map(Value::Spooled)
    }

    /// Writes bytes to a file of their own and flushes them.
    fn spool(
        &self,
        last: &mut u64,
        bytes: &[u8],
        created: u64,
        spooled: &mut Vec<PathBuf>,
    ) -> Result<Spooled> {
        let directory = self.root.join(SPOOL);
        if !directory.is_dir() {
            create_dir_all(&directory).map_err(named)?;
        }
        *last += 1;
        let path = spool_path(&self.root, *last);
        spooled.push(path.clone());
        let file = disk::write_new(&path, bytes, created >> CREATED_SHIFT)?;
        disk::sync(&file, &path)?;
        Ok(Spooled { number: *last, len: bytes.len() as u64, crc: crc32fast::hash(bytes) })
    }

    fn show(&self, sequence: u64, changes: Vec<Change>, payload: Option<Spooled>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| state.apply(sequence, change));
        if let Some(payload) = payload {
            state.obsolete_after(sequence, payload.number);
        }
    }

    fn pending_bytes(&self) -> usize {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        // A change counts even if its value is empty, so that a bound of 0 means every group.
        state.pending_bytes + state.pending.len()
    }
}

/// A creation number above all others, of a millisecond of its own.
fn next_created(last: &mut u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(0);
    *last = now.max((*last >> CREATED_SHIFT).saturating_add(1)) << CREATED_SHIFT;
    *last
}

#[async_trait]
impl Backend for FsBackend {
    fn name(&self) -> &'static str {
        "fs"
    }

    fn blocks(&self) -> bool {
        true
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = writer.as_mut() else { return Err(closed()) };
        self.commit_in(writer, mutations)
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        let state = self.read_state()?;
        let Some(len) = state.index.get(id).map(|entry| entry.about) else { return Ok(None) };
        let content = self.content(&state, id, len)?;
        drop(state);
        content.read().map(Some)
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let state = self.read_state()?;
        let entries = state.index.after(namespace, after).take(limit);
        let entries = entries.map(|(key, entry)| {
            let value = if values {
                let content = self.content(&state, &namespace.entry(key), entry.about)?;
                Some(content.read()?)
            } else {
                None
            };
            let position = Position { created: entry.created, key: key.clone() };
            Ok(PageEntry { position, value })
        });
        entries.collect()
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let state = self.read_state()?;
        let entries = state.index.iter().map(|(id, entry)| EntryInfo {
            id,
            value_len: entry.about,
            created: entry.created,
        });
        Ok(entries.collect())
    }

    async fn close(&self) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.state.write().unwrap_or_else(PoisonError::into_inner).closed = true;
        match writer {
            Some(writer) => self.finish(writer),
            None => Ok(()),
        }
    }
}

impl FsBackend {
    /// Puts everything in place, and leaves nothing but LDK's files.
    fn finish(&self, mut writer: Writer) -> Result<()> {
        let placed = self.progress.wait_for(writer.last_sequence);
        self.progress.end();
        if let Some(checkpoint) = writer.checkpoint.take() {
            // It reports what goes wrong by itself and does not panic.
            let _ = checkpoint.join();
        }
        // What could not be put in place stays in the journal for the next open.
        placed?;
        remove_own_files(&self.root)
    }
}

impl Drop for FsBackend {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let finished = writer.map_or(Ok(()), |writer| self.finish(writer));
        if let Err(failure) = finished {
            tracing::error!(error = %failure, "the directory could not be put in order");
        }
    }
}

impl fmt::Debug for FsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FsBackend({}, {:?})", self.root.display(), self.layout)
    }
}
