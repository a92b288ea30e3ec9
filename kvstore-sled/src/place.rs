//! The store's directory: what lies there, how it is made, and how sled's files become durable.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kvstore_core::local::{create_dir_all, private, sync_ancestors, sync_dir};
use kvstore_core::{ErrorKind, Result};

use crate::SledOptions;
use crate::encoding::{FORMAT, FORMAT_NAME};
use crate::engine::{Engine, SEGMENT};
use crate::error::{self, error, flush, io, named};

/// The directory of a store.
pub(crate) struct Place(PathBuf);

const LOCK: &str = ".kvstore-lock";
const ENGINE: &str = "engine";
const CREATING: &str = "engine.creating";
const VALUES: &str = "values";

impl Place {
    /// The directory that the options name, created if it may be, with symbolic links resolved so
    /// that two ways to it meet at one lock.
    pub(crate) fn locate(options: &SledOptions) -> Result<Self> {
        let path = &options.path;
        if path.exists() && !path.is_dir() {
            let message = format!("{} is a file; name a directory", path.display());
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        if !options.create && !path.join(ENGINE).exists() {
            let message = format!("{} holds no store of this kind", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        create_dir_all(path).map_err(named)?;
        let path = path.canonicalize().map_err(|source| io("open", path, source))?;
        let place = Self(path);
        place.refuse_strangers()?;
        Ok(place)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join(LOCK)
    }

    pub(crate) fn engine(&self) -> PathBuf {
        self.0.join(ENGINE)
    }

    pub(crate) fn values(&self) -> PathBuf {
        self.0.join(VALUES)
    }

    /// A directory without a store, but with something else in it, is another program's.
    fn refuse_strangers(&self) -> Result<()> {
        let ours = [LOCK, ENGINE, CREATING, VALUES];
        let failed = |source| io("open", &self.0, source);
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !name.to_str().is_some_and(|name| ours.contains(&name)) {
                let message = format!(
                    "{} is not of a store of this kind; name a directory of its own",
                    self.0.join(name).display()
                );
                return Err(error(ErrorKind::Unsupported, "open", message));
            }
        }
        Ok(())
    }

    /// Makes a store if there is none.
    ///
    /// sled would leave half of one behind if it were interrupted, and not open that again. So it
    /// is made under another name, flushed, and renamed.
    pub(crate) fn create(&self, cache_bytes: u64) -> Result<()> {
        let (creating, engine) = (self.0.join(CREATING), self.engine());
        // What a crash left; nothing was ever stored in it.
        remove_all(&creating)?;
        if engine.try_exists().map_err(|source| io("open", &engine, source))? {
            return Ok(());
        }
        let made = make(&creating, cache_bytes).and_then(|()| {
            create_dir_all(&self.values()).map_err(named)?;
            sync_ancestors(&self.0).map_err(named)?;
            fs::rename(&creating, &engine).map_err(|source| io("create", &engine, source))
        });
        if made.is_err() {
            remove_all(&creating)?;
        }
        made
    }

    /// Removes what keeps sled from opening after a crash, while sled is not running.
    ///
    /// sled takes a snapshot that it was writing for a finished one. The one before is still
    /// there, since it is removed last.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        for path in files_in(&self.engine())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("snap.") && name.ends_with(".generating") {
                fs::remove_file(&path).map_err(|source| io("open", &path, source))?;
            }
        }
        Ok(())
    }

    /// Makes durable what this owner goes on from: a process that was killed may have left in the
    /// page cache what it never flushed, and sled does not flush what it makes at open.
    pub(crate) fn settle(&self) -> Result<()> {
        sync_tree(&self.engine())?;
        sync_dir(&self.values()).map_err(named)?;
        sync_dir(&self.0).map_err(named)
    }
}

