//! The engine's facts behind the [`Backend`] trait.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use kvstore_core::local::{Directory, OwnerLock};
use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, Mutation, Namespace, PageEntry, Position, Result,
    async_trait,
};

use crate::SledOptions;
use crate::directory::{StoreDirectory, check_parts};
use crate::encoding::{
    Content, FORMAT, Large, Stored, VALUES, check_format, order_prefix, parse_key, parse_order_key,
    parse_value_key, value_key,
};
use crate::engine::{Engine, SEGMENT, guarded};
use crate::error::{damaged, named};
use crate::flush::{LogFiles, sync_tree};
use crate::large;
use crate::recovery::recover;
use crate::stamp;
use crate::view::View;
use crate::writer::{Writer, closed, finish_intent};

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

    /// Reads from one state of the store: no commit comes or goes meanwhile.
    fn read<T>(&self, operation: &'static str, read: impl FnOnce(&View) -> Result<T>) -> Result<T> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let view = view.as_ref().ok_or_else(|| closed(operation))?;
        guarded(operation, || read(view))
    }

    fn read_large(&self, file: File, large: Large) -> Result<Vec<u8>> {
        large::read(file, &self.values, large)
    }

    fn value(&self, stored: &[u8]) -> Result<Vec<u8>> {
        match Stored::parse(stored)?.content {
            Content::Inline(value) => Ok(value.to_vec()),
            Content::Large(large) => self.read_large(large::open(&self.values, large)?, large),
        }
    }

    fn page_of(
        &self,
        view: &View,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let prefix = order_prefix(namespace);
        let mut start = prefix.clone();
        if let Some(after) = after {
            start.extend_from_slice(&(!after.created).to_be_bytes());
        }
        let entries = view.scan(&start, &prefix).map(|found| {
            let (order, key) = found?;
            Ok(Position { created: parse_order_key(&order)?, key: parse_key(&key)? })
        });
        // Numbers are unique, so only the position itself is skipped.
        let entries = entries.filter(|position| {
            let later = |found: &Position| after.is_none_or(|after| found.created < after.created);
            position.as_ref().map_or(true, later)
        });
        entries
            .take(limit)
            .map(|position| {
                let position = position?;
                let value = values.then(|| {
                    let stored = view.get(&value_key(&namespace.entry(&position.key)))?;
                    self.value(&stored.ok_or_else(|| damaged("the creation order"))?)
                });
                Ok(PageEntry { position, value: value.transpose()? })
            })
            .collect()
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
        let key = value_key(id);
        let found = self.read("get", |view| {
            let Some(stored) = view.get(&key)? else { return Ok(None) };
            // The file is opened while no commit can remove it, and read when one may.
            let large = Stored::parse(&stored)?.large();
            let file = large.map(|large| large::open(&self.values, large)).transpose()?;
            Ok(Some((stored, large.zip(file))))
        })?;
        found
            .map(|(stored, file)| match file {
                Some((large, file)) => self.read_large(file, large),
                None => self.value(&stored),
            })
            .transpose()
            .map_err(|error| error.with_entry(id))
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        self.read("page", |view| self.page_of(view, namespace, after, limit, values))
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        self.read("list all", |view| {
            view.scan(VALUES, VALUES)
                .map(|found| {
                    let (key, value) = found?;
                    let stored = Stored::parse(&value)?;
                    let (value_len, created) = (stored.len(), stored.created);
                    Ok(EntryInfo { id: parse_value_key(&key)?, value_len, created })
                })
                .collect()
        })
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
