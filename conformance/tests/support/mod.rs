//! A store as simple as can be: one file for each entry, replaced by a rename.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvstore_core::local::{create_dir_all, io_error, private, sync_dir};
use kvstore_core::{
    Backend, Bytes, CreationIndex, EntryId, EntryInfo, Error, ErrorKind, Mutation, Namespace,
    PageEntry, Position, Result, async_trait,
};

/// Which flushes are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushes {
    All,
    NotTheDirectory,
    NotTheFile,
    NotAtOpen,
    /// None, but unfinished files of a crash stay.
    AllAndKeepsUnfinished,
}

pub(crate) struct Files {
    directory: PathBuf,
    flushes: Flushes,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    last_created: u64,
    index: CreationIndex<Bytes>,
}

impl Files {
    pub(crate) fn open(directory: &Path, flushes: Flushes) -> Result<Self> {
        let directory = directory.join("store");
        create_dir_all(&directory)?;
        sync_dir(directory.parent().unwrap())?;
        let mut entries = Entries::default();
        let files = fs::read_dir(&directory).map_err(|e| io_error("open", &directory, e))?;
        for file in files {
            let path = file.map_err(|e| io_error("open", &directory, e))?.path();
            if path.extension().is_some() {
                if flushes == Flushes::AllAndKeepsUnfinished {
                    continue;
                }
                fs::remove_file(&path).map_err(|e| io_error("open", &path, e))?;
            } else {
                entries.load(&path)?;
            }
        }
        // A process that was killed may have left a rename or a remove in the page cache alone.
        if flushes != Flushes::NotAtOpen {
            sync_dir(&directory)?;
        }
        Ok(Self { directory, flushes, entries: Mutex::new(entries) })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, mutation: &Mutation) -> Result<()> {
        let id = mutation.id();
        let path = self.directory.join(format!("{}+{}+{}", id.primary(), id.secondary(), id.key()));
        let mut entries = self.lock();
        match mutation {
            Mutation::Remove { .. } if entries.index.get(id).is_none() => return Ok(()),
            Mutation::Remove { .. } => {
                fs::remove_file(&path).map_err(|e| io_error("commit", &path, e))?;
                entries.index.remove(id);
            }
            Mutation::Put { value, renew, .. } => {
                let kept = entries.index.get(id).filter(|_| !renew).map(|entry| entry.created);
                let created = kept.unwrap_or(entries.last_created + 1);
                self.write(&path, created, value).map_err(|e| io_error("commit", &path, e))?;
                entries.last_created = entries.last_created.max(created);
                entries.index.insert(id, created, value.clone());
            }
        }
        if self.flushes == Flushes::NotTheDirectory { Ok(()) } else { sync_dir(&self.directory) }
    }

    /// A creation number, the length of the value, and the value.
    fn write(&self, path: &Path, created: u64, value: &[u8]) -> std::io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        let mut file: File =
            private(options.write(true).create(true).truncate(true)).open(&temporary)?;
        file.write_all(&created.to_le_bytes())?;
        file.write_all(&(value.len() as u64).to_le_bytes())?;
        file.write_all(value)?;
        if self.flushes != Flushes::NotTheFile {
            file.sync_all()?;
        }
        fs::rename(temporary, path)
    }
}

impl Entries {
    fn load(&mut self, path: &Path) -> Result<()> {
        let bytes = fs::read(path).map_err(|error| io_error("open", path, error))?;
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let whole = number(8) == Some(bytes.len().saturating_sub(16) as u64);
        let created = number(0).filter(|_| whole);
        let created = created.ok_or_else(|| {
            Error::new(ErrorKind::Corrupted, "open", format!("{} is torn", path.display()))
        })?;
        let name = path.file_name().unwrap().to_string_lossy();
        let names: Vec<_> = name.split('+').collect();
        let id = EntryId::new(names[0], names[1], names[2])?;
        self.last_created = self.last_created.max(created);
        self.index.insert(&id, created, Bytes::copy_from_slice(&bytes[16..]));
        Ok(())
    }
}

#[async_trait]
impl Backend for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn blocks(&self) -> bool {
        true
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        mutations.iter().try_for_each(|mutation| self.apply(mutation))
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().index.get(id).map(|entry| entry.about.to_vec()))
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let entries = self.lock();
        let page = entries.index.after(namespace, after).take(limit);
        let page = page.map(|(key, entry)| PageEntry {
            position: Position { created: entry.created, key: key.clone() },
            value: values.then(|| entry.about.to_vec()),
        });
        Ok(page.collect())
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let entries = self.lock();
        let all = entries.index.iter().map(|(id, entry)| EntryInfo {
            id,
            value_len: entry.about.len() as u64,
            created: entry.created,
        });
        Ok(all.collect())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
