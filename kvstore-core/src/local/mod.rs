//! What backends that keep local files have in common: an open directory, one owner, flushes, and
//! the system's errors.

mod directory;
mod error;
mod lock;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

pub use directory::{Directory, Identity, Node, NodeKind};
pub use error::{flush_error, io_error};
pub use lock::OwnerLock;

use crate::Result;

/// Lets a file be created for its owner only (contract S1).
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Creates a directory and its missing parents for their owner only, each of them durable before
/// the next (contract P1, S1).
///
/// The directory in which the first one is made may be somebody else's: if its file system cannot
/// flush directories, that is not an error.
///
/// # Errors
/// What the system says, with the path that it is about, and
/// [`InDoubt`](crate::ErrorKind::InDoubt) if a flush fails.
pub fn create_dir_all(path: &Path) -> Result<()> {
    make_directories(path).map(drop)
}

/// Whether `path` was made, or was there.
fn make_directories(path: &Path) -> Result<bool> {
    if path.as_os_str().is_empty() {
        return Ok(false);
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(false),
        Ok(_) => {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(io_error("create directory", path, source));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("create directory", path, error)),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent_is_ours = make_directories(parent)?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if !path.is_dir() => return Err(io_error("create directory", path, error)),
        _ if parent_is_ours => sync_dir(parent)?,
        _ => {
            let file = File::open(parent).map_err(|error| io_error("flush", parent, error))?;
            sync_of_others(&file, parent)?;
        }
    }
    Ok(true)
}

/// Makes the names in a directory durable; see [`Directory::sync`].
///
/// # Errors
/// As [`Directory::sync`].
pub fn sync_dir(path: &Path) -> Result<()> {
    Directory::open(path)?.sync()
}

/// Flushes a directory that this program did not make. Only a disk that fails counts.
///
/// **Source**: `fsync(2)` gives EINVAL or EROFS for directories of squashfs, proc, older CIFS and of
/// file systems that an error made read-only.
fn sync_of_others(file: &File, path: &Path) -> Result<()> {
    match file.sync_all() {
        Err(source) if is_failure_of_the_disk(&source) => Err(flush_error("flush", path, source)),
        _ => Ok(()),
    }
}

fn is_failure_of_the_disk(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
    )
}
