//! The directory behind the [`Backend`] trait.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kvstore_core::local::OwnerLock;
use kvstore_core::{
    Backend, EntryId, EntryInfo, Mutation, Namespace, PageEntry, Position, Result, async_trait, log,
};

use crate::layout::Layout;
use crate::open::{Opened, open};
use crate::options::FsOptions;
use crate::reader;
use crate::recovery::remove_own_files;
use crate::shared::{Shared, closed};
use crate::writer::Writer;

/// A directory in LDK's layout with a journal; see the crate's page.
pub struct FsBackend {
    shared: Arc<Shared>,
    /// `None` once closed.
    owner: Mutex<Option<Owner>>,
}

/// What is given back at the close.
struct Owner {
    writer: Writer,
    checkpointer: JoinHandle<()>,
    /// Dropped last, so that the next owner finds the files at rest.
    _lock: OwnerLock,
}

impl FsBackend {
    /// Opens the directory, creating it if it is missing and the options allow it.
    ///
    /// **Durability**: what a crash left in the journal is made durable before anything is done
    /// because of it, and then put into files; where there is no room for them, in the background. Temporary files that a crash of this
    /// store or of LDK's own left are removed, and no other files.
    ///
    /// **Limits**: opening reads the journal (16 MiB by default), the spool files that it needs, and
    /// the names of all entries into memory.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](kvstore_core::ErrorKind::AlreadyOpen): another process, or this one, has it
    ///   open.
    /// - [`Missing`](kvstore_core::ErrorKind::Missing): there is no directory, or no entry in it,
    ///   and `create` is off.
    /// - [`Unsupported`](kvstore_core::ErrorKind::Unsupported): both layouts at once, a symbolic
    ///   link among the entries, or a file system that does not tell `A` from `a`, flushes no
    ///   directories or cannot keep the order of creation. Nothing is changed.
    /// - [`InvalidInput`](kvstore_core::ErrorKind::InvalidInput): the layout cannot be told; say
    ///   which it is.
    /// - [`Corrupted`](kvstore_core::ErrorKind::Corrupted): the journal or a spool file is damaged,
    ///   or journal and files belong to different times.
    pub fn open(options: &FsOptions) -> Result<Self> {
        let Opened { shared, writer, checkpointer, lock } = open(options)?;
        let owner = Owner { writer, checkpointer, _lock: lock };
        Ok(Self { shared, owner: Mutex::new(Some(owner)) })
    }

    /// Where the store's directory was when it was opened, with symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.root.path()
    }

    /// The directory's layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.shared.layout
    }

    /// Checkpoints everything, and leaves nothing but LDK's files.
    fn finish(&self, owner: Owner) -> Result<()> {
        let checkpoint = &self.shared.checkpoint;
        let done = checkpoint.wait_for(owner.writer.last_sequence);
        checkpoint.end();
        // It reports what goes wrong by itself.
        let _ = owner.checkpointer.join();
        // What could not be checkpointed stays in the journal for the next open.
        done?;
        remove_own_files(&self.shared.root)
    }
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
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owner.as_mut().ok_or_else(closed)?;
        owner.writer.commit(&self.shared, mutations)
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        reader::get(&self.shared, id)
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        reader::page(&self.shared, namespace, after, limit, values)
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        reader::list_all(&self.shared)
    }

    async fn close(&self) -> Result<()> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.write_state().closed = true;
        match owner {
            Some(owner) => self.finish(owner),
            None => Ok(()),
        }
    }
}

impl Drop for FsBackend {
    fn drop(&mut self) {
        let owner = self.owner.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let finished = owner.map_or(Ok(()), |owner| self.finish(owner));
        if let Err(failure) = finished {
            log(|| tracing::error!(error = %failure, "the directory could not be put in order"));
        }
    }
}

impl fmt::Debug for FsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FsBackend({}, {:?})", self.path().display(), self.layout())
    }
}
