//! sled itself: how it is started and stopped, and what its calls do besides returning.

#[cfg(target_os = "linux")]
use std::fs::File;
use std::fs::TryLockError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kvstore_core::local::Directory;
#[cfg(target_os = "linux")]
use kvstore_core::local::Identity;
use kvstore_core::{ErrorKind, Result, log};
use sled::{Db, IVec, Tree};

use crate::error::{self, engine, error, io, missing, panicked};

/// Bytes of a segment, the unit in which sled's log grows, is cleaned and used again. It is fixed
/// when a store is made.
pub(crate) const SEGMENT: u64 = 4 << 20;

/// The longest value in bytes that stands in the tree.
///
/// sled moves a page of more than a quarter of a segment to a file of its own, which it does not
/// flush. A leaf is split beyond 16 entries and joined with another below 4, so 42 of the longest
/// values and keys are never met in one. sled's default segment would leave a tenth of this.
pub(crate) const MAX_INLINE: usize = 24 * 1024;

/// Below 256 bytes sled panics.
const MIN_CACHE: u64 = 64 << 10;

/// A running sled.
pub(crate) struct Engine {
    /// `None` only while it is dropped.
    db: Option<Db>,
    /// `None` only while it is dropped.
    path: Option<SledPath>,
    directory: Directory,
}

impl Engine {
    /// Starts sled in a directory that holds its files, or new and empty ones.
    pub(crate) fn start(directory: Directory, cache_bytes: u64) -> Result<Self> {
        let (config, path) = config(&directory, cache_bytes)?;
        let db = guarded("open", || config.open().map_err(|source| engine("open", source)))?;
        Ok(Self { db: Some(db), path: Some(path), directory })
    }

    pub(crate) fn tree(&self) -> &Tree {
        // It is `None` only in `drop`, where nobody can call this.
        self.db.as_deref().unwrap_or_else(|| unreachable!("sled is stopped"))
    }

    /// The directory of its files.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Writes what sled holds back, as far as sled goes: see [`LogFiles::sync`] for the rest.
    ///
    /// [`LogFiles::sync`]: crate::flush::LogFiles::sync
    pub(crate) fn flush(&self) -> sled::Result<usize> {
        self.tree().flush()
    }
}

fn config(directory: &Directory, cache_bytes: u64) -> Result<(sled::Config, SledPath)> {
    wait_until_free(directory)?;
    let path = SledPath::of(directory)?;
    // Without a thread that flushes now and then: every commit does.
    let config = sled::Config::new()
        .path(&path.path)
        .cache_capacity(cache_bytes.max(MIN_CACHE))
        .flush_every_ms(None)
        .segment_size(SEGMENT as usize);
    Ok((config, path))
}

/// Runs sled's recovery in a directory where it cannot go on behind its snapshot.
pub(crate) fn recover_up_to_snapshot(directory: Directory) -> Result<()> {
    let (config, path) = config(&directory, MIN_CACHE)?;
    let stopped = guarded("open", || match config.open() {
        Err(sled::Error::Io(source)) if is_barrier(&source) => Ok(()),
        Err(source) => Err(engine("open", source)),
        // An empty log has nothing to recover.
        Ok(db) => {
            drop(Engine { db: Some(db), path: None, directory: directory.try_clone()? });
            Ok(())
        }
    });
    if let Err(error) = wait_until_free(&directory) {
        // Threads of sled may still use it.
        std::mem::forget(path);
        return Err(error);
    }
    stopped
}

/// What a system says to whoever removes a directory as if it were a file.
fn is_barrier(error: &std::io::Error) -> bool {
    match error.kind() {
        std::io::ErrorKind::IsADirectory => true,
        std::io::ErrorKind::PermissionDenied => cfg!(not(target_os = "linux")),
        _ => false,
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let (db, path) = (self.db.take(), self.path.take());
        // It flushes once more and panics if that fails; what was acknowledged is flushed.
        let stopped = guarded("close", || {
            drop(db);
            Ok(())
        });
        // Threads of sled may still hold its files and even change them.
        if let Err(error) = stopped.and_then(|()| wait_until_free(&self.directory)) {
            // The path stays valid for them: the descriptor must not become another directory's.
            std::mem::forget(path);
            log(|| tracing::warn!(%error, "sled did not stop as it should"));
        }
    }
}

/// The path by which sled reaches its directory.
///
/// sled takes a path and nothing else. On Linux it is one that leads through an open descriptor, so
/// that it is the same directory after it was moved or unmounted lazily.
struct SledPath {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _descriptor: Option<File>,
}

impl SledPath {
    #[cfg(target_os = "linux")]
    fn of(directory: &Directory) -> Result<Self> {
        use std::os::fd::AsRawFd;
        let file = directory.try_clone_file();
        let file = file.map_err(|source| io("open", directory.path(), source))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let reached = File::open(&path).and_then(|reached| Identity::of(&reached)).ok();
        if reached.is_some() && reached == directory.identity().ok() {
            return Ok(Self { path, _descriptor: Some(file) });
        }
        // Without /proc.
        Ok(Self { path: directory.path().to_owned(), _descriptor: None })
    }

    #[cfg(not(target_os = "linux"))]
    fn of(directory: &Directory) -> Result<Self> {
        Ok(Self { path: directory.path().to_owned() })
    }
}

/// Calls sled, which panics over damaged files and full tables instead of returning an error.
///
/// What a panic leaves behind is not looked at again: reads start anew, and a commit that panicked
/// is in doubt and so the store's last.
pub(crate) fn guarded<T>(operation: &'static str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(operation, &*panic)))
}

/// Waits until sled's own lock is free.
///
/// sled's threads hand it back some time after the database was dropped. Our own lock file is held
/// meanwhile, so whoever keeps it for longer is a program that uses sled without it.
pub(crate) fn wait_until_free(directory: &Directory) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let data = directory.join("db");
    let file = match directory.open_file("db") {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing(&data));
        }
        Err(source) => return Err(io("open", &data, source)),
    };
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock().map_err(|source| io("open", &data, source)),
            Err(TryLockError::Error(source)) => return Err(io("open", &data, source)),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            Err(TryLockError::WouldBlock) => {
                let message = format!(
                    "another process holds {} with sled's own lock; stop it, or use another store",
                    data.display()
                );
                return Err(error(ErrorKind::AlreadyOpen, "open", message));
            }
        }
    }
}

/// A change of sled's tree: a key, and its new value or none.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Applies changes that a crash leaves as a prefix of what is given here.
pub(crate) fn apply_in_order(tree: &Tree, changes: Vec<Change>) -> Result<()> {
    for (key, value) in changes {
        match value {
            Some(value) => tree.insert(key, value),
            None => tree.remove(key),
        }
        .map_err(error::commit)?;
    }
    Ok(())
}

/// Applies changes of which a crash leaves all or none.
///
/// **Source**: `Tree::apply_batch` writes a manifest before them that names where the last one
/// ends, and sled's recovery stops at a manifest whose end is not there.
pub(crate) fn apply_together(tree: &Tree, changes: Vec<Change>) -> Result<()> {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    tree.apply_batch(batch).map_err(error::commit)
}

pub(crate) fn read(tree: &Tree, key: &[u8]) -> Result<Option<IVec>> {
    tree.get(key).map_err(|source| engine("read", source))
}
