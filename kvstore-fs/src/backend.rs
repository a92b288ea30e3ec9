//! The directory behind the [`Backend`] trait.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use kvstore_core::local::{OwnerLock, create_dir_all, sync_ancestors};
use kvstore_core::{
    Backend, Bytes, EntryId, EntryInfo, Error, ErrorKind, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};

use crate::checkpoint::{Checkpoint, Progress};
use crate::disk;
use crate::error::{corrupted, error, io, named};
use crate::journal;
use crate::layout::{self, Layout};
use crate::options::FsOptions;
use crate::record::{After, Value};
use crate::recovery::{index, remove_own_files, replay};
use crate::spool::spool_path;
use crate::state::State;
use crate::writer::Writer;

/// A directory in LDK's layout with a journal; see the crate's page.
pub struct FsBackend {
    pub(crate) root: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) options: FsOptions,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) progress: Arc<Progress>,
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
}

const LOCK: &str = ".kvstore-lock";

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
        let journaled = journal::read(&root)?;
        let known = journaled.as_ref().map(|replay| replay.layout);
        let scan = layout::scan(&root, known, options.layout)?;
        if !options.create && scan.files.is_empty() && journaled.is_none() {
            let message = format!("{} holds no entries of a store", root.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        for leftover in &scan.leftovers {
            fs::remove_file(leftover).map_err(|source| io("open", leftover, source))?;
        }
        // Whoever made the directory may have died before that was flushed.
        sync_ancestors(&root).map_err(named)?;
        let mut state = State::default();
        let mut writer = Writer::new(&root, index(&mut state, scan.files), lock);
        replay(&root, journaled, &mut state, &mut writer)?;
        let state = Arc::new(RwLock::new(state));
        let progress = Arc::new(Progress::new(writer.last_sequence));
        let mut checkpoint = Checkpoint {
            root: root.clone(),
            layout: scan.layout,
            state: Arc::clone(&state),
            progress: Arc::clone(&progress),
            made: HashSet::new(),
            temporaries: 0,
        };
        checkpoint.place(writer.last_sequence)?;
        remove_own_files(&root)?;
        writer.checkpoint = Some(spawn(checkpoint)?);
        let (layout, options) = (scan.layout, options.clone());
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

pub(crate) fn closed() -> Error {
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

fn spawn(checkpoint: Checkpoint) -> Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name("kvstore-fs-place".into());
    builder.spawn(move || checkpoint.run()).map_err(|source| {
        error(ErrorKind::Unavailable, "open", "the system refuses another thread")
            .with_source(source)
    })
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
