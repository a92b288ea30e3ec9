//! The store's directory: what lies in it, and how a store is created there.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind::NotFound};

use kvstore_core::local::{Directory, NodeKind, OwnerLock};
use kvstore_core::{ErrorKind, Result, log};

use crate::SledOptions;
use crate::encoding::{FORMAT, FORMAT_NAME};
use crate::engine::Engine;
use crate::error::{self, error, io, named};
use crate::flush::sync_tree;
use crate::scratch;

/// The directory of a store, held open: wherever it is moved to, it stays the same one.
pub(crate) struct StoreDirectory(Directory);

const LOCK: &str = ".kvstore-lock";
const ENGINE: &str = "engine";
const CREATING: &str = "engine.creating";
const VALUES: &str = "values";
/// Where recovery works; see [`recovery`](crate::recovery).
pub(crate) const RECOVERING: &str = ".kvstore-recovering";

impl StoreDirectory {
    /// Opens the directory that the options name, and creates it if they allow that.
    pub(crate) fn open(options: &SledOptions) -> Result<Self> {
        let path = &options.path;
        let directory = match options.create {
            true => Directory::open_or_create(path),
            false => Directory::open(path),
        };
        let directory = Self(directory.map_err(named)?);
        if !directory.has_store()? {
            if !options.create {
                let message = format!("{} holds no store of this kind", path.display());
                return Err(error(ErrorKind::Missing, "open", message));
            }
            directory.refuse_foreign_files()?;
        }
        Ok(directory)
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Directory {
        &self.0
    }

    /// Takes the right to write.
    pub(crate) fn lock(&self) -> Result<OwnerLock> {
        OwnerLock::acquire(&self.0, LOCK).map_err(named)
    }

    /// The directory of sled's files.
    pub(crate) fn engine(&self) -> Result<Directory> {
        self.part(ENGINE)
    }

    /// The directory of the values that have files of their own.
    pub(crate) fn values(&self) -> Result<Directory> {
        self.part(VALUES)
    }

    fn part(&self, name: &'static str) -> Result<Directory> {
        self.0.subdirectory(name).map_err(|source| match source.kind() {
            NotFound => error::missing(&self.0.join(name)),
            _ => io("open", &self.0.join(name), source),
        })
    }

    fn has_store(&self) -> Result<bool> {
        self.0.has(ENGINE).map_err(|source| io("open", &self.0.join(ENGINE), source))
    }

    /// Without a store in it, a directory with something else is another program's, and values
    /// without the rest are what is left of a store.
    fn refuse_foreign_files(&self) -> Result<()> {
        if let Some(name) = self.foreign_names()?.into_iter().find(|name| !is_of_the_system(name)) {
            let message = format!(
                "{} is not of a store of this kind; name a directory of its own",
                self.0.join(name).display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        let values = self.0.join(VALUES);
        let failed = |source| io("open", &values, source);
        match self.0.subdirectory(VALUES) {
            Err(source) if source.kind() == NotFound => Ok(()),
            Err(source) => Err(failed(source)),
            Ok(directory) if directory.nodes().map_err(failed)?.next().is_none() => Ok(()),
            Ok(_) => {
                let message = format!(
                    "{} holds values, but {} is missing; put both back from one copy",
                    values.display(),
                    self.0.join(ENGINE).display()
                );
                Err(error(ErrorKind::Corrupted, "open", message))
            }
        }
    }

    /// Says once what else lies here. It is left alone.
    pub(crate) fn report_foreign_files(&self) -> Result<()> {
        let names = self.foreign_names()?;
        if !names.is_empty() {
            let (directory, shown) = (self.0.path().display(), &names[..names.len().min(5)]);
            log(|| {
                tracing::warn!(
                    %directory, count = names.len(), ?shown,
                    "files that are not of the store are left alone"
                );
            });
        }
        Ok(())
    }

    fn foreign_names(&self) -> Result<Vec<OsString>> {
        let ours = [LOCK, ENGINE, CREATING, VALUES, RECOVERING];
        let failed = |source| io("open", self.0.path(), source);
        let mut names = Vec::new();
        for node in self.0.nodes().map_err(failed)? {
            let name = node.map_err(failed)?.name;
            if !ours.iter().any(|ours| name == **ours) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Creates a store if there is none.
    ///
    /// sled would leave half of one behind if it were interrupted, and not open that again. So it
    /// is made under another name, flushed, and renamed.
    pub(crate) fn create(&self, cache_bytes: u64) -> Result<()> {
        // What a crash left; nothing was ever stored in it.
        self.remove_half_made()?;
        if self.has_store()? {
            return Ok(());
        }
        let made = self.make_engine(cache_bytes).and_then(|()| {
            create_subdirectory(&self.0, VALUES)?;
            self.0.sync().map_err(named)?;
            self.0
                .rename(CREATING, ENGINE)
                .map_err(|source| io("create", &self.0.join(ENGINE), source))
        });
        if let Err(error) = made {
            self.remove_half_made()?;
            return Err(error);
        }
        let directory = self.0.path().display();
        log(|| tracing::info!(%directory, "created a new store"));
        Ok(())
    }

    fn remove_half_made(&self) -> Result<()> {
        scratch::remove(&self.0, CREATING)
    }

    fn make_engine(&self, cache_bytes: u64) -> Result<()> {
        create_subdirectory(&self.0, CREATING)?;
        let directory = self.part(CREATING)?;
        create_subdirectory(&directory, "blobs")?;
        // sled opens files that are there; it would make them for everybody to read.
        for name in ["db", "conf"] {
            let created = directory.create_file(name);
            created.map_err(|source| io("create", &directory.join(name), source))?;
        }
        let engine = Engine::start(directory.try_clone().map_err(named)?, cache_bytes)?;
        let marked = engine.tree().insert(FORMAT, FORMAT_NAME).and_then(|_| engine.flush());
        marked.map_err(|source| error::engine("create", source))?;
        drop(engine);
        sync_tree(&directory)
    }

    /// Makes durable what this owner goes on from: a process that was killed may have left in the
    /// page cache what it never flushed, and sled does not flush what it makes at open.
    pub(crate) fn settle(&self) -> Result<()> {
        sync_tree(&self.engine()?)?;
        self.values()?.sync().map_err(named)?;
        self.0.sync().map_err(named)
    }
}

/// Whether the system or a desktop puts such a file into every directory or volume. A file of a
/// store of another kind is not one.
fn is_of_the_system(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name == "lost+found" || (name.starts_with('.') && !name.starts_with(".kvstore"))
}

/// Fails unless sled's files are there: it would make new ones for those that are missing.
pub(crate) fn check_parts(engine: &Directory) -> Result<()> {
    let failed = |name: &str, source: io::Error| match source.kind() {
        NotFound => error::missing(&engine.join(name)),
        _ => io("open", &engine.join(name), source),
    };
    for name in ["db", "conf"] {
        engine.open_file(name).map_err(|source| failed(name, source))?;
    }
    match engine.subdirectory("blobs") {
        // It is empty, and copies of directories are often made without empty ones.
        Err(source) if source.kind() == NotFound => create_subdirectory(engine, "blobs"),
        found => found.map(drop).map_err(|source| failed("blobs", source)),
    }
}

/// The names of the files in a directory, those apart that no store gives.
pub(crate) fn names_of_files(directory: &Directory) -> Result<Vec<String>> {
    let failed = |source: io::Error| io("open", directory.path(), source);
    let mut names = Vec::new();
    for node in directory.nodes().map_err(failed)? {
        let node = node.map_err(failed)?;
        if node.kind == NodeKind::File
            && let Some(name) = node.name.to_str()
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Creates a directory, unless it is there already.
pub(crate) fn create_subdirectory(directory: &Directory, name: &'static str) -> Result<()> {
    match directory.create_subdirectory(name) {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            let found = directory.subdirectory(name);
            found.map(drop).map_err(|_| io("create", &directory.join(name), source))
        }
        created => created.map_err(|source| io("create", &directory.join(name), source)),
    }
}
