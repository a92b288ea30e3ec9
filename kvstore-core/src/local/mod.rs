//! What backends that keep local files have in common: one owner, private directories, flushes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// The right to write to a store of local files, held through a lock file (contract W1).
///
/// The system takes the lock away when the process ends, however it ends, so a crashed owner keeps
/// nobody out (W3). Dropping it removes the file.
///
/// **Limits**: programs that do not look at the lock file are not kept out, and neither are other
/// machines on network file systems without working locks.
///
/// **Source**: `flock(2)` on Unix and `LockFileEx` on Windows, by [`File::try_lock`].
#[derive(Debug)]
pub struct OwnerLock {
    path: PathBuf,
    file: File,
}

impl OwnerLock {
    /// Takes the lock, or fails at once.
    ///
    /// # Errors
    /// [`AlreadyOpen`](ErrorKind::AlreadyOpen), naming the owner; otherwise what the system says
    /// about the file.
    pub fn acquire(path: &Path) -> Result<Self> {
        let failed = |source| io_error("lock", path, source);
        loop {
            let mut file = private(OpenOptions::new().read(true).write(true).create(true))
                .open(path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(already_open(path, &mut file)),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // The previous owner may have removed the file after it was opened here: then somebody
            // else can lock a new one under the same name.
            if is_at(&file, path).map_err(failed)? {
                // Who holds it is a courtesy, which a full disk may refuse.
                let _ = write_owner(&mut file);
                return Ok(Self { path: path.to_owned(), file });
            }
        }
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // While the lock is held, and only where `is_at` can tell the next owner about it.
        // The directory may have been moved away, and another owner's file be there.
        if cfg!(unix) && is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

fn write_owner(file: &mut File) -> io::Result<()> {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name).unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {} ({})", std::process::id(), program.to_string_lossy())
}

fn already_open(path: &Path, file: &mut File) -> Error {
    let mut owner = String::new();
    // Who holds it is a courtesy: a lock that cannot be read is held all the same.
    let _ = file.take(200).read_to_string(&mut owner);
    let owner = owner.trim();
    let own = format!("process {} ", std::process::id());
    if owner.starts_with(&own) {
        let path = path.display();
        let message =
            format!("this process, {owner}, holds {path}; clone the store's handle instead");
        return Error::new(ErrorKind::AlreadyOpen, "open", message);
    }
    let owner = if owner.is_empty() { "another process" } else { owner };
    let message = format!("{owner} holds {}; stop it, or use another store", path.display());
    Error::new(ErrorKind::AlreadyOpen, "open", message)
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Lets a file be created for its owner only (contract S1).
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Creates a directory and its missing parents for their owner only, each of them durable before
/// the next (contract P1, S1).
///
/// # Errors
/// What the system says, with the path that it is about.
pub fn create_dir_all(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_dir_all(parent)?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if !path.is_dir() => Err(io_error("create directory", path, error)),
        _ => sync_dir(parent),
    }
}

/// Makes the names in a directory durable.
///
/// **Source**: `fsync(2)`: to flush a file does not flush the directory entry that leads to it.
///
/// # Errors
/// [`InDoubt`](ErrorKind::InDoubt) if the flush fails. It is not to be tried again: a second one can
/// succeed without the data.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Windows has no handle of a directory to flush.
    if cfg!(unix) {
        let directory = File::open(path).map_err(|error| io_error("flush", path, error))?;
        directory.sync_all().map_err(|source| {
            let message = format!("{}: the flush failed: {source}; check the disk", path.display());
            Error::new(ErrorKind::InDoubt, "flush", message).with_source(source)
        })?;
    }
    Ok(())
}

/// Makes durable how a new store is reached: the names in `path` and in every directory above it.
///
/// A directory that is there may have been made by a process that died before it flushed the one
/// above. Those that this user may not read were not made by one of ours.
///
/// # Errors
/// As [`sync_dir`].
pub fn sync_ancestors(path: &Path) -> Result<()> {
    let path = path.canonicalize().map_err(|error| io_error("flush", path, error))?;
    for directory in path.ancestors() {
        match sync_dir(directory) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Says what the system said about `path`.
#[must_use]
pub fn io_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        io::ErrorKind::NotFound => ErrorKind::Missing,
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
    };
    let message = format!("{}: {source}", path.display());
    Error::new(kind, operation, message).with_source(source)
}
