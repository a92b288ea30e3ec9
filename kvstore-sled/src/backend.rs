//! The engine's facts behind the [`Backend`] trait.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use kvstore_core::local::{Directory, OwnerLock};
use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, Mutation, Namespace, PageEntry, Position, Result,
    async_trait,
};

use crate::directory::{StoreDirectory, check_parts};
use crate::encoding::{FORMAT, check_format};
use crate::engine::{Engine, SEGMENT, guarded};
use crate::error::named;
use crate::flush::{LogFiles, sync_tree};
use crate::large;
use crate::reader::Reader;
use crate::recovery::recover;
use crate::stamp;
use crate::view::View;
use crate::writer::{Writer, closed, finish_intent};
use crate::{SledOptions, batch};

/// A sled database and the files of its large values; see the crate's page.
pub struct SledBackend {
    path: PathBuf,
    values: Directory,
    /// `None` once closed. Dropped before the writer, whose lock keeps others out meanwhile.
    view: RwLock<Option<View>>,
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
}

impl SledBackend {
    /// Opens the store, creating it if it is missing and the options allow it.
    ///
    /// **Durability**: a store that exists is complete: it is made under a temporary name, flushed
    /// and renamed. After a crash sled's recovery runs here, and what it leaves is flushed before
    /// anything builds on it.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](kvstore_core::ErrorKind::AlreadyOpen): another process, or this one, has it
    ///   open.
    /// - [`Missing`](kvstore_core::ErrorKind::Missing): there is no store and `create` is off.
    /// - [`Unsupported`](kvstore_core::ErrorKind::Unsupported): another program's files, or a newer
    ///   format.
    /// - [`Corrupted`](kvstore_core::ErrorKind::Corrupted): damage that sled or its recovery sees.
    /// - [`StorageFull`](kvstore_core::ErrorKind::StorageFull): opening writes up to 4 MiB and more.
    /// - [`PermissionDenied`](kvstore_core::ErrorKind::PermissionDenied).
    pub fn open(options: &SledOptions) -> Result<Self> {
        let directory = StoreDirectory::open(options)?;
        let lock = directory.lock()?;
        let started = Self::start(&directory, options, lock);
        started.map_err(|error| about(error, directory.root().path()))
    }

    fn start(directory: &StoreDirectory, options: &SledOptions, lock: OwnerLock) -> Result<Self> {
        directory.create(options.cache_bytes)?;
        directory.report_foreign_files()?;
        let values = directory.values()?;
        let files = directory.engine()?;
        // Before sled's recovery acts on it: what a killed process wrote may be in memory alone.
        sync_tree(&files)?;
        check_parts(&files)?;
        recover(directory.root(), &files)?;
        let engine = Engine::start(files, options.cache_bytes)?;
        let view = View { engine, before: BTreeMap::new() };
        let writer = guarded("open", || {
            check_format(view.get(FORMAT)?.as_deref())?;
            let stamp = stamp::check(&view.engine, &values)?;
            large::check(&values, &view)?;
            let mut files = LogFiles::open(view.engine.directory())?;
            // What is written here is short, but may begin a segment.
            files.check_room("open", SEGMENT)?;
            batch::finish(&view.engine, &mut files, &values)?;
            finish_intent(&view)?;
            directory.settle()?;
            stamp::renew(&view.engine, &values, &mut files, stamp)?;
            large::clean(&values, &view)?;
            Writer::open(&view, files, values.try_clone().map_err(named)?, lock)
        })?;
        Ok(Self {
            path: directory.root().path().to_owned(),
            values,
            view: RwLock::new(Some(view)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// The store's directory, with symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &RwLock<Option<View>> {
        &self.view
    }

    fn reader(&self) -> Reader<'_> {
        Reader { view: &self.view, values: &self.values }
    }
}

/// Says which store an error of opening is about, where its message does not.
fn about(error: Error, path: &Path) -> Error {
    let path = path.display().to_string();
    if error.message().contains(&path) {
        return named(error);
    }
    let message = format!("{path}: {}", error.message());
    named(Error::new(error.kind(), error.operation(), message)).with_source(error)
}

#[async_trait]
impl Backend for SledBackend {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn blocks(&self) -> bool {
        true
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().ok_or_else(|| closed("commit"))?;
        writer.commit(&self.view, mutations)
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        self.reader().get(id).map_err(|error| error.with_entry(id))
    }

    /// Up to 64 entries come from one state of the store, or 4,096 without their values; between
    /// them commits may come and go. Entries that were there throughout are shown exactly once
    /// (contract L3, L6).
    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        self.reader().page(namespace, after, limit, values)
    }

    /// Up to 4,096 entries, or 1 MiB of their values, come from one state of the store. Entries that
    /// were there throughout are shown exactly once (contract L3, L11).
    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        self.reader().list_all()
    }

    async fn close(&self) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let view = self.view.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(view);
        drop(writer);
        Ok(())
    }
}

impl fmt::Debug for SledBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SledBackend({})", self.path.display())
    }
}