fn make(directory: &Path, cache_bytes: u64) -> Result<()> {
    create_dir(directory)?;
    create_dir(&directory.join("blobs"))?;
    // sled opens files that are there; it would make them for everybody to read.
    for name in ["db", "conf"] {
        let path = directory.join(name);
        private(OpenOptions::new().write(true).create_new(true))
            .open(&path)
            .map_err(|source| io("create", &path, source))?;
    }
    let engine = Engine::start(directory, cache_bytes)?;
    let marked = engine.tree().insert(FORMAT, FORMAT_NAME).and_then(|_| engine.flush());
    marked.map_err(|source| error::engine("create", source))?;
    drop(engine);
    sync_tree(directory)
}

fn create_dir(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| io("create", path, source))
}

fn remove_all(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(io("create", directory, source))
        }
        _ => Ok(()),
    }
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| io("open", directory, source);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

/// Closes a directory of sled to others and flushes it: files, directories, and names.
fn sync_tree(directory: &Path) -> Result<()> {
    for path in files_in(directory)? {
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            close_to_others(&path)?;
            sync_file(&path)?;
        }
    }
    sync_dir(directory).map_err(named)
}

fn sync_file(path: &Path) -> Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        // sled removes files in threads of its own.
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io("flush", path, source)),
    };
    file.sync_all().map_err(|source| flush("flush", path, source))
}

#[cfg(unix)]
fn close_to_others(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(io("open", path, source))
        }
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn close_to_others(_path: &Path) -> Result<()> {
    Ok(())
}

/// What a commit flushes, kept open.
pub(crate) struct Files {
    /// sled's log, the one file that a commit writes to.
    data: File,
    data_path: PathBuf,
    blobs: PathBuf,
    /// When a name was last made or removed among sled's files of large pages.
    blobs_changed: Option<SystemTime>,
}

impl Files {
    pub(crate) fn open(place: &Place) -> Result<Self> {
        let data_path = place.engine().join("db");
        let data = OpenOptions::new().read(true).write(true).open(&data_path);
        let data = data.map_err(|source| io("open", &data_path, source))?;
        let blobs = place.engine().join("blobs");
        let blobs_changed = changed(&blobs)?;
        Ok(Self { data, data_path, blobs, blobs_changed })
    }

    /// Makes durable what sled's `flush` has handed to the system.
    ///
    /// The log is all that a commit writes, as long as no page outgrows a quarter of a segment;
    /// should one do so all the same, its file is flushed as well.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let blobs_changed = changed(&self.blobs)?;
        if blobs_changed != self.blobs_changed {
            sync_tree(&self.blobs)?;
            self.blobs_changed = blobs_changed;
        }
        self.data.sync_data().map_err(|source| flush("commit", &self.data_path, source))
    }

    /// Fails while nothing has happened yet if the disk has no room for a commit of so many bytes:
    /// sled stops for good when its log cannot grow. Who takes the room in between, or a quota, is
    /// not seen.
    ///
    /// A leaf of up to 17 entries is written anew with every tenth change of it, and so are leaves
    /// that are split; the log goes on in whole segments.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        let failed = |source| io("commit", &self.data_path, source);
        let needed = 2 * SEGMENT + (4 * bytes).next_multiple_of(SEGMENT);
        let free = free_bytes(&self.data).map_err(failed)?;
        if free < needed {
            let message = format!(
                "{}: sled may need {needed} bytes for this, and {free} are free; make room on the \
                 disk and try again",
                self.data_path.display()
            );
            return Err(error(ErrorKind::StorageFull, "commit", message));
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn free_bytes(file: &File) -> std::io::Result<u64> {
    let disk = rustix::fs::fstatvfs(file)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn free_bytes(_file: &File) -> std::io::Result<u64> {
    Ok(u64::MAX)
}

fn changed(directory: &Path) -> Result<Option<SystemTime>> {
    let metadata = fs::metadata(directory).map_err(|source| io("commit", directory, source))?;
    Ok(metadata.modified().ok())
}
