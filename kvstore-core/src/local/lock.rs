//! The lock file by which one process at a time owns a store of local files.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::LazyLock;

use super::Directory;
use super::directory::Identity;
use super::error::io_error;
use crate::{Error, ErrorKind, Result};

/// The right to write to a store of local files, held through a lock file (contract W1).
///
/// The system takes the lock away when the process ends, however it ends, so a crashed owner keeps
/// nobody out (W3). Dropping it removes the file, wherever its directory was moved to meanwhile.
///
/// **Limits**: programs that do not look at the lock file are not kept out, and neither are other
/// machines on network file systems without working locks.
///
/// **Source**: `flock(2)` on Unix and `LockFileEx` on Windows, by [`File::try_lock`].
#[derive(Debug)]
pub struct OwnerLock {
    directory: Directory,
    name: OsString,
    file: File,
}

impl OwnerLock {
    /// Takes the lock on the file `name` in `directory`, or fails at once.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](ErrorKind::AlreadyOpen), naming the owner.
    /// - [`Unsupported`](ErrorKind::Unsupported): something that is not a regular file has the name.
    /// - What the system says about the file.
    pub fn acquire(directory: &Directory, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        let path = directory.join(name);
        let failed = |source| io_error("lock", &path, source);
        let directory = directory.try_clone()?;
        loop {
            let mut file = directory.open_or_create_file(name).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(already_open(path, &mut file)),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // The previous owner may have removed the file after it was opened here: then somebody
            // else can lock a new one under the same name.
            if is_at(&file, &directory, name).map_err(failed)? {
                // Who holds it is a courtesy, which a full disk may refuse.
                let _ = write_owner(&mut file);
                return Ok(Self { directory, name: name.to_owned(), file });
            }
        }
    }

    /// The lock file, which is kept open and locked.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // While the lock is held, and only where `is_at` can tell the next owner about it.
        if cfg!(unix) && is_at(&self.file, &self.directory, &self.name).unwrap_or(false) {
            let _ = self.directory.remove_file(&self.name);
        }
        let _ = self.file.unlock();
    }
}

/// Tells this process from every other one, in other containers and on other hosts too, where a
/// process may have the same number.
static TOKEN: LazyLock<String> =
    LazyLock::new(|| format!("{:016x}", RandomState::new().hash_one(std::process::id())));

fn write_owner(file: &mut File) -> io::Result<()> {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(std::path::Path::file_name).unwrap_or_default();
    let (number, program) = (std::process::id(), program.to_string_lossy());
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {number} ({program}){}\n{}", host(), *TOKEN)
}

#[cfg(unix)]
fn host() -> String {
    let system = rustix::system::uname();
    format!(" on {}", system.nodename().to_string_lossy())
}

#[cfg(not(unix))]
fn host() -> String {
    String::new()
}

fn already_open(path: PathBuf, file: &mut File) -> Error {
    let mut text = String::new();
    // Who holds it is a courtesy: a lock that cannot be read is held all the same.
    let _ = file.take(400).read_to_string(&mut text);
    let mut lines = text.lines();
    let (owner, token) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let path = path.display();
    let message = if token == *TOKEN {
        format!("this process, {owner}, holds {path}; clone the store's handle instead")
    } else if owner.is_empty() {
        format!("another process holds {path}; stop it, or use another store")
    } else {
        format!("{owner} holds {path}; stop it, or use another store")
    };
    Error::new(ErrorKind::AlreadyOpen, "open", message)
}

fn is_at(file: &File, directory: &Directory, name: &OsStr) -> io::Result<bool> {
    match directory.identity_of(name) {
        Ok(named) => Ok(named == Identity::of(file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open(parent.path()).unwrap();
        (parent, directory)
    }

    /// W5: a process of the same number in another container is not this one.
    #[test]
    fn only_this_process_is_called_this_process() {
        let (parent, directory) = directory();
        let lock = OwnerLock::acquire(&directory, "lock").unwrap();
        let error = OwnerLock::acquire(&directory, "lock").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
        assert!(error.message().starts_with("this process, process "), "{error}");
        // What the owner in another container would have written.
        let file = parent.path().join("lock");
        let text = std::fs::read_to_string(&file).unwrap();
        let other: String = text.lines().next().unwrap().into();
        std::fs::write(&file, format!("{other}\n0123456789abcdef\n")).unwrap();
        let error = OwnerLock::acquire(&directory, "lock").unwrap_err();
        assert!(error.message().starts_with(&other), "{error}");
        drop(lock);
        OwnerLock::acquire(&directory, "lock").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_a_file_is_neither_followed_nor_waited_for() {
        let (parent, directory) = directory();
        let target = parent.path().join("thesis");
        std::fs::write(&target, "years of work").unwrap();
        std::os::unix::fs::symlink(&target, parent.path().join("link")).unwrap();
        std::fs::create_dir(parent.path().join("directory")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            parent.path().join("fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        for name in ["link", "directory", "fifo"] {
            let error = OwnerLock::acquire(&directory, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        }
        assert_eq!(std::fs::read(target).unwrap(), b"years of work");
    }

    /// G5: the lock file goes with its directory.
    #[test]
    fn a_directory_that_is_moved_keeps_its_lock() {
        let parent = tempfile::tempdir().unwrap();
        let (old, new) = (parent.path().join("old"), parent.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        let lock = OwnerLock::acquire(&Directory::open(&old).unwrap(), "lock").unwrap();
        std::fs::rename(&old, &new).unwrap();
        let moved = Directory::open(&new).unwrap();
        assert_eq!(OwnerLock::acquire(&moved, "lock").unwrap_err().kind(), ErrorKind::AlreadyOpen);
        drop(lock);
        assert!(!new.join("lock").exists() && !old.exists());
    }
}
